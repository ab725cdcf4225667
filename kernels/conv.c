#include "kernels/conv.h"
#include "kernels/onednn.h"
#include "kernels/simd.h"

#include <stdlib.h>
#include <string.h>

enum { X, W, BIAS, RESIDUAL };

/* What one planned convolution keeps. */
typedef struct conv_state {
    pd_device *device;
    pd_conv_shape shape;
    pd_prim fwd, bwd_data, bwd_weights;
    pd_prim pack_fwd, pack_data, unpack; /* weights into a primitive's layout, and its gradient back */
    size_t packed_fwd, packed_data, packed_grad;
    float *packed; /* constant weights, packed once; else NULL and packed into scratch */
} conv_state;

static size_t align_up(size_t n)
{
    return (n + PD_ALIGN - 1) / PD_ALIGN * PD_ALIGN;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static void conv_release(pd_node *node)
{
    conv_state *s = node->state;
    if (!s) return;
    pd_prim *const all[] = {&s->fwd, &s->bwd_data, &s->bwd_weights, &s->pack_fwd, &s->pack_data, &s->unpack};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) pd_prim_free(all[i]);
    if (s->packed) s->device->release(s->device, s->packed);
    free(s);
    node->state = NULL;
}

static pd_conv_shape shape_of(const pd_node *node)
{
    const pd_conv_args *a = node->args;
    const int *x = node->in[X]->shape.dim, *w = node->in[W]->shape.dim, *y = node->out[0]->shape.dim;
    return (pd_conv_shape){.n = x[0], .h = x[1], .w = x[2], .c = x[3], .k = w[0], .kh = w[1], .kw = w[2],
                           .stride = a->stride, .pad_h = a->pad_h, .pad_w = a->pad_w, .groups = a->groups,
                           .oh = y[1], .ow = y[2]};
}

static pd_status conv_plan(pd_node *node, pd_device *device, pd_err *err)
{
    const pd_conv_args *a = node->args;
    conv_state *s = calloc(1, sizeof *s);
    if (!s) return PD_FAIL(err, PD_ENOMEM, "out of memory for a convolution");
    node->state = s;
    s->device = device;
    s->shape = shape_of(node);
    PD_TRY(pd_prim_conv_fwd(&s->fwd, device, &s->shape, node->in[BIAS] != NULL, node->in[RESIDUAL] != NULL, a->relu,
                            node->backward, err));
    PD_TRY(pd_prim_reorder_weights(&s->pack_fwd, &s->packed_fwd, device, &s->shape, &s->fwd, true, err));
    const size_t pack_pad = align_up(s->pack_fwd.scratch_bytes);
    if (node->in[W]->constant) PD_TRY(device->alloc(device, (void **)&s->packed, s->packed_fwd, err));
    node->scratch_fwd = align_up(s->packed ? 0 : s->packed_fwd) + larger(pack_pad, align_up(s->fwd.scratch_bytes));
    if (!node->backward) return PD_OK;

    const size_t x_bytes = pd_shape_size(node->in[X]->shape) * sizeof(float);
    const size_t w_bytes = pd_shape_size(node->in[W]->shape) * sizeof(float);
    if (pd_wants_grad(node, X)) {
        PD_TRY(pd_prim_conv_bwd_data(&s->bwd_data, device, &s->shape, err));
        PD_TRY(pd_prim_reorder_weights(&s->pack_data, &s->packed_data, device, &s->shape, &s->bwd_data, true, err));
        const size_t adds = node->grad_mode[X] == PD_GRAD_ADD || node->in[X]->param ? align_up(x_bytes) : 0;
        node->scratch_bwd = adds + align_up(s->packed_data) +
                            larger(align_up(s->pack_data.scratch_bytes), align_up(s->bwd_data.scratch_bytes));
    }
    if (pd_wants_grad(node, W)) {
        PD_TRY(pd_prim_conv_bwd_weights(&s->bwd_weights, device, &s->shape, err));
        PD_TRY(pd_prim_reorder_weights(&s->unpack, &s->packed_grad, device, &s->shape, &s->bwd_weights, false, err));
        const size_t need = align_up(w_bytes) + align_up(s->packed_grad) +
                            larger(align_up(s->unpack.scratch_bytes), align_up(s->bwd_weights.scratch_bytes));
        node->scratch_bwd = larger(node->scratch_bwd, need);
    }
    return PD_OK;
}

static pd_status conv_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    conv_state *s = node->state;
    char *scratch = node->scratch;
    float *weights = s->packed;
    if (pd_shape_size(node->out[0]->shape) == 0) return PD_OK;
    if (!weights) {
        weights = (float *)(void *)scratch;
        scratch += align_up(s->packed_fwd);
    }
    if (!s->packed || run->constants)
        PD_TRY(pd_prim_run(&s->pack_fwd, s->device, (void *[]){node->in[W]->data, weights}, scratch, err));
    float *y = node->out[0]->data;
    if (node->in[RESIDUAL] && node->in[RESIDUAL]->data != y)
        memcpy(y, node->in[RESIDUAL]->data, pd_shape_size(node->out[0]->shape) * sizeof *y);
    return pd_prim_run(&s->fwd, s->device,
                       (void *[]){node->in[X]->data, weights, y, node->in[BIAS] ? node->in[BIAS]->data : NULL}, scratch,
                       err);
}

typedef struct spans {
    float *to;
    const float *from;
} spans;

