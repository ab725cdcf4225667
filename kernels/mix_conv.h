/* mix_conv.h: a convolution whose kernel is mixed for every image: PD-B with folded branches.
 *
 *   y_n = relu?( conv(x_n, sum_i a_i(n) K_i) + sum_i a_i(n) c_i + residual_n )
 *
 *   x        (n, h, w, c)
 *   gate     (n, g) the weights a
 *   kernels  (g * k, r, s, c), bias (g * k): g kernels one behind the other, as pd_fold_bn makes them
 *   residual (n, oh, ow, k) or NULL
 *   returns  (n, oh, ow, k)
 *
 * Right for every batch size. With constant kernels (inference) they are packed once: K_0 as it is, the others with
 * 16-bit mantissas and one scale per 16 weights (relative error of a weight below 2^-15 of its group's largest: far below
 * float32's own error of the convolution sum's inputs, and half the memory traffic, which is what mixing costs), groups
 * that are all zero left out (a folded 3x1 + 1x3 has 4 empty taps of 9, a 64-group kernel 63 of 64 blocks). */
#ifndef PD_MIX_CONV_H
#define PD_MIX_CONV_H

#include "kernels/conv.h"

pd_value *pd_mix_conv(pd_tape *t, const char *name, pd_value *x, pd_value *gate, pd_value *kernels, pd_value *bias,
                      pd_value *residual, pd_conv_args args);

#endif
