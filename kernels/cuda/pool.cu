/* Max pooling and the global average. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/pool.h"

using namespace pd;

namespace
{

template <class T, int V>
__global__ void max_forward(pd_pool_shape s, const T *__restrict__ x, T *__restrict__ y,
                            unsigned char *__restrict__ which)
{
    const in_images<V> p(s.oh, s.ow, s.c);
    const int iy = p.y * s.stride - s.pad, ix = p.x * s.stride - s.pad;
    const int y0 = max(iy, 0), y1 = min(iy + s.size, s.h), x0 = max(ix, 0), x1 = min(ix + s.size, s.w);
    for (size_t image = p.image; image < (size_t)s.n; image += p.step) {
        const size_t at = p.at(image, p.y, p.x, s.oh, s.ow, s.c);
        float best[V], v[V];
        pack<unsigned char, V> where = {};
#pragma unroll
        for (int i = 0; i < V; i++) best[i] = 0;
        for (int r = y0; r < y1; r++)
            for (int q = x0; q < x1; q++) {
                const bool first = r == y0 && q == x0;
                const int here = (r - iy) * s.size + q - ix;
                load<V>(x + p.at(image, r, q, s.h, s.w, s.c), v);
#pragma unroll
                for (int i = 0; i < V; i++)
                    if (first || v[i] > best[i]) {
                        best[i] = v[i];
                        where.e[i] = (unsigned char)here;
                    }
            }
        store<V>(y + at, best);
        if (which) *reinterpret_cast<pack<unsigned char, V> *>(which + at) = where;
    }
}

/* Every input gathers from the windows that chose it, the last ones first: one writer, a fixed order. */
template <class T, int V>
__global__ void max_backward(pd_pool_shape s, const T *__restrict__ dy, const unsigned char *__restrict__ which,
                             T *__restrict__ dx, bool add)
{
    const in_images<V> p(s.h, s.w, s.c);
    const int py = p.y + s.pad, px = p.x + s.pad; /* in the padded image */
    const int y0 = py < s.size ? 0 : (py - s.size) / s.stride + 1, y1 = min(py / s.stride, s.oh - 1);
    const int x0 = px < s.size ? 0 : (px - s.size) / s.stride + 1, x1 = min(px / s.stride, s.ow - 1);
    for (size_t image = p.image; image < (size_t)s.n; image += p.step) {
        T *to = dx + p.at(image, p.y, p.x, s.h, s.w, s.c);
        float sum[V], g[V];
        begin<V>(to, add, sum);
#pragma unroll 1 /* size 3, stride 2: one turn or two */
        for (int y = y1; y >= y0; y--)
#pragma unroll 1
            for (int x = x1; x >= x0; x--) {
                const size_t at = p.at(image, y, x, s.oh, s.ow, s.c);
                const int here = (py - y * s.stride) * s.size + px - x * s.stride;
                const pack<unsigned char, V> chosen = *reinterpret_cast<const pack<unsigned char, V> *>(which + at);
                load<V>(dy + at, g);
#pragma unroll
                for (int i = 0; i < V; i++)
                    if (chosen.e[i] == here) sum[i] += g[i];
            }
        store<V>(to, sum);
    }
}

/* A block a slab and an image. */
template <class T, int V>
__global__ void __launch_bounds__(PD_THREADS)
    means_forward(pd_pool_shape s, const T *__restrict__ x, float *__restrict__ y)
{
    __shared__ float shared[slab<V>::rows * PD_SLAB];
    const int lane = (int)threadIdx.x % slab<V>::lanes, row = (int)threadIdx.x / slab<V>::lanes;
    const int first = slab_channel(s.c), c = first + lane * V, hw = s.h * s.w;
    const size_t image = slab_piece(s.c);
    const T *from = x + image * (size_t)hw * (size_t)s.c;
    float sum[V], v[V];
    for (int i = 0; i < V; i++) sum[i] = 0;
    for (int r = row; c < s.c && r < hw; r += slab<V>::rows) {
        load<V>(from + (size_t)r * (size_t)s.c + c, v);
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] += v[i];
    }
    const float total = column_sum<V>(sum, shared);
    const int channel = first + (int)threadIdx.x;
    if (threadIdx.x < PD_SLAB && channel < s.c) y[image * (size_t)s.c + channel] = total / (float)hw;
}

template <class T, int V>
__global__ void means_backward(pd_pool_shape s, const float *__restrict__ dy, T *__restrict__ dx, bool add)
{
    const unsigned wide = (unsigned)(s.c / V), hw = (unsigned)(s.h * s.w);
    const in_rows t = thread_in_rows(hw * wide);
    const int c = (int)(t.place % wide) * V;
    const float share = 1.f / (float)hw;
    for (size_t image = t.row; image < (size_t)s.n; image += t.step) {
        float g[V], was[V];
        T *at = dx + (image * hw * wide + t.place) * V;
        load<V>(dy + image * (size_t)s.c + c, g);
        begin<V>(at, add, was);
#pragma unroll
        for (int i = 0; i < V; i++) was[i] += share * g[i];
        store<V>(at, was);
    }
}

} // namespace

int pd_max_pool_fwd(const pd_pool_shape *s, const void *x, void *y, unsigned char *which, cudaStream_t stream)
{
    const size_t items = (size_t)s->oh * (size_t)s->ow * (size_t)s->c;
    return by_store(s->store, [&](auto t) {
        using T = decltype(t);
        return by_width(s->c % 8 == 0, [&](auto v) {
            constexpr int V = decltype(v)::value;
            return launch(max_forward<T, V>, blocks_for_rows((size_t)s->n, items / V), dim3(PD_THREADS), stream, *s,
                          (const T *)x, (T *)y, which);
        });
    });
}

int pd_max_pool_bwd(const pd_pool_shape *s, const void *dy, const unsigned char *which, void *dx, bool add,
                    cudaStream_t stream)
{
    const size_t items = (size_t)s->h * (size_t)s->w * (size_t)s->c;
    return by_store(s->store, [&](auto t) {
        using T = decltype(t);
        return by_width(s->c % 8 == 0, [&](auto v) {
            constexpr int V = decltype(v)::value;
            return launch(max_backward<T, V>, blocks_for_rows((size_t)s->n, items / V), dim3(PD_THREADS), stream, *s,
                          (const T *)dy, which, (T *)dx, add);
        });
    });
}

int pd_means_fwd(const pd_pool_shape *s, const void *x, float *y, cudaStream_t stream)
{
    return by_store(s->store, [&](auto t) {
        using T = decltype(t);
        return by_width(s->c % 8 == 0, [&](auto v) {
            return launch_sync(means_forward<T, decltype(v)::value>, slab_blocks(s->c, (size_t)s->n), dim3(PD_THREADS),
                               stream, *s, (const T *)x, y);
        });
    });
}

int pd_means_bwd(const pd_pool_shape *s, const float *dy, void *dx, bool add, cudaStream_t stream)
{
    const size_t items = (size_t)s->h * (size_t)s->w * (size_t)s->c;
    return by_store(s->store, [&](auto t) {
        using T = decltype(t);
        return by_width(s->c % 8 == 0, [&](auto v) {
            constexpr int V = decltype(v)::value;
            return launch(means_backward<T, V>, blocks_for_rows((size_t)s->n, items / V), dim3(PD_THREADS), stream, *s,
                          dy, (T *)dx, add);
        });
    });
}
