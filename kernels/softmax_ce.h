/* softmax_ce.h: cross-entropy of a softmax over classes, with label smoothing; counts right answers on the way.
 *
 * For a row of logits x with label y and smoothing s (Szegedy et al. 2016, "Rethinking the Inception Architecture"):
 *   L = -sum_c t_c log softmax(x)_c,  t_c = s / k + (c == y ? 1 - s : 0)
 * loss = sum over rows r with label >= 0 of w_r L_r.
 *
 *   logits   (m, k), or (m, 1, 1, k)
 *   label    m values, I32: class, negative = the row takes no part; a class >= k fails the run
 *   weight   (n) with n a divisor of m: row r weighs weight[r / (m / n)] (per image, or per row with n = m);
 *            NULL: every row weighs 1 / max(number of rows with label >= 0, 1), the mean
 *   *correct NULL, or receives (1) F32: rows with label >= 0 whose largest logit (the first of equals) is the label's.
 *   returns  (1); gradients flow to the logits. */
#ifndef PD_SOFTMAX_CE_H
#define PD_SOFTMAX_CE_H

#include "engine/tape.h"

pd_value *pd_softmax_ce(pd_tape *tape, pd_value *logits, pd_value *label, pd_value *weight, float smoothing,
                        pd_value **correct);

#endif
