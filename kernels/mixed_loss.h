/* mixed_loss.h: the loss of a classifier whose images are mixtures of two (datasets/mix.h), for softmax or sigmoids.
 *
 * The target of row r, with classes a and b, share l and smoothing s over k classes:
 *   t_c = s / k + (1 - s) (l [c == a] + (1 - l) [c == b])
 *   PD_MIXED_SOFTMAX   L = -sum_c t_c log softmax(x)_c, the mean over rows
 *   PD_MIXED_SIGMOID   t_c becomes 1 where t_c > threshold and 0 elsewhere (threshold 0: stays);
 *                      L = max(x, 0) - x t + log(1 + e^-|x|), the mean over rows and classes. Wightman et al. 2021,
 *                      "ResNet strikes back", 3.1; as timm's BinaryCrossEntropy
 *
 *   logits    (n, k)
 *   a, b      (n) I32 classes in 0 .. k - 1; another one fails the run
 *   share     (1) F32: l, of the whole batch
 *   *correct  NULL, or receives (1) F32: rows whose largest logit (the first of equals) is that of the class with the
 *             larger share (a where they are equal)
 *   returns   (1); gradients flow to the logits. */
#ifndef PD_MIXED_LOSS_H
#define PD_MIXED_LOSS_H

#include "engine/tape.h"

typedef enum pd_mixed_kind { PD_MIXED_SOFTMAX, PD_MIXED_SIGMOID } pd_mixed_kind;

typedef struct pd_mixed_cfg {
    pd_mixed_kind kind;
    float smoothing, threshold;
} pd_mixed_cfg;

pd_value *pd_mixed_loss(pd_tape *tape, pd_value *logits, pd_value *a, pd_value *b, pd_value *share,
                        const pd_mixed_cfg *cfg, pd_value **correct);

#endif
