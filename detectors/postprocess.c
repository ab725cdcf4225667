#include "detectors/candidates.h"
#include "engine/arena.h"
#include "kernels/simd.h"
#include "kernels/topk.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

pd_postprocess_cfg pd_postprocess_cfg_default(void)
{
    return (pd_postprocess_cfg){.pre_nms = 1000,
                                .score_thresh = 0.05f,
                                .nms_iou = 0.5f,
                                .nms_exact = false,
                                .soft_sigma = 0.5f,
                                .soft_min_score = 0.05f,
                                .max_per_image = 100,
                                .topk_mode = PD_TOPK_ANCHORS,
                                .coder = pd_box_coder_unit()};
}

static float sigmoid(float x)
{
    return 1.f / (1.f + expf(-x));
}

/* A logit below this is surely not above the score threshold; one above it is tested as a score. */
static float logit_bound(float thresh)
{
    if (thresh <= 0 || thresh > 0.99f) return thresh > 1 ? INFINITY : -INFINITY;
    return (float)log((double)thresh / (1 - (double)thresh)) - 0.01f;
}

/* ---- largest logit of every anchor ---- */

typedef struct job {
    pd_detection *out;
    int *count;
    const pd_head_outputs *heads;
    const pd_image_info *info;
    const pd_postprocess_cfg *cfg;
    float *top; /* (n, anchors) */
    float bound;
    bool *failed; /* (n) out of memory */
} job;

PD_CLONES static void row_max(float *restrict top, const float *restrict x, size_t rows, int k)
{
    for (size_t r = 0; r < rows; r++, x += k) {
        float part[16], m = x[0];
        int c = 0;
        if (k >= 16) {
            for (int i = 0; i < 16; i++) part[i] = x[i];
            for (c = 16; c + 16 <= k; c += 16)
                for (int i = 0; i < 16; i++) part[i] = x[c + i] > part[i] ? x[c + i] : part[i];
            for (int i = 0; i < 16; i++) m = part[i] > m ? part[i] : m;
        }
        for (; c < k; c++) m = x[c] > m ? x[c] : m;
        top[r] = m;
    }
}

/* Anchors [begin, end), counted through all images. */
static void top_range(void *arg, size_t begin, size_t end, int thread)
{
    const job *j = arg;
    const pd_anchor_grid *grid = j->heads->grid;
    const size_t anchors = (size_t)pd_anchor_count(grid), k = (size_t)j->heads->k;
    (void)thread;
    while (begin < end) {
        const size_t image = begin / anchors, flat = begin % anchors;
        int l = 0;
        while (flat >= (size_t)grid->first[l + 1]) l++;
        const size_t first = (size_t)grid->first[l], in_level = (size_t)grid->first[l + 1] - first;
        size_t rows = first + in_level - flat;
        if (rows > end - begin) rows = end - begin;
        row_max(j->top + begin, j->heads->logits[l] + (image * in_level + flat - first) * k, rows, j->heads->k);
        begin += rows;
    }
}

/* ---- one image ---- */

/* Growing lists of one image. An entry of `pick` is a place in a level: an anchor, or a pair anchor * k + class. */
typedef struct lists {
    int *pick, *order;
    float *pick_score;
    size_t pick_room, order_room, pick_score_room;
    void *work;
    size_t work_room;
    size_t picked;
    pd_candidates *found;
} lists;

static void free_lists(lists *s)
{
    free(s->pick);
    free(s->order);
    free(s->pick_score);
    free(s->work);
}

static pd_status add_pick(lists *s, int place, float score)
{
    PD_TRY(pd_grow(&s->pick, &s->pick_room, s->picked + 1, sizeof *s->pick, NULL));
    PD_TRY(pd_grow(&s->pick_score, &s->pick_score_room, s->picked + 1, sizeof *s->pick_score, NULL));
    s->pick[s->picked] = place;
    s->pick_score[s->picked++] = score;
    return PD_OK;
}

/* The best `limit` picks, descending, into s->order as positions in the pick lists. */
static pd_status best_picks(lists *s, int limit, int *chosen)
{
    const int n = (int)s->picked, k = n < limit ? n : limit;
    PD_TRY(pd_grow(&s->order, &s->order_room, (size_t)k, sizeof *s->order, NULL));
    PD_TRY(pd_grow(&s->work, &s->work_room, pd_topk_work(k), 1, NULL));
    *chosen = pd_topk(s->order, s->pick_score, n, k, s->work);
    return PD_OK;
}

