/* subsample.h: every stride-th row and column: y[i, j] = x[i * stride, j * stride]. The coarsest level of a pyramid
 * that only proposes boxes (P6 of Faster and Cascade R-CNN; mmdetection writes it as max pooling with a window of one).
 *
 *   x        (n, h, w, c)
 *   returns  (n, ceil(h / stride), ceil(w / stride), c)
 * Backward: a pixel that was taken gets its gradient, the others 0. */
#ifndef PD_SUBSAMPLE_H
#define PD_SUBSAMPLE_H

#include "engine/tape.h"

pd_value *pd_subsample(pd_tape *tape, pd_value *x, int stride);

#endif
