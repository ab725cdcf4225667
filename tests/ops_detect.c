/* check_ops rows: matching, sampling, proposals, refinement, RoIAlign. Decisions (matches, kept boxes) are compared
 * exactly; the references take them in float32, as the operations promise to. */
#include "kernels/anchors.h"
#include "kernels/assign.h"
#include "kernels/proposals.h"
#include "kernels/refine.h"
#include "kernels/roi_align.h"
#include "kernels/roi_targets.h"
#include "kernels/sample.h"
#include "kernels/targets.h"
#include "tests/check_ops.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Boxes with corners on a grid of halves, so that equal IoUs are common; some without area. */
static void draw_boxes(check_case *c, check_tensor *t, int size)
{
    if (check_draw(c, 0, 1)) size = (size + 9) / 10; /* many equal ones */
    for (size_t i = 0; i + 4 <= t->count; i += 4) {
        t->f[i] = (float)check_draw(c, 0, 2 * size) / 2;
        t->f[i + 1] = (float)check_draw(c, 0, 2 * size) / 2;
        t->f[i + 2] = t->f[i] + (float)check_draw(c, 0, size) / 2;
        t->f[i + 3] = t->f[i + 1] + (float)check_draw(c, 0, size) / 2;
    }
}

static pd_box box_at(const check_tensor *t, int i)
{
    const float *v = t->f + 4 * i;
    return (pd_box){v[0], v[1], v[2], v[3]};
}

/* ---- assign ---- */

typedef struct assign_case {
    pd_assign_cfg cfg;
    pd_anchor_grid grid;
    bool has_grid, shared, counted;
    int n, boxes, g;
} assign_case;

enum { A_GT, A_N_GT, A_BOXES, A_SIZES_OR_COUNT };

static void build_assign(check_case *c)
{
    assign_case *s = c->own = check_memory(c, sizeof *s);
    const int v = c->variant;
    s->n = check_draw(c, 1, 3);
    s->g = check_draw(c, 1, 5);
    s->has_grid = v < 2 || c->bench;
    s->shared = v != 2;
    s->counted = v == 2;
    s->boxes = check_draw(c, 1, 1500);
    s->cfg = v == 0 ? pd_assign_cfg_retina() : v == 1 ? pd_assign_cfg_rpn() : pd_assign_cfg_roi(0.5f);
    if (v == 3) s->cfg = (pd_assign_cfg){.pos = 0.5f, .neg = 0.25f, .low_quality = true, .border = -1};
    pd_value *boxes;
    if (s->has_grid) {
        int h[3], w[3], stride[3];
        const pd_anchor_cfg anchors = v == 0 ? pd_anchor_cfg_retina() : pd_anchor_cfg_rpn();
        for (int l = 0; l < 3; l++) {
            h[l] = c->bench ? 100 >> l : check_draw(c, 0, 9);
            w[l] = c->bench ? 168 >> l : check_draw(c, 0, 9);
            stride[l] = 8 << l;
        }
        s->g = c->bench ? 40 : s->g;
        if (pd_anchor_grid_init(&s->grid, &anchors, 3, h, w, stride, NULL) != PD_OK) abort();
        s->boxes = pd_anchor_count(&s->grid);
    }
    check_tensor *gt = check_fixed(c, "gt", PD_SHAPE(s->n, s->g, 4), 1);
    check_tensor *n_gt = check_int(c, "n_gt", PD_SHAPE(s->n), 0, s->g), *t;
    draw_boxes(c, gt, c->bench ? 700 : 40);
    for (int i = 0; i < s->n && c->bench; i++) n_gt->i[i] = s->g;
    pd_value *sizes = NULL, *count = NULL;
    if (s->has_grid) {
        t = check_fixed(c, "anchors", PD_SHAPE(s->boxes, 4), 1);
        pd_anchor_fill((pd_box *)(void *)t->f, &s->grid, 0, s->boxes);
        boxes = t->value;
        t = check_int(c, "sizes", PD_SHAPE(s->n, 4), c->bench ? 800 : 5, c->bench ? 1344 : 90);
        for (int i = 0; i < s->n; i++)
            for (int k = 0; k < 2; k++) {
                if (i % 2 == 0) t->i[4 * i + k] = (t->i[4 * i + k] + 7) / 8 * 8; /* anchors that end at the border */
                t->i[4 * i + 2 + k] = (t->i[4 * i + k] + 31) / 32 * 32;
            }
        sizes = t->value;
    } else {
        t = check_fixed(c, "boxes", s->shared ? PD_SHAPE(s->boxes, 4) : PD_SHAPE(s->n, s->boxes, 4), 1);
        draw_boxes(c, t, 40);
        boxes = t->value;
        if (s->counted) count = check_int(c, "count", PD_SHAPE(s->n), 0, s->boxes)->value;
    }
    snprintf(c->text, sizeof c->text, "n %d, %d boxes, up to %d ground truths", s->n, s->boxes, s->g);
    check_result(
        c, pd_assign(c->tape, boxes, s->has_grid ? &s->grid : NULL, count, gt->value, n_gt->value, sizes, &s->cfg),
        false);
}