pd_box pd_box_to_original(pd_box b, const pd_image_info *info)
{
    if (info->flipped) b = (pd_box){(float)info->w - b.x2, b.y1, (float)info->w - b.x1, b.y2};
    return (pd_box){b.x1 / info->scale_x, b.y1 / info->scale_y, b.x2 / info->scale_x, b.y2 / info->scale_y};
}

pd_box pd_box_to_resized(pd_box b, const pd_image_info *info)
{
    b = (pd_box){b.x1 * info->scale_x, b.y1 * info->scale_y, b.x2 * info->scale_x, b.y2 * info->scale_y};
    return info->flipped ? (pd_box){(float)info->w - b.x2, b.y1, (float)info->w - b.x1, b.y2} : b;
}

/* A level of one image. */
typedef struct level {
    const float *logits, *deltas, *top;
    const pd_anchor_grid *grid;
    int anchors, first, k;
    const pd_image_info *info;
} level;

static pd_box original_box(const job *j, const level *v, int anchor)
{
    pd_box reference;
    pd_delta t;
    memcpy(&t, v->deltas + 4 * (size_t)anchor, sizeof t);
    pd_anchor_fill(&reference, v->grid, v->first + anchor, v->first + anchor + 1);
    const pd_box b = pd_box_clip(&j->cfg->coder, pd_box_decode(&j->cfg->coder, reference, t), v->info->h, v->info->w);
    return pd_box_to_original(b, v->info);
}

static pd_status level_by_anchors(lists *s, const job *j, const level *v)
{
    const float thresh = j->cfg->score_thresh;
    for (int a = 0; a < v->anchors; a++) {
        if (!(v->top[a] > j->bound)) continue;
        const float score = sigmoid(v->top[a]);
        if (score > thresh) PD_TRY(add_pick(s, a, score));
    }
    int chosen = (int)s->picked;
    const bool sorted = v->anchors > j->cfg->pre_nms;
    if (sorted) PD_TRY(best_picks(s, j->cfg->pre_nms, &chosen));
    for (int i = 0; i < chosen; i++) {
        const int a = s->pick[sorted ? s->order[i] : i];
        const pd_box box = original_box(j, v, a);
        for (int c = 0; c < v->k; c++) {
            const float x = v->logits[(size_t)a * (size_t)v->k + (size_t)c];
            if (!(x > j->bound)) continue;
            const float score = sigmoid(x);
            if (score > thresh) PD_TRY(pd_candidates_add(s->found, box, score, c, NULL));
        }
    }
    return PD_OK;
}

static pd_status level_by_pairs(lists *s, const job *j, const level *v)
{
    for (int a = 0; a < v->anchors; a++) {
        if (!(v->top[a] > j->bound)) continue;
        for (int c = 0; c < v->k; c++) {
            const float x = v->logits[(size_t)a * (size_t)v->k + (size_t)c];
            if (!(x > j->bound)) continue;
            const float score = sigmoid(x);
            if (score > j->cfg->score_thresh) PD_TRY(add_pick(s, a * v->k + c, score));
        }
    }
    int chosen = 0;
    PD_TRY(best_picks(s, j->cfg->pre_nms, &chosen));
    for (int i = 0; i < chosen; i++) {
        const int pair = s->pick[s->order[i]];
        PD_TRY(pd_candidates_add(s->found, original_box(j, v, pair / v->k), s->pick_score[s->order[i]], pair % v->k,
                                 NULL));
    }
    return PD_OK;
}

/* Every candidate of an image into found. */
static pd_status collect(pd_candidates *found, const job *j, size_t image)
{
    const pd_anchor_grid *grid = j->heads->grid;
    const size_t k = (size_t)j->heads->k, anchors = (size_t)pd_anchor_count(grid);
    lists s = {.found = found};
    pd_status status = PD_OK;
    for (int l = 0; l < grid->levels && status == PD_OK; l++) {
        const size_t in_level = (size_t)(grid->first[l + 1] - grid->first[l]);
        const level v = {.logits = j->heads->logits[l] + image * in_level * k,
                         .deltas = j->heads->deltas[l] + image * in_level * 4,
                         .top = j->top + image * anchors + grid->first[l],
                         .grid = grid,
                         .anchors = (int)in_level,
                         .first = grid->first[l],
                         .k = j->heads->k,
                         .info = &j->info[image]};
        s.picked = 0;
        status = (j->cfg->topk_mode == PD_TOPK_PAIRS ? level_by_pairs : level_by_anchors)(&s, j, &v);
    }
    free_lists(&s);
    return status;
}

