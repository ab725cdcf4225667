#include "kernels/cuda/proposals.h"
#include "kernels/cuda/levels.h"
#include "kernels/cuda/ops.h"
#include "kernels/proposals_node.h"

static pd_proposals_shape shape_of(const pd_node *node)
{
    const proposals_args *a = node->args;
    pd_proposals_shape s = {
        .top = {.n = a->n, .levels = a->grid.levels, .k = a->cfg.pre_nms, .store = node->in[HEADS]->store},
        .nms = {.cfg = {a->cfg.nms_iou, a->cfg.nms_exact, a->cfg.max_keep}, .n = a->n, .room = a->room},
        .coder = a->cfg.coder};
    for (int l = 0; l < a->grid.levels; l++) {
        s.top.count[l] = a->grid.first[l + 1] - a->grid.first[l];
        s.top.scores[l] = node->in[HEADS + l]->data;
        s.deltas[l] = node->in[HEADS + a->grid.levels + l]->data;
    }
    pd_topk_slots(&s.top);
    return s;
}

static pd_status plan(pd_node *node, pd_device *device, pd_err *err)
{
    const pd_proposals_shape s = shape_of(node);
    (void)device;
    node->scratch_fwd = pd_proposals_bytes(&s);
    return pd_cuda_one_store(node, HEADS, node->n_in - HEADS, err);
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const proposals_args *a = node->args;
    const pd_proposals_shape s = shape_of(node);
    PD_CUDA_TRY(pd_proposals_fwd(&s, &a->grid, node->in[SIZES]->data, node->out[0]->data, node->out[1]->data,
                                 node->out[2]->data, node->scratch, pd_cuda_of(run->device)->stream),
                err);
    return PD_OK;
}

const pd_kernel pd_cuda_proposals = {plan, fwd, NULL, NULL};
