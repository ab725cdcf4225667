/* box_loss_math.h: smooth L1 of one offset, and the offsets of one box, for the CPU loop and the CUDA kernel. */
#ifndef PD_BOX_LOSS_MATH_H
#define PD_BOX_LOSS_MATH_H

#include "kernels/box_coder.h"

#include <math.h>

PD_HD float pd_smooth_l1(float d, float beta)
{
    const float a = fabsf(d);
    return a < beta ? 0.5f * a * a / beta : a - 0.5f * beta;
}

PD_HD float pd_smooth_l1_slope(float d, float beta)
{
    if (fabsf(d) < beta) return d / beta;
    return d > 0 ? 1.f : d < 0 ? -1.f : d; /* d: 0 or NaN */
}

/* How far the predicted offsets of p are from those of g. */
PD_HD void pd_box_miss(float d[4], const pd_box_coder *coder, pd_box p, pd_box g, const float predicted[4])
{
    const pd_delta t = pd_box_encode(coder, p, g);
    d[0] = predicted[0] - t.dx;
    d[1] = predicted[1] - t.dy;
    d[2] = predicted[2] - t.dw;
    d[3] = predicted[3] - t.dh;
}

#endif
