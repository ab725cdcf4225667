/* gemm.h: matrix products of a library: cuBLASLt's (cublaslt.c), or a plain loop in the emulation.
 *
 *   c (m, n) = op(a) (m, k) * op(b) (k, n) + beta * c        row-major, sums in float32, deterministic */
#ifndef PD_GEMM_H
#define PD_GEMM_H

#include "kernels/cuda/cuda.h"

typedef struct pd_gemm {
    bool ta, tb; /* the matrix is stored transposed: a (k, m), b (n, k) */
    int m, n, k;
    int lda, ldb, ldc; /* elements from one row to the next, as stored */
    pd_store in, out;  /* of a and b; of c */
    bool tf32;         /* 32 bits: products in TensorFloat-32 */
} pd_gemm;

/* Chooses the algorithm, by timing those that the library proposes, unless that was done before; pd_gemm_run does so,
 * too, outside of recorded graphs. *ms: what it takes; 0 where nothing is timed. */
pd_status pd_gemm_plan(double *ms, pd_cuda *device, const pd_gemm *g, pd_err *err);
pd_status pd_gemm_run(pd_cuda *device, const pd_gemm *g, const void *a, const void *b, float beta, void *c,
                      pd_err *err);

pd_status pd_gemm_open(pd_gemm_library **out, pd_cuda *device, pd_err *err);
void pd_gemm_close(pd_gemm_library *library);

#endif
