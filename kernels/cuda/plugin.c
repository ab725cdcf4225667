/* The plugin's face: what it offers by name, and the table that is compared when it is loaded. */
#include "engine/plugin.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/ops.h"

#include <string.h>

static const struct {
    const char *name;
    const void *what;
} offers[] = {
    {"anchors", &pd_cuda_anchors},
    {"assign", &pd_cuda_assign},
    {"bce_loss", &pd_cuda_dense_loss},
    {"bn_sum", &pd_cuda_bn_sum},
    {"bn_sum_frozen", &pd_cuda_bn_sum},
    {"bn_sum_frozen_relu", &pd_cuda_bn_sum},
    {"bn_sum_relu", &pd_cuda_bn_sum},
    {"box_loss", &pd_cuda_box_loss},
    {"channel_means", &pd_cuda_channel_means},
#ifdef PD_HAVE_NCCL
    {"comm", &pd_cuda_comm},
#endif
    {"conv", &pd_cuda_conv},
    {"conv_bank", &pd_cuda_conv_bank},
    {"conv_relu", &pd_cuda_conv},
    {"dense_detections", &pd_cuda_dense_detections},
    {"excite", &pd_cuda_excite},
    {"focal_loss", &pd_cuda_dense_loss},
    {"fold_bn", &pd_cuda_fold_bn},
    {"global_avg_pool", &pd_cuda_channel_means},
    {"linear", &pd_cuda_linear},
    {"match_targets", &pd_cuda_match_targets},
    {"max_pool", &pd_cuda_max_pool},
    {"mix_conv", &pd_cuda_mix_conv},
    {"mixed_loss", &pd_cuda_mixed_loss},
    {"normalize", &pd_cuda_normalize},
    {"pick_deltas", &pd_cuda_pick_deltas},
    {"proposals", &pd_cuda_proposals},
    {"refine", &pd_cuda_refine},
    {"roi_align", &pd_cuda_roi_align},
    {"roi_detections", &pd_cuda_roi_detections},
    {"roi_targets", &pd_cuda_roi_targets},
    {"row_softmax", &pd_cuda_row_softmax},
    {"sample", &pd_cuda_sample},
    {"softmax_ce", &pd_cuda_softmax_ce},
    {"subsample", &pd_cuda_subsample},
    {"update", &pd_cuda_update},
    {"upsample_add", &pd_cuda_upsample_add},
};

const void *pd_cuda_find(pd_device *device, const char *name)
{
    (void)device;
    for (size_t i = 0; i < sizeof offers / sizeof *offers; i++)
        if (!strcmp(offers[i].name, name)) return offers[i].what;
    return NULL;
}

__attribute__((visibility("default"))) const pd_plugin *pd_plugin_cuda(void);
const pd_plugin *pd_plugin_cuda(void)
{
    static const pd_plugin plugin = {PD_PLUGIN_ABI, PD_VERSION, PD_PLUGIN_SIZES, pd_cuda_count, pd_cuda_open};
    return &plugin;
}

/* A device that only plans: for the tests, which load it by name. */
__attribute__((visibility("default"))) pd_status pd_plugin_cuda_offline(pd_device **out, const char *json, pd_err *err);
pd_status pd_plugin_cuda_offline(pd_device **out, const char *json, pd_err *err)
{
    return pd_cuda_open_offline(out, json, err);
}