/* The definition, with the whole matrix of IoUs. */
static void assign_image(double *match, const pd_box *box, const bool *usable, int n, const pd_box *gt, int g,
                         const pd_assign_cfg *cfg)
{
    float *iou = calloc((size_t)n * (size_t)g + 1, sizeof *iou);
    if (!iou) abort();
    for (int i = 0; i < g; i++)
        for (int j = 0; j < n; j++) iou[i * n + j] = usable[j] ? pd_box_iou(gt[i], box[j]) : -1;
    for (int j = 0; j < n; j++) {
        int best = 0;
        for (int i = 1; i < g; i++)
            if (iou[i * n + j] > iou[best * n + j]) best = i;
        match[j] = PD_MATCH_IGNORED;
        if (!usable[j]) continue;
        if (g == 0 || iou[best * n + j] < cfg->neg)
            match[j] = PD_MATCH_BACKGROUND;
        else if (iou[best * n + j] >= cfg->pos)
            match[j] = best;
    }
    for (int i = 0; i < g && cfg->low_quality; i++) {
        float best = 0;
        for (int j = 0; j < n; j++) best = fmaxf(best, iou[i * n + j]);
        for (int j = 0; j < n && best > 0 && best >= cfg->min_pos; j++)
            if (iou[i * n + j] == best) match[j] = i;
    }
    free(iou);
}

static void reference_assign(check_case *c)
{
    const assign_case *s = c->own;
    bool *usable = calloc((size_t)s->boxes + 1, sizeof *usable);
    pd_box *box = calloc((size_t)s->boxes + 1, sizeof *box), gt[8];
    if (!usable || !box) abort();
    for (int i = 0; i < s->n; i++) {
        for (int j = 0; j < s->boxes; j++) {
            box[j] = box_at(&c->in[A_BOXES], (s->shared ? 0 : i * s->boxes) + j);
            usable[j] = !s->counted || j < c->in[A_SIZES_OR_COUNT].i[i];
        }
        for (int l = 0, j = 0; l < 3 && s->has_grid; l++)
            for (int y = 0; y < s->grid.h[l]; y++)
                for (int x = 0; x < s->grid.w[l]; x++)
                    for (int k = 0; k < s->grid.per_cell; k++, j++) {
                        const int *size = c->in[A_SIZES_OR_COUNT].i + 4 * i, t = s->grid.stride[l];
                        usable[j] = y < (size[2] + t - 1) / t && x < (size[3] + t - 1) / t;
                        if (s->cfg.border >= 0)
                            usable[j] = usable[j] && box[j].x1 >= 0 && box[j].y1 >= 0 && box[j].x2 < (float)size[1] &&
                                        box[j].y2 < (float)size[0];
                    }
        for (int k = 0; k < c->in[A_N_GT].i[i]; k++) gt[k] = box_at(&c->in[A_GT], i * s->g + k);
        assign_image(c->out[0].want + i * s->boxes, box, usable, s->boxes, gt, c->in[A_N_GT].i[i], &s->cfg);
    }
    free(usable);
    free(box);
}

