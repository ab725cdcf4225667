/* Max pooling and the global average. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/pool.h"

using namespace pd;

namespace
{

template <class T>
__global__ void max_forward(pd_pool_shape s, const T *__restrict__ x, T *__restrict__ y,
                            unsigned char *__restrict__ which)
{
    const size_t items = (size_t)s.n * (size_t)s.oh * (size_t)s.ow * (size_t)s.c;
    for (size_t item = first_item(); item < items; item += item_step()) {
        const int c = (int)(item % (unsigned)s.c);
        const size_t pixel = item / (unsigned)s.c, row = pixel / (unsigned)s.ow, image = row / (unsigned)s.oh;
        const int ox = (int)(pixel % (unsigned)s.ow), oy = (int)(row % (unsigned)s.oh);
        float best = 0;
        int where = -1;
        for (int r = 0; r < s.size; r++) {
            const int iy = oy * s.stride - s.pad + r;
            if (iy < 0 || iy >= s.h) continue;
            for (int q = 0; q < s.size; q++) {
                const int ix = ox * s.stride - s.pad + q;
                if (ix < 0 || ix >= s.w) continue;
                const float v =
                    to_float(x[((image * (size_t)s.h + (size_t)iy) * (size_t)s.w + (size_t)ix) * (size_t)s.c + c]);
                if (where >= 0 && !(v > best)) continue;
                best = v;
                where = r * s.size + q;
            }
        }
        y[item] = from_float<T>(best);
        if (which) which[item] = (unsigned char)where;
    }
}

/* Every input gathers from the windows that chose it: one writer, a fixed order. */
template <class T>
__global__ void max_backward(pd_pool_shape s, const T *__restrict__ dy, const unsigned char *__restrict__ which,
                             T *__restrict__ dx, bool add)
{
    const size_t items = (size_t)s.n * (size_t)s.h * (size_t)s.w * (size_t)s.c;
    for (size_t item = first_item(); item < items; item += item_step()) {
        const int c = (int)(item % (unsigned)s.c);
        const size_t pixel = item / (unsigned)s.c, row = pixel / (unsigned)s.w, image = row / (unsigned)s.h;
        const int ix = (int)(pixel % (unsigned)s.w), iy = (int)(row % (unsigned)s.h);
        float sum = add ? to_float(dx[item]) : 0.f;
        for (int r = 0; r < s.size; r++) {
            const int ty = iy + s.pad - r;
            if (ty < 0 || ty % s.stride || ty / s.stride >= s.oh) continue;
            for (int q = 0; q < s.size; q++) {
                const int tx = ix + s.pad - q;
                if (tx < 0 || tx % s.stride || tx / s.stride >= s.ow) continue;
                const size_t at =
                    ((image * (size_t)s.oh + (size_t)(ty / s.stride)) * (size_t)s.ow + (size_t)(tx / s.stride)) *
                        (size_t)s.c +
                    c;
                if (which[at] == r * s.size + q) sum += to_float(dy[at]);
            }
        }
        dx[item] = from_float<T>(sum);
    }
}

/* grid (slabs, images) */
template <class T, int V>
__global__ void __launch_bounds__(PD_THREADS)
    means_forward(pd_pool_shape s, const T *__restrict__ x, float *__restrict__ y)
{
    __shared__ float shared[slab<V>::rows * PD_SLAB];
    const int lane = (int)threadIdx.x % slab<V>::lanes, row = (int)threadIdx.x / slab<V>::lanes;
    const int c = (int)blockIdx.x * PD_SLAB + lane * V, hw = s.h * s.w;
    const T *from = x + (size_t)blockIdx.y * (size_t)hw * (size_t)s.c;
    float sum[V], v[V];
    for (int i = 0; i < V; i++) sum[i] = 0;
    for (int r = row; c < s.c && r < hw; r += slab<V>::rows) {
        load<V>(from + (size_t)r * (size_t)s.c + c, v);
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] += v[i];
    }
    const float total = column_sum<V>(sum, shared);
    const int channel = (int)blockIdx.x * PD_SLAB + (int)threadIdx.x;
    if (threadIdx.x < PD_SLAB && channel < s.c) y[(size_t)blockIdx.y * (size_t)s.c + channel] = total / (float)hw;
}

template <class T, int V>
__global__ void means_backward(pd_pool_shape s, const float *__restrict__ dy, T *__restrict__ dx, bool add)
{
    const unsigned wide = (unsigned)(s.c / V);
    const size_t hw = (size_t)s.h * (size_t)s.w, items = (size_t)s.n * hw * wide;
    const float share = 1.f / (float)hw;
    for (size_t item = first_item(); item < items; item += item_step()) {
        const size_t pixel = item / wide;
        const int c = (int)(item % wide) * V;
        float g[V], was[V];
        T *at = dx + pixel * (size_t)s.c + c;
#pragma unroll
        for (int i = 0; i < V; i++) was[i] = 0;
        load<V>(dy + pixel / hw * (size_t)s.c + c, g);
        if (add) load<V>(at, was);
#pragma unroll
        for (int i = 0; i < V; i++) was[i] += share * g[i];
        store<V>(at, was);
    }
}

} // namespace

int pd_max_pool_fwd(const pd_pool_shape *s, const void *x, void *y, unsigned char *which, cudaStream_t stream)
{
    const size_t items = (size_t)s->n * (size_t)s->oh * (size_t)s->ow * (size_t)s->c;
    return by_store(s->store, [&](auto t) {
        using T = decltype(t);
        return launch(max_forward<T>, blocks_for(items), dim3(PD_THREADS), stream, *s, (const T *)x, (T *)y, which);
    });
}

int pd_max_pool_bwd(const pd_pool_shape *s, const void *dy, const unsigned char *which, void *dx, bool add,
                    cudaStream_t stream)
{
    const size_t items = (size_t)s->n * (size_t)s->h * (size_t)s->w * (size_t)s->c;
    return by_store(s->store, [&](auto t) {
        using T = decltype(t);
        return launch(max_backward<T>, blocks_for(items), dim3(PD_THREADS), stream, *s, (const T *)dy, which, (T *)dx,
                      add);
    });
}

int pd_means_fwd(const pd_pool_shape *s, const void *x, float *y, cudaStream_t stream)
{
    const dim3 grid((unsigned)((s->c + PD_SLAB - 1) / PD_SLAB), (unsigned)s->n);
    return by_store(s->store, [&](auto t) {
        using T = decltype(t);
        return by_width(s->c % 8 == 0, [&](auto v) {
            return launch_sync(means_forward<T, decltype(v)::value>, grid, dim3(PD_THREADS), stream, *s, (const T *)x,
                               y);
        });
    });
}

int pd_means_bwd(const pd_pool_shape *s, const float *dy, void *dx, bool add, cudaStream_t stream)
{
    const size_t items = (size_t)s->n * (size_t)s->h * (size_t)s->w * (size_t)s->c;
    return by_store(s->store, [&](auto t) {
        using T = decltype(t);
        return by_width(s->c % 8 == 0, [&](auto v) {
            constexpr int V = decltype(v)::value;
            return launch(means_backward<T, V>, blocks_for(items / V), dim3(PD_THREADS), stream, *s, dy, (T *)dx, add);
        });
    });
}
