#include "kernels/detections.h"
#include "kernels/detections_math.h"
#include "kernels/detections_node.h"
#include "kernels/topk.h"

#include <string.h>

static size_t align_up(size_t n)
{
    return (n + PD_ALIGN - 1) / PD_ALIGN * PD_ALIGN;
}

/* Scratch of one image, with room for so many (row, class) pairs. */
typedef struct candidates {
    pd_box *box;
    float *score, *top; /* top: (anchors) best score of each; or (k + 1) of a row */
    int *label, *keep, *order;
    void *work;
    int n;
} candidates;

/* Sets the pieces of c in memory; with memory NULL only returns the bytes. */
static size_t lay_out(candidates *c, char *memory, size_t pairs, size_t tops, size_t picks,
                      const pd_detections_cfg *cfg)
{
    const pd_nms_cfg *nms = &cfg->nms;
    const size_t suppress = cfg->soft ? pd_soft_nms_work((int)pairs) : pd_nms_work((int)pairs, nms),
                 choose = pd_topk_work((int)picks);
    const size_t bytes[] = {pairs * sizeof *c->box,
                            pairs * sizeof *c->score,
                            tops * sizeof *c->top,
                            pairs * sizeof *c->label,
                            (size_t)nms->max_keep * sizeof(int),
                            picks * sizeof *c->order,
                            suppress > choose ? suppress : choose};
    void *piece[7];
    size_t at = 0;
    for (int i = 0; i < 7; i++) {
        piece[i] = memory ? memory + at : NULL;
        at += align_up(bytes[i]);
    }
    *c = (candidates){piece[0], piece[1], piece[2], piece[3], piece[4], piece[5], piece[6], 0};
    return at;
}

static void add(candidates *c, pd_box box, float score, int label)
{
    c->box[c->n] = box;
    c->score[c->n] = score;
    c->label[c->n++] = label;
}

static pd_box original(const pd_node *node, size_t image, pd_box box)
{
    const float *scale = (const float *)node->in[SCALES]->data + 3 * image;
    const int *size = (const int *)node->in[SIZES]->data + 4 * image;
    return pd_detection_unscaled(box, size[1], scale[0], scale[1], scale[2] > 0);
}

static int suppress(candidates *c, const pd_detections_cfg *cfg)
{
    pd_soft_nms_cfg soft = cfg->soft_nms;
    soft.max_keep = cfg->nms.max_keep;
    return cfg->soft ? pd_soft_nms(c->keep, c->box, c->score, c->label, c->n, &soft, c->work)
                     : pd_nms(c->keep, c->box, c->score, c->label, c->n, &cfg->nms, c->work);
}

static void finish(const pd_node *node, size_t image, candidates *c, const pd_detections_cfg *cfg)
{
    const size_t most = (size_t)cfg->nms.max_keep;
    pd_box *box = (pd_box *)node->out[0]->data + image * most;
    float *score = (float *)node->out[1]->data + image * most;
    int *label = (int *)node->out[2]->data + image * most;
    const int kept = suppress(c, cfg);
    memset(box, 0, most * sizeof *box);
    memset(score, 0, most * sizeof *score);
    memset(label, 0, most * sizeof *label);
    for (int i = 0; i < kept; i++) {
        box[i] = c->box[c->keep[i]];
        score[i] = c->score[c->keep[i]];
        label[i] = c->label[c->keep[i]];
    }
    ((int *)node->out[3]->data)[image] = kept;
}

/* ---- dense heads ---- */

static size_t dense_scratch(const dense_args *a, candidates *c, char *memory)
{
    const size_t scores = (size_t)pd_anchor_count(&a->grid) * (size_t)(a->cfg.pairs ? a->k : 1);
    return lay_out(c, memory, (size_t)a->most, scores, (size_t)(a->cfg.pairs ? a->most : a->rows), &a->cfg);
}

static pd_status dense_plan(pd_node *node, pd_device *device, pd_err *err)
{
    const dense_args *a = node->args;
    candidates c;
    (void)device;
    (void)err;
    node->scratch_fwd = (size_t)a->n * dense_scratch(a, &c, NULL);
    return PD_OK;
}

/* The heads' rows of a level of an image. */
typedef struct level {
    int first, anchors;
    const float *logits, *deltas;
} level;

