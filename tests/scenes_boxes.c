/* Scenes of what a detector does with boxes: anchors, matches, samples, targets, proposals. Inputs lie on coarse grids,
 * so that equal IoUs and equal scores are common. */
#include "kernels/anchors.h"
#include "kernels/assign.h"
#include "kernels/conv.h"
#include "kernels/detections.h"
#include "kernels/pick_deltas.h"
#include "kernels/proposals.h"
#include "kernels/sample_math.h"
#include "kernels/softmax_ce.h"
#include "kernels/targets.h"
#include "tests/scene.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Corners on a grid of halves; some boxes without area. */
static scene_input *grid_boxes(scene *s, const char *name, pd_shape shape, int side)
{
    scene_input *in = scene_floats(s, name, shape, 1);
    for (size_t i = 0; i < in->count; i++) {
        const float v = (float)pd_rng_below(&s->rng, (uint32_t)(2 * side + 1)) / 2;
        in->f[i] = i % 4 < 2 ? v : in->f[i - 2] + v / 2;
    }
    return in;
}

/* A pyramid of three levels; one of them is empty in variant 1. */
static pd_anchor_grid pyramid(const pd_anchor_cfg *cfg, int variant)
{
    const int h[] = {13, variant == 1 ? 0 : 7, 3}, w[] = {17, 9, 1}, stride[] = {8, 16, 32};
    pd_anchor_grid grid;
    if (pd_anchor_grid_init(&grid, cfg, 3, h, w, stride, NULL) != PD_OK) abort();
    return grid;
}

static scene_input *image_sizes(scene *s, int n)
{
    scene_input *in = scene_ints(s, "sizes", PD_SHAPE(n, 4), 40, 136);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 2; k++) {
            if (i % 2) in->i[4 * i + k] = (in->i[4 * i + k] + 7) / 8 * 8; /* anchors that end at the border */
            in->i[4 * i + 2 + k] = (in->i[4 * i + k] + 31) / 32 * 32;
        }
    return in;
}

static void anchors(scene *s, int variant)
{
    const pd_anchor_cfg cfg = variant == 1 ? pd_anchor_cfg_retina() : pd_anchor_cfg_rpn();
    const pd_anchor_grid grid = pyramid(&cfg, variant);
    scene_result(s, pd_anchors(s->tape, &grid));
}

/* 0, 1: anchors; 2: counted boxes of each image; 3: the same boxes for all, low quality; 4: no room for ground truth.
 */
static void assign(scene *s, int variant)
{
    const int n = 3, g = variant == 4 ? 0 : variant == 0 ? 70 : 5;
    const pd_anchor_cfg kind = variant == 0 ? pd_anchor_cfg_retina() : pd_anchor_cfg_rpn();
    const pd_anchor_grid grid = pyramid(&kind, variant);
    const pd_assign_cfg cfgs[] = {pd_assign_cfg_retina(),
                                  pd_assign_cfg_rpn(),
                                  pd_assign_cfg_roi(0.5f),
                                  {.pos = 0.5f, .neg = 0.25f, .low_quality = true, .border = -1},
                                  pd_assign_cfg_rpn()};
    scene_input *gt = grid_boxes(s, "gt", PD_SHAPE(n, g, 4), 90);
    scene_input *n_gt = scene_ints(s, "n_gt", PD_SHAPE(n), 0, g);
    pd_value *boxes, *count = NULL, *sizes = NULL;
    if (g) memcpy(gt->f + 8, gt->f, 4 * sizeof *gt->f); /* twins: the first one's, the last one's under low quality */
    n_gt->i[0] = g;
    n_gt->i[1] = 0;
    if (variant == 2 || variant == 3) {
        scene_input *all = grid_boxes(s, "boxes", variant == 2 ? PD_SHAPE(n, 301, 4) : PD_SHAPE(301, 4), 90);
        memcpy(all->f, gt->f, 4 * sizeof *all->f);
        boxes = all->value;
        if (variant == 2) {
            scene_input *counts = scene_ints(s, "count", PD_SHAPE(n), 0, 301);
            counts->i[0] = 301;
            count = counts->value;
        }
    } else {
        boxes = pd_anchors(s->tape, &grid);
        sizes = image_sizes(s, n)->value;
    }
    scene_result(s,
                 pd_assign(s->tape, boxes, sizes ? &grid : NULL, count, gt->value, n_gt->value, sizes, &cfgs[variant]));
}

