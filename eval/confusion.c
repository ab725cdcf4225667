#include "eval/confusion.h"

#include "eval/image_pass.h"

#include <math.h>
#include <stdlib.h>

typedef struct {
    const pd_coco_gt *gt;
    const pd_coco_dt *dt;
    const pd_coco_params *params;
    double iou;
    size_t width;    /* categories + 1 */
    size_t **counts; /* (threads) matrices */
    uint8_t *taken;  /* (objects) */
} job;

static bool is_ignored(const job *work, const pd_match_object *object)
{
    return pd_match_ignored(&work->gt->objects[object->object], work->params, work->params->areas[0]);
}

/* The free object of highest overlap, the last of equals; those to be found first. m where there is none. */
static size_t best_object(const job *work, const pd_image_cell *cell, size_t i, const uint8_t *taken)
{
    size_t best = cell->m;
    double least = pd_match_floor(work->iou);
    for (int phase = 0; phase < 2 && best == cell->m; phase++)
        for (size_t g = 0; g < cell->m; g++) {
            if (is_ignored(work, &cell->objects[g]) != (phase == 1)) continue;
            if (taken[g] && !cell->objects[g].crowd_overlap) continue;
            const double overlap = cell->overlaps[i * cell->m + g];
            if (!(overlap >= least)) continue;
            least = overlap;
            best = g;
        }
    return best;
}

static void count_image(void *arg, const pd_image_cell *cell, int thread)
{
    const job *const work = arg;
    size_t *const counts = work->counts[thread];
    uint8_t *const taken = work->taken + cell->first_object;
    const size_t background = work->width - 1;
    for (size_t i = 0; i < cell->n; i++) {
        const size_t g = best_object(work, cell, i, taken);
        size_t row = background;
        if (g < cell->m) {
            taken[g] = 1;
            if (is_ignored(work, &cell->objects[g])) continue;
            row = work->gt->objects[cell->objects[g].object].category;
        } else {
            const double area = pd_coco_item_area(work->dt, cell->items[i]);
            if (area < work->params->areas[0].low || area > work->params->areas[0].high) continue;
        }
        counts[row * work->width + cell->items[i]->category]++;
    }
    for (size_t g = 0; g < cell->m; g++)
        if (!taken[g] && !is_ignored(work, &cell->objects[g]))
            counts[work->gt->objects[cell->objects[g].object].category * work->width + background]++;
}

static pd_status count_all(size_t **out, pd_coco_prepared *p, double iou, double score, pd_err *err)
{
    const size_t threads = (size_t)pd_pool_threads(p->pool), width = p->gt->n_categories + 1;
    job work = {.gt = p->gt, .dt = p->dt, .params = &p->params, .iou = iou, .width = width};
    PD_TRY(PD_ALLOC(&work.taken, p->memory, p->place_start[1], err));
    PD_TRY(PD_ALLOC(&work.counts, p->memory, threads, err));
    for (size_t t = 0; t < threads; t++) PD_TRY(PD_ALLOC(&work.counts[t], p->memory, width * width, err));
    const pd_image_pass pass = {
        .least = pd_match_floor(iou), .min_score = score, .limit = SIZE_MAX, .visit = count_image, .arg = &work};
    PD_TRY(pd_coco_each_image(p, &pass, err));
    size_t *const counts = calloc(width * width, sizeof *counts);
    if (!counts) return PD_FAIL(err, PD_ENOMEM, "out of memory: a matrix of %zu x %zu", width, width);
    for (size_t t = 0; t < threads; t++)
        for (size_t i = 0; i < width * width; i++) counts[i] += work.counts[t][i];
    *out = counts;
    return PD_OK;
}

pd_status pd_coco_confuse(pd_coco_confusion *out, const pd_coco_gt *gt, const pd_coco_dt *dt,
                          const pd_coco_params *params, double iou, double score, pd_pool *pool, pd_err *err)
{
    if (!(iou > 0 && iou <= 1)) return PD_FAIL(err, PD_EINVAL, "an IoU of %g; expected 0 to 1", iou);
    if (isnan(score)) return PD_FAIL(err, PD_EINVAL, "a score of NaN");
    pd_arena *const arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    pd_coco_prepared p;
    size_t *counts = NULL;
    pd_status status = pd_coco_prepare(&p, gt, dt, params, PD_LAYOUT_IMAGES, pool, arena, err);
    if (status == PD_OK) status = count_all(&counts, &p, iou, score, err);
    pd_coco_prepared_release(&p);
    pd_arena_free(arena);
    if (status == PD_OK) *out = (pd_coco_confusion){gt->n_categories, counts, iou, score};
    return status;
}
