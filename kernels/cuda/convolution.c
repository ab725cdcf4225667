#include "kernels/cuda/convolution.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/grouped.h"
#include "kernels/cuda/maps.h"

#include <limits.h>
#include <string.h>

static int round_up(int n, int to)
{
    return (n + to - 1) / to * to;
}

static size_t pixels_in(const pd_convolution *c)
{
    return (size_t)c->shape.n * (size_t)c->shape.h * (size_t)c->shape.w;
}

static size_t pixels_out(const pd_convolution *c)
{
    return (size_t)c->shape.n * (size_t)c->shape.oh * (size_t)c->shape.ow;
}

/* ---- planning ---- */

static double output_ms(const pd_convolution *c)
{
    return pd_pass_ms(pixels_out(c) * (size_t)c->shape.k, c->store);
}

bool pd_convolution_feeds_norm(const pd_node *node)
{
    for (const pd_node *n = node->next; n; n = n->next)
        for (int i = 0; i < n->n_in; i++)
            if (n->in[i] && n->in[i]->node == node && n->op->stateful && strncmp(n->op->name, "bn_sum", 6) == 0)
                return true;
    return false;
}

/* A 1x1 convolution: pixels by channels. Its weights' gradient is float32 and may be added to. */
static pd_gemm product_of(const pd_convolution *c, pd_gconv_kind kind)
{
    const int in = c->padded.c, out = c->padded.k, pixels = (int)pixels_out(c);
    pd_gemm g = {.m = pixels, .n = out, .k = in, .in = c->store, .out = c->store};
    g.tf32 = c->device->device.precision != PD_FP32;
    if (kind == PD_GCONV_FWD) {
        g.tb = true;
    } else if (kind == PD_GCONV_DATA) {
        g.n = in;
        g.k = out;
    } else {
        g.ta = true;
        g.m = out;
        g.n = in;
        g.k = pixels;
        g.out = PD_STORE_32;
    }
    g.lda = kind == PD_GCONV_FWD ? in : out;
    g.ldb = in;
    g.ldc = g.n;
    return g;
}

static bool padded(const pd_convolution *c)
{
    return c->padded.c != c->shape.c || c->padded.k != c->shape.k;
}

static double input_ms(const pd_convolution *c)
{
    return pd_pass_ms(pixels_in(c) * (size_t)c->shape.c, c->store);
}

/* Takes the product where that is faster than the library's convolution, which takes `ms` with the passes behind it;
 * `extra`: those behind a product. */
static void plan_product(pd_convolution *c, pd_gconv_kind kind, double ms, double extra)
{
    const pd_conv_shape *s = &c->padded;
    const int way = c->device->device.way;
    c->ms[kind] = ms;
    if (s->kh != 1 || s->kw != 1 || s->stride != 1 || s->pad_h || s->pad_w || c->shape.groups != 1 || padded(c) ||
        c->parts > 1 || pixels_out(c) > INT_MAX || c->device->offline)
        return;
    const pd_gemm g = product_of(c, kind);
    if (pd_gemm_plan(&ms, c->device, &g, NULL) != PD_OK) return; /* the convolution does it */
    ms += extra;
    c->product[kind] = way ? way > 1 : ms < c->ms[kind];
    if (c->product[kind]) c->ms[kind] = ms;
}

/* Forward with sums, if the library has that and it is worth it. */
static pd_status plan_sums(pd_convolution *c, const pd_gconv_desc *plain, pd_err *err)
{
    pd_gconv_desc d = *plain;
    const pd_gconv *with = NULL;
    d.sums = true;
    PD_TRY(pd_gconv_plan(&with, c->device, &d, err));
    if (!with || pd_gconv_ms(with) > pd_gconv_ms(c->fwd) + output_ms(c)) return PD_OK;
    c->fwd = with;
    c->sums = true;
    return PD_OK;
}

