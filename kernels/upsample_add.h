/* upsample_add.h: the top-down step of a feature pyramid: y = lateral + nearest(coarse). Lin et al. 2017, "FPN".
 *
 *   coarse   (n, hc, wc, c)
 *   lateral  (n, h, w, c)
 *   returns  (n, h, w, c)   y[i, j] = lateral[i, j] + coarse[floor(i * hc / h), floor(j * wc / w)]
 * Any sizes; with h = 2 hc it is plain doubling. Backward: the lateral gets dy, a coarse pixel the sum of dy over the
 * pixels that read it (in row order, so deterministic). */
#ifndef PD_UPSAMPLE_ADD_H
#define PD_UPSAMPLE_ADD_H

#include "engine/tape.h"

pd_value *pd_upsample_add(pd_tape *tape, pd_value *coarse, pd_value *lateral);

#endif
