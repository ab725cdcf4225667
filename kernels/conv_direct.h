/* conv_direct.h: one convolution by the compute library, its weights brought into the library's layout and back.
 * Used by the operations conv, conv_bank and mix_conv. Activations (n, h, w, c), weights (k, kh, kw, c / groups). */
#ifndef PD_CONV_DIRECT_H
#define PD_CONV_DIRECT_H

#include "engine/shared.h"
#include "kernels/onednn.h"

typedef struct pd_direct_wants {
    bool bias, residual, relu; /* fused behind the forward run */
    bool constant;             /* the weights change only when they are said to: packed once */
    bool backward, dx, dw;     /* a backward run follows; which gradients it makes */
} pd_direct_wants;

typedef struct pd_direct {
    pd_device *device;
    pd_conv_shape shape;
    pd_prim fwd, bwd_data, bwd_weights;
    pd_prim pack_fwd, pack_data, unpack; /* weights into a primitive's layout, and its gradient back */
    size_t packed_fwd, packed_data, packed_grad;
    bool constant;
    pd_shared *packed; /* constant weights; found in the first run */
} pd_direct;

/* On failure what was made is freed. d is zeroed or new. */
pd_status pd_direct_plan(pd_direct *d, pd_device *device, const pd_conv_shape *shape, pd_direct_wants wants,
                         pd_err *err);
void pd_direct_free(pd_direct *d); /* zeroed: nothing happens */

/* Scratch of a forward run, and of a backward run (of both gradients, one after the other). */
size_t pd_direct_scratch_fwd(const pd_direct *d);
size_t pd_direct_scratch_bwd(const pd_direct *d);

/* y = relu?(conv(x, w) + bias + y): y holds the residual, if there is one. changed: constant weights are packed again.
 */
pd_status pd_direct_fwd(pd_direct *d, const float *x, const float *w, bool changed, const float *bias, float *y,
                        void *scratch, pd_err *err);
pd_status pd_direct_bwd_data(pd_direct *d, const float *w, const float *dy, float *dx, bool add, void *scratch,
                             pd_err *err);
pd_status pd_direct_bwd_weights(pd_direct *d, const float *x, const float *dy, float *dw, bool add, void *scratch,
                                pd_err *err);

/* Only the library's slow reference implementation exists for one of the directions. */
bool pd_direct_is_reference(const pd_direct *d);

#endif
