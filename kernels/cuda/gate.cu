/* Softmax of short rows, and excitation by a sigmoid. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/gate.h"

#include <limits.h>

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

/* How blocks share the cells of m: each cell has a team of rows of threads, a power of two; a block has the teams of
 * neighbouring cells, and of the pixels that read them `most` from a multiple of `most` on. */
struct teams {
    int rows, most;
    unsigned pieces; /* of a cell's pixels, a block each */
};

/* A thread's part: V channels from c on of a cell, and every teams.rows-th of its pixels; it is at one of them. */
template <int V> struct part {
    int c, left; /* pixels from this one to the last */
    unsigned cell;
    int x, wide; /* the pixel's column in the cell, and how many there are; INT_MAX: the cell's lines are x's */
    size_t pixel;

    __device__ __forceinline__ part(const pd_excite_args &e, const teams &t)
    {
        const unsigned mh = (unsigned)e.mh, mw = (unsigned)e.mw, h = (unsigned)e.h, w = (unsigned)e.w;
        const unsigned block = slab_piece(e.c), row = threadIdx.x / slab<V>::lanes, team = row / (unsigned)t.rows;
        c = slab_channel(e.c) + (int)(threadIdx.x % slab<V>::lanes) * V;
        cell = block / t.pieces * (slab<V>::rows / (unsigned)t.rows) + team;
        const unsigned line = cell / mw, image = line / mh, my = line % mh, mx = cell % mw;
        const unsigned y0 = (my * h + mh - 1) / mh, y1 = ((my + 1) * h + mh - 1) / mh;
        const unsigned x0 = (mx * w + mw - 1) / mw, x1 = ((mx + 1) * w + mw - 1) / mw;
        const int begin = (int)(block % t.pieces) * t.most, count = (int)((y1 - y0) * (x1 - x0)) - begin;
        const int first = (int)(row % (unsigned)t.rows);
        left = image < (unsigned)e.n && c < e.c ? min(count, t.most) - first : 0;
        wide = x1 - x0 == w ? INT_MAX : (int)(x1 - x0);
        x = begin + first;
        pixel = ((size_t)image * h + y0) * w + x0 + (size_t)x;
        if (left <= 0) return;
        pixel += (size_t)(x / wide) * (size_t)(e.w - wide);
        x %= wide;
    }
    __device__ __forceinline__ void go_on(const pd_excite_args &e, const teams &t)
    {
        left -= t.rows;
        x += t.rows;
        pixel += (size_t)t.rows;
        for (; x >= wide; x -= wide) pixel += (size_t)(e.w - wide);
    }
    template <class M> __device__ __forceinline__ void gate(const pd_excite_args &e, float (&to)[V]) const
    {
        load<V>((const M *)e.m + cell * (size_t)e.c + c, to);
#pragma unroll
        for (int i = 0; i < V; i++) to[i] = sigmoid(to[i]);
    }
};

template <class T, class M, int V>
__global__ void __launch_bounds__(PD_THREADS) excite_forward(pd_excite_args e, teams t)
{
    const T *x = (const T *)e.x, *residual = (const T *)e.residual;
    part<V> p(e, t);
    if (p.left <= 0) return;
    float gate[V], more[V], v[V];
    p.template gate<M>(e, gate);
#pragma unroll
    for (int i = 0; i < V; i++) more[i] = 0;
    for (; p.left > 0; p.go_on(e, t)) {
        const size_t at = p.pixel * (size_t)e.c + (size_t)p.c;
        load<V>(x + at, v);
        if (residual) load<V>(residual + at, more);
#pragma unroll
        for (int i = 0; i < V; i++) {
            v[i] = v[i] * gate[i] + more[i];
            if (e.relu && !(v[i] > 0)) v[i] = 0;
        }
        store<V>((T *)e.out + at, v);
    }
}

