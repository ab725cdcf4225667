#include "kernels/sgd.h"
#include "kernels/clip_math.h"
#include "kernels/simd.h"

#include <math.h>

typedef struct update {
    float *w, *v;
    const float *g;
    float lr, momentum, decay, scale;
    bool nesterov;
} update;

PD_CLONES static void step_range(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const update *u = arg;
    float *restrict w = u->w, *restrict v = u->v;
    const float *restrict g = u->g;
    if (u->nesterov) {
        for (size_t i = begin; i < end; i++) {
            const float d = g[i] * u->scale + u->decay * w[i];
            v[i] = u->momentum * v[i] + d;
            w[i] -= u->lr * (d + u->momentum * v[i]);
        }
        return;
    }
    for (size_t i = begin; i < end; i++) {
        v[i] = u->momentum * v[i] + (g[i] * u->scale + u->decay * w[i]);
        w[i] -= u->lr * v[i];
    }
}

/* Calls fn for each longest run of neighbouring trainable weights: [begin, end) in the weights' block. */
typedef void (*run_fn)(void *arg, size_t begin, size_t end);
static void trainable_runs(const pd_params *params, run_fn fn, void *arg)
{
    size_t at = 0, begin, end;
    while (pd_params_next_run(params, &at, &begin, &end)) fn(arg, begin, end);
}

/* Another device's table; NULL on the CPU. */
static const pd_update_kernels *elsewhere(pd_device *device)
{
    return device->kind != PD_CPU && device->find ? device->find(device, "update") : NULL;
}

typedef struct step_all {
    pd_pool *pool;
    update u;
} step_all;

static void step_run(void *arg, size_t begin, size_t end)
{
    const step_all *s = arg;
    update u = s->u;
    u.w += begin;
    u.v += begin;
    u.g += begin;
    pd_parallel(s->pool, end - begin, step_range, &u);
}

static bool none_spared(const pd_params *params)
{
    for (size_t i = 0; i < pd_params_count(params); i++)
        if (pd_params_at(params, i)->no_decay) return false;
    return true;
}

pd_status pd_sgd_step(pd_device *device, pd_params *params, float *velocity, const pd_sgd *set, pd_err *err)
{
    const pd_update_kernels *other = elsewhere(device);
    if (other) return other->step(device, params, velocity, set, err);
    size_t count;
    double scale = set->scale;
    PD_TRY(pd_clip_on_cpu(&scale, set->clip, device, params, err));
    step_all s = {device->pool,
                  {.w = pd_params_weights(params, &count), .v = velocity, .g = pd_params_grads(params),
                   .lr = (float)set->lr, .momentum = (float)set->momentum, .decay = (float)set->weight_decay,
                   .scale = (float)scale, .nesterov = set->nesterov}};
    if (none_spared(params)) {
        trainable_runs(params, step_run, &s);
        return PD_OK;
    }
    for (size_t i = 0; i < pd_params_count(params); i++) {
        const pd_param *p = pd_params_at(params, i);
        if (p->kind != PD_WEIGHT || !p->trainable) continue;
        s.u.decay = p->no_decay ? 0 : (float)set->weight_decay;
        step_run(&s, p->offset, p->offset + p->count);
    }
    return PD_OK;
}

#define NORM_BLOCK 4096 /* partial sums of fixed size: the order does not depend on the threads */

typedef struct norm_sum {
    const float *g;
    double total;
} norm_sum;

PD_CLONES static double square_sum(const float *g, size_t n)
{
    float lane[16] = {0};
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (size_t k = 0; k < 16; k++) lane[k] += g[i + k] * g[i + k];
    double sum = 0;
    for (; i < n; i++) sum += (double)g[i] * (double)g[i];
    for (size_t k = 0; k < 16; k++) sum += (double)lane[k];
    return sum;
}

static void norm_run(void *arg, size_t begin, size_t end)
{
    norm_sum *s = arg;
    for (size_t i = begin; i < end; i += NORM_BLOCK)
        s->total += square_sum(s->g + i, end - i < NORM_BLOCK ? end - i : NORM_BLOCK);
}

pd_status pd_grad_norm(double *norm, pd_device *device, pd_params *params, pd_err *err)
{
    const pd_update_kernels *other = elsewhere(device);
    if (other) return other->norm(norm, device, params, err);
    norm_sum s = {pd_params_grads(params), 0};
    trainable_runs(params, norm_run, &s);
    *norm = sqrt(s.total);
    return PD_OK;
}

pd_status pd_clip_on_cpu(double *scale, pd_clip *clip, pd_device *device, pd_params *params, pd_err *err)
{
    if (!clip) return PD_OK;
    PD_TRY(pd_grad_norm(&clip->norm, device, params, err));
    clip->norm /= clip->passes;
    *scale *= pd_clip_factor(clip->norm, clip->max_norm);
    return PD_OK;
}

pd_status pd_clip_read(pd_clip *clip, pd_device *device, pd_err *err)
{
    const pd_update_kernels *other = elsewhere(device);
    return other ? other->clipped(&clip->norm, device, err) : PD_OK;
}

typedef struct average {
    float *e;
    const float *w;
    float keep;
} average;

PD_CLONES static void ema_range(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const average *a = arg;
    float *restrict e = a->e;
    const float *restrict w = a->w;
    for (size_t i = begin; i < end; i++) e[i] = a->keep * e[i] + (1 - a->keep) * w[i];
}

pd_status pd_ema_step(pd_device *device, float *e, const float *weights, size_t count, double decay, pd_err *err)
{
    const pd_update_kernels *other = elsewhere(device);
    if (other) return other->ema(device, e, weights, count, decay, err);
    average a = {e, weights, (float)decay};
    pd_parallel(device->pool, count, ema_range, &a);
    return PD_OK;
}

typedef struct pair {
    float *a, *b;
} pair;

static void swap_range(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const pair *p = arg;
    for (size_t i = begin; i < end; i++) {
        const float a = p->a[i];
        p->a[i] = p->b[i];
        p->b[i] = a;
    }
}

pd_status pd_swap_blocks(pd_device *device, float *a, float *b, size_t count, pd_err *err)
{
    const pd_update_kernels *other = elsewhere(device);
    if (other) return other->swap(device, a, b, count, err);
    pd_parallel(device->pool, count, swap_range, &(pair){a, b});
    return PD_OK;
}
