/* conv_shape.h: the sizes of one convolution. */
#ifndef PD_CONV_SHAPE_H
#define PD_CONV_SHAPE_H

typedef struct pd_conv_shape {
    int n, h, w, c;           /* input */
    int k, kh, kw;            /* outputs, kernel */
    int stride, pad_h, pad_w; /* pads on top and left; those below and right follow from the output size */
    int groups, oh, ow;
} pd_conv_shape;

#endif
