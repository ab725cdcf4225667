/* soft_nms_math.h: what a kept box leaves of another one's score (soft_nms.h), for the CPU's loops and CUDA kernels. */
#ifndef PD_SOFT_NMS_MATH_H
#define PD_SOFT_NMS_MATH_H

#include "kernels/soft_nms.h"

#include <math.h>

PD_HD float pd_soft_nms_weight(pd_soft_nms_method method, float most_iou, float sigma, pd_box a, pd_box b)
{
    const float inter = pd_box_intersection(a, b);
    if (!(inter > 0)) return 1;
    const float iou = inter / ((pd_box_area(a) + pd_box_area(b)) - inter);
    if (method == PD_SOFT_GAUSSIAN) return expf(-(iou * iou) / sigma);
    return iou > most_iou ? 1 - iou : 1;
}

#endif
