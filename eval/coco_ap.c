#include "eval/coco_ap.h"

#include "eval/accumulate.h"
#include "eval/arrays.h"
#include "eval/matches.h"
#include "eval/prepare.h"

#include <math.h>
#include <stdlib.h>

/* Detections matched at a time: enough to keep all threads busy, little enough to stay in the cache. */
#define BATCH 65536

/* A stretch of one category's detections that ends between two images. */
typedef struct {
    size_t class_index, begin, end;
} segment;

typedef struct {
    pd_coco_prepared p;
    pd_coco_result *result;

    /* One batch of matched detections: slots first_item .. of items. */
    size_t first_item;
    double *scores;
    uint32_t *ranks;
    uint32_t *orders; /* of a cell's ranks while matching; then of a class's detections by score */
    pd_match *matches;
    char *frequency; /* (n_classes) LVIS: 'r', 'c', 'f' */
    segment *segments;
    size_t n_segments, segments_capacity;
    size_t first_class, end_class; /* of the batch */

    pd_match_setup match;
    pd_accumulate_setup accumulate;
    pd_match_scratch *match_scratch;           /* (threads) */
    pd_accumulate_scratch *accumulate_scratch; /* (threads) */
    pd_err *thread_errs;                       /* (threads) */
} evaluation;

/* What the result says about its parameters and categories. */
static pd_status describe(evaluation *e, pd_err *err)
{
    pd_coco_result *const r = e->result;
    const pd_coco_params *const p = &e->p.params;
    r->type = p->type;
    r->iou_thrs = p->iou_thrs;
    r->n_iou = p->n_iou;
    r->recall_thrs = p->recall_thrs;
    r->n_recall = p->n_recall;
    r->limits = p->limits;
    r->n_limits = p->n_limits;
    r->areas = p->areas;
    r->n_areas = p->n_areas;
    r->images = e->p.n_images;
    r->n_categories = e->p.n_classes;
    PD_TRY(PD_ALLOC(&r->categories, r->memory, e->p.n_classes, err));
    const pd_coco_gt *const gt = e->p.gt;
    PD_TRY(PD_ALLOC(&e->frequency, r->memory, e->p.n_classes, err));
    for (size_t c = 0; c < gt->n_categories; c++) {
        const uint32_t k = e->p.class_of[c];
        if (k == PD_COCO_NONE || p->no_categories) continue;
        r->categories[k].id = gt->categories[c].id;
        r->categories[k].name = gt->categories[c].name;
        e->frequency[k] = gt->frequency[c];
    }
    if (p->no_categories) r->categories[0] = (pd_coco_category_ap){.id = pd_coco_int_id(-1), .name = "all"};
    for (size_t k = 0; k < e->p.n_classes; k++) {
        r->categories[k].objects = e->p.to_find[k * p->n_areas];
        r->objects += r->categories[k].objects;
    }
    return PD_OK;
}

/* ---- matching and accumulating ---- */

static pd_status make_scratch(evaluation *e, pd_err *err)
{
    const size_t threads = (size_t)pd_pool_threads(e->p.pool), A = e->p.params.n_areas;
    pd_coco_result *const r = e->result;
    PD_TRY(PD_ALLOC(&e->match_scratch, r->memory, threads, err));
    PD_TRY(PD_ALLOC(&e->accumulate_scratch, r->memory, threads, err));
    PD_TRY(PD_ALLOC(&e->thread_errs, r->memory, threads, err));
    PD_TRY(PD_ALLOC(&r->arrays, r->memory, 1, err));
    if (e->p.params.keep & PD_COCO_KEEP_MATCHES) {
        PD_TRY(PD_ALLOC(&r->matches, r->memory, 1, err));
        PD_TRY(PD_ALLOC(&r->matches->classes, r->memory, e->p.n_classes, err));
        r->matches->n_classes = e->p.n_classes;
        r->matches->n_images = e->p.gt->n_images;
        PD_TRY(PD_ALLOC(&r->matches->images, r->memory, e->p.n_images, err));
        for (uint32_t i = 0, n = 0; i < e->p.gt->n_images; i++)
            if (!e->p.image_in || e->p.image_in[i]) r->matches->images[n++] = i;
    }
    const size_t recalls = e->p.n_classes * A * r->n_limits * r->n_iou;
    size_t precisions;
    if (!pd_mul_fits(recalls, r->n_recall, &precisions) || precisions > SIZE_MAX / 16)
        return PD_FAIL(err, PD_ENOMEM, "out of memory: arrays of %zu x %zu numbers", recalls, r->n_recall);
    /* Not from the arena: every number is written here anyway. */
    r->arrays->precision = malloc((precisions + 1) * sizeof(double));
    r->arrays->recall = malloc((recalls + 1) * sizeof(double));
    const bool scores = r->arrays->precision && r->arrays->recall && (e->p.params.keep & PD_COCO_KEEP_ARRAYS);
    if (scores) r->arrays->scores = malloc((precisions + 1) * sizeof(double));
    if (!r->arrays->precision || !r->arrays->recall || (scores && !r->arrays->scores))
        return PD_FAIL(err, PD_ENOMEM, "out of memory: arrays of %zu numbers", precisions);
    return PD_OK;
}

