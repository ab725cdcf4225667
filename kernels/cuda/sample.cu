/* The boxes that train a head: a block an image counts the candidates, draws places among them as the CPU does, and
 * marks the boxes whose place was not drawn. */
#include "kernels/cuda/launch.cuh"

#include "kernels/assign.h"
#include "kernels/cuda/sample.h"
#include "kernels/sample_math.h"

using namespace pd;

namespace
{

const int WARPS = PD_LIST_THREADS / 32, AHEAD = 8; /* AHEAD: matches a lane reads at once */

/* Calls f(box, match) for a warp's stretch of an image, lanes side by side; -1 and any match beyond the end. All lanes
 * of the block make as many calls. */
template <class F> __device__ __forceinline__ void each_match(const int *match, int boxes, F f)
{
    const int pass = 32 * AHEAD, passes = (boxes + WARPS * pass - 1) / (WARPS * pass);
    const int begin = (int)threadIdx.x / 32 * passes * pass + (int)threadIdx.x % 32;
    for (int p = 0; p < passes; p++) {
        int m[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int box = begin + p * pass + 32 * i;
            m[i] = box < boxes ? match[box] : PD_MATCH_IGNORED;
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++) f(begin + p * pass + 32 * i, m[i]);
    }
}

/* Candidates of a kind; k of them stay: those whose bit is set where there was a draw, else the first. */
struct kind {
    int count, k;
    bool drawn;
    unsigned first_bit;
};

__device__ __forceinline__ bool stays(const kind &c, int rank, const unsigned *bits)
{
    const unsigned at = c.first_bit + (unsigned)rank;
    return c.drawn ? bits[at / 32] >> at % 32 & 1 : rank < c.k;
}

/* Draws as pd_sample_choose does and sets the bits of what stays. A thread has a number of the generator each; where
 * one is refused, the draws from there on begin again with the next number. drawn: k ints. */
__device__ __forceinline__ void choose(const kind &c, pd_rng *rng, int *drawn, unsigned *bits)
{
    __shared__ int refused;
    if (!c.drawn) return;
    uint64_t number = pd_rng_drawn(rng); /* that of draw 0 if none is refused */
    for (int first = 0; first < c.k; number++) {
        if (threadIdx.x == 0) refused = c.k;
        __syncthreads();
        for (int i = first + (int)threadIdx.x; i < c.k; i += PD_LIST_THREADS) {
            pd_rng own = *rng;
            pd_rng_go_to(&own, number + (uint64_t)i);
            drawn[i] = pd_sample_draw(i, c.count, &own);
            if (pd_rng_drawn(&own) != number + (uint64_t)i + 1) atomicMin(&refused, i);
        }
        __syncthreads();
        first = refused;
        __syncthreads();
    }
    pd_rng_go_to(rng, number - 1 + (uint64_t)c.k);
    for (int i = (int)threadIdx.x; i < c.k; i += PD_LIST_THREADS) {
        const unsigned at = c.first_bit + (unsigned)pd_sample_entry(drawn, i);
        atomicOr(&bits[at / 32], 1u << at % 32);
    }
}

/* match and out may be the same. work: pd_sample_work of an image. */
__global__ void __launch_bounds__(PD_LIST_THREADS)
    sample_image(pd_sample_cfg cfg, int boxes, const int *match, const int *__restrict__ draw, int *out, int *work,
                 size_t work_step)
{
    __shared__ int shared[PD_LIST_THREADS];
    const size_t image = blockIdx.x;
    const int self = (int)threadIdx.x;
    const unsigned before = (1u << self % 32) - 1;
    const bool last = self % 32 == 31;
    unsigned *const bits = reinterpret_cast<unsigned *>(work + image * work_step);
    int *const drawn = work + image * work_step + (boxes + 31) / 32;
    match += image * (size_t)boxes;
    out += image * (size_t)boxes;
    for (int i = self; i < (boxes + 31) / 32; i += PD_LIST_THREADS) bits[i] = 0;
    int positives = 0, negatives = 0; /* of the warp, then of all before it */
    each_match(match, boxes, [&](int, int m) {
        positives += __popc(warp_votes(m >= 0));
        negatives += __popc(warp_votes(m == PD_MATCH_BACKGROUND));
    });
    kind positive, negative;
    positives = block_scan(last ? positives : 0, &positive.count, shared);
    negatives = block_scan(last ? negatives : 0, &negative.count, shared);
    positive.k = pd_sample_positives(&cfg);
    positive.first_bit = 0;
    positive.drawn = pd_sample_draws(&cfg, positive.count, positive.k);
    negative.k = cfg.num - (positive.count < positive.k ? positive.count : positive.k);
    negative.first_bit = (unsigned)positive.count;
    negative.drawn = pd_sample_draws(&cfg, negative.count, negative.k);
    pd_rng rng = pd_rng_make(cfg.seed, (uint32_t)draw[image], cfg.stream);
    choose(positive, &rng, drawn, bits);
    choose(negative, &rng, drawn + (positive.drawn ? positive.k : 0), bits);
    __syncthreads();
    each_match(match, boxes, [&](int box, int m) {
        const unsigned is_positive = warp_votes(m >= 0), is_negative = warp_votes(m == PD_MATCH_BACKGROUND);
        const bool stay = m >= 0                     ? stays(positive, positives + __popc(is_positive & before), bits)
                          : m == PD_MATCH_BACKGROUND ? stays(negative, negatives + __popc(is_negative & before), bits)
                                                     : true;
        if (box < boxes) out[box] = stay ? m : PD_MATCH_IGNORED;
        positives += __popc(is_positive);
        negatives += __popc(is_negative);
    });
}

} // namespace

int pd_sample_fwd(const pd_sample_cfg *cfg, int n, int boxes, const int *match, const int *draw, int *out, int *work,
                  cudaStream_t stream)
{
    return launch_sync(sample_image, dim3((unsigned)n), dim3(PD_LIST_THREADS), stream, *cfg, boxes, match, draw, out,
                       work, pd_sample_work(cfg, boxes));
}
