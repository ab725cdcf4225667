/* sample.h: launchers of sample.cu (kernels/sample.h). All return a CUDA error code. */
#ifndef PD_CUDA_SAMPLE_H
#define PD_CUDA_SAMPLE_H

#include "kernels/cuda/cuda.h"
#include "kernels/sample.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Ints of work memory for an image: a bit for each box, and the draws. */
static inline size_t pd_sample_work(const pd_sample_cfg *cfg, int boxes)
{
    return ((size_t)boxes + 31) / 32 + (size_t)(cfg->num < boxes ? cfg->num : boxes);
}

/* boxes: matches of an image; rows of match and out have so many. out may be match. work: (n, pd_sample_work). */
int pd_sample_fwd(const pd_sample_cfg *cfg, int n, int boxes, const int *match, const int *draw, int *out, int *work,
                  cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
