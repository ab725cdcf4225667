#include "kernels/cuda/maps.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/resample.h"
#include "kernels/upsample_add_node.h"

static pd_resample sizes(const pd_node *node)
{
    const up_args *a = node->args;
    return (pd_resample){.n = (int)a->n,
                         .h = (int)a->h,
                         .w = (int)a->w,
                         .c = (int)a->c,
                         .hc = (int)a->hc,
                         .wc = (int)a->wc,
                         .store = node->out[0]->store};
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const pd_resample s = sizes(node);
    PD_CUDA_TRY(pd_upsample_add_fwd(&s, node->in[COARSE]->data, node->in[LATERAL]->data, node->out[0]->data,
                                    pd_cuda_of(run->device)->stream),
                err);
    return PD_OK;
}

static pd_status bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const pd_resample s = sizes(node);
    cudaStream_t stream = pd_cuda_of(run->device)->stream;
    if (pd_wants_grad(node, COARSE))
        PD_CUDA_TRY(pd_upsample_add_bwd(&s, node->out[0]->grad, node->in[COARSE]->grad, pd_adds_grad(node, COARSE, run),
                                        stream),
                    err);
    if (!pd_wants_grad(node, LATERAL)) return PD_OK;
    const size_t rows = (size_t)s.n * (size_t)s.h * (size_t)s.w;
    const pd_map to = pd_map_of(node->in[LATERAL]->grad, s.store, rows, s.c, s.c);
    const pd_map from = pd_map_of(node->out[0]->grad, s.store, rows, s.c, s.c);
    PD_CUDA_TRY(pd_map_copy(&to, &from, pd_adds_grad(node, LATERAL, run), stream), err);
    return PD_OK;
}

const pd_kernel pd_cuda_upsample_add = {NULL, fwd, bwd, NULL};
