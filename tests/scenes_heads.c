/* Scenes of detectors' heads: losses, RoIAlign, the boxes of stages. */
#include "kernels/bce_loss.h"
#include "kernels/box_loss.h"
#include "kernels/focal_loss.h"
#include "kernels/mixed_loss.h"
#include "kernels/refine.h"
#include "kernels/roi_align.h"
#include "kernels/roi_targets.h"
#include "tests/scene.h"

#include <math.h>
#include <string.h>

static pd_value *weights(scene *s, const char *name, int n)
{
    scene_input *w = scene_floats(s, name, PD_SHAPE(n), 0.3);
    for (size_t i = 0; i < w->count; i++) w->f[i] = fabsf(w->f[i]) + 0.1f;
    return w->value;
}

/* ---- focal_loss, bce_loss ---- */

static void dense(scene *s, int variant, bool bce)
{
    /* two levels; boxes change within vectors of 8 (4: within some), the first level has several pieces; 3 * 7 * 2
     * logits: no vectors */
    const int k = variant == 1 ? 7 : variant == 2 ? 1 : variant == 4 ? 20 : 5, a = 2;
    const int h[] = {variant == 1 ? 5 : 42, variant == 1 ? 3 : 4}, w[] = {variant == 2 ? 160 : 20, 1};
    const int n = 2, boxes = (h[0] * w[0] + h[1] * w[1]) * a;
    pd_value *logits[] = {scene_map(s->tape, "fine", n, h[0], w[0], a * k),
                          scene_map(s->tape, "coarse", n, h[1], w[1], a * k)};
    scene_input *label = scene_ints(s, "label", PD_SHAPE(n, boxes), -1, k);
    label->i[0] = k + 3; /* beyond the classes is background too */
    const pd_focal_cfg cfg = {0.25f, variant == 1 ? 1.5f : 2.f};
    pd_value *weight = weights(s, "weight", n);
    if (bce || variant == 3) scene_loss(s, pd_bce_loss(s->tape, logits, 2, label->value, weight, k), 0.001);
    if (!bce || variant == 3) scene_loss(s, pd_focal_loss(s->tape, logits, 2, label->value, weight, k, &cfg), 0.003);
}

static void focal(scene *s, int variant)
{
    dense(s, variant, false);
}

static void bce(scene *s, int variant)
{
    dense(s, variant, true);
}

/* No image, and an image without boxes. */
static void dense_empty(scene *s, int n)
{
    const int boxes = n ? 0 : 6;
    pd_value *logits = scene_floats(s, "logits", PD_SHAPE(n, boxes / 3, 3, 8), 1)->value;
    pd_value *label = scene_ints(s, "label", PD_SHAPE(n, boxes), 0, 1)->value, *weight = weights(s, "weight", n);
    const pd_focal_cfg cfg = {0.25f, 2};
    scene_loss(s, pd_focal_loss(s->tape, &logits, 1, label, weight, 8, &cfg), 1);
    scene_loss(s, pd_bce_loss(s->tape, &logits, 1, label, weight, 8), 1);
}

/* ---- box_loss ---- */

/* 0: L1 on two levels, references shared by all images; 1: smooth, their own; 2: rows of a linear layer; 3: twice the
 * same deltas. */
static void box(scene *s, int variant)
{
    const int n = 3, a = 3, h[] = {33, 5}, w[] = {11, 1}, g = 4, levels = variant == 2 ? 1 : 2;
    const int boxes = variant == 2 ? 50 : (h[0] * w[0] + h[1] * w[1]) * a;
    pd_value *deltas[2], *weight = weights(s, "weight", n);
    if (variant == 2)
        deltas[0] = scene_rows(s->tape, "rows", n * boxes, 4);
    else
        for (int l = 0; l < 2; l++) deltas[l] = scene_map(s->tape, l ? "coarse" : "fine", n, h[l], w[l], 4 * a);
    const pd_box_loss_cfg cfg = {{{0.1f, 0.1f, 0.2f, 0.2f}, variant == 2}, variant ? 1.f / 9 : 0};
    pd_value *box = scene_boxes(s, "boxes", variant == 1 ? PD_SHAPE(n, boxes, 4) : PD_SHAPE(boxes, 4), 90)->value;
    pd_value *gt = scene_boxes(s, "gt", PD_SHAPE(n, g, 4), 90)->value;
    for (int k = 0; k < (variant == 3 ? 2 : 1); k++) {
        scene_input *match = scene_ints(s, k ? "match2" : "match", PD_SHAPE(n, boxes), -2, g - 1);
        scene_loss(s, pd_box_loss(s->tape, deltas, levels, box, match->value, gt, weight, &cfg), 0.001);
    }
}