static level level_of(const pd_node *node, size_t image, int l)
{
    const dense_args *a = node->args;
    level v = {.first = a->grid.first[l], .anchors = a->grid.first[l + 1] - a->grid.first[l]};
    const size_t before = image * (size_t)v.anchors;
    v.logits = (const float *)node->in[HEADS + l]->data + before * (size_t)a->k;
    v.deltas = (const float *)node->in[HEADS + a->grid.levels + l]->data + before * 4;
    return v;
}

static pd_box anchor_box(const pd_node *node, size_t image, const level *v, int i)
{
    const dense_args *a = node->args;
    const int *size = (const int *)node->in[SIZES]->data + 4 * image;
    pd_box anchor;
    pd_delta t;
    memcpy(&t, v->deltas + 4 * (size_t)i, sizeof t);
    pd_anchor_fill(&anchor, &a->grid, v->first + i, v->first + i + 1);
    return original(node, image, pd_box_clip(&a->cfg.coder, pd_box_decode(&a->cfg.coder, anchor, t), size[0], size[1]));
}

/* The best pairs: whether those below the threshold go before or afterwards is the same. */
static void add_pairs(candidates *c, const pd_node *node, size_t image, int l)
{
    const dense_args *a = node->args;
    const level v = level_of(node, image, l);
    const int pairs = v.anchors * a->k;
    for (int i = 0; i < pairs; i++) c->top[i] = pd_detection_score(v.logits[i]);
    const int n = pd_topk(c->order, c->top, pairs, a->cfg.pre_nms, c->work);
    for (int r = 0; r < n && c->top[c->order[r]] > a->cfg.score_thresh; r++) {
        const int pair = c->order[r];
        add(c, anchor_box(node, image, &v, pair / a->k), c->top[pair], pair % a->k);
    }
}

static void add_anchors(candidates *c, const pd_node *node, size_t image, int l)
{
    const dense_args *a = node->args;
    const size_t k = (size_t)a->k;
    const level v = level_of(node, image, l);
    const float *logits = v.logits;
    const bool cut = v.anchors > a->cfg.pre_nms;
    for (int i = 0; i < v.anchors && cut; i++) {
        float most = logits[(size_t)i * k];
        for (size_t j = 1; j < k; j++) most = logits[(size_t)i * k + j] > most ? logits[(size_t)i * k + j] : most;
        c->top[i] = pd_detection_score(most);
    }
    const int n = cut ? pd_topk(c->order, c->top, v.anchors, a->cfg.pre_nms, c->work) : v.anchors;
    for (int r = 0; r < n; r++) {
        const int i = cut ? c->order[r] : r;
        const pd_box box = anchor_box(node, image, &v, i);
        for (int j = 0; j < a->k; j++) {
            const float score = pd_detection_score(logits[(size_t)i * k + (size_t)j]);
            if (score > a->cfg.score_thresh) add(c, box, score, j);
        }
    }
}

static void dense_images(void *arg, size_t begin, size_t end, int thread)
{
    const pd_node *node = arg;
    const dense_args *a = node->args;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        candidates c;
        (void)dense_scratch(a, &c, (char *)node->scratch + i * (node->scratch_fwd / (size_t)a->n));
        for (int l = 0; l < a->grid.levels; l++) (a->cfg.pairs ? add_pairs : add_anchors)(&c, node, i, l);
        finish(node, i, &c, &a->cfg);
    }
}

static pd_status dense_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    (void)err;
    pd_parallel_each(run->device->pool, (size_t)((const dense_args *)node->args)->n, dense_images, node);
    return PD_OK;
}

static const pd_kernel dense_cpu = {dense_plan, dense_fwd, NULL, NULL};
static const pd_op dense = {.name = "dense_detections", .kernel = {[PD_CPU] = &dense_cpu}};

/* ---- box heads ---- */

static size_t roi_scratch(const roi_args *a, candidates *c, char *memory)
{
    return lay_out(c, memory, (size_t)a->m * (size_t)a->k, (size_t)a->k + 1, 0, &a->cfg);
}

static pd_status roi_plan(pd_node *node, pd_device *device, pd_err *err)
{
    const roi_args *a = node->args;
    candidates c;
    (void)device;
    (void)err;
    node->scratch_fwd = (size_t)a->n * roi_scratch(a, &c, NULL);
    return PD_OK;
}

