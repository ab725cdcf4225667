/* soft_nms.h: non-maximum suppression that lowers scores instead of dropping boxes. Bodla et al. 2017, "Soft-NMS".
 *
 * Again and again the box with the largest score is kept (equal scores: the lower index), and the scores of the others
 * of its class are multiplied by a weight; boxes whose score falls below min_score go:
 *     linear    1 - IoU where IoU > iou, else 1                      eq. 2
 *     gaussian  exp(-IoU^2 / sigma)                                  eq. 3
 * Boxes without area have IoU 0 with everything. Float32, in this order; classes are compared, boxes are not moved. */
#ifndef PD_SOFT_NMS_H
#define PD_SOFT_NMS_H

#include "engine/box.h"

#include <stddef.h>

typedef enum pd_soft_nms_method { PD_SOFT_LINEAR, PD_SOFT_GAUSSIAN } pd_soft_nms_method;

typedef struct pd_soft_nms_cfg {
    pd_soft_nms_method method;
    float iou;       /* linear */
    float sigma;     /* gaussian; 0.5 */
    float min_score; /* 0.05 */
    int max_keep;    /* stops when so many are kept */
} pd_soft_nms_cfg;

size_t pd_soft_nms_work(int n);

/* keep: (min(n, max_keep)) indices, by descending final score; scores of kept boxes become final, the others' have no
 * meaning afterwards. labels NULL: all of one class. work: pd_soft_nms_work bytes. Returns how many are kept. */
int pd_soft_nms(int *keep, const pd_box *boxes, float *scores, const int *labels, int n, const pd_soft_nms_cfg *cfg,
                void *work);

#endif
