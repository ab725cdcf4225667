/* roi_align.h: one fixed-size feature map per box, cut from a feature pyramid.
 *
 * Bins: He et al. 2017, "Mask R-CNN", sec. 3, shifted by half a pixel ("aligned"). With scale = 1 / stride and
 * x1 = roi.x1 * scale - 0.5, rw = (roi.x2 - roi.x1) * scale, bin = rw / size (the same for y): a bin is the mean of
 * gh x gw bilinear samples at x1 + px * bin + (ix + 0.5) * bin / gw, where gw = ratio, or ceil(rw / size) with ratio 0.
 * A sample beyond one pixel outside the map counts 0; one within is held at the border.
 *
 * Level of a box: Lin et al. 2017, "FPN", eq. 1: floor(log2(sqrt(w * h) / 56 + 1e-6)) in float32, held within the
 * levels given, 0 being the finest; boxes without area take level 0.
 *
 *   level[l] (n, h, w, c)     features, fine to coarse; stride[l] input pixels each. Gradients flow to these only.
 *   rois     (n, m, 4)        x1, y1, x2, y2 in input pixels
 *   n_rois   (n) I32          only the first so many rows of an image are used, the others give zeros; NULL: all
 *   returns  (n * m, size, size, c)
 *
 * Bilinear sampling on a grid is separable, so each box is done as two small matrix products, one per axis. Backward
 * walks the boxes of an image in order, so its bits do not depend on threads. */
#ifndef PD_ROI_ALIGN_H
#define PD_ROI_ALIGN_H

#include "engine/box.h"
#include "engine/tape.h"

#include <math.h>

/* The level, 0..levels-1. */
PD_HD int pd_roi_level(pd_box roi, int levels)
{
    const float size = sqrtf((roi.x2 - roi.x1) * (roi.y2 - roi.y1));
    const float level = floorf(log2f(size / 56.f + 1e-6f));
    /* not (level >= 1): also where the size is not a number */
    return level >= (float)levels ? levels - 1 : level >= 1.f ? (int)level : 0;
}

pd_value *pd_roi_align(pd_tape *tape, pd_value *const *level, const int *stride, int levels, pd_value *rois,
                       pd_value *n_rois, int size, int ratio);

#endif
