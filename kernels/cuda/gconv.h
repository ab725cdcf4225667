/* gconv.h: convolutions of a library: cuDNN's (cudnn.c), or a plain loop in the emulation.
 *
 *   PD_GCONV_FWD      y = relu?( conv(x, w) + residual + bias ), or y = conv(x, w) with the sums of y and of its
 * squares over all pixels, for a batch norm PD_GCONV_DATA     x = conv^T(y, w): the gradient of x from that of y
 *   PD_GCONV_WEIGHTS  w = the gradient of w from x and the gradient of y
 *
 * x (n, h, w, c), y (n, oh, ow, k), w (k, kh, kw, c / groups): NHWC, one element type for all of them (bias too); sums
 * in float32. Plans are chosen by timing, kept for the life of the device and, between runs, in a file (cudnn.c). A run
 * is deterministic and may be recorded into a graph. */
#ifndef PD_GCONV_H
#define PD_GCONV_H

#include "kernels/conv_shape.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/plan_store.h"

typedef enum pd_gconv_kind { PD_GCONV_FWD, PD_GCONV_DATA, PD_GCONV_WEIGHTS } pd_gconv_kind;

typedef struct pd_gconv_desc {
    pd_gconv_kind kind;
    pd_conv_shape shape; /* c / groups and k / groups multiples of 8 (16 bits) or 4 (32 bits) */
    pd_store store;
    bool tf32;                 /* 32 bits: products in TensorFloat-32 */
    bool bias, residual, relu; /* of PD_GCONV_FWD */
    bool sums;                 /* of PD_GCONV_FWD without these three */
} pd_gconv_desc;

typedef struct pd_gconv pd_gconv; /* a chosen plan; belongs to the device */

/* The plan for this convolution, *out NULL where the library has none with such an epilogue (bias, residual, ReLU or
 * sums asked for: compute it apart). Without an epilogue that is an error. */
pd_status pd_gconv_plan(const pd_gconv **out, pd_cuda *device, const pd_gconv_desc *desc, pd_err *err);
size_t pd_gconv_workspace(const pd_gconv *plan); /* NULL: 0 */
/* Milliseconds that it took when it was chosen; 0 where nothing was timed. */
double pd_gconv_ms(const pd_gconv *plan);
/* In device memory; x, w, y as above, of which the one that the kind makes is written. Sums: float32, (k) each. What
 * the plan has no use for is not looked at. */
typedef struct pd_gconv_memory {
    void *x, *w, *y;
    const void *residual, *bias;
    float *sum, *square;
    void *workspace;
} pd_gconv_memory;
pd_status pd_gconv_run(pd_cuda *device, const pd_gconv *plan, const pd_gconv_memory *memory, pd_err *err);

pd_status pd_gconv_open(pd_gconv_library **out, pd_cuda *device, const char *offline_json, pd_err *err);
void pd_gconv_close(pd_gconv_library *library);
/* Where it keeps what it timed. */
pd_plan_store *pd_gconv_store(const pd_gconv_library *library);
/* "cuDNN 9.19.0" */
const char *pd_gconv_version(const pd_gconv_library *library);

#endif
