#include "detectors/detector_kind.h"
#include "engine/arena.h"
#include "kernels/nms.h"

#include <stdlib.h>
#include <string.h>

/* Candidates of all views together. */
static pd_status merge_candidates(pd_detector *d, pd_form form, const pd_batch *const *views, int n, pd_candidates *all,
                                  pd_err *err)
{
    const pd_detector_kind *kind = pd_detector_kind_of(d);
    for (int v = 0; v < n; v++) {
        const void *net;
        PD_TRY(pd_detector_run_one(d, form, views[v], NULL, 0, &net, err));
        PD_TRY(kind->candidates(net, pd_detector_get(d), views[v]->info, all, pd_detector_pool(d), err));
    }
    return PD_OK;
}

/* ---- with proposals ---- */

/* Working memory of m proposals with k + 1 scores and `per_row` boxes each. */
typedef struct merged {
    int m, k;
    size_t per_row;
    pd_box *common, *moved;      /* (m) in the original image, in a view */
    pd_box *boxes;               /* (m, per_row) what became of them there */
    float *scores;               /* (m, k + 1) in a view */
    double *box_sum, *score_sum; /* (m, per_row, 4), (m, k + 1) */
} merged;

static pd_status reserve(merged *w, int m, int k, int per_row, pd_arena *arena, pd_err *err)
{
    const size_t rows = (size_t)m + 1;
    *w = (merged){.m = m, .k = k, .per_row = (size_t)per_row};
    PD_TRY(PD_ALLOC(&w->common, arena, rows, err));
    PD_TRY(PD_ALLOC(&w->moved, arena, rows, err));
    PD_TRY(PD_ALLOC(&w->boxes, arena, rows * w->per_row, err));
    PD_TRY(PD_ALLOC(&w->scores, arena, rows * ((size_t)k + 1), err));
    PD_TRY(PD_ALLOC(&w->box_sum, arena, rows * w->per_row * 4, err));
    return PD_ALLOC(&w->score_sum, arena, rows * ((size_t)k + 1), err);
}

/* The proposals of all views, in the original image, after one suppression: w->common; their number in *count. */
static pd_status common_proposals(pd_detector *d, pd_form form, const pd_batch *const *views, int n, merged *w,
                                  int *count, pd_arena *arena, pd_err *err)
{
    const pd_proposals_cfg *cfg = &pd_detector_get(d)->cascade.rpn.test;
    const pd_nms_cfg nms = {.iou = cfg->nms_iou, .max_keep = cfg->max_keep};
    const size_t room = (size_t)n * (size_t)cfg->max_keep;
    pd_box *all;
    float *score;
    int *keep, total = 0;
    char *work;
    PD_TRY(PD_ALLOC(&all, arena, room, err));
    PD_TRY(PD_ALLOC(&score, arena, room, err));
    PD_TRY(PD_ALLOC(&keep, arena, room, err));
    for (int v = 0; v < n; v++) {
        const void *net;
        const pd_box *boxes;
        const float *scores;
        PD_TRY(pd_detector_run_one(d, form, views[v], NULL, 0, &net, err));
        const int found = pd_detector_kind_of(d)->proposals(net, &boxes, &scores);
        for (int r = 0; r < found; r++, total++) {
            all[total] = pd_box_to_original(boxes[r], views[v]->info);
            score[total] = scores[r];
        }
    }
    PD_TRY(PD_ALLOC(&work, arena, pd_nms_work(total, &nms), err));
    *count = pd_nms(keep, all, score, NULL, total, &nms, work);
    for (int r = 0; r < *count; r++) w->common[r] = all[keep[r]];
    return PD_OK;
}

/* Adds what one view makes of the common proposals. */
static pd_status add_view(pd_detector *d, pd_form form, const pd_batch *view, merged *w, int count, pd_err *err)
{
    const void *net;
    const size_t k = (size_t)w->k + 1;
    memset(w->moved, 0, (size_t)w->m * sizeof *w->moved);
    for (int r = 0; r < count; r++) w->moved[r] = pd_box_to_resized(w->common[r], view->info);
    PD_TRY(pd_detector_run_one(d, form, view, w->moved, count, &net, err));
    pd_detector_kind_of(d)->rows(net, view->info, count, w->boxes, w->scores);
    for (size_t r = 0; r < (size_t)count * w->per_row; r++) {
        const pd_box b = pd_box_to_original(w->boxes[r], view->info);
        const double at[4] = {(double)b.x1, (double)b.y1, (double)b.x2, (double)b.y2};
        for (size_t i = 0; i < 4; i++) w->box_sum[4 * r + i] += at[i];
    }
    for (size_t i = 0; i < (size_t)count * k; i++) w->score_sum[i] += (double)w->scores[i];
    return PD_OK;
}

static pd_status merge_rows(pd_detector *d, pd_form form, const pd_batch *const *views, int n, pd_candidates *all,
                            pd_err *err)
{
    const pd_detector_settings *set = pd_detector_get(d);
    merged w;
    int count = 0;
    pd_arena *arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "out of memory for the views of an image");
    pd_status status = PD_OK;
    PD_TRY_DONE(reserve(&w, set->cascade.rpn.test.max_keep, set->classes, pd_row_boxes(set), arena, err));
    PD_TRY_DONE(common_proposals(d, form, views, n, &w, &count, arena, err));
    for (int v = 0; v < n; v++) PD_TRY_DONE(add_view(d, form, views[v], &w, count, err));
    for (size_t r = 0; r < (size_t)count; r++) {
        const double *s = w.score_sum + ((size_t)w.k + 1) * r;
        for (int c = 0; c < w.k; c++) {
            const float score = (float)(s[c] / n);
            const double *b = w.box_sum + 4 * (r * w.per_row + (w.per_row > 1 ? (size_t)c : 0));
            const pd_box box = {(float)(b[0] / n), (float)(b[1] / n), (float)(b[2] / n), (float)(b[3] / n)};
            if (score > set->test.score_thresh) PD_TRY_DONE(pd_candidates_add(all, box, score, c, err));
        }
    }
done:
    pd_arena_free(arena);
    return status;
}

pd_status pd_detector_detect_views(pd_detector *d, pd_form form, const pd_batch *const *views, int n, pd_detection *out,
                                   int *count, pd_err *err)
{
    for (int v = 0; v < n; v++)
        if (views[v]->n != 1)
            return PD_FAIL(err, PD_EINVAL, "view %d is a batch of %d images: expected one", v, views[v]->n);
    if (n < 1) return PD_FAIL(err, PD_EINVAL, "%d views of an image: expected at least one", n);
    pd_candidates all = {0};
    pd_status status = pd_detector_kind_of(d)->proposals ? merge_rows(d, form, views, n, &all, err)
                                                         : merge_candidates(d, form, views, n, &all, err);
    if (status == PD_OK) status = pd_candidates_detect(&all, &pd_detector_get(d)->test, out, count, err);
    pd_candidates_free(&all);
    return status;
}
