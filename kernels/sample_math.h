/* sample_math.h: the sampler's draws (sample.h), for the CPU and CUDA: the same numbers in the same order. */
#ifndef PD_SAMPLE_MATH_H
#define PD_SAMPLE_MATH_H

#include "engine/rng.h"
#include "kernels/sample.h"

/* Positives that are wanted. */
PD_HD int pd_sample_positives(const pd_sample_cfg *cfg)
{
    return (int)((float)cfg->num * cfg->fraction);
}

/* Moves k of the n entries to the front: a Fisher-Yates shuffle that stops after k. Nothing is drawn where all stay. */
PD_HD void pd_sample_choose(int *list, int n, int k, const pd_sample_cfg *cfg, pd_rng *rng)
{
    if (cfg->first || k >= n) return;
    for (int i = 0; i < k; i++) {
        const int j = i + (int)pd_rng_below(rng, (uint32_t)(n - i)), t = list[i];
        list[i] = list[j];
        list[j] = t;
    }
}

#endif
