/* kernels/winograd.h: forward and both gradients against double loops, for shapes with every kind of edge; the same
 * bits for any number of threads and for AVX-512 and AVX2. Mixed kernels (panel_taps.h) against sums in double, and
 * direct convolutions with them (conv_panel.h) against double loops. */
#include "engine/arena.h"
#include "engine/rng.h"
#include "kernels/conv_panel.h"
#include "kernels/winograd.h"
#include "kernels/winograd_simd.h"
#include "tests/pd_test.h"

#include <math.h>

#define FORWARD_TOLERANCE 1e-5 /* of the largest value; measured: up to 4e-6 */
#define GRADIENT_TOLERANCE 2e-5

static pd_err err;

static float *draw(pd_rng *rng, pd_arena *arena, size_t n)
{
    float *v;
    PD_CHECK_OK(PD_ALLOC(&v, arena, n, &err));
    for (size_t i = 0; i < n; i++) v[i] = 2 * pd_rng_float(rng) - 1;
    return v;
}

static void *zeroed(pd_arena *arena, size_t n, size_t size)
{
    void *v;
    PD_CHECK_OK(pd_alloc(&v, arena, n, size, &err));
    return v;
}

/* Tensors of one set of convolutions, and what the loops say about them. */
typedef struct set {
    pd_wino_shape s;
    size_t nx, ny[PD_WINO_MAX], nw[PD_WINO_MAX];
    float *x, *w[PD_WINO_MAX], *dy[PD_WINO_MAX];
    double *y[PD_WINO_MAX], *dw[PD_WINO_MAX], *dx;
} set;

/* y, dw and dx of convolution j, tap by tap. */
static void loops(const set *t, int j)
{
    const pd_wino_shape *s = &t->s;
    const int k = s->conv[j].k, kh = s->conv[j].kh, kw = s->conv[j].kw, c = s->c;
    for (int n = 0; n < s->n; n++)
        for (int y = 0; y < s->h; y++)
            for (int x = 0; x < s->w; x++)
                for (int r = 0; r < kh; r++)
                    for (int q = 0; q < kw; q++) {
                        const int iy = y + r - kh / 2, ix = x + q - kw / 2;
                        if (iy < 0 || ix < 0 || iy >= s->h || ix >= s->w) continue;
                        const size_t from = (size_t)((n * s->h + iy) * s->w + ix) * (size_t)c;
                        const size_t to = (size_t)((n * s->h + y) * s->w + x) * (size_t)k;
                        for (int o = 0; o < k; o++) {
                            const size_t w = (size_t)((o * kh + r) * kw + q) * (size_t)c;
                            const double dy = (double)t->dy[j][to + (size_t)o];
                            double sum = 0;
                            for (int i = 0; i < c; i++) {
                                sum += (double)t->x[from + (size_t)i] * (double)t->w[j][w + (size_t)i];
                                t->dw[j][w + (size_t)i] += dy * (double)t->x[from + (size_t)i];
                                t->dx[from + (size_t)i] += dy * (double)t->w[j][w + (size_t)i];
                            }
                            t->y[j][to + (size_t)o] += sum;
                        }
                    }
}

static set make_set(const pd_wino_shape *s, pd_arena *arena)
{
    pd_rng rng = pd_rng_make(7, (uint32_t)s->c, (uint32_t)s->h);
    set t = {.s = *s, .nx = (size_t)(s->n * s->h * s->w * s->c)};
    t.x = draw(&rng, arena, t.nx);
    t.dx = zeroed(arena, t.nx, sizeof *t.dx);
    for (int j = 0; j < s->count; j++) {
        t.ny[j] = t.nx / (size_t)s->c * (size_t)s->conv[j].k;
        t.nw[j] = (size_t)(s->conv[j].k * s->conv[j].kh * s->conv[j].kw * s->c);
        t.w[j] = draw(&rng, arena, t.nw[j]);
        t.dy[j] = draw(&rng, arena, t.ny[j]);
        t.y[j] = zeroed(arena, t.ny[j], sizeof *t.y[j]);
        t.dw[j] = zeroed(arena, t.nw[j], sizeof *t.dw[j]);
        loops(&t, j);
    }
    return t;
}

/* The largest difference relative to the largest value. */
static double off(const float *got, const double *want, size_t n)
{
    double top = 0, worst = 0;
    for (size_t i = 0; i < n; i++) {
        const double d = fabs((double)got[i] - want[i]);
        top = fmax(top, fabs(want[i]));
        if (!(d <= worst)) worst = d;
    }
    return worst / top;
}

