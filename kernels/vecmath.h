/* vecmath.h: exponential and logarithm as straight-line float code, so that gcc vectorises loops over them.
 *
 * No calls, tables or branches. NaN in, NaN out. Worst relative errors, measured over all floats of the range by
 * tests/test_losses.c: pd_vec_exp 2e-7, pd_vec_log1p 3e-7. */
#ifndef PD_VECMATH_H
#define PD_VECMATH_H

#include <stdint.h>
#include <string.h>

/* e^x. x is held within [-87.3, 88.3]: the result is never 0, infinite or denormal.
 * x = n log 2 + r, |r| <= log(2)/2; the polynomial for e^r is Cephes' (S. Moshier, expf.c). */
static inline float pd_vec_exp(float x)
{
    const float shift = 0x1.8p23f; /* adding it rounds to a whole number in the low bits */
    x = x < -87.3f ? -87.3f : x;
    x = x > 88.3f ? 88.3f : x;
    const float t = x * 1.44269504f + shift;
    uint32_t bits;
    memcpy(&bits, &t, sizeof bits);
    const float n = t - shift;
    const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = (p * (r * r) + r) + 1.f;
    bits = (bits + 127u) << 23; /* 2^n: the low bits of t hold n, and shift's own bits are lost at the top */
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

/* log(1 + e) for 0 <= e <= 1: 2 atanh(s) with s = e / (2 + e) <= 1/3, by its series. */
static inline float pd_vec_log1p(float e)
{
    const float s = e / (2.f + e), z = s * s;
    float p = 1.f / 13;
    p = p * z + 1.f / 11;
    p = p * z + 1.f / 9;
    p = p * z + 1.f / 7;
    p = p * z + 1.f / 5;
    p = p * z + 1.f / 3;
    return 2.f * (s + s * (z * p));
}

#endif