static pd_status library_plans(pd_convolution *c, pd_convolution_wants wants, pd_err *err)
{
    pd_gconv_desc d = {
        .kind = PD_GCONV_FWD, .shape = c->padded, .store = c->store, .tf32 = c->device->device.precision != PD_FP32};
    /* the fused epilogue takes the bias in the maps' type: in 32 bits that is no gain over a pass of its own */
    if ((wants.bias || wants.residual || wants.relu) && c->store != PD_STORE_32 && !c->pack_y) {
        pd_gconv_desc f = d;
        f.bias = wants.bias;
        f.residual = wants.residual;
        f.relu = wants.relu;
        PD_TRY(pd_gconv_plan(&c->fused, c->device, &f, err));
    }
    if (!c->fused) PD_TRY(pd_gconv_plan(&c->fwd, c->device, &d, err));
    const bool bare = !wants.bias && !wants.residual && !wants.relu; /* the sums are of what the library writes */
    if (wants.sums && bare && c->store != PD_STORE_32 && !c->pack_y) PD_TRY(plan_sums(c, &d, err));
    c->ms[PD_GCONV_FWD] = pd_gconv_ms(c->fused);
    /* a product comes without sums */
    if (c->fwd) plan_product(c, PD_GCONV_FWD, pd_gconv_ms(c->fwd), c->sums ? output_ms(c) : 0);
    if (c->product[PD_GCONV_FWD]) c->sums = false;
    d.kind = PD_GCONV_DATA;
    if (wants.dx) PD_TRY(pd_gconv_plan(&c->data, c->device, &d, err));
    /* a product adds by itself; the convolution's result is read, and what it is added to read and written */
    const double add = wants.add_dx ? input_ms(c) : 0;
    if (wants.dx) plan_product(c, d.kind, pd_gconv_ms(c->data) + 3 * add, add);
    d.kind = PD_GCONV_WEIGHTS;
    if (wants.dw) PD_TRY(pd_gconv_plan(&c->weights, c->device, &d, err));
    if (wants.dw) plan_product(c, d.kind, pd_gconv_ms(c->weights), 0);
    return PD_OK;
}

static void sizes(pd_convolution *c, pd_convolution_wants wants)
{
    const pd_conv_shape *p = &c->padded;
    const size_t e = pd_store_bytes(c->store);
    const size_t w = pd_align_up((size_t)p->k * (size_t)p->kh * (size_t)p->kw * (size_t)(p->c / p->groups) * e);
    const size_t x = pd_align_up(pixels_in(c) * (size_t)p->c * e), y = pd_align_up(pixels_out(c) * (size_t)p->k * e);
    c->w_bytes = c->pack_w ? w : 0;
    c->sums_bytes = c->sums ? pd_align_up(2 * (size_t)p->k * sizeof(float)) : 0;
    c->x_bytes = c->pack_x ? x : 0;
    c->bias_bytes = c->fused && wants.bias ? pd_align_up((size_t)p->k * e) : 0;
    c->y_bytes = c->pack_y ? y : 0;
    c->dy_bytes = c->pack_y && (wants.dx || wants.dw) ? y : 0;
    c->dx_bytes = wants.dx ? x : 0; /* where it is added, or padded */
    c->dw_bytes = wants.dw ? w : 0;
}

/* All three at once. Estimated where nothing is timed: each reads or writes both maps. */
static pd_status time_own(pd_convolution *c, pd_err *err)
{
    PD_TRY(pd_grouped_time(&c->ms[PD_GCONV_FWD], c->device, &c->shape, c->store, err));
    if (c->ms[PD_GCONV_FWD] <= 0) c->ms[PD_GCONV_FWD] = 3 * (input_ms(c) + output_ms(c));
    return PD_OK;
}

static void place_parts(pd_convolution *c, const pd_conv_shape *part, bool joined)
{
    const pd_conv_shape *p = &c->padded;
    for (int i = 0; i < c->parts; i++)
        c->part[i] = (pd_embedding){.k = part[i].k,
                                    .r = part[i].kh,
                                    .s = part[i].kw,
                                    .cg = part[i].c / part[i].groups,
                                    .groups = part[i].groups,
                                    .rows = part[i].k,
                                    .rr = p->kh,
                                    .ss = p->kw,
                                    .cc = p->c / p->groups,
                                    .dense = joined || (p->groups == 1 && part[i].groups > 1),
                                    .store = c->store};
    c->part[c->parts - 1].rows += p->k - c->shape.k; /* the padding is 0 */
}