/* The first draw, from `from` on, by which the generator refuses a number on its way to an image's sample. */
static int refusing_draw(const int *match, int a, const pd_sample_cfg *cfg, int from)
{
    int count[2] = {0, 0};
    for (int i = 0; i < a; i++) {
        count[0] += match[i] >= 0;
        count[1] += match[i] == PD_MATCH_BACKGROUND;
    }
    const int k[2] = {pd_sample_positives(cfg), cfg->num - pd_sample_positives(cfg)};
    for (;; from++) {
        pd_rng rng = pd_rng_make(cfg->seed, (uint32_t)from, cfg->stream);
        for (int kind = 0; kind < 2; kind++)
            for (int i = 0; i < k[kind]; i++) (void)pd_sample_draw(i, count[kind], &rng);
        if (pd_rng_drawn(&rng) > (uint64_t)cfg->num) return from;
    }
}

/* 0: positives and background boxes to choose from; 1: few positives; 2: all stay; 3: the first ones; 4: no boxes;
 * 5: more than a block of threads; 6: more than its warps take at once, many drawn from few; 7: the generator refuses
 * numbers; 8: nothing to choose from; 9: none wanted; 10: hardly more than a warp. */
static void sample(scene *s, int variant)
{
    static const int boxes[] = {700, 700, 700, 700, 0, 5003, 8192 + 67, 8192 + 67, 700, 700, 33},
                     num[] = {64, 64, 2000, 64, 64, 64, 2500, 64, 64, 0, 9};
    const int n = 3, a = boxes[variant];
    const pd_sample_cfg cfg = {.num = num[variant],
                               .fraction = variant == 1 ? 0.9f : 0.5f,
                               .first = variant == 3,
                               .seed = 0x123456789abcull,
                               .stream = (uint32_t)variant};
    scene_input *match = scene_ints(s, "match", PD_SHAPE(n, a), -5, 3),
                *draw = scene_ints(s, "draw", PD_SHAPE(n), 0, 999);
    for (size_t i = 0; i < match->count; i++)
        if (match->i[i] < PD_MATCH_IGNORED || (variant == 1 && i % 16)) match->i[i] = PD_MATCH_BACKGROUND;
    for (size_t i = 0; i < (size_t)a; i += 2) match->i[i] = PD_MATCH_IGNORED; /* of the first image */
    for (size_t i = 0; i < match->count && variant == 8; i++) match->i[i] = PD_MATCH_IGNORED;
    for (int i = 0; i < n && variant == 7; i++)
        draw->i[i] = refusing_draw(match->i + i * a, a, &cfg, i ? draw->i[i - 1] + 1 : 0);
    scene_result(s, pd_sample(s->tape, match->value, draw->value, &cfg));
}

/* Every norm, with groups that do not divide the batch; 3: without labels; 4: no boxes. */
static void targets(scene *s, int variant)
{
    static const pd_norm norms[] = {PD_NORM_POSITIVES, PD_NORM_SAMPLES, PD_NORM_ALL, PD_NORM_SAMPLES, PD_NORM_ALL};
    const int n = 5, g = 6, k = variant == 3 ? 1 : 9, a = variant == 4 ? 0 : 8 * 256 * 4 + 77;
    scene_input *match = scene_ints(s, "match", PD_SHAPE(n, a), -2, g - 1);
    pd_value *label = variant == 3 ? NULL : scene_ints(s, "label", PD_SHAPE(n, g), 0, k - 1)->value;
    for (size_t i = 0; i < (size_t)a; i++) match->i[i] = PD_MATCH_IGNORED; /* of the first image */
    const pd_targets t = pd_match_targets(s->tape, match->value, label, k, norms[variant], 2);
    scene_result(s, t.label);
    scene_result(s, t.count);
    scene_result(s, t.weight);
}

