/* proposals.h: launchers of proposals.cu (kernels/proposals.h). All return a CUDA error code. */
#ifndef PD_CUDA_PROPOSALS_H
#define PD_CUDA_PROPOSALS_H

#include "kernels/cuda/anchors.h"
#include "kernels/cuda/nms.h"
#include "kernels/cuda/topk.h"
#include "kernels/proposals.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pd_proposals_shape {
    pd_topk_shape top;                 /* of the logits */
    const void *deltas[PD_MAX_LEVELS]; /* stored as the logits are */
    pd_nms_shape nms;                  /* room: top's slots */
    pd_box_coder coder;
} pd_proposals_shape;

size_t pd_proposals_bytes(const pd_proposals_shape *s);
int pd_proposals_fwd(const pd_proposals_shape *s, const pd_anchor_grid *grid, const int *sizes, pd_box *boxes,
                     float *score, int *count, void *work, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
