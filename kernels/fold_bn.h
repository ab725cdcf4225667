/* fold_bn.h: batch norms with fixed statistics folded into their convolutions, as a differentiable operation on weights.
 *
 *   s_b = gamma_b / sqrt(var_b + eps);  kernel = sum_b embed(s_b w_b);  bias = sum_b (beta_b - s_b mean_b)
 *
 * (spec: Ding et al. 2021, "RepVGG"; a 3x1 is a 3x3 with empty left and right columns, a grouped kernel is
 * block-diagonal.) Convolution is linear, so conv(x, kernel) + bias equals the sum of the branches' batch norms, and the
 * chain rule through this operation gives the exact gradient of every branch: a ParaDise network whose statistics are
 * fixed trains at the cost of the plain one.
 *
 *   w_b       (k, r_b, s_b, c / groups_b), r_b <= r, s_b <= s, centred
 *   gamma, beta, mean, var  (k)
 *   column_b  0 .. columns - 1: which kernel branch b belongs to (PD-A: one; PD-B: one per gate weight)
 *   kernel    (columns * k, r, s, c), bias (columns * k) */
#ifndef PD_FOLD_BN_H
#define PD_FOLD_BN_H

#include "engine/tape.h"

typedef struct pd_fold_branch {
    pd_value *w, *gamma, *beta, *mean, *var;
    int groups, column;
} pd_fold_branch;

/* The kernel and bias of pd_fold_bn. */
typedef struct pd_folded {
    pd_value *kernel, *bias;
} pd_folded;

pd_folded pd_fold_bn(pd_tape *t, const char *name, int branches, const pd_fold_branch *b, int columns, int r, int s,
                     int c, float eps);

#endif