/* A feature map that holds an input's very numbers, in as many bits as maps have. */
static pd_value *exact_map(scene *s, const char *name, int n, int h, int w, int c, int lo, int hi)
{
    const pd_param ones = {
        .rank = 4, .dim = {c, 1, 1, 1}, .kind = PD_WEIGHT, .layout = PD_LAYOUT_CONV, .init = {PD_INIT_CONST, 1}};
    const pd_conv_args args = {.stride = 1, .groups = c};
    scene_input *in = scene_floats(s, name, PD_SHAPE(n, h, w, c), 1);
    for (size_t i = 0; i < in->count; i++) /* eight bits hold them */
        in->f[i] = (float)(lo + (int)pd_rng_below(&s->rng, (uint32_t)(hi - lo + 1))) / 32;
    return pd_conv(s->tape, name, in->value, pd_tape_param(s->tape, pd_tape_name(s->tape, "%s.ones", name), &ones),
                   NULL, NULL, args);
}

/* 0: levels cut and entire, boxes moved by level; 1: classes compared, one level of few; 2: fewer kept than left;
 * 3: a level of more than a block's pass; nothing is cut; 4: no box has an area; 5, 6: 64 and 65 candidates, all within
 * the image; 7: a level is cut to several stretches, in more words than a block strikes out at once; 8:
 * a long level of three scores. */
static void proposals(scene *s, int variant)
{
    static const int pre_nms[] = {100, 100, 100, 6000, 100, 26, 28, 9000, 5000},
                     fine[] = {13, 13, 13, 40, 13, 13, 13, 56, 60},
                     max_keep[] = {150, 150, 20, 150, 150, 150, 150, 9000, 150};
    static const float iou[] = {0.7f, 0.7f, 0.3f, 0.7f, 0.7f, 0.7f, 0.7f, 0.6f, 0.7f};
    const int n = variant == 3 || variant == 7 ? 1 : 2, high = variant == 8 ? 1 : 100,
              reach = variant == 5 || variant == 6 ? 8 : 24;
    const int h[] = {fine[variant], variant == 1 ? 1 : 7, variant == 5 ? 4 : 3}, w[] = {fine[variant] + 4, 9, 1};
    const int stride[] = {8, 16, 32};
    const pd_anchor_cfg kind = pd_anchor_cfg_rpn();
    const pd_proposals_cfg cfg = {.pre_nms = pre_nms[variant],
                                  .max_keep = max_keep[variant],
                                  .nms_iou = iou[variant],
                                  .nms_exact = variant == 1,
                                  .coder = pd_box_coder_unit()};
    pd_anchor_grid grid;
    pd_value *logits[3], *deltas[3];
    if (pd_anchor_grid_init(&grid, &kind, 3, h, w, stride, NULL) != PD_OK) abort();
    for (int l = 0; l < 3; l++) {
        logits[l] = exact_map(s, pd_tape_name(s->tape, "logits%d", l), n, h[l], w[l], 3, -high, high);
        deltas[l] = exact_map(s, pd_tape_name(s->tape, "deltas%d", l), n, h[l], w[l], 12, -reach, reach);
    }
    scene_input *sizes = image_sizes(s, n);
    for (size_t i = 0; i < sizes->count && variant >= 4; i++) sizes->i[i] = variant == 4 ? 0 : 600;
    const pd_proposals_out out = pd_proposals(s->tape, &grid, logits, deltas, sizes->value, &cfg);
    scene_result(s, out.boxes);
    scene_result(s, out.score);
    scene_result(s, out.count);
}

