/* curves.h: what an evaluation looks like over scores: precision, recall and F1 at a score threshold, the best
 * threshold.
 *
 * At IoU threshold t, area "all" and the largest limit, a detection with score >= s that matched counts as a true
 * positive, one that did not as a false positive, ignored ones as neither; objects without a counted match are missed:
 *     precision = tp / (tp + fp), recall = tp / objects, F1 = 2 tp / (tp + fp + objects).
 * Over all categories the counts are added up first (micro average).
 * The result must have been evaluated with PD_COCO_KEEP_MATCHES. Thread rule: pure functions of a constant result. */
#ifndef PD_CURVES_H
#define PD_CURVES_H

#include "eval/coco_ap.h"

#define PD_COCO_ALL SIZE_MAX /* as category: all of them */

typedef struct pd_coco_point {
    double score; /* the threshold */
    size_t tp, fp, objects;
    double precision, recall, f1; /* 0 where the denominator is 0 */
} pd_coco_point;

/* The point at each of n score thresholds, in any order, for category k or PD_COCO_ALL. */
pd_status pd_coco_points(pd_coco_point *out, const pd_coco_result *result, size_t k, size_t t, const double *scores,
                         size_t n, pd_err *err);

/* The threshold of best F1: the score of a detection; of equal F1 the highest. With nothing detected all is 0. */
pd_status pd_coco_best_f1(pd_coco_point *out, const pd_coco_result *result, size_t k, size_t t, pd_err *err);

#endif