pd_status pd_convolution_plan(pd_convolution *out, pd_cuda *device, const pd_conv_shape *shape, int parts,
                              const pd_conv_shape *part, pd_store store, pd_store x_store, pd_convolution_wants wants,
                              pd_err *err)
{
    pd_convolution c = {.device = device,
                        .shape = *shape,
                        .store = store,
                        .x_store = x_store,
                        .x_pitch = wants.x_pitch ? wants.x_pitch : shape->c,
                        .bias = wants.bias,
                        .residual = wants.residual,
                        .relu = wants.relu,
                        .constant = wants.constant,
                        .parts = parts};
    const int unit = store == PD_STORE_32 ? 4 : 8;
    c.padded = *shape;
    if (parts == 1 && !wants.joined && pd_grouped_fits(shape) && x_store == store && c.x_pitch == shape->c) {
        c.own = true;
        c.sum_bytes = wants.dw ? pd_align_up(pd_grouped_floats(shape) * sizeof(float)) : 0;
        PD_TRY(time_own(&c, err));
        *out = c;
        return PD_OK;
    }
    if (shape->groups > 1 && (shape->c / shape->groups % unit || shape->k / shape->groups % unit))
        c.padded.groups = 1; /* neither ours nor the library's: as a dense convolution */
    if (c.padded.groups == 1) {
        c.padded.c = round_up(shape->c, unit);
        c.padded.k = round_up(shape->k, unit);
    }
    c.pack_x = x_store != store || c.padded.c != c.x_pitch;
    c.pack_y = c.padded.k != shape->k;
    c.pack_w = store != PD_STORE_32 || c.pack_y || c.padded.c != shape->c || parts > 1 ||
               c.padded.groups != shape->groups || wants.joined;
    place_parts(&c, part, wants.joined);
    PD_TRY(library_plans(&c, wants, err));
    sizes(&c, wants);
    *out = c;
    return PD_OK;
}

void pd_convolution_free(pd_convolution *c)
{
    if (c->constant_w) c->device->device.release(&c->device->device, c->constant_w);
    c->constant_w = NULL;
}

double pd_convolution_ms(const pd_convolution *c)
{
    return c->ms[PD_GCONV_FWD] + c->ms[PD_GCONV_DATA] + c->ms[PD_GCONV_WEIGHTS];
}

