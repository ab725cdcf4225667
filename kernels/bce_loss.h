/* bce_loss.h: binary cross-entropy on logits: L = max(x, 0) - x y + log(1 + e^-|x|), dL/dx = sigmoid(x) - y.
 *
 * Inputs, sums and result as in focal_loss.h: y = 1 for the logit of the box's own class, 0 for the others and for all
 * of a background box. The RPN has k = 1: label 0 is an object, 1 background, -1 not sampled. */
#ifndef PD_BCE_LOSS_H
#define PD_BCE_LOSS_H

#include "engine/tape.h"

pd_value *pd_bce_loss(pd_tape *tape, pd_value *const *logits, int levels, pd_value *label, pd_value *weight, int k);

#endif
