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
 * Right for every batch size. Constant kernels (inference) are kept compressed and mixed panel by panel inside the
 * convolution (kernels/panel_taps.h, winograd.h, conv_panel.h); kernels that change are mixed whole. */
#ifndef PD_MIX_CONV_H
#define PD_MIX_CONV_H

#include "kernels/conv.h"

pd_value *pd_mix_conv(pd_tape *t, const char *name, pd_value *x, pd_value *gate, pd_value *kernels, pd_value *bias,
                      pd_value *residual, pd_conv_args args);

/* As pd_conv_is_reference. */
bool pd_mix_conv_is_reference(const pd_node *node);

#endif
