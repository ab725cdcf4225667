/* L1 and smooth L1 of boxes' offsets: one thread a box. */
#include "kernels/cuda/launch.cuh"

#include "kernels/box_loss_math.h"
#include "kernels/cuda/box_loss.h"
#include "kernels/cuda/total.h"

using namespace pd;

namespace
{

constexpr int PIECE = 4 * PD_THREADS; /* boxes of a block */

/* Where a box's offsets lie. */
struct offsets {
    int level;
    size_t at;
};

__device__ __forceinline__ offsets offsets_of(const pd_box_maps &m, size_t image, int b)
{
    offsets o;
    o.level = 0;
    while (b >= m.first[o.level + 1]) o.level++;
    const int in_level = m.first[o.level + 1] - m.first[o.level];
    o.at = 4 * (image * (size_t)in_level + (size_t)(b - m.first[o.level]));
    return o;
}

template <class T>
__device__ __forceinline__ void miss(const pd_box_maps &m, size_t image, int b, int match, const offsets &o,
                                     float (&d)[4])
{
    float predicted[4];
    load<4>((const T *)m.x[o.level] + o.at, predicted);
    pd_box_miss(d, &m.cfg.coder, m.box[(m.shared ? 0 : image * (size_t)m.boxes) + (size_t)b],
                m.gt[image * (size_t)m.g + (size_t)match], predicted);
}

/* grid (pieces of an image, images); parts: one for each block */
template <class T> __global__ void __launch_bounds__(PD_THREADS) box_forward(pd_box_maps m, double *__restrict__ parts)
{
    __shared__ float shared[32];
    const size_t image = blockIdx.y;
    float sum = 0;
    for (int i = (int)threadIdx.x; i < PIECE; i += PD_THREADS) {
        const int b = (int)blockIdx.x * PIECE + i;
        if (b >= m.boxes) break;
        const int match = m.match[image * (size_t)m.boxes + (size_t)b];
        if (match < 0) continue;
        if (match >= m.g) {
            sum = NAN;
            continue;
        }
        float d[4];
        miss<T>(m, image, b, match, offsets_of(m, image, b), d);
#pragma unroll
        for (int k = 0; k < 4; k++) sum += pd_smooth_l1(d[k], m.cfg.beta);
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) parts[image * gridDim.x + blockIdx.x] = (double)m.weight[image] * (double)sum;
}

template <class T>
__global__ void __launch_bounds__(PD_THREADS) box_backward(pd_box_maps m, const float *__restrict__ dloss)
{
    const size_t image = blockIdx.y;
    const float scale = m.weight[image] * *dloss;
    for (int i = (int)threadIdx.x; i < PIECE; i += PD_THREADS) {
        const int b = (int)blockIdx.x * PIECE + i;
        if (b >= m.boxes) return;
        const offsets o = offsets_of(m, image, b);
        const int match = m.match[image * (size_t)m.boxes + (size_t)b];
        const bool used = match >= 0 && match < m.g, add = m.add[o.level];
        if (!m.dx[o.level] || (add && !used)) continue;
        T *at = (T *)m.dx[o.level] + o.at;
        float g[4], d[4];
        begin<4>(at, add, g);
        if (used) {
            miss<T>(m, image, b, match, o, d);
#pragma unroll
            for (int k = 0; k < 4; k++) g[k] += scale * pd_smooth_l1_slope(d[k], m.cfg.beta);
        }
        store<4>(at, g);
    }
}

dim3 grid_of(const pd_box_maps *m)
{
    return dim3((unsigned)((m->boxes + PIECE - 1) / PIECE), (unsigned)m->n);
}

} // namespace

size_t pd_box_parts(const pd_box_maps *m)
{
    return (size_t)grid_of(m).x * (size_t)m->n;
}

int pd_box_fwd(const pd_box_maps *m, double *parts, float *loss, cudaStream_t stream)
{
    const int code = by_store(m->store, [&](auto t) {
        return launch_sync(box_forward<decltype(t)>, grid_of(m), dim3(PD_THREADS), stream, *m, parts);
    });
    return code ? code : pd_cuda_total(parts, pd_box_parts(m), 1, loss, stream);
}

int pd_box_bwd(const pd_box_maps *m, const float *dloss, cudaStream_t stream)
{
    return by_store(m->store, [&](auto t) {
        return launch(box_backward<decltype(t)>, grid_of(m), dim3(PD_THREADS), stream, *m, dloss);
    });
}
