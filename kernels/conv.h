/* conv.h: convolution, with bias, residual and ReLU fused behind it.
 *
 *   y = relu?( conv(x, w) + bias + residual )
 *
 *   x        (n, h, w, c)
 *   w        (k, r, s, c / groups)
 *   bias     (k) or NULL
 *   residual (n, oh, ow, k) or NULL
 *   returns  (n, oh, ow, k), oh = (h + 2 pad_h - r) / stride + 1
 *
 * 3x3, 3x1 and 1x3 of stride 1 are computed with fewer multiplications where that is faster (kernels/winograd.h), all else
 * by the compute library (kernels/conv_direct.h).
 * Weights may be a parameter or a value computed on the tape (a folded kernel). Constant weights are packed once.
 * Errors: shapes that do not fit, groups that do not divide c and k: both numbers are named. */
#ifndef PD_CONV_H
#define PD_CONV_H

#include "engine/tape.h"
#include "kernels/conv_shape.h"

typedef struct pd_conv_args {
    int stride, pad_h, pad_w, groups;
    bool relu;
} pd_conv_args;

pd_value *pd_conv(pd_tape *t, const char *name, pd_value *x, pd_value *w, pd_value *bias, pd_value *residual,
                  pd_conv_args args);

/* True where the compute library has only its slow reference implementation for a planned convolution. */
bool pd_conv_is_reference(const pd_node *node);

/* The output's shape; false, and a failed tape, where kernel and input do not fit. For author functions. */
bool pd_conv_output(pd_tape *t, const char *name, const pd_value *x, const pd_value *w, const pd_conv_args *args,
                    pd_shape *out);

/* Output size along one axis. */
static inline int pd_conv_out(int size, int kernel, int stride, int pad)
{
    return (size + 2 * pad - kernel) / stride + 1;
}

/* The sizes of a recorded convolution. */
static inline pd_conv_shape pd_conv_shape_of(const pd_conv_args *a, const pd_shape *x, const pd_shape *w, const pd_shape *y)
{
    return (pd_conv_shape){.n = x->dim[0],
                           .h = x->dim[1],
                           .w = x->dim[2],
                           .c = x->dim[3],
                           .k = w->dim[0],
                           .kh = w->dim[1],
                           .kw = w->dim[2],
                           .stride = a->stride,
                           .pad_h = a->pad_h,
                           .pad_w = a->pad_w,
                           .groups = a->groups,
                           .oh = y->dim[1],
                           .ow = y->dim[2]};
}

#endif
