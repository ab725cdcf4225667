/* Which boxes train a box head: what stands before the assignment and behind the sampler. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/roi_targets.h"
#include "kernels/roi_targets_math.h"

using namespace pd;

namespace
{

__global__ void own_matches(int m, int g, const pd_box *__restrict__ gt, const int *__restrict__ n_gt,
                            int *__restrict__ match, size_t items)
{
    for (size_t item = first_item(); item < items; item += item_step()) {
        const size_t image = item / (unsigned)g;
        const int k = (int)(item % (unsigned)g);
        match[image * (size_t)(g + m) + (size_t)k] = k < n_gt[image] ? pd_own_match(gt[item], k) : PD_MATCH_IGNORED;
    }
}

/* A block an image; each thread a stretch of its candidates, so that they keep their order. */
__global__ void __launch_bounds__(PD_LIST_THREADS)
    write_rows(int m, int g, int num, const pd_box *__restrict__ gt, const pd_box *__restrict__ proposals,
               const int *__restrict__ match, pd_box *__restrict__ rois, int *__restrict__ row_match,
               int *__restrict__ from_gt, int *__restrict__ count)
{
    __shared__ int shared[PD_LIST_THREADS];
    const size_t image = blockIdx.x;
    const int n = g + m, per = (n + PD_LIST_THREADS - 1) / PD_LIST_THREADS, self = (int)threadIdx.x;
    const int begin = self * per < n ? self * per : n, end = begin + per < n ? begin + per : n;
    gt += image * (size_t)g;
    proposals += image * (size_t)m;
    match += image * (size_t)n;
    rois += image * (size_t)num;
    row_match += image * (size_t)num;
    from_gt += image * (size_t)num;
    int rows = 0;
    for (int pass = 0; pass < 2; pass++) {
        int own = 0, all;
        for (int i = begin; i < end; i++) own += pd_row_pass(match[i]) == pass;
        int row = rows + block_scan(own, &all, shared);
        for (int i = begin; i < end; i++) {
            if (pd_row_pass(match[i]) != pass) continue;
            rois[row] = i < g ? gt[i] : proposals[i - g];
            row_match[row] = match[i];
            from_gt[row++] = i < g;
        }
        rows += all;
    }
    for (int row = rows + self; row < num; row += PD_LIST_THREADS) {
        rois[row] = pd_box{0, 0, 0, 0};
        row_match[row] = PD_MATCH_IGNORED;
        from_gt[row] = 0;
    }
    if (self == 0) count[image] = rows;
}

} // namespace

int pd_roi_own(int n, int m, int g, const pd_box *gt, const int *n_gt, int *match, cudaStream_t stream)
{
    const size_t items = (size_t)n * (size_t)g;
    return launch(own_matches, blocks_for(items), dim3(PD_THREADS), stream, m, g, gt, n_gt, match, items);
}

int pd_roi_rows(int n, int m, int g, int num, const pd_box *gt, const pd_box *proposals, const int *match, pd_box *rois,
                int *row_match, int *from_gt, int *count, cudaStream_t stream)
{
    return launch_sync(write_rows, dim3((unsigned)n), dim3(PD_LIST_THREADS), stream, m, g, num, gt, proposals, match,
                       rois, row_match, from_gt, count);
}
