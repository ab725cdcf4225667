/* plan_guard.h: a plan's workspace under AddressSanitizer (engine/poison.h). At each step only the buffers that live
 * then, and only the bytes they asked for, can be touched: a kernel that reads what is used no more, or steps beyond
 * what is its own, is reported as it would be on the heap. In other builds, and on other devices, nothing. For plan.c.
 */
#ifndef PD_PLAN_GUARD_H
#define PD_PLAN_GUARD_H

#include "engine/plan_layout.h"
#include "engine/poison.h"

#ifdef PD_POISONS
/* A run begins at `step` (pd_buffer): from now on what lives at it can be touched, nothing else. */
void pd_plan_guard_begin(const pd_plan *plan, int step);

/* From step - 1 on to `step`. */
void pd_plan_guard_step(const pd_plan *plan, int step);
#else
static inline void pd_plan_guard_begin(const pd_plan *plan, int step)
{
    (void)plan;
    (void)step;
}

static inline void pd_plan_guard_step(const pd_plan *plan, int step)
{
    (void)plan;
    (void)step;
}
#endif

#endif