/* ---- match_targets ---- */

typedef struct targets_case {
    int n, boxes, g, k, group;
    bool has_labels;
} targets_case;

static void build_targets(check_case *c)
{
    targets_case *s = c->own = check_memory(c, sizeof *s);
    s->n = check_draw(c, 1, 5);
    s->boxes = c->bench ? 200000 : check_draw(c, 0, 9);
    s->g = check_draw(c, 1, 5);
    s->k = c->variant % 2 ? 1 : check_draw(c, 1, 9);
    s->group = check_draw(c, 1, 3);
    s->has_labels = c->variant % 2 == 0;
    check_tensor *match = check_int(c, "match", PD_SHAPE(s->n, s->boxes), -2, s->g - 1);
    pd_value *label = s->has_labels ? check_int(c, "label", PD_SHAPE(s->n, s->g), 0, s->k - 1)->value : NULL;
    snprintf(c->text, sizeof c->text, "n %d in groups of %d, %d boxes, k %d", s->n, s->group, s->boxes, s->k);
    const pd_targets t = pd_match_targets(c->tape, match->value, label, s->k, (pd_norm)(c->variant / 2), s->group);
    check_result(c, t.label, false);
    check_result(c, t.count, false);
    check_result(c, t.weight, false);
}

static void reference_targets(check_case *c)
{
    const targets_case *s = c->own;
    const int groups = (s->n + s->group - 1) / s->group, rule = c->variant / 2;
    for (int i = 0; i < s->n; i++) {
        double *count = c->out[1].want + 2 * i;
        count[0] = count[1] = 0;
        for (int b = 0; b < s->boxes; b++) {
            const int m = c->in[0].i[i * s->boxes + b];
            c->out[0].want[i * s->boxes + b] = m == -2         ? -1
                                               : m == -1       ? s->k
                                               : s->has_labels ? c->in[1].i[i * s->g + m]
                                                               : 0;
            if (m > -2) count[m < 0]++;
        }
    }
    for (int i = 0; i < s->n; i++) {
        double norm = 0;
        for (int k = i / s->group * s->group; k < s->n && k < (i / s->group + 1) * s->group; k++) {
            const double pos = c->out[1].want[2 * k], neg = c->out[1].want[2 * k + 1];
            norm += rule == 2 ? pos + neg : fmax(pos, 1) + (rule == 1 ? fmax(neg, 1) : 0);
        }
        c->out[2].want[i] = 1 / (groups * fmax(norm, 1));
    }
}

/* ---- sample ---- */

static void build_sample(check_case *c)
{
    pd_sample_cfg *cfg = c->own = check_memory(c, sizeof *cfg);
    const int n = check_draw(c, 1, 3), a = c->bench ? 200000 : check_draw(c, 1, 60);
    *cfg = (pd_sample_cfg){check_draw(c, 1, 30), 0.25f * (float)check_draw(c, 0, 4), c->variant == 1, 5, 1};
    check_tensor *match = check_int(c, "match", PD_SHAPE(n, a), -2, 2);
    check_tensor *draw = check_int(c, "draw", PD_SHAPE(n), 0, 100000);
    snprintf(c->text, sizeof c->text, "n %d, %d boxes, %d of them, fraction %g", n, a, cfg->num, (double)cfg->fraction);
    check_result(c, pd_sample(c->tape, match->value, draw->value, cfg), false);
}

