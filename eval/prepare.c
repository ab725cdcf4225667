#include "eval/prepare.h"

#include "eval/accumulate.h"
#include "eval/oks.h"

#include <math.h>
#include <stdlib.h>

/* ---- parameters ---- */

static pd_status copy_list(void *out, const void *in, size_t n, size_t size, pd_arena *arena, pd_err *err)
{
    void *copy;
    PD_TRY(pd_alloc(&copy, arena, n, size, err));
    memcpy(copy, in, n * size);
    memcpy(out, &copy, sizeof copy);
    return PD_OK;
}

static int compare_limits(const void *a, const void *b)
{
    const size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

/* numpy's linspace: by multiplication, the last value set. */
static pd_status default_thresholds(pd_coco_params *p, pd_arena *arena, pd_err *err)
{
    if (!p->iou_thrs) {
        double *iou;
        PD_TRY(PD_ALLOC(&iou, arena, 10, err));
        for (int i = 0; i < 9; i++) iou[i] = i * ((0.95 - 0.5) / 9) + 0.5;
        iou[9] = 0.95;
        p->iou_thrs = iou;
        p->n_iou = 10;
    }
    if (!p->recall_thrs) {
        double *recall;
        PD_TRY(PD_ALLOC(&recall, arena, 101, err));
        for (int i = 0; i < 100; i++) recall[i] = i * 0.01;
        recall[100] = 1;
        p->recall_thrs = recall;
        p->n_recall = 101;
    }
    return PD_OK;
}

static const double person_sigmas[17] = {.26 / 10,  .25 / 10, .25 / 10, .35 / 10, .35 / 10, .79 / 10,
                                         .79 / 10,  .72 / 10, .72 / 10, .62 / 10, .62 / 10, 1.07 / 10,
                                         1.07 / 10, .87 / 10, .87 / 10, .89 / 10, .89 / 10};
static const size_t box_limits[] = {1, 10, 100}, keypoint_limits[] = {20}, lvis_limits[] = {300};
static const pd_coco_range box_ranges[] = {{0, 1e10}, {0, 1024}, {1024, 9216}, {9216, 1e10}};
static const pd_coco_range keypoint_ranges[] = {{0, 1e10}, {1024, 9216}, {9216, 1e10}};

static void default_lists(pd_coco_params *p)
{
    const bool points = p->type == PD_COCO_KEYPOINTS;
    if (!p->limits) {
        p->limits = points ? keypoint_limits : p->lvis ? lvis_limits : box_limits;
        p->n_limits = points || p->lvis ? 1 : 3;
    }
    if (!p->areas) {
        p->areas = points ? keypoint_ranges : box_ranges;
        p->n_areas = points ? 3 : 4;
    }
    if (!p->sigmas) {
        p->sigmas = person_sigmas;
        p->n_sigmas = 17;
    }
}

static pd_status check_params(const pd_coco_params *p, pd_err *err)
{
    if ((unsigned)p->type > PD_COCO_KEYPOINTS)
        return PD_FAIL(err, PD_EINVAL, "%d is not a type of evaluation", (int)p->type);
    if (!p->n_iou || !p->n_recall || !p->n_limits || !p->n_areas || !p->n_sigmas)
        return PD_FAIL(err, PD_EINVAL, "an empty list of thresholds, limits, areas or sigmas");
    if (!(p->boundary >= 0 && p->boundary <= 1))
        return PD_FAIL(err, PD_EINVAL, "a boundary of %g of the diagonal; expected 0 to 1", p->boundary);
    if (p->boundary > 0 && p->type != PD_COCO_SEGM) return PD_FAIL(err, PD_EINVAL, "boundaries are for masks");
    if (p->lvis && (p->type == PD_COCO_KEYPOINTS || p->no_categories))
        return PD_FAIL(err, PD_EINVAL, "LVIS is for boxes and masks with categories");
    if (p->n_sigmas > PD_OKS_POINTS)
        return PD_FAIL(err, PD_EINVAL, "%zu sigmas; at most %d", p->n_sigmas, PD_OKS_POINTS);
    for (size_t i = 0; i < p->n_iou; i++)
        if (!isfinite(p->iou_thrs[i])) return PD_FAIL(err, PD_EINVAL, "IoU threshold %g", p->iou_thrs[i]);
    for (size_t i = 0; i < p->n_recall; i++)
        if (!isfinite(p->recall_thrs[i])) return PD_FAIL(err, PD_EINVAL, "recall threshold %g", p->recall_thrs[i]);
    for (size_t i = 0; i < p->n_limits; i++)
        if (p->limits[i] == 0 || p->limits[i] >= PD_NO_RANK)
            return PD_FAIL(err, PD_EINVAL, "a limit of %zu detections; expected 1 or more", p->limits[i]);
    for (size_t i = 0; i < p->n_areas; i++)
        if (isnan(p->areas[i].low) || isnan(p->areas[i].high))
            return PD_FAIL(err, PD_EINVAL, "area range %zu is not a pair of numbers", i);
    for (size_t i = 0; i < p->n_sigmas; i++)
        if (!(p->sigmas[i] > 0) || !isfinite(p->sigmas[i]))
            return PD_FAIL(err, PD_EINVAL, "sigma %zu is %g; expected a positive number", i, p->sigmas[i]);
    if ((p->keep & PD_COCO_KEEP_MATCHES) && p->n_iou > PD_MATCH_THRESHOLDS)
        return PD_FAIL(err, PD_EINVAL, "%zu IoU thresholds; matches are kept for at most %d", p->n_iou,
                       PD_MATCH_THRESHOLDS);
    return PD_OK;
}

static pd_status fill_params(pd_coco_prepared *e, const pd_coco_params *params, pd_err *err)
{
    static const pd_coco_params none = {0};
    pd_arena *const arena = e->memory;
    e->params = params ? *params : none;
    pd_coco_params *const p = &e->params;
    PD_TRY(default_thresholds(p, arena, err));
    default_lists(p);
    PD_TRY(check_params(p, err));
    size_t *limits;
    PD_TRY(copy_list(&limits, p->limits, p->n_limits, sizeof *limits, arena, err));
    qsort(limits, p->n_limits, sizeof *limits, compare_limits);
    p->limits = limits;
    PD_TRY(copy_list(&p->iou_thrs, p->iou_thrs, p->n_iou, sizeof *p->iou_thrs, arena, err));
    PD_TRY(copy_list(&p->recall_thrs, p->recall_thrs, p->n_recall, sizeof *p->recall_thrs, arena, err));
    PD_TRY(copy_list(&p->areas, p->areas, p->n_areas, sizeof *p->areas, arena, err));
    PD_TRY(PD_ALLOC(&e->variances, arena, p->n_sigmas, err));
    for (size_t i = 0; i < p->n_sigmas; i++) e->variances[i] = (2 * p->sigmas[i]) * (2 * p->sigmas[i]);
    return PD_OK;
}

/* ---- what is evaluated ---- */

static pd_status choose_images(pd_coco_prepared *e, pd_err *err)
{
    e->n_images = e->gt->n_images;
    if (!e->params.images) return PD_OK;
    char id[PD_COCO_ID_ROOM];
    PD_TRY(PD_ALLOC(&e->image_in, e->memory, e->gt->n_images, err));
    e->n_images = 0;
    for (size_t i = 0; i < e->params.n_images; i++) {
        const uint32_t at = pd_coco_id_find(&e->gt->image_table, e->params.images[i]);
        if (at == PD_COCO_NONE)
            return PD_FAIL(err, PD_EINVAL, "image %s is not in %s", pd_coco_id_format(id, e->params.images[i]),
                           e->gt->name);
        e->n_images += !e->image_in[at];
        e->image_in[at] = 1;
    }
    return PD_OK;
}

static bool is_one_class(const pd_coco_prepared *e)
{
    return e->params.no_categories || e->layout == PD_LAYOUT_IMAGES;
}

static pd_status choose_classes(pd_coco_prepared *e, pd_err *err)
{
    const pd_coco_gt *const gt = e->gt;
    char id[PD_COCO_ID_ROOM];
    PD_TRY(PD_ALLOC(&e->class_of, e->memory, gt->n_categories, err));
    const bool all = !e->params.categories;
    for (size_t c = 0; c < gt->n_categories; c++) e->class_of[c] = all ? 0 : PD_COCO_NONE;
    for (size_t i = 0; !all && i < e->params.n_categories; i++) {
        const uint32_t at = pd_coco_id_find(&gt->category_table, e->params.categories[i]);
        if (at == PD_COCO_NONE)
            return PD_FAIL(err, PD_EINVAL, "category %s is not in %s", pd_coco_id_format(id, e->params.categories[i]),
                           gt->name);
        e->class_of[at] = 0;
    }
    size_t n = 0;
    for (size_t c = 0; c < gt->n_categories; c++)
        if (e->class_of[c] != PD_COCO_NONE) e->class_of[c] = is_one_class(e) ? 0 : (uint32_t)n++;
    e->n_classes = is_one_class(e) ? 1 : n;
    return PD_OK;
}

/* lvis-api passes over what has no area, objects and detections. */
static bool has_area(double area)
{
    return area > 0 && area < INFINITY;
}

static bool listed(const pd_coco_prepared *e, uint32_t image, uint32_t category)
{
    return e->class_of[category] != PD_COCO_NONE && (!e->image_in || e->image_in[image]);
}

/* Records of the results that lack something: only those that are evaluated matter. */
static pd_status check_items(const pd_coco_prepared *e, pd_err *err)
{
    size_t before = 0;
    for (size_t b = 0; b < e->dt->n_blocks; b++) {
        const pd_coco_block *const block = &e->dt->blocks[b];
        for (size_t i = 0; i < block->n_bad; i++) {
            const pd_coco_bad_item *const bad = &block->bad[i];
            if (listed(e, bad->image, bad->category))
                return PD_FAIL(err, PD_EFORMAT, "%s: byte %zu: record %zu %s", e->dt->name, bad->offset,
                               before + bad->record, bad->reason);
        }
        before += block->records;
    }
    return PD_OK;
}

typedef struct {
    pd_coco_prepared *e;
    pd_err *errs; /* (threads) */
} boundary_job;

static void make_boundaries(void *arg, size_t begin, size_t end, int thread)
{
    const boundary_job *const job = arg;
    pd_coco_prepared *const e = job->e;
    pd_boundary_work work = {0};
    for (size_t i = begin; i < end && job->errs[thread].code == PD_OK; i++) {
        size_t capacity = 0;
        const pd_mask *const mask = &e->gt->objects[e->objects[i].object].mask;
        if (pd_mask_boundary(&e->boundaries[i], &capacity, mask, e->params.boundary, &work, &job->errs[thread]) ==
            PD_OK)
            e->objects[i].boundary = &e->boundaries[i];
    }
    pd_boundary_work_free(&work);
}

static pd_status gather_boundaries(pd_coco_prepared *e, pd_err *err)
{
    if (e->params.boundary == 0) return PD_OK;
    const size_t n = e->place_start[e->n_classes], threads = (size_t)pd_pool_threads(e->pool);
    boundary_job job = {.e = e};
    PD_TRY(PD_ALLOC(&job.errs, e->memory, threads, err));
    e->boundaries = calloc(n + 1, sizeof *e->boundaries);
    if (!e->boundaries) return PD_FAIL(err, PD_ENOMEM, "out of memory: %zu masks", n);
    pd_parallel(e->pool, n, make_boundaries, &job);
    for (size_t t = 0; t < threads; t++)
        if (job.errs[t].code != PD_OK) {
            if (err) *err = job.errs[t];
            return job.errs[t].code;
        }
    return PD_OK;
}

/* ---- LVIS ---- */

/* The image has the category, or is known not to have it. */
static bool is_federated(const pd_coco_prepared *e, const pd_coco_item *item)
{
    if (!has_area(pd_coco_item_area(e->dt, item))) return false;
    const uint32_t k = e->class_of[item->category];
    const size_t place = pd_coco_first_place(e, k, item->image);
    if (place < e->place_start[k + 1] && e->objects[place].image == item->image) return true;
    return pd_coco_listed_by_image(&e->gt->negative, item->image, item->category);
}

typedef struct {
    uint64_t key; /* of the score */
    size_t at;
} ranked;

static int compare_ranked(const void *a, const void *b)
{
    const ranked *const x = a, *const y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}

/* Keeps the best `limit` detections of each image, in their order, then those of categories that count there. items are
 * sorted by image. */
static pd_status federate(const pd_coco_prepared *e, const pd_coco_item **items, size_t *count, pd_err *err)
{
    const size_t n = *count, limit = e->params.limits[e->params.n_limits - 1];
    ranked *const list = malloc((n + 1) * sizeof *list);
    if (!list) return PD_FAIL(err, PD_ENOMEM, "out of memory: %zu detections", n);
    size_t kept = 0;
    for (size_t begin = 0, end; begin < n; begin = end) {
        for (end = begin; end < n && items[end]->image == items[begin]->image; end++)
            list[end - begin] = (ranked){pd_score_key(items[end]->score), end};
        size_t m = end - begin;
        if (m > limit) {
            qsort(list, m, sizeof *list, compare_ranked);
            m = limit;
            for (size_t i = 0; i < m; i++) list[i].key = 0; /* back to file order */
            qsort(list, m, sizeof *list, compare_ranked);
        }
        for (size_t i = 0; i < m; i++)
            if (is_federated(e, items[list[i].at])) items[kept++] = items[list[i].at];
    }
    free(list);
    *count = kept;
    return PD_OK;
}

/* ---- detections ---- */

static int compare_blocks(const void *a, const void *b)
{
    const pd_coco_block *const x = *(pd_coco_block *const *)a, *const y = *(pd_coco_block *const *)b;
    return (x->last_image > y->last_image) - (x->last_image < y->last_image);
}

/* All detections that take part, in file order (from memory: by image). Returns how many; *by_image: images never go
 * down. */
static size_t list_items(const pd_coco_prepared *e, pd_coco_block *const *blocks, const pd_coco_item **out,
                         bool *by_image)
{
    size_t n = 0;
    uint32_t last = 0;
    *by_image = true;
    for (size_t b = 0; b < e->dt->n_blocks; b++)
        for (size_t i = 0; i < blocks[b]->n; i++) {
            const pd_coco_item *const item = &blocks[b]->items[i];
            if (!listed(e, item->image, item->category)) continue;
            if (item->image < last) *by_image = false;
            last = item->image;
            out[n++] = item;
        }
    return n;
}

typedef enum { BY_IMAGE, BY_CATEGORY, BY_CLASS } sort_field;

static inline size_t field_of(const pd_coco_prepared *e, const pd_coco_item *item, sort_field field)
{
    return field == BY_IMAGE ? item->image : field == BY_CATEGORY ? item->category : e->class_of[item->category];
}

/* Stable; count (n_keys + 1) ends as the end of each key's stretch. */
static void sort_items(const pd_coco_prepared *e, const pd_coco_item **out, const pd_coco_item **in, size_t n,
                       sort_field field, size_t *count, size_t n_keys)
{
    memset(count, 0, (n_keys + 1) * sizeof *count);
    for (size_t i = 0; i < n; i++) count[field_of(e, in[i], field) + 1]++;
    for (size_t k = 0; k < n_keys; k++) count[k + 1] += count[k];
    for (size_t i = 0; i < n; i++) out[count[field_of(e, in[i], field)]++] = in[i];
}

/* The usual case, by all threads: a whole file whose records stand by image. Where each block's detections of a class
 * go follows from the counts that were made while reading. */
typedef struct {
    const pd_coco_prepared *e;
    const pd_coco_item **items;
    size_t *at; /* (blocks, classes) */
} scatter_job;

static void scatter_block(void *arg, size_t begin, size_t end, int thread)
{
    (void)end;
    (void)thread;
    const scatter_job *const job = arg;
    const pd_coco_block *const block = &job->e->dt->blocks[begin];
    size_t *const at = job->at + begin * job->e->n_classes;
    for (size_t i = 0; i < block->n; i++) job->items[at[block->items[i].category]++] = &block->items[i];
}

static bool is_plain(const pd_coco_prepared *e)
{
    if (e->dt->added || e->image_in || e->params.categories || e->params.lvis || is_one_class(e)) return false;
    uint32_t last = 0;
    for (size_t b = 0; b < e->dt->n_blocks; b++) {
        const pd_coco_block *const block = &e->dt->blocks[b];
        if (block->descending_image || (block->n && block->items[0].image < last)) return false;
        if (block->n) last = block->last_image;
    }
    return true;
}

static pd_status scatter_items(pd_coco_prepared *e, pd_err *err)
{
    const pd_coco_dt *const dt = e->dt;
    const size_t K = e->n_classes;
    PD_TRY(PD_ALLOC(&e->item_start, e->memory, K + 1, err));
    for (size_t b = 0; b < dt->n_blocks; b++)
        for (size_t k = 0; k < K && dt->blocks[b].histogram; k++) e->item_start[k + 1] += dt->blocks[b].histogram[k];
    for (size_t k = 0; k < K; k++) e->item_start[k + 1] += e->item_start[k];
    e->items = malloc((e->item_start[K] + 1) * sizeof *e->items);
    scatter_job job = {e, e->items, malloc((dt->n_blocks * K + 1) * sizeof *job.at)};
    if (!e->items || !job.at) {
        free(job.at);
        return PD_FAIL(err, PD_ENOMEM, "out of memory: %zu detections", e->item_start[K]);
    }
    for (size_t k = 0; k < K; k++)
        for (size_t b = 0, at = e->item_start[k]; b < dt->n_blocks; b++) {
            job.at[b * K + k] = at;
            at += dt->blocks[b].histogram ? dt->blocks[b].histogram[k] : 0;
        }
    pd_parallel_each(e->pool, dt->n_blocks, scatter_block, &job);
    free(job.at);
    return PD_OK;
}

/* items by class, image, file order; without categories by image, category, file order. */
static pd_status gather_items(pd_coco_prepared *e, pd_err *err)
{
    if (is_plain(e)) return scatter_items(e, err);
    const pd_coco_dt *const dt = e->dt;
    const size_t n_keys = (e->gt->n_images > e->gt->n_categories ? e->gt->n_images : e->gt->n_categories) + 2;
    size_t total = 0;
    for (size_t b = 0; b < dt->n_blocks; b++) total += dt->blocks[b].n;
    pd_status status = PD_OK;
    const pd_coco_item **first = malloc((total + 1) * sizeof *first), **second = malloc((total + 1) * sizeof *second);
    pd_coco_block **const blocks = malloc((dt->n_blocks + 1) * sizeof *blocks);
    size_t *const count = malloc(n_keys * sizeof *count);
    if (!first || !second || !blocks || !count) {
        status = PD_FAIL(err, PD_ENOMEM, "out of memory: %zu detections", total);
        goto done;
    }
    for (size_t b = 0; b < dt->n_blocks; b++) blocks[b] = &dt->blocks[b];
    if (dt->added) qsort(blocks, dt->n_blocks, sizeof *blocks, compare_blocks);
    bool by_image;
    size_t n = list_items(e, blocks, first, &by_image);
    PD_TRY_DONE(PD_ALLOC(&e->item_start, e->memory, e->n_classes + 1, err));
#define PASS(field, keys)                                                                                              \
    do {                                                                                                               \
        sort_items(e, second, first, n, (field), count, (keys));                                                       \
        const pd_coco_item **const swap = first;                                                                       \
        first = second;                                                                                                \
        second = swap;                                                                                                 \
    } while (0)
    if (e->layout == PD_LAYOUT_IMAGES) {
        if (!by_image) PASS(BY_IMAGE, e->gt->n_images);
        e->item_start[1] = n;
    } else if (e->params.no_categories) {
        PASS(BY_CATEGORY, e->gt->n_categories);
        PASS(BY_IMAGE, e->gt->n_images);
        e->item_start[1] = n;
    } else {
        if (!by_image) PASS(BY_IMAGE, e->gt->n_images);
        if (e->params.lvis) PD_TRY_DONE(federate(e, first, &n, err));
        PASS(BY_CLASS, e->n_classes);
        memcpy(e->item_start + 1, count, e->n_classes * sizeof *count);
    }
#undef PASS
    e->items = first;
    first = NULL;
done:
    free(first);
    free(second);
    free(blocks);
    free(count);
    return status;
}

/* File order. */
static int compare_places(const void *a, const void *b)
{
    const pd_coco_place *const x = a, *const y = b;
    return (x->object > y->object) - (x->object < y->object);
}

/* The places that take part, by class and image. Usually the ground truth's own list. */
static pd_status gather_places(pd_coco_prepared *e, pd_err *err)
{
    const pd_coco_gt *const gt = e->gt;
    if (!e->image_in && !e->params.categories && !is_one_class(e) && !e->params.lvis && !gt->unlisted_places) {
        e->places = gt->places;
        e->place_start = gt->category_start;
        return PD_OK;
    }
    pd_status status = PD_OK;
    uint32_t *const order = malloc((gt->n_places + 1) * sizeof *order), *const keys =
                                                                            malloc((gt->n_places + 1) * sizeof *keys);
    size_t *const count = malloc((gt->n_images + 2) * sizeof *count);
    e->own_places = malloc((gt->n_places + 1) * sizeof *e->own_places);
    if (!order || !keys || !count || !e->own_places) {
        status = PD_FAIL(err, PD_ENOMEM, "out of memory: %zu annotations", gt->n_places);
        goto done;
    }
    PD_TRY_DONE(PD_ALLOC(&e->place_start, e->memory, e->n_classes + 1, err));
    size_t n = 0;
    for (size_t i = 0; i < gt->n_places; i++) {
        const pd_coco_place place = gt->places[i];
        const pd_coco_object *const o = &gt->objects[place.object];
        /* An object is looked for where it is listed, and filed where it belongs: both must take part. Without
         * categories it is looked for by image alone. */
        if (e->image_in && !e->image_in[place.image]) continue;
        if ((!e->params.no_categories || e->layout == PD_LAYOUT_IMAGES) &&
            (place.category == PD_COCO_NONE || e->class_of[place.category] == PD_COCO_NONE))
            continue;
        if (!listed(e, o->image, o->category)) continue;
        if (e->params.lvis && !has_area(o->area)) continue;
        e->own_places[n++] = place;
        e->place_start[e->class_of[o->category] + 1] = n;
    }
    for (size_t k = 0; k < e->n_classes; k++)
        if (e->place_start[k + 1] < e->place_start[k]) e->place_start[k + 1] = e->place_start[k];
    if (e->layout == PD_LAYOUT_IMAGES) qsort(e->own_places, n, sizeof *e->own_places, compare_places);
    if (is_one_class(e)) {
        for (size_t i = 0; i < n; i++) keys[i] = gt->objects[e->own_places[i].object].image;
        pd_coco_sort_by(order, NULL, n, keys, count, gt->n_images);
        pd_coco_place *const sorted = malloc((n + 1) * sizeof *sorted);
        if (!sorted) {
            status = PD_FAIL(err, PD_ENOMEM, "out of memory: %zu annotations", n);
            goto done;
        }
        for (size_t i = 0; i < n; i++) sorted[i] = e->own_places[order[i]];
        free(e->own_places);
        e->own_places = sorted;
    }
    e->places = e->own_places;
done:
    free(order);
    free(keys);
    free(count);
    return status;
}

/* What every object that takes part must have. */
static pd_status check_object(const pd_coco_prepared *e, size_t at, pd_err *err)
{
    const pd_coco_object *const o = &e->gt->objects[at];
    const pd_coco_type type = e->params.type;
    if (o->has_iscrowd != PD_COCO_GOOD && !e->params.lvis)
        return pd_coco_object_fail(e->gt, at, err,
                                   o->has_iscrowd == PD_COCO_ABSENT ? "has no iscrowd"
                                                                    : "iscrowd is not a number between 0 and 255");
    if (type == PD_COCO_KEYPOINTS && o->has_num_keypoints == PD_COCO_ABSENT)
        return pd_coco_object_fail(e->gt, at, err, "has no num_keypoints");
    const bool ignored = pd_match_always_ignored(o, &e->params);
    if (!ignored && o->has_area != PD_COCO_GOOD)
        return pd_coco_object_fail(e->gt, at, err,
                                   o->has_area == PD_COCO_ABSENT ? "has no area" : "area is not a number");
    if (type == PD_COCO_BBOX && o->has_bbox != PD_COCO_GOOD)
        return pd_coco_object_fail(
            e->gt, at, err, o->has_bbox == PD_COCO_ABSENT ? "has no bbox" : "bbox is not a list of four numbers");
    if (type == PD_COCO_SEGM && o->has_mask != PD_COCO_GOOD) {
        return pd_coco_object_fail(e->gt, at, err, "%s",
                                   o->has_mask == PD_COCO_ABSENT ? "has no segmentation" : o->mask_fault);
    }
    return PD_OK;
}

static pd_status gather_objects(pd_coco_prepared *e, pd_err *err)
{
    const size_t A = e->params.n_areas, n = e->place_start[e->n_classes];
    PD_TRY(PD_ALLOC(&e->to_find, e->memory, e->n_classes * A, err));
    e->objects = malloc((n + 1) * sizeof *e->objects);
    e->ignore = malloc(n * A + 1);
    if (!e->objects || !e->ignore) return PD_FAIL(err, PD_ENOMEM, "out of memory: %zu objects", n);
    for (size_t k = 0; k < e->n_classes; k++) {
        for (size_t i = e->place_start[k]; i < e->place_start[k + 1]; i++) {
            PD_TRY(check_object(e, e->places[i].object, err));
            const pd_coco_object *const o = &e->gt->objects[e->places[i].object];
            pd_match_object *const out = &e->objects[i];
            *out = (pd_match_object){.object = e->places[i].object,
                                     .image = o->image,
                                     .crowd_overlap = o->crowd_overlap && !e->params.lvis,
                                     .id_zero = o->id_zero};
            memcpy(out->bbox, o->bbox, sizeof out->bbox);
            for (size_t a = 0; a < A; a++) {
                e->ignore[i * A + a] = pd_match_ignored(o, &e->params, e->params.areas[a]);
                e->to_find[k * A + a] += !e->ignore[i * A + a];
            }
        }
    }
    return PD_OK;
}

/* ---- all of it ---- */

size_t pd_coco_first_place(const pd_coco_prepared *e, size_t class_index, uint32_t image)
{
    size_t low = e->place_start[class_index], high = e->place_start[class_index + 1];
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (e->objects[middle].image < image)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Files were read for this type of evaluation: a box must not stand in for a mask that nobody read. */
static pd_status check_read(const pd_coco_prepared *e, pd_err *err)
{
    static const unsigned wanted[] = {0, PD_COCO_READ_MASKS, PD_COCO_READ_KEYPOINTS};
    static const char *const names[] = {"", "PD_COCO_READ_MASKS", "PD_COCO_READ_KEYPOINTS"};
    const pd_coco_type type = e->params.type;
    if (wanted[type] & ~e->gt->options.read)
        return PD_FAIL(err, PD_EINVAL, "%s was opened without %s", e->gt->name, names[type]);
    if (e->dt->kind == PD_COCO_DT_BOXES && (wanted[type] & ~e->dt->read))
        return PD_FAIL(err, PD_EINVAL, "%s was opened without %s", e->dt->name, names[type]);
    return PD_OK;
}

pd_status pd_coco_prepare(pd_coco_prepared *out, const pd_coco_gt *gt, const pd_coco_dt *dt,
                          const pd_coco_params *params, pd_layout layout, pd_pool *pool, pd_arena *memory, pd_err *err)
{
    *out = (pd_coco_prepared){.layout = layout, .gt = gt, .dt = dt, .pool = pool, .memory = memory};
    if (dt->gt != gt) return PD_FAIL(err, PD_EINVAL, "%s was read for another ground truth", dt->name);
    PD_TRY(fill_params(out, params, err));
    PD_TRY(check_read(out, err));
    PD_TRY(choose_images(out, err));
    PD_TRY(choose_classes(out, err));
    PD_TRY(check_items(out, err));
    PD_TRY(gather_places(out, err));
    PD_TRY(gather_objects(out, err));
    PD_TRY(gather_boundaries(out, err));
    return gather_items(out, err);
}

void pd_coco_prepared_release(pd_coco_prepared *p)
{
    free(p->items);
    free(p->own_places);
    for (size_t i = 0; p->boundaries && i < p->place_start[p->n_classes]; i++) free(p->boundaries[i].ends);
    free(p->boundaries);
    free(p->objects);
    free(p->ignore);
}
