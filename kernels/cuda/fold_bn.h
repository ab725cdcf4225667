/* fold_bn.h: launchers of fold_bn.cu (kernels/fold_bn.h). All return a CUDA error code. */
#ifndef PD_CUDA_FOLD_BN_H
#define PD_CUDA_FOLD_BN_H

#include "kernels/bn_sum.h"
#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pd_fold_part {
    const float *w, *gamma, *beta, *mean, *var;
    float *dw, *dgamma, *dbeta; /* NULL: not wanted */
    bool add_w, add_gamma, add_beta;
    int r, s, cg, groups, column; /* w (k, r, s, cg) */
} pd_fold_part;

typedef struct pd_fold_shape {
    int branches, columns, k, r, s, c;
    float eps;
    pd_fold_part part[PD_MAX_BRANCHES];
} pd_fold_shape;

/* kernel (columns * k, r, s, c), bias (columns * k) */
int pd_fold_fwd(const pd_fold_shape *f, float *kernel, float *bias, cudaStream_t stream);
/* dbias NULL: 0 */
int pd_fold_bwd(const pd_fold_shape *f, const float *dkernel, const float *dbias, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
