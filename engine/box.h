/* box.h: axis-aligned boxes, shared by data, models and CUDA kernels.
 *
 * Corners in continuous pixels: width = x2 - x1, no "+1" anywhere. COCO's x, y, w, h appears only where its files are
 * read and written. All arithmetic is float32 in exactly the written order: the project is compiled with
 * floating-point contraction off, so that every place that computes an IoU gets the same bits. */
#ifndef PD_BOX_H
#define PD_BOX_H

#include "engine/hd.h"

typedef struct pd_box {
    float x1, y1, x2, y2;
} pd_box;

PD_HD float pd_box_area(pd_box b)
{
    return (b.x2 - b.x1) * (b.y2 - b.y1);
}

PD_HD float pd_box_intersection(pd_box a, pd_box b)
{
    const float x1 = a.x1 > b.x1 ? a.x1 : b.x1, y1 = a.y1 > b.y1 ? a.y1 : b.y1;
    const float x2 = a.x2 < b.x2 ? a.x2 : b.x2, y2 = a.y2 < b.y2 ? a.y2 : b.y2;
    const float w = x2 - x1, h = y2 - y1;
    return (w > 0 ? w : 0) * (h > 0 ? h : 0);
}

/* Intersection over union with mmdetection's guard: the union is at least 1e-6. */
PD_HD float pd_box_iou(pd_box gt, pd_box b)
{
    const float inter = pd_box_intersection(gt, b);
    const float both = (pd_box_area(gt) + pd_box_area(b)) - inter;
    return inter / (both > 1e-6f ? both : 1e-6f);
}

#endif
