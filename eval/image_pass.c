#include "eval/image_pass.h"

#include "eval/overlap.h"

#include <stdlib.h>

/* Buffers of one thread. */
typedef struct {
    pd_match_scratch match;
    const pd_coco_item **items;
    double *overlaps;
    struct ranked *ranked;
    size_t items_capacity, overlaps_capacity, ranked_capacity;
} scratch;

struct ranked {
    uint64_t key;
    size_t at;
};

typedef struct {
    const pd_coco_prepared *p;
    const pd_image_pass *pass;
    pd_match_setup setup;
    size_t *item_start, *object_start; /* (images + 1) */
    scratch *scratch;                  /* (threads) */
} job;

static int compare_ranked(const void *a, const void *b)
{
    const struct ranked *const x = a, *const y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}

/* The image's detections by score, cut to the limit. */
static pd_status rank_items(scratch *s, const job *work, size_t begin, size_t end, size_t *count, pd_err *err)
{
    PD_TRY(pd_grow(&s->ranked, &s->ranked_capacity, end - begin + 1, sizeof *s->ranked, err));
    PD_TRY(pd_grow(&s->items, &s->items_capacity, end - begin + 1, sizeof *s->items, err));
    size_t n = 0;
    for (size_t i = begin; i < end; i++)
        if (work->p->items[i]->score >= work->pass->min_score)
            s->ranked[n++] = (struct ranked){pd_score_key(work->p->items[i]->score), i};
    qsort(s->ranked, n, sizeof *s->ranked, compare_ranked);
    *count = n < work->pass->limit ? n : work->pass->limit;
    for (size_t i = 0; i < *count; i++) s->items[i] = work->p->items[s->ranked[i].at];
    return PD_OK;
}

static void visit_image(void *arg, size_t begin, size_t end, int thread)
{
    (void)end;
    const job *const work = arg;
    scratch *const s = &work->scratch[thread];
    const size_t first = work->item_start[begin], first_object = work->object_start[begin];
    const size_t m = work->object_start[begin + 1] - first_object;
    size_t n = 0;
    pd_err err = PD_ERR_INIT;
    s->match.cell = begin;
    if (rank_items(s, work, first, work->item_start[begin + 1], &n, &err) != PD_OK ||
        pd_grow(&s->overlaps, &s->overlaps_capacity, n * m + 1, sizeof *s->overlaps, &err) != PD_OK ||
        pd_grow(&s->match.overlaps, &s->match.overlaps_capacity, m + 1, sizeof *s->overlaps, &err) != PD_OK) {
        pd_match_fail(&s->match, &err);
        return;
    }
    const pd_match_object *const objects = work->p->objects + first_object;
    for (size_t i = 0; i < n && m; i++) {
        if (!pd_overlaps(&s->match, &work->setup, s->items[i], objects, m)) return;
        memcpy(s->overlaps + i * m, s->match.overlaps, m * sizeof *s->overlaps);
    }
    if (!n && !m) return;
    const pd_image_cell cell = {s->items, n, first, objects, m, first_object, s->overlaps};
    work->pass->visit(work->pass->arg, &cell, thread);
}

static pd_status index_images(job *work, pd_arena *arena, pd_err *err)
{
    const pd_coco_prepared *const p = work->p;
    const size_t n = p->gt->n_images;
    PD_TRY(PD_ALLOC(&work->item_start, arena, n + 1, err));
    PD_TRY(PD_ALLOC(&work->object_start, arena, n + 1, err));
    for (size_t i = 0; i < p->item_start[1]; i++) work->item_start[p->items[i]->image + 1]++;
    for (size_t i = 0; i < p->place_start[1]; i++) work->object_start[p->objects[i].image + 1]++;
    for (size_t i = 0; i < n; i++) {
        work->item_start[i + 1] += work->item_start[i];
        work->object_start[i + 1] += work->object_start[i];
    }
    return PD_OK;
}

static pd_status first_error(const job *work, int threads, pd_err *err)
{
    const pd_match_scratch *first = NULL;
    for (int t = 0; t < threads; t++) {
        const pd_match_scratch *const s = &work->scratch[t].match;
        if (s->err.code != PD_OK && (!first || s->fault_cell < first->fault_cell)) first = s;
    }
    if (!first) return PD_OK;
    if (err) *err = first->err;
    return first->err.code;
}

pd_status pd_coco_each_image(const pd_coco_prepared *p, const pd_image_pass *pass, pd_err *err)
{
    const int threads = pd_pool_threads(p->pool);
    job work = {.p = p,
                .pass = pass,
                .setup = {.gt = p->gt,
                          .dt = p->dt,
                          .type = p->params.type,
                          .least = pass->least,
                          .boundary = p->params.boundary,
                          .variances = p->variances,
                          .n_points = p->params.n_sigmas}};
    pd_status status = PD_OK;
    PD_TRY_DONE(index_images(&work, p->memory, err));
    PD_TRY_DONE(PD_ALLOC(&work.scratch, p->memory, (size_t)threads, err));
    pd_parallel_each(p->pool, p->gt->n_images, visit_image, &work);
    status = first_error(&work, threads, err);
done:
    for (int t = 0; work.scratch && t < threads; t++) {
        pd_match_scratch_free(&work.scratch[t].match);
        free(work.scratch[t].items);
        free(work.scratch[t].overlaps);
        free(work.scratch[t].ranked);
    }
    return status;
}
