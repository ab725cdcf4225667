/* add_into.h: to[i] += from[i] on the pool's threads. */
#ifndef PD_ADD_INTO_H
#define PD_ADD_INTO_H

#include "engine/thread.h"

void pd_add_into(pd_pool *pool, float *to, const float *from, size_t count);

#endif
