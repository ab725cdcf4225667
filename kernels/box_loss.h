/* box_loss.h: L1 and smooth L1 on the encoded offsets of positive boxes.
 *
 *   d = prediction - pd_box_encode(reference, ground truth)
 *   beta = 0: L = |d|, slope sign(d) (0 at 0).   beta > 0: L = |d| < beta ? d^2 / (2 beta) : |d| - beta / 2
 * loss = sum over images i of weight[i] * (sum over boxes with match >= 0 and the 4 coordinates of L).
 *
 *   deltas[l] (n, h, w, a*4)   one per level, fine to coarse; seen as (n, h*w*a, 4). A single one may be (n * b, 4)
 *   boxes     (b, 4) or (n, b, 4)   references (anchors, proposals) of all levels in that order
 *   match     (n, b) I32       index of the ground truth; negative: not a positive (pd_assign, pd_sample)
 *   gt        (n, g, 4)
 *   weight    (n)              pd_targets
 *   returns   (1)              Gradients flow to the deltas only. */
#ifndef PD_BOX_LOSS_H
#define PD_BOX_LOSS_H

#include "engine/tape.h"
#include "kernels/box_coder.h"

typedef struct pd_box_loss_cfg {
    pd_box_coder coder;
    float beta; /* 0: L1 */
} pd_box_loss_cfg;

pd_value *pd_box_loss(pd_tape *tape, pd_value *const *deltas, int levels, pd_value *boxes, pd_value *match,
                      pd_value *gt, pd_value *weight, const pd_box_loss_cfg *cfg);

#endif