/* What one run leaves behind: outputs, dx, dw, one behind the other. */
typedef struct results {
    float *y[PD_WINO_MAX], *dx, *dw[PD_WINO_MAX];
} results;

static results run(const set *t, int threads, pd_arena *arena)
{
    pd_pool *pool = NULL;
    const pd_wino_shape *s = &t->s;
    const bool set_all[PD_WINO_MAX] = {false};
    results r;
    PD_CHECK_OK(pd_pool_new(&pool, threads, &err));
    size_t bytes = pd_wino_fwd_scratch(s, threads);
    const size_t data = pd_wino_bwd_data_scratch(s, threads), weights = pd_wino_bwd_weights_scratch(s, threads);
    bytes = data > bytes ? data : bytes;
    bytes = weights > bytes ? weights : bytes;
    void *scratch = zeroed(arena, bytes, 1);
    r.dx = zeroed(arena, t->nx, sizeof(float));
    for (int j = 0; j < s->count; j++) {
        r.y[j] = zeroed(arena, t->ny[j], sizeof(float));
        r.dw[j] = zeroed(arena, t->nw[j], sizeof(float));
    }
    const float *w[PD_WINO_MAX], *dy[PD_WINO_MAX];
    memcpy(w, t->w, sizeof w);
    memcpy(dy, t->dy, sizeof dy);
    memset(scratch, 0xff, bytes); /* NaN: nothing may be read before it is written */
    pd_wino_fwd(pool, s, t->x, w, r.y, NULL, scratch);
    memset(scratch, 0xff, bytes);
    pd_wino_bwd_data(pool, s, w, dy, r.dx, false, scratch);
    memset(scratch, 0xff, bytes);
    pd_wino_bwd_weights(pool, s, t->x, dy, r.dw, set_all, scratch);
    pd_pool_free(pool);
    return r;
}

static void check_values(const set *t, const results *r)
{
    const double dx = off(r->dx, t->dx, t->nx);
    PD_CHECK_MSG(dx <= GRADIENT_TOLERANCE, "dx off by %g", dx);
    for (int j = 0; j < t->s.count; j++) {
        const double y = off(r->y[j], t->y[j], t->ny[j]), dw = off(r->dw[j], t->dw[j], t->nw[j]);
        PD_CHECK_MSG(y <= FORWARD_TOLERANCE, "convolution %d: y off by %g", j, y);
        PD_CHECK_MSG(dw <= GRADIENT_TOLERANCE, "convolution %d: dw off by %g", j, dw);
    }
}

static void check_same_bits(const set *t, const results *a, const results *b, int threads)
{
    bool same = !memcmp(a->dx, b->dx, t->nx * sizeof(float));
    for (int j = 0; j < t->s.count; j++)
        same = same && !memcmp(a->y[j], b->y[j], t->ny[j] * sizeof(float)) &&
               !memcmp(a->dw[j], b->dw[j], t->nw[j] * sizeof(float));
    PD_CHECK_MSG(same, "%d threads: other bits than 1 thread", threads);
}