static void row_scores(float *score, const roi_args *a, const float *const *logits, size_t row)
{
    const size_t k = (size_t)a->k + 1;
    float most = -INFINITY;
    double sum = 0;
    for (size_t c = 0; c < k; c++) {
        score[c] = pd_mean_logit(logits, a->stages, row * k + c);
        if (score[c] > most) most = score[c];
    }
    for (size_t c = 0; c < k; c++) sum += (double)(score[c] = pd_softmax_term(score[c], most));
    for (size_t c = 0; c < k; c++) score[c] = pd_softmax_share(score[c], sum);
}

static pd_box row_box(const pd_node *node, size_t image, size_t row, int label)
{
    const roi_args *a = node->args;
    const int *size = (const int *)node->in[SIZES]->data + 4 * image;
    pd_box box = ((const pd_box *)node->in[BOXES]->data)[row];
    if (node->in[DELTAS]) {
        pd_delta t;
        memcpy(&t, (const float *)node->in[DELTAS]->data + 4 * (row * (size_t)a->k + (size_t)label), sizeof t);
        box = pd_box_clip(&a->cfg.coder, pd_box_decode(&a->cfg.coder, box, t), size[0], size[1]);
    }
    return original(node, image, box);
}

static void roi_images(void *arg, size_t begin, size_t end, int thread)
{
    const pd_node *node = arg;
    const roi_args *a = node->args;
    const float *logits[PD_MAX_DETECTION_STAGES] = {NULL};
    (void)thread;
    for (int s = 0; s < a->stages; s++) logits[s] = node->in[STAGES + s]->data;
    for (size_t i = begin; i < end; i++) {
        candidates c;
        (void)roi_scratch(a, &c, (char *)node->scratch + i * (node->scratch_fwd / (size_t)a->n));
        const size_t first = i * (size_t)a->m, count = (size_t)((const int *)node->in[COUNTS]->data)[i];
        for (size_t r = first; r < first + count; r++) {
            row_scores(c.top, a, logits, r);
            for (int j = 0; j < a->k; j++)
                if (c.top[j] > a->cfg.score_thresh) add(&c, row_box(node, i, r, j), c.top[j], j);
        }
        finish(node, i, &c, &a->cfg);
    }
}

static pd_status roi_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const roi_args *a = node->args;
    const int *count = node->in[COUNTS]->data;
    for (int i = 0; i < a->n; i++)
        if (count[i] < 0 || count[i] > a->m)
            return PD_FAIL(err, PD_EINVAL, "image %d has %d rows, the room is %d", i, count[i], a->m);
    pd_parallel_each(run->device->pool, (size_t)a->n, roi_images, node);
    return PD_OK;
}

static const pd_kernel roi_cpu = {roi_plan, roi_fwd, NULL, NULL};
static const pd_op roi = {.name = "roi_detections", .kernel = {[PD_CPU] = &roi_cpu}};

/* ---- recording ---- */

static const char *cfg_fault(const pd_detections_cfg *cfg, int n, int k, const pd_value *sizes, const pd_value *scales)
{
    if (cfg->pre_nms < 1 || cfg->nms.max_keep < 1 || !(cfg->nms.iou >= 0) || !(cfg->score_thresh >= 0) || k < 1)
        return "expected pre_nms >= 1, max_keep >= 1, k >= 1, thresholds >= 0";
    if (cfg->soft && (!(cfg->soft_nms.sigma > 0) || !(cfg->soft_nms.min_score >= 0)))
        return "soft suppression: expected sigma > 0, min_score >= 0";
    if (sizes->dtype != PD_I32 || sizes->shape.rank != 2 || sizes->shape.dim[1] != 4)
        return "sizes: expected int32 (n, 4): h, w, pad_h, pad_w";
    if (scales->dtype != PD_F32 || scales->shape.rank != 2 || scales->shape.dim[0] != n || scales->shape.dim[1] != 3)
        return "scales: expected (n, 3): scale_x, scale_y, mirrored";
    return NULL;
}

static pd_detections_out record(pd_tape *tape, const pd_op *op, const char *wrong, int n_in, pd_value *const *in, int n,
                                int most, const void *args, size_t bytes)
{
    pd_value *dead = pd_tape_dead(tape);
    const pd_detections_out none = {dead, dead, dead, dead};
    if (wrong) {
        pd_tape_fail(tape, PD_EINVAL, "%s: %s", op->name, wrong);
        return none;
    }
    const pd_shape shapes[] = {PD_SHAPE(n, most, 4), PD_SHAPE(n, most), PD_SHAPE(n, most), PD_SHAPE(n)};
    const pd_dtype types[] = {PD_F32, PD_F32, PD_I32, PD_I32};
    pd_node *node = pd_tape_add(tape, op, NULL, n_in, in, 4, shapes, types, args, bytes);
    return node ? (pd_detections_out){node->out[0], node->out[1], node->out[2], node->out[3]} : none;
}

