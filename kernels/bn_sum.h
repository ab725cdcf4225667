/* bn_sum.h: the fused ParaDise operation: batch norm of every branch, weighted sum, residual, ReLU, in one.
 *
 *   y = relu?( sum_k a_k(n) * (gamma_k * (z_k - mean_k) / sqrt(var_k + eps) + beta_k) + residual )
 *
 * "Parameter Disentanglement for Diverse Representations", Big Data Mining and Analytics 8(3), 2025; with one branch and
 * no gate it is Ioffe and Szegedy 2015. Every branch output is read once for its statistics and once for the sum; the
 * backward pass reads it once for the reductions and once for the gradients.
 *
 *   z_k        (n, h, w, c) output of branch k's convolution; its gradient may be written over it
 *   gamma, beta (c); mean, var (c) running statistics
 *   gate       (n, g) weights a, or NULL for 1; branch k uses column b[k].gate (two branches may share one)
 *   residual   (n, h, w, c) or NULL
 *   returns    (n, h, w, c)
 *
 * batch_stats: normalise by the batch's mean and biased variance and move the running ones by `momentum` (towards the
 * unbiased variance); otherwise normalise by the running ones, which then are constants (the detectors' "norm_eval").
 * sync (with batch_stats): mean, variance and the sums of the backward pass are those of the batches of all processes that
 * train together (run->device->comm); gradients of gamma, beta and the gate stay this process's part of the sum over all.
 * Sums are taken over fixed groups of rows in double precision between groups, so the result does not depend on the
 * number of threads. Backward, with g = dL/dy behind the ReLU's mask, m = n*h*w:
 *   dbeta_k = sum a_k g, dgamma_k = sum a_k g xhat_k, da_j(n) = sum over the sample of g * branch_j,
 *   dz_k = gamma_k r_k (a_k g - dbeta_k / m - xhat_k dgamma_k / m); with running statistics dz_k = gamma_k r_k a_k g. */
#ifndef PD_BN_SUM_H
#define PD_BN_SUM_H

#include "engine/tape.h"

#define PD_MAX_BRANCHES 5

typedef struct pd_bn_branch {
    pd_value *z, *gamma, *beta, *mean, *var;
    int gate; /* column of the gate */
} pd_bn_branch;

typedef struct pd_bn_settings {
    float eps, momentum; /* 1e-5 and 0.1 in all networks here */
    bool batch_stats, relu, sync;
} pd_bn_settings;

pd_value *pd_bn_sum(pd_tape *t, const char *name, int branches, const pd_bn_branch *b, pd_value *gate,
                    pd_value *residual, pd_bn_settings settings);

#endif
