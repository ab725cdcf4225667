#include "kernels/cuda/softmax_ce.h"
#include "kernels/cuda/ops.h"
#include "kernels/softmax_ce_node.h"

static pd_ce_shape shape_of(const pd_node *node)
{
    const ce_args *a = node->args;
    return (pd_ce_shape){a->rows, a->k, a->per_weight, a->smoothing, node->in[LOGITS]->store};
}

static pd_status plan(pd_node *node, pd_device *device, pd_err *err)
{
    (void)device;
    (void)err;
    node->saved_bytes = (size_t)((const ce_args *)node->args)->rows * sizeof(pd_ce_row);
    return PD_OK;
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const pd_ce_shape s = shape_of(node);
    PD_CUDA_TRY(pd_ce_fwd(&s, node->in[LOGITS]->data, node->in[LABEL]->data,
                          node->in[WEIGHT] ? node->in[WEIGHT]->data : NULL, node->saved, node->out[0]->data,
                          node->out[1]->data, pd_cuda_of(run->device)->stream),
                err);
    return PD_OK;
}

static pd_status bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const pd_ce_shape s = shape_of(node);
    if (!pd_wants_grad(node, LOGITS)) return PD_OK;
    PD_CUDA_TRY(pd_ce_bwd(&s, node->in[LOGITS]->data, node->in[LABEL]->data, node->saved, node->out[0]->grad,
                          node->in[LOGITS]->grad, pd_adds_grad(node, LOGITS, run), pd_cuda_of(run->device)->stream),
                err);
    return PD_OK;
}

const pd_kernel pd_cuda_softmax_ce = {plan, fwd, bwd, NULL};
