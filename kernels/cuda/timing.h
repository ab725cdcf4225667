/* timing.h: how long work takes on the GPU, for choosing among ways that do the same. */
#ifndef PD_CUDA_TIMING_H
#define PD_CUDA_TIMING_H

#include "kernels/cuda/cuda.h"

/* Milliseconds of one run of `work`, which launches on the device's stream and has its operands in pd_cuda_tuning's
 * memory: zeros; HUGE_VAL where it fails. What takes more than twice `best` is not run again and again. */
double pd_cuda_time(pd_cuda *device, pd_status (*work)(void *arg), void *arg, double best);

#endif