/* No image, no box, no ground truth. */
static void box_empty(scene *s, int variant)
{
    const int n = variant == 0 ? 0 : 2, boxes = variant == 1 ? 0 : 6, g = variant == 2 ? 0 : 3;
    const pd_box_loss_cfg cfg = {pd_box_coder_unit(), 0};
    pd_value *deltas = scene_floats(s, "deltas", PD_SHAPE(n, boxes / 3, 3, 4), 1)->value;
    pd_value *box = scene_boxes(s, "boxes", PD_SHAPE(boxes, 4), 90)->value;
    pd_value *gt = scene_boxes(s, "gt", PD_SHAPE(n, g, 4), 90)->value;
    pd_value *match = scene_ints(s, "match", PD_SHAPE(n, boxes), -2, variant == 2 ? -1 : g - 1)->value;
    scene_loss(s, pd_box_loss(s->tape, &deltas, 1, box, match, gt, weights(s, "weight", n), &cfg), 1);
}

/* ---- roi_align ---- */

/* 0: 16 channels, three levels; 1: 5 channels, a fixed number of samples, all boxes used; 2: more boxes than a block
 * has threads, more channels than a slice, twice the same maps; 3: no boxes. */
static void roi(scene *s, int variant)
{
    const int stride[] = {4, 8, 16}, n = 2, c = variant == 0 ? 16 : variant == 2 ? 264 : 5;
    const int levels = variant == 2 ? 1 : 3, m = variant == 2 ? 300 : variant == 3 ? 0 : 9, size = variant == 2 ? 2 : 3;
    pd_value *map[3];
    for (int l = 0; l < levels; l++)
        map[l] = scene_map(s->tape, pd_tape_name(s->tape, "map%d", l), n, variant == 2 ? 3 : 21 >> l,
                           variant == 2 ? 5 : 30 >> l, c);
    for (int k = 0; k < (variant == 2 ? 2 : 1); k++) {
        scene_input *rois = scene_boxes(s, k ? "rois2" : "rois", PD_SHAPE(n, m, 4), variant == 2 ? 24 : 130);
        scene_input *count = scene_ints(s, k ? "count2" : "count", PD_SHAPE(n), m / 2, m);
        if (m) { /* beyond the map; inside out; far larger than the map; without size */
            const float odd[4][4] = {{-40, -9, 5, 200}, {30, 30, 10, 50}, {-5000, -3000, 9000, 7000}, {17, 17, 17, 17}};
            memcpy(rois->f, odd, sizeof odd);
        }
        pd_value *y = pd_roi_align(s->tape, map, stride, levels, rois->value, variant == 1 ? NULL : count->value, size,
                                   variant == 1 ? 2 : 0);
        pd_value *label = scene_ints(s, k ? "label2" : "label", PD_SHAPE(n * m, size * size), -1, c)->value;
        scene_result(s, y);
        scene_loss(s, pd_bce_loss(s->tape, &y, 1, label, weights(s, k ? "weight2" : "weight", n * m), c), 0.001);
    }
}

/* ---- roi_targets, refine ---- */

/* 0: drawn; 1: the first, with low quality; 2: fewer candidates than rows; 3: no proposal; 4: no ground truth; 5: no
 * image. */
