#include "kernels/cuda/gate.h"
#include "kernels/cuda/ops.h"
#include "kernels/gate_node.h"

static pd_status softmax_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const int *d = node->out[0]->shape.dim;
    PD_CUDA_TRY(pd_row_softmax_fwd(d[0], d[1], node->in[0]->data, node->out[0]->data, pd_cuda_of(run->device)->stream),
                err);
    return PD_OK;
}

static pd_status softmax_bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const int *d = node->out[0]->shape.dim;
    PD_CUDA_TRY(pd_row_softmax_bwd(d[0], d[1], node->out[0]->data, node->out[0]->grad, node->in[0]->grad,
                                   pd_adds_grad(node, 0, run), pd_cuda_of(run->device)->stream),
                err);
    return PD_OK;
}

static pd_excite_args args_of(const pd_node *node)
{
    const int *d = node->out[0]->shape.dim;
    const pd_shape ms = node->in[M]->shape;
    return (pd_excite_args){.n = d[0],
                            .h = d[1],
                            .w = d[2],
                            .c = d[3],
                            .mh = ms.rank == 2 ? 1 : ms.dim[1],
                            .mw = ms.rank == 2 ? 1 : ms.dim[2],
                            .store = node->out[0]->store,
                            .m_store = node->in[M]->store,
                            .relu = *(const bool *)node->args,
                            .x = node->in[X]->data,
                            .m = node->in[M]->data,
                            .residual = node->in[RESIDUAL] ? node->in[RESIDUAL]->data : NULL,
                            .y = node->out[0]->data,
                            .out = node->out[0]->data};
}

static pd_status excite_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const pd_excite_args e = args_of(node);
    PD_CUDA_TRY(pd_excite_fwd(&e, pd_cuda_of(run->device)->stream), err);
    return PD_OK;
}

static pd_status excite_bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    pd_excite_args e = args_of(node);
    e.dy = node->out[0]->grad;
    if (pd_wants_grad(node, X)) e.dx = node->in[X]->grad;
    if (pd_wants_grad(node, M)) e.dm = node->in[M]->grad;
    if (node->in[RESIDUAL] && pd_wants_grad(node, RESIDUAL)) e.dresidual = node->in[RESIDUAL]->grad;
    e.add_x = pd_adds_grad(node, X, run);
    e.add_m = pd_adds_grad(node, M, run);
    e.add_residual = node->in[RESIDUAL] && pd_adds_grad(node, RESIDUAL, run);
    PD_CUDA_TRY(pd_excite_bwd(&e, pd_cuda_of(run->device)->stream), err);
    return PD_OK;
}

const pd_kernel pd_cuda_row_softmax = {NULL, softmax_fwd, softmax_bwd, NULL};
const pd_kernel pd_cuda_excite = {NULL, excite_fwd, excite_bwd, NULL};
