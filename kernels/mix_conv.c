#include "kernels/mix_conv.h"
#include "kernels/conv_panel.h"
#include "kernels/mix_conv_node.h"
#include "kernels/onednn.h"
#include "kernels/simd.h"

#include <stdlib.h>
#include <string.h>

typedef struct mix_state {
    pd_device *device;
    pd_conv_shape shape; /* of one image */
    /* constant kernels: mixed panel by panel inside the convolution */
    bool by_panels, fast; /* fast: winograd.h */
    pd_shared *taps;      /* a pd_panel_taps; found in the first run */
    pd_wino_shape wino;
    /* kernels that change, or channels that do not fit: mixed whole, then the library's convolution */
    pd_prim fwd, bwd_data, bwd_weights, pack, pack_data, unpack;
    size_t packed, packed_data, packed_grad; /* bytes */
} mix_state;

static size_t align_up(size_t n)
{
    return (n + PD_ALIGN - 1) / PD_ALIGN * PD_ALIGN;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static void mix_release(pd_node *node)
{
    mix_state *s = node->state;
    if (!s) return;
    pd_prim *const all[] = {&s->fwd, &s->bwd_data, &s->bwd_weights, &s->pack, &s->pack_data, &s->unpack};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) pd_prim_free(all[i]);
    pd_unshare(s->taps);
    free(s);
    node->state = NULL;
}

/* How many kernels are mixed, outputs of each, elements of each. */
static size_t mix_count(const pd_node *node)
{
    return (size_t)node->in[GATE]->shape.dim[1];
}

static size_t outputs(const pd_node *node)
{
    return (size_t)node->out[0]->shape.dim[3];
}

static size_t kernel_count(const pd_node *node)
{
    return pd_shape_size(node->in[KERNELS]->shape) / mix_count(node);
}

static void plan_panels(pd_node *node, mix_state *s)
{
    const int threads = pd_pool_threads(s->device->pool);
    s->by_panels = true;
    node->kept_bytes = kernel_count(node) * 27 / 5; /* 5.4 bytes for all kernels where the fourth is a grouped one */
    s->fast = pd_wino_add(&s->wino, &s->shape) && pd_wino_pays(&s->wino);
    node->scratch_fwd = align_up(outputs(node) * sizeof(float)) +
                        (s->fast ? pd_wino_fwd_scratch(&s->wino, threads) : pd_panel_conv_scratch(&s->shape, threads));
}

static pd_status mix_plan(pd_node *node, pd_device *device, pd_err *err)
{
    const pd_conv_args *a = node->args;
    const int *x = node->in[X]->shape.dim, *w = node->in[KERNELS]->shape.dim, *y = node->out[0]->shape.dim;
    mix_state *s = calloc(1, sizeof *s);
    if (!s) return PD_FAIL(err, PD_ENOMEM, "out of memory for a convolution");
    node->state = s;
    s->device = device;
    s->shape = (pd_conv_shape){.n = 1,
                               .h = x[1],
                               .w = x[2],
                               .c = x[3],
                               .k = y[3],
                               .kh = w[1],
                               .kw = w[2],
                               .stride = a->stride,
                               .pad_h = a->pad_h,
                               .pad_w = a->pad_w,
                               .groups = 1,
                               .oh = y[1],
                               .ow = y[2]};
    if (node->in[KERNELS]->constant && !node->backward && pd_panel_conv_fits(&s->shape)) {
        plan_panels(node, s);
        return PD_OK;
    }
    PD_TRY(
        pd_prim_conv_fwd(&s->fwd, device, &s->shape, true, node->in[RESIDUAL] != NULL, a->relu, node->backward, err));
    PD_TRY(pd_prim_reorder_weights(&s->pack, &s->packed, device, &s->shape, &s->fwd, true, err));
    const size_t plain = align_up(kernel_count(node) * sizeof(float)), bias = align_up(outputs(node) * sizeof(float));
    /* a mixed bias, the mixed kernel packed and plain */
    node->scratch_fwd =
        bias + align_up(s->packed) + plain + larger(align_up(s->pack.scratch_bytes), align_up(s->fwd.scratch_bytes));
    if (!node->backward) return PD_OK;
    const size_t image = align_up(pd_shape_size(node->in[X]->shape) / (size_t)(x[0] ? x[0] : 1) * sizeof(float));
    PD_TRY(pd_prim_conv_bwd_data(&s->bwd_data, device, &s->shape, err));
    PD_TRY(pd_prim_reorder_weights(&s->pack_data, &s->packed_data, device, &s->shape, &s->bwd_data, true, err));
    PD_TRY(pd_prim_conv_bwd_weights(&s->bwd_weights, device, &s->shape, err));
    PD_TRY(pd_prim_reorder_weights(&s->unpack, &s->packed_grad, device, &s->shape, &s->bwd_weights, false, err));
    const size_t library = larger(larger(align_up(s->pack_data.scratch_bytes), align_up(s->bwd_data.scratch_bytes)),
                                  larger(align_up(s->unpack.scratch_bytes), align_up(s->bwd_weights.scratch_bytes)));
    node->scratch_bwd = bias + plain + image + larger(align_up(s->packed_data), align_up(s->packed_grad)) + library;
    return PD_OK;
}

