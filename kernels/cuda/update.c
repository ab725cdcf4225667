#include "kernels/cuda/update.h"
#include "kernels/cuda/ops.h"

#include <math.h>

/* The sum of squares of all trainable gradients, with the scale they carry. */
static pd_status all_squares(pd_cuda *c, const pd_params *params, pd_err *err)
{
    const float *g = pd_params_grads(params);
    size_t at = 0, begin, end;
    bool add = false;
    while (pd_params_next_run(params, &at, &begin, &end)) {
        PD_CUDA_TRY(pd_cuda_squares(g + begin, end - begin, c->update, add, c->stream), err);
        add = true;
    }
    return add ? PD_OK : c->device.fill(&c->device, c->update, 0, sizeof(double), err);
}

static pd_status update_step(pd_device *device, pd_params *params, float *velocity, const pd_sgd *set, pd_err *err)
{
    pd_cuda *c = pd_cuda_of(device);
    const pd_step_settings s = {(float)set->lr, (float)set->momentum, (float)set->weight_decay, (float)set->scale,
                                set->nesterov};
    const bool half = device->precision == PD_FP16;
    size_t at = 0, begin, end, count;
    float *w = pd_params_weights(params, &count);
    const float *g = pd_params_grads(params);
    if (half) PD_TRY(all_squares(c, params, err));
    while (pd_params_next_run(params, &at, &begin, &end))
        PD_CUDA_TRY(pd_cuda_step(w + begin, velocity + begin, g + begin, end - begin, &s, c->scale,
                                 half ? c->update : NULL, c->stream),
                    err);
    if (half) PD_CUDA_TRY(pd_cuda_rescale(c->scale, c->update, c->stream), err);
    return PD_OK;
}

static pd_status update_norm(double *norm, pd_device *device, pd_params *params, pd_err *err)
{
    pd_cuda *c = pd_cuda_of(device);
    double squares;
    pd_scale_state scale;
    PD_TRY(all_squares(c, params, err));
    PD_TRY(device->download(device, &squares, c->update, sizeof squares, err));
    PD_TRY(device->download(device, &scale, c->scale, sizeof scale, err));
    *norm = sqrt(squares) / (double)scale.scale;
    return PD_OK;
}

static pd_status update_ema(pd_device *device, float *average, const float *weights, size_t count, double decay,
                            pd_err *err)
{
    PD_CUDA_TRY(pd_cuda_ema(average, weights, count, (float)decay, pd_cuda_of(device)->stream), err);
    return PD_OK;
}

static pd_status update_swap(pd_device *device, float *a, float *b, size_t count, pd_err *err)
{
    PD_CUDA_TRY(pd_cuda_swap(a, b, count, pd_cuda_of(device)->stream), err);
    return PD_OK;
}

const pd_update_kernels pd_cuda_update = {update_step, update_norm, update_ema, update_swap};
