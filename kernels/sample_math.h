/* sample_math.h: the sampler's draws (sample.h), for the CPU and CUDA: the same numbers in the same order.
 *
 * The CPU shuffles a list. CUDA's threads draw side by side and then work out which entries a shuffle would have moved
 * to the front, without a list. */
#ifndef PD_SAMPLE_MATH_H
#define PD_SAMPLE_MATH_H

#include "engine/rng.h"
#include "kernels/sample.h"

/* Positives that are wanted. */
PD_HD int pd_sample_positives(const pd_sample_cfg *cfg)
{
    return (int)((float)cfg->num * cfg->fraction);
}

/* Are k of n entries drawn? Not where all stay, none, or the first k. */
PD_HD bool pd_sample_draws(const pd_sample_cfg *cfg, int n, int k)
{
    return !cfg->first && k > 0 && k < n;
}

/* Where entry i of n changes places with another one: i..n-1. */
PD_HD int pd_sample_draw(int i, int n, pd_rng *rng)
{
    return i + (int)pd_rng_below(rng, (uint32_t)(n - i));
}

/* Moves k of the n entries to the front: a Fisher-Yates shuffle that stops after k. */
static inline void pd_sample_choose(int *list, int n, int k, const pd_sample_cfg *cfg, pd_rng *rng)
{
    if (!pd_sample_draws(cfg, n, k)) return;
    for (int i = 0; i < k; i++) {
        const int j = pd_sample_draw(i, n, rng), t = list[i];
        list[i] = list[j];
        list[j] = t;
    }
}

/* Which entry the shuffle leaves in place i: the one in place drawn[i] before step i, and that came there by the last
 * of the earlier steps that drew this place, from that step's own. */
PD_HD int pd_sample_entry(const int *drawn, int i)
{
    int place = drawn[i];
    while (i-- > 0)
        if (drawn[i] == place) place = i;
    return place;
}

#endif
