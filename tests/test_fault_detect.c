/* Out of memory, everywhere: each allocation of recording, planning and running the detectors' operations, and of the
 * post-processing, fails once; a run itself allocates nothing.
 * ctest: fault */
#include "detectors/postprocess.h"
#include "engine/plan.h"
#include "kernels/assign.h"
#include "kernels/bce_loss.h"
#include "kernels/box_loss.h"
#include "kernels/focal_loss.h"
#include "kernels/proposals.h"
#include "kernels/refine.h"
#include "kernels/roi_align.h"
#include "kernels/roi_targets.h"
#include "kernels/softmax_ce.h"
#include "kernels/targets.h"
#include "kernels/upsample_add.h"
#include "tests/fault.h"
#include "tests/pd_test.h"

enum { CLASSES = 2, GT = 3, ROWS = 6 };

static float gt_boxes[1][GT][4] = {{{2, 2, 20, 20}, {10, 4, 30, 28}, {1, 12, 9, 31}}};
static int gt_labels[1][GT] = {{0, 1, 1}}, n_gt[1] = {GT}, sizes[1][4] = {{32, 32, 32, 32}}, draw[1] = {4};

static pd_value *bound(pd_tape *t, const char *name, pd_dtype type, pd_shape shape, void *data)
{
    pd_value *v = pd_tape_input(t, name, type, shape);
    if (pd_tape_status(t, NULL) == PD_OK) pd_plan_bind(v, data);
    return v;
}

static pd_value *weight(pd_tape *t, const char *name, pd_shape shape)
{
    pd_param spec = {.rank = shape.rank, .trainable = true, .init = {PD_INIT_NORMAL, 0.1}};
    memcpy(spec.dim, shape.dim, sizeof spec.dim);
    return pd_tape_param(t, name, &spec);
}

/* A dense head and one box stage on made-up features, which are the parameters. */
static void record(pd_tape *t, const pd_anchor_grid *grid)
{
    pd_value *gt = bound(t, "gt", PD_F32, PD_SHAPE(1, GT, 4), gt_boxes);
    pd_value *label = bound(t, "label", PD_I32, PD_SHAPE(1, GT), gt_labels);
    pd_value *count = bound(t, "n_gt", PD_I32, PD_SHAPE(1), n_gt), *size = bound(t, "s", PD_I32, PD_SHAPE(1, 4), sizes);
    pd_value *draws = bound(t, "draw", PD_I32, PD_SHAPE(1), draw);
    pd_value *logits[2] = {weight(t, "l0", PD_SHAPE(1, 8, 8, 3)), weight(t, "l1", PD_SHAPE(1, 4, 4, 3))};
    pd_value *deltas[2] = {weight(t, "d0", PD_SHAPE(1, 8, 8, 12)), weight(t, "d1", PD_SHAPE(1, 4, 4, 12))};
    const pd_assign_cfg assign = pd_assign_cfg_rpn();
    const pd_sample_cfg sample = {.num = 16, .fraction = 0.5f};
    const pd_focal_cfg focal = {0.25f, 2};
    const pd_box_loss_cfg l1 = {pd_box_coder_unit(), 0};
    const pd_proposals_cfg proposals = {50, 20, 0.7f, false, pd_box_coder_unit()};
    const pd_roi_targets_cfg stage = {pd_assign_cfg_roi(0.5f), {.num = ROWS, .fraction = 0.25f}};
    pd_value *anchors = pd_anchors(t, grid);
    pd_value *match = pd_sample(t, pd_assign(t, anchors, grid, NULL, gt, count, size, &assign), draws, &sample);
    const pd_targets dense = pd_match_targets(t, match, NULL, 1, PD_NORM_SAMPLES, 2);
    pd_tape_minimise(t, pd_focal_loss(t, logits, 2, dense.label, dense.weight, 1, &focal), 1);
    pd_tape_minimise(t, pd_bce_loss(t, logits, 2, dense.label, dense.weight, 1), 1);
    pd_tape_minimise(t, pd_box_loss(t, deltas, 2, anchors, match, gt, dense.weight, &l1), 1);

    const pd_proposals_out boxes = pd_proposals(t, grid, logits, deltas, size, &proposals);
    const pd_roi_targets_out rois = pd_roi_targets(t, boxes.boxes, boxes.count, gt, count, draws, &stage);
    const pd_targets rows = pd_match_targets(t, rois.match, label, CLASSES, PD_NORM_ALL, 2);
    const int stride[1] = {4};
    pd_value *map = pd_upsample_add(t, weight(t, "top", PD_SHAPE(1, 4, 4, 3)), weight(t, "side", PD_SHAPE(1, 8, 8, 3)));
    pd_value *crop = pd_roi_align(t, &map, stride, 1, rois.rois, rois.count, 1, 0); /* (rows, 1, 1, 3): the logits */
    pd_tape_minimise(t, pd_softmax_ce(t, crop, rows.label, rows.weight, 0, NULL), 1);
    pd_refine(t, rois.rois, rois.count, weight(t, "move", PD_SHAPE(ROWS, 4)), rois.from_gt, size, &l1.coder);
}