pd_detections_out pd_dense_detections(pd_tape *tape, const pd_anchor_grid *grid, pd_value *const *logits,
                                      pd_value *const *deltas, int k, pd_value *sizes, pd_value *scales,
                                      const pd_detections_cfg *cfg)
{
    pd_value *in[HEADS + 2 * PD_MAX_LEVELS] = {sizes, scales}, *dead = pd_tape_dead(tape);
    if (pd_tape_status(tape, NULL) != PD_OK) return (pd_detections_out){dead, dead, dead, dead};
    dense_args a = {.cfg = *cfg, .n = sizes->shape.dim[0], .k = k, .grid = *grid};
    const char *wrong = cfg_fault(cfg, a.n, k, sizes, scales);
    double most = 0, pairs = 0;
    for (int l = 0; l < grid->levels && !wrong; l++) {
        const int in_level = grid->first[l + 1] - grid->first[l];
        const size_t boxes = (size_t)a.n * (size_t)in_level;
        if (pd_shape_size(logits[l]->shape) != boxes * (size_t)k || pd_shape_size(deltas[l]->shape) != 4 * boxes)
            wrong = "expected k logits and four offsets per anchor";
        const double all = (double)in_level * k;
        a.rows += in_level < cfg->pre_nms ? in_level : cfg->pre_nms;
        most += all < cfg->pre_nms ? all : cfg->pre_nms;
        pairs += all;
        in[HEADS + l] = logits[l];
        in[HEADS + grid->levels + l] = deltas[l];
    }
    if (!cfg->pairs) most = pairs = (double)a.rows * k;
    a.most = (int)(most < INT32_MAX ? most : INT32_MAX);
    if (!wrong && pairs > INT32_MAX) wrong = "too many pairs of anchor and class";
    return record(tape, &dense, wrong, HEADS + 2 * grid->levels, in, a.n, cfg->nms.max_keep, &a, sizeof a);
}

pd_detections_out pd_roi_detections(pd_tape *tape, pd_value *const *logits, int stages, pd_value *boxes,
                                    pd_value *deltas, pd_value *counts, int k, pd_value *sizes, pd_value *scales,
                                    const pd_detections_cfg *cfg)
{
    pd_value *in[STAGES + PD_MAX_DETECTION_STAGES] = {sizes, scales, boxes, deltas, counts}, *dead = pd_tape_dead(tape);
    if (pd_tape_status(tape, NULL) != PD_OK) return (pd_detections_out){dead, dead, dead, dead};
    const roi_args a = {.cfg = *cfg, .n = boxes->shape.dim[0], .m = boxes->shape.dim[1], .k = k, .stages = stages};
    const size_t rows = (size_t)a.n * (size_t)a.m;
    const char *wrong = cfg_fault(cfg, a.n, k, sizes, scales);
    if (!wrong && (stages < 1 || stages > PD_MAX_DETECTION_STAGES)) wrong = "expected 1 to 8 stages";
    if (!wrong && (boxes->shape.rank != 3 || boxes->shape.dim[2] != 4)) wrong = "boxes: expected (n, m, 4)";
    if (!wrong && (counts->dtype != PD_I32 || counts->shape.rank != 1 || counts->shape.dim[0] != a.n))
        wrong = "counts: expected int32 (n)";
    if (!wrong && deltas && pd_shape_size(deltas->shape) != rows * (size_t)k * 4)
        wrong = "deltas: expected four offsets for every row and class";
    if (!wrong && (double)a.m * k > INT32_MAX) wrong = "too many pairs of row and class";
    for (int s = 0; s < stages && !wrong; s++) {
        if (pd_shape_size(logits[s]->shape) != rows * ((size_t)k + 1)) wrong = "expected k + 1 logits for every row";
        in[STAGES + s] = logits[s];
    }
    return record(tape, &roi, wrong, STAGES + stages, in, a.n, cfg->nms.max_keep, &a, sizeof a);
}
