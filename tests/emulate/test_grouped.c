/* The launchers of grouped.cu against plain loops in double: strips, widths and heights around their sizes, outputs
 * side by side with others, channels that are no whole vectors, gradients set and added; two runs leave the same bits.
 */
#include "engine/plugin.h"
#include "engine/rng.h"
#include "kernels/cuda/grouped.h"
#include "tests/emulate/elements.h"
#include "tests/pd_test.h"

const pd_plugin *pd_plugin_cuda(void);

static pd_err err;
static pd_device *gpu;

/* ---- maps of one store ---- */

/* On the host and on the device. */
typedef struct map {
    pd_store store;
    size_t count;
    void *host, *device, *memory;
} map;

/* A device's place gets a host's values. */
static void upload(map *to, const map *from)
{
    PD_CHECK_OK(gpu->upload(gpu, to->device, from->host, from->count * pd_store_bytes(from->store), &err));
}

static void download(map *m)
{
    PD_CHECK_OK(gpu->download(gpu, m->host, m->device, m->count * pd_store_bytes(m->store), &err));
}

/* shift: elements from the start of the device's memory. */
static map draw(size_t count, pd_store store, uint32_t stream, size_t shift)
{
    map m = {.store = store, .count = count, .host = malloc(count * sizeof(float))};
    pd_rng rng = pd_rng_make(11, stream, 0);
    for (size_t i = 0; i < count; i++) put(m.host, store, i, (float)pd_rng_normal(&rng));
    PD_CHECK_OK(gpu->alloc(gpu, &m.memory, (count + shift) * sizeof(float), &err));
    m.device = (char *)m.memory + shift * pd_store_bytes(store);
    upload(&m, &m);
    return m;
}

static void map_free(map *m)
{
    gpu->release(gpu, m->memory);
    free(m->host);
}

/* got: `width` of every `pitch` elements are compared with want, the others must be those of `before`. */
static void compare(const char *what, const map *got, const double *want, const map *before, int width, int pitch)
{
    static const double relative[] = {[PD_STORE_32] = 2e-5, [PD_STORE_BF16] = 0.005, [PD_STORE_F16] = 7e-4};
    size_t wrong = 0, spoiled = 0;
    for (size_t i = 0; i < got->count; i++) {
        const size_t at = i % (size_t)pitch, pixel = i / (size_t)pitch;
        const double x = (double)get(got->host, got->store, i);
        if (at >= (size_t)width) {
            spoiled += x != (double)get(before->host, got->store, i);
            continue;
        }
        const double w = want[pixel * (size_t)width + at];
        wrong += !(fabs(x - w) <= relative[got->store] * (fabs(w) + 1));
    }
    PD_CHECK_MSG(!wrong, "%s: %zu of %zu values are wrong", what, wrong, got->count);
    PD_CHECK_MSG(!spoiled, "%s: %zu values beside it were written to", what, spoiled);
}

/* ---- one shape ---- */

typedef struct expected {
    double *y, *dx, *dw;
} expected;

static expected plain_loops(const pd_conv_shape *s, const map *x, const map *w, const map *dy, int pitch)
{
    const int ci = s->c / s->groups, co = s->k / s->groups;
    const size_t pixels = (size_t)(s->n * s->oh * s->ow);
    expected e = {calloc(pixels * (size_t)s->k, 8), calloc(x->count, 8), calloc(w->count, 8)};
    for (size_t out = 0; out < pixels; out++)
        for (int k = 0; k < s->k; k++)
            for (int t = 0; t < s->kh * s->kw * ci; t++) {
                const int image = (int)out / (s->oh * s->ow), i = t % ci;
                const int iy = (int)out / s->ow % s->oh * s->stride - s->pad_h + t / ci / s->kw;
                const int ix = (int)out % s->ow * s->stride - s->pad_w + t / ci % s->kw;
                if (iy < 0 || iy >= s->h || ix < 0 || ix >= s->w) continue;
                const size_t in = (size_t)(((image * s->h + iy) * s->w + ix) * s->c + k / co * ci + i);
                const size_t tap = (size_t)(k * s->kh * s->kw * ci + t);
                const double g = (double)get(dy->host, dy->store, out * (size_t)pitch + (size_t)k);
                e.y[out * (size_t)s->k + (size_t)k] +=
                    (double)get(x->host, x->store, in) * (double)get(w->host, 0, tap);
                e.dx[in] += g * (double)get(w->host, 0, tap);
                e.dw[tap] += g * (double)get(x->host, x->store, in);
            }
    return e;
}

static void add_before(double *sum, const map *before, double share)
{
    for (size_t i = 0; i < before->count; i++) sum[i] += share * (double)get(before->host, before->store, i);
}

