#include "kernels/cuda/targets.h"
#include "kernels/cuda/ops.h"
#include "kernels/targets_node.h"

static pd_status plan(pd_node *node, pd_device *device, pd_err *err)
{
    const targets_args *a = node->args;
    (void)device;
    (void)err;
    node->scratch_fwd = (size_t)a->n * PD_TARGETS_PARTS * sizeof(pd_targets_part);
    return PD_OK;
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const targets_args *a = node->args;
    const pd_targets_shape s = {a->n, a->boxes, a->g, a->k, a->group, a->norm};
    PD_CUDA_TRY(pd_targets_fwd(&s, node->in[MATCH]->data, node->in[GT_LABEL] ? node->in[GT_LABEL]->data : NULL,
                               node->scratch, node->out[0]->data, node->out[1]->data, node->out[2]->data,
                               pd_cuda_of(run->device)->stream),
                err);
    return PD_OK;
}

const pd_kernel pd_cuda_match_targets = {plan, fwd, NULL, NULL};
