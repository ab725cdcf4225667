#include "kernels/cuda/dense_loss.h"
#include "kernels/cuda/levels.h"
#include "kernels/cuda/ops.h"
#include "kernels/dense_loss_node.h"
#include "kernels/focal_loss.h"

#include <string.h>

static pd_dense_maps maps_of(const pd_node *node)
{
    const dense_node *a = node->args;
    pd_dense_maps m = {.levels = a->args.levels,
                       .k = a->args.k,
                       .n = a->args.n,
                       .boxes = a->args.boxes,
                       .focal = !strcmp(node->op->name, "focal_loss"),
                       .store = node->in[LOGITS]->store,
                       .label = node->in[LABEL]->data,
                       .weight = node->in[WEIGHT]->data};
    memcpy(m.first, a->args.first, sizeof m.first);
    if (m.focal) {
        pd_focal_cfg cfg;
        memcpy(&cfg, a->cfg, sizeof cfg);
        m.alpha = cfg.alpha;
        m.gamma = cfg.gamma;
    }
    for (int l = 0; l < m.levels; l++) m.x[l] = node->in[LOGITS + l]->data;
    return m;
}

static pd_status plan(pd_node *node, pd_device *device, pd_err *err)
{
    const pd_dense_maps m = maps_of(node);
    (void)device;
    node->scratch_fwd = pd_dense_parts(&m) * sizeof(double);
    return pd_cuda_one_store(node, LOGITS, m.levels, err);
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const pd_dense_maps m = maps_of(node);
    PD_CUDA_TRY(pd_dense_fwd(&m, node->scratch, node->out[0]->data, pd_cuda_of(run->device)->stream), err);
    return PD_OK;
}

static pd_status bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    pd_dense_maps m = maps_of(node);
    for (int l = 0; l < m.levels; l++)
        if (pd_wants_grad(node, LOGITS + l)) {
            m.dx[l] = node->in[LOGITS + l]->grad;
            m.add[l] = pd_adds_grad(node, LOGITS + l, run);
        }
    PD_CUDA_TRY(pd_dense_bwd(&m, node->out[0]->grad, pd_cuda_of(run->device)->stream), err);
    return PD_OK;
}

const pd_kernel pd_cuda_dense_loss = {plan, fwd, bwd, NULL};
