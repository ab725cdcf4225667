#include "kernels/cuda/box_loss.h"
#include "kernels/box_loss_node.h"
#include "kernels/cuda/levels.h"
#include "kernels/cuda/ops.h"

#include <string.h>

static pd_box_maps maps_of(const pd_node *node)
{
    const box_args *a = node->args;
    pd_box_maps m = {.cfg = a->cfg,
                     .levels = a->levels,
                     .n = a->n,
                     .boxes = a->boxes,
                     .g = a->g,
                     .shared = a->shared,
                     .store = node->in[DELTAS]->store,
                     .box = node->in[BOXES]->data,
                     .gt = node->in[GT]->data,
                     .match = node->in[MATCH]->data,
                     .weight = node->in[WEIGHT]->data};
    memcpy(m.first, a->first, sizeof m.first);
    for (int l = 0; l < m.levels; l++) m.x[l] = node->in[DELTAS + l]->data;
    return m;
}

static pd_status plan(pd_node *node, pd_device *device, pd_err *err)
{
    const pd_box_maps m = maps_of(node);
    (void)device;
    node->scratch_fwd = pd_box_parts(&m) * sizeof(double);
    return pd_cuda_one_store(node, DELTAS, m.levels, err);
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const pd_box_maps m = maps_of(node);
    PD_CUDA_TRY(pd_box_fwd(&m, node->scratch, node->out[0]->data, pd_cuda_of(run->device)->stream), err);
    return PD_OK;
}

static pd_status bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    pd_box_maps m = maps_of(node);
    for (int l = 0; l < m.levels; l++)
        if (pd_wants_grad(node, DELTAS + l)) {
            m.dx[l] = node->in[DELTAS + l]->grad;
            m.add[l] = pd_adds_grad(node, DELTAS + l, run);
        }
    PD_CUDA_TRY(pd_box_bwd(&m, node->out[0]->grad, pd_cuda_of(run->device)->stream), err);
    return PD_OK;
}

const pd_kernel pd_cuda_box_loss = {plan, fwd, bwd, NULL};