/* Gradients added to what is there; bias, residual and ReLU; kernels transformed beforehand; a weight left out. */
static void check_settings(const set *t, const results *plain, pd_arena *arena)
{
    pd_pool *pool = NULL;
    pd_wino_shape one = t->s;
    one.count = 1;
    pd_rng rng = pd_rng_make(8, 1, 1);
    PD_CHECK_OK(pd_pool_new(&pool, 2, &err));
    void *scratch = zeroed(arena, pd_wino_fwd_scratch(&one, 2) + pd_wino_bwd_weights_scratch(&t->s, 2), 1);
    float *y = zeroed(arena, t->ny[0], sizeof *y);
    pd_device *device = NULL;
    pd_panel_taps taps;
    PD_CHECK_OK(pd_device_open(&device, "cpu", 2, &err));
    PD_CHECK_OK(pd_panel_taps_init(&taps, device, 1, one.conv[0].k, one.c, one.conv[0].kh * one.conv[0].kw, &err));
    const float *bias = draw(&rng, arena, (size_t)one.conv[0].k), *residual = draw(&rng, arena, t->ny[0]);
    PD_CHECK_OK(pd_panel_taps_set(&taps, t->w[0], &err));
    pd_wino_fwd_taps(pool, &one, t->x, &taps, NULL, y, NULL, scratch);
    PD_CHECK_MSG(!memcmp(y, plain->y[0], t->ny[0] * sizeof *y), "constant kernels: other bits");
    for (int relu = 0; relu < 2; relu++) {
        const pd_wino_after after = {bias, residual, relu};
        double *want = zeroed(arena, t->ny[0], sizeof *want);
        pd_wino_fwd_taps(pool, &one, t->x, &taps, NULL, y, &after, scratch);
        for (size_t i = 0; i < t->ny[0]; i++) {
            want[i] = t->y[0][i] + (double)bias[i % (size_t)one.conv[0].k] + (double)residual[i];
            if (relu && want[i] < 0) want[i] = 0;
        }
        const double o = off(y, want, t->ny[0]);
        PD_CHECK_MSG(o <= FORWARD_TOLERANCE, "bias, residual, relu %d: off by %g", relu, o);
    }
    bool add[PD_WINO_MAX] = {true, false, true, false, true};
    float *dw[PD_WINO_MAX];
    const float *dy[PD_WINO_MAX];
    memcpy(dy, t->dy, sizeof dy);
    for (int j = 0; j < t->s.count; j++) {
        dw[j] = zeroed(arena, t->nw[j], sizeof *dw[j]);
        for (size_t i = 0; i < t->nw[j]; i++) dw[j][i] = 1;
    }
    float *const left_out = t->s.count > 1 ? dw[1] : NULL;
    if (left_out) dw[1] = NULL;
    pd_wino_bwd_weights(pool, &t->s, t->x, dy, dw, add, scratch);
    for (int j = 0; j < t->s.count; j++) {
        bool good = true;
        const float *got = dw[j] ? dw[j] : left_out;
        for (size_t i = 0; i < t->nw[j]; i++)
            good = good && got[i] == (dw[j] ? plain->dw[j][i] + (add[j] ? 1.f : 0.f) : 1.f);
        PD_CHECK_MSG(good, "convolution %d: gradient %s", j,
                     !dw[j]   ? "written although left out"
                     : add[j] ? "not added"
                              : "not set");
    }
    pd_panel_taps_free(&taps);
    pd_device_close(device);
    pd_pool_free(pool);
}

static const struct {
    const char *name;
    pd_wino_shape s;
} rows[] = {
    {"one tile", {1, 4, 4, 16, 1, {{16, 3, 3}}}},
    {"one pixel, three kinds", {1, 1, 1, 32, 3, {{32, 3, 3}, {16, 3, 1}, {16, 1, 3}}}},
    {"odd sizes, tails of channels", {2, 7, 9, 48, 1, {{80, 3, 3}}}},
    {"no 3x3 among them", {2, 6, 11, 80, 2, {{32, 3, 1}, {48, 1, 3}}}},
    {"all branches", {1, 5, 3, 64, 4, {{32, 3, 3}, {48, 3, 1}, {32, 1, 3}, {32, 3, 3}}}},
    {"five of one", {1, 9, 2, 16, 5, {{16, 3, 3}, {16, 3, 3}, {16, 3, 3}, {16, 3, 3}, {16, 3, 3}}}},
    {"blocks of a thread's own, waves", {2, 61, 57, 144, 2, {{32, 3, 3}, {16, 1, 3}}}},
    {"blocks, all channels a tail", {3, 40, 44, 16, 3, {{16, 3, 1}, {48, 3, 3}, {80, 1, 3}}}},
};

static void test_rows(void)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pd_arena *arena = pd_arena_new();
        PD_ROW(rows[i].name);
        const set t = make_set(&rows[i].s, arena);
        const results one = run(&t, 1, arena), two = run(&t, 2, arena), five = run(&t, 5, arena);
        check_values(&t, &one);
        check_same_bits(&t, &one, &two, 2);
        check_same_bits(&t, &one, &five, 5);
        check_settings(&t, &one, arena);
        pd_arena_free(arena);
    }
    PD_ROW("");
}