static void check_shape(pd_conv_shape s, pd_store store, int beside, size_t shift)
{
    const int pitch = s.k + beside, taps = s.kh * s.kw * (s.c / s.groups);
    const size_t in = (size_t)(s.n * s.h * s.w * s.c), out = (size_t)(s.n * s.oh * s.ow * pitch);
    cudaStream_t stream = pd_cuda_of(gpu)->stream;
    map x = draw(in, store, 1, 0), w = draw((size_t)(s.k * taps), PD_STORE_32, 2, 0), dy = draw(out, store, 3, shift);
    map y = draw(out, store, 4, shift), dx = draw(in, store, 5, 0), dw = draw(w.count, PD_STORE_32, 6, 0);
    map again = draw(w.count, PD_STORE_32, 6, 0), partial = draw(pd_grouped_floats(&s), PD_STORE_32, 7, 0);
    map y_was = draw(out, store, 4, 0), dx_was = draw(in, store, 5, 0), dw_was = draw(w.count, PD_STORE_32, 6, 0);
    expected e = plain_loops(&s, &x, &w, &dy, pitch);
    PD_CHECK(pd_grouped_fits(&s));
    PD_CHECK_INT(pd_grouped_fwd(&s, store, x.device, w.device, y.device, pitch, stream), 0);
    download(&y);
    compare("y", &y, e.y, &y_was, s.k, pitch);
    for (int add = 0; add < 2; add++) {
        upload(&dx, &dx_was);
        upload(&dw, &dw_was);
        if (add) add_before(e.dx, &dx_was, 1);
        if (add) add_before(e.dw, &dw_was, 1);
        PD_CHECK_INT(pd_grouped_data(&s, store, dx.device, add, w.device, dy.device, pitch, stream), 0);
        for (int run = 0; run < 2; run++)
            PD_CHECK_INT(pd_grouped_weights(&s, store, x.device, run ? again.device : dw.device, add, dy.device, pitch,
                                            partial.device, stream),
                         0);
        download(&dx);
        download(&dw);
        download(&again);
        compare(add ? "dx added" : "dx", &dx, e.dx, &dx_was, s.c, s.c);
        compare(add ? "dw added" : "dw", &dw, e.dw, &dw_was, taps, taps);
        PD_CHECK_MSG(add || !memcmp(dw.host, again.host, dw.count * sizeof(float)), "a second run makes another dw");
    }
    map *all[] = {&x, &w, &dy, &y, &dx, &dw, &again, &partial, &y_was, &dx_was, &dw_was};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) map_free(all[i]);
    free(e.y);
    free(e.dx);
    free(e.dw);
}

static const struct {
    int n, h, w, c, k, groups, window, stride, beside;
    size_t shift;
} rows[] = {
    /* a channel a group: heights about a strip and two, widths of one pixel and of more than a block has lanes for */
    {1, 1, 1, 8, 8, 8, 3, 1, 0, 0},
    {2, 5, 37, 64, 64, 64, 3, 1, 0, 0},
    {1, 16, 3, 8, 8, 8, 3, 1, 0, 0},
    {2, 17, 1, 16, 16, 16, 3, 1, 8, 0},
    {1, 33, 2, 72, 72, 72, 3, 1, 56, 0},
    {2, 6, 5, 24, 48, 24, 3, 1, 0, 0},
    /* two and four: pairs of pixels, the last alone or not */
    {1, 1, 2, 16, 16, 8, 3, 1, 0, 0},
    {2, 7, 9, 136, 136, 68, 3, 1, 8, 0},
    {3, 18, 4, 16, 32, 8, 3, 1, 0, 0},
    {1, 5, 3, 32, 32, 8, 3, 1, 0, 0},
    {2, 15, 6, 72, 72, 18, 3, 1, 64, 0},
    {2, 16, 5, 16, 32, 4, 3, 1, 8, 0},
    /* a stride of 2, odd and even sizes */
    {1, 1, 1, 8, 8, 8, 3, 2, 0, 0},
    {2, 9, 8, 24, 24, 24, 3, 2, 8, 0},
    {1, 2, 35, 72, 144, 72, 3, 2, 0, 0},
    {1, 35, 7, 16, 16, 8, 3, 2, 0, 0},
    {2, 8, 5, 32, 64, 16, 3, 2, 16, 0},
    {2, 34, 6, 80, 80, 20, 3, 2, 0, 0},
    {1, 7, 3, 16, 32, 4, 3, 2, 8, 0},
    /* no whole vectors: channels, the pitch, where the outputs begin; other windows and strides */
    {2, 5, 6, 12, 12, 12, 3, 1, 0, 0},
    {1, 6, 5, 12, 24, 6, 3, 2, 3, 0},
    {2, 4, 5, 16, 16, 4, 3, 1, 3, 0},
    {1, 5, 4, 16, 32, 16, 3, 1, 8, 4},
    {2, 6, 5, 16, 16, 16, 1, 1, 0, 0},
    {1, 9, 8, 8, 8, 4, 2, 2, 0, 0},
    {1, 10, 7, 16, 16, 8, 3, 3, 0, 0},
    {0, 5, 5, 8, 8, 8, 3, 1, 0, 0},
};

int main(void)
{
    static const char *const names[] = {[PD_STORE_32] = "fp32", [PD_STORE_BF16] = "bf16", [PD_STORE_F16] = "fp16"};
    PD_CHECK_OK(pd_device_open_plugin(&gpu, pd_plugin_cuda(), 0, 1, &err));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pd_conv_shape s = {.n = rows[i].n, .h = rows[i].h, .w = rows[i].w, .c = rows[i].c, .k = rows[i].k};
        s.kh = s.kw = rows[i].window;
        s.stride = rows[i].stride;
        s.groups = rows[i].groups;
        s.pad_h = s.pad_w = rows[i].window / 2;
        s.oh = (s.h + 2 * s.pad_h - s.kh) / s.stride + 1;
        s.ow = (s.w + 2 * s.pad_w - s.kw) / s.stride + 1;
        static const pd_store stores[] = {PD_STORE_32, PD_STORE_BF16, PD_STORE_F16};
        for (int k = 0; k < 3; k++) {
            char row[96];
            snprintf(row, sizeof row, "(%d, %d, %d, %d) to %d, %d groups, stride %d, %s", s.n, s.h, s.w, s.c, s.k,
                     s.groups, s.stride, names[stores[k]]);
            PD_ROW(row);
            check_shape(s, stores[k], rows[i].beside, rows[i].shift);
        }
    }
    PD_ROW("");
    pd_device_close(gpu);
    return pd_test_end();
}
