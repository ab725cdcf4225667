/* focal_loss_math.h: the focal term of one logit, for the CPU loop and the CUDA kernel.
 *
 * Both cases are one function: with p = sigmoid(x), u = -log(1 - p) = softplus(x),
 *   f(x, a) = a p^gamma u,   f' = a p^gamma (gamma (1 - p) u + p)
 * background: L = f(x, 1 - alpha), slope f'; positive: L = f(-x, alpha), slope -f'(-x). */
#ifndef PD_FOCAL_LOSS_MATH_H
#define PD_FOCAL_LOSS_MATH_H

#include "engine/hd.h"

/* What f needs of x: e = exp(-|x|), l = log(1 + e) and big = 1 / (1 + e), taken by whatever the caller has. */
typedef struct pd_focal_parts {
    float p, q; /* sigmoid(x), 1 - sigmoid(x), both without cancellation */
    float u;    /* softplus(x) */
    float minus_log_p;
} pd_focal_parts;

PD_HD pd_focal_parts pd_focal_split(float x, float e, float l, float big)
{
    const float small = e * big;
    const int up = x >= 0;
    const pd_focal_parts s = {up ? big : small, up ? small : big, (up ? x : 0.f) + l, (up ? 0.f : -x) + l};
    return s;
}

/* power = p^gamma */
PD_HD float pd_focal_value(pd_focal_parts s, float power, float a)
{
    return a * power * s.u;
}

PD_HD float pd_focal_slope(pd_focal_parts s, float power, float a, float gamma)
{
    return a * power * (gamma * s.q * s.u + s.p);
}

#endif
