/* rng.h: counter-based random numbers: a value is a pure function of (seed, what it is for, index).
 *
 * Philox4x32-10, Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3". A pd_rng is a plain value that the
 * caller makes from a seed and up to two stream numbers (say epoch and sample), so that results never depend on
 * threads or on the order of work. The same code runs on CUDA devices. */
#ifndef PD_RNG_H
#define PD_RNG_H

#include "engine/hd.h"

#include <math.h>
#include <stdint.h>

typedef struct pd_rng {
    uint32_t key[2];
    uint32_t stream[2]; /* upper half of the counter */
    uint64_t next;      /* lower half: blocks of four numbers drawn so far */
    uint32_t block[4];
    uint32_t left; /* unread numbers of block */
} pd_rng;

/* One Philox block: out[4] from key and a 128-bit counter. */
PD_HD void pd_philox(uint32_t out[4], const uint32_t key_in[2], uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3)
{
    uint32_t k0 = key_in[0], k1 = key_in[1];
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        const uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

PD_HD pd_rng pd_rng_make(uint64_t seed, uint32_t stream0, uint32_t stream1)
{
    pd_rng r = {{(uint32_t)seed, (uint32_t)(seed >> 32)}, {stream0, stream1}, 0, {0, 0, 0, 0}, 0};
    return r;
}

PD_HD uint32_t pd_rng_u32(pd_rng *r)
{
    if (r->left == 0) {
        pd_philox(r->block, r->key, (uint32_t)r->next, (uint32_t)(r->next >> 32), r->stream[0], r->stream[1]);
        r->next++;
        r->left = 4;
    }
    return r->block[--r->left];
}

/* How many numbers were drawn, by pd_rng_u32 or what calls it. */
PD_HD uint64_t pd_rng_drawn(const pd_rng *r)
{
    return 4 * r->next - r->left;
}

/* Goes on as if so many numbers had been drawn. */
PD_HD void pd_rng_go_to(pd_rng *r, uint64_t drawn)
{
    r->next = drawn / 4;
    r->left = 0;
    if (drawn % 4 == 0) return;
    (void)pd_rng_u32(r);
    r->left = 4 - (uint32_t)(drawn % 4);
}

/* Uniform in [0, 1): 24 bits. */
PD_HD float pd_rng_float(pd_rng *r)
{
    return (float)(pd_rng_u32(r) >> 8) * 0x1p-24f;
}

/* Uniform in [0, 1): 53 bits. */
PD_HD double pd_rng_double(pd_rng *r)
{
    const uint64_t hi = pd_rng_u32(r), lo = pd_rng_u32(r);
    return (double)(((hi << 32) | lo) >> 11) * 0x1p-53;
}

/* Uniform in 0..n-1 without bias (rejection); n >= 1. */
PD_HD uint32_t pd_rng_below(pd_rng *r, uint32_t n)
{
    const uint32_t reject = (0u - n) % n;
    uint32_t v = pd_rng_u32(r);
    while (v < reject) v = pd_rng_u32(r);
    return v % n;
}

/* Standard normal: Box and Muller 1958, one of the pair. */
PD_HD double pd_rng_normal(pd_rng *r)
{
    const double u = 1.0 - pd_rng_double(r), v = pd_rng_double(r);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

/* Fisher-Yates. */
PD_HD void pd_rng_shuffle(pd_rng *r, uint32_t *array, uint32_t n)
{
    for (uint32_t i = n; i > 1; i--) {
        const uint32_t j = pd_rng_below(r, i), t = array[i - 1];
        array[i - 1] = array[j];
        array[j] = t;
    }
}

#endif
