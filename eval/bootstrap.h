/* bootstrap.h: how sure a number is: confidence intervals by resampling images, and the paired comparison of two
 * results.
 *
 * Efron 1987, bias-corrected percentile intervals (resampled AP lies a little high: an image drawn twice brings its
 * hits twice). One resample draws as many images as were evaluated, with replacement; an image drawn twice counts as
 * two images. AP is computed anew for each, over the same IoU thresholds, recalls and categories (area "all", largest
 * limit). Draws come from the counter-based generator alone: the same seed gives the same numbers on any machine and
 * any number of threads, and both results of a comparison see the same images. Results must have been evaluated with
 * PD_COCO_KEEP_MATCHES. */
#ifndef PD_BOOTSTRAP_H
#define PD_BOOTSTRAP_H

#include "eval/coco_ap.h"

typedef enum pd_coco_metric {
    PD_COCO_METRIC_AP,
    PD_COCO_METRIC_AP50,
    PD_COCO_METRIC_AP75,
    PD_COCO_METRICS
} pd_coco_metric;

typedef struct pd_coco_interval {
    double value;       /* on the images as they are */
    double mean, error; /* over the resamples: mean and standard deviation */
    double low, high;   /* of the interval */
} pd_coco_interval;

typedef struct pd_coco_bootstrap {
    size_t rounds;
    double level; /* 0.95: 95 % of the resamples lie in the interval */
    uint64_t seed;
} pd_coco_bootstrap;

/* out[PD_COCO_METRICS]; a metric whose IoU threshold was not evaluated is all -1.
 * Errors: PD_EINVAL for rounds < 2, a level outside (0, 1) or a result without matches; PD_ENOMEM. */
pd_status pd_coco_bootstrap_run(pd_coco_interval *out, const pd_coco_result *result, const pd_coco_bootstrap *how,
                                pd_pool *pool, pd_err *err);

typedef struct pd_coco_difference {
    pd_coco_interval interval; /* of b - a */
    double a_better;           /* share of resamples in which a is better, ties half */
} pd_coco_difference;

/* Compares b to a on the same resamples: out[PD_COCO_METRICS]. Both must be of the same images and thresholds. */
pd_status pd_coco_bootstrap_compare(pd_coco_difference *out, const pd_coco_result *a, const pd_coco_result *b,
                                    const pd_coco_bootstrap *how, pd_pool *pool, pd_err *err);

#endif
