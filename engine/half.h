/* half.h: float16 (IEEE 754 binary16) and bfloat16 to and from float, by bits, rounding to nearest even.
 *
 * NaN stays NaN (its payload may change), overflow gives infinity, float16 subnormals are exact. */
#ifndef PD_HALF_H
#define PD_HALF_H

#include "engine/hd.h"

#include <stdint.h>
#include <string.h>

PD_HD uint32_t pd_float_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

PD_HD float pd_bits_float(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

PD_HD uint16_t pd_bf16_from_float(float x)
{
    const uint32_t u = pd_float_bits(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

PD_HD float pd_float_from_bf16(uint16_t h)
{
    return pd_bits_float((uint32_t)h << 16);
}

PD_HD uint16_t pd_f16_from_float(float x)
{
    const uint32_t u = pd_float_bits(x), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and more round to infinity */
    if (a >= 0x38800000u) {                                  /* normal: 13 bits fewer, the exponent rebased */
        const uint32_t r = a - 0x38000000u;
        return (uint16_t)(sign | ((r + 0xfffu + ((r >> 13) & 1u)) >> 13));
    }
    /* Subnormal: adding 0.5 leaves round(|x| * 2^24) in the low bits, rounded by the addition itself. */
    return (uint16_t)(sign | (pd_float_bits(pd_bits_float(a) + 0.5f) - 0x3f000000u));
}

PD_HD float pd_float_from_f16(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, a = h & 0x7fffu;
    if (a >= 0x7c00u) return pd_bits_float(sign | 0x7f800000u | ((a & 0x3ffu) << 13));
    if (a >= 0x0400u) return pd_bits_float(sign | ((a << 13) + 0x38000000u));
    const float tiny = (float)a * 0x1p-24f;
    return sign ? -tiny : tiny;
}

#endif
