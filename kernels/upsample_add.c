#include "kernels/upsample_add.h"
#include "kernels/upsample_add_node.h"
#include "kernels/simd.h"

#include <string.h>

/* Which coarse row or column a fine one reads, and the first fine one that reads a coarse one. */
static size_t source(size_t i, size_t fine, size_t coarse)
{
    return i * coarse / fine;
}

static size_t first_reader(size_t i, size_t fine, size_t coarse)
{
    return (i * fine + coarse - 1) / coarse;
}

PD_CLONES static void add_row(float *restrict y, const float *restrict a, const float *restrict b, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

PD_CLONES static void add_to(float *restrict y, const float *restrict a, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] += a[i];
}

typedef struct job {
    pd_node *node;
    const pd_run *run;
} job;

static void forward_rows(void *arg, size_t begin, size_t end, int thread)
{
    const pd_node *node = ((const job *)arg)->node;
    const up_args *a = node->args;
    (void)thread;
    for (size_t r = begin; r < end; r++) {
        const size_t image = r / a->h, y = source(r % a->h, a->h, a->hc);
        const float *coarse = (const float *)node->in[COARSE]->data + (image * a->hc + y) * a->wc * a->c;
        const float *lateral = (const float *)node->in[LATERAL]->data + r * a->w * a->c;
        float *out = (float *)node->out[0]->data + r * a->w * a->c;
        for (size_t x = 0; x < a->w; x++) {
            const float *from = coarse + source(x, a->w, a->wc) * a->c;
            if (out == lateral)
                add_to(out + x * a->c, from, a->c);
            else
                add_row(out + x * a->c, lateral + x * a->c, from, a->c);
        }
    }
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const up_args *a = node->args;
    job j = {node, run};
    (void)err;
    pd_parallel(run->device->pool, a->n * a->h, forward_rows, &j);
    return PD_OK;
}

static void coarse_rows(void *arg, size_t begin, size_t end, int thread)
{
    const job *j = arg;
    const up_args *a = j->node->args;
    const bool add = pd_adds_grad(j->node, COARSE, j->run);
    (void)thread;
    for (size_t r = begin; r < end; r++) {
        const size_t image = r / a->hc, yc = r % a->hc;
        const size_t y0 = first_reader(yc, a->h, a->hc), y1 = first_reader(yc + 1, a->h, a->hc);
        for (size_t xc = 0; xc < a->wc; xc++) {
            float *grad = j->node->in[COARSE]->grad + (r * a->wc + xc) * a->c;
            const size_t x0 = first_reader(xc, a->w, a->wc), x1 = first_reader(xc + 1, a->w, a->wc);
            if (!add) memset(grad, 0, a->c * sizeof *grad);
            for (size_t y = y0; y < y1; y++)
                for (size_t x = x0; x < x1; x++)
                    add_to(grad, j->node->out[0]->grad + ((image * a->h + y) * a->w + x) * a->c, a->c);
        }
    }
}

static void lateral_range(void *arg, size_t begin, size_t end, int thread)
{
    const job *j = arg;
    const float *dy = j->node->out[0]->grad;
    float *grad = j->node->in[LATERAL]->grad;
    (void)thread;
    if (pd_adds_grad(j->node, LATERAL, j->run))
        add_to(grad + begin, dy + begin, end - begin);
    else
        memcpy(grad + begin, dy + begin, (end - begin) * sizeof *grad);
}

static pd_status bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const up_args *a = node->args;
    job j = {node, run};
    (void)err;
    if (pd_wants_grad(node, COARSE)) pd_parallel(run->device->pool, a->n * a->hc, coarse_rows, &j);
    if (pd_wants_grad(node, LATERAL)) pd_parallel(run->device->pool, a->n * a->h * a->w * a->c, lateral_range, &j);
    return PD_OK;
}

static const pd_kernel cpu = {NULL, fwd, bwd, NULL};
static const pd_op upsample_add = {
    .name = "upsample_add", .out_over_in = 1 + LATERAL, .differentiable = true, .kernel = {[PD_CPU] = &cpu}};

pd_value *pd_upsample_add(pd_tape *tape, pd_value *coarse, pd_value *lateral)
{
    if (pd_tape_status(tape, NULL) != PD_OK) return pd_tape_dead(tape);
    const pd_shape s = lateral->shape, b = coarse->shape;
    if (s.rank != 4 || b.rank != 4 || s.dim[0] != b.dim[0] || s.dim[3] != b.dim[3] ||
        ((b.dim[1] == 0 || b.dim[2] == 0) && pd_shape_size(s) > 0)) {
        char one[64], two[64];
        pd_tape_fail(tape, PD_EINVAL,
                     "upsample_add: coarse %s onto lateral %s: expected (n, h, w, c) with equal n and c",
                     pd_shape_text(one, b), pd_shape_text(two, s));
        return pd_tape_dead(tape);
    }
    const up_args a = {.n = (size_t)s.dim[0],
                       .h = (size_t)s.dim[1],
                       .w = (size_t)s.dim[2],
                       .hc = (size_t)b.dim[1],
                       .wc = (size_t)b.dim[2],
                       .c = (size_t)s.dim[3]};
    pd_value *in[] = {coarse, lateral};
    return pd_tape_add1(tape, &upsample_add, NULL, 2, in, s, &a, sizeof a);
}