/* ---- forward ---- */

typedef struct mixing {
    const float *kernels;
    size_t count;
    int mix;
    const float *a;
    float *to;
} mixing;

PD_CLONES static void mix_plain(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const mixing *m = arg;
    float *restrict to = m->to;
    for (size_t i = begin; i < end; i++) to[i] = m->a[0] * m->kernels[i];
    for (int k = 1; k < m->mix; k++) {
        const float *restrict w = m->kernels + (size_t)k * m->count;
        for (size_t i = begin; i < end; i++) to[i] += m->a[k] * w[i];
    }
}

static void mix_bias(const pd_node *node, const float *a, float *to)
{
    const size_t k = outputs(node);
    const float *c = node->in[BIAS]->data;
    memset(to, 0, k * sizeof *to);
    for (size_t i = 0; i < mix_count(node); i++)
        for (size_t j = 0; j < k; j++) to[j] += a[i] * c[i * k + j];
}

/* One image; y holds the residual, if there is one. */
static pd_status library_fwd(const pd_node *node, mix_state *s, const float *x, const float *mix, float *bias, float *y,
                             char *scratch, pd_err *err)
{
    const size_t count = kernel_count(node);
    float *packed = (float *)(void *)scratch;
    scratch += align_up(s->packed);
    float *plain = (float *)(void *)scratch;
    scratch += align_up(count * sizeof *plain);
    mixing m = {node->in[KERNELS]->data, count, (int)mix_count(node), mix, plain};
    pd_parallel(s->device->pool, count, mix_plain, &m);
    PD_TRY(pd_prim_run(&s->pack, s->device, (void *[]){plain, packed}, scratch, err));
    return pd_prim_run(&s->fwd, s->device, (void *[]){(void *)(uintptr_t)x, packed, y, bias}, scratch, err);
}

static pd_status mix_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    mix_state *s = node->state;
    const size_t n = (size_t)node->in[X]->shape.dim[0], g = mix_count(node);
    const size_t in = n ? pd_shape_size(node->in[X]->shape) / n : 0,
                 out = n ? pd_shape_size(node->out[0]->shape) / n : 0;
    const float *residual = node->in[RESIDUAL] ? node->in[RESIDUAL]->data : NULL;
    float *bias = node->scratch, *y = node->out[0]->data;
    char *scratch = (char *)node->scratch + align_up(outputs(node) * sizeof *bias);
    if (s->by_panels)
        PD_TRY(pd_panel_taps_share(&s->taps, s->device, (int)g, s->shape.k, s->shape.c, s->shape.kh * s->shape.kw,
                                   node->in[KERNELS]->data, run->constants, err));
    if (!s->by_panels && residual && residual != y) memcpy(y, residual, n * out * sizeof *y);
    for (size_t i = 0; i < n; i++) {
        const float *x = (const float *)node->in[X]->data + i * in, *mix = (const float *)node->in[GATE]->data + i * g;
        const pd_wino_after after = {bias, residual ? residual + i * out : NULL,
                                     ((const pd_conv_args *)node->args)->relu};
        mix_bias(node, mix, bias);
        if (!s->by_panels)
            PD_TRY(library_fwd(node, s, x, mix, bias, y + i * out, scratch, err));
        else if (s->fast)
            pd_wino_fwd_taps(s->device->pool, &s->wino, x, s->taps->thing, mix, y + i * out, &after, scratch);
        else
            pd_panel_conv(s->device->pool, &s->shape, x, s->taps->thing, mix, y + i * out, &after, scratch);
    }
    return PD_OK;
}