/* dx on top of what is there. */
static void test_data_added(void)
{
    pd_arena *arena = pd_arena_new();
    const set t = make_set(&rows[3].s, arena);
    pd_pool *pool = NULL;
    PD_CHECK_OK(pd_pool_new(&pool, 2, &err));
    const float *w[PD_WINO_MAX], *dy[PD_WINO_MAX];
    memcpy(w, t.w, sizeof w);
    memcpy(dy, t.dy, sizeof dy);
    float *dx = zeroed(arena, t.nx, sizeof *dx);
    for (size_t i = 0; i < t.nx; i++) {
        dx[i] = t.x[i];
        t.dx[i] += (double)t.x[i];
    }
    pd_wino_bwd_data(pool, &t.s, w, dy, dx, true, zeroed(arena, pd_wino_bwd_data_scratch(&t.s, 2), 1));
    const double o = off(dx, t.dx, t.nx);
    PD_CHECK_MSG(o <= GRADIENT_TOLERANCE, "added dx off by %g", o);
    pd_pool_free(pool);
    pd_arena_free(arena);
}

static void test_refused(void)
{
    const pd_conv_shape good = {.n = 1,
                                .h = 8,
                                .w = 8,
                                .c = 32,
                                .k = 32,
                                .kh = 3,
                                .kw = 3,
                                .stride = 1,
                                .pad_h = 1,
                                .pad_w = 1,
                                .groups = 1,
                                .oh = 8,
                                .ow = 8};
    pd_wino_shape s = {0};
    if (!pd_wino_add(&s, &good)) {
        PD_SKIP("this processor has neither AVX-512 nor AVX2 with FMA");
        return;
    }
    pd_conv_shape c;
#define REFUSED(change)                                                                                                \
    do {                                                                                                               \
        pd_wino_shape set_ = s;                                                                                        \
        c = good;                                                                                                      \
        change;                                                                                                        \
        PD_CHECK_MSG(!pd_wino_add(&set_, &c) && set_.count == 1, "taken: %s", #change);                                \
    } while (0)
    REFUSED(c.stride = 2);
    REFUSED(c.groups = 2);
    REFUSED(c.pad_h = 0);
    REFUSED(c.pad_w = 2);
    REFUSED(c.kh = c.kw = 1);
    REFUSED(c.kh = 5);
    REFUSED(c.c = 24);
    REFUSED(c.k = 36);
    REFUSED(c.h = 9);
    REFUSED(c.n = 0);
    for (int i = 1; i < PD_WINO_MAX; i++) PD_CHECK(pd_wino_add(&s, &good));
    PD_CHECK(!pd_wino_add(&s, &good));
    /* large maps gain, a single small one with many channels does not */
    PD_CHECK(pd_wino_pays(&(pd_wino_shape){8, 32, 32, 64, 1, {{64, 3, 3}}}));
    PD_CHECK(!pd_wino_pays(&(pd_wino_shape){1, 3, 3, 512, 1, {{512, 3, 3}}}));
}

/* ---- the two instruction sets, function by function ---- */

#define PLANE 3000
#define SIDE 36

static float wide[SIDE * PLANE], narrow[SIDE * PLANE], source[SIDE * PLANE];

static void check_twins(const char *what, size_t n)
{
    PD_CHECK_MSG(!memcmp(wide, narrow, n * sizeof *wide), "%s: AVX-512 and AVX2 differ", what);
    memset(wide, 0, sizeof wide);
    memset(narrow, 0, sizeof narrow);
}

static void test_twins(void)
{
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512dq")) {
        PD_SKIP("this processor has no AVX-512 to compare with AVX2");
        return;
    }
    const wino_isa *const a = &pd_wino_avx512, *const b = &pd_wino_avx2;
    static const wino_form forms[] = {{true, true}, {true, false}, {false, true}};
    const float *pixel[SIDE];
    pd_rng rng = pd_rng_make(1, 2, 3);
    for (size_t i = 0; i < SIDE * PLANE; i++) source[i] = 2 * pd_rng_float(&rng) - 1;
    for (int i = 0; i < SIDE; i++) pixel[i] = source + i * PLANE + i % 5;
    a->input(pixel, 48, wide, PLANE);
    b->input(pixel, 48, narrow, PLANE);
    check_twins("input", SIDE * PLANE);
    a->gradient(pixel, 48, wide, PLANE);
    b->gradient(pixel, 48, narrow, PLANE);
    check_twins("gradient", SIDE * PLANE);
    for (int f = 0; f < 3; f++)
        for (int lanes = 16; lanes <= 32; lanes += 16) {
            a->output(source, PLANE, forms[f], wide, 900, 200, 3, 4, lanes, source + 5, source + 77, f == 0);
            b->output(source, PLANE, forms[f], narrow, 900, 200, 3, 4, lanes, source + 5, source + 77, f == 0);
            check_twins("output", SIDE * PLANE);
            a->kernel(source, 432, 48, forms[f], lanes, 48, wide, PLANE);
            b->kernel(source, 432, 48, forms[f], lanes, 48, narrow, PLANE);
            check_twins("kernel", SIDE * PLANE);
            a->turned(source, forms[f], 40, wide, PLANE);
            b->turned(source, forms[f], 40, narrow, PLANE);
            check_twins("turned", SIDE * PLANE);
            a->flipped(source, 432, 48, forms[f], lanes, 40, wide, PLANE);
            b->flipped(source, 432, 48, forms[f], lanes, 40, narrow, PLANE);
            check_twins("flipped", SIDE * PLANE);
            a->taps(source, PLANE, forms[f], wide, 432, 48, 24, lanes, lanes == 16);
            b->taps(source, PLANE, forms[f], narrow, 432, 48, 24, lanes, lanes == 16);
            check_twins("taps", SIDE * PLANE);
        }
    for (int add = 0; add < 2; add++) {
        a->by_rows(source, 60, source + 900, 40, 51, 8, wide, add);
        b->by_rows(source, 60, source + 900, 40, 51, 8, narrow, add);
        check_twins("by_rows", ROWS * PANEL);
        a->by_columns(source, 60, source + 900, 40, 51, wide, add);
        b->by_columns(source, 60, source + 900, 40, 51, narrow, add);
        check_twins("by_columns", ROWS * PANEL);
        a->by_rows(source, 60, source + 900, 40, 51, 4, wide, add);
        b->by_rows(source, 60, source + 900, 40, 51, 4, narrow, add);
        check_twins("by_rows of 4", ROWS * PANEL);
    }
    static const size_t offset[6] = {0, 60, 120, 3000, 3060, 3120};
    for (int n = 1; n <= ROWS; n++) {
        a->by_pixels(pixel, n, offset, 6, source + 900, 17, wide, n % 2);
        b->by_pixels(pixel, n, offset, 6, source + 900, 17, narrow, n % 2);
        check_twins("by_pixels", ROWS * PANEL);
    }
#else
    PD_SKIP("no x86 processor");
#endif
}

