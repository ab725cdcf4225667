#include "kernels/adam.h"
#include "kernels/adam_math.h"
#include "kernels/sgd.h"
#include "kernels/simd.h"

#define BLOCK 4096 /* elements whose squares are summed together: the order does not depend on the threads */

typedef struct adam {
    float *w, *m, *v;
    float *g; /* read; LAMB keeps its update there */
    float decay;
    pd_adam_numbers n; /* lr: of u */
} adam;

static inline float moments(const adam *a, size_t i)
{
    return pd_adam_moments(&a->m[i], &a->v[i], a->g[i] * a->n.scale, &a->n);
}

PD_CLONES static void adamw_range(void *arg, size_t begin, size_t end, int thread)
{
    const adam *a = arg;
    (void)thread;
    for (size_t i = begin; i < end; i++) a->w[i] = pd_adamw_weight(a->w[i], moments(a, i), a->n.lr, a->decay);
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
    for (size_t i = begin; i < end; i++) a->w[i] -= a->n.lr * a->g[i];
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
    l.a.n.lr *= pd_lamb_ratio(w, u, a->decay);
    pd_parallel(pool, count, lamb_move, &l.a);
}

pd_status pd_adam_step(pd_device *device, pd_params *params, float *mean, float *square, const pd_adam *set,
                       pd_err *err)
{
    const pd_update_kernels *other = device->kind != PD_CPU && device->find ? device->find(device, "update") : NULL;
    if (other) return other->adam(device, params, mean, square, set, err);
    pd_adam scaled = *set;
    PD_TRY(pd_clip_on_cpu(&scaled.scale, set->clip, device, params, err));
    const pd_adam_numbers numbers = pd_adam_numbers_of(&scaled);
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
        adam a = {w + p->offset,
                  mean + p->offset,
                  square + p->offset,
                  g + p->offset,
                  p->no_decay ? 0 : (float)set->weight_decay,
                  numbers};
        if (set->lamb)
            step_lamb(device->pool, &a, p->count, part);
        else
            pd_parallel(device->pool, p->count, adamw_range, &a);
    }
    pd_arena_free(arena);
    return PD_OK;
}
