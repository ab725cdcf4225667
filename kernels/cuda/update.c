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

/* What the step's launches read from device memory. */
static pd_status begin_step(pd_cuda *c, const pd_params *params, double scale, const pd_clip *clip, pd_err *err)
{
    const pd_step_wants wants = {.scale = scale,
                                 .max_norm = clip ? clip->max_norm : 0,
                                 .passes = clip ? clip->passes : 1,
                                 .half = c->device.precision == PD_FP16};
    const bool squares = wants.half || wants.max_norm > 0;
    if (squares) PD_TRY(all_squares(c, params, err));
    PD_CUDA_TRY(pd_cuda_begin_step(c->step, squares ? c->update : NULL, &wants, c->stream), err);
    return PD_OK;
}

/* The next tensors to step, from number *at on; false: none is left. whole: each one by itself; else neighbours that
 * decay alike are one, with what pads them. */
static bool next_list(pd_update_list *l, const pd_params *params, size_t *at, double decay, bool whole)
{
    bool neighbour = false; /* the weight before this one is the last of the list */
    l->count = 0;
    l->block[0] = 0;
    for (; *at < pd_params_count(params); ++*at) {
        const pd_param *p = pd_params_at(params, *at);
        const float own = p->no_decay ? 0 : (float)decay;
        int last = l->count - 1;
        if (p->kind != PD_WEIGHT || !p->count) continue;
        if (!p->trainable) {
            neighbour = false;
            continue;
        }
        if (whole || !neighbour || l->decay[last] != own) {
            if (l->count == PD_UPDATE_TENSORS) break;
            last = l->count++;
            l->begin[last] = p->offset;
            l->decay[last] = own;
        }
        neighbour = true;
        l->end[last] = p->offset + p->count;
        l->block[last + 1] =
            l->block[last] + (unsigned)((l->end[last] - l->begin[last] + PD_UPDATE_PIECE - 1) / PD_UPDATE_PIECE);
    }
    return l->count > 0;
}

static pd_status update_step(pd_device *device, pd_params *params, float *velocity, const pd_sgd *set, pd_err *err)
{
    pd_cuda *c = pd_cuda_of(device);
    const pd_step_settings s = {(float)set->lr, (float)set->momentum, set->nesterov};
    pd_update_list list;
    size_t at = 0, count;
    float *w = pd_params_weights(params, &count);
    PD_TRY(begin_step(c, params, set->scale, set->clip, err));
    while (next_list(&list, params, &at, set->weight_decay, false))
        PD_CUDA_TRY(pd_cuda_step(&list, w, velocity, pd_params_grads(params), &s, c->step, c->stream), err);
    return PD_OK;
}

/* Room behind the sums of squares for LAMB's partial sums and ratios. */
static pd_status lamb_room(pd_cuda *c, const pd_params *params, double **parts, float **ratios, pd_err *err)
{
    pd_update_list list;
    size_t at = 0, blocks = 0;
    while (next_list(&list, params, &at, 0, true))
        if (list.block[list.count] > blocks) blocks = list.block[list.count];
    const size_t bytes = PD_UPDATE_BYTES + 2 * blocks * sizeof(double) + PD_UPDATE_TENSORS * sizeof(float);
    if (bytes > c->update_bytes) {
        void *memory;
        PD_TRY(c->device.alloc(&c->device, &memory, bytes, err));
        c->device.release(&c->device, c->update); /* waits for what still uses it */
        c->update = memory;
        c->update_bytes = bytes;
    }
    *parts = (double *)c->update + PD_UPDATE_BYTES / sizeof(double);
    *ratios = (float *)(void *)(*parts + 2 * blocks);
    return PD_OK;
}

static pd_status update_adam(pd_device *device, pd_params *params, float *mean, float *square, const pd_adam *set,
                             pd_err *err)
{
    pd_cuda *c = pd_cuda_of(device);
    const pd_adam_numbers n = pd_adam_numbers_of(set);
    pd_update_list list;
    size_t at = 0, count;
    float *w = pd_params_weights(params, &count), *g = pd_params_grads(params), *ratios = NULL;
    double *parts = NULL;
    if (set->lamb) PD_TRY(lamb_room(c, params, &parts, &ratios, err));
    PD_TRY(begin_step(c, params, set->scale, set->clip, err));
    while (next_list(&list, params, &at, set->weight_decay, set->lamb)) {
        if (set->lamb)
            PD_CUDA_TRY(pd_cuda_lamb(&list, w, mean, square, g, &n, parts, ratios, c->step, c->stream), err);
        else
            PD_CUDA_TRY(pd_cuda_adamw(&list, w, mean, square, g, &n, c->step, c->stream), err);
    }
    return PD_OK;
}

static pd_status update_norm(double *norm, pd_device *device, pd_params *params, pd_err *err)
{
    pd_cuda *c = pd_cuda_of(device);
    double squares;
    pd_step_state state;
    PD_TRY(all_squares(c, params, err));
    PD_TRY(device->download(device, &squares, c->update, sizeof squares, err));
    PD_TRY(device->download(device, &state, c->step, sizeof state, err));
    *norm = sqrt(squares) / (double)state.scale;
    return PD_OK;
}

static pd_status update_clipped(double *norm, pd_device *device, pd_err *err)
{
    return device->download(device, norm, &pd_cuda_of(device)->step->norm, sizeof *norm, err);
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

const pd_update_kernels pd_cuda_update = {update_step,    update_adam, update_norm,
                                          update_clipped, update_ema,  update_swap};
