/* convolution.h: one convolution of a network on the GPU: by the library (gconv.h), as a product of matrices (gemm.h)
 * where it is 1x1 and that is faster, or by our grouped kernels, with everything around it: parameters cast and padded,
 * channels padded to what tensor cores want, bias, residual and ReLU in the library's epilogue or behind it, gradients
 * set or added.
 *
 * Several kernels (a bank's branches) may be one convolution: they lie one behind the other in its outputs.
 * Memory comes from the node: `kept` from forward to backward, scratch within one run; sizes are known after planning.
 */
#ifndef PD_CUDA_CONVOLUTION_H
#define PD_CUDA_CONVOLUTION_H

#include "kernels/bn_sum.h"
#include "kernels/conv_shape.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/embed.h"
#include "kernels/cuda/gconv.h"

typedef struct pd_convolution {
    pd_cuda *device;
    pd_conv_shape shape; /* as recorded; k of all parts together */
    pd_conv_shape padded;
    pd_store store, x_store;
    int x_pitch;
    bool own;                    /* by grouped.cu */
    bool pack_x, pack_y, pack_w; /* the library gets copies */
    bool bias, residual, relu, constant;
    bool sums; /* made with the output */
    int parts;
    pd_embedding part[PD_MAX_BRANCHES];
    const pd_gconv *fwd, *fused, *data, *weights;   /* NULL: not asked for, or not offered; fwd with sums if .sums */
    bool product[3];                                /* by pd_gconv_kind: as a product of matrices instead */
    double ms[3];                                   /* as timed; of our own kernels, all at [0] */
    size_t w_bytes, x_bytes, sums_bytes;            /* kept */
    size_t bias_bytes, y_bytes;                     /* scratch of forward */
    size_t dy_bytes, dx_bytes, dw_bytes, sum_bytes; /* scratch of backward */
    void *constant_w;                               /* the packed kernel of constant weights; made in the first run */
} pd_convolution;

typedef struct pd_convolution_wants {
    bool bias, residual, relu;
    bool constant; /* the weights are the same in every run */
    bool dx, dw;
    bool add_dx; /* the input's gradient is added to what others have made of it */
    bool sums;   /* of the output's channels and their squares, where that costs less than a pass over it */
    int x_pitch; /* of the input, 0 behind its channels; 0: it has its channels only */
    bool joined; /* parts of any window and grouping in one dense convolution with the largest window */
} pd_convolution_wants;

/* part: (k, kh, kw, c / groups) of each; x_store: of the input as it is given. */
pd_status pd_convolution_plan(pd_convolution *out, pd_cuda *device, const pd_conv_shape *shape, int parts,
                              const pd_conv_shape *part, pd_store store, pd_store x_store, pd_convolution_wants wants,
                              pd_err *err);
void pd_convolution_free(pd_convolution *c);

/* Milliseconds of reading or writing so many elements once, which is not timed, to weigh it against what is: at five
 * sixths of an H100's bandwidth. */
static inline double pd_pass_ms(size_t elements, pd_store store)
{
    return (double)elements * (double)pd_store_bytes(store) / 2.5e9;
}

/* Milliseconds of forward and backward, as timed; of our own kernels, where nothing is timed, by their bytes. */
double pd_convolution_ms(const pd_convolution *c);
/* Is the output, or one of these outputs side by side, normalised by its own statistics? Then its sums are wanted. */
bool pd_convolution_feeds_norm(const pd_node *node);

size_t pd_convolution_kept(const pd_convolution *c);
size_t pd_convolution_scratch_fwd(const pd_convolution *c);
size_t pd_convolution_scratch_bwd(const pd_convolution *c);

/* y (pixels, k) with y_pitch (only where own kernels or a joined convolution make it: k of all parts otherwise). */
pd_status pd_convolution_fwd(pd_convolution *c, const void *x, const float *const *w, const float *bias,
                             const void *residual, void *y, int y_pitch, bool constants_changed, void *kept,
                             void *scratch, pd_err *err);
/* Gives the outputs, parts of `c` in their order, the sums that forward made; none where it made none. */
void pd_convolution_sums(const pd_convolution *c, const void *kept, pd_value *const *y);
pd_status pd_convolution_bwd_data(const pd_convolution *c, const float *const *w, const void *dy, int dy_pitch,
                                  void *dx, bool add, void *kept, void *scratch, pd_err *err);
/* dw[i] NULL: not wanted. */
pd_status pd_convolution_bwd_weights(const pd_convolution *c, const void *x, const void *dy, int dy_pitch,
                                     float *const *dw, const bool *add, void *kept, void *scratch, pd_err *err);

#endif
