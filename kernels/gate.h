/* gate.h: the small pieces with which a network weighs its own features.
 *
 * pd_row_softmax: (n, k) -> (n, k), softmax of each row (PD-B's branch weights).
 * pd_excite: y = relu?( x * sigmoid(up(m)) + residual ): squeeze-and-excitation with m (n, c), gather-excite with a map m
 *   (n, mh, mw, c) that is upsampled by nearest neighbour (source index floor(i * mh / h)).
 *   x, residual, result (n, h, w, c); residual may be NULL.
 *   Hu et al. 2018, "Squeeze-and-Excitation Networks"; Hu et al. 2018, "Gather-Excite". */
#ifndef PD_GATE_H
#define PD_GATE_H

#include "engine/tape.h"

pd_value *pd_row_softmax(pd_tape *t, pd_value *x);
pd_value *pd_excite(pd_tape *t, pd_value *x, pd_value *m, pd_value *residual, bool relu);

#endif
