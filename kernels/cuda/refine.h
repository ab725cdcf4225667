/* refine.h: launcher of refine.cu (kernels/refine.h). Returns a CUDA error code.
 *
 * A count beyond its room cannot fail a run here without a wait: it is held within the room. */
#ifndef PD_CUDA_REFINE_H
#define PD_CUDA_REFINE_H

#include "kernels/cuda/cuda.h"
#include "kernels/refine.h"

#ifdef __cplusplus
extern "C" {
#endif

/* n images of m boxes. deltas: stored as `store` says. drop: NULL allowed. */
int pd_refine_fwd(const pd_box_coder *coder, int n, int m, pd_store store, const pd_box *roi, const int *n_rois,
                  const void *deltas, const int *drop, const int *sizes, pd_box *out, int *count, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
