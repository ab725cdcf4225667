#include "kernels/cuda/mixed_loss.h"
#include "kernels/cuda/ops.h"
#include "kernels/mixed_loss_node.h"

static pd_mixed_rows rows_of(const pd_node *node)
{
    const mixed_args *a = node->args;
    return (pd_mixed_rows){.cfg = a->cfg,
                           .rows = a->rows,
                           .k = a->k,
                           .store = node->in[LOGITS]->store,
                           .x = node->in[LOGITS]->data,
                           .a = node->in[CLASS_A]->data,
                           .b = node->in[CLASS_B]->data,
                           .share = node->in[SHARE]->data};
}

static pd_status plan(pd_node *node, pd_device *device, pd_err *err)
{
    const size_t rows = (size_t)((const mixed_args *)node->args)->rows;
    (void)device;
    (void)err;
    node->saved_bytes = rows * sizeof(pd_mixed_row);
    node->scratch_fwd = 2 * rows * sizeof(double);
    return PD_OK;
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const pd_mixed_rows m = rows_of(node);
    PD_CUDA_TRY(pd_mixed_fwd(&m, node->saved, node->scratch, node->out[0]->data, node->out[1]->data,
                             pd_cuda_of(run->device)->stream),
                err);
    return PD_OK;
}

static pd_status bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const pd_mixed_rows m = rows_of(node);
    if (!pd_wants_grad(node, LOGITS)) return PD_OK;
    PD_CUDA_TRY(pd_mixed_bwd(&m, node->saved, node->out[0]->grad, node->in[LOGITS]->grad,
                             pd_adds_grad(node, LOGITS, run), pd_cuda_of(run->device)->stream),
                err);
    return PD_OK;
}

const pd_kernel pd_cuda_mixed_loss = {plan, fwd, bwd, NULL};