static void match_segment(void *arg, size_t begin, size_t end, int thread)
{
    (void)end;
    evaluation *const e = arg;
    pd_match_scratch *const scratch = &e->match_scratch[thread];
    const segment s = e->segments[begin];
    const size_t last_place = e->p.place_start[s.class_index + 1], A = e->p.params.n_areas;
    size_t place = pd_coco_first_place(&e->p, s.class_index, e->p.items[s.begin]->image);
    for (size_t i = s.begin; i < s.end;) {
        const uint32_t image = e->p.items[i]->image;
        size_t n = 1, m = 0;
        while (i + n < s.end && e->p.items[i + n]->image == image) n++;
        for (size_t ahead = i + n; ahead < i + n + 16 && ahead < s.end; ahead++) __builtin_prefetch(e->p.items[ahead]);
        while (place < last_place && e->p.objects[place].image < image) place++;
        while (place + m < last_place && e->p.objects[place + m].image == image) m++;
        const size_t slot = i - e->first_item;
        uint32_t *const order = e->orders + slot;
        scratch->cell = i;
        const size_t kept = pd_match_cell(scratch, &e->match, e->p.items + i, n, e->p.objects + place,
                                          e->p.ignore + place * A, m, order, e->matches + slot * A);
        for (size_t rank = 0; rank < n; rank++) {
            e->ranks[slot + rank] = rank < kept ? (uint32_t)rank : PD_NO_RANK;
            e->scores[slot + rank] = rank < kept ? e->p.items[i + order[rank]]->score : 0;
        }
        i += n;
        place += m;
    }
}

/* Keeps the class's detections by score, and where its objects are. Arenas are not for several threads: heap. */
static pd_status keep_matches(const evaluation *e, size_t k, const uint32_t *by_score, const pd_matched_list *list,
                              pd_err *err)
{
    pd_kept_class *const kept = &e->result->matches->classes[k];
    const size_t A = e->p.params.n_areas, n = e->result->categories[k].detections, start = e->p.item_start[k];
    kept->list = malloc((n + 1) * sizeof *kept->list);
    kept->images = malloc((e->p.to_find[k * A] + 1) * sizeof *kept->images);
    if (!kept->list || !kept->images) return PD_FAIL(err, PD_ENOMEM, "out of memory: %zu detections", n);
    for (size_t i = 0; i < n; i++) {
        const uint32_t at = by_score[i];
        kept->list[i] = (pd_kept_match){list->scores[at], e->p.items[start + at]->image, list->matches[at * A]};
    }
    kept->n = n;
    for (size_t i = e->p.place_start[k]; i < e->p.place_start[k + 1]; i++)
        if (!e->p.ignore[i * A]) kept->images[kept->objects++] = e->p.objects[i].image;
    return PD_OK;
}

/* The batch's part of class k. */
static pd_matched_list list_of(const evaluation *e, size_t k)
{
    const size_t slot = e->p.item_start[k] - e->first_item;
    return (pd_matched_list){.scores = e->scores + slot,
                             .ranks = e->ranks + slot,
                             .matches = e->matches + slot * e->p.params.n_areas,
                             .n = e->p.item_start[k + 1] - e->p.item_start[k]};
}

static void sort_class(void *arg, size_t begin, size_t end, int thread)
{
    (void)end;
    evaluation *const e = arg;
    const size_t k = e->first_class + begin;
    const pd_matched_list list = list_of(e, k);
    uint32_t *const by_score = e->orders + (e->p.item_start[k] - e->first_item);
    pd_err *const err = &e->thread_errs[thread];
    if (pd_accumulate_sort(by_score, &e->result->categories[k].detections, &list, &e->accumulate_scratch[thread],
                           err) == PD_OK &&
        e->result->matches)
        keep_matches(e, k, by_score, &list, err);
}

