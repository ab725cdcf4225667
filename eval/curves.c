#include "eval/curves.h"

#include "eval/matches.h"

#include <stdlib.h>

static pd_status check(const pd_coco_result *r, size_t k, size_t t, pd_err *err)
{
    if (!r->matches) return PD_FAIL(err, PD_EINVAL, "evaluated without PD_COCO_KEEP_MATCHES");
    if (k != PD_COCO_ALL && k >= r->n_categories)
        return PD_FAIL(err, PD_EINVAL, "category %zu of %zu", k, r->n_categories);
    if (t >= r->n_iou) return PD_FAIL(err, PD_EINVAL, "IoU threshold %zu of %zu", t, r->n_iou);
    return PD_OK;
}

static pd_coco_point make_point(double score, size_t tp, size_t fp, size_t objects)
{
    const double hits = (double)tp;
    return (pd_coco_point){.score = score,
                           .tp = tp,
                           .fp = fp,
                           .objects = objects,
                           .precision = tp + fp ? hits / (double)(tp + fp) : 0,
                           .recall = objects ? hits / (double)objects : 0,
                           .f1 = tp + fp + objects ? 2 * hits / (double)(tp + fp + objects) : 0};
}

/* Adds the class's counts at a score to the point. The list falls, so a search finds how far it reaches. */
static void add_counts(size_t *tp, size_t *fp, const pd_kept_class *class, size_t t, double score)
{
    for (size_t i = 0; i < class->n && class->list[i].score >= score; i++) {
        const pd_match fate = class->list[i].fate;
        if (fate.ignored >> t & 1) continue;
        if (fate.matched >> t & 1)
            ++*tp;
        else
            ++*fp;
    }
}

pd_status pd_coco_points(pd_coco_point *out, const pd_coco_result *r, size_t k, size_t t, const double *scores,
                         size_t n, pd_err *err)
{
    PD_TRY(check(r, k, t, err));
    const size_t first = k == PD_COCO_ALL ? 0 : k, end = k == PD_COCO_ALL ? r->n_categories : k + 1;
    for (size_t i = 0; i < n; i++) {
        size_t tp = 0, fp = 0, objects = 0;
        for (size_t c = first; c < end; c++) {
            objects += r->matches->classes[c].objects;
            add_counts(&tp, &fp, &r->matches->classes[c], t, scores[i]);
        }
        out[i] = make_point(scores[i], tp, fp, objects);
    }
    return PD_OK;
}

/* A detection that counts. */
typedef struct {
    double score;
    bool hit;
} counted;

static int compare_counted(const void *a, const void *b)
{
    const counted *const x = a, *const y = b;
    return (x->score < y->score) - (x->score > y->score);
}

pd_status pd_coco_best_f1(pd_coco_point *out, const pd_coco_result *r, size_t k, size_t t, pd_err *err)
{
    PD_TRY(check(r, k, t, err));
    const size_t first = k == PD_COCO_ALL ? 0 : k, end = k == PD_COCO_ALL ? r->n_categories : k + 1;
    size_t n = 0, objects = 0, tp = 0, fp = 0;
    for (size_t c = first; c < end; c++) n += r->matches->classes[c].n;
    counted *const list = malloc((n + 1) * sizeof *list);
    if (!list) return PD_FAIL(err, PD_ENOMEM, "out of memory: %zu detections", n);
    n = 0;
    for (size_t c = first; c < end; c++) {
        const pd_kept_class *const class = &r->matches->classes[c];
        objects += class->objects;
        for (size_t i = 0; i < class->n; i++) {
            const pd_match fate = class->list[i].fate;
            if (fate.ignored >> t & 1 || class->list[i].score != class->list[i].score) continue;
            list[n++] = (counted){class->list[i].score, fate.matched >> t & 1};
        }
    }
    qsort(list, n, sizeof *list, compare_counted);
    pd_coco_point best = make_point(0, 0, 0, objects);
    for (size_t i = 0; i < n; i++) {
        tp += list[i].hit;
        fp += !list[i].hit;
        if (i + 1 < n && list[i + 1].score == list[i].score) continue; /* a threshold takes all of one score */
        const pd_coco_point point = make_point(list[i].score, tp, fp, objects);
        if (point.f1 > best.f1) best = point;
    }
    free(list);
    *out = best;
    return PD_OK;
}
