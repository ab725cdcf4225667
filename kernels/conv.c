#include "kernels/conv.h"
#include "kernels/add_into.h"
#include "kernels/conv_direct.h"
#include "kernels/conv_node.h"
#include "kernels/simd.h"
#include "kernels/winograd.h"

#include <stdlib.h>
#include <string.h>

/* What one planned convolution keeps: one of the two algorithms. */
typedef struct conv_state {
    pd_device *device;
    bool direct;
    pd_direct by_library;
    pd_wino_shape fast;
    pd_shared *taps; /* of the fast one's constant kernels (panel_taps.h); found in the first run */
} conv_state;

static void conv_release(pd_node *node)
{
    conv_state *s = node->state;
    if (!s) return;
    pd_direct_free(&s->by_library);
    pd_unshare(s->taps);
    free(s);
    node->state = NULL;
}

static pd_conv_shape shape_of(const pd_node *node)
{
    const pd_conv_args *a = node->args;
    const int *x = node->in[X]->shape.dim, *w = node->in[W]->shape.dim, *y = node->out[0]->shape.dim;
    return (pd_conv_shape){.n = x[0],
                           .h = x[1],
                           .w = x[2],
                           .c = x[3],
                           .k = w[0],
                           .kh = w[1],
                           .kw = w[2],
                           .stride = a->stride,
                           .pad_h = a->pad_h,
                           .pad_w = a->pad_w,
                           .groups = a->groups,
                           .oh = y[1],
                           .ow = y[2]};
}

static void plan_fast(pd_node *node, conv_state *s)
{
    const int threads = pd_pool_threads(s->device->pool);
    node->scratch_fwd = pd_wino_fwd_scratch(&s->fast, threads);
    if (node->in[W]->constant) node->kept_bytes = pd_panel_taps_bytes(node->in[W]->shape.dim);
    if (node->backward && pd_wants_grad(node, X)) node->scratch_bwd = pd_wino_bwd_data_scratch(&s->fast, threads);
    if (node->backward && pd_wants_grad(node, W)) {
        const size_t bytes = pd_wino_bwd_weights_scratch(&s->fast, threads);
        node->scratch_bwd = bytes > node->scratch_bwd ? bytes : node->scratch_bwd;
    }
}

static pd_status conv_plan(pd_node *node, pd_device *device, pd_err *err)
{
    const pd_conv_args *a = node->args;
    conv_state *s = calloc(1, sizeof *s);
    if (!s) return PD_FAIL(err, PD_ENOMEM, "out of memory for a convolution");
    node->state = s;
    s->device = device;
    const pd_conv_shape shape = shape_of(node);
    s->direct = !pd_wino_add(&s->fast, &shape) || !pd_wino_pays(&s->fast);
    if (!s->direct) {
        plan_fast(node, s);
        return PD_OK;
    }
    const pd_direct_wants wants = {.bias = node->in[BIAS],
                                   .residual = node->in[RESIDUAL],
                                   .relu = a->relu,
                                   .constant = node->in[W]->constant,
                                   .backward = node->backward,
                                   .dx = node->backward && pd_wants_grad(node, X),
                                   .dw = node->backward && pd_wants_grad(node, W)};
    PD_TRY(pd_direct_plan(&s->by_library, device, &shape, wants, err));
    node->scratch_fwd = pd_direct_scratch_fwd(&s->by_library);
    if (wants.constant) node->kept_bytes = s->by_library.packed_fwd;
    node->scratch_bwd = pd_direct_scratch_bwd(&s->by_library);
    return PD_OK;
}

static pd_status conv_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const pd_conv_args *a = node->args;
    conv_state *s = node->state;
    const float *w = node->in[W]->data, *bias = node->in[BIAS] ? node->in[BIAS]->data : NULL;
    const float *residual = node->in[RESIDUAL] ? node->in[RESIDUAL]->data : NULL;
    float *y = node->out[0]->data;
    if (pd_shape_size(node->out[0]->shape) == 0) return PD_OK;
    if (s->direct) {
        if (residual && residual != y) memcpy(y, residual, pd_shape_size(node->out[0]->shape) * sizeof *y);
        return pd_direct_fwd(&s->by_library, node->in[X]->data, w, run->constants, bias, y, node->scratch, err);
    }
    const pd_wino_after after = {bias, residual, a->relu};
    if (!node->in[W]->constant) {
        pd_wino_fwd(s->device->pool, &s->fast, node->in[X]->data, &w, &y, &after, node->scratch);
        return PD_OK;
    }
    const int k = s->fast.conv[0].k, taps = s->fast.conv[0].kh * s->fast.conv[0].kw;
    PD_TRY(pd_panel_taps_share(&s->taps, s->device, 1, k, s->fast.c, taps, w, run->constants, err));
    pd_wino_fwd_taps(s->device->pool, &s->fast, node->in[X]->data, s->taps->thing, NULL, y, &after, node->scratch);
    return PD_OK;
}