static void reference_sample(check_case *c)
{
    const pd_sample_cfg *cfg = c->own;
    const int n = c->in[0].shape.dim[0], a = c->in[0].shape.dim[1];
    for (int i = 0; i < n; i++) {
        double *want = c->out[0].want + i * a;
        int pos = 0, neg = 0, match[60], work[60];
        if (!cfg->first) { /* the choice itself: tests/test_targets.c */
            memcpy(match, c->in[0].i + i * a, (size_t)a * sizeof *match);
            pd_sample_matches(match, a, cfg, (uint32_t)c->in[1].i[i], work);
            for (int k = 0; k < a; k++) want[k] = match[k];
            continue;
        }
        for (int k = 0; k < a; k++) {
            const int m = c->in[0].i[i * a + k];
            want[k] = m >= 0 && pos++ >= (int)((float)cfg->num * cfg->fraction) ? PD_MATCH_IGNORED : m;
        }
        if (pos > (int)((float)cfg->num * cfg->fraction)) pos = (int)((float)cfg->num * cfg->fraction);
        for (int k = 0; k < a; k++)
            if (want[k] == PD_MATCH_BACKGROUND && neg++ >= cfg->num - pos) want[k] = PD_MATCH_IGNORED;
    }
}

/* ---- proposals ---- */

typedef struct proposals_case {
    pd_anchor_grid grid;
    pd_proposals_cfg cfg;
    int n;
} proposals_case;

static void build_proposals(check_case *c)
{
    proposals_case *s = c->own = check_memory(c, sizeof *s);
    const pd_anchor_cfg anchors = pd_anchor_cfg_rpn();
    pd_value *logits[3], *deltas[3];
    int h[3], w[3];
    static const int stride[3] = {4, 8, 16};
    s->n = check_draw(c, 1, 3);
    for (int l = 0; l < 3; l++) {
        h[l] = c->bench ? 200 >> l : check_draw(c, 0, 6);
        w[l] = c->bench ? 336 >> l : check_draw(c, 0, 6);
    }
    if (pd_anchor_grid_init(&s->grid, &anchors, 3, h, w, stride, NULL) != PD_OK) abort();
    s->cfg = (pd_proposals_cfg){check_draw(c, 1, 60), check_draw(c, 1, 30), 0.7f, c->variant == 1, pd_box_coder_unit()};
    if (c->bench) s->cfg.pre_nms = s->cfg.max_keep = 2000;
    check_tensor *sizes = check_int(c, "sizes", PD_SHAPE(s->n, 4), c->bench ? 800 : 1, c->bench ? 800 : 40);
    for (int i = 0; i < s->n && !c->bench; i++) sizes->i[4 * i + 1] <<= 18; /* so wide that moved boxes are rounded */
    for (int l = 0; l < 3; l++) {
        check_tensor *t = check_fixed(c, pd_tape_name(c->tape, "logits%d", l), PD_SHAPE(s->n, h[l], w[l], 3), 4);
        for (size_t i = 0; i < t->count && !c->bench; i++) t->f[i] = roundf(t->f[i] * 4) / 4; /* ties */
        logits[l] = t->value;
        t = check_fixed(c, pd_tape_name(c->tape, "deltas%d", l), PD_SHAPE(s->n, h[l], w[l], 12), 0.3);
        for (size_t i = 0; i + 4 <= t->count && l > 0; i += 400) t->f[i] = 1e6f; /* far out: coarse offsets */
        deltas[l] = t->value;
    }
    snprintf(c->text, sizeof c->text, "n %d, %d anchors, %d before, %d after", s->n, pd_anchor_count(&s->grid),
             s->cfg.pre_nms, s->cfg.max_keep);
    const pd_proposals_out out = pd_proposals(c->tape, &s->grid, logits, deltas, sizes->value, &s->cfg);
    check_result(c, out.boxes, false);
    check_result(c, out.score, false);
    check_result(c, out.count, false);
}

typedef struct proposal {
    pd_box box, moved;
    float logit, score;
    int level, rank;
} proposal;

static int by_logit(const void *a, const void *b)
{
    const proposal *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return x->rank - y->rank;
}

static int by_score(const void *a, const void *b)
{
    const proposal *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return x->rank - y->rank;
}

