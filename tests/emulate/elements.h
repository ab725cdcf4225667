/* elements.h: an element of a map, as it is stored. For C and C++. */
#ifndef PD_EMULATE_ELEMENTS_H
#define PD_EMULATE_ELEMENTS_H

#include "engine/half.h"
#include "engine/tape.h"

static inline float get(const void *at, pd_store store, size_t i)
{
    if (store == PD_STORE_BF16) return pd_float_from_bf16(((const uint16_t *)at)[i]);
    if (store == PD_STORE_F16) return pd_float_from_f16(((const uint16_t *)at)[i]);
    return ((const float *)at)[i];
}

static inline void put(void *at, pd_store store, size_t i, float x)
{
    if (store == PD_STORE_BF16)
        ((uint16_t *)at)[i] = pd_bf16_from_float(x);
    else if (store == PD_STORE_F16)
        ((uint16_t *)at)[i] = pd_f16_from_float(x);
    else
        ((float *)at)[i] = x;
}

#endif
