#include "kernels/cuda/ops.h"
#include "kernels/cuda/resample.h"
#include "kernels/subsample_node.h"

static pd_resample sizes(const pd_node *node)
{
    const sub_args *a = node->args;
    return (pd_resample){.n = (int)a->n,
                         .h = (int)a->h,
                         .w = (int)a->w,
                         .c = (int)a->c,
                         .hc = (int)a->oh,
                         .wc = (int)a->ow,
                         .stride = (int)a->stride,
                         .store = node->out[0]->store};
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const pd_resample s = sizes(node);
    PD_CUDA_TRY(pd_subsample_fwd(&s, node->in[0]->data, node->out[0]->data, pd_cuda_of(run->device)->stream), err);
    return PD_OK;
}

static pd_status bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const pd_resample s = sizes(node);
    PD_CUDA_TRY(pd_subsample_bwd(&s, node->out[0]->grad, node->in[0]->grad, pd_adds_grad(node, 0, run),
                                 pd_cuda_of(run->device)->stream),
                err);
    return PD_OK;
}

const pd_kernel pd_cuda_subsample = {NULL, fwd, bwd, NULL};
