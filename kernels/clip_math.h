/* clip_math.h: by how much gradients are shortened (sgd.h, pd_clip), for the CPU and the CUDA kernels. */
#ifndef PD_CLIP_MATH_H
#define PD_CLIP_MATH_H

#include "engine/hd.h"

/* 1 where the norm is no number. */
PD_HD double pd_clip_factor(double norm, double max_norm)
{
    const double factor = max_norm / (norm + 1e-6);
    return factor < 1 ? factor : 1;
}

#endif
