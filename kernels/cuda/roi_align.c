#include "kernels/cuda/roi_align.h"
#include "kernels/cuda/levels.h"
#include "kernels/cuda/ops.h"
#include "kernels/roi_align_node.h"

#include <string.h>

static pd_roi_maps maps_of(const pd_node *node)
{
    const roi_args *a = node->args;
    pd_roi_maps m = {.levels = a->levels,
                     .n = a->n,
                     .m = a->m,
                     .c = a->c,
                     .size = a->size,
                     .ratio = a->ratio,
                     .longest = a->longest,
                     .store = node->out[0]->store,
                     .roi = node->in[ROIS]->data,
                     .count = node->in[N_ROIS] ? node->in[N_ROIS]->data : NULL};
    memcpy(m.stride, a->stride, sizeof m.stride);
    memcpy(m.h, a->h, sizeof m.h);
    memcpy(m.w, a->w, sizeof m.w);
    for (int l = 0; l < m.levels; l++) m.x[l] = node->in[LEVELS + l]->data;
    return m;
}

static pd_status plan(pd_node *node, pd_device *device, pd_err *err)
{
    const pd_roi_maps m = maps_of(node);
    (void)device;
    node->scratch_fwd = node->scratch_bwd = pd_roi_table(&m);
    if (node->in[LEVELS]->store != m.store)
        return PD_FAIL(err, PD_EINVAL, "roi_align: maps are stored in %zu bytes an element, the result in %zu",
                       pd_store_bytes(node->in[LEVELS]->store), pd_store_bytes(m.store));
    return pd_cuda_one_store(node, LEVELS, m.levels, err);
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const pd_roi_maps m = maps_of(node);
    cudaStream_t s = pd_cuda_of(run->device)->stream;
    PD_CUDA_TRY(pd_roi_cut(&m, node->scratch, s), err);
    PD_CUDA_TRY(pd_roi_fwd(&m, node->scratch, node->out[0]->data, s), err);
    return PD_OK;
}

static pd_status bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    pd_roi_maps m = maps_of(node);
    cudaStream_t s = pd_cuda_of(run->device)->stream;
    for (int l = 0; l < m.levels; l++)
        if (pd_wants_grad(node, LEVELS + l)) {
            m.dx[l] = node->in[LEVELS + l]->grad;
            m.add[l] = pd_adds_grad(node, LEVELS + l, run);
        }
    PD_CUDA_TRY(pd_roi_cut(&m, node->scratch, s), err);
    PD_CUDA_TRY(pd_roi_bwd(&m, node->scratch, node->out[0]->grad, s), err);
    return PD_OK;
}

const pd_kernel pd_cuda_roi_align = {plan, fwd, bwd, NULL};