static int all_proposals(proposal *list, const check_case *c, int image)
{
    const proposals_case *s = c->own;
    const int *size = c->in[0].i + 4 * image;
    int n = 0;
    for (int l = 0; l < 3; l++) {
        const int first = s->grid.first[l], in_level = s->grid.first[l + 1] - first;
        proposal level[108];
        for (int i = 0; i < in_level; i++) {
            const float *t = c->in[2 + 2 * l].f + 4 * (image * in_level + i);
            pd_box p;
            pd_anchor_fill(&p, &s->grid, first + i, first + i + 1);
            p = pd_box_decode(&s->cfg.coder, p, (pd_delta){t[0], t[1], t[2], t[3]});
            p = pd_box_clip(&s->cfg.coder, p, size[0], size[1]);
            const float x = c->in[1 + 2 * l].f[image * in_level + i];
            level[i] = (proposal){.box = p, .logit = x, .score = 1.f / (1.f + expf(-x)), .level = l, .rank = i};
        }
        if (in_level > s->cfg.pre_nms) qsort(level, (size_t)in_level, sizeof *level, by_logit);
        for (int i = 0; i < in_level && i < s->cfg.pre_nms; i++)
            if (level[i].box.x2 > level[i].box.x1 && level[i].box.y2 > level[i].box.y1) list[n++] = level[i];
    }
    return n;
}

static void reference_proposals(check_case *c)
{
    const proposals_case *s = c->own;
    for (int i = 0; i < s->n; i++) {
        proposal list[324];
        const int n = all_proposals(list, c, i), most = s->cfg.max_keep;
        float largest = 0;
        int kept = 0;
        for (int k = 0; k < n; k++) {
            list[k].rank = k;
            largest = fmaxf(largest, fmaxf(list[k].box.x2, list[k].box.y2));
        }
        for (int k = 0; k < n; k++) {
            const float by = s->cfg.nms_exact ? 0 : (float)list[k].level * (largest + 1);
            const pd_box b = list[k].box;
            list[k].moved = (pd_box){b.x1 + by, b.y1 + by, b.x2 + by, b.y2 + by};
        }
        qsort(list, (size_t)n, sizeof *list, by_score);
        memset(c->out[0].want + 4 * i * most, 0, 4 * (size_t)most * sizeof(double));
        memset(c->out[1].want + i * most, 0, (size_t)most * sizeof(double));
        for (int k = 0; k < n && kept < most; k++) {
            bool drop = false;
            for (int q = 0; q < kept; q++) {
                const float inter = pd_box_intersection(list[q].moved, list[k].moved);
                const float limit =
                    s->cfg.nms_iou * ((pd_box_area(list[q].moved) + pd_box_area(list[k].moved)) - inter);
                drop = drop || (inter > limit && (!s->cfg.nms_exact || list[q].level == list[k].level));
            }
            if (drop) continue;
            list[kept] = list[k];
            double *want = c->out[0].want + 4 * (i * most + kept);
            want[0] = (double)list[k].box.x1;
            want[1] = (double)list[k].box.y1;
            want[2] = (double)list[k].box.x2;
            want[3] = (double)list[k].box.y2;
            c->out[1].want[i * most + kept++] = (double)list[k].score;
        }
        c->out[2].want[i] = kept;
    }
}

/* ---- roi_targets ---- */

typedef struct rois_case {
    pd_roi_targets_cfg cfg;
    int n, m, g;
} rois_case;

