/* conv_node.h: how a recorded pd_conv looks to its implementations: the inputs' places and the settings (node->args). Included by
 * them only, one operation a file. */
#ifndef PD_CONV_NODE_H
#define PD_CONV_NODE_H

#include "kernels/conv.h"
#include "kernels/conv_shape.h"

enum { X, W, BIAS, RESIDUAL };

/* The sizes of a recorded convolution. */
static inline pd_conv_shape conv_shape_of(const pd_conv_args *a, const pd_shape *x, const pd_shape *w, const pd_shape *y)
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
