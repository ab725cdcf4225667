/* kernel.h: the words of CUDA C++ that kernels/cuda/\*.cu use, for a C++ compiler: what launch.cuh includes in place of
 * the toolkit's headers. Threads of a kernel without barriers run one after the other; of one with barriers as fibers
 * that take turns, each up to the next barrier. No races, alignment faults or memory order are seen: indices, bounds
 * and missing writes are. */
#ifndef PD_EMULATE_KERNEL_H
#define PD_EMULATE_KERNEL_H

#include <cuda_runtime_api.h>
#include <functional>
#include <math.h>
#include <stdint.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c)
    {
    }
};

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

void __syncthreads();

inline int min(int a, int b)
{
    return a < b ? a : b;
}
inline int max(int a, int b)
{
    return a > b ? a : b;
}

/* Threads take turns, so these are whole by themselves. */
inline int atomicAdd(int *at, int x)
{
    const int was = *at;
    *at += x;
    return was;
}
inline int atomicMax(int *at, int x)
{
    const int was = *at;
    if (x > was) *at = x;
    return was;
}
inline int atomicMin(int *at, int x)
{
    const int was = *at;
    if (x < was) *at = x;
    return was;
}
template <class T> inline T atomicOr(T *at, T x) /* unsigned, unsigned long long */
{
    const T was = *at;
    *at |= x;
    return was;
}
inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x)
{
    return __builtin_popcountll(x);
}
inline int __ffsll(long long x)
{
    return __builtin_ffsll(x);
}

namespace emulate
{

int launch(std::function<void()> thread, dim3 grid, dim3 block, cudaStream_t stream, bool barriers);
/* Runs `work` in the stream's order, with device memory open to it. */
void enqueue(cudaStream_t stream, std::function<void()> work);
/* Twins of launch.cuh's; every thread of the block calls them. */
float warp_sum(float x);
float warp_max(float x);
unsigned warp_votes(bool flag);

} // namespace emulate

#endif
