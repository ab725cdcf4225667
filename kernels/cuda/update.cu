/* The optimiser's step, the gradients' norm and scale, moving averages. */
#include "kernels/cuda/launch.cuh"

#include "kernels/clip_math.h"
#include "kernels/cuda/update.h"

using namespace pd;

namespace
{

__global__ void seed(float *to, float value, const pd_step_state *state)
{
    *to = value * state->scale;
}

__global__ void scale_start(pd_step_state *state, float value)
{
    state->scale = value;
    state->good_steps = 0;
    state->norm = 0;
}

/* Fixed blocks, so a fixed order. */
__global__ void __launch_bounds__(PD_THREADS)
    squares_of_blocks(const float *__restrict__ g, size_t count, double *__restrict__ out)
{
    __shared__ double shared[PD_THREADS];
    float sum = 0;
    for (size_t i = first_item(); i < count; i += item_step()) sum += g[i] * g[i];
    const double all = block_sum((double)sum, shared);
    if (threadIdx.x == 0) out[blockIdx.x] = all;
}

/* One block. */
__global__ void __launch_bounds__(PD_THREADS)
    add_squares(const double *__restrict__ blocks, int count, double *total, bool add)
{
    __shared__ double shared[PD_THREADS];
    double sum = 0;
    for (int i = (int)threadIdx.x; i < count; i += PD_THREADS) sum += blocks[i];
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) *total = sum + (add ? *total : 0);
}

__device__ __forceinline__ bool finite(double x)
{
    return x - x == 0;
}

__device__ __forceinline__ void next_scale(pd_step_state *state)
{
    if (state->skip) {
        state->scale = fmaxf(state->scale * 0.5f, 1.f);
        state->good_steps = 0;
    } else if (++state->good_steps >= PD_SCALE_GROWS) {
        state->scale = fminf(state->scale * 2, 16777216.f);
        state->good_steps = 0;
    }
}

__global__ void begin_step(pd_step_state *state, const double *squares, pd_step_wants wants)
{
    double by = wants.scale;
    if (wants.max_norm > 0) {
        state->norm = sqrt(*squares) / (double)state->scale / wants.passes;
        by *= pd_clip_factor(state->norm, wants.max_norm);
    }
    state->by = (float)by / state->scale;
    state->skip = wants.half && !finite(*squares);
    if (wants.half) next_scale(state);
}

/* Which tensor of the list the block works on, and its weights there. */
struct stretch {
    int tensor;
    size_t begin, end;
};

__device__ __forceinline__ stretch stretch_of(const pd_update_list &l)
{
    int lo = 0, hi = l.count - 1;
    while (lo < hi) {
        const int middle = (lo + hi + 1) / 2;
        if (blockIdx.x >= l.block[middle])
            lo = middle;
        else
            hi = middle - 1;
    }
    stretch s;
    s.tensor = lo;
    s.begin = l.begin[lo] + (size_t)(blockIdx.x - l.block[lo]) * PD_UPDATE_PIECE;
    s.end = l.end[lo] - s.begin < PD_UPDATE_PIECE ? l.end[lo] : s.begin + PD_UPDATE_PIECE;
    return s;
}

/* Calls f(i) for each weight of the stretch. */
template <class F> __device__ __forceinline__ void each(const stretch &s, F f)
{
    for (size_t i = s.begin + threadIdx.x; i < s.end; i += PD_THREADS) f(i);
}

__global__ void __launch_bounds__(PD_THREADS)
    sgd_step(pd_update_list l, float *__restrict__ w, float *__restrict__ v, const float *__restrict__ g,
             pd_step_settings s, const pd_step_state *__restrict__ state)
{
    if (state->skip) return;
    const stretch own = stretch_of(l);
    const float by = state->by, decay = l.decay[own.tensor];
    each(own, [&](size_t i) {
        const float d = g[i] * by + decay * w[i], m = s.momentum * v[i] + d;
        v[i] = m;
        w[i] -= s.lr * (s.nesterov ? d + s.momentum * m : m);
    });
}

__global__ void __launch_bounds__(PD_THREADS)
    adamw_step(pd_update_list l, float *__restrict__ w, float *__restrict__ m, float *__restrict__ v,
               const float *__restrict__ g, pd_adam_numbers n, const pd_step_state *__restrict__ state)
{
    if (state->skip) return;
    const stretch own = stretch_of(l);
    const float by = state->by, decay = l.decay[own.tensor];
    each(own,
         [&](size_t i) { w[i] = pd_adamw_weight(w[i], pd_adam_moments(&m[i], &v[i], g[i] * by, &n), n.lr, decay); });
}

/* The update u of each weight into g; parts: the block's sums of squares of weights and updates. */
__global__ void __launch_bounds__(PD_THREADS)
    lamb_update(pd_update_list l, const float *__restrict__ w, float *__restrict__ m, float *__restrict__ v,
                float *__restrict__ g, pd_adam_numbers n, double *__restrict__ parts,
                const pd_step_state *__restrict__ state)
{
    __shared__ double shared[PD_THREADS];
    if (state->skip) return;
    const stretch own = stretch_of(l);
    const float by = state->by, decay = l.decay[own.tensor];
    double weights = 0, updates = 0;
    each(own, [&](size_t i) {
        const float u = pd_adam_moments(&m[i], &v[i], g[i] * by, &n) + decay * w[i];
        g[i] = u;
        weights += (double)w[i] * (double)w[i];
        updates += (double)u * (double)u;
    });
    weights = block_sum(weights, shared);
    updates = block_sum(updates, shared);
    if (threadIdx.x) return;
    parts[2 * (size_t)blockIdx.x] = weights;
    parts[2 * (size_t)blockIdx.x + 1] = updates;
}

