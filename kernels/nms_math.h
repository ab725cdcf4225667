/* nms_math.h: the test of non-maximum suppression (nms.h) for two boxes, for the CPU's loops and CUDA kernels. */
#ifndef PD_NMS_MATH_H
#define PD_NMS_MATH_H

#include "engine/box.h"

#include <stdbool.h>

/* Does a kept box suppress another one? Areas by pd_box_area. */
PD_HD bool pd_nms_hits(pd_box kept, float kept_area, pd_box box, float area, float iou)
{
    const float inter = pd_box_intersection(kept, box);
    return inter > iou * ((kept_area + area) - inter);
}

PD_HD float pd_box_largest(pd_box b)
{
    const float x = b.x1 > b.x2 ? b.x1 : b.x2, y = b.y1 > b.y2 ? b.y1 : b.y2;
    return x > y ? x : y;
}

/* The box moved for its class; step: 1 + the largest coordinate of all boxes. */
PD_HD pd_box pd_nms_moved(pd_box b, int label, float step)
{
    const float by = (float)label * step;
    const pd_box moved = {b.x1 + by, b.y1 + by, b.x2 + by, b.y2 + by};
    return moved;
}

#endif
