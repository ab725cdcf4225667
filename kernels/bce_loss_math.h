/* bce_loss_math.h: binary cross-entropy of one logit with y = 0, for the CPU loop and the CUDA kernel; y = 1 is the
 * same of -x, slope negated. e = exp(-|x|) and l = log(1 + e) are taken by whatever exp and log the caller has. */
#ifndef PD_BCE_LOSS_MATH_H
#define PD_BCE_LOSS_MATH_H

#include "engine/hd.h"

/* softplus(x) */
PD_HD float pd_bce_value(float x, float l)
{
    return (x > 0 ? x : 0.f) + l;
}

/* sigmoid(x) */
PD_HD float pd_bce_slope(float x, float e)
{
    const float big = 1.f / (1.f + e);
    return x >= 0 ? big : e * big;
}

#endif
