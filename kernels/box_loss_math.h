/* box_loss_math.h: smooth L1 of one offset, for the CPU loop and the CUDA kernel. */
#ifndef PD_BOX_LOSS_MATH_H
#define PD_BOX_LOSS_MATH_H

#include "engine/hd.h"

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

#endif
