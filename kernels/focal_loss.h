/* focal_loss.h: the sigmoid focal loss of dense heads. Lin et al. 2017, "Focal Loss for Dense Object Detection".
 *
 * For a logit x with p = 1 / (1 + e^-x):
 *   its box has this class       L = -alpha (1 - p)^gamma log p
 *   otherwise                    L = -(1 - alpha) p^gamma log(1 - p)
 * loss = sum over images i of weight[i] * (sum over boxes with label >= 0 and classes of L).
 * The logarithms are taken as -softplus: finite and accurate for every finite x.
 *
 *   logits[l] (n, h, w, a*k)   one per pyramid level, fine to coarse; seen as (n, h*w*a, k). (n, boxes, k) is fine too
 *   label     (n, boxes) I32   boxes of all levels in that order: class, k = background, -1 = left out (pd_targets)
 *   weight    (n)              pd_targets
 *   returns   (1)              for pd_tape_minimise. Gradients flow to the logits.
 *
 * Sums run over fixed blocks in float64, so neither loss nor gradient depends on the number of threads. */
#ifndef PD_FOCAL_LOSS_H
#define PD_FOCAL_LOSS_H

#include "engine/tape.h"

typedef struct pd_focal_cfg {
    float alpha, gamma; /* 0..1, >= 0; usually 0.25 and 2 */
} pd_focal_cfg;

pd_value *pd_focal_loss(pd_tape *tape, pd_value *const *logits, int levels, pd_value *label, pd_value *weight, int k,
                        const pd_focal_cfg *cfg);

#endif
