/* confusion.h: which category is taken for which.
 *
 * Detections with score >= `score`, image by image and best first, take the free object of highest overlap >= `iou`
 * whatever its category (COCO's matching without categories; crowds and the like only absorb; a detection without
 * object whose own area is outside of the first area range counts nowhere). A pair counts at [object's category]
 * [detection's category], an object that nobody took at [category][background], a detection without object at
 * [background][category]; background is index n, and [n][n] stays 0. */
#ifndef PD_CONFUSION_H
#define PD_CONFUSION_H

#include "eval/coco_ap.h"

typedef struct pd_coco_confusion {
    size_t n;       /* categories, as sorted in the ground truth */
    size_t *counts; /* (n + 1, n + 1) */
    double iou, score;
} pd_coco_confusion;

/* params (or NULL) gives type, images and sigmas; categories not evaluated have empty rows and columns. Free
 * out->counts with free(). */
pd_status pd_coco_confuse(pd_coco_confusion *out, const pd_coco_gt *gt, const pd_coco_dt *dt,
                          const pd_coco_params *params, double iou, double score, pd_pool *pool, pd_err *err);

#endif
