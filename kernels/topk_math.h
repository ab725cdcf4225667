/* topk_math.h: the order of scores (topk.h) as one of whole numbers, for the CPU and CUDA. */
#ifndef PD_TOPK_MATH_H
#define PD_TOPK_MATH_H

#include "engine/half.h"

/* In the opposite order of the scores: the largest score has the smallest key; NaN the largest. -0 is 0. */
PD_HD uint32_t pd_score_key(float score)
{
    if (score != score) return UINT32_MAX;
    const uint32_t bits = pd_float_bits(score + 0.f);
    return bits >> 31 ? bits : ~(bits | 0x80000000u);
}

/* With the index below: a whole order, equal scores by ascending index. */
PD_HD uint64_t pd_score_order(float score, int index)
{
    return (uint64_t)pd_score_key(score) << 32 | (uint32_t)index;
}

/* The score (0 for -0) of an order. */
PD_HD float pd_order_score(uint64_t order)
{
    const uint32_t key = (uint32_t)(order >> 32);
    return pd_bits_float(key >> 31 ? key : ~key & 0x7fffffffu);
}

#endif