/* ---- kernels to mix (panel_taps.h) ---- */

#define MIX_K 48 /* a panel and a half */
#define MIX_C 80 /* a chunk and a quarter */

/* Kernel i of a row: dense; the cross of 3x1 and 1x3; one channel in four, all taps of it or some; nothing. */
static float mix_weight(char kind, pd_rng *rng, size_t tap, size_t c)
{
    const float v = 2 * pd_rng_float(rng) - 1;
    const bool cross = tap % 2 == 1 || tap == 4, fourth = c % 4 == 0;
    return kind == 'd' || (kind == 'x' && cross) || (kind == 'g' && fourth) || (kind == 's' && fourth && tap != 2) ? v
                                                                                                                   : 0;
}

static void check_mixed(const wino_isa *isa, const pd_panel_taps *t, const float *w, const char *kinds,
                        const float *mix, const char *name)
{
    static float room[MIX_C * 9 * PANEL], one[9 * PANEL], u[36 * PD_TAPS_CHUNK * PANEL],
        turned[36 * PD_TAPS_CHUNK * PANEL];
    const wino_form form = {true, true};
    const size_t g = strlen(kinds), count = MIX_K * 9 * MIX_C;
    double worst = 0, gates = 0;
    for (size_t i = 0; i < g; i++) gates += fabs((double)mix[i]);
    for (size_t panel = 0; panel < pd_panels(MIX_K); panel++)
        for (int first = 0; first < MIX_C; first += PD_TAPS_CHUNK) {
            const size_t channels = MIX_C - first < PD_TAPS_CHUNK ? (size_t)(MIX_C - first) : PD_TAPS_CHUNK;
            pd_taps_walk walk = pd_panel_taps_begin(t, mix, panel, first);
            isa->mix(&walk, channels, room);
            for (size_t i = 0; i < channels * 9 * PANEL; i++) {
                const size_t o = panel * PANEL + i % PANEL, tap = i / PANEL % 9, c = (size_t)first + i / PANEL / 9;
                double want = 0;
                for (size_t k = 0; k < g && o < MIX_K; k++)
                    want += (double)mix[k] * (double)w[k * count + (o * 9 + tap) * MIX_C + c];
                worst = fmax(worst, fabs(want - (double)room[i]));
            }
            walk = pd_panel_taps_begin(t, mix, panel, first);
            isa->mix_turned(&walk, form, channels, one, u, channels * PANEL);
            isa->turned(room, form, channels, turned, channels * PANEL);
            PD_CHECK_MSG(!memcmp(u, turned, 36 * channels * PANEL * sizeof *u) &&
                             walk.channel == (size_t)first + channels,
                         "%s, kernels %s: mixed and transformed at once differs from one after the other", name, kinds);
        }
    /* half a step of 1 / 32767 for a weight, and for a gate */
    PD_CHECK_MSG(worst <= gates / 32767, "%s, kernels %s: a mixed weight is off by %g", name, kinds, worst);
}