size_t pd_convolution_kept(const pd_convolution *c)
{
    return (c->constant ? 0 : c->w_bytes) + c->x_bytes + c->sums_bytes;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

size_t pd_convolution_scratch_fwd(const pd_convolution *c)
{
    return c->bias_bytes + c->y_bytes + pd_gconv_workspace(c->fused ? c->fused : c->fwd);
}

size_t pd_convolution_scratch_bwd(const pd_convolution *c)
{
    return c->dy_bytes + larger(c->dx_bytes, c->dw_bytes) + c->sum_bytes +
           larger(pd_gconv_workspace(c->data), pd_gconv_workspace(c->weights));
}

/* ---- forward ---- */

static pd_status pack_weights(const pd_convolution *c, const float *const *w, void *to, pd_err *err)
{
    char *at = to;
    for (int i = 0; i < c->parts; i++) {
        const pd_embedding *e = &c->part[i];
        PD_CUDA_TRY(pd_embed(e, w[i], at, c->device->stream), err);
        at += (size_t)e->rows * (size_t)e->rr * (size_t)e->ss * (size_t)e->cc * pd_store_bytes(c->store);
    }
    return PD_OK;
}

/* The kernel as the library wants it: packed now, kept since the last run, or the parameter itself. */
static pd_status library_weights(pd_convolution *c, const float *const *w, bool changed, void *kept, void **out,
                                 pd_err *err)
{
    pd_device *d = &c->device->device;
    *out = (void *)(uintptr_t)w[0];
    if (!c->pack_w) return PD_OK;
    *out = c->constant ? c->constant_w : kept;
    if (c->constant && !changed && *out) return PD_OK;
    if (c->constant && !*out) {
        PD_TRY(d->alloc(d, &c->constant_w, c->w_bytes, err));
        *out = c->constant_w;
    }
    return pack_weights(c, w, *out, err);
}

static void *kept_x(const pd_convolution *c, const void *kept)
{
    return (char *)(uintptr_t)kept + (c->constant ? 0 : c->w_bytes);
}

/* Sums of the output's channels, then of their squares. */
static float *kept_sums(const pd_convolution *c, const void *kept)
{
    return (float *)(void *)((char *)kept_x(c, kept) + c->x_bytes);
}

static void *kept_w(const pd_convolution *c, const float *const *w, void *kept)
{
    return !c->pack_w ? (void *)(uintptr_t)w[0] : c->constant ? c->constant_w : kept;
}

pd_status pd_convolution_fwd(pd_convolution *c, const void *x, const float *const *w, const float *bias,
                             const void *residual, void *y, int y_pitch, bool constants_changed, void *kept,
                             void *scratch, pd_err *err)
{
    cudaStream_t stream = c->device->stream;
    const pd_conv_shape *s = &c->shape, *p = &c->padded;
    const pd_map out = pd_map_of(y, c->store, pixels_out(c), s->k, y_pitch);
    void *lw, *lx = (void *)(uintptr_t)x;
    if (pixels_out(c) == 0) return PD_OK;
    if (c->own) {
        PD_CUDA_TRY(pd_grouped_fwd(s, c->store, x, w[0], y, y_pitch, stream), err);
        if (bias || residual || c->relu) PD_CUDA_TRY(pd_map_finish(&out, residual, bias, c->relu, stream), err);
        return PD_OK;
    }
    PD_TRY(library_weights(c, w, constants_changed, kept, &lw, err));
    if (c->pack_x) {
        lx = kept_x(c, kept);
        const pd_map to = pd_map_of(lx, c->store, pixels_in(c), p->c, p->c);
        const pd_map from = pd_map_of(x, c->x_store, pixels_in(c), s->c, c->x_pitch);
        PD_CUDA_TRY(pd_map_copy(&to, &from, false, stream), err);
    }
    char *small_bias = scratch, *padded_y = small_bias + c->bias_bytes, *workspace = padded_y + c->y_bytes;
    if (c->fused) {
        if (bias) {
            const pd_map to = pd_map_of(small_bias, c->store, 1, p->k, p->k);
            const pd_map from = pd_map_of(bias, PD_STORE_32, 1, s->k, s->k);
            PD_CUDA_TRY(pd_map_copy(&to, &from, false, stream), err);
        }
        const pd_gconv_memory m = {
            .x = lx, .w = lw, .y = y, .residual = residual, .bias = small_bias, .workspace = workspace};
        return pd_gconv_run(c->device, c->fused, &m, err);
    }
    float *sum = kept_sums(c, kept);
    const pd_gconv_memory m = {
        .x = lx, .w = lw, .y = c->pack_y ? padded_y : y, .sum = sum, .square = sum + p->k, .workspace = workspace};
    if (c->product[PD_GCONV_FWD]) {
        const pd_gemm g = product_of(c, PD_GCONV_FWD);
        PD_TRY(pd_gemm_run(c->device, &g, lx, lw, 0, y, err));
    } else {
        PD_TRY(pd_gconv_run(c->device, c->fwd, &m, err));
    }
    if (c->pack_y) {
        const pd_map from = pd_map_of(padded_y, c->store, pixels_out(c), s->k, p->k);
        PD_CUDA_TRY(pd_map_copy(&out, &from, false, stream), err);
    }
    if (bias || residual || c->relu) PD_CUDA_TRY(pd_map_finish(&out, residual, bias, c->relu, stream), err);
    return PD_OK;
}

void pd_convolution_sums(const pd_convolution *c, const void *kept, pd_value *const *y)
{
    const float *sum = kept_sums(c, kept);
    for (int i = 0; c->sums && i < c->parts; i++) {
        y[i]->sum = sum;
        y[i]->square = sum + c->padded.k;
        sum += c->part[i].k;
    }
}

/* ---- backward ---- */

/* The output's gradient with as many channels as the library's convolution has. */
static pd_status library_dy(const pd_convolution *c, const void *dy, int pitch, void *scratch, void **out, pd_err *err)
{
    *out = (void *)(uintptr_t)dy;
    if (!c->pack_y) return PD_OK;
    *out = scratch;
    const pd_map to = pd_map_of(scratch, c->store, pixels_out(c), c->padded.k, c->padded.k);
    const pd_map from = pd_map_of(dy, c->store, pixels_out(c), c->shape.k, pitch);
    PD_CUDA_TRY(pd_map_copy(&to, &from, false, c->device->stream), err);
    return PD_OK;
}

pd_status pd_convolution_bwd_data(const pd_convolution *c, const float *const *w, const void *dy, int dy_pitch,
                                  void *dx, bool add, void *kept, void *scratch, pd_err *err)
{
    cudaStream_t stream = c->device->stream;
    const pd_conv_shape *s = &c->shape, *p = &c->padded;
    void *ldy;
    if (pixels_in(c) == 0) return PD_OK;
    if (c->own) {
        PD_CUDA_TRY(pd_grouped_data(s, c->store, dx, add, w[0], dy, dy_pitch, stream), err);
        return PD_OK;
    }
    PD_TRY(library_dy(c, dy, dy_pitch, scratch, &ldy, err));
    char *padded_dx = (char *)scratch + c->dy_bytes;
    char *workspace = padded_dx + larger(c->dx_bytes, c->dw_bytes) + c->sum_bytes;
    const bool product = c->product[PD_GCONV_DATA];
    const bool apart = (add && !product) || p->c != s->c || c->x_store != c->store;
    const pd_gconv_memory m = {.x = apart ? padded_dx : dx, .w = kept_w(c, w, kept), .y = ldy, .workspace = workspace};
    if (product) {
        const pd_gemm g = product_of(c, PD_GCONV_DATA);
        PD_TRY(pd_gemm_run(c->device, &g, ldy, m.w, add && !apart ? 1.f : 0.f, m.x, err));
    } else {
        PD_TRY(pd_gconv_run(c->device, c->data, &m, err));
    }
    if (!apart) return PD_OK;
    const pd_map to = pd_map_of(dx, c->x_store, pixels_in(c), s->c, s->c);
    const pd_map from = pd_map_of(padded_dx, c->store, pixels_in(c), s->c, p->c);
    PD_CUDA_TRY(pd_map_copy(&to, &from, add, stream), err);
    return PD_OK;
}

pd_status pd_convolution_bwd_weights(const pd_convolution *c, const void *x, const void *dy, int dy_pitch,
                                     float *const *dw, const bool *add, void *kept, void *scratch, pd_err *err)
{
    cudaStream_t stream = c->device->stream;
    void *ldy, *lx = c->pack_x ? kept_x(c, kept) : (void *)(uintptr_t)x;
    if (c->own) {
        if (dw[0])
            PD_CUDA_TRY(pd_grouped_weights(&c->shape, c->store, x, dw[0], add[0], dy, dy_pitch, scratch, stream), err);
        return PD_OK;
    }
    PD_TRY(library_dy(c, dy, dy_pitch, scratch, &ldy, err));
    if (c->product[PD_GCONV_WEIGHTS]) {
        const pd_gemm g = product_of(c, PD_GCONV_WEIGHTS);
        return dw[0] ? pd_gemm_run(c->device, &g, ldy, lx, add[0] ? 1.f : 0.f, dw[0], err) : PD_OK;
    }
    char *whole = (char *)scratch + c->dy_bytes;
    char *workspace = whole + larger(c->dx_bytes, c->dw_bytes) + c->sum_bytes;
    const bool apart = c->pack_w || add[0];
    const pd_gconv_memory m = {.x = lx, .w = apart ? (void *)whole : dw[0], .y = ldy, .workspace = workspace};
    PD_TRY(pd_gconv_run(c->device, c->weights, &m, err));
    if (!apart) return PD_OK;
    for (int i = 0; i < c->parts; i++) {
        const pd_embedding *e = &c->part[i];
        if (dw[i]) PD_CUDA_TRY(pd_extract(e, whole, dw[i], add[i], stream), err);
        whole += (size_t)e->rows * (size_t)e->rr * (size_t)e->ss * (size_t)e->cc * pd_store_bytes(c->store);
    }
    return PD_OK;
}
