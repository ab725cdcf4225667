/* Softmax of short rows, and excitation by a sigmoid. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/gate.h"

using namespace pd;

namespace
{

__global__ void softmax_forward(int n, int k, const float *__restrict__ x, float *__restrict__ y)
{
    const int r = (int)first_item();
    if (r >= n) return;
    float top = x[(size_t)r * (size_t)k], sum = 0;
    for (int i = 1; i < k; i++) top = fmaxf(top, x[(size_t)r * (size_t)k + (size_t)i]);
    for (int i = 0; i < k; i++) sum += expf(x[(size_t)r * (size_t)k + (size_t)i] - top);
    for (int i = 0; i < k; i++)
        y[(size_t)r * (size_t)k + (size_t)i] = expf(x[(size_t)r * (size_t)k + (size_t)i] - top) / sum;
}

__global__ void softmax_backward(int n, int k, const float *__restrict__ y, const float *__restrict__ dy,
                                 float *__restrict__ dx, bool add)
{
    const int r = (int)first_item();
    if (r >= n) return;
    float dot = 0;
    for (int i = 0; i < k; i++) dot += y[(size_t)r * (size_t)k + (size_t)i] * dy[(size_t)r * (size_t)k + (size_t)i];
    for (int i = 0; i < k; i++) {
        const size_t at = (size_t)r * (size_t)k + (size_t)i;
        dx[at] = y[at] * (dy[at] - dot) + (add ? dx[at] : 0.f);
    }
}

__device__ __forceinline__ float sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}

template <class T, class M> __global__ void excite_forward(pd_excite_args e)
{
    const T *x = (const T *)e.x, *residual = (const T *)e.residual;
    const M *m = (const M *)e.m;
    T *y = (T *)e.out;
    const size_t items = (size_t)e.n * (size_t)e.h * (size_t)e.w * (size_t)e.c;
    for (size_t item = first_item(); item < items; item += item_step()) {
        const int c = (int)(item % (unsigned)e.c);
        const size_t pixel = item / (unsigned)e.c, row = pixel / (unsigned)e.w, image = row / (unsigned)e.h;
        const int my = (int)((long)(row % (unsigned)e.h) * e.mh / e.h),
                  mx = (int)((long)(pixel % (unsigned)e.w) * e.mw / e.w);
        const float gate = sigmoid(
            to_float(m[((image * (size_t)e.mh + (size_t)my) * (size_t)e.mw + (size_t)mx) * (size_t)e.c + (size_t)c]));
        const float v = to_float(x[item]) * gate + (residual ? to_float(residual[item]) : 0.f);
        y[item] = from_float<T>(e.relu && !(v > 0) ? 0.f : v);
    }
}

/* One block a cell of m and 64 of its channels: it sums over the pixels that read the cell. */
template <class T, class M> __global__ void __launch_bounds__(PD_THREADS) excite_backward(pd_excite_args e)
{
    __shared__ float shared[slab<1>::rows * PD_SLAB];
    const T *x = (const T *)e.x, *y = (const T *)e.y, *dy = (const T *)e.dy;
    T *dx = (T *)e.dx, *dresidual = (T *)e.dresidual;
    const int c = (int)blockIdx.x * PD_SLAB + (int)threadIdx.x % PD_SLAB, lane = (int)threadIdx.x / PD_SLAB;
    const size_t cell = blockIdx.y, image = cell / (unsigned)(e.mh * e.mw);
    const int my = (int)(cell / (unsigned)e.mw % (unsigned)e.mh), mx = (int)(cell % (unsigned)e.mw);
    const int y0 = (my * e.h + e.mh - 1) / e.mh, y1 = ((my + 1) * e.h + e.mh - 1) / e.mh;
    const int x0 = (mx * e.w + e.mw - 1) / e.mw, x1 = ((mx + 1) * e.w + e.mw - 1) / e.mw, wide = x1 - x0;
    float sum[1] = {0}, s = 0;
    if (c < e.c) s = sigmoid(to_float(((const M *)e.m)[cell * (size_t)e.c + (size_t)c]));
    for (int p = lane; c < e.c && p < (y1 - y0) * wide; p += slab<1>::rows) {
        const int iy = y0 + p / wide, ix = x0 + p % wide;
        const size_t at = ((image * (size_t)e.h + (size_t)iy) * (size_t)e.w + (size_t)ix) * (size_t)e.c + (size_t)c;
        const float g = e.relu && !(to_float(y[at]) > 0) ? 0.f : to_float(dy[at]);
        sum[0] += g * to_float(x[at]);
        if (dx) dx[at] = from_float<T>(g * s + (e.add_x ? to_float(dx[at]) : 0.f));
        if (dresidual) dresidual[at] = from_float<T>(g + (e.add_residual ? to_float(dresidual[at]) : 0.f));
    }
    const float total = column_sum<1>(sum, shared);
    const int channel = (int)blockIdx.x * PD_SLAB + (int)threadIdx.x;
    if (e.dm && threadIdx.x < PD_SLAB && channel < e.c) {
        M *to = (M *)e.dm + cell * (size_t)e.c + (size_t)channel;
        *to =
            from_float<M>(total * s * (1 - s) + (e.add_m ? to_float(*to) : 0.f)); /* thread i < 64 has channel i's s */
    }
}

/* m is a row of floats or a map of x's type. */
template <class F> int by_types(const pd_excite_args *e, F f)
{
    return by_store(e->store, [&](auto t) { return e->m_store == PD_STORE_32 ? f(t, float{}) : f(t, t); });
}

} // namespace

int pd_row_softmax_fwd(int n, int k, const float *x, float *y, cudaStream_t stream)
{
    return launch(softmax_forward, blocks_for((size_t)n), dim3(PD_THREADS), stream, n, k, x, y);
}

int pd_row_softmax_bwd(int n, int k, const float *y, const float *dy, float *dx, bool add, cudaStream_t stream)
{
    return launch(softmax_backward, blocks_for((size_t)n), dim3(PD_THREADS), stream, n, k, y, dy, dx, add);
}

int pd_excite_fwd(const pd_excite_args *e, cudaStream_t stream)
{
    const size_t items = (size_t)e->n * (size_t)e->h * (size_t)e->w * (size_t)e->c;
    return by_types(e, [&](auto t, auto m) {
        return launch(excite_forward<decltype(t), decltype(m)>, blocks_for(items), dim3(PD_THREADS), stream, *e);
    });
}

int pd_excite_bwd(const pd_excite_args *e, cudaStream_t stream)
{
    const dim3 grid((unsigned)((e->c + PD_SLAB - 1) / PD_SLAB), (unsigned)(e->n * e->mh * e->mw));
    return by_types(e, [&](auto t, auto m) {
        return launch_sync(excite_backward<decltype(t), decltype(m)>, grid, dim3(PD_THREADS), stream, *e);
    });
}
