#include "kernels/cuda/detections.h"
#include "kernels/cuda/levels.h"
#include "kernels/cuda/ops.h"
#include "kernels/detections_node.h"

static pd_detections_shape shape_of(const pd_node *node, const pd_detections_cfg *cfg, int n, int rows, int k)
{
    return (pd_detections_shape){
        .cfg = *cfg, .n = n, .rows = rows, .k = k, .sizes = node->in[SIZES]->data, .scales = node->in[SCALES]->data};
}

static pd_detections_to outputs_of(const pd_node *node)
{
    return (pd_detections_to){node->out[0]->data, node->out[1]->data, node->out[2]->data, node->out[3]->data};
}

/* ---- dense heads ---- */

static pd_topk_shape top_of(const dense_args *a)
{
    pd_topk_shape top = {.n = a->n, .levels = a->grid.levels, .k = a->cfg.pre_nms};
    for (int l = 0; l < a->grid.levels; l++) top.count[l] = a->grid.first[l + 1] - a->grid.first[l];
    pd_topk_slots(&top);
    return top;
}

static pd_detections_shape dense_shape(const pd_node *node)
{
    const dense_args *a = node->args;
    pd_detections_shape s = shape_of(node, &a->cfg, a->n, a->rows, a->k);
    s.slots = a->cfg.pairs ? a->most : 0;
    return s;
}

static pd_status dense_plan(pd_node *node, pd_device *device, pd_err *err)
{
    const dense_args *a = node->args;
    const pd_topk_shape top = top_of(a);
    const pd_detections_shape s = dense_shape(node);
    (void)device;
    node->scratch_fwd = pd_dense_detections_bytes(&s, &top);
    return pd_cuda_one_store(node, HEADS, node->n_in - HEADS, err);
}

static pd_status dense_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const dense_args *a = node->args;
    const pd_topk_shape top = top_of(a);
    const pd_detections_shape s = dense_shape(node);
    const pd_detections_to to = outputs_of(node);
    const void *logits[PD_MAX_LEVELS], *deltas[PD_MAX_LEVELS];
    for (int l = 0; l < a->grid.levels; l++) {
        logits[l] = node->in[HEADS + l]->data;
        deltas[l] = node->in[HEADS + a->grid.levels + l]->data;
    }
    PD_CUDA_TRY(pd_dense_detections_fwd(&s, &top, &a->grid, logits, deltas, node->in[HEADS]->store, &to, node->scratch,
                                        pd_cuda_of(run->device)->stream),
                err);
    return PD_OK;
}

const pd_kernel pd_cuda_dense_detections = {dense_plan, dense_fwd, NULL, NULL};

/* ---- box heads ---- */

static pd_detections_shape roi_shape(const pd_node *node)
{
    const roi_args *a = node->args;
    pd_detections_shape s = shape_of(node, &a->cfg, a->n, a->m, a->k);
    s.class_boxes = node->in[DELTAS] != NULL;
    return s;
}

static pd_status roi_plan(pd_node *node, pd_device *device, pd_err *err)
{
    const pd_detections_shape s = roi_shape(node);
    (void)device;
    (void)err;
    node->scratch_fwd = pd_roi_detections_bytes(&s);
    return PD_OK;
}

static pd_status roi_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const roi_args *a = node->args;
    const pd_detections_shape s = roi_shape(node);
    const pd_detections_to to = outputs_of(node);
    pd_stage_logits logits = {.stages = a->stages};
    for (int i = 0; i < a->stages; i++) logits.at[i] = node->in[STAGES + i]->data;
    PD_CUDA_TRY(pd_roi_detections_fwd(&s, &logits, node->in[BOXES]->data,
                                      node->in[DELTAS] ? node->in[DELTAS]->data : NULL, node->in[COUNTS]->data, &to,
                                      node->scratch, pd_cuda_of(run->device)->stream),
                err);
    return PD_OK;
}

const pd_kernel pd_cuda_roi_detections = {roi_plan, roi_fwd, NULL, NULL};