/* A team sums over its cell's pixels: there is one piece of them. */
template <class T, class M, int V>
__global__ void __launch_bounds__(PD_THREADS) excite_backward(pd_excite_args e, teams t)
{
    alignas(32) __shared__ float shared[slab<V>::rows * PD_SLAB];
    part<V> p(e, t);
    float gate[V], sum[V], v[V], g[V];
#pragma unroll
    for (int i = 0; i < V; i++) gate[i] = sum[i] = 0;
    if (p.left > 0) p.template gate<M>(e, gate);
    for (; p.left > 0; p.go_on(e, t)) {
        const size_t at = p.pixel * (size_t)e.c + (size_t)p.c;
        load<V>((const T *)e.dy + at, g);
        if (e.relu) {
            load<V>((const T *)e.y + at, v);
#pragma unroll
            for (int i = 0; i < V; i++) g[i] = v[i] > 0 ? g[i] : 0;
        }
        load<V>((const T *)e.x + at, v);
#pragma unroll
        for (int i = 0; i < V; i++) {
            sum[i] += g[i] * v[i];
            v[i] = g[i] * gate[i];
        }
        if (e.dx) put<V>((T *)e.dx + at, v, e.add_x);
        if (e.dresidual) put<V>((T *)e.dresidual + at, g, e.add_residual);
    }
    if (!e.dm) return;
    store<V>(shared + threadIdx.x * V, sum); /* a row of threads has the slab's channels */
    __syncthreads();
    const unsigned there = slab<V>::rows / (unsigned)t.rows, first = slab_piece(e.c) * there;
    for (unsigned i = threadIdx.x; i < there * PD_SLAB; i += PD_THREADS) {
        const unsigned cell = first + i / PD_SLAB, lane = i % PD_SLAB;
        const int c = slab_channel(e.c) + (int)lane;
        if (c >= e.c || cell >= (unsigned)e.n * (unsigned)e.mh * (unsigned)e.mw) continue;
        const size_t at = cell * (size_t)e.c + (size_t)c;
        const float s = sigmoid(to_float(((const M *)e.m)[at]));
        M *to = (M *)e.dm + at;
        float total = 0;
        for (int r = 0; r < t.rows; r++)
            total += shared[(i / PD_SLAB * (unsigned)t.rows + (unsigned)r) * PD_SLAB + lane];
        *to = from_float<M>(total * s * (1 - s) + (e.add_m ? to_float(*to) : 0.f));
    }
}

/* m is a row of floats or a map of x's type. */
template <class F> int by_types(const pd_excite_args *e, F f)
{
    return by_store(e->store, [&](auto t) { return e->m_store == PD_STORE_32 ? f(t, float{}) : f(t, t); });
}

/* So that 32 bits hold what `part` multiplies. */
bool is_narrow(const pd_excite_args *e)
{
    const int sides = e->h | e->w | e->mh | e->mw;
    return sides < 1 << 15;
}

/* With `each` pixels for a thread; 0: all of a cell in one piece. */
template <int V> teams teams_of(const pd_excite_args *e, int each)
{
    const int pixels = ((e->h + e->mh - 1) / e->mh) * ((e->w + e->mw - 1) / e->mw); /* of a cell, at most */
    teams t = {1, pixels, 1};
    while (t.rows < slab<V>::rows && 2 * t.rows <= pixels) t.rows *= 2;
    if (each) {
        t.most = each * t.rows;
        t.pieces = (unsigned)((pixels + t.most - 1) / t.most);
    }
    return t;
}

template <int V> dim3 team_blocks(const pd_excite_args *e, const teams &t)
{
    const size_t cells = (size_t)e->n * (size_t)e->mh * (size_t)e->mw, there = (size_t)(slab<V>::rows / t.rows);
    return slab_blocks(e->c, (cells + there - 1) / there * t.pieces);
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
    if (!is_narrow(e)) return (int)cudaErrorInvalidValue;
    return by_types(e, [&](auto x, auto m) {
        return by_width(e->c % 8 == 0, [&](auto v) {
            constexpr int V = decltype(v)::value;
            const teams t = teams_of<V>(e, 8);
            return launch(excite_forward<decltype(x), decltype(m), V>, team_blocks<V>(e, t), dim3(PD_THREADS), stream,
                          *e, t);
        });
    });
}

int pd_excite_bwd(const pd_excite_args *e, cudaStream_t stream)
{
    if (!is_narrow(e)) return (int)cudaErrorInvalidValue;
    return by_types(e, [&](auto x, auto m) {
        return by_width(e->c % 8 == 0, [&](auto v) {
            constexpr int V = decltype(v)::value;
            const teams t = teams_of<V>(e, 0);
            return launch_sync(excite_backward<decltype(x), decltype(m), V>, team_blocks<V>(e, t), dim3(PD_THREADS),
                               stream, *e, t);
        });
    });
}
