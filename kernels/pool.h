/* pool.h: max pooling and the global average. Activations (n, h, w, c).
 *
 * pd_max_pool: window size x size, the padding counts as minus infinity; output size as a convolution's (floor). The
 * gradient goes to the first largest element in row-major order, as in PyTorch. size <= 15.
 * pd_global_avg_pool: (n, h, w, c) -> (n, c), the mean over h and w. pd_channel_means: the same, inside a gate: counters of
 * multiply-accumulates leave it out. */
#ifndef PD_POOL_H
#define PD_POOL_H

#include "engine/tape.h"

pd_value *pd_max_pool(pd_tape *t, pd_value *x, int size, int stride, int pad);
pd_value *pd_global_avg_pool(pd_tape *t, pd_value *x);
pd_value *pd_channel_means(pd_tape *t, pd_value *x);

#endif