static void detect_images(void *arg, size_t begin, size_t end, int thread)
{
    const job *j = arg;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        pd_candidates found = {0};
        pd_status status = collect(&found, j, i);
        if (status == PD_OK)
            status =
                pd_candidates_detect(&found, j->cfg, j->out + i * (size_t)j->cfg->max_per_image, &j->count[i], NULL);
        j->failed[i] = status != PD_OK;
        pd_candidates_free(&found);
    }
}

static pd_status check_cfg(int n, const pd_image_info *info, const pd_postprocess_cfg *cfg, pd_err *err)
{
    if (cfg->pre_nms < 1 || cfg->max_per_image < 1)
        return PD_FAIL(err, PD_EINVAL, "postprocess: pre_nms %d, max_per_image %d: expected at least 1", cfg->pre_nms,
                       cfg->max_per_image);
    if (!(cfg->score_thresh >= 0) || !(cfg->nms_iou >= 0))
        return PD_FAIL(err, PD_EINVAL, "postprocess: score_thresh %g, nms_iou %g: expected at least 0",
                       (double)cfg->score_thresh, (double)cfg->nms_iou);
    if (cfg->nms_type != PD_NMS_PLAIN && (!(cfg->soft_sigma > 0) || !(cfg->soft_min_score >= 0)))
        return PD_FAIL(err, PD_EINVAL,
                       "postprocess: soft suppression with sigma %g, min_score %g: expected above 0, at least 0",
                       (double)cfg->soft_sigma, (double)cfg->soft_min_score);
    for (int i = 0; i < n; i++)
        if (!(info[i].scale_x > 0) || !(info[i].scale_y > 0))
            return PD_FAIL(err, PD_EINVAL, "postprocess: image %d has the scale factors %g and %g", i,
                           (double)info[i].scale_x, (double)info[i].scale_y);
    return PD_OK;
}

/* What pd_postprocess and pd_postprocess_collect begin with. */
static pd_status begin(job *j, const pd_head_outputs *heads, const pd_image_info *info, const pd_postprocess_cfg *cfg,
                       pd_pool *pool, pd_err *err)
{
    size_t pairs;
    PD_TRY(check_cfg(heads->n, info, cfg, err));
    if (heads->n < 0 || heads->k < 1 || !pd_mul_fits((size_t)pd_anchor_count(heads->grid), (size_t)heads->k, &pairs) ||
        pairs > INT32_MAX)
        return PD_FAIL(err, PD_EINVAL, "postprocess: %d images of %d anchors with %d classes", heads->n,
                       pd_anchor_count(heads->grid), heads->k);
    const size_t anchors = (size_t)heads->n * (size_t)pd_anchor_count(heads->grid);
    j->heads = heads;
    j->info = info;
    j->cfg = cfg;
    j->bound = logit_bound(cfg->score_thresh);
    j->top = malloc(anchors * sizeof *j->top + 1);
    if (!j->top) return PD_FAIL(err, PD_ENOMEM, "out of memory for the detections of %d images", heads->n);
    pd_parallel(pool, anchors, top_range, j);
    return PD_OK;
}

pd_status pd_postprocess(pd_detection *out, int *count, const pd_head_outputs *heads, const pd_image_info *info,
                         const pd_postprocess_cfg *cfg, pd_pool *pool, pd_err *err)
{
    job j = {.out = out};
    j.count = count;
    PD_TRY(begin(&j, heads, info, cfg, pool, err));
    const size_t n = (size_t)heads->n;
    j.failed = calloc(n + 1, sizeof *j.failed);
    bool ok = j.failed != NULL;
    if (ok) pd_parallel_each(pool, n, detect_images, &j);
    for (size_t i = 0; i < n && ok; i++) ok = !j.failed[i];
    free(j.top);
    free(j.failed);
    return ok ? PD_OK : PD_FAIL(err, PD_ENOMEM, "out of memory for the detections of %d images", heads->n);
}

pd_status pd_postprocess_collect(pd_candidates *c, const pd_head_outputs *heads, const pd_image_info *info,
                                 const pd_postprocess_cfg *cfg, pd_pool *pool, pd_err *err)
{
    job j = {.out = NULL};
    PD_TRY(begin(&j, heads, info, cfg, pool, err));
    const pd_status status = collect(c, &j, 0);
    free(j.top);
    return status == PD_OK ? PD_OK : PD_FAIL(err, PD_ENOMEM, "out of memory for the detections of an image");
}

