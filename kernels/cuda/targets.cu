/* Classes of boxes and weights of images: parts of images count, then one block adds the parts. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/targets.h"
#include "kernels/targets_math.h"

#include <math.h>

using namespace pd;

namespace
{

/* grid (PD_TARGETS_PARTS, images). Counts are exact in a float up to 2^24 boxes. */
__global__ void __launch_bounds__(PD_THREADS)
    label_parts(pd_targets_shape s, const int *__restrict__ match, const int *__restrict__ gt_label,
                pd_targets_part *__restrict__ part, int *__restrict__ label)
{
    __shared__ float shared[32];
    const size_t image = blockIdx.y;
    const int *own = gt_label ? gt_label + image * (size_t)s.g : NULL;
    float pos = 0, neg = 0, bad = 0;
    match += image * (size_t)s.boxes;
    label += image * (size_t)s.boxes;
    for (size_t i = first_item(); i < (size_t)s.boxes; i += item_step()) {
        const int m = match[i], c = pd_target_label(m, own, s.g, s.k);
        label[i] = c == PD_TARGET_BAD ? -1 : c;
        pos += m >= 0 ? 1.f : 0.f;
        neg += m == PD_MATCH_BACKGROUND ? 1.f : 0.f;
        bad += c == PD_TARGET_BAD ? 1.f : 0.f;
    }
    pos = block_sum(pos, shared);
    neg = block_sum(neg, shared);
    bad = block_sum(bad, shared);
    if (threadIdx.x) return;
    part[image * PD_TARGETS_PARTS + blockIdx.x] = pd_targets_part{(int)pos, (int)neg, (int)bad};
}

/* One block. A weight reads the counts of its whole group. */
__global__ void __launch_bounds__(PD_THREADS)
    weigh_images(pd_targets_shape s, const pd_targets_part *__restrict__ part, int *count, float *__restrict__ weight)
{
    for (int i = (int)threadIdx.x; i < s.n; i += PD_THREADS) {
        int pos = 0, neg = 0;
        for (int p = 0; p < PD_TARGETS_PARTS; p++) {
            pos += part[i * PD_TARGETS_PARTS + p].positives;
            neg += part[i * PD_TARGETS_PARTS + p].negatives;
        }
        count[2 * i] = pos;
        count[2 * i + 1] = neg;
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < s.n; i += PD_THREADS) {
        int bad = 0;
        for (int p = 0; p < PD_TARGETS_PARTS; p++) bad += part[i * PD_TARGETS_PARTS + p].bad;
        weight[i] = bad ? NAN : pd_target_weight(s.norm, count, s.n, s.group, i);
    }
}

} // namespace

int pd_targets_fwd(const pd_targets_shape *s, const int *match, const int *gt_label, pd_targets_part *part, int *label,
                   int *count, float *weight, cudaStream_t stream)
{
    const dim3 grid(PD_TARGETS_PARTS, (unsigned)s->n);
    const int code = launch_sync(label_parts, grid, dim3(PD_THREADS), stream, *s, match, gt_label, part, label);
    return code ? code
                : launch_sync(weigh_images, dim3(s->n ? 1 : 0), dim3(PD_THREADS), stream, *s, part, count, weight);
}
