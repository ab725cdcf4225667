/* sgd.h: the parameter update, over contiguous blocks.
 *
 *   g' = g * scale + decay * w;  v = momentum * v + g';  w = w - lr * (nesterov ? g' + momentum * v : v)
 *
 * as in PyTorch (dampening 0; v starts at 0, so the first v is g'). Also the global gradient norm and the moving average
 * of weights (EMA): e = d * e + (1 - d) * w. All run on the device; sums are taken in a fixed order.
 *
 * Under fp16 the gradients carry the device's scale: the step and the norm take it out, and a step whose gradients are not
 * all finite changes no weight and halves the scale. */
#ifndef PD_SGD_H
#define PD_SGD_H

#include "engine/params.h"

typedef struct pd_sgd {
    double lr, momentum, weight_decay;
    double scale; /* multiplies gradients: 1 / accumulated groups, times the clipping coefficient */
    bool nesterov;
} pd_sgd;

/* Steps all trainable weights; those with no_decay (pd_params_decay) do not decay. velocity has the size of the weights' block. */
pd_status pd_sgd_step(pd_device *device, pd_params *params, float *velocity, const pd_sgd *settings, pd_err *err);

/* L2 norm of the trainable weights' gradients. */
pd_status pd_grad_norm(double *norm, pd_device *device, pd_params *params, pd_err *err);

pd_status pd_ema_step(pd_device *device, float *average, const float *weights, size_t count, double decay, pd_err *err);

/* Exchanges two blocks. */
pd_status pd_swap_blocks(pd_device *device, float *a, float *b, size_t count, pd_err *err);

struct pd_adam;

/* The same, and pd_adam_step (adam.h), for a device that is not the CPU: its table under the name "update" (device.h,
 * find). */
typedef struct pd_update_kernels {
    pd_status (*step)(pd_device *, pd_params *, float *velocity, const pd_sgd *, pd_err *);
    pd_status (*adam)(pd_device *, pd_params *, float *mean, float *square, const struct pd_adam *, pd_err *);
    pd_status (*norm)(double *norm, pd_device *, pd_params *, pd_err *);
    pd_status (*ema)(pd_device *, float *average, const float *weights, size_t count, double decay, pd_err *);
    pd_status (*swap)(pd_device *, float *a, float *b, size_t count, pd_err *);
} pd_update_kernels;

#endif