/* One area range of one class: the class of half of all detections must not keep the other threads waiting. */
static void accumulate_area(void *arg, size_t begin, size_t end, int thread)
{
    (void)end;
    evaluation *const e = arg;
    const size_t A = e->p.params.n_areas, k = e->first_class + begin / A, a = begin % A;
    pd_coco_result *const r = e->result;
    const pd_matched_list list = list_of(e, k);
    const size_t at = pd_arrays_at(r, 0, 0, k, a, 0), recall_at = pd_arrays_recall_at(r, 0, k, a, 0);
    double *const precision = r->arrays->precision + at, *const recall = r->arrays->recall + recall_at;
    double *const scores = r->arrays->scores ? r->arrays->scores + at : NULL;
    if (e->accumulate.first_threshold == 0) { /* -1: nothing to find */
        const size_t n = r->n_limits * r->n_iou;
        for (size_t i = 0; i < n; i++) recall[i] = -1;
        for (size_t i = 0; i < n * r->n_recall; i++) precision[i] = -1;
        for (size_t i = 0; scores && i < n * r->n_recall; i++) scores[i] = -1;
    }
    pd_accumulate(precision, recall, scores, &e->accumulate, &list, e->orders + (e->p.item_start[k] - e->first_item),
                  r->categories[k].detections, a, e->p.to_find[k * A + a], &e->accumulate_scratch[thread],
                  &e->thread_errs[thread]);
}

/* The first failure: of the lowest cell, whatever the threads did. */
static pd_status collect_errors(const evaluation *e, pd_err *err)
{
    const pd_err *first = NULL;
    size_t cell = SIZE_MAX;
    for (int t = 0; t < pd_pool_threads(e->p.pool); t++) {
        const pd_match_scratch *const s = &e->match_scratch[t];
        if (s->err.code != PD_OK && (!first || s->fault_cell < cell)) {
            first = &s->err;
            cell = s->fault_cell;
        }
        if (e->thread_errs[t].code != PD_OK && !first) first = &e->thread_errs[t];
    }
    if (!first) return PD_OK;
    if (err) *err = *first;
    return first->code;
}

/* Cuts the batch's classes into segments of about equal size, at image boundaries. */
static pd_status cut_segments(evaluation *e, pd_err *err)
{
    const size_t most = BATCH / 16;
    e->n_segments = 0;
    for (size_t k = e->first_class; k < e->end_class; k++)
        for (size_t begin = e->p.item_start[k], end; begin < e->p.item_start[k + 1]; begin = end) {
            end = begin + most < e->p.item_start[k + 1] ? begin + most : e->p.item_start[k + 1];
            while (end < e->p.item_start[k + 1] && e->p.items[end]->image == e->p.items[end - 1]->image) end++;
            PD_TRY(pd_grow(&e->segments, &e->segments_capacity, e->n_segments + 1, sizeof *e->segments, err));
            e->segments[e->n_segments++] = (segment){k, begin, end};
        }
    return PD_OK;
}

static pd_status run_batch(evaluation *e, pd_err *err)
{
    PD_TRY(cut_segments(e, err));
    pd_parallel_each(e->p.pool, e->n_segments, match_segment, e);
    PD_TRY(collect_errors(e, err));
    const size_t classes = e->end_class - e->first_class;
    pd_parallel_each(e->p.pool, classes, sort_class, e);
    PD_TRY(collect_errors(e, err));
    pd_parallel_each(e->p.pool, classes * e->p.params.n_areas, accumulate_area, e);
    return collect_errors(e, err);
}

/* One round: up to PD_MATCH_THRESHOLDS thresholds, all classes, batch by batch. */
static pd_status run_round(evaluation *e, pd_err *err)
{
    for (size_t k = 0; k < e->p.n_classes;) {
        e->first_class = k;
        e->first_item = e->p.item_start[k];
        do k++;
        while (k < e->p.n_classes && e->p.item_start[k + 1] - e->first_item <= BATCH);
        e->end_class = k;
        PD_TRY(run_batch(e, err));
    }
    return PD_OK;
}

