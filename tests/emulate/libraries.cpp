/* What cuDNN and cuBLASLt do for kernels/cuda, as plain loops: products of the elements as stored, summed in double. */
#include "tests/emulate/kernel.h"

#include <malloc.h>
#include <stdlib.h>
#include <vector>

extern "C" {
#include "kernels/cuda/gconv.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/grouped.h"
#include "tests/emulate/elements.h"
}

namespace
{

/* As tensor cores read a float32: ten bits of its fraction. */
float tf32(float x)
{
    const uint32_t u = pd_float_bits(x);
    return pd_bits_float((u & 0x7f800000u) == 0x7f800000u ? u : (u + 0xfffu + (u >> 13 & 1)) & ~0x1fffu);
}

std::vector<float> all(const void *at, pd_store store, size_t count, bool coarse)
{
    std::vector<float> v(count);
    for (size_t i = 0; i < count; i++) v[i] = get(at, store, i);
    for (size_t i = 0; i < count && coarse; i++) v[i] = tf32(v[i]);
    return v;
}

/* The work is in these two loops: in lanes of their own, so that a compiler may take them at once. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FAST __attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3")))
#else
#define FAST
#endif

const int LANES = 16;

FAST double dot(const float *__restrict__ a, const float *__restrict__ b, int n)
{
    double lane[LANES] = {0}, sum = 0;
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) lane[j] += (double)a[i + j] * (double)b[i + j];
    for (int j = 0; j < LANES; j++) sum += lane[j];
    for (; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

FAST void add_scaled(double *__restrict__ to, double scale, const float *__restrict__ from, int n)
{
    for (int i = 0; i < n; i++) to[i] += scale * (double)from[i];
}

/* Calls f(x index, w index, y index, channels) for every run of products: the indices of its first channel. */
template <class F> void walk(const pd_conv_shape &s, F f)
{
    const int cg = s.c / s.groups, kg = s.k / s.groups;
    for (int n = 0; n < s.n; n++)
        for (int oy = 0; oy < s.oh; oy++)
            for (int ox = 0; ox < s.ow; ox++)
                for (int r = 0; r < s.kh; r++)
                    for (int q = 0; q < s.kw; q++) {
                        const int iy = oy * s.stride - s.pad_h + r, ix = ox * s.stride - s.pad_w + q;
                        if (iy < 0 || iy >= s.h || ix < 0 || ix >= s.w) continue;
                        for (int k = 0; k < s.k; k++)
                            f((((size_t)n * s.h + iy) * s.w + ix) * s.c + (size_t)(k / kg * cg),
                              (((size_t)k * s.kh + r) * s.kw + q) * cg, (((size_t)n * s.oh + oy) * s.ow + ox) * s.k + k,
                              cg);
                    }
}

void convolve(const pd_gconv_desc &d, const pd_gconv_memory &m)
{
    void *const x = m.x, *const w = m.w, *const y = m.y;
    const pd_conv_shape &s = d.shape;
    const size_t nx = (size_t)s.n * s.h * s.w * s.c, nw = (size_t)s.k * s.kh * s.kw * (s.c / s.groups);
    const size_t ny = (size_t)s.n * s.oh * s.ow * s.k;
    const bool coarse = d.tf32 && d.store == PD_STORE_32;
    std::vector<float> fx, fw, fy;
    if (d.kind != PD_GCONV_DATA) fx = all(x, d.store, nx, coarse);
    if (d.kind != PD_GCONV_WEIGHTS) fw = all(w, d.store, nw, coarse);
    if (d.kind != PD_GCONV_FWD) fy = all(y, d.store, ny, coarse);
    std::vector<double> sum(d.kind == PD_GCONV_FWD ? ny : d.kind == PD_GCONV_DATA ? nx : nw, 0.0);
    double *const to_sum = sum.data();
    if (d.kind == PD_GCONV_FWD)
        walk(s, [&](size_t ix, size_t iw, size_t iy, int n) { to_sum[iy] += dot(&fx[ix], &fw[iw], n); });
    else if (d.kind == PD_GCONV_DATA)
        walk(s, [&](size_t ix, size_t iw, size_t iy, int n) { add_scaled(to_sum + ix, (double)fy[iy], &fw[iw], n); });
    else
        walk(s, [&](size_t ix, size_t iw, size_t iy, int n) { add_scaled(to_sum + iw, (double)fy[iy], &fx[ix], n); });
    void *to = d.kind == PD_GCONV_FWD ? y : d.kind == PD_GCONV_DATA ? x : w;
    for (size_t i = 0; i < sum.size(); i++) {
        float v = (float)sum[i];
        if (d.residual) v += get(m.residual, d.store, i);
        if (d.bias) v += get(m.bias, d.store, i % (size_t)s.k);
        put(to, d.store, i, d.relu && !(v > 0) ? 0 : v);
    }
    for (int k = 0; d.sums && k < s.k; k++) {
        double a = 0, b = 0;
        for (size_t i = (size_t)k; i < ny; i += (size_t)s.k) {
            const double v = (double)get(y, d.store, i);
            a += v;
            b += v * v;
        }
        m.sum[k] = (float)a;
        m.square[k] = (float)b;
    }
}

/* `count` lines of k elements, each in one piece: rows of a matrix, or its columns. */
std::vector<float> lines(const void *at, pd_store store, bool coarse, int count, int k, int pitch, bool down)
{
    std::vector<float> v((size_t)count * k);
    for (int i = 0; i < count; i++)
        for (int j = 0; j < k; j++)
            v[(size_t)i * k + j] = get(at, store, down ? (size_t)j * pitch + i : (size_t)i * pitch + j);
    for (size_t i = 0; i < v.size() && coarse; i++) v[i] = tf32(v[i]);
    return v;
}

} // namespace

