/* bn_sum.h: launchers of bn_sum.cu. Formulas: kernels/bn_sum_math.h. All return a CUDA error code. */
#ifndef PD_CUDA_BN_SUM_H
#define PD_CUDA_BN_SUM_H

#include "kernels/bn_sum.h"
#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The branches' maps: pixel i of branch k at z[k] + i * pitch[k] elements, c channels; dz lies as z does. Without a
 * gate all samples are one. */
typedef struct pd_bn_maps {
    int branches, c, pitch[PD_MAX_BRANCHES];
    long samples, rows; /* rows: pixels of a sample */
    pd_store store;     /* of z, dz, y, residual and their gradients */
    const void *z[PD_MAX_BRANCHES];
    void *dz[PD_MAX_BRANCHES]; /* NULL: not wanted */
    const float *gate;         /* (samples, gates) or NULL */
    int gates, column[PD_MAX_BRANCHES];
} pd_bn_maps;

/* Per-channel vectors of the branches. NULL: not wanted (gradients). */
typedef struct pd_bn_vectors {
    const float *gamma[PD_MAX_BRANCHES], *beta[PD_MAX_BRANCHES];
    float *run_mean[PD_MAX_BRANCHES], *run_var[PD_MAX_BRANCHES];
    float *dgamma[PD_MAX_BRANCHES], *dbeta[PD_MAX_BRANCHES];
    bool add_gamma[PD_MAX_BRANCHES], add_beta[PD_MAX_BRANCHES];
} pd_bn_vectors;

/* Into how many pieces the rows of a sample are cut for sums; by the shape alone, so that sums have one order. */
int pd_bn_chunks(const pd_bn_maps *m);

/* partial (branches, samples * chunks, 2, c): sums of z - shift and of its square; shift: the branch's first pixel. */
int pd_bn_sums(const pd_bn_maps *m, int chunks, float *partial, cudaStream_t stream);
/* sums (branches, 2, c) in double from the partial ones. shifted false: of z and its square themselves. */
int pd_bn_totals(const pd_bn_maps *m, int chunks, const float *partial, bool shifted, double *sums,
                 cudaStream_t stream);
/* Sums that came with the branches' maps, (c) each; NULL: they did not. */
typedef struct pd_bn_given_sums {
    const float *sum[PD_MAX_BRANCHES], *square[PD_MAX_BRANCHES];
} pd_bn_given_sums;
/* The rows of sums (branches, 2, c) whose sums are given; the others stay. */
int pd_bn_given(const pd_bn_maps *m, const pd_bn_given_sums *given, double *sums, cudaStream_t stream);
/* Pixels behind sums: those of this process, or, in device memory, those of all. Neither: no sums, fixed statistics. */
typedef struct pd_bn_count {
    double own;
    const double *all; /* NULL: own */
} pd_bn_count;
/* *count = value */
int pd_bn_set_count(double *count, double value, cudaStream_t stream);
/* From sums over count pixels: mean, rstd (branches, 2, c), the running statistics, and affine (branches, 2, c): gamma
 * rstd, beta - mean gamma rstd. */
int pd_bn_finish(const pd_bn_maps *m, const pd_bn_vectors *v, const double *sums, pd_bn_count count, bool shifted,
                 float eps, float momentum, float *mean_rstd, float *affine, cudaStream_t stream);
/* The same from the running statistics, which stay. */
int pd_bn_running(const pd_bn_maps *m, const pd_bn_vectors *v, float eps, float *mean_rstd, float *affine,
                  cudaStream_t stream);
/* y = relu?( sum of gate * (affine of z) + residual ) */
int pd_bn_apply(const pd_bn_maps *m, const float *affine, const void *residual, bool relu, void *y,
                cudaStream_t stream);

/* partial (samples * chunks, 1 + branches, c): sums of g and of g (z_k - mean_k), g = dy behind the mask: y, or, affine
 * not NULL (one branch, neither gate nor residual), what it makes of z, which spares reading y. */
int pd_bn_grad_sums(const pd_bn_maps *m, int chunks, const void *dy, const void *y, bool relu, const float *affine,
                    const float *mean_rstd, float *partial, cudaStream_t stream);
/* total (samples, 1 + branches, c) from the partial ones. */
int pd_bn_grad_totals(const pd_bn_maps *m, int chunks, const float *partial, float *total, cudaStream_t stream);
/* Gradients of gamma and beta; sums (branches, 2, c): dbeta, dgamma. */
int pd_bn_grad_finish(const pd_bn_maps *m, const pd_bn_vectors *v, const float *mean_rstd, const float *total,
                      double *sums, cudaStream_t stream);
/* pqr (branches, 3, c): dz = p a g + q z + r; with fixed statistics q = r = 0. */
int pd_bn_grad_coefficients(const pd_bn_maps *m, const pd_bn_vectors *v, const float *mean_rstd, const double *sums,
                            pd_bn_count count, float *pqr, cudaStream_t stream);
/* Gradient of the gate. */
int pd_bn_grad_gate(const pd_bn_maps *m, const pd_bn_vectors *v, const float *mean_rstd, const float *total,
                    float *dgate, bool add, cudaStream_t stream);
/* dz, and the residual's gradient (NULL: not wanted); masked as above. */
int pd_bn_grad_apply(const pd_bn_maps *m, const float *pqr, const void *dy, const void *y, bool relu,
                     const float *affine, void *residual, bool add, cudaStream_t stream);
/* Branches without a norm, only a bias (branches * c): mean_rstd of mean 0 and deviation 1, affine of factor 1. */
int pd_bn_plain(int branches, int c, const float *bias, float *mean_rstd, float *affine, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