/* Two readers of the same offsets; some rows have no class. 1: no rows. */
static void pick_deltas(scene *s, int variant)
{
    const int rows = variant == 1 ? 0 : 77, k = 5;
    pd_value *deltas = variant == 1 ? scene_floats(s, "deltas", PD_SHAPE(0, 4 * k), 1)->value
                                    : scene_rows(s->tape, "deltas", rows, 4 * k);
    for (int i = 0; i < 2; i++) {
        pd_value *label = scene_ints(s, pd_tape_name(s->tape, "class%d", i), PD_SHAPE(rows), -1, k)->value;
        pd_value *target = scene_ints(s, pd_tape_name(s->tape, "target%d", i), PD_SHAPE(rows), 0, 3)->value;
        pd_value *picked = pd_pick_deltas(s->tape, deltas, label);
        scene_result(s, picked);
        if (rows) scene_loss(s, pd_softmax_ce(s->tape, picked, target, NULL, 0, NULL), 1 + i);
    }
}

/* ---- detections ---- */

static pd_value *image_scales(scene *s, int n)
{
    scene_input *in = scene_floats(s, "scales", PD_SHAPE(n, 3), 1);
    for (int i = 0; i < n; i++) {
        in->f[3 * i] = 1.5f;
        in->f[3 * i + 1] = 1.25f + (float)i;
        in->f[3 * i + 2] = (float)(i % 2); /* mirrored */
    }
    return in->value;
}

static void detections_result(scene *s, const pd_detections_out *out)
{
    scene_result(s, out->box);
    scene_result(s, out->score);
    scene_result(s, out->label);
    scene_result(s, out->count);
}

static pd_detections_cfg detections_cfg(int variant)
{
    return (pd_detections_cfg){.pre_nms = variant == 3 ? 2000 : 60,
                               .score_thresh = variant == 2 ? 0.99f : 0.3f,
                               .nms = {.iou = 0.5f, .exact = variant == 1, .max_keep = variant == 0 ? 30 : 100},
                               .soft_nms = {PD_SOFT_GAUSSIAN, 0.4f, 0.5f, 0.35f, 0},
                               .coder = {{0.5f, 0.5f, 0.5f, 0.5f}, 0}};
}

/* 0: levels cut and entire, boxes moved by class, more found than kept; 1: classes compared; 2: hardly a
 * candidate; 3: one class, nothing is cut; 4: pairs, cut and entire levels, moved; 5: pairs, more of
 * them than anchors on a level, classes compared; 6: scores fall with IoU^2; 7: pairs, scores fall with IoU. */
static void dense_detections(scene *s, int variant)
{
    const int n = 3, k = variant == 3 ? 1 : variant == 1 ? 3 : 8;
    const pd_anchor_cfg kind = pd_anchor_cfg_rpn();
    const pd_anchor_grid grid = pyramid(&kind, 0);
    pd_detections_cfg cfg = detections_cfg(variant == 5 ? 1 : variant);
    pd_value *logits[3], *deltas[3];
    cfg.pairs = variant == 4 || variant == 5 || variant == 7;
    cfg.soft = variant > 5;
    if (variant == 5) cfg.pre_nms = 400;
    if (variant == 7) cfg.soft_nms.method = PD_SOFT_LINEAR;
    for (int l = 0; l < 3; l++) {
        logits[l] = exact_map(s, pd_tape_name(s->tape, "logits%d", l), n, grid.h[l], grid.w[l], 3 * k, -120, 100);
        deltas[l] = exact_map(s, pd_tape_name(s->tape, "deltas%d", l), n, grid.h[l], grid.w[l], 12, -24, 24);
    }
    pd_value *sizes = image_sizes(s, n)->value;
    const pd_detections_out out =
        pd_dense_detections(s->tape, &grid, logits, deltas, k, sizes, image_scales(s, n), &cfg);
    detections_result(s, &out);
}

