/* order.cuh: sorting stretches of orders (kernels/topk_math.h) in shared memory, for .cu files that have lists. */
#ifndef PD_CUDA_ORDER_CUH
#define PD_CUDA_ORDER_CUH

#include "kernels/cuda/launch.cuh"

namespace pd
{

#define PD_STRETCH (2 * PD_LIST_THREADS)

/* Ascending, by a bitonic sort: every thread of a block of PD_LIST_THREADS calls it, behind a barrier or not, and has
 * two of the stretch in each step. */
__device__ __forceinline__ void sort_stretch(uint64_t (&order)[PD_STRETCH])
{
    for (unsigned run = 2; run <= PD_STRETCH; run *= 2)
        for (unsigned step = run / 2; step; step /= 2) {
            __syncthreads();
            const unsigned i = 2 * threadIdx.x - (threadIdx.x & (step - 1)), j = i + step;
            const uint64_t a = order[i], b = order[j];
            if ((a > b) != ((i & run) != 0)) {
                order[i] = b;
                order[j] = a;
            }
        }
    __syncthreads();
}

} // namespace pd

#endif
