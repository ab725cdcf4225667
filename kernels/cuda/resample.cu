/* Nearest-neighbour upsampling with addition, and taking every n-th pixel. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/resample.h"

using namespace pd;

namespace
{

template <class T, int V>
__global__ void up_forward(pd_resample s, const T *__restrict__ coarse, const T *lateral, T *y)
{
    const in_images<V> p(s.h, s.w, s.c);
    const int cy = (int)((unsigned)p.y * (unsigned)s.hc / (unsigned)s.h),
              cx = (int)((unsigned)p.x * (unsigned)s.wc / (unsigned)s.w);
    for (size_t image = p.image; image < (size_t)s.n; image += p.step) {
        const size_t at = p.at(image, p.y, p.x, s.h, s.w, s.c);
        float v[V], more[V];
        load<V>(lateral + at, v);
        load<V>(coarse + p.at(image, cy, cx, s.hc, s.wc, s.c), more);
#pragma unroll
        for (int i = 0; i < V; i++) v[i] += more[i];
        store<V>(y + at, v);
    }
}

/* The first of `fine` places that reads coarse place i: ceil(i * fine / coarse). */
__device__ __forceinline__ int first_reader(int i, int fine, int coarse)
{
    return (int)(((unsigned)i * (unsigned)fine + (unsigned)coarse - 1) / (unsigned)coarse);
}

template <class T, int V>
__global__ void up_backward(pd_resample s, const T *__restrict__ dy, T *__restrict__ dcoarse, bool add)
{
    const in_images<V> p(s.hc, s.wc, s.c);
    const int y0 = first_reader(p.y, s.h, s.hc), y1 = first_reader(p.y + 1, s.h, s.hc);
    const int x0 = first_reader(p.x, s.w, s.wc), x1 = first_reader(p.x + 1, s.w, s.wc);
    for (size_t image = p.image; image < (size_t)s.n; image += p.step) {
        T *to = dcoarse + p.at(image, p.y, p.x, s.hc, s.wc, s.c);
        float sum[V], g[V];
        begin<V>(to, add, sum);
        for (int y = y0; y < y1; y++)
            for (int x = x0; x < x1; x++) {
                load<V>(dy + p.at(image, y, x, s.h, s.w, s.c), g);
#pragma unroll
                for (int i = 0; i < V; i++) sum[i] += g[i];
            }
        store<V>(to, sum);
    }
}

template <class T, int V> __global__ void sub_forward(pd_resample s, const T *__restrict__ fine, T *__restrict__ coarse)
{
    const in_images<V> p(s.hc, s.wc, s.c);
    for (size_t image = p.image; image < (size_t)s.n; image += p.step) {
        float v[V];
        load<V>(fine + p.at(image, p.y * s.stride, p.x * s.stride, s.h, s.w, s.c), v);
        store<V>(coarse + p.at(image, p.y, p.x, s.hc, s.wc, s.c), v);
    }
}

template <class T, int V>
__global__ void sub_backward(pd_resample s, const T *__restrict__ dcoarse, T *__restrict__ dfine, bool add)
{
    const in_images<V> p(s.h, s.w, s.c);
    const int cy = p.y / s.stride, cx = p.x / s.stride;
    const bool taken = cy * s.stride == p.y && cx * s.stride == p.x;
    if (add && !taken) return;
    for (size_t image = p.image; image < (size_t)s.n; image += p.step) {
        T *to = dfine + p.at(image, p.y, p.x, s.h, s.w, s.c);
        float sum[V], g[V];
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] = g[i] = 0;
        if (add) load<V>(to, sum);
        if (taken) load<V>(dcoarse + p.at(image, cy, cx, s.hc, s.wc, s.c), g);
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] += g[i];
        store<V>(to, sum);
    }
}

/* f(element, vector, blocks) for a thread every V channels of the fine map or of the coarse one. */
template <class F> int launch_map(const pd_resample *s, bool fine, F f)
{
    const int sides = s->h | s->w | s->hc | s->wc;
    if (sides >= 1 << 15) return (int)cudaErrorInvalidValue; /* 32 bits hold products of two */
    const size_t items = (fine ? (size_t)s->h * (size_t)s->w : (size_t)s->hc * (size_t)s->wc) * (size_t)s->c;
    return by_store(s->store, [&](auto t) {
        return by_width(s->c % 8 == 0,
                        [&](auto v) { return f(t, v, blocks_for_rows((size_t)s->n, items / decltype(v)::value)); });
    });
}

} // namespace

int pd_upsample_add_fwd(const pd_resample *s, const void *coarse, const void *lateral, void *y, cudaStream_t stream)
{
    return launch_map(s, true, [&](auto t, auto v, dim3 blocks) {
        using T = decltype(t);
        return launch(up_forward<T, decltype(v)::value>, blocks, dim3(PD_THREADS), stream, *s, (const T *)coarse,
                      (const T *)lateral, (T *)y);
    });
}

int pd_upsample_add_bwd(const pd_resample *s, const void *dy, void *dcoarse, bool add, cudaStream_t stream)
{
    return launch_map(s, false, [&](auto t, auto v, dim3 blocks) {
        using T = decltype(t);
        return launch(up_backward<T, decltype(v)::value>, blocks, dim3(PD_THREADS), stream, *s, (const T *)dy,
                      (T *)dcoarse, add);
    });
}

int pd_subsample_fwd(const pd_resample *s, const void *fine, void *coarse, cudaStream_t stream)
{
    return launch_map(s, false, [&](auto t, auto v, dim3 blocks) {
        using T = decltype(t);
        return launch(sub_forward<T, decltype(v)::value>, blocks, dim3(PD_THREADS), stream, *s, (const T *)fine,
                      (T *)coarse);
    });
}

int pd_subsample_bwd(const pd_resample *s, const void *dcoarse, void *dfine, bool add, cudaStream_t stream)
{
    return launch_map(s, true, [&](auto t, auto v, dim3 blocks) {
        using T = decltype(t);
        return launch(sub_backward<T, decltype(v)::value>, blocks, dim3(PD_THREADS), stream, *s, (const T *)dcoarse,
                      (T *)dfine, add);
    });
}
