/* proposals.h: boxes that the region proposal network proposes. Ren et al. 2015, "Faster R-CNN"; no gradient.
 *
 * Per image: on each level the pre_nms anchors of largest logit, sorted (a level with no more anchors enters entire, in
 * grid order); decoded and clipped to the image; boxes without area dropped; suppression with the level in the role of
 * the class (nms.h, with its float32 offset); the best max_keep of all levels.
 *
 *   logits[l] (n, h, w, a), deltas[l] (n, h, w, a*4)   levels as in grid
 *   sizes     (n, 4) I32                               h, w, pad_h, pad_w of each image
 *   boxes     (n, max_keep, 4)                         by descending score; rows from count[i] on are 0
 *   score     (n, max_keep)                            sigmoid of the logit
 *   count     (n) I32 */
#ifndef PD_PROPOSALS_H
#define PD_PROPOSALS_H

#include "kernels/anchors.h"
#include "kernels/box_coder.h"

typedef struct pd_proposals_cfg {
    int pre_nms, max_keep; /* training 2000, 2000; test 1000, 1000 */
    float nms_iou;         /* 0.7 */
    bool nms_exact;
    pd_box_coder coder;
} pd_proposals_cfg;

typedef struct pd_proposals_out {
    pd_value *boxes, *score, *count;
} pd_proposals_out;

pd_proposals_out pd_proposals(pd_tape *tape, const pd_anchor_grid *grid, pd_value *const *logits,
                              pd_value *const *deltas, pd_value *sizes, const pd_proposals_cfg *cfg);

#endif