PD_CLONES static void add_range(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const spans *s = arg;
    float *to = s->to;
    const float *from = s->from;
    for (size_t i = begin; i < end; i++) to[i] += from[i];
}

PD_CLONES static void mask_range(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const spans *s = arg;
    float *g = s->to;
    const float *y = s->from;
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

static pd_status bwd_data(pd_node *node, const pd_run *run, pd_err *err)
{
    conv_state *s = node->state;
    char *scratch = node->scratch;
    const size_t count = pd_shape_size(node->in[X]->shape);
    const bool add = pd_adds_grad(node, X, run);
    float *dx = node->in[X]->grad;
    if (add) {
        dx = (float *)(void *)scratch;
        scratch += align_up(count * sizeof *dx);
    }
    float *weights = (float *)(void *)scratch;
    scratch += align_up(s->packed_data);
    PD_TRY(pd_prim_run(&s->pack_data, s->device, (void *[]){node->in[W]->data, weights}, scratch, err));
    PD_TRY(pd_prim_run(&s->bwd_data, s->device, (void *[]){dx, weights, node->out[0]->grad}, scratch, err));
    if (add) pd_parallel(s->device->pool, count, add_range, &(spans){node->in[X]->grad, dx});
    return PD_OK;
}

static pd_status bwd_weights(pd_node *node, const pd_run *run, pd_err *err)
{
    conv_state *s = node->state;
    char *scratch = node->scratch;
    const size_t count = pd_shape_size(node->in[W]->shape);
    const bool add = pd_adds_grad(node, W, run);
    float *dw = node->in[W]->grad;
    if (add) {
        dw = (float *)(void *)scratch;
        scratch += align_up(count * sizeof *dw);
    }
    float *packed = (float *)(void *)scratch;
    scratch += align_up(s->packed_grad);
    PD_TRY(pd_prim_run(&s->bwd_weights, s->device, (void *[]){node->in[X]->data, packed, node->out[0]->grad}, scratch,
                       err));
    PD_TRY(pd_prim_run(&s->unpack, s->device, (void *[]){packed, dw}, scratch, err));
    if (add) pd_parallel(s->device->pool, count, add_range, &(spans){node->in[W]->grad, dw});
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
            pd_parallel(pool, count, add_range, &(spans){node->in[RESIDUAL]->grad, dy});
        else
            memcpy(node->in[RESIDUAL]->grad, dy, count * sizeof *dy);
    }
    if (pd_wants_grad(node, X)) PD_TRY(bwd_data(node, run, err));
    if (pd_wants_grad(node, W)) PD_TRY(bwd_weights(node, run, err));
    return PD_OK;
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

static const pd_op conv_op = {.name = "conv", .bwd_reads_in = 1u << X | 1u << W, .out_over_in = 1 + RESIDUAL,
                              .differentiable = true, .kernel = {[PD_CPU] = &conv_cpu}, .macs = conv_macs};
static const pd_op conv_relu_op = {.name = "conv_relu", .bwd_reads_in = 1u << X | 1u << W, .bwd_reads_out = 1u,
                                   .out_over_in = 1 + RESIDUAL, .differentiable = true,
                                   .kernel = {[PD_CPU] = &conv_cpu}, .macs = conv_macs};

bool pd_conv_is_reference(const pd_node *node)
{
    if (node->op != &conv_op && node->op != &conv_relu_op) return false;
    const conv_state *s = node->state;
    return s && (s->fwd.reference || s->bwd_data.reference || s->bwd_weights.reference);
}

pd_value *pd_conv(pd_tape *t, const char *name, pd_value *x, pd_value *w, pd_value *bias, pd_value *residual,
                  pd_conv_args args)
{
    if (pd_tape_status(t, NULL) != PD_OK) return pd_tape_dead(t);
    const int *xd = x->shape.dim, *wd = w->shape.dim;
    char xs[64], ws[64];
    if (args.groups < 1 || args.stride < 1 || x->shape.rank != 4 || w->shape.rank != 4 || xd[3] != wd[3] * args.groups ||
        wd[0] % args.groups != 0) {
        pd_tape_fail(t, PD_EINVAL, "%s: a kernel %s with %d groups and stride %d does not fit an input %s", name,
                     pd_shape_text(ws, w->shape), args.groups, args.stride, pd_shape_text(xs, x->shape));
        return pd_tape_dead(t);
    }
    const int oh = pd_conv_out(xd[1], wd[1], args.stride, args.pad_h);
    const int ow = pd_conv_out(xd[2], wd[2], args.stride, args.pad_w);
    if (xd[1] + 2 * args.pad_h < wd[1] || xd[2] + 2 * args.pad_w < wd[2]) {
        pd_tape_fail(t, PD_EINVAL, "%s: an input %s is smaller than the kernel %s", name, pd_shape_text(xs, x->shape),
                     pd_shape_text(ws, w->shape));
        return pd_tape_dead(t);
    }
    const pd_shape out = PD_SHAPE(xd[0], oh, ow, wd[0]);
    if (residual && memcmp(&residual->shape, &out, sizeof out) != 0) {
        pd_tape_fail(t, PD_EINVAL, "%s: residual %s, output %s", name, pd_shape_text(xs, residual->shape),
                     pd_shape_text(ws, out));
        return pd_tape_dead(t);
    }
    return pd_tape_add1(t, args.relu ? &conv_relu_op : &conv_op, name, 4, (pd_value *[]){x, w, bias, residual}, out,
                        &args, sizeof args);
}
