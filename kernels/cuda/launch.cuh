/* launch.cuh: what every .cu here begins with: element types, vectors of elements, launches, sums over a block.
 *
 * Kernels are plain grid-stride loops where they can be. A kernel with barriers is launched by launch_sync: the
 * emulation (tests/emulate) runs its threads as fibers, all others one after the other. Sums over threads are done by
 * the helpers below only, because the emulation has twins of those and of nothing else. */
#ifndef PD_CUDA_LAUNCH_CUH
#define PD_CUDA_LAUNCH_CUH

#include "engine/half.h"
#include "engine/tape.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#else
#include "tests/emulate/kernel.h"
#endif

#include <type_traits>

namespace pd
{

/* ---- elements ---- */

struct bf16 {
    unsigned short bits;
};
struct f16 {
    unsigned short bits;
};

__device__ __forceinline__ float to_float(float x)
{
    return x;
}
__device__ __forceinline__ float to_float(bf16 x)
{
    return pd_bits_float((uint32_t)x.bits << 16);
}
__device__ __forceinline__ float to_float(f16 x)
{
#ifdef __CUDACC__
    return __half2float(__ushort_as_half(x.bits));
#else
    return pd_float_from_f16(x.bits);
#endif
}

template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x)
{
    return x;
}
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x)
{
#ifdef __CUDACC__
    return bf16{__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#else
    return bf16{pd_bf16_from_float(x)};
#endif
}
template <> __device__ __forceinline__ f16 from_float<f16>(float x)
{
#ifdef __CUDACC__
    return f16{__half_as_ushort(__float2half_rn(x))};
#else
    return f16{pd_f16_from_float(x)};
#endif
}

/* V neighbouring elements, read and written at once; their address is a multiple of their size. */
template <class T, int V> struct alignas(sizeof(T) * V) pack {
    T e[V];
};

template <int V, class T> __device__ __forceinline__ void load(const T *from, float (&to)[V])
{
    const pack<T, V> p = *reinterpret_cast<const pack<T, V> *>(from);
#pragma unroll
    for (int i = 0; i < V; i++) to[i] = to_float(p.e[i]);
}

template <int V, class T> __device__ __forceinline__ void store(T *to, const float (&from)[V])
{
    pack<T, V> p;
#pragma unroll
    for (int i = 0; i < V; i++) p.e[i] = from_float<T>(from[i]);
    *reinterpret_cast<pack<T, V> *>(to) = p;
}

/* What a gradient is added to: the elements that are there, or 0. */
template <int V, class T> __device__ __forceinline__ void begin(const T *at, bool add, float (&to)[V])
{
#pragma unroll
    for (int i = 0; i < V; i++) to[i] = 0;
    if (add) load<V>(at, to);
}

/* Sets elements, or adds to them. */
template <int V, class T> __device__ __forceinline__ void put(T *to, const float (&from)[V], bool add)
{
    float sum[V];
    begin<V>(to, add, sum);
#pragma unroll
    for (int i = 0; i < V; i++) sum[i] += from[i];
    store<V>(to, sum);
}

/* ---- choosing an instance: by_store(store, [&](auto t) { using T = decltype(t); ... }) ---- */

template <class F> inline int by_store(pd_store s, F f)
{
    if (s == PD_STORE_BF16) return f(bf16{});
    if (s == PD_STORE_F16) return f(f16{});
    return f(float{});
}

/* Vectors of 8 where every row begins at a multiple of 8, else single elements. */
template <class F> inline int by_width(bool eights, F f)
{
    if (eights) return f(std::integral_constant<int, 8>{});
    return f(std::integral_constant<int, 1>{});
}

/* ---- launches ---- */

#define PD_THREADS 256
#define PD_LIST_THREADS 1024 /* where a block has a whole list to go through: an image's boxes, a level's scores */

#ifdef __CUDACC__
template <class... P, class... A>
inline int launch(void (*kernel)(P...), dim3 grid, dim3 block, cudaStream_t s, A... args)
{
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return 0;
    kernel<<<grid, block, 0, s>>>(static_cast<P>(args)...);
    return (int)cudaGetLastError();
}
template <class... P, class... A>
inline int launch_sync(void (*kernel)(P...), dim3 grid, dim3 block, cudaStream_t s, A... args)
{
    return launch(kernel, grid, block, s, args...);
}
#else
template <class... P, class... A>
inline int launch(void (*kernel)(P...), dim3 grid, dim3 block, cudaStream_t s, A... args)
{
    return emulate::launch([=] { kernel(static_cast<P>(args)...); }, grid, block, s, false);
}
template <class... P, class... A>
inline int launch_sync(void (*kernel)(P...), dim3 grid, dim3 block, cudaStream_t s, A... args)
{
    return emulate::launch([=] { kernel(static_cast<P>(args)...); }, grid, block, s, true);
}
#endif

/* Blocks of PD_THREADS for n items, a grid-stride loop doing the rest of large n. */
inline dim3 blocks_for(size_t n)
{
    const size_t want = (n + PD_THREADS - 1) / PD_THREADS, most = 1u << 16;
    return dim3((unsigned)(want < most ? want : most));
}

/* First item and step of a grid-stride loop. */
__device__ __forceinline__ size_t first_item()
{
    return (size_t)blockIdx.x * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ size_t item_step()
{
    return (size_t)gridDim.x * blockDim.x;
}

/* ---- n rows of `wide` items, wide below 2^32: a thread has the same place in all of its rows, so that what depends on
 * the place is worked out once and the loop over rows divides nothing ---- */

inline dim3 blocks_for_rows(size_t n, size_t wide)
{
    const size_t most = (size_t)1 << 22, at_once = wide && wide < most ? most / wide : 1;
    return dim3((unsigned)(((n < at_once ? n : at_once) * wide + PD_THREADS - 1) / PD_THREADS));
}

/* for (size_t row = t.row; row < n; row += t.step) */
struct in_rows {
    unsigned place;
    size_t row, step;
};

__device__ __forceinline__ in_rows thread_in_rows(unsigned wide)
{
    const unsigned first = (unsigned)first_item(), step = (unsigned)item_step() / wide, row = first / wide;
    return in_rows{first % wide, row < step ? row : SIZE_MAX, step}; /* the last threads may have no row */
}

/* The same for images (h, w, c) of less than 2^32 elements: V channels from c on of the pixel (y, x), in every step-th
 * image from `image` on. Launched with blocks_for_rows(images, h * w * c / V). */
template <int V> struct in_images {
    int c, x, y;
    size_t image, step;

    __device__ __forceinline__ in_images(int h, int w, int channels)
    {
        const unsigned wide = (unsigned)(channels / V);
        const in_rows t = thread_in_rows((unsigned)h * (unsigned)w * wide);
        const unsigned pixel = t.place / wide;
        c = (int)(t.place % wide) * V;
        x = (int)(pixel % (unsigned)w);
        y = (int)(pixel / (unsigned)w);
        image = t.row;
        step = t.step;
    }
    /* Where a map of these channels has them for a pixel. */
    __device__ __forceinline__ size_t at(size_t in, int py, int px, int h, int w, int channels) const
    {
        const unsigned pixel = (unsigned)py * (unsigned)w + (unsigned)px;
        return in * (size_t)h * (size_t)w * (size_t)channels + pixel * (unsigned)channels + (unsigned)c;
    }
};

/* ---- sums over threads; every thread of the block must call them ---- */

#ifdef __CUDACC__
/* The same in every thread of the warp. */
__device__ __forceinline__ float warp_sum(float x)
{
#pragma unroll
    for (int i = 16; i; i >>= 1) x += __shfl_xor_sync(~0u, x, i);
    return x;
}
__device__ __forceinline__ float warp_max(float x)
{
#pragma unroll
    for (int i = 16; i; i >>= 1) x = fmaxf(x, __shfl_xor_sync(~0u, x, i));
    return x;
}
/* Bit i: the flag of the warp's lane i. */
__device__ __forceinline__ unsigned warp_votes(bool flag)
{
    return __ballot_sync(~0u, flag);
}
#else
using emulate::warp_max;
using emulate::warp_sum;
using emulate::warp_votes;
#endif

/* Sum over a block of at most 1024 threads, in a fixed order; the same in every thread. shared: 32 floats. */
__device__ __forceinline__ float block_sum(float x, float *shared)
{
    const int warps = ((int)blockDim.x + 31) / 32;
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
    for (int i = 0; i < warps; i++) x += shared[i];
    __syncthreads();
    return x;
}

__device__ __forceinline__ float block_max(float x, float *shared)
{
    const int warps = ((int)blockDim.x + 31) / 32;
    x = warp_max(x);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    x = shared[0];
    for (int i = 1; i < warps; i++) x = fmaxf(x, shared[i]);
    __syncthreads();
    return x;
}

/* The same in double. A block of a power of two threads; shared: one double for each. */
__device__ __forceinline__ double block_sum(double x, double *shared)
{
    shared[threadIdx.x] = x;
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    x = shared[0];
    __syncthreads();
    return x;
}

/* The sum of x over the threads before this one; *all: over the block. shared: one int for each thread. */
__device__ __forceinline__ int block_scan(int x, int *all, int *shared)
{
    int sum = x;
    shared[threadIdx.x] = x;
    __syncthreads();
    for (unsigned step = 1; step < blockDim.x; step *= 2) {
        const int before = threadIdx.x >= step ? shared[threadIdx.x - step] : 0;
        __syncthreads();
        shared[threadIdx.x] = sum += before;
        __syncthreads();
    }
    *all = shared[blockDim.x - 1];
    __syncthreads();
    return sum - x;
}

/* How many threads before this one have `flag`; *all: how many of the block. shared: one int for each thread. */
__device__ __forceinline__ int block_rank(bool flag, int *all, int *shared)
{
    return block_scan(flag ? 1 : 0, all, shared);
}

/* ---- sums down columns: a block has 64 channels and PD_THREADS * V / 64 rows of threads, V channels a thread ---- */

#define PD_SLAB 64

template <int V> struct slab {
    static constexpr int lanes = PD_SLAB / V, rows = PD_THREADS / lanes;
};

/* Blocks of the slabs of c channels, for each of `pieces`: all in x, because y ends at 65535. */
__host__ __device__ inline unsigned slabs_of(int c)
{
    return ((unsigned)c + PD_SLAB - 1) / PD_SLAB;
}
inline dim3 slab_blocks(int c, size_t pieces)
{
    return dim3((unsigned)(slabs_of(c) * pieces));
}
/* The block's first channel, and its piece. */
__device__ __forceinline__ int slab_channel(int c)
{
    return (int)(blockIdx.x % slabs_of(c) * PD_SLAB);
}
__device__ __forceinline__ unsigned slab_piece(int c)
{
    return blockIdx.x / slabs_of(c);
}

/* The column sums of acc over the block's rows of threads, in order; thread i < 64 gets channel i's. shared: rows * 64.
 */
template <int V> __device__ __forceinline__ float column_sum(const float (&acc)[V], float *shared)
{
    const int lane = (int)threadIdx.x % slab<V>::lanes, row = (int)threadIdx.x / slab<V>::lanes;
#pragma unroll
    for (int i = 0; i < V; i++) shared[row * PD_SLAB + lane * V + i] = acc[i];
    __syncthreads();
    float sum = 0;
    if (threadIdx.x < PD_SLAB)
        for (int r = 0; r < slab<V>::rows; r++) sum += shared[r * PD_SLAB + threadIdx.x];
    __syncthreads();
    return sum;
}

} // namespace pd

#endif
