/* targets.h: launchers of targets.cu (kernels/targets.h). All return a CUDA error code.
 *
 * A class out of range cannot fail a run here without a wait: it makes its image's weight, and so the losses, NaN. */
#ifndef PD_CUDA_TARGETS_H
#define PD_CUDA_TARGETS_H

#include "kernels/cuda/cuda.h"
#include "kernels/targets.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pd_targets_shape {
    int n, boxes, g, k, group;
    pd_norm norm;
} pd_targets_shape;

/* What one block of threads found in its part of an image. */
typedef struct pd_targets_part {
    int positives, negatives, bad;
} pd_targets_part;

#define PD_TARGETS_PARTS 32 /* of an image */

/* gt_label NULL: every ground truth is class 0. part: (n, PD_TARGETS_PARTS) work memory. */
int pd_targets_fwd(const pd_targets_shape *s, const int *match, const int *gt_label, pd_targets_part *part, int *label,
                   int *count, float *weight, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
