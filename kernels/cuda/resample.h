/* resample.h: launchers of resample.cu (kernels/upsample_add.h, kernels/subsample.h). All return a CUDA error code. */
#ifndef PD_CUDA_RESAMPLE_H
#define PD_CUDA_RESAMPLE_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pd_resample {
    int n, h, w, c; /* the fine map; sides below 2^15 */
    int hc, wc;     /* the coarse one */
    int stride;     /* subsample: of the fine map that coarse pixels take */
    pd_store store;
} pd_resample;

/* y = lateral + coarse at the nearest pixel. */
int pd_upsample_add_fwd(const pd_resample *s, const void *coarse, const void *lateral, void *y, cudaStream_t stream);
/* dcoarse = or += the sums of the pixels that read it. */
int pd_upsample_add_bwd(const pd_resample *s, const void *dy, void *dcoarse, bool add, cudaStream_t stream);
int pd_subsample_fwd(const pd_resample *s, const void *fine, void *coarse, cudaStream_t stream);
int pd_subsample_bwd(const pd_resample *s, const void *dcoarse, void *dfine, bool add, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