/* ---- backward (kernels that change) ---- */

static void add_scaled(float *to, const float *from, float a, size_t n)
{
    for (size_t i = 0; i < n; i++) to[i] += a * from[i];
}

static float dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i += 1024) {
        float part = 0;
        const size_t end = i + 1024 < n ? i + 1024 : n;
        for (size_t k = i; k < end; k++) part += a[k] * b[k];
        sum += (double)part;
    }
    return (float)sum;
}

/* Image i: gradients of kernels, biases and gate from the gradient of its mixed kernel and bias. */
static void unmix(pd_node *node, size_t i, const float *dw, const float *db)
{
    const size_t g = mix_count(node), count = kernel_count(node);
    const size_t k = outputs(node);
    const float *a = (const float *)node->in[GATE]->data + i * g;
    for (size_t j = 0; j < g; j++) {
        if (pd_wants_grad(node, KERNELS)) add_scaled(node->in[KERNELS]->grad + j * count, dw, a[j], count);
        if (pd_wants_grad(node, BIAS)) add_scaled(node->in[BIAS]->grad + j * k, db, a[j], k);
        if (pd_wants_grad(node, GATE))
            node->in[GATE]->grad[i * g + j] += dot(dw, (const float *)node->in[KERNELS]->data + j * count, count) +
                                               dot(db, (const float *)node->in[BIAS]->data + j * k, k);
    }
}

static void start_grad(const pd_node *node, int i, const pd_run *run)
{
    if (pd_wants_grad(node, i) && !pd_adds_grad(node, i, run))
        memset(node->in[i]->grad, 0, pd_shape_size(node->in[i]->shape) * sizeof(float));
}

static pd_status mix_bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    mix_state *s = node->state;
    const pd_conv_args *args = node->args;
    const size_t n = (size_t)node->in[X]->shape.dim[0], g = mix_count(node);
    const size_t k = (size_t)s->shape.k, count = kernel_count(node);
    const size_t in = n ? pd_shape_size(node->in[X]->shape) / n : 0,
                 out = n ? pd_shape_size(node->out[0]->shape) / n : 0;
    char *scratch = node->scratch;
    float *db = (float *)(void *)scratch;
    scratch += align_up(k * sizeof *db);
    float *plain = (float *)(void *)scratch;
    scratch += align_up(count * sizeof *plain);
    float *dx_image = (float *)(void *)scratch;
    scratch += align_up(in * sizeof *dx_image);
    float *packed = (float *)(void *)scratch;
    char *library = scratch + larger(align_up(s->packed_data), align_up(s->packed_grad));
    float *dy = node->out[0]->grad;
    const float *y = node->out[0]->data;
    for (size_t i = 0; args->relu && i < n * out; i++) dy[i] = y[i] > 0 ? dy[i] : 0;
    if (node->in[RESIDUAL] && pd_wants_grad(node, RESIDUAL)) {
        start_grad(node, RESIDUAL, run);
        add_scaled(node->in[RESIDUAL]->grad, dy, 1, n * out);
    }
    start_grad(node, KERNELS, run);
    start_grad(node, BIAS, run);
    start_grad(node, GATE, run);
    for (size_t i = 0; i < n; i++) {
        float *dyi = dy + i * out;
        if (pd_wants_grad(node, X)) {
            mixing m = {.kernels = node->in[KERNELS]->data,
                        .count = count,
                        .mix = (int)g,
                        .a = (const float *)node->in[GATE]->data + i * g,
                        .to = plain};
            pd_parallel(run->device->pool, count, mix_plain, &m);
            PD_TRY(pd_prim_run(&s->pack_data, s->device, (void *[]){plain, packed}, library, err));
            float *to = node->in[X]->grad + i * in;
            const bool add = pd_adds_grad(node, X, run);
            PD_TRY(pd_prim_run(&s->bwd_data, s->device, (void *[]){add ? dx_image : to, packed, dyi}, library, err));
            if (add) add_scaled(to, dx_image, 1, in);
        }
        PD_TRY(pd_prim_run(&s->bwd_weights, s->device, (void *[]){(float *)node->in[X]->data + i * in, packed, dyi},
                           library, err));
        PD_TRY(pd_prim_run(&s->unpack, s->device, (void *[]){packed, plain}, library, err));
        memset(db, 0, k * sizeof *db);
        for (size_t r = 0; r < out; r += k) add_scaled(db, dyi + r, 1, k);
        unmix(node, i, plain, db);
    }
    return PD_OK;
}