static void test_mixing(void)
{
    static const char *const kinds[] = {"ddxg", "ddx", "dd",   "dx",   "dg", "dxg", "ddg",
                                        "ddd",  "xd",  "gxdd", "ddxs", "d0", "00"};
    static const float mixes[][4] = {{.4f, .3f, .2f, .1f}, {1e-6f, 1, 0, .5f}, {-1, .25f, 3, 0}, {0, 0, 0, 0}};
    pd_device *device = NULL;
    pd_arena *arena = pd_arena_new();
    pd_rng rng = pd_rng_make(9, 1, 1);
    PD_CHECK_OK(pd_device_open(&device, "cpu", 2, &err));
    for (size_t r = 0; r < sizeof kinds / sizeof *kinds; r++) {
        const size_t g = strlen(kinds[r]), count = MIX_K * 9 * MIX_C;
        float *w = zeroed(arena, g * count, sizeof *w);
        for (size_t i = 0; i < g * count; i++) w[i] = mix_weight(kinds[r][i / count], &rng, i / MIX_C % 9, i % MIX_C);
        pd_panel_taps t;
        PD_CHECK_OK(pd_panel_taps_init(&t, device, (int)g, MIX_K, MIX_C, 9, &err));
        PD_CHECK_OK(pd_panel_taps_set(&t, w, &err));
        for (size_t m = 0; m < sizeof mixes / sizeof *mixes; m++) {
            check_mixed(pd_wino_isa(), &t, w, kinds[r], mixes[m], "best");
#if defined(__x86_64__)
            check_mixed(&pd_wino_avx2, &t, w, kinds[r], mixes[m], "AVX2");
#endif
        }
        pd_panel_taps_free(&t);
    }
    pd_arena_free(arena);
    pd_device_close(device);
}

/* ---- direct convolutions with such kernels (conv_panel.h) ---- */

typedef struct direct {
    int c, k, h, w, kh, kw, stride, pad_h, pad_w;
    const char *kinds; /* of the kernels that are mixed; "d": one kernel, as it is */
} direct;

static double direct_sum(const direct *d, const pd_conv_shape *s, const float *x, const float *w, const float *mix,
                         size_t k, int oy, int ox)
{
    const size_t count = (size_t)(d->k * d->kh * d->kw * d->c), c = (size_t)d->c;
    double sum = 0;
    for (int r = 0; r < d->kh; r++)
        for (int q = 0; q < d->kw; q++) {
            const int y = oy * s->stride + r - s->pad_h, xx = ox * s->stride + q - s->pad_w;
            if (y < 0 || xx < 0 || y >= d->h || xx >= d->w) continue;
            for (size_t i = 0; i < c; i++)
                for (size_t g = 0; g < strlen(d->kinds); g++)
                    sum += (double)x[(size_t)(y * d->w + xx) * c + i] * (double)mix[g] *
                           (double)w[g * count + ((k * (size_t)d->kh + (size_t)r) * (size_t)d->kw + (size_t)q) * c + i];
        }
    return sum;
}

