#include "engine/plan_guard.h"

#ifdef PD_POISONS
typedef void (*buffer_fn)(const pd_plan *plan, const pd_buffer *b, int step);

/* Calls fn for every buffer with a place of its own in the workspace. */
static void each_buffer(const pd_plan *plan, buffer_fn fn, int step)
{
    for (int i = 0; i < plan->count; i++) {
        const pd_node_plan *np = &plan->node[i];
        const pd_buffer *const list[] = {&np->saved, &np->scratch_fwd, &np->scratch_bwd};
        for (int k = 0; k < 3; k++)
            if (list[k]->used) fn(plan, list[k], step);
    }
    for (pd_value *v = pd_tape_values(plan->tape); v; v = v->next) {
        const pd_value_plan *vp = &plan->value[v->id];
        const pd_buffer *const list[] = {&vp->data, &vp->grad};
        for (int k = 0; k < 2; k++)
            if (list[k]->used && !list[k]->in && !list[k]->constant) fn(plan, list[k], step);
    }
}

static void open_living(const pd_plan *plan, const pd_buffer *b, int step)
{
    if (b->start <= step && step <= b->end) PD_UNPOISON((char *)plan->placed + b->offset, b->used);
}

static void open_new(const pd_plan *plan, const pd_buffer *b, int step)
{
    if (b->start == step) PD_UNPOISON((char *)plan->placed + b->offset, b->used);
}

static void close_old(const pd_plan *plan, const pd_buffer *b, int step)
{
    if (b->end == step - 1) PD_POISON((char *)plan->placed + b->offset, b->bytes);
}

void pd_plan_guard_begin(const pd_plan *plan, int step)
{
    if (plan->device->kind != PD_CPU || !plan->bytes) return;
    PD_POISON(plan->placed, pd_workspace_bytes(plan->workspace));
    each_buffer(plan, open_living, step);
}

void pd_plan_guard_step(const pd_plan *plan, int step)
{
    if (plan->device->kind != PD_CPU || !plan->bytes) return;
    each_buffer(plan, close_old, step);
    each_buffer(plan, open_new, step);
}
#endif