static void build_rois(check_case *c)
{
    rois_case *s = c->own = check_memory(c, sizeof *s);
    s->n = check_draw(c, 1, 3);
    s->m = c->bench ? 2000 : check_draw(c, 1, 60);
    s->g = check_draw(c, 1, 5);
    s->cfg.assign = pd_assign_cfg_roi(0.5f);
    s->cfg.assign.low_quality = c->variant == 1;
    s->cfg.sample = (pd_sample_cfg){c->bench ? 512 : check_draw(c, 1, 40), 0.25f, true, 1, 1};
    check_tensor *boxes = check_fixed(c, "proposals", PD_SHAPE(s->n, s->m, 4), 1);
    check_tensor *count = check_int(c, "n_proposals", PD_SHAPE(s->n), c->bench ? s->m : 0, s->m);
    check_tensor *gt = check_fixed(c, "gt", PD_SHAPE(s->n, s->g, 4), 1);
    check_tensor *n_gt = check_int(c, "n_gt", PD_SHAPE(s->n), 0, s->g);
    check_tensor *draw = check_int(c, "draw", PD_SHAPE(s->n), 0, 9);
    draw_boxes(c, boxes, 15);
    draw_boxes(c, gt, 15);
    snprintf(c->text, sizeof c->text, "n %d, %d proposals, %d ground truths, %d rows", s->n, s->m, s->g,
             s->cfg.sample.num);
    const pd_roi_targets_out out =
        pd_roi_targets(c->tape, boxes->value, count->value, gt->value, n_gt->value, draw->value, &s->cfg);
    check_result(c, out.rois, false);
    check_result(c, out.match, false);
    check_result(c, out.from_gt, false);
    check_result(c, out.count, false);
}

static void reference_rois(check_case *c)
{
    const rois_case *s = c->own;
    const int num = s->cfg.sample.num;
    for (int i = 0; i < s->n; i++) {
        const int m = c->in[1].i[i], g = c->in[3].i[i];
        pd_box box[70], gt[8];
        double match[70];
        bool usable[70];
        for (int k = 0; k < g; k++) gt[k] = box[k] = box_at(&c->in[2], i * s->g + k);
        for (int k = 0; k < m; k++) {
            box[g + k] = box_at(&c->in[0], i * s->m + k);
            usable[k] = true;
        }
        assign_image(match + g, box + g, usable, m, gt, g, &s->cfg.assign);
        for (int k = 0; k < g; k++) match[k] = gt[k].x2 > gt[k].x1 && gt[k].y2 > gt[k].y1 ? k : PD_MATCH_IGNORED;
        int rows = 0, pos = 0;
        for (int r = 0; r < num; r++) {
            memset(c->out[0].want + 4 * (i * num + r), 0, 4 * sizeof(double));
            c->out[1].want[i * num + r] = PD_MATCH_IGNORED;
            c->out[2].want[i * num + r] = 0;
        }
        for (int pass = 0; pass < 2; pass++)
            for (int k = 0; k < g + m; k++) {
                if (pass == 0 ? match[k] < 0 || pos >= (int)((float)num / 4) : match[k] != -1 || rows >= num) continue;
                double *roi = c->out[0].want + 4 * (i * num + rows);
                roi[0] = (double)box[k].x1;
                roi[1] = (double)box[k].y1;
                roi[2] = (double)box[k].x2;
                roi[3] = (double)box[k].y2;
                c->out[1].want[i * num + rows] = match[k];
                c->out[2].want[i * num + rows++] = k < g;
                pos += pass == 0;
            }
        c->out[3].want[i] = rows;
    }
}

/* ---- refine ---- */

typedef struct refine_case {
    pd_box_coder coder;
    int n, m;
    bool drop;
} refine_case;

static void build_refine(check_case *c)
{
    refine_case *s = c->own = check_memory(c, sizeof *s);
    s->n = check_draw(c, 1, 3);
    s->m = c->bench ? 1000 : check_draw(c, 1, 20);
    s->drop = c->variant % 2 == 1;
    s->coder = (pd_box_coder){{0.1f, 0.1f, 0.2f, 0.2f}, c->variant == 2};
    check_tensor *rois = check_fixed(c, "rois", PD_SHAPE(s->n, s->m, 4), 1);
    check_tensor *count = check_int(c, "n_rois", PD_SHAPE(s->n), 0, s->m);
    check_tensor *deltas = check_fixed(c, "deltas", PD_SHAPE(s->n * s->m, 4), 25);
    check_tensor *sizes = check_int(c, "sizes", PD_SHAPE(s->n, 4), 1, 60);
    pd_value *drop = s->drop ? check_int(c, "drop", PD_SHAPE(s->n, s->m), 0, 1)->value : NULL;
    draw_boxes(c, rois, 30);
    snprintf(c->text, sizeof c->text, "n %d, %d boxes", s->n, s->m);
    const pd_refined out = pd_refine(c->tape, rois->value, count->value, deltas->value, drop, sizes->value, &s->coder);
    check_result(c, out.boxes, false);
    check_result(c, out.count, false);
}

