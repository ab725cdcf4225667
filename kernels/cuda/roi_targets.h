/* roi_targets.h: launchers of roi_targets.cu (kernels/roi_targets.h). All return a CUDA error code.
 *
 * An image has g + m candidates here: places for g ground truths, of which those that are not there are ignored, then m
 * proposals. Their order, and with it the sampler's draws, is the CPU's.
 *
 * A count beyond its room cannot fail a run here without a wait: it is held within the room. */
#ifndef PD_CUDA_ROI_TARGETS_H
#define PD_CUDA_ROI_TARGETS_H

#include "engine/box.h"
#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* match (n, g + m): the ground truths' own matches. */
int pd_roi_own(int n, int m, int g, const pd_box *gt, const int *n_gt, int *match, cudaStream_t stream);
/* rois, row_match, from_gt (n, num): the candidates with a positive match, then the background ones, then nothing. */
int pd_roi_rows(int n, int m, int g, int num, const pd_box *gt, const pd_box *proposals, const int *match, pd_box *rois,
                int *row_match, int *from_gt, int *count, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