static void targets(scene *s, int variant)
{
    const int n = variant == 5 ? 0 : 3, m = variant == 3 ? 0 : variant == 2 ? 20 : 1500, g = variant == 4 ? 0 : 6;
    pd_roi_targets_cfg cfg = {pd_assign_cfg_roi(0.3f), {64, 0.25f, variant == 1, 42, 1}};
    cfg.assign.low_quality = variant == 1;
    scene_input *gt = scene_boxes(s, "gt", PD_SHAPE(n, g, 4), 60);
    if (gt->count) gt->f[2] = gt->f[0]; /* one without area */
    scene_input *count = scene_ints(s, "count", PD_SHAPE(n), m / 2, m),
                *n_gt = scene_ints(s, "n_gt", PD_SHAPE(n), 0, g);
    if (n) n_gt->i[0] = g;
    const pd_roi_targets_out out =
        pd_roi_targets(s->tape, scene_boxes(s, "proposals", PD_SHAPE(n, m, 4), 60)->value, count->value, gt->value,
                       n_gt->value, scene_ints(s, "draw", PD_SHAPE(n), 0, 1 << 20)->value, &cfg);
    scene_result(s, out.rois);
    scene_result(s, out.match);
    scene_result(s, out.from_gt);
    scene_result(s, out.count);
}

/* 0: rows of a linear layer, all stay; 1: offsets stored as maps, some are dropped; 2: inclusive corners; 3: no box; 4:
 * no image. */
static void refine(scene *s, int variant)
{
    const int n = variant == 4 ? 0 : 3, m = variant == 3 ? 0 : variant == 0 ? 1300 : 37;
    const pd_box_coder coder = {{0.1f, 0.1f, 0.2f, 0.2f}, variant == 2};
    pd_value *rois = scene_boxes(s, "rois", PD_SHAPE(n, m, 4), 90)->value;
    pd_value *count = scene_ints(s, "count", PD_SHAPE(n), m / 3, m)->value;
    pd_value *deltas = variant == 1   ? scene_map(s->tape, "deltas", n, m, 1, 4)
                       : variant == 0 ? scene_rows(s->tape, "deltas", n * m, 4)
                                      : scene_floats(s, "deltas", PD_SHAPE(n, m, 4), 9)->value;
    pd_value *drop = variant ? scene_ints(s, "drop", PD_SHAPE(n, m), 0, 1)->value : NULL;
    pd_value *sizes = scene_ints(s, "sizes", PD_SHAPE(n, 4), 50, 80)->value;
    const pd_refined out = pd_refine(s->tape, rois, count, deltas, drop, sizes, &coder);
    scene_result(s, out.boxes);
    scene_result(s, out.count);
}

/* ---- mixed_loss ---- */

/* 0: softmax; 1: sigmoids, targets beyond a threshold; 2: sigmoids, one class; 3: no row; 4: two losses of the same
 * logits. */
static void mixed(scene *s, int variant)
{
    static const pd_mixed_cfg cfg[] = {
        {PD_MIXED_SOFTMAX, 0.1f, 0}, {PD_MIXED_SIGMOID, 0.1f, 0.2f}, {PD_MIXED_SIGMOID, 0, 0}};
    const int n = variant == 3 ? 0 : 40, k = variant == 2 ? 1 : variant == 1 ? 300 : 3;
    pd_value *x = n ? scene_rows(s->tape, "x", n, k) : scene_floats(s, "x", PD_SHAPE(n, k), 1)->value;
    for (int i = 0; i < (variant == 4 ? 2 : 1); i++) {
        scene_input *a = scene_ints(s, i ? "a2" : "a", PD_SHAPE(n), 0, k - 1),
                    *b = scene_ints(s, i ? "b2" : "b", PD_SHAPE(n), 0, k - 1);
        scene_input *share = scene_floats(s, i ? "share2" : "share", PD_SHAPE(1), 0);
        pd_value *correct;
        share->f[0] = variant == 1 ? 0.75f : 0.3f;
        if (n) b->i[0] = a->i[0];
        scene_loss(
            s, pd_mixed_loss(s->tape, x, a->value, b->value, share->value, &cfg[variant < 3 ? variant : i], &correct),
            1);
        scene_result(s, correct);
    }
}

/* ---- data that are out of range ---- */