static double clamp(double v, double lo, double hi)
{
    return fmin(fmax(v, lo), hi);
}

static void reference_refine(check_case *c)
{
    const refine_case *s = c->own;
    const double o = s->coder.o, limit = fabs(log(16.0 / 1000));
    for (int i = 0; i < s->n; i++) {
        int row = 0;
        memset(c->out[0].want + 4 * i * s->m, 0, 4 * (size_t)s->m * sizeof(double));
        for (int r = 0; r < c->in[1].i[i]; r++) {
            const double *p = c->in[0].d + 4 * (i * s->m + r), *t = c->in[2].d + 4 * (i * s->m + r);
            if (s->drop && c->in[4].i[i * s->m + r]) continue;
            double *want = c->out[0].want + 4 * (i * s->m + row++);
            for (int k = 0; k < 2; k++) {
                const double side = p[2 + k] - p[k] + o, most = c->in[3].i[4 * i + 1 - k] - o;
                const double centre = (p[k] + p[2 + k]) / 2 + side * t[k] * (double)s->coder.std[k];
                const double grown = side * exp(clamp(t[2 + k] * (double)s->coder.std[2 + k], -limit, limit));
                want[k] = clamp(centre - grown / 2 + o / 2, 0, most);
                want[2 + k] = clamp(centre + grown / 2 - o / 2, 0, most);
            }
        }
        c->out[1].want[i] = row;
    }
}

/* ---- roi_align ---- */

typedef struct align_case {
    int n, m, levels, size, ratio, stride[3];
    bool counted;
} align_case;

static void build_align(check_case *c)
{
    align_case *s = c->own = check_memory(c, sizeof *s);
    pd_value *level[4];
    s->n = check_draw(c, 1, 2);
    s->m = c->bench ? 512 : check_draw(c, 1, 5);
    s->levels = c->bench ? 3 : check_draw(c, 1, 3);
    s->size = c->bench ? 7 : check_draw(c, 1, 4);
    s->ratio = c->variant == 1 ? check_draw(c, 1, 3) : 0;
    s->counted = c->variant < 2;
    const int ch = c->bench ? 256 : check_draw(c, 1, 40);
    check_tensor *rois = check_fixed(c, "rois", PD_SHAPE(s->n, s->m, 4), 1);
    for (int i = 0; i < s->n * s->m; i++) { /* small and large, across borders, some inside out */
        const double size = c->bench ? 40 + 300 * pd_rng_double(&c->rng) : exp(6 * pd_rng_double(&c->rng));
        for (int k = 0; k < 2; k++) {
            rois->f[4 * i + k] = (float)((c->bench ? 400 : 90) * pd_rng_double(&c->rng) - 20);
            rois->f[4 * i + 2 + k] =
                rois->f[4 * i + k] + (float)(size * (pd_rng_double(&c->rng) + (c->bench ? 0.5 : -0.2)));
        }
    }
    pd_value *count = s->counted ? check_int(c, "n_rois", PD_SHAPE(s->n), c->bench ? s->m : 0, s->m)->value : NULL;
    for (int l = 0; l < s->levels; l++) {
        const char *name = pd_tape_name(c->tape, "level%d", l);
        s->stride[l] = 4 << l;
        const int h = c->bench ? 200 >> l : check_draw(c, 1, 20 >> l),
                  w = c->bench ? 336 >> l : check_draw(c, 1, 20 >> l);
        level[l] = check_float(c, name, PD_SHAPE(s->n, h, w, ch), 1)->value;
    }
    snprintf(c->text, sizeof c->text, "n %d, %d boxes, %d levels, c %d, %d x %d bins, ratio %d", s->n, s->m, s->levels,
             ch, s->size, s->size, s->ratio);
    check_result(c, pd_roi_align(c->tape, level, s->stride, s->levels, rois->value, count, s->size, s->ratio), true);
}

