#include "kernels/pool.h"
#include "kernels/pool_node.h"
#include "kernels/simd.h"

#include <float.h>
#include <string.h>

typedef struct pool_run {
    const pool_args *a;
    int h, w, oh, ow;
    size_t c;
    const float *x, *dy;
    float *y, *dx;
    unsigned char *which; /* window position of each output's maximum */
    bool add;
} pool_run;

/* One output row of c channels: the maximum over the window, and where it was. */
PD_INLINE void max_pixel(const pool_run *p, size_t image, int oy, int ox, float *restrict y,
                         unsigned char *restrict which)
{
    const size_t c = p->c;
    bool first = true;
    for (int r = 0; r < p->a->size; r++) {
        const int iy = oy * p->a->stride - p->a->pad + r;
        if (iy < 0 || iy >= p->h) continue;
        for (int s = 0; s < p->a->size; s++) {
            const int ix = ox * p->a->stride - p->a->pad + s;
            if (ix < 0 || ix >= p->w) continue;
            const float *restrict x = p->x + ((image * (size_t)p->h + (size_t)iy) * (size_t)p->w + (size_t)ix) * c;
            const unsigned char here = (unsigned char)(r * p->a->size + s);
            if (first) {
                memcpy(y, x, c * sizeof *y);
                if (which) memset(which, here, c);
                first = false;
            } else if (which) {
                for (size_t i = 0; i < c; i++) {
                    const bool more = x[i] > y[i];
                    y[i] = more ? x[i] : y[i];
                    which[i] = more ? here : which[i];
                }
            } else {
                for (size_t i = 0; i < c; i++) y[i] = x[i] > y[i] ? x[i] : y[i];
            }
        }
    }
}

PD_CLONES static void max_rows(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const pool_run *p = arg;
    for (size_t row = begin; row < end; row++)
        for (int ox = 0; ox < p->ow; ox++) {
            const size_t at = (row * (size_t)p->ow + (size_t)ox) * p->c;
            max_pixel(p, row / (size_t)p->oh, (int)(row % (size_t)p->oh), ox, p->y + at,
                      p->which ? p->which + at : NULL);
        }
}

/* One input pixel gathers from the windows that chose it: every element has one writer, whatever the threads. */
PD_CLONES static void max_back_rows(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const pool_run *p = arg;
    const int size = p->a->size, stride = p->a->stride, pad = p->a->pad;
    for (size_t row = begin; row < end; row++) {
        const size_t image = row / (size_t)p->h;
        const int iy = (int)(row % (size_t)p->h);
        for (int ix = 0; ix < p->w; ix++) {
            float *restrict dx = p->dx + (row * (size_t)p->w + (size_t)ix) * p->c;
            if (!p->add) memset(dx, 0, p->c * sizeof *dx);
            for (int r = 0; r < size; r++) {
                const int ty = iy + pad - r;
                if (ty < 0 || ty % stride || ty / stride >= p->oh) continue;
                for (int s = 0; s < size; s++) {
                    const int tx = ix + pad - s;
                    if (tx < 0 || tx % stride || tx / stride >= p->ow) continue;
                    const size_t at =
                        ((image * (size_t)p->oh + (size_t)(ty / stride)) * (size_t)p->ow + (size_t)(tx / stride)) * p->c;
                    const unsigned char here = (unsigned char)(r * size + s);
                    const float *restrict dy = p->dy + at;
                    const unsigned char *restrict which = p->which + at;
                    for (size_t i = 0; i < p->c; i++) dx[i] += which[i] == here ? dy[i] : 0;
                }
            }
        }
    }
}

static pool_run pool_of(const pd_node *node)
{
    const int *x = node->in[0]->shape.dim, *y = node->out[0]->shape.dim;
    return (pool_run){.a = node->args, .h = x[1], .w = x[2], .oh = y[1], .ow = y[2], .c = (size_t)x[3],
                      .x = node->in[0]->data, .y = node->out[0]->data,
                      .which = node->backward ? node->saved : NULL};
}

static pd_status max_plan(pd_node *node, pd_device *device, pd_err *err)
{
    (void)device;
    (void)err;
    node->saved_bytes = node->backward ? pd_shape_size(node->out[0]->shape) : 0;
    return PD_OK;
}

static pd_status max_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    (void)err;
    pool_run p = pool_of(node);
    pd_parallel(run->device->pool, (size_t)node->out[0]->shape.dim[0] * (size_t)p.oh, max_rows, &p);
    return PD_OK;
}

static pd_status max_bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    (void)err;
    pool_run p = pool_of(node);
    p.dy = node->out[0]->grad;
    p.dx = node->in[0]->grad;
    p.add = pd_adds_grad(node, 0, run);
    pd_parallel(run->device->pool, (size_t)node->in[0]->shape.dim[0] * (size_t)p.h, max_back_rows, &p);
    return PD_OK;
}