static void wrong(scene *s, int variant)
{
    const int n = 2, stride = 4;
    const pd_box_loss_cfg l1 = {pd_box_coder_unit(), 0};
    const pd_mixed_cfg soft = {PD_MIXED_SOFTMAX, 0, 0};
    pd_value *map = scene_map(s->tape, "map", n, 3, 1, 4);
    if (variant == 0) { /* a match beyond the ground truths */
        pd_value *match = scene_ints(s, "match", PD_SHAPE(n, 3), 5, 5)->value;
        pd_value *boxes = scene_boxes(s, "boxes", PD_SHAPE(3, 4), 9)->value;
        pd_value *gt = scene_boxes(s, "gt", PD_SHAPE(n, 5, 4), 9)->value;
        scene_loss(s, pd_box_loss(s->tape, &map, 1, boxes, match, gt, weights(s, "weight", n), &l1), 1);
    } else if (variant == 1) { /* more boxes than there is room for */
        pd_value *rois = scene_boxes(s, "rois", PD_SHAPE(n, 2, 4), 9)->value;
        pd_value *count = scene_ints(s, "count", PD_SHAPE(n), 3, 3)->value;
        pd_value *y = pd_roi_align(s->tape, &map, &stride, 1, rois, count, 1, 0);
        pd_value *label = scene_ints(s, "label", PD_SHAPE(2 * n, 1), 0, 3)->value;
        scene_loss(s, pd_bce_loss(s->tape, &y, 1, label, weights(s, "weight", 2 * n), 4), 1);
    } else { /* a class, a share */
        pd_value *rows = scene_rows(s->tape, "x", n, 3);
        pd_value *a = scene_ints(s, "a", PD_SHAPE(n), variant == 2 ? 3 : 0, variant == 2 ? 3 : 0)->value;
        scene_input *share = scene_floats(s, "share", PD_SHAPE(1), 0);
        share->f[0] = variant == 2 ? 0.5f : 1.5f;
        scene_loss(s, pd_mixed_loss(s->tape, rows, a, a, share->value, &soft, NULL), 1);
    }
}

static const scene_row rows[] = {
    {"focal_loss", focal, 0, 0}, /* vectors, several pieces */
    {"focal_loss", focal, 1, 0}, /* single logits, gamma 1.5 */
    {"focal_loss", focal, 2, 0}, /* one class */
    {"focal_loss", focal, 4, 0}, /* vectors within a box and across two */
    {"bce_loss", bce, 0, 0},
    {"bce_loss", bce, 1, 0},
    {"focal_loss and bce_loss", bce, 3, 0}, /* two readers: one adds */
    {"focal_loss of nothing", dense_empty, 0, 0},
    {"focal_loss of nothing", dense_empty, 1, 0},
    {"box_loss", box, 0, 0},
    {"box_loss", box, 1, 0},
    {"box_loss", box, 2, 0},
    {"box_loss", box, 3, 0},
    {"box_loss of nothing", box_empty, 0, 0},
    {"box_loss of nothing", box_empty, 1, 0},
    {"box_loss of nothing", box_empty, 2, 0},
    {"roi_align", roi, 0, 0},
    {"roi_align", roi, 1, 0},
    {"roi_align", roi, 2, 0},
    {"roi_align", roi, 3, 0},
    {"roi_targets", targets, 0, 0},
    {"roi_targets", targets, 1, 0},
    {"roi_targets", targets, 2, 0},
    {"roi_targets", targets, 3, 0},
    {"roi_targets", targets, 4, 0},
    {"roi_targets", targets, 5, 0},
    {"refine", refine, 0, 0},
    {"refine", refine, 1, 0},
    {"refine", refine, 2, 0},
    {"refine", refine, 3, 0},
    {"refine", refine, 4, 0},
    {"mixed_loss", mixed, 0, 0},
    {"mixed_loss", mixed, 1, 0},
    {"mixed_loss", mixed, 2, 0},
    {"mixed_loss", mixed, 3, 0},
    {"mixed_loss", mixed, 4, 0},
};

const scene_family scenes_heads = {rows, sizeof rows / sizeof *rows};

static const scene_row wrong_rows[] = {
    {"box_loss of a wrong match", wrong, 0, 0},
    {"roi_align of a wrong count", wrong, 1, 0},
    {"mixed_loss of a wrong class", wrong, 2, 0},
    {"mixed_loss of a wrong share", wrong, 3, 0},
};

const scene_family scenes_wrong = {wrong_rows, sizeof wrong_rows / sizeof *wrong_rows};