static double bilinear(const check_tensor *map, int image, double y, double x, int ch)
{
    const int h = map->shape.dim[1], w = map->shape.dim[2], c = map->shape.dim[3];
    if (y < -1 || y > h || x < -1 || x > w) return 0;
    y = fmax(y, 0);
    x = fmax(x, 0);
    int y0 = (int)y, x0 = (int)x, y1 = y0 + 1, x1 = x0 + 1;
    if (y0 >= h - 1) y = y0 = y1 = h - 1;
    if (x0 >= w - 1) x = x0 = x1 = w - 1;
    const double fy = y - y0, fx = x - x0;
    const double *d = map->d + (size_t)image * (size_t)(h * w * c) + ch;
    return (1 - fy) * (1 - fx) * d[(y0 * w + x0) * c] + (1 - fy) * fx * d[(y0 * w + x1) * c] +
           fy * (1 - fx) * d[(y1 * w + x0) * c] + fy * fx * d[(y1 * w + x1) * c];
}

static void reference_align(check_case *c)
{
    const align_case *s = c->own;
    const int first = s->counted ? 2 : 1, ch = c->in[first].shape.dim[3];
    for (int r = 0; r < s->n * s->m; r++) {
        const double *b = c->in[0].d + 4 * r;
        const bool used = !s->counted || r % s->m < c->in[1].i[r / s->m];
        const float area =
            (c->in[0].f[4 * r + 2] - c->in[0].f[4 * r]) * (c->in[0].f[4 * r + 3] - c->in[0].f[4 * r + 1]);
        const float l = area >= 0 ? floorf(log2f(sqrtf(area) / 56.f + 1e-6f)) : 0;
        const int level = (int)fminf(fmaxf(l, 0), (float)(s->levels - 1));
        const double scale = 1.0 / s->stride[level], y1 = b[1] * scale - 0.5, x1 = b[0] * scale - 0.5;
        const double bh = (b[3] - b[1]) * scale / s->size, bw = (b[2] - b[0]) * scale / s->size;
        const int gh = s->ratio ? s->ratio : (int)ceil(bh), gw = s->ratio ? s->ratio : (int)ceil(bw);
        for (int p = 0; p < s->size * s->size; p++)
            for (int k = 0; k < ch; k++) {
                double sum = 0;
                for (int iy = 0; iy < gh && used; iy++)
                    for (int ix = 0; ix < gw; ix++)
                        sum += bilinear(&c->in[first + level], r / s->m, y1 + (p / s->size + (iy + 0.5) / gh) * bh,
                                        x1 + (p % s->size + (ix + 0.5) / gw) * bw, k);
                c->out[0].want[(r * s->size * s->size + p) * ch + k] = gh > 0 && gw > 0 ? sum / (gh * gw) : 0;
            }
    }
}

static const check_op ops[] = {
    {"assign", 4, build_assign, reference_assign, 0, 0, true}, /* RetinaNet; RPN; counted; with exact thresholds */
    {"match_targets", 6, build_targets, reference_targets, 1e-7, 0, true},  /* three norms, with labels and without */
    {"sample", 2, build_sample, reference_sample, 0, 0, true},              /* by chance; the first */
    {"proposals", 2, build_proposals, reference_proposals, 1e-6, 0, false}, /* offset or exact suppression */
    {"roi_targets", 2, build_rois, reference_rois, 0, 0, true},             /* without and with low quality */
    {"refine", 3, build_refine, reference_refine, 1e-6, 0, true},           /* plain; dropping; inclusive corners */
    {"roi_align", 3, build_align, reference_align, 2e-6, 1e-5, true},       /* adaptive; fixed ratio; all rows used */
};

const check_family check_detection = {ops, sizeof ops / sizeof *ops};
