/* Focal loss and binary cross-entropy. A block has a piece of one image's logits on one level. */
#include "kernels/cuda/launch.cuh"

#include "kernels/bce_loss_math.h"
#include "kernels/cuda/dense_loss.h"
#include "kernels/cuda/total.h"
#include "kernels/focal_loss_math.h"

#include <math.h>

using namespace pd;

namespace
{

constexpr int PIECE = 32 * PD_THREADS; /* logits */

/* e = exp(-|x|), l = log(1 + e) and big = 1 / (1 + e): where maps have 16 bits by the processor's short forms. l is off
 * by at most 5e-7 then, the others by some 1e-6 of their size: little beside what the maps round. */
template <class T> struct exponentials {
    static const bool quick = sizeof(T) == 2;
    float e, l, big;
    static __device__ __forceinline__ float power(float x)
    {
#ifdef __CUDACC__
        if (quick) return __expf(x);
#endif
        return expf(x);
    }
    explicit __device__ __forceinline__ exponentials(float x) : e(power(-fabsf(x)))
    {
#ifdef __CUDACC__
        if (quick) {
            l = __logf(1.f + e);
            big = __fdividef(1.f, 1.f + e);
            return;
        }
#endif
        l = log1pf(e);
        big = 1.f / (1.f + e);
    }
};

/* A term of the loss; own: the logit is that of its box's class. E: its exponentials. */
template <class E> struct focal_square { /* gamma 2 */
    float alpha;
    __device__ __forceinline__ pd_focal_parts split(float x) const
    {
        const E of(x);
        return pd_focal_split(x, of.e, of.l, of.big);
    }
    __device__ __forceinline__ float value(float x, bool own) const
    {
        const pd_focal_parts s = split(own ? -x : x);
        return pd_focal_value(s, s.p * s.p, own ? alpha : 1 - alpha);
    }
    __device__ __forceinline__ float slope(float x, bool own) const
    {
        const pd_focal_parts s = split(own ? -x : x);
        const float f = pd_focal_slope(s, s.p * s.p, own ? alpha : 1 - alpha, 2.f);
        return own ? -f : f;
    }
};

template <class E> struct focal_power {
    focal_square<E> base;
    float gamma;
    __device__ __forceinline__ float value(float x, bool own) const
    {
        const pd_focal_parts s = base.split(own ? -x : x);
        return pd_focal_value(s, E::power(-gamma * s.minus_log_p), own ? base.alpha : 1 - base.alpha);
    }
    __device__ __forceinline__ float slope(float x, bool own) const
    {
        const pd_focal_parts s = base.split(own ? -x : x);
        const float f = pd_focal_slope(s, E::power(-gamma * s.minus_log_p), own ? base.alpha : 1 - base.alpha, gamma);
        return own ? -f : f;
    }
};

template <class E> struct cross_entropy {
    __device__ __forceinline__ float value(float x, bool own) const
    {
        return pd_bce_value(own ? -x : x, E(x).l);
    }
    __device__ __forceinline__ float slope(float x, bool own) const
    {
        const float s = pd_bce_slope(own ? -x : x, E(x).e);
        return own ? -s : s;
    }
};

/* Number of each level's first piece, of those of an image. */
struct pieces {
    unsigned first[PD_MAX_LEVELS + 1];
};

/* Where a block works: logits [begin, end) of an image on a level, of `all` there. */
struct piece {
    int level;
    unsigned begin, end;
    size_t all;
    const int *label; /* of the image's boxes on the level */
};

__host__ __device__ __forceinline__ size_t level_logits(const pd_dense_maps &m, int level)
{
    return (size_t)(m.first[level + 1] - m.first[level]) * (size_t)m.k;
}

__device__ __forceinline__ piece piece_of(const pd_dense_maps &m, const pieces &p)
{
    piece out;
    out.level = 0;
    while (blockIdx.x >= p.first[out.level + 1]) out.level++;
    out.all = level_logits(m, out.level);
    out.begin = (blockIdx.x - p.first[out.level]) * (unsigned)PIECE;
    out.end = out.all - out.begin < (unsigned)PIECE ? (unsigned)out.all : out.begin + (unsigned)PIECE;
    out.label = m.label + (size_t)blockIdx.y * (size_t)m.boxes + m.first[out.level];
    return out;
}

/* Calls f(j, own) for those of the V logits from i on that count. */
template <int V, class F> __device__ __forceinline__ void each(const piece &p, unsigned i, int k, F f)
{
    unsigned box = i / (unsigned)k;
    int c = (int)(i % (unsigned)k), label = p.label[box];
    if (V > 1 && c + V <= k) { /* of one box */
        if (label < 0) return;
#pragma unroll
        for (int j = 0; j < V; j++) f(j, label == c + j);
        return;
    }
#pragma unroll
    for (int j = 0; j < V; j++) {
        if (label >= 0) f(j, label == c);
        if (++c == k && j + 1 < V) {
            c = 0;
            label = p.label[++box];
        }
    }
}

/* grid (pieces of an image, images); parts: one for each block */
template <class T, int V, class Term>
__global__ void __launch_bounds__(PD_THREADS)
    dense_forward(pd_dense_maps m, pieces at, Term term, double *__restrict__ parts)
{
    __shared__ float shared[32];
    const piece p = piece_of(m, at);
    const T *x = (const T *)m.x[p.level] + (size_t)blockIdx.y * p.all;
    float sum = 0, v[V];
    for (unsigned i = p.begin + threadIdx.x * V; i < p.end; i += PD_THREADS * V) {
        load<V>(x + i, v);
        each<V>(p, i, m.k, [&](int j, bool own) { sum += term.value(v[j], own); });
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0)
        parts[(size_t)blockIdx.y * gridDim.x + blockIdx.x] = (double)m.weight[blockIdx.y] * (double)sum;
}

template <class T, int V, class Term>
__global__ void __launch_bounds__(PD_THREADS)
    dense_backward(pd_dense_maps m, pieces at, Term term, const float *__restrict__ dloss)
{
    const piece p = piece_of(m, at);
    if (!m.dx[p.level]) return;
    const T *x = (const T *)m.x[p.level] + (size_t)blockIdx.y * p.all;
    T *dx = (T *)m.dx[p.level] + (size_t)blockIdx.y * p.all;
    const float scale = m.weight[blockIdx.y] * *dloss;
    const bool add = m.add[p.level];
    float v[V], g[V];
    for (unsigned i = p.begin + threadIdx.x * V; i < p.end; i += PD_THREADS * V) {
        load<V>(x + i, v);
        begin<V>(dx + i, add, g);
        each<V>(p, i, m.k, [&](int j, bool own) { g[j] += scale * term.slope(v[j], own); });
        store<V>(dx + i, g);
    }
}

pieces pieces_of(const pd_dense_maps *m)
{
    pieces p = {};
    for (int l = 0; l < m->levels; l++)
        p.first[l + 1] = p.first[l] + (unsigned)((level_logits(*m, l) + PIECE - 1) / PIECE);
    return p;
}

bool in_eights(const pd_dense_maps *m)
{
    for (int l = 0; l < m->levels; l++)
        if (level_logits(*m, l) % 8) return false;
    return true;
}

template <class T, class F> int by_term(const pd_dense_maps *m, F f)
{
    using E = exponentials<T>;
    const focal_square<E> square = {m->alpha};
    if (!m->focal) return f(cross_entropy<E>{});
    if (m->gamma == 2.f) return f(square);
    return f(focal_power<E>{square, m->gamma});
}

} // namespace

