#include "kernels/cuda/pick_deltas.h"
#include "kernels/cuda/ops.h"
#include "kernels/pick_deltas_node.h"

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const int *shape = node->in[DELTAS]->shape.dim;
    PD_CUDA_TRY(pd_pick_deltas_fwd(shape[0], shape[1] / 4, node->in[DELTAS]->data, node->in[LABEL]->data,
                                   node->out[0]->data, pd_cuda_of(run->device)->stream),
                err);
    return PD_OK;
}

static pd_status bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const int *shape = node->in[DELTAS]->shape.dim;
    if (!pd_wants_grad(node, DELTAS)) return PD_OK;
    PD_CUDA_TRY(pd_pick_deltas_bwd(shape[0], shape[1] / 4, node->out[0]->grad, node->in[LABEL]->data,
                                   node->in[DELTAS]->grad, pd_adds_grad(node, DELTAS, run),
                                   pd_cuda_of(run->device)->stream),
                err);
    return PD_OK;
}

const pd_kernel pd_cuda_pick_deltas = {NULL, fwd, bwd, NULL};
