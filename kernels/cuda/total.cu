/* The sum of a list of partial sums, by one block. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/total.h"

using namespace pd;

namespace
{

__global__ void __launch_bounds__(PD_THREADS)
    total(const double *__restrict__ parts, size_t count, double factor, float *to)
{
    __shared__ double shared[PD_THREADS];
    double sum = 0;
    for (size_t i = threadIdx.x; i < count; i += PD_THREADS) sum += parts[i];
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) *to = (float)(factor * sum);
}

} // namespace

int pd_cuda_total(const double *parts, size_t count, double factor, float *to, cudaStream_t stream)
{
    return launch_sync(total, dim3(1), dim3(PD_THREADS), stream, parts, count, factor, to);
}
