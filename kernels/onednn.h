/* onednn.h: the one place that knows oneDNN's C API and the difference between its versions 2 and 3.
 *
 * Thin: memory descriptors, convolutions in three directions, reorders, sgemm. Every primitive uses the user's
 * scratchpad, so that running one allocates nothing of size. Activations are nhwc. Implementations with "ref" in their
 * name are marked (pd_prim.reference): tests/test_onednn.c finds none in any network. */
#ifndef PD_ONEDNN_H
#define PD_ONEDNN_H

#include "engine/device.h"
#include "kernels/conv_shape.h"

#include <oneapi/dnnl/dnnl.h>
#include <stdbool.h>

/* A memory descriptor by value (2.x) or an owned handle (3.x). */
typedef struct pd_md {
#if DNNL_VERSION_MAJOR >= 3
    dnnl_memory_desc_t d;
#else
    dnnl_memory_desc_t d;
    bool set;
#endif
} pd_md;

/* One primitive with its memory objects; pointers are given at each run. */
typedef struct pd_prim {
    dnnl_primitive_t prim;
    dnnl_primitive_desc_t desc;
    dnnl_exec_arg_t args[6];
    int n_args;
    size_t scratch_bytes;
    bool reference; /* the library only has its slow reference implementation */
} pd_prim;

typedef struct pd_onednn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
} pd_onednn;

pd_status pd_onednn_of(pd_onednn **out, pd_device *device, pd_err *err);

/* dst = conv(src, weights) [+ bias] [+ dst] [relu]. Argument order for pd_prim_run: src, weights, dst[, bias]. */
pd_status pd_prim_conv_fwd(pd_prim *out, pd_device *device, const pd_conv_shape *s, bool bias, bool sum, bool relu,
                           bool training, pd_err *err);
/* diff_src = conv^T(diff_dst, weights). Order: diff_src, weights, diff_dst. */
pd_status pd_prim_conv_bwd_data(pd_prim *out, pd_device *device, const pd_conv_shape *s, pd_err *err);
/* diff_weights (its own layout). Order: src, diff_weights, diff_dst. */
pd_status pd_prim_conv_bwd_weights(pd_prim *out, pd_device *device, const pd_conv_shape *s, pd_err *err);

/* Between our weights (k, r, s, c/g) and the layout that a convolution wants. Order: src, dst. bytes: of the blocked
 * side. */
pd_status pd_prim_reorder_weights(pd_prim *out, size_t *bytes, pd_device *device, const pd_conv_shape *s,
                                  const pd_prim *conv, bool to_blocked, pd_err *err);

/* Bytes of the weights in a convolution's layout. */
size_t pd_prim_weights_bytes(const pd_prim *conv);

/* That layout as numbers: equal numbers, the same place for every weight. */
typedef struct pd_layout {
    int64_t rank, dims[5], strides[5], blocks, block[8], along[8]; /* blocks of `block` elements along an axis */
    const void *only;                                              /* of a kind without numbers: this primitive's own */
} pd_layout;
void pd_prim_weights_layout(const pd_prim *conv, pd_layout *layout);

/* Runs with these pointers in the documented order; scratch has scratch_bytes. */
pd_status pd_prim_run(pd_prim *p, pd_device *device, void *const *pointers, void *scratch, pd_err *err);
void pd_prim_free(pd_prim *p);

/* Name of the chosen implementation, "brgconv:avx512_core" say. */
const char *pd_prim_impl(const pd_prim *p);

/* Row-major c (m, n) = a (m, k) * b (k, n) + beta * c; ta/tb: the matrix is stored transposed. */
pd_status pd_sgemm(bool ta, bool tb, int m, int n, int k, const float *a, int lda, const float *b, int ldb, float beta,
                   float *c, int ldc, pd_err *err);

#endif