/* 0: three stages; 1: one, classes compared; 2: boxes of classes; 3: no row is used; 4: boxes of classes, scores fall.
 */
static void roi_detections(scene *s, int variant)
{
    const int n = 3, m = 70, k = 5, stages = variant == 0 ? 3 : 1;
    pd_detections_cfg cfg = detections_cfg(variant == 2 || variant == 4 ? 0 : variant);
    pd_value *logits[3];
    cfg.score_thresh = 0.05f;
    cfg.soft = variant == 4;
    cfg.soft_nms.min_score = 0.1f;
    for (int i = 0; i < stages; i++) {
        scene_input *x = scene_floats(s, pd_tape_name(s->tape, "logits%d", i), PD_SHAPE(n * m, k + 1), 1);
        for (size_t c = 0; c < x->count; c++) x->f[c] = floorf(2 * x->f[c]); /* many equal */
        logits[i] = x->value;
    }
    pd_value *boxes = grid_boxes(s, "boxes", PD_SHAPE(n, m, 4), 26)->value; /* within every image */
    pd_value *deltas =
        variant == 2 || variant == 4 ? scene_floats(s, "deltas", PD_SHAPE(n * m, 4 * k), 1)->value : NULL;
    scene_input *count = scene_ints(s, "count", PD_SHAPE(n), 0, variant == 3 ? 0 : m);
    pd_value *sizes = image_sizes(s, n)->value;
    if (variant != 3) count->i[0] = m;
    const pd_detections_out out =
        pd_roi_detections(s->tape, logits, stages, boxes, deltas, count->value, k, sizes, image_scales(s, n), &cfg);
    detections_result(s, &out);
}

static const scene_row rows[] = {
    {"anchors", anchors, 0, 0},
    {"anchors", anchors, 1, 0},
    {"assign", assign, 0, 0},
    {"assign", assign, 1, 0},
    {"assign", assign, 2, 0},
    {"assign", assign, 3, 0},
    {"assign", assign, 4, 0},
    {"sample", sample, 0, 0},
    {"sample", sample, 1, 0},
    {"sample", sample, 2, 0},
    {"sample", sample, 3, 0},
    {"sample", sample, 4, 0},
    {"sample", sample, 5, 0},
    {"sample", sample, 6, 0},
    {"sample", sample, 7, 0},
    {"sample", sample, 8, 0},
    {"sample", sample, 9, 0},
    {"sample", sample, 10, 0},
    {"targets", targets, 0, 0},
    {"targets", targets, 1, 0},
    {"targets", targets, 2, 0},
    {"targets", targets, 3, 0},
    {"targets", targets, 4, 0},
    {"proposals", proposals, 0, 0},
    {"proposals", proposals, 1, 0},
    {"proposals", proposals, 2, 0},
    {"proposals", proposals, 3, 0},
    {"proposals", proposals, 4, 0},
    {"proposals", proposals, 5, 0},
    {"proposals", proposals, 6, 0},
    {"proposals", proposals, 7, 0},
    {"proposals", proposals, 8, 0},
    {"pick_deltas", pick_deltas, 0, 0},
    {"pick_deltas", pick_deltas, 1, 0},
    {"dense_detections", dense_detections, 0, 0},
    {"dense_detections", dense_detections, 1, 0},
    {"dense_detections", dense_detections, 2, 0},
    {"dense_detections", dense_detections, 3, 0},
    {"dense_detections", dense_detections, 4, 0},
    {"dense_detections", dense_detections, 5, 0},
    {"dense_detections", dense_detections, 6, 0},
    {"dense_detections", dense_detections, 7, 0},
    {"roi_detections", roi_detections, 0, 0},
    {"roi_detections", roi_detections, 1, 0},
    {"roi_detections", roi_detections, 2, 0},
    {"roi_detections", roi_detections, 3, 0},
    {"roi_detections", roi_detections, 4, 0},
};

const scene_family scenes_boxes = {rows, sizeof rows / sizeof *rows};