static pd_status run(evaluation *e, pd_err *err)
{
    pd_coco_result *const r = e->result;
    const size_t A = r->n_areas;
    size_t room = BATCH;
    for (size_t k = 0; k < e->p.n_classes; k++)
        if (e->p.item_start[k + 1] - e->p.item_start[k] > room) room = e->p.item_start[k + 1] - e->p.item_start[k];
    if (room >= PD_NO_RANK) return PD_FAIL(err, PD_EFORMAT, "%s: %zu detections of one category", e->p.dt->name, room);
    if (room > e->p.item_start[e->p.n_classes]) room = e->p.item_start[e->p.n_classes] + 1;
    e->scores = malloc(room * sizeof *e->scores);
    e->ranks = malloc(room * sizeof *e->ranks);
    e->orders = malloc(room * sizeof *e->orders);
    e->matches = malloc(room * A * sizeof *e->matches);
    if (!e->scores || !e->ranks || !e->orders || !e->matches)
        return PD_FAIL(err, PD_ENOMEM, "out of memory: %zu detections", room);
    for (size_t first = 0; first < r->n_iou; first += PD_MATCH_THRESHOLDS) {
        const size_t n = r->n_iou - first < PD_MATCH_THRESHOLDS ? r->n_iou - first : PD_MATCH_THRESHOLDS;
        e->match = (pd_match_setup){.gt = e->p.gt,
                                    .dt = e->p.dt,
                                    .type = r->type,
                                    .thresholds = r->iou_thrs + first,
                                    .n_thresholds = n,
                                    .areas = r->areas,
                                    .n_areas = A,
                                    .limit = r->limits[r->n_limits - 1],
                                    .boundary = e->p.params.boundary,
                                    .variances = e->p.variances,
                                    .n_points = e->p.params.n_sigmas,
                                    .lvis = e->p.params.lvis,
                                    .no_overlaps = r->type == PD_COCO_KEYPOINTS && e->p.params.no_categories};
        e->accumulate = (pd_accumulate_setup){.n_thresholds = n,
                                              .first_threshold = first,
                                              .n_iou = r->n_iou,
                                              .recall_thrs = r->recall_thrs,
                                              .n_recall = r->n_recall,
                                              .n_areas = A,
                                              .limits = r->limits,
                                              .n_limits = r->n_limits};
        e->match.least = 1;
        for (size_t t = 0; t < n; t++) e->match.least = fmin(e->match.least, pd_match_floor(e->match.thresholds[t]));
        PD_TRY(run_round(e, err));
    }
    for (size_t k = 0; k < e->p.n_classes; k++) r->detections += r->categories[k].detections;
    return PD_OK;
}

static pd_status evaluate(evaluation *e, const pd_coco_gt *gt, const pd_coco_dt *dt, const pd_coco_params *params,
                          pd_pool *pool, pd_err *err)
{
    PD_TRY(pd_coco_prepare(&e->p, gt, dt, params, PD_LAYOUT_CLASSES, pool, e->result->memory, err));
    PD_TRY(describe(e, err));
    PD_TRY(make_scratch(e, err));
    PD_TRY(run(e, err));
    return pd_coco_summarize(e->result, e->p.params.lvis ? e->frequency : NULL, err);
}

static void release(evaluation *e)
{
    for (int t = 0; t < pd_pool_threads(e->p.pool); t++) {
        if (e->match_scratch) pd_match_scratch_free(&e->match_scratch[t]);
        if (e->accumulate_scratch) pd_accumulate_scratch_free(&e->accumulate_scratch[t]);
    }
    pd_coco_prepared_release(&e->p);
    free(e->scores);
    free(e->ranks);
    free(e->orders);
    free(e->matches);
    free(e->segments);
}

pd_status pd_coco_evaluate(pd_coco_result **out, const pd_coco_gt *gt, const pd_coco_dt *dt,
                           const pd_coco_params *params, pd_pool *pool, pd_err *err)
{
    evaluation e = {.p.pool = pool};
    e.result = calloc(1, sizeof *e.result);
    if (!e.result || !(e.result->memory = pd_arena_new())) {
        free(e.result);
        return PD_FAIL(err, PD_ENOMEM, "out of memory");
    }
    const pd_status status = evaluate(&e, gt, dt, params, pool, err);
    release(&e);
    if (status == PD_OK)
        *out = e.result;
    else
        pd_coco_result_free(e.result);
    return status;
}

void pd_coco_result_free(pd_coco_result *result)
{
    if (!result) return;
    if (result->arrays) {
        free(result->arrays->precision);
        free(result->arrays->recall);
        free(result->arrays->scores);
    }
    for (size_t k = 0; result->matches && k < result->matches->n_classes; k++) {
        free(result->matches->classes[k].list);
        free(result->matches->classes[k].images);
    }
    pd_arena_free(result->memory);
    free(result);
}
