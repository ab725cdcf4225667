/* pool.h: launchers of pool.cu (kernels/pool.h). All return a CUDA error code. */
#ifndef PD_CUDA_POOL_H
#define PD_CUDA_POOL_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pd_pool_shape {
    int n, h, w, c, oh, ow, size, stride, pad;
    pd_store store;
} pd_pool_shape;

/* which: (n, oh, ow, c) bytes, the window position of each maximum; NULL: not kept. */
int pd_max_pool_fwd(const pd_pool_shape *s, const void *x, void *y, unsigned char *which, cudaStream_t stream);
int pd_max_pool_bwd(const pd_pool_shape *s, const void *dy, const unsigned char *which, void *dx, bool add,
                    cudaStream_t stream);
/* y (n, c) float: means over h, w. */
int pd_means_fwd(const pd_pool_shape *s, const void *x, float *y, cudaStream_t stream);
int pd_means_bwd(const pd_pool_shape *s, const float *dy, void *dx, bool add, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
