/* device.h: the CUDA device behind engine/device.h: memory, streams, uploads, graphs. Called by plugin.c only. */
#ifndef PD_CUDA_DEVICE_H
#define PD_CUDA_DEVICE_H

#include "kernels/cuda/cuda.h"

/* GPUs that work; 0 and `why` (a sentence) where there is none. */
int pd_cuda_count(char *why, size_t size);
pd_status pd_cuda_open(pd_device **out, int index, pd_err *err);

/* pd_device.find (plugin.c). */
const void *pd_cuda_find(pd_device *device, const char *name);

#endif
