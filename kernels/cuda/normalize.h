/* normalize.h: the launcher of normalize.cu. Returns a CUDA error code. */
#ifndef PD_CUDA_NORMALIZE_H
#define PD_CUDA_NORMALIZE_H

#include "engine/pixel_math.h"
#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Images (n, h, w, 3) of bytes into elements of `store`, `pitch` to a pixel: 3, or as many as fill 16 bytes, 0 behind
 * the third. */
typedef struct pd_normalizing {
    int n, h, w, pitch;
    pd_store store;
    pd_pixel_norm norm;
} pd_normalizing;
int pd_normalize_images(const pd_normalizing *s, const unsigned char *bytes, const int *sizes, const int *mirror,
                        void *to, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