/* A block a tensor. */
__global__ void __launch_bounds__(PD_THREADS)
    lamb_ratios(pd_update_list l, const double *__restrict__ parts, float *__restrict__ ratios)
{
    __shared__ double shared[PD_THREADS];
    double weights = 0, updates = 0;
    for (unsigned b = l.block[blockIdx.x] + threadIdx.x; b < l.block[blockIdx.x + 1]; b += PD_THREADS) {
        weights += parts[2 * (size_t)b];
        updates += parts[2 * (size_t)b + 1];
    }
    weights = block_sum(weights, shared);
    updates = block_sum(updates, shared);
    if (threadIdx.x == 0) ratios[blockIdx.x] = pd_lamb_ratio(weights, updates, l.decay[blockIdx.x]);
}

__global__ void __launch_bounds__(PD_THREADS)
    lamb_move(pd_update_list l, float *__restrict__ w, const float *__restrict__ u, float lr,
              const float *__restrict__ ratios, const pd_step_state *__restrict__ state)
{
    if (state->skip) return;
    const stretch own = stretch_of(l);
    const float by = lr * ratios[own.tensor];
    each(own, [&](size_t i) { w[i] -= by * u[i]; });
}

__global__ void ema(float *__restrict__ e, const float *__restrict__ w, size_t count, float keep)
{
    for (size_t i = first_item(); i < count; i += item_step()) e[i] = keep * e[i] + (1 - keep) * w[i];
}

__global__ void swap_blocks(float *__restrict__ a, float *__restrict__ b, size_t count)
{
    for (size_t i = first_item(); i < count; i += item_step()) {
        const float x = a[i];
        a[i] = b[i];
        b[i] = x;
    }
}

} // namespace

int pd_cuda_seed(float *to, float value, const pd_step_state *state, cudaStream_t stream)
{
    return launch(seed, dim3(1), dim3(1), stream, to, value, state);
}

int pd_cuda_scale_start(pd_step_state *state, float value, cudaStream_t stream)
{
    return launch(scale_start, dim3(1), dim3(1), stream, state, value);
}

int pd_cuda_begin_step(pd_step_state *state, const double *squares, const pd_step_wants *wants, cudaStream_t stream)
{
    return launch(begin_step, dim3(1), dim3(1), stream, state, squares, *wants);
}

int pd_cuda_squares(const float *g, size_t count, double *squares, bool add, cudaStream_t stream)
{
    const size_t want = (count + 4 * PD_THREADS - 1) / (4 * PD_THREADS);
    const unsigned blocks = (unsigned)(want < PD_UPDATE_BLOCKS ? want : PD_UPDATE_BLOCKS);
    const int code = launch_sync(squares_of_blocks, dim3(blocks), dim3(PD_THREADS), stream, g, count, squares + 1);
    return code ? code
                : launch_sync(add_squares, dim3(1), dim3(PD_THREADS), stream, (const double *)(squares + 1),
                              (int)blocks, squares, add);
}

int pd_cuda_step(const pd_update_list *l, float *w, float *v, const float *g, const pd_step_settings *s,
                 const pd_step_state *state, cudaStream_t stream)
{
    return launch(sgd_step, dim3(l->block[l->count]), dim3(PD_THREADS), stream, *l, w, v, g, *s, state);
}

int pd_cuda_adamw(const pd_update_list *l, float *w, float *m, float *v, const float *g, const pd_adam_numbers *n,
                  const pd_step_state *state, cudaStream_t stream)
{
    return launch(adamw_step, dim3(l->block[l->count]), dim3(PD_THREADS), stream, *l, w, m, v, g, *n, state);
}

int pd_cuda_lamb(const pd_update_list *l, float *w, float *m, float *v, float *g, const pd_adam_numbers *n,
                 double *parts, float *ratios, const pd_step_state *state, cudaStream_t stream)
{
    const dim3 blocks(l->block[l->count]);
    int code =
        launch_sync(lamb_update, blocks, dim3(PD_THREADS), stream, *l, (const float *)w, m, v, g, *n, parts, state);
    if (!code)
        code = launch_sync(lamb_ratios, dim3((unsigned)l->count), dim3(PD_THREADS), stream, *l, (const double *)parts,
                           ratios);
    return code ? code
                : launch(lamb_move, blocks, dim3(PD_THREADS), stream, *l, w, (const float *)g, n->lr,
                         (const float *)ratios, state);
}

int pd_cuda_ema(float *average, const float *w, size_t count, float keep, cudaStream_t stream)
{
    return launch(ema, blocks_for(count), dim3(PD_THREADS), stream, average, w, count, keep);
}

int pd_cuda_swap(float *a, float *b, size_t count, cudaStream_t stream)
{
    return launch(swap_blocks, blocks_for(count), dim3(PD_THREADS), stream, a, b, count);
}
