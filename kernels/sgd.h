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

/* Gradients that are longer than max_norm are shortened to it before a step, as torch.nn.utils.clip_grad_norm_ does:
 *   norm = the L2 norm of all / passes;  where max_norm / (norm + 1e-6) < 1, it multiplies them, beside the step's scale
 * Norm and factor stay on the device: nobody waits between the backward run and the step. */
typedef struct pd_clip {
    double max_norm; /* > 0 */
    double passes;   /* gradients are sums over so many backward runs */
    double norm;     /* what it was: on the CPU behind the step, elsewhere behind pd_clip_read */
} pd_clip;

/* Makes clip->norm that of the last step; waits for it. On the CPU it is there. */
pd_status pd_clip_read(pd_clip *clip, pd_device *device, pd_err *err);

typedef struct pd_sgd {
    double lr, momentum, weight_decay;
    double scale; /* multiplies gradients: 1 / accumulated groups */
    bool nesterov;
    pd_clip *clip; /* NULL: gradients stay as long as they are */
} pd_sgd;

/* Steps all trainable weights; those with no_decay (pd_params_decay) do not decay. velocity has the size of the weights' block. */
pd_status pd_sgd_step(pd_device *device, pd_params *params, float *velocity, const pd_sgd *settings, pd_err *err);

/* L2 norm of the trainable weights' gradients; waits for them. */
pd_status pd_grad_norm(double *norm, pd_device *device, pd_params *params, pd_err *err);

pd_status pd_ema_step(pd_device *device, float *average, const float *weights, size_t count, double decay, pd_err *err);

/* Exchanges two blocks. */
pd_status pd_swap_blocks(pd_device *device, float *a, float *b, size_t count, pd_err *err);

/* For steps on the CPU: measures the gradients and multiplies *scale by what shortens them. clip NULL: nothing. */
pd_status pd_clip_on_cpu(double *scale, pd_clip *clip, pd_device *device, pd_params *params, pd_err *err);

struct pd_adam;

/* The same, and pd_adam_step (adam.h), for a device that is not the CPU: its table under the name "update" (device.h,
 * find). */
typedef struct pd_update_kernels {
    pd_status (*step)(pd_device *, pd_params *, float *velocity, const pd_sgd *, pd_err *);
    pd_status (*adam)(pd_device *, pd_params *, float *mean, float *square, const struct pd_adam *, pd_err *);
    pd_status (*norm)(double *norm, pd_device *, pd_params *, pd_err *);
    pd_status (*clipped)(double *norm, pd_device *, pd_err *); /* pd_clip.norm of the last step */
    pd_status (*ema)(pd_device *, float *average, const float *weights, size_t count, double decay, pd_err *);
    pd_status (*swap)(pd_device *, float *a, float *b, size_t count, pd_err *);
} pd_update_kernels;

#endif
