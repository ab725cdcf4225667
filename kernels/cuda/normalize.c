#include "kernels/cuda/normalize.h"
#include "kernels/cuda/ops.h"
#include "kernels/normalize_node.h"

/* As many channels as the library's convolutions want: they read the image where it lies. */
static pd_status normalize_plan(pd_node *node, pd_device *device, pd_err *err)
{
    (void)device;
    (void)err;
    node->pad_channels = (int)(16 / pd_store_bytes(node->out[0]->store));
    return PD_OK;
}

static pd_status normalize_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const normalize_args *a = node->args;
    const pd_normalizing s = {a->n, a->h, a->w, node->out[0]->pitch, node->out[0]->store, a->norm};
    PD_CUDA_TRY(pd_normalize_images(&s, node->in[BYTES]->data, node->in[SIZES]->data, node->in[MIRROR]->data,
                                    node->out[0]->data, pd_cuda_of(run->device)->stream),
                err);
    return PD_OK;
}

const pd_kernel pd_cuda_normalize = {normalize_plan, normalize_fwd, NULL, NULL};