typedef struct spans {
    float *to;
    const float *from;
} spans;

PD_CLONES static void mask_range(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const spans *s = arg;
    float *g = s->to;
    const float *y = s->from;
    PD_IVDEP
    for (size_t i = begin; i < end; i++) g[i] = y[i] > 0 ? g[i] : 0;
}

/* Column sums of a (rows, k) matrix; one block of columns per call, so that the order of summation is fixed. */
typedef struct columns {
    const float *g;
    float *out;
    size_t rows, k;
    bool add;
} columns;

#define COLUMN_BLOCK 16
PD_CLONES static void sum_columns(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const columns *s = arg;
    for (size_t b = begin; b < end; b++) {
        const size_t c0 = b * COLUMN_BLOCK, n = s->k - c0 < COLUMN_BLOCK ? s->k - c0 : COLUMN_BLOCK;
        double total[COLUMN_BLOCK] = {0};
        for (size_t r0 = 0; r0 < s->rows; r0 += 256) {
            float part[COLUMN_BLOCK] = {0};
            const size_t r1 = r0 + 256 < s->rows ? r0 + 256 : s->rows;
            if (n == COLUMN_BLOCK) {
                for (size_t r = r0; r < r1; r++)
                    for (size_t i = 0; i < COLUMN_BLOCK; i++) part[i] += s->g[r * s->k + c0 + i];
            } else {
                for (size_t r = r0; r < r1; r++)
                    for (size_t i = 0; i < n; i++) part[i] += s->g[r * s->k + c0 + i];
            }
            for (size_t i = 0; i < COLUMN_BLOCK; i++) total[i] += (double)part[i];
        }
        for (size_t i = 0; i < n; i++) s->out[c0 + i] = (float)total[i] + (s->add ? s->out[c0 + i] : 0.f);
    }
}

static pd_status kernel_gradients(pd_node *node, const pd_run *run, pd_err *err)
{
    conv_state *s = node->state;
    const float *x = node->in[X]->data, *w = node->in[W]->data, *dy = node->out[0]->grad;
    float *dw = node->in[W]->grad;
    const bool want_x = pd_wants_grad(node, X), want_w = pd_wants_grad(node, W);
    const bool add_x = want_x && pd_adds_grad(node, X, run), add_w = want_w && pd_adds_grad(node, W, run);
    if (s->direct) {
        if (want_x) PD_TRY(pd_direct_bwd_data(&s->by_library, w, dy, node->in[X]->grad, add_x, node->scratch, err));
        if (want_w) PD_TRY(pd_direct_bwd_weights(&s->by_library, x, dy, dw, add_w, node->scratch, err));
        return PD_OK;
    }
    if (want_x) pd_wino_bwd_data(s->device->pool, &s->fast, &w, &dy, node->in[X]->grad, add_x, node->scratch);
    if (want_w) pd_wino_bwd_weights(s->device->pool, &s->fast, x, &dy, &dw, &add_w, node->scratch);
    return PD_OK;
}

static pd_status conv_bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const pd_conv_args *a = node->args;
    pd_pool *pool = run->device->pool;
    const size_t count = pd_shape_size(node->out[0]->shape), k = (size_t)node->in[W]->shape.dim[0];
    float *dy = node->out[0]->grad;
    if (a->relu) pd_parallel(pool, count, mask_range, &(spans){dy, node->out[0]->data});
    if (node->in[BIAS] && pd_wants_grad(node, BIAS)) {
        columns c = {dy, node->in[BIAS]->grad, count / k, k, pd_adds_grad(node, BIAS, run)};
        pd_parallel(pool, (k + COLUMN_BLOCK - 1) / COLUMN_BLOCK, sum_columns, &c);
    }
    if (node->in[RESIDUAL] && pd_wants_grad(node, RESIDUAL)) {
        if (pd_adds_grad(node, RESIDUAL, run))
            pd_add_into(pool, node->in[RESIDUAL]->grad, dy, count);
        else
            memcpy(node->in[RESIDUAL]->grad, dy, count * sizeof *dy);
    }
    return kernel_gradients(node, run, err);
}