static void check_direct(const direct *d, pd_device *device, pd_arena *arena, pd_rng *rng)
{
    const pd_conv_shape s = {.n = 1,
                             .h = d->h,
                             .w = d->w,
                             .c = d->c,
                             .k = d->k,
                             .kh = d->kh,
                             .kw = d->kw,
                             .stride = d->stride,
                             .pad_h = d->pad_h,
                             .pad_w = d->pad_w,
                             .groups = 1,
                             .oh = (d->h + 2 * d->pad_h - d->kh) / d->stride + 1,
                             .ow = (d->w + 2 * d->pad_w - d->kw) / d->stride + 1};
    const size_t g = strlen(d->kinds), taps = (size_t)(d->kh * d->kw), c = (size_t)d->c, k = (size_t)d->k;
    const size_t count = k * taps * c, outputs = (size_t)(s.oh * s.ow);
    const float mixes[4] = {.4f, -.3f, .2f, .1f}, *mix = g == 1 ? (const float[]){1} : mixes;
    float *x = draw(rng, arena, (size_t)(d->h * d->w) * c), *w = zeroed(arena, g * count, sizeof *w);
    float *bias = draw(rng, arena, k), *residual = draw(rng, arena, outputs * k);
    float *y = zeroed(arena, outputs * k, sizeof *y), *again = zeroed(arena, outputs * k, sizeof *y);
    for (size_t i = 0; i < g * count; i++) w[i] = mix_weight(d->kinds[i / count], rng, i / c % taps, i % c);
    pd_panel_taps t;
    PD_CHECK_OK(pd_panel_taps_init(&t, device, (int)g, d->k, d->c, (int)taps, &err));
    PD_CHECK_OK(pd_panel_taps_set(&t, w, &err));
    PD_CHECK(pd_panel_conv_fits(&s));
    const pd_wino_after after = {bias, residual, true};
    for (int threads = 1; threads <= 3; threads += 2) {
        pd_pool *pool = NULL;
        PD_CHECK_OK(pd_pool_new(&pool, threads, &err));
        const size_t bytes = pd_panel_conv_scratch(&s, threads);
        void *scratch = zeroed(arena, bytes, 1);
        memset(scratch, 0xff, bytes); /* NaN: nothing may be read before it is written */
        pd_panel_conv(pool, &s, x, &t, g == 1 ? NULL : mix, threads == 1 ? y : again, &after, scratch);
        pd_pool_free(pool);
    }
    double worst = 0, largest = 0;
    for (size_t i = 0; i < outputs * k; i++) {
        const int at = (int)(i / k);
        double want = direct_sum(d, &s, x, w, mix, i % k, at / s.ow, at % s.ow);
        want = fmax(0, want + (double)bias[i % k] + (double)residual[i]);
        largest = fmax(largest, want);
        worst = fmax(worst, fabs(want - (double)y[i]));
    }
    /* 16-bit kernels: see panel_taps.h */
    PD_CHECK_MSG(worst <= (g == 1 ? FORWARD_TOLERANCE : 1e-4) * largest,
                 "%dx%d, %d to %d channels, %s: off by %g of %g", d->h, d->w, d->c, d->k, d->kinds, worst, largest);
    PD_CHECK_MSG(!memcmp(y, again, outputs * k * sizeof *y), "%dx%d, %d to %d channels: 3 threads change the bits",
                 d->h, d->w, d->c, d->k);
    pd_panel_taps_free(&t);
}

static void test_direct(void)
{
    static const direct cases[] = {
        {16, 32, 5, 7, 3, 3, 1, 1, 1, "d"},     {64, 48, 14, 13, 3, 3, 2, 1, 1, "d"},
        {80, 48, 9, 8, 3, 3, 2, 1, 1, "ddxg"},  {128, 64, 19, 21, 3, 3, 2, 1, 1, "ddxs"},
        {64, 32, 24, 3, 3, 1, 1, 1, 0, "dd"},   {48, 16, 1, 1, 3, 3, 1, 1, 1, "ddxg"},
        {192, 80, 7, 7, 3, 3, 1, 1, 1, "gxdd"}, {32, 32, 6, 11, 1, 1, 2, 0, 0, "dd"},
        {64, 16, 12, 12, 3, 3, 1, 0, 0, "ddd"}, {16, 16, 4, 9, 4, 4, 3, 2, 1, "d0"},
    };
    pd_device *device = NULL;
    pd_arena *arena = pd_arena_new();
    pd_rng rng = pd_rng_make(5, 3, 1);
    PD_CHECK_OK(pd_device_open(&device, "cpu", 2, &err));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_direct(&cases[i], device, arena, &rng);
    pd_arena_free(arena);
    pd_device_close(device);
}

int main(void)
{
    test_refused();
    if (!pd_test_skips) {
        test_rows();
        test_data_added();
        test_mixing();
        test_direct();
    }
    test_twins();
    return pd_test_end();
}
