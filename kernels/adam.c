#include "kernels/adam.h"
#include "kernels/simd.h"

#include <math.h>

#define BLOCK 4096 /* elements whose squares are summed together: the order does not depend on the threads */

typedef struct adam {
    float *w, *m, *v;
    float *g; /* read; LAMB keeps its update there */
    float beta1, beta2, eps, decay, scale;
    float lr;                 /* AdamW: of u */
    float correct1, correct2; /* 1 / (1 - beta1^t), 1 / sqrt(1 - beta2^t) */
} adam;

static inline float moments(const adam *a, size_t i)
{
    const float g = a->g[i] * a->scale;
    a->m[i] = a->beta1 * a->m[i] + (1 - a->beta1) * g;
    a->v[i] = a->beta2 * a->v[i] + (1 - a->beta2) * g * g;
    return a->m[i] * a->correct1 / (sqrtf(a->v[i]) * a->correct2 + a->eps);
}

PD_CLONES static void adamw_range(void *arg, size_t begin, size_t end, int thread)
{
    const adam *a = arg;
    (void)thread;
    for (size_t i = begin; i < end; i++) a->w[i] = a->w[i] * (1 - a->lr * a->decay) - a->lr * moments(a, i);
}

typedef struct lamb {
    adam a;
    size_t count;
    double *part; /* (blocks, 2) */
} lamb;

PD_CLONES static void lamb_blocks(void *arg, size_t begin, size_t end, int thread)
{
    const lamb *l = arg;
    const adam *a = &l->a;
    (void)thread;
    for (size_t b = begin; b < end; b++) {
        const size_t last = (b + 1) * BLOCK < l->count ? (b + 1) * BLOCK : l->count;
        double w = 0, u = 0;
        for (size_t i = b * BLOCK; i < last; i++) {
            const float update = moments(a, i) + a->decay * a->w[i];
            a->g[i] = update;
            w += (double)a->w[i] * (double)a->w[i];
            u += (double)update * (double)update;
        }
        l->part[2 * b] = w;
        l->part[2 * b + 1] = u;
    }
}

PD_CLONES static void lamb_move(void *arg, size_t begin, size_t end, int thread)
{
    const adam *a = arg;
    (void)thread;
    for (size_t i = begin; i < end; i++) a->w[i] -= a->lr * a->g[i];
}

static void step_lamb(pd_pool *pool, const adam *a, size_t count, double *part)
{
    const size_t blocks = (count + BLOCK - 1) / BLOCK;
    lamb l = {*a, count, part};
    double w = 0, u = 0;
    pd_parallel(pool, blocks, lamb_blocks, &l);
    for (size_t b = 0; b < blocks; b++) {
        w += part[2 * b];
        u += part[2 * b + 1];
    }
    if (a->decay > 0 && w > 0 && u > 0) l.a.lr *= (float)sqrt(w / u);
    pd_parallel(pool, count, lamb_move, &l.a);
}

pd_status pd_adam_step(pd_device *device, pd_params *params, float *mean, float *square, const pd_adam *set,
                       pd_err *err)
{
    if (device->kind != PD_CPU)
        return PD_FAIL(err, PD_EINVAL,
                       "optimizers other than sgd run on the CPU only: take optimizer.type \"sgd\" here");
    size_t count, largest = 0;
    float *const w = pd_params_weights(params, &count), *const g = pd_params_grads(params);
    double *part = NULL;
    pd_arena *arena = NULL;
    for (size_t i = 0; i < pd_params_count(params); i++) {
        const pd_param *p = pd_params_at(params, i);
        if (p->kind == PD_WEIGHT && p->count > largest) largest = p->count;
    }
    if (set->lamb) {
        arena = pd_arena_new();
        if (!arena) return PD_FAIL(err, PD_ENOMEM, "out of memory for a step");
        const pd_status status = PD_ALLOC(&part, arena, 2 * (largest / BLOCK + 1), err);
        if (status != PD_OK) {
            pd_arena_free(arena);
            return status;
        }
    }
    for (size_t i = 0; i < pd_params_count(params); i++) {
        const pd_param *p = pd_params_at(params, i);
        if (p->kind != PD_WEIGHT || !p->trainable) continue;
        const double t = (double)set->step;
        adam a = {.w = w + p->offset,
                  .m = mean + p->offset,
                  .v = square + p->offset,
                  .g = g + p->offset,
                  .beta1 = (float)set->beta1,
                  .beta2 = (float)set->beta2,
                  .eps = (float)set->eps,
                  .decay = p->no_decay ? 0 : (float)set->weight_decay,
                  .scale = (float)set->scale,
                  .lr = (float)set->lr,
                  .correct1 = (float)(1 / (1 - pow(set->beta1, t))),
                  .correct2 = (float)(1 / sqrt(1 - pow(set->beta2, t)))};
        if (set->lamb)
            step_lamb(device->pool, &a, p->count, part);
        else
            pd_parallel(device->pool, p->count, adamw_range, &a);
    }
    pd_arena_free(arena);
    return PD_OK;
}
