/* gate.h: launchers of gate.cu (kernels/gate.h). All return a CUDA error code. */
#ifndef PD_CUDA_GATE_H
#define PD_CUDA_GATE_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows of k floats, one thread a row: k is the number of branches. */
int pd_row_softmax_fwd(int n, int k, const float *x, float *y, cudaStream_t stream);
int pd_row_softmax_bwd(int n, int k, const float *y, const float *dy, float *dx, bool add, cudaStream_t stream);

/* y = relu?( x * sigmoid(m at the nearest cell) + residual ); x, residual, y in `store`, m in m_store.
 * All sides are below 2^15. */
typedef struct pd_excite_args {
    int n, h, w, c, mh, mw;
    pd_store store, m_store;
    bool relu, add_x, add_m, add_residual;
    const void *x, *m, *residual, *y, *dy;
    void *out, *dx, *dm, *dresidual; /* gradients NULL: not wanted */
} pd_excite_args;
int pd_excite_fwd(const pd_excite_args *e, cudaStream_t stream);
int pd_excite_bwd(const pd_excite_args *e, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
