/* mixed_loss_math.h: the targets of mixed_loss.h, for the CPU loop and the CUDA kernels. */
#ifndef PD_MIXED_LOSS_MATH_H
#define PD_MIXED_LOSS_MATH_H

#include "engine/hd.h"
#include "kernels/mixed_loss.h"

/* Of class c, of k, in a row with classes a and b. */
PD_HD float pd_mixed_target(const pd_mixed_cfg *cfg, int k, int c, int a, int b, float share)
{
    float t = (c == a ? share : 0) + (c == b ? 1 - share : 0);
    t = cfg->smoothing / (float)k + (1 - cfg->smoothing) * t;
    if (cfg->kind == PD_MIXED_SIGMOID && cfg->threshold > 0) t = t > cfg->threshold;
    return t;
}

/* What the sum of all terms is divided by; 1 where there is no row. */
PD_HD double pd_mixed_terms(const pd_mixed_cfg *cfg, int rows, int k)
{
    if (rows == 0) return 1;
    return cfg->kind == PD_MIXED_SIGMOID ? (double)rows * k : (double)rows;
}

#endif