struct pd_gconv {
    pd_gconv_desc desc;
};
struct pd_gconv_library {
    std::vector<pd_gconv *> plans;
};

extern "C" {

pd_status pd_gconv_open(pd_gconv_library **out, pd_cuda *device, const char *json, pd_err *err)
{
    (void)device;
    if (json) return PD_FAIL(err, PD_EDEVICE, "the emulation has no offline plans");
#ifdef __GLIBC__ /* what a call needs is used again by the next, not given back */
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
    *out = new pd_gconv_library;
    return PD_OK;
}

void pd_gconv_close(pd_gconv_library *l)
{
    if (!l) return;
    for (pd_gconv *p : l->plans) delete p;
    delete l;
}

const char *pd_gconv_version(const pd_gconv_library *l)
{
    (void)l;
    return "emulation";
}

pd_status pd_gconv_plan(const pd_gconv **out, pd_cuda *device, const pd_gconv_desc *d, pd_err *err)
{
    const int unit = d->store == PD_STORE_32 ? 4 : 8; /* as strict as the header says */
    if (d->shape.c / d->shape.groups % unit || d->shape.k / d->shape.groups % unit)
        return PD_FAIL(err, PD_EDEVICE, "%d and %d channels are not multiples of %d", d->shape.c, d->shape.k, unit);
    *out = new pd_gconv{*d};
    device->conv->plans.push_back((pd_gconv *)*out);
    return PD_OK;
}

size_t pd_gconv_workspace(const pd_gconv *p)
{
    return p ? 512 : 0; /* so that its place is planned and, below, written */
}

double pd_gconv_ms(const pd_gconv *p)
{
    (void)p;
    return 0;
}

pd_status pd_grouped_time(double *ms, pd_cuda *device, const pd_conv_shape *s, pd_store store, pd_err *err)
{
    (void)device, (void)s, (void)store, (void)err;
    *ms = 0;
    return PD_OK;
}

pd_status pd_gconv_run(pd_cuda *device, const pd_gconv *p, const pd_gconv_memory *memory, pd_err *err)
{
    (void)err;
    const pd_gconv_desc d = p->desc;
    const pd_gconv_memory m = *memory;
    emulate::enqueue(device->stream, [=] {
        memset(m.workspace, 0xff, 512);
        convolve(d, m);
    });
    return PD_OK;
}

struct pd_gemm_library {
    int unused;
};

pd_status pd_gemm_open(pd_gemm_library **out, pd_cuda *device, pd_err *err)
{
    (void)device;
    (void)err;
    *out = new pd_gemm_library{0};
    return PD_OK;
}

void pd_gemm_close(pd_gemm_library *l)
{
    delete l;
}

pd_status pd_gemm_plan(double *ms, pd_cuda *device, const pd_gemm *g, pd_err *err)
{
    (void)device;
    (void)g;
    (void)err;
    *ms = 0;
    return PD_OK;
}

pd_status pd_gemm_run(pd_cuda *device, const pd_gemm *g0, const void *a, const void *b, float beta, void *c,
                      pd_err *err)
{
    (void)err;
    const pd_gemm g = *g0;
    emulate::enqueue(device->stream, [=] {
        const bool coarse = g.tf32 && g.in == PD_STORE_32;
        const std::vector<float> rows = lines(a, g.in, coarse, g.m, g.k, g.lda, g.ta);
        const std::vector<float> columns = lines(b, g.in, coarse, g.n, g.k, g.ldb, !g.tb);
        for (int i = 0; i < g.m; i++)
            for (int j = 0; j < g.n; j++) {
                const double sum = dot(&rows[(size_t)i * g.k], &columns[(size_t)j * g.k], g.k);
                const size_t at = (size_t)i * g.ldc + j;
                put(c, g.out, at, (float)sum + (beta != 0 ? beta * get(c, g.out, at) : 0));
            }
    });
    return PD_OK;
}

} // extern "C"
