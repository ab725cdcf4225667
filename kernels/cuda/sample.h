/* sample.h: launchers of sample.cu (kernels/sample.h). All return a CUDA error code. */
#ifndef PD_CUDA_SAMPLE_H
#define PD_CUDA_SAMPLE_H

#include "kernels/cuda/cuda.h"
#include "kernels/sample.h"

#ifdef __cplusplus
extern "C" {
#endif

/* boxes: matches of an image; rows of match, out and list have so many. out may be match. list: work memory. */
int pd_sample_fwd(const pd_sample_cfg *cfg, int n, int boxes, const int *match, const int *draw, int *out, int *list,
                  cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
