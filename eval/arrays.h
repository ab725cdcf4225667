/* arrays.h: the arrays behind a result, and the numbers read off them. Private to eval/. */
#ifndef PD_ARRAYS_H
#define PD_ARRAYS_H

#include "eval/coco_ap.h"
#include "eval/match.h"

/* Category by category, so that threads write apart: precision and scores (K, A, M, T, R), recall (K, A, M, T). */
struct pd_coco_arrays {
    double *precision, *recall, *scores; /* scores NULL unless kept */
};

static inline size_t pd_arrays_recall_at(const pd_coco_result *r, size_t t, size_t k, size_t a, size_t m)
{
    return ((k * r->n_areas + a) * r->n_limits + m) * r->n_iou + t;
}

static inline size_t pd_arrays_at(const pd_coco_result *r, size_t t, size_t rec, size_t k, size_t a, size_t m)
{
    return pd_arrays_recall_at(r, t, k, a, m) * r->n_recall + rec;
}

/* Fills stats, names, lines, ap_max and the numbers of the categories. frequency (K): LVIS's groups; NULL: COCO's
 * numbers. */
pd_status pd_coco_summarize(pd_coco_result *result, const char *frequency, pd_err *err);

#endif
