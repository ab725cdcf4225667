/* The boxes that train a head: a block an image lists them in order, one thread draws as the CPU does. */
#include "kernels/cuda/launch.cuh"

#include "kernels/assign.h"
#include "kernels/cuda/sample.h"
#include "kernels/sample_math.h"

using namespace pd;

namespace
{

/* match and out may be the same. */
__global__ void __launch_bounds__(PD_LIST_THREADS)
    sample_image(pd_sample_cfg cfg, int boxes, const int *match, const int *__restrict__ draw, int *out, int *list)
{
    __shared__ int shared[PD_LIST_THREADS];
    const size_t image = blockIdx.x;
    const int per = (boxes + PD_LIST_THREADS - 1) / PD_LIST_THREADS, self = (int)threadIdx.x;
    const int begin = self * per < boxes ? self * per : boxes, end = begin + per < boxes ? begin + per : boxes;
    int positives = 0, negatives = 0, all_positives, all_negatives;
    match += image * (size_t)boxes;
    out += image * (size_t)boxes;
    list += image * (size_t)boxes;
    for (int i = begin; i < end; i++) {
        const int m = match[i];
        positives += m >= 0;
        negatives += m == PD_MATCH_BACKGROUND;
        out[i] = m;
    }
    /* positives by index, then background boxes by index */
    int to = block_scan(positives, &all_positives, shared);
    int to_negative = all_positives + block_scan(negatives, &all_negatives, shared);
    for (int i = begin; i < end; i++) {
        if (out[i] >= 0) list[to++] = i;
        if (out[i] == PD_MATCH_BACKGROUND) list[to_negative++] = i;
    }
    __syncthreads();
    const int wanted = pd_sample_positives(&cfg), taken = all_positives < wanted ? all_positives : wanted;
    int *const background = list + all_positives;
    if (self == 0) {
        pd_rng rng = pd_rng_make(cfg.seed, (uint32_t)draw[image], cfg.stream);
        pd_sample_choose(list, all_positives, wanted, &cfg, &rng);
        pd_sample_choose(background, all_negatives, cfg.num - taken, &cfg, &rng);
    }
    __syncthreads();
    for (int i = wanted + self; i < all_positives; i += PD_LIST_THREADS) out[list[i]] = PD_MATCH_IGNORED;
    for (int i = cfg.num - taken + self; i < all_negatives; i += PD_LIST_THREADS) out[background[i]] = PD_MATCH_IGNORED;
}

} // namespace

int pd_sample_fwd(const pd_sample_cfg *cfg, int n, int boxes, const int *match, const int *draw, int *out, int *list,
                  cudaStream_t stream)
{
    return launch_sync(sample_image, dim3((unsigned)n), dim3(PD_LIST_THREADS), stream, *cfg, boxes, match, draw, out,
                       list);
}
