/* Which ground truth each box is trained on. */
#include "kernels/cuda/launch.cuh"

#include "kernels/anchors_math.h"
#include "kernels/assign_math.h"
#include "kernels/cuda/assign.h"

using namespace pd;

namespace
{

__device__ __forceinline__ int held(int count, int room)
{
    return count < 0 ? 0 : count < room ? count : room;
}

/* Does the box take part in its image's assignment? */
__device__ __forceinline__ bool counts(const pd_assign_shape &s, int i, pd_box box, const int *sizes, size_t image)
{
    if (!s.levels) return true;
    const pd_anchor_cell c = pd_anchor_cell_at(s.first, s.w, s.levels, s.per_cell, i);
    return pd_anchor_takes_part(box, c.x * s.stride[c.level], c.y * s.stride[c.level], sizes + 4 * image, s.cfg.border);
}

__global__ void clear(int *best, size_t n)
{
    for (size_t i = first_item(); i < n; i += item_step()) best[i] = 0;
}

/* grid (blocks, images). best: the bits of each ground truth's largest IoU; floats from 0 up are in order as ints. */
__global__ void match_boxes(pd_assign_shape s, const pd_box *__restrict__ boxes, const int *__restrict__ n_boxes,
                            const pd_box *__restrict__ gt, const int *__restrict__ n_gt, const int *__restrict__ sizes,
                            int *best, int *__restrict__ match)
{
    const size_t image = blockIdx.y;
    const int g = held(n_gt[image], s.g), count = n_boxes ? held(n_boxes[image], s.boxes) : s.boxes;
    boxes += image * s.box_step;
    gt += image * (size_t)s.g;
    best += image * (size_t)s.g;
    match += image * s.match_step;
    for (size_t i = first_item(); i < (size_t)s.boxes; i += item_step()) {
        int m = PD_MATCH_IGNORED;
        if (i < (size_t)count && counts(s, (int)i, boxes[i], sizes, image)) {
            float top = 0;
            int from = 0;
            for (int k = 0; k < g; k++) {
                const float iou = pd_box_iou(gt[k], boxes[i]);
                const int bits = (int)pd_float_bits(iou);
                if (iou > top) {
                    top = iou;
                    from = k;
                }
                if (iou > 0 && bits > *(volatile int *)&best[k]) atomicMax(&best[k], bits);
            }
            m = g == 0 ? PD_MATCH_BACKGROUND : pd_assign_match(top, from, &s.cfg);
        }
        match[i] = m;
    }
}

/* grid (blocks, images): boxes that reach a ground truth's best, of the last such one. */
__global__ void claim_boxes(pd_assign_shape s, const pd_box *__restrict__ boxes, const int *__restrict__ n_boxes,
                            const pd_box *__restrict__ gt, const int *__restrict__ n_gt, const int *__restrict__ sizes,
                            const int *__restrict__ best, int *__restrict__ match)
{
    const size_t image = blockIdx.y;
    const int g = held(n_gt[image], s.g), count = n_boxes ? held(n_boxes[image], s.boxes) : s.boxes;
    boxes += image * s.box_step;
    gt += image * (size_t)s.g;
    best += image * (size_t)s.g;
    match += image * s.match_step;
    for (size_t i = first_item(); i < (size_t)count; i += item_step()) {
        if (!counts(s, (int)i, boxes[i], sizes, image)) continue;
        for (int k = g - 1; k >= 0; k--) {
            const float top = pd_bits_float((uint32_t)best[k]);
            if (!pd_assign_claims(top, &s.cfg) || pd_box_iou(gt[k], boxes[i]) != top) continue;
            match[i] = k;
            break;
        }
    }
}

} // namespace

int pd_assign_fwd(const pd_assign_shape *s, const pd_box *boxes, const int *n_boxes, const pd_box *gt, const int *n_gt,
                  const int *sizes, int *best, int *match, cudaStream_t stream)
{
    const size_t cells = (size_t)s->n * (size_t)s->g;
    const dim3 grid(blocks_for((size_t)s->boxes).x, (unsigned)s->n);
    int code = launch(clear, blocks_for(cells), dim3(PD_THREADS), stream, best, cells);
    if (!code)
        code = launch(match_boxes, grid, dim3(PD_THREADS), stream, *s, boxes, n_boxes, gt, n_gt, sizes, best, match);
    if (code || !s->cfg.low_quality) return code;
    return launch(claim_boxes, grid, dim3(PD_THREADS), stream, *s, boxes, n_boxes, gt, n_gt, sizes, best, match);
}
