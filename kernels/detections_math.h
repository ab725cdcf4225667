/* detections_math.h: scores and boxes of single candidates (detections.h), for the CPU and CUDA. */
#ifndef PD_DETECTIONS_MATH_H
#define PD_DETECTIONS_MATH_H

#include "engine/box.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

PD_HD float pd_detection_score(float logit)
{
    return 1.f / (1.f + expf(-logit));
}

/* A box in pixels of a resized image of width w, mirrored or not, in pixels of the original. */
PD_HD pd_box pd_detection_unscaled(pd_box b, int w, float scale_x, float scale_y, bool mirrored)
{
    const float x1 = mirrored ? (float)w - b.x2 : b.x1, x2 = mirrored ? (float)w - b.x1 : b.x2;
    const pd_box original = {x1 / scale_x, b.y1 / scale_y, x2 / scale_x, b.y2 / scale_y};
    return original;
}

/* The mean of the stages' logits at one place. */
PD_HD float pd_mean_logit(const float *const *logits, int stages, size_t at)
{
    float sum = 0;
    for (int s = 0; s < stages; s++) sum += logits[s][at];
    return sum / (float)stages;
}

/* A softmax in two steps: what exp is taken of, and the share of the sum of all. */
PD_HD float pd_softmax_term(float x, float largest)
{
    return expf(x - largest);
}
PD_HD float pd_softmax_share(float term, double sum)
{
    return (float)((double)term / sum);
}

#endif