/* Pooling counts once per input element. */
static double pool_macs(const pd_node *node)
{
    return (double)pd_shape_size(node->in[0]->shape);
}

static const pd_kernel max_cpu = {max_plan, max_fwd, max_bwd, NULL};
static const pd_op max_op = {
    .name = "max_pool", .differentiable = true, .kernel = {[PD_CPU] = &max_cpu}, .macs = pool_macs};

pd_value *pd_max_pool(pd_tape *t, pd_value *x, int size, int stride, int pad)
{
    if (pd_tape_status(t, NULL) != PD_OK) return pd_tape_dead(t);
    const int *d = x->shape.dim;
    if (x->shape.rank != 4 || size < 1 || size > 15 || stride < 1 || pad < 0 || 2 * pad > size ||
        d[1] + 2 * pad < size || d[2] + 2 * pad < size) {
        char text[64];
        pd_tape_fail(t, PD_EINVAL, "max pooling of size %d, stride %d, padding %d does not fit an input %s", size,
                     stride, pad, pd_shape_text(text, x->shape));
        return pd_tape_dead(t);
    }
    const pool_args args = {size, stride, pad};
    const pd_shape out = PD_SHAPE(d[0], (d[1] + 2 * pad - size) / stride + 1, (d[2] + 2 * pad - size) / stride + 1, d[3]);
    return pd_tape_add1(t, &max_op, "", 1, &x, out, &args, sizeof args);
}

/* ---- global average ---- */

PD_CLONES static void mean_images(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const pool_run *p = arg;
    const size_t hw = (size_t)p->h * (size_t)p->w, c = p->c;
    const float scale = 1.f / (float)hw;
    for (size_t n = begin; n < end; n++) {
        float *restrict y = p->y + n * c;
        memset(y, 0, c * sizeof *y);
        const float *restrict x = p->x + n * hw * c;
        size_t r = 0;
        for (; r + 4 <= hw; r += 4, x += 4 * c)
            for (size_t i = 0; i < c; i++) y[i] += (x[i] + x[c + i]) + (x[2 * c + i] + x[3 * c + i]);
        for (; r < hw; r++, x += c)
            for (size_t i = 0; i < c; i++) y[i] += x[i];
        for (size_t i = 0; i < c; i++) y[i] *= scale;
    }
}

PD_CLONES static void mean_back_images(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const pool_run *p = arg;
    const size_t hw = (size_t)p->h * (size_t)p->w, c = p->c;
    const float scale = 1.f / (float)hw;
    for (size_t n = begin; n < end; n++) {
        const float *restrict dy = p->dy + n * c;
        for (size_t r = 0; r < hw; r++) {
            float *restrict dx = p->dx + (n * hw + r) * c;
            if (p->add)
                for (size_t i = 0; i < c; i++) dx[i] += scale * dy[i];
            else
                for (size_t i = 0; i < c; i++) dx[i] = scale * dy[i];
        }
    }
}

static pd_status mean_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    (void)err;
    const int *d = node->in[0]->shape.dim;
    pool_run p = {.h = d[1], .w = d[2], .c = (size_t)d[3], .x = node->in[0]->data, .y = node->out[0]->data};
    pd_parallel(run->device->pool, (size_t)d[0], mean_images, &p);
    return PD_OK;
}

static pd_status mean_bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    (void)err;
    const int *d = node->in[0]->shape.dim;
    pool_run p = {.h = d[1], .w = d[2], .c = (size_t)d[3], .dy = node->out[0]->grad, .dx = node->in[0]->grad,
                  .add = pd_adds_grad(node, 0, run)};
    pd_parallel(run->device->pool, (size_t)d[0], mean_back_images, &p);
    return PD_OK;
}

static const pd_kernel mean_cpu = {NULL, mean_fwd, mean_bwd, NULL};
static const pd_op mean_op = {
    .name = "global_avg_pool", .differentiable = true, .kernel = {[PD_CPU] = &mean_cpu}, .macs = pool_macs};
static const pd_op means_op = {.name = "channel_means", .differentiable = true, .kernel = {[PD_CPU] = &mean_cpu}};

static pd_value *record_mean(pd_tape *t, const pd_op *op, pd_value *x)
{
    if (pd_tape_status(t, NULL) != PD_OK) return pd_tape_dead(t);
    if (x->shape.rank != 4) {
        pd_tape_fail(t, PD_EINVAL, "%s wants (n, h, w, c)", op->name);
        return pd_tape_dead(t);
    }
    return pd_tape_add1(t, op, "", 1, &x, PD_SHAPE(x->shape.dim[0], x->shape.dim[3]), NULL, 0);
}

pd_value *pd_global_avg_pool(pd_tape *t, pd_value *x)
{
    return record_mean(t, &mean_op, x);
}

pd_value *pd_channel_means(pd_tape *t, pd_value *x)
{
    return record_mean(t, &means_op, x);
}