static double mix_macs(const pd_node *node)
{
    const int *w = node->in[KERNELS]->shape.dim;
    const double out = (double)pd_shape_size(node->out[0]->shape);
    return out * ((double)w[1] * w[2] * w[3] + 1) + (((const pd_conv_args *)node->args)->relu ? out : 0);
}

static const pd_kernel mix_cpu = {mix_plan, mix_fwd, mix_bwd, mix_release};
static const pd_op mix_op = {.name = "mix_conv",
                             .bwd_reads_in = 1u << X | 1u << GATE | 1u << KERNELS | 1u << BIAS,
                             .bwd_reads_out = 1u,
                             .out_over_in = 1 + RESIDUAL,
                             .differentiable = true,
                             .kernel = {[PD_CPU] = &mix_cpu},
                             .macs = mix_macs};

bool pd_mix_conv_is_reference(const pd_node *node)
{
    const mix_state *s = node->op == &mix_op ? node->state : NULL;
    return s && (s->fwd.reference || s->bwd_data.reference || s->bwd_weights.reference);
}

pd_value *pd_mix_conv(pd_tape *t, const char *name, pd_value *x, pd_value *gate, pd_value *kernels, pd_value *bias,
                      pd_value *residual, pd_conv_args args)
{
    if (pd_tape_status(t, NULL) != PD_OK) return pd_tape_dead(t);
    const int *xd = x->shape.dim, *wd = kernels->shape.dim;
    char xs[64], ws[64];
    const int g = gate->shape.rank == 2 ? gate->shape.dim[1] : 0;
    if (x->shape.rank != 4 || kernels->shape.rank != 4 || g < 1 || g > PD_MIX_MAX || args.groups != 1 ||
        xd[3] != wd[3] || gate->shape.dim[0] != xd[0] || wd[0] % g || pd_shape_size(bias->shape) != (size_t)wd[0] ||
        xd[1] + 2 * args.pad_h < wd[1] || xd[2] + 2 * args.pad_w < wd[2]) {
        pd_tape_fail(t, PD_EINVAL, "%s: kernels %s to mix do not fit an input %s", name,
                     pd_shape_text(ws, kernels->shape), pd_shape_text(xs, x->shape));
        return pd_tape_dead(t);
    }
    const pd_shape out = PD_SHAPE(xd[0], pd_conv_out(xd[1], wd[1], args.stride, args.pad_h),
                                  pd_conv_out(xd[2], wd[2], args.stride, args.pad_w), wd[0] / g);
    if (residual && memcmp(&residual->shape, &out, sizeof out) != 0) {
        pd_tape_fail(t, PD_EINVAL, "%s: residual %s, output %s", name, pd_shape_text(xs, residual->shape),
                     pd_shape_text(ws, out));
        return pd_tape_dead(t);
    }
    return pd_tape_add1(t, &mix_op, name, 5, (pd_value *[]){x, gate, kernels, bias, residual}, out, &args, sizeof args);
}