size_t pd_dense_parts(const pd_dense_maps *m)
{
    return (size_t)pieces_of(m).first[m->levels] * (size_t)m->n;
}

int pd_dense_fwd(const pd_dense_maps *m, double *parts, float *loss, cudaStream_t stream)
{
    const pieces p = pieces_of(m);
    const dim3 grid(p.first[m->levels], (unsigned)m->n);
    const int code = by_store(m->store, [&](auto t) {
        return by_width(in_eights(m), [&](auto v) {
            return by_term<decltype(t)>(m, [&](auto term) {
                return launch_sync(dense_forward<decltype(t), decltype(v)::value, decltype(term)>, grid,
                                   dim3(PD_THREADS), stream, *m, p, term, parts);
            });
        });
    });
    return code ? code : pd_cuda_total(parts, pd_dense_parts(m), 1, loss, stream);
}

int pd_dense_bwd(const pd_dense_maps *m, const float *dloss, cudaStream_t stream)
{
    const pieces p = pieces_of(m);
    const dim3 grid(p.first[m->levels], (unsigned)m->n);
    return by_store(m->store, [&](auto t) {
        return by_width(in_eights(m), [&](auto v) {
            return by_term<decltype(t)>(m, [&](auto term) {
                return launch(dense_backward<decltype(t), decltype(v)::value, decltype(term)>, grid, dim3(PD_THREADS),
                              stream, *m, p, term, dloss);
            });
        });
    });
}
