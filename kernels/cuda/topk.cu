/* The largest scores of levels. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/topk.h"
#include "kernels/topk_math.h"

using namespace pd;

namespace
{

const int BITS = 11, BINS = 1 << BITS;

/* The bin in which the entry of rank `wanted` (from 0) lies, to every thread; *before: entries in lower bins. */
__device__ __forceinline__ int bin_of_rank(const int *bins, int wanted, int *shared, int *before)
{
    __shared__ int found[2];
    const int per = BINS / PD_LIST_THREADS, self = (int)threadIdx.x;
    int own = 0, total;
    for (int i = 0; i < per; i++) own += bins[self * per + i];
    int sum = block_scan(own, &total, shared);
    for (int i = 0; i < per; i++) {
        const int n = bins[self * per + i];
        if (sum <= wanted && wanted < sum + n) {
            found[0] = self * per + i;
            found[1] = sum;
        }
        sum += n;
    }
    __syncthreads();
    *before = found[1];
    const int bin = found[0];
    __syncthreads();
    return bin;
}

/* The largest order among the k smallest of n different ones: found from the top, some bits a pass; a pass looks only
 * at entries that begin with the bits found so far. Every thread gets it. order_of(i): the i-th. */
template <class F> __device__ __forceinline__ uint64_t order_bound(F order_of, int n, int k, int *shared)
{
    __shared__ int bins[BINS];
    uint64_t found = 0, known = 0; /* known: mask of the bits in found */
    int wanted = k - 1;
    for (int shift = 64 - BITS;; shift = shift > BITS ? shift - BITS : 0) {
        int before;
        for (int i = (int)threadIdx.x; i < BINS; i += PD_LIST_THREADS) bins[i] = 0;
        __syncthreads();
        for (int i = (int)threadIdx.x; i < n; i += PD_LIST_THREADS) {
            const uint64_t order = order_of(i);
            if ((order & known) == found) atomicAdd(&bins[(int)(order >> shift) & (BINS - 1)], 1);
        }
        __syncthreads();
        const int bin = bin_of_rank(bins, wanted, shared, &before);
        const bool whole = wanted - before + 1 == bins[bin]; /* all of the bin belong: any bits below will do */
        wanted -= before;
        found |= (uint64_t)bin << shift;
        known |= (uint64_t)(BINS - 1) << shift;
        if (whole) return found | ~known;
        __syncthreads();
    }
}

/* grid (levels, images) */
template <class T>
__global__ void __launch_bounds__(PD_LIST_THREADS) choose(pd_topk_shape s, uint64_t *__restrict__ chosen)
{
    __shared__ int shared[PD_LIST_THREADS];
    __shared__ int taken;
    const int l = (int)blockIdx.x, n = s.count[l];
    const size_t image = blockIdx.y;
    if (n <= s.k) return;
    const T *scores = static_cast<const T *>(s.scores[l]) + image * (size_t)n;
    chosen += image * (size_t)s.slot[s.levels] + s.slot[l];
    const auto order_of = [scores](int i) { return pd_score_order(to_float(scores[i]), i); };
    const uint64_t bound = order_bound(order_of, n, s.k, shared);
    if (threadIdx.x == 0) taken = 0;
    __syncthreads();
    for (int i = (int)threadIdx.x; i < n; i += PD_LIST_THREADS) {
        const uint64_t order = order_of(i);
        if (order <= bound) chosen[atomicAdd(&taken, 1)] = order;
    }
}

/* grid (blocks over slots, images) */
__global__ void sort(pd_topk_shape s, const uint64_t *__restrict__ chosen, int *__restrict__ pick)
{
    const int slots = s.slot[s.levels];
    chosen += blockIdx.y * (size_t)slots;
    pick += blockIdx.y * (size_t)slots;
    for (size_t i = first_item(); i < (size_t)slots; i += item_step()) {
        int l = 0;
        while ((int)i >= s.slot[l + 1]) l++;
        const int first = s.slot[l], last = s.slot[l + 1];
        if (s.count[l] <= s.k) {
            pick[i] = (int)i - first;
            continue;
        }
        const uint64_t own = chosen[i];
        int rank = 0;
        for (int j = first; j < last; j++) rank += chosen[j] < own;
        pick[first + rank] = (int)(uint32_t)own;
    }
}

/* grid (levels, images) */
__global__ void __launch_bounds__(PD_LIST_THREADS) choose_orders(pd_order_lists s, uint64_t *__restrict__ chosen)
{
    __shared__ int shared[PD_LIST_THREADS];
    __shared__ int taken;
    const size_t l = blockIdx.x, image = blockIdx.y;
    const int n = s.count[image * PD_MAX_LEVELS + l];
    const uint64_t *list = s.list + image * s.room + s.begin[l];
    chosen += image * (size_t)s.slot[s.levels] + (size_t)s.slot[l];
    const uint64_t bound = n > s.k ? order_bound([list](int i) { return list[i]; }, n, s.k, shared) : UINT64_MAX;
    if (threadIdx.x == 0) taken = 0;
    __syncthreads();
    for (int i = (int)threadIdx.x; i < n; i += PD_LIST_THREADS)
        if (list[i] <= bound) chosen[atomicAdd(&taken, 1)] = list[i];
}

/* grid (blocks over slots, images) */
__global__ void sort_orders(pd_order_lists s, const uint64_t *__restrict__ chosen, uint64_t *__restrict__ sorted)
{
    const size_t image = blockIdx.y;
    const int slots = s.slot[s.levels];
    chosen += image * (size_t)slots;
    sorted += image * (size_t)slots;
    for (size_t i = first_item(); i < (size_t)slots; i += item_step()) {
        int l = 0;
        while ((int)i >= s.slot[l + 1]) l++;
        const int n = s.count[image * PD_MAX_LEVELS + (size_t)l], first = s.slot[l], last = first + (n < s.k ? n : s.k);
        if ((int)i >= last) continue;
        const uint64_t own = chosen[i];
        int rank = 0;
        for (int j = first; j < last; j++) rank += chosen[j] < own;
        sorted[first + rank] = own;
    }
}

} // namespace

int pd_topk_orders_fwd(const pd_order_lists *s, uint64_t *sorted, uint64_t *work, cudaStream_t stream)
{
    const int code =
        launch_sync(choose_orders, dim3((unsigned)s->levels, (unsigned)s->n), dim3(PD_LIST_THREADS), stream, *s, work);
    return code ? code
                : launch(sort_orders, dim3(blocks_for((size_t)s->slot[s->levels]).x, (unsigned)s->n), dim3(PD_THREADS),
                         stream, *s, (const uint64_t *)work, sorted);
}

int pd_topk_fwd(const pd_topk_shape *s, int *pick, uint64_t *work, cudaStream_t stream)
{
    const size_t slots = (size_t)s->slot[s->levels];
    const int code = by_store(s->store, [&](auto t) {
        using T = decltype(t);
        return launch_sync(choose<T>, dim3((unsigned)s->levels, (unsigned)s->n), dim3(PD_LIST_THREADS), stream, *s,
                           work);
    });
    if (code) return code;
    return launch(sort, dim3(blocks_for(slots).x, (unsigned)s->n), dim3(PD_THREADS), stream, *s, (const uint64_t *)work,
                  pick);
}
