/* The largest scores of levels. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/order.cuh"
#include "kernels/cuda/topk.h"
#include "kernels/topk_math.h"

using namespace pd;

namespace
{

const int BITS = 11, BINS = 1 << BITS, AHEAD = 8; /* AHEAD: entries a thread reads at once */

/* The order of a list's entry i. */
template <class T> __device__ __forceinline__ uint64_t order_of(T score, int i)
{
    return pd_score_order(to_float(score), i);
}
__device__ __forceinline__ uint64_t order_of(uint64_t order, int)
{
    return order;
}

/* Calls f(order) for the n entries of a list. */
template <class T, class F> __device__ __forceinline__ void each_order(const T *__restrict__ list, int n, F f)
{
    for (int first = (int)threadIdx.x; first < n; first += AHEAD * PD_LIST_THREADS) {
        T entry[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            const int i = first + k * PD_LIST_THREADS;
            entry[k] = list[i < n ? i : n - 1]; /* no branch: nothing keeps one from waiting beside the others */
        }
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            const int i = first + k * PD_LIST_THREADS;
            if (i < n) f(order_of(entry[k], i));
        }
    }
}

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

/* Writes the k < n smallest of a list of n different orders, in no order. A radix select from the top, some bits a
 * pass: a pass looks only at entries that begin with the bits found so far. What it leaves undecided is sorted once it
 * is few.
 */
template <class T> __device__ __forceinline__ void choose_smallest(const T *list, int n, int k, uint64_t *chosen)
{
    __shared__ uint64_t few[PD_STRETCH];
    __shared__ int bins[BINS], shared[PD_LIST_THREADS], taken, undecided;
    const int self = (int)threadIdx.x;
    uint64_t found = 0, known = 0; /* known: mask of the bits in found */
    int left = n;                  /* that begin so; k: of these belong */
    for (int shift = 64 - BITS; left > PD_STRETCH; shift = shift > BITS ? shift - BITS : 0) {
        int before;
        for (int i = self; i < BINS; i += PD_LIST_THREADS) bins[i] = 0;
        __syncthreads();
        each_order(list, n, [&](uint64_t order) {
            if ((order & known) == found) atomicAdd(&bins[(int)(order >> shift) & (BINS - 1)], 1);
        });
        __syncthreads();
        const int bin = bin_of_rank(bins, k - 1, shared, &before);
        left = bins[bin];
        k -= before;
        found |= (uint64_t)bin << shift;
        known |= (uint64_t)(BINS - 1) << shift;
        __syncthreads();
    }
    if (self == 0) taken = undecided = 0;
    for (int i = self; i < PD_STRETCH; i += PD_LIST_THREADS) few[i] = UINT64_MAX;
    __syncthreads();
    each_order(list, n, [&](uint64_t order) {
        const uint64_t begins = order & known;
        if (begins < found) chosen[atomicAdd(&taken, 1)] = order;
        if (begins == found) few[atomicAdd(&undecided, 1)] = order;
    });
    sort_stretch(few);
    for (int i = self; i < k; i += PD_LIST_THREADS) chosen[taken + i] = few[i];
}

/* grid (levels, images) */
template <class T>
__global__ void __launch_bounds__(PD_LIST_THREADS) choose(pd_topk_shape s, uint64_t *__restrict__ chosen)
{
    const int l = (int)blockIdx.x, n = s.count[l];
    const size_t image = blockIdx.y;
    if (n <= s.k) return;
    const T *scores = static_cast<const T *>(s.scores[l]) + image * (size_t)n;
    chosen += image * (size_t)s.slot[s.levels] + s.slot[l];
    choose_smallest(scores, n, s.k, chosen);
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
    const size_t l = blockIdx.x, image = blockIdx.y;
    const int n = s.count[image * PD_MAX_LEVELS + l];
    const uint64_t *list = s.list + image * s.room + s.begin[l];
    chosen += image * (size_t)s.slot[s.levels] + (size_t)s.slot[l];
    if (n > s.k) return choose_smallest(list, n, s.k, chosen);
    for (int i = (int)threadIdx.x; i < n; i += PD_LIST_THREADS) chosen[i] = list[i];
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
