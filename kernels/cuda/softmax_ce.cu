/* Cross-entropy of a softmax: one block a row, then one block for the sums. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/softmax_ce.h"

#include <math.h>

using namespace pd;

namespace
{

template <class T>
__global__ void __launch_bounds__(PD_THREADS) rows_forward(pd_ce_shape s, const T *__restrict__ logits,
                                                           const int *__restrict__ label, pd_ce_row *__restrict__ row)
{
    __shared__ float shared[32];
    const T *x = logits + (size_t)blockIdx.x * (size_t)s.k;
    const int y = label[blockIdx.x];
    const bool used = y >= 0 && y < s.k;
    float top = -INFINITY, sum = 0, mean = 0, first = (float)s.k;
    for (int c = (int)threadIdx.x; c < s.k; c += PD_THREADS) top = fmaxf(top, to_float(x[c]));
    top = block_max(top, shared);
    for (int c = (int)threadIdx.x; c < s.k; c += PD_THREADS) {
        const float v = to_float(x[c]);
        sum += expf(v - top);
        mean += v;
        if (v == top && (float)c < first) first = (float)c;
    }
    sum = block_sum(sum, shared);
    mean = block_sum(mean, shared) / (float)s.k;
    first = -block_max(-first, shared); /* the first of equals; class numbers are exact in a float up to 2^24 */
    if (threadIdx.x) return;
    pd_ce_row r = {top, 1 / sum, 0.f, 0.f, 0.f};
    if (used) {
        r.loss = logf(sum) + (1 - s.smoothing) * (top - to_float(x[y])) + s.smoothing * (top - mean);
        r.correct = (int)first == y ? 1.f : 0.f;
    } else if (y >= s.k) {
        r.loss = NAN;
    }
    row[blockIdx.x] = r;
}

/* One block. */
__global__ void __launch_bounds__(PD_THREADS)
    rows_sum(pd_ce_shape s, const int *__restrict__ label, const float *__restrict__ weight,
             pd_ce_row *__restrict__ row, float *__restrict__ loss, float *__restrict__ correct)
{
    __shared__ float shared[32];
    float used = 0, total = 0, right = 0;
    for (int r = (int)threadIdx.x; r < s.rows; r += PD_THREADS) used += label[r] >= 0 ? 1.f : 0.f;
    used = block_sum(used, shared);
    const float mean = 1 / (used > 0 ? used : 1);
    for (int r = (int)threadIdx.x; r < s.rows; r += PD_THREADS) {
        row[r].weight = label[r] < 0 ? 0.f : weight ? weight[r / s.per_weight] : mean;
        total += row[r].weight * row[r].loss;
        right += row[r].correct;
    }
    total = block_sum(total, shared);
    right = block_sum(right, shared);
    if (threadIdx.x) return;
    *loss = total;
    *correct = right;
}

template <class T>
__global__ void rows_backward(pd_ce_shape s, const T *logits, const int *__restrict__ label,
                              const pd_ce_row *__restrict__ row, const float *__restrict__ dloss, T *dlogits, bool add)
{
    const size_t items = (size_t)s.rows * (size_t)s.k;
    for (size_t item = first_item(); item < items; item += item_step()) {
        const size_t r = item / (unsigned)s.k;
        const int c = (int)(item % (unsigned)s.k), y = label[r];
        float g = 0;
        if (y >= 0) {
            const float target = s.smoothing / (float)s.k + (c == y ? 1 - s.smoothing : 0.f);
            g = row[r].weight * *dloss * (expf(to_float(logits[item]) - row[r].max) * row[r].inverse_sum - target);
        }
        dlogits[item] = from_float<T>(g + (add ? to_float(dlogits[item]) : 0.f));
    }
}

} // namespace

int pd_ce_fwd(const pd_ce_shape *s, const void *logits, const int *label, const float *weight, pd_ce_row *row,
              float *loss, float *correct, cudaStream_t stream)
{
    const int code = by_store(s->store, [&](auto t) {
        using T = decltype(t);
        return launch_sync(rows_forward<T>, dim3((unsigned)s->rows), dim3(PD_THREADS), stream, *s, (const T *)logits,
                           label, row);
    });
    if (code) return code;
    return launch_sync(rows_sum, dim3(1), dim3(PD_THREADS), stream, *s, label, weight, row, loss, correct);
}

int pd_ce_bwd(const pd_ce_shape *s, const void *logits, const int *label, const pd_ce_row *row, const float *dloss,
              void *dlogits, bool add, cudaStream_t stream)
{
    return by_store(s->store, [&](auto t) {
        using T = decltype(t);
        return launch(rows_backward<T>, blocks_for((size_t)s->rows * (size_t)s->k), dim3(PD_THREADS), stream, *s,
                      (const T *)logits, label, row, dloss, (T *)dlogits, add);
    });
}
