/* pixel_math.h: the normalised value of an image's byte, for the loader's tables, the CPU's operation and the CUDA
 * kernel (kernels/normalize.h): rounded to float32 after each step, the same bits everywhere. */
#ifndef PD_PIXEL_MATH_H
#define PD_PIXEL_MATH_H

#include "engine/hd.h"

/* (x / divide - mean) / by, or times by. No padding: plans are found by its bytes. */
typedef struct pd_pixel_norm {
    float divide, mean[3], by[3];
    int times; /* 0, 1 */
} pd_pixel_norm;

PD_HD float pd_pixel_value(unsigned char x, const pd_pixel_norm *n, int channel)
{
    const float centred = (float)x / n->divide - n->mean[channel];
    return n->times ? centred * n->by[channel] : centred / n->by[channel];
}

#endif