/* Multiply-accumulates; a bias counts once per output element, as the usual counters have it. */
static double conv_macs(const pd_node *node)
{
    const int *w = node->in[W]->shape.dim;
    const double taps = (double)w[1] * w[2] * w[3] + (node->in[BIAS] ? 1 : 0);
    return taps * (double)pd_shape_size(node->out[0]->shape) +
           (((const pd_conv_args *)node->args)->relu ? (double)pd_shape_size(node->out[0]->shape) : 0);
}

static const pd_kernel conv_cpu = {conv_plan, conv_fwd, conv_bwd, conv_release};

static const pd_op conv_op = {.name = "conv",
                              .bwd_reads_in = 1u << X | 1u << W,
                              .out_over_in = 1 + RESIDUAL,
                              .differentiable = true,
                              .padded_x = true,
                              .kernel = {[PD_CPU] = &conv_cpu},
                              .macs = conv_macs};
static const pd_op conv_relu_op = {.name = "conv_relu",
                                   .bwd_reads_in = 1u << X | 1u << W,
                                   .bwd_reads_out = 1u,
                                   .out_over_in = 1 + RESIDUAL,
                                   .differentiable = true,
                                   .padded_x = true,
                                   .kernel = {[PD_CPU] = &conv_cpu},
                                   .macs = conv_macs};

bool pd_conv_is_reference(const pd_node *node)
{
    if (node->op != &conv_op && node->op != &conv_relu_op) return false;
    const conv_state *s = node->state;
    return s && pd_direct_is_reference(&s->by_library);
}

bool pd_conv_output(pd_tape *t, const char *name, const pd_value *x, const pd_value *w, const pd_conv_args *args,
                    pd_shape *out)
{
    const int *xd = x->shape.dim, *wd = w->shape.dim;
    char xs[64], ws[64];
    if (args->groups < 1 || args->stride < 1 || x->shape.rank != 4 || w->shape.rank != 4 ||
        xd[3] != wd[3] * args->groups || wd[0] % args->groups != 0) {
        pd_tape_fail(t, PD_EINVAL, "%s: a kernel %s with %d groups and stride %d does not fit an input %s", name,
                     pd_shape_text(ws, w->shape), args->groups, args->stride, pd_shape_text(xs, x->shape));
        return false;
    }
    if (xd[1] + 2 * args->pad_h < wd[1] || xd[2] + 2 * args->pad_w < wd[2]) {
        pd_tape_fail(t, PD_EINVAL, "%s: an input %s is smaller than the kernel %s", name, pd_shape_text(xs, x->shape),
                     pd_shape_text(ws, w->shape));
        return false;
    }
    *out = PD_SHAPE(xd[0], pd_conv_out(xd[1], wd[1], args->stride, args->pad_h),
                    pd_conv_out(xd[2], wd[2], args->stride, args->pad_w), wd[0]);
    return true;
}

pd_value *pd_conv(pd_tape *t, const char *name, pd_value *x, pd_value *w, pd_value *bias, pd_value *residual,
                  pd_conv_args args)
{
    pd_shape out;
    if (pd_tape_status(t, NULL) != PD_OK || !pd_conv_output(t, name, x, w, &args, &out)) return pd_tape_dead(t);
    if (residual && memcmp(&residual->shape, &out, sizeof out) != 0) {
        char rs[64], os[64];
        pd_tape_fail(t, PD_EINVAL, "%s: residual %s, output %s", name, pd_shape_text(rs, residual->shape),
                     pd_shape_text(os, out));
        return pd_tape_dead(t);
    }
    return pd_tape_add1(t, args.relu ? &conv_relu_op : &conv_op, name, 4, (pd_value *[]){x, w, bias, residual}, out,
                        &args, sizeof args);
}