static pd_status operations(void *arg, pd_err *err)
{
    static const int h[2] = {8, 4}, w[2] = {8, 4}, stride[2] = {4, 8};
    const pd_anchor_cfg cfg = pd_anchor_cfg_rpn();
    pd_anchor_grid grid;
    pd_device *device = NULL;
    pd_params *params = NULL;
    pd_tape *tape = NULL;
    pd_plan *plan = NULL;
    pd_status status;
    (void)arg;
    PD_TRY_DONE(pd_anchor_grid_init(&grid, &cfg, 2, h, w, stride, err));
    PD_TRY_DONE(pd_device_open(&device, "cpu", 1, err));
    PD_TRY_DONE(pd_params_new(&params, err));
    PD_TRY_DONE(pd_tape_new(&tape, params, true, err));
    record(tape, &grid);
    PD_TRY_DONE(pd_tape_status(tape, err));
    PD_TRY_DONE(pd_params_allocate(params, device, true, err));
    PD_TRY_DONE(pd_params_init(params, 1, err));
    PD_TRY_DONE(pd_plan_new(&plan, tape, device, PD_PLAN_TRAIN, NULL, err));
    const long before = pd_fault_count();
    PD_TRY_DONE(pd_plan_forward(plan, err));
    PD_TRY_DONE(pd_plan_backward(plan, false, err));
    PD_CHECK_INT(pd_fault_count(), before);
done:
    pd_plan_free(plan);
    pd_tape_free(tape);
    pd_params_free(params);
    pd_device_close(device);
    return status;
}

static pd_status retina(void *arg, pd_err *err)
{
    static const int side[1] = {4}, stride[1] = {8};
    static float logits[4 * 4 * 9 * CLASSES], deltas[4 * 4 * 9 * 4];
    const pd_anchor_cfg cfg = pd_anchor_cfg_retina();
    const pd_image_info info = {.h = 32, .w = 32, .scale_x = 1, .scale_y = 1};
    pd_postprocess_cfg post = pd_postprocess_cfg_default();
    pd_anchor_grid grid;
    pd_detection out[100];
    int count = 0;
    PD_TRY(pd_anchor_grid_init(&grid, &cfg, 1, side, side, stride, err));
    const pd_head_outputs heads = {.n = 1, .k = CLASSES, .grid = &grid, .logits = {logits}, .deltas = {deltas}};
    post.topk_mode = arg ? PD_TOPK_PAIRS : PD_TOPK_ANCHORS;
    post.pre_nms = 50;
    return pd_postprocess(out, &count, &heads, &info, &post, NULL, err);
}

static pd_status box_head(void *arg, pd_err *err)
{
    static float logits[ROWS * (CLASSES + 1)];
    static const pd_box boxes[ROWS] = {{0, 0, 9, 9}, {1, 1, 9, 9}};
    static const int rows = ROWS;
    const pd_image_info info = {.h = 32, .w = 32, .scale_x = 1, .scale_y = 1};
    const pd_postprocess_cfg post = pd_postprocess_cfg_default();
    const pd_roi_outputs heads = {
        .n = 1, .m = ROWS, .k = CLASSES, .stages = 1, .count = &rows, .logits = {logits}, .boxes = boxes};
    pd_detection out[100];
    int count = 0;
    (void)arg;
    return pd_postprocess_rois(out, &count, &heads, &info, &post, NULL, err);
}

int main(void)
{
    int pairs = 1;
    PD_CHECK(pd_fault_sweep("operations", operations, NULL, false) > 20);
    PD_CHECK(pd_fault_sweep("detections, top anchors", retina, NULL, false) > 5);
    PD_CHECK(pd_fault_sweep("detections, top pairs", retina, &pairs, false) > 5);
    PD_CHECK(pd_fault_sweep("detections of a box head", box_head, NULL, false) > 4);
    return pd_test_end();
}
