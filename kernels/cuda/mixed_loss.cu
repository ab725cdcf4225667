/* The loss of mixed images: one block a row, then one block for the sums. */
#include "kernels/cuda/launch.cuh"

#include "kernels/bce_loss_math.h"
#include "kernels/cuda/mixed_loss.h"
#include "kernels/cuda/total.h"
#include "kernels/mixed_loss_math.h"

#include <math.h>

using namespace pd;

namespace
{

template <class T>
__global__ void __launch_bounds__(PD_THREADS)
    rows_forward(pd_mixed_rows m, pd_mixed_row *__restrict__ row, double *__restrict__ parts)
{
    __shared__ float shared[32];
    const T *x = (const T *)m.x + (size_t)blockIdx.x * (size_t)m.k;
    const int a = m.a[blockIdx.x], b = m.b[blockIdx.x];
    const float share = *m.share;
    float top = -INFINITY, first = (float)m.k, sum = 0, loss = 0;
    for (int c = (int)threadIdx.x; c < m.k; c += PD_THREADS) top = fmaxf(top, to_float(x[c]));
    top = block_max(top, shared);
    for (int c = (int)threadIdx.x; c < m.k; c += PD_THREADS) {
        const float v = to_float(x[c]);
        sum += expf(v - top);
        if (v == top && (float)c < first) first = (float)c;
    }
    sum = block_sum(sum, shared);
    first = -block_max(-first, shared); /* the first of equals; class numbers are exact in a float up to 2^24 */
    const float log_sum = logf(sum);
    for (int c = (int)threadIdx.x; c < m.k; c += PD_THREADS) {
        const float v = to_float(x[c]), t = pd_mixed_target(&m.cfg, m.k, c, a, b, share);
        loss += m.cfg.kind == PD_MIXED_SIGMOID ? pd_bce_value(v, log1pf(expf(-fabsf(v)))) - v * t
                                               : t * (log_sum + (top - v));
    }
    loss = block_sum(loss, shared);
    if (threadIdx.x) return;
    const bool valid = a >= 0 && a < m.k && b >= 0 && b < m.k && share >= 0 && share <= 1;
    row[blockIdx.x] = pd_mixed_row{top, 1 / sum};
    parts[blockIdx.x] = valid ? (double)loss : (double)NAN;
    parts[(size_t)m.rows + blockIdx.x] = (int)first == (share >= 0.5f ? a : b) ? 1 : 0;
}

template <class T>
__global__ void rows_backward(pd_mixed_rows m, const pd_mixed_row *__restrict__ row, const float *__restrict__ dloss,
                              float share_of_mean, T *dx, bool add)
{
    const size_t items = (size_t)m.rows * (size_t)m.k;
    const float scale = *dloss * share_of_mean, share = *m.share;
    for (size_t item = first_item(); item < items; item += item_step()) {
        const size_t r = item / (unsigned)m.k;
        const int c = (int)(item % (unsigned)m.k);
        const float v = to_float(((const T *)m.x)[item]);
        const float p = m.cfg.kind == PD_MIXED_SIGMOID ? pd_bce_slope(v, expf(-fabsf(v)))
                                                       : expf(v - row[r].max) * row[r].inverse_sum;
        const float g = scale * (p - pd_mixed_target(&m.cfg, m.k, c, m.a[r], m.b[r], share));
        dx[item] = from_float<T>(g + (add ? to_float(dx[item]) : 0.f));
    }
}

} // namespace

int pd_mixed_fwd(const pd_mixed_rows *m, pd_mixed_row *row, double *parts, float *loss, float *correct,
                 cudaStream_t stream)
{
    const size_t rows = (size_t)m->rows;
    int code = by_store(m->store, [&](auto t) {
        return launch_sync(rows_forward<decltype(t)>, dim3((unsigned)m->rows), dim3(PD_THREADS), stream, *m, row,
                           parts);
    });
    if (!code) code = pd_cuda_total(parts, rows, 1 / pd_mixed_terms(&m->cfg, m->rows, m->k), loss, stream);
    return code ? code : pd_cuda_total(parts + rows, rows, 1, correct, stream);
}

int pd_mixed_bwd(const pd_mixed_rows *m, const pd_mixed_row *row, const float *dloss, void *dx, bool add,
                 cudaStream_t stream)
{
    const float share_of_mean = (float)(1 / pd_mixed_terms(&m->cfg, m->rows, m->k));
    return by_store(m->store, [&](auto t) {
        using T = decltype(t);
        return launch(rows_backward<T>, blocks_for((size_t)m->rows * (size_t)m->k), dim3(PD_THREADS), stream, *m, row,
                      dloss, share_of_mean, (T *)dx, add);
    });
}
