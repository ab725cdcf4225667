/* total.h: launcher of total.cu: the last step of a sum that was taken in pieces. Returns a CUDA error code. */
#ifndef PD_CUDA_TOTAL_H
#define PD_CUDA_TOTAL_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* *to = factor * the sum of parts, in double, always in the same order. count 0: 0. */
int pd_cuda_total(const double *parts, size_t count, double factor, float *to, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