/* ---- box heads ---- */

typedef struct roi_job {
    pd_detection *out;
    int *count;
    const pd_roi_outputs *heads;
    const pd_image_info *info;
    const pd_postprocess_cfg *cfg;
    bool *failed; /* (n) out of memory */
} roi_job;

void pd_roi_scores(float *score, const pd_roi_outputs *heads, size_t row)
{
    const size_t k = (size_t)heads->k + 1;
    float max = -INFINITY;
    double sum = 0;
    for (size_t c = 0; c < k; c++) {
        float v = 0;
        for (int s = 0; s < heads->stages; s++) v += heads->logits[s][row * k + c];
        score[c] = v / (float)heads->stages;
        if (score[c] > max) max = score[c];
    }
    for (size_t c = 0; c < k; c++) sum += (double)(score[c] = expf(score[c] - max));
    for (size_t c = 0; c < k; c++) score[c] = (float)((double)score[c] / sum);
}

pd_box pd_roi_box(const pd_roi_outputs *heads, size_t row, int label, const pd_image_info *info)
{
    if (!heads->deltas) return heads->boxes[row];
    pd_delta t;
    memcpy(&t, heads->deltas + 4 * (row * (size_t)heads->k + (size_t)label), sizeof t);
    return pd_box_clip(&heads->coder, pd_box_decode(&heads->coder, heads->boxes[row], t), info->h, info->w);
}

static pd_status detect_rois(pd_candidates *found, float *score, const roi_job *j, size_t image)
{
    const size_t m = (size_t)j->heads->m, k = (size_t)j->heads->k;
    for (size_t r = image * m; r < image * m + (size_t)j->heads->count[image]; r++) {
        pd_roi_scores(score, j->heads, r);
        for (size_t c = 0; c < k; c++) {
            if (!(score[c] > j->cfg->score_thresh)) continue;
            const pd_box box = pd_roi_box(j->heads, r, (int)c, &j->info[image]);
            PD_TRY(pd_candidates_add(found, pd_box_to_original(box, &j->info[image]), score[c], (int)c, NULL));
        }
    }
    return pd_candidates_detect(found, j->cfg, j->out + image * (size_t)j->cfg->max_per_image, &j->count[image], NULL);
}

static void detect_roi_images(void *arg, size_t begin, size_t end, int thread)
{
    const roi_job *j = arg;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        pd_candidates found = {0};
        float *score = malloc(((size_t)j->heads->k + 1) * sizeof *score);
        j->failed[i] = !score || detect_rois(&found, score, j, i) != PD_OK;
        pd_candidates_free(&found);
        free(score);
    }
}

pd_status pd_postprocess_rois(pd_detection *out, int *count, const pd_roi_outputs *heads, const pd_image_info *info,
                              const pd_postprocess_cfg *cfg, pd_pool *pool, pd_err *err)
{
    size_t pairs;
    PD_TRY(check_cfg(heads->n, info, cfg, err));
    if (heads->n < 0 || heads->m < 0 || heads->k < 1 || heads->stages < 1 || heads->stages > PD_MAX_STAGES ||
        !pd_mul_fits((size_t)heads->m, (size_t)heads->k, &pairs) || pairs > INT32_MAX)
        return PD_FAIL(err, PD_EINVAL, "postprocess: %d images of %d rows with %d classes in %d stages", heads->n,
                       heads->m, heads->k, heads->stages);
    for (int i = 0; i < heads->n; i++)
        if (heads->count[i] < 0 || heads->count[i] > heads->m)
            return PD_FAIL(err, PD_EINVAL, "postprocess: image %d has %d rows, the room is %d", i, heads->count[i],
                           heads->m);
    roi_job j = {.out = out, .heads = heads, .info = info, .cfg = cfg};
    j.count = count;
    j.failed = calloc((size_t)heads->n + 1, sizeof *j.failed);
    bool ok = j.failed != NULL;
    if (ok) pd_parallel_each(pool, (size_t)heads->n, detect_roi_images, &j);
    for (int i = 0; i < heads->n && ok; i++) ok = !j.failed[i];
    free(j.failed);
    return ok ? PD_OK : PD_FAIL(err, PD_ENOMEM, "out of memory for the detections of %d images", heads->n);
}
