/* bn_sum_math.h: the per-channel and per-element formulas of pd_bn_sum (bn_sum.h), for every device. */
#ifndef PD_BN_SUM_MATH_H
#define PD_BN_SUM_MATH_H

#include "engine/hd.h"

#include <math.h>

typedef struct pd_bn_moments {
    double mean, var; /* biased */
    double unbiased;
} pd_bn_moments;

/* From the sums of (z - shift) and of its square over m elements. The shift is some element: differences are then of
 * the size of the deviation, however large the mean. */
PD_HD pd_bn_moments pd_bn_moments_of(double sum, double squares, double shift, double m)
{
    pd_bn_moments out;
    const double s = sum / m;
    double q = squares / m - s * s;
    if (q < 0) q = 0;
    out.mean = shift + s;
    out.var = q;
    out.unbiased = m > 1 ? q * m / (m - 1) : q;
    return out;
}

PD_HD float pd_bn_rstd(double var, float eps)
{
    return (float)(1 / sqrt(var + (double)eps));
}

/* What the ReLU lets through of a gradient. */
PD_HD float pd_bn_masked(float dy, float y, int relu)
{
    return relu && !(y > 0) ? 0.f : dy;
}

/* dz = p g + q z + r with p = a gamma rstd; q and r are 0 where the statistics are fixed. dgamma, dbeta: sums over all
 * m elements. */
PD_HD float pd_bn_dz(float p, float g, float q, float z, float r)
{
    return p * g + (q * z + r);
}

PD_HD float pd_bn_q(double gamma, double rstd, double dgamma, double m)
{
    return (float)(-gamma * rstd * rstd * dgamma / m);
}

PD_HD float pd_bn_r(double gamma, double rstd, double dbeta, double m, float q, float mean)
{
    return (float)(-gamma * rstd * dbeta / m) - q * mean;
}

#endif
