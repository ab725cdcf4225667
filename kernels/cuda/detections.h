/* detections.h: launchers of detections.cu (kernels/detections.h). All return a CUDA error code.
 *
 * Every (row, class) pair above the threshold becomes an entry of its image's list: pd_score_order of its score and its
 * pair, so that the order of the list itself does not matter. Few are kept of many: one block an image takes the best
 * entry left, again and again, and strikes out what it hits, or lowers its score.
 *
 * The best pairs of a level (cfg.pairs) are among those of its best anchors, as many: the anchor of a pair is better
 * than as many anchors as the pair is than pairs. So anchors are cut first, as ever, then their pairs; a chosen pair has
 * a slot with its box and class, in the order in which the CPU lists them. */
#ifndef PD_CUDA_DETECTIONS_H
#define PD_CUDA_DETECTIONS_H

#include "kernels/cuda/anchors.h"
#include "kernels/cuda/topk.h"
#include "kernels/detections.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pd_detections_shape {
    pd_detections_cfg cfg;
    int n, rows, k;
    bool class_boxes; /* a box for every pair, not for every row */
    int slots;        /* of pairs that are chosen in an image; 0: of cfg.pairs false */
    const int *sizes;
    const float *scales;
} pd_detections_shape;

typedef struct pd_detections_to {
    pd_box *box;
    float *score;
    int *label, *count;
} pd_detections_to;

/* top: how many anchors of each level are looked at; its scores are set by the launcher. */
size_t pd_dense_detections_bytes(const pd_detections_shape *s, const pd_topk_shape *top);
int pd_dense_detections_fwd(const pd_detections_shape *s, const pd_topk_shape *top, const pd_anchor_grid *grid,
                            const void *const *logits, const void *const *deltas, pd_store store,
                            const pd_detections_to *to, void *work, cudaStream_t stream);

typedef struct pd_stage_logits {
    int stages;
    const float *at[PD_MAX_DETECTION_STAGES];
} pd_stage_logits;

size_t pd_roi_detections_bytes(const pd_detections_shape *s);
int pd_roi_detections_fwd(const pd_detections_shape *s, const pd_stage_logits *logits, const pd_box *boxes,
                          const float *deltas, const int *counts, const pd_detections_to *to, void *work,
                          cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
