/* The optimiser's step, the gradients' norm and scale, moving averages. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/update.h"

using namespace pd;

namespace
{

__global__ void seed(float *to, float value, const pd_scale_state *scale)
{
    *to = value * scale->scale;
}

__global__ void scale_start(pd_scale_state *scale, float value)
{
    scale->scale = value;
    scale->good_steps = 0;
}

/* Fixed blocks, so a fixed order. */
__global__ void __launch_bounds__(PD_THREADS)
    squares_of_blocks(const float *__restrict__ g, size_t count, double *__restrict__ out)
{
    __shared__ float shared[32];
    float sum = 0;
    for (size_t i = first_item(); i < count; i += item_step()) sum += g[i] * g[i];
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) out[blockIdx.x] = (double)sum;
}

__global__ void add_squares(const double *__restrict__ blocks, int count, double *total, bool add)
{
    double sum = add ? *total : 0;
    for (int i = 0; i < count; i++) sum += blocks[i];
    *total = sum;
}

__device__ __forceinline__ bool finite(double x)
{
    return x - x == 0;
}

__global__ void step(float *__restrict__ w, float *__restrict__ v, const float *__restrict__ g, size_t count,
                     pd_step_settings s, const pd_scale_state *__restrict__ scale, const double *__restrict__ squares)
{
    if (squares && !finite(*squares)) return;
    const float by = s.scale / scale->scale;
    for (size_t i = first_item(); i < count; i += item_step()) {
        const float d = g[i] * by + s.decay * w[i], m = s.momentum * v[i] + d;
        v[i] = m;
        w[i] -= s.lr * (s.nesterov ? d + s.momentum * m : m);
    }
}

__global__ void rescale(pd_scale_state *scale, const double *squares)
{
    if (!finite(*squares)) {
        scale->scale = fmaxf(scale->scale * 0.5f, 1.f);
        scale->good_steps = 0;
    } else if (++scale->good_steps >= PD_SCALE_GROWS) {
        scale->scale = fminf(scale->scale * 2, 16777216.f);
        scale->good_steps = 0;
    }
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

int pd_cuda_seed(float *to, float value, const pd_scale_state *scale, cudaStream_t stream)
{
    return launch(seed, dim3(1), dim3(1), stream, to, value, scale);
}

int pd_cuda_scale_start(pd_scale_state *scale, float value, cudaStream_t stream)
{
    return launch(scale_start, dim3(1), dim3(1), stream, scale, value);
}

int pd_cuda_squares(const float *g, size_t count, double *squares, bool add, cudaStream_t stream)
{
    const size_t want = (count + 4 * PD_THREADS - 1) / (4 * PD_THREADS);
    const unsigned blocks = (unsigned)(want < PD_UPDATE_BLOCKS ? want : PD_UPDATE_BLOCKS);
    const int code = launch_sync(squares_of_blocks, dim3(blocks), dim3(PD_THREADS), stream, g, count, squares + 1);
    return code ? code
                : launch(add_squares, dim3(1), dim3(1), stream, (const double *)(squares + 1), (int)blocks, squares,
                         add);
}

int pd_cuda_step(float *w, float *v, const float *g, size_t count, const pd_step_settings *s,
                 const pd_scale_state *scale, const double *squares, cudaStream_t stream)
{
    return launch(step, blocks_for(count), dim3(PD_THREADS), stream, w, v, g, count, *s, scale, squares);
}

int pd_cuda_rescale(pd_scale_state *scale, const double *squares, cudaStream_t stream)
{
    return launch(rescale, dim3(1), dim3(1), stream, scale, squares);
}

int pd_cuda_ema(float *average, const float *w, size_t count, float keep, cudaStream_t stream)
{
    return launch(ema, blocks_for(count), dim3(PD_THREADS), stream, average, w, count, keep);
}

int pd_cuda_swap(float *a, float *b, size_t count, cudaStream_t stream)
{
    return launch(swap_blocks, blocks_for(count), dim3(PD_THREADS), stream, a, b, count);
}
