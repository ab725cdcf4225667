/* pick_deltas.h: launchers of pick_deltas.cu (kernels/pick_deltas.h). All return a CUDA error code. */
#ifndef PD_CUDA_PICK_DELTAS_H
#define PD_CUDA_PICK_DELTAS_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

int pd_pick_deltas_fwd(int rows, int k, const float *deltas, const int *label, float *y, cudaStream_t stream);
int pd_pick_deltas_bwd(int rows, int k, const float *dy, const int *label, float *ddeltas, bool add,
                       cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
