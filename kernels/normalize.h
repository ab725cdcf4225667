/* normalize.h: images as bytes become the floats that a network eats, on the device: a quarter of what has to get
 * there.
 *
 *   out(i, y, x, c) = norm(bytes(i, y, x' , c))   x' = x, or w_i - 1 - x where image i is to be mirrored
 *                   = 0                            beyond its h_i rows and w_i columns
 *
 * The bits of pd_normalize_pad (datasets/transform.h), which does the same on the CPU ahead of time. No gradient. */
#ifndef PD_NORMALIZE_H
#define PD_NORMALIZE_H

#include "engine/pixel_math.h"
#include "engine/tape.h"

/* bytes: (n, h, w, 3) U8, R, G, B. sizes: (n, 4) I32, of which the first two are h_i and w_i. mirror: (n) I32, 0 or 1.
 * Returns (n, h, w, 3). Sizes beyond the batch's: PD_EINVAL on the CPU, held within it elsewhere. */
pd_value *pd_normalize(pd_tape *tape, pd_value *bytes, pd_value *sizes, pd_value *mirror, const pd_pixel_norm *norm);

#endif
