/* assign.h: launchers of assign.cu (kernels/assign.h). All return a CUDA error code.
 *
 * Every box computes its own IoUs, twice: once for its match and the best of each ground truth, once for those that
 * reach that best. Both take the very bits from pd_box_iou, which is compiled without contraction.
 *
 * A count beyond its room cannot fail a run here without a wait: it is held within the room. */
#ifndef PD_CUDA_ASSIGN_H
#define PD_CUDA_ASSIGN_H

#include "kernels/assign.h"
#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pd_assign_shape {
    pd_assign_cfg cfg;
    int n, boxes, g;
    size_t box_step;   /* boxes from one image's to the next's; 0: all images have the same */
    size_t match_step; /* ints from one image's matches to the next's */
    /* Of the anchors' grid, for their flags; levels 0: the boxes are no anchors. */
    int levels, per_cell, first[PD_MAX_LEVELS + 1], w[PD_MAX_LEVELS], stride[PD_MAX_LEVELS];
} pd_assign_shape;

/* n_boxes, sizes as in kernels/assign.h, NULL where not given. best: (n, g) ints of work memory. */
int pd_assign_fwd(const pd_assign_shape *s, const pd_box *boxes, const int *n_boxes, const pd_box *gt, const int *n_gt,
                  const int *sizes, int *best, int *match, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
