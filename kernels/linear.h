/* linear.h: y = relu?( x w^T + bias ).
 *
 *   x (n, in), or (n, h, w, c) read as (n, h*w*c);  w (out, in);  bias (out) or NULL;  returns (n, out) */
#ifndef PD_LINEAR_H
#define PD_LINEAR_H

#include "engine/tape.h"

pd_value *pd_linear(pd_tape *t, const char *name, pd_value *x, pd_value *w, pd_value *bias, bool relu);

#endif
