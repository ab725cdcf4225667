#include "engine/plan.h"
#include "engine/half.h"
#include "engine/plan_guard.h"
#include "engine/plan_layout.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct pd_workspace {
    pd_device *device;
    void *memory;
    size_t bytes;
};

static void *address(const pd_plan *plan, pd_buffer *b)
{
    size_t inner = 0;
    for (; b->in; b = b->in) inner += b->inner;
    if (b->bytes == 0) return NULL;
    return (char *)(b->constant ? plan->constants->thing : plan->placed) + b->offset + inner;
}

static void forget_graphs(pd_plan *plan)
{
    for (int i = 0; i < 3; i++) {
        if (plan->graph[i].graph) plan->device->graph_free(plan->device, plan->graph[i].graph);
        plan->graph[i] = (pd_recording){0};
    }
}

static void assign_addresses(pd_plan *plan)
{
    forget_graphs(plan);
    plan->placed = plan->workspace->memory;
    for (pd_value *v = pd_tape_values(plan->tape); v; v = v->next) {
        pd_value_plan *vp = &plan->value[v->id];
        if (v->param) {
            v->data = v->param->data;
            v->grad = vp->wants_grad ? v->param->grad : NULL;
        } else if (v->node) {
            v->data = address(plan, &vp->data);
            v->grad = vp->wants_grad && vp->grad.bytes ? address(plan, &vp->grad) : NULL;
        }
        if (plan->device->kind == PD_CPU) v->host = v->data;
    }
    for (int i = 0; i < plan->count; i++) {
        plan->nodes[i]->saved = address(plan, &plan->node[i].saved);
        plan->node[i].fwd_scratch = address(plan, &plan->node[i].scratch_fwd);
        plan->node[i].bwd_scratch = address(plan, &plan->node[i].scratch_bwd);
    }
}

/* Room for at least `bytes`. The old memory goes first: nobody needs what is in it, and both together would be the most
 * that a run ever takes. Pages are touched now, not in the first step; and whoever reads what nobody wrote reads NaN.
 */
static pd_status grow(pd_workspace *w, size_t bytes, pd_err *err)
{
    if (bytes <= w->bytes) return PD_OK;
    if (w->memory) w->device->release(w->device, w->memory);
    w->memory = NULL;
    w->bytes = 0;
    PD_TRY(w->device->alloc(w->device, &w->memory, bytes, err));
    const pd_status status = w->device->fill(w->device, w->memory, 0xff, bytes, err);
    if (status == PD_OK) {
        w->bytes = bytes;
        return PD_OK;
    }
    w->device->release(w->device, w->memory);
    w->memory = NULL;
    return status;
}

pd_status pd_workspace_new(pd_workspace **out, pd_device *device, pd_err *err)
{
    pd_workspace *w = calloc(1, sizeof *w);
    if (!w) return PD_FAIL(err, PD_ENOMEM, "out of memory for a workspace");
    w->device = device;
    *out = w;
    return PD_OK;
}

void pd_workspace_free(pd_workspace *w)
{
    if (!w) return;
    if (w->memory) w->device->release(w->device, w->memory);
    free(w);
}

size_t pd_workspace_bytes(const pd_workspace *w)
{
    return w->bytes;
}

/* Adds bytes to the key, or only counts them (key NULL). */
static size_t put(char *key, size_t at, const void *from, size_t bytes)
{
    if (key && bytes) memcpy(key + at, from, bytes);
    return at + bytes;
}

/* What the block of constants is made of: its nodes in order, with their settings and inputs. A parameter is named by
 * its address, another constant by its offset in the block. Returns the bytes. */
static size_t constants_key(const pd_plan *plan, char *key)
{
    size_t at = 0;
    for (int i = 0; i < plan->count; i++) {
        const pd_node *n = plan->nodes[i];
        if (!n->constant) continue;
        at = put(key, at, &n->op, sizeof n->op);
        at = put(key, at, n->args, n->args_size);
        for (int k = 0; k < n->n_in; k++) {
            const pd_value *v = n->in[k];
            const uintptr_t from = !v ? 0 : v->param ? (uintptr_t)v->param->data : plan->value[v->id].data.offset + 1;
            at = put(key, at, &from, sizeof from);
        }
        for (int k = 0; k < n->n_out; k++) {
            at = put(key, at, n->out[k]->shape.dim, (size_t)n->out[k]->shape.rank * sizeof *n->out[k]->shape.dim);
            at = put(key, at, &n->out[k]->store, sizeof n->out[k]->store);
        }
    }
    return at;
}

static pd_status share_constants(pd_plan *plan, pd_err *err)
{
    char *key;
    const size_t bytes = constants_key(plan, NULL);
    PD_TRY(PD_ALLOC(&key, plan->arena, bytes, err));
    (void)constants_key(plan, key);
    PD_TRY(pd_share(&plan->constants, plan->device, key, bytes, err));
    if (plan->constants->thing) return PD_OK;
    return plan->device->alloc(plan->device, &plan->constants->thing, plan->constant_bytes, err);
}

static pd_status build(pd_plan *plan, pd_err *err)
{
    PD_TRY(pd_tape_status(plan->tape, err));
    for (pd_value *v = pd_tape_values(plan->tape); v; v = v->next) {
        if (v->param && !v->param->data)
            return PD_FAIL(err, PD_EINVAL, "%s: parameters must be allocated before planning", v->name);
        if (v->param && v->param->trainable && plan->mode == PD_PLAN_TRAIN && !v->param->grad)
            return PD_FAIL(err, PD_EINVAL, "%s: parameters were allocated without gradients", v->name);
    }
    PD_TRY(pd_plan_lay_out(plan, err));
    PD_TRY(grow(plan->workspace, plan->bytes, err));
    if (plan->constant_bytes) PD_TRY(share_constants(plan, err));
    assign_addresses(plan);
    plan->stale = true;
    return PD_OK;
}

static pd_status new_plan(pd_plan **out, pd_tape *tape, pd_device *device, pd_plan_mode mode, pd_err *err)
{
    pd_plan *plan = calloc(1, sizeof *plan);
    if (plan) plan->arena = pd_arena_new();
    if (!plan || !plan->arena) {
        free(plan);
        return PD_FAIL(err, PD_ENOMEM, "out of memory for a plan");
    }
    plan->tape = tape;
    plan->device = device;
    plan->mode = mode;
    plan->late.count = -1;
    *out = plan;
    return PD_OK;
}

pd_status pd_plan_new(pd_plan **out, pd_tape *tape, pd_device *device, pd_plan_mode mode, pd_workspace *workspace,
                      pd_err *err)
{
    pd_plan *plan;
    PD_TRY(new_plan(&plan, tape, device, mode, err));
    plan->workspace = workspace;
    pd_status status = PD_OK;
    if (!workspace) {
        status = pd_workspace_new(&plan->own, device, err);
        plan->workspace = plan->own;
    }
    if (status == PD_OK) status = build(plan, err);
    if (status != PD_OK) {
        pd_plan_free(plan);
        return status;
    }
    *out = plan;
    return PD_OK;
}

pd_status pd_plan_measure(size_t *bytes, pd_tape *tape, pd_device *device, pd_plan_mode mode, pd_err *err)
{
    pd_plan *plan;
    PD_TRY(new_plan(&plan, tape, device, mode, err));
    const pd_status status = pd_plan_lay_out(plan, err);
    if (status == PD_OK) *bytes = pd_plan_bytes(plan);
    pd_plan_free(plan);
    return status;
}

/* Operations that read the same constants share what they make of them: it counts once. */
static size_t kept_bytes(const pd_plan *plan)
{
    size_t sum = 0;
    for (int i = 0; i < plan->count; i++) {
        const pd_node *n = plan->nodes[i];
        const pd_value *of = NULL; /* the largest constant input */
        for (int k = 0; k < n->n_in && n->kept_bytes; k++)
            if (n->in[k] && n->in[k]->constant && (!of || pd_value_bytes(n->in[k]) > pd_value_bytes(of))) of = n->in[k];
        if (!of || plan->value[of->id].counted) continue;
        plan->value[of->id].counted = true;
        sum += n->kept_bytes;
    }
    return sum;
}

pd_status pd_plan_measure_constants(size_t *bytes, pd_tape *tape, pd_device *device, pd_err *err)
{
    pd_plan *plan;
    PD_TRY(new_plan(&plan, tape, device, PD_PLAN_INFER, err));
    const pd_status status = pd_plan_lay_out(plan, err);
    if (status == PD_OK) *bytes = plan->constant_bytes + kept_bytes(plan);
    pd_plan_free(plan);
    return status;
}

void pd_plan_free(pd_plan *plan)
{
    if (!plan) return;
    for (int i = 0; i < plan->count && plan->nodes; i++) {
        pd_node *n = plan->nodes[i];
        if (n && n->kernel && n->kernel->release) n->kernel->release(n);
        if (n) n->kernel = NULL;
    }
    forget_graphs(plan);
    for (int i = 0; i < PD_PLAN_LATE; i++) {
        if (plan->device->late_free && plan->late.slot[i])
            plan->device->late_free(plan->device, plan->late.slot[i]);
        else
            free(plan->late.slot[i]);
    }
    for (int i = 0; plan->value && i < pd_tape_value_count(plan->tape); i++) {
        if (plan->value[i].given) plan->device->release(plan->device, plan->value[i].given);
        free(plan->value[i].host);
    }
    pd_unshare(plan->constants);
    pd_workspace_free(plan->own);
    free(plan->times);
    pd_arena_free(plan->arena);
    free(plan);
}

void pd_plan_bind(pd_value *input, void *data)
{
    input->data = data;
}

pd_status pd_plan_give(pd_plan *plan, pd_value *input, const void *data, pd_err *err)
{
    pd_device *d = plan->device;
    const size_t bytes = pd_value_bytes(input);
    if (!data && bytes) return PD_FAIL(err, PD_EINVAL, "%s: no data was given", input->name);
    if (d->kind == PD_CPU || !bytes) {
        input->data = (void *)(uintptr_t)data; /* inputs are read only */
        return PD_OK;
    }
    void **given = &plan->value[input->id].given;
    if (!*given) PD_TRY(d->alloc(d, given, bytes, err));
    input->data = *given;
    return d->upload(d, *given, data, bytes, err);
}

/* 16-bit elements in the front of `host` become floats, from the last to the first. */
static void widen(void *host, size_t count, pd_store store)
{
    const uint16_t *from = host;
    float *to = host;
    for (size_t i = count; i-- > 0;) {
        uint16_t half;
        memcpy(&half, &from[i], sizeof half);
        const float value = store == PD_STORE_F16 ? pd_float_from_f16(half) : pd_float_from_bf16(half);
        memcpy(&to[i], &value, sizeof value);
    }
}

static pd_status fetch(pd_plan *plan, pd_value *v, pd_err *err)
{
    pd_device *d = plan->device;
    const size_t count = pd_shape_size(v->shape);
    void **host = &plan->value[v->id].host;
    if (!*host) *host = malloc(count * sizeof(float) + 1);
    if (!*host) return PD_FAIL(err, PD_ENOMEM, "out of memory for results");
    v->host = *host;
    if (count == 0) return PD_OK;
    PD_TRY(d->download(d, *host, v->data, count * pd_store_bytes(v->store), err));
    if (v->store != PD_STORE_32) widen(*host, count, v->store);
    return PD_OK;
}

pd_status pd_plan_fetch(pd_plan *plan, pd_value *value, pd_err *err)
{
    for (pd_value *v = pd_tape_values(plan->tape); v; v = v->next) {
        if (value ? v != value : !v->keep || !v->node) continue;
        if (plan->device->kind == PD_CPU)
            v->host = v->data;
        else
            PD_TRY(fetch(plan, v, err));
    }
    return PD_OK;
}

static pd_status list_kept(pd_plan *plan, pd_err *err)
{
    pd_late *l = &plan->late;
    const size_t most = (size_t)pd_tape_value_count(plan->tape);
    int count = 0;
    PD_TRY(PD_ALLOC(&l->value, plan->arena, most, err));
    PD_TRY(PD_ALLOC(&l->from, plan->arena, most, err));
    PD_TRY(PD_ALLOC(&l->bytes, plan->arena, most, err));
    for (pd_value *v = pd_tape_values(plan->tape); v; v = v->next) {
        if (!v->keep || !v->node) continue;
        if (v->store != PD_STORE_32)
            return PD_FAIL(err, PD_EINVAL, "%s: a map cannot be read later", v->node->op->name);
        l->bytes[count] = pd_value_bytes(v);
        l->total += l->bytes[count];
        l->value[count++] = v;
    }
    l->count = count;
    return PD_OK;
}

/* The CPU's copy. */
static pd_status copy_now(pd_late *l, void **slot, pd_err *err)
{
    if (!*slot) *slot = malloc(l->total + 1);
    if (!*slot) return PD_FAIL(err, PD_ENOMEM, "out of memory for results");
    char *to = *slot;
    for (int i = 0; i < l->count; to += l->bytes[i++])
        if (l->bytes[i]) memcpy(to, l->from[i], l->bytes[i]);
    return PD_OK;
}

pd_status pd_plan_fetch_later(pd_plan *plan, pd_err *err)
{
    pd_late *l = &plan->late;
    pd_device *d = plan->device;
    if (l->unread == PD_PLAN_LATE)
        return PD_FAIL(err, PD_EINVAL, "the results of %d runs are unread: pd_plan_fetched comes first", l->unread);
    if (l->count < 0) PD_TRY(list_kept(plan, err));
    void **slot = &l->slot[(l->first + l->unread) % PD_PLAN_LATE];
    for (int i = 0; i < l->count; i++) l->from[i] = l->value[i]->data;
    PD_TRY(d->late_copy ? d->late_copy(d, slot, l->count, l->from, l->bytes, err) : copy_now(l, slot, err));
    l->unread++;
    return PD_OK;
}

pd_status pd_plan_fetched(pd_plan *plan, pd_err *err)
{
    pd_late *l = &plan->late;
    pd_device *d = plan->device;
    if (!l->unread) return PD_FAIL(err, PD_EINVAL, "no results are unread");
    void *numbers = l->slot[l->first];
    if (d->late_wait) PD_TRY(d->late_wait(d, numbers, &numbers, err));
    l->first = (l->first + 1) % PD_PLAN_LATE;
    l->unread--;
    char *at = numbers;
    for (int i = 0; i < l->count; at += l->bytes[i++]) l->value[i]->host = at;
    return PD_OK;
}

void pd_plan_no_graphs(pd_plan *plan)
{
    plan->no_graphs = true;
    forget_graphs(plan);
}

void pd_plan_refresh(pd_plan *plan)
{
    plan->stale = true;
    pd_shared_changed(plan->device);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static pd_status run_node(pd_plan *plan, pd_node *n, bool backward, const pd_run *run, pd_err *err)
{
    n->scratch = backward ? plan->node[n->id].bwd_scratch : plan->node[n->id].fwd_scratch;
    const double start = plan->times ? now() : 0;
    const pd_status status = (backward ? n->kernel->bwd : n->kernel->fwd)(n, run, err);
    if (status != PD_OK) return pd_err_context(err, "%s %s", n->op->name, n->name), status;
    if (!plan->times) return PD_OK;
    PD_TRY(plan->device->sync(plan->device, err));
    *(backward ? &plan->times[n->id].bwd : &plan->times[n->id].fwd) += now() - start;
    return PD_OK;
}

static pd_status forward_loop(pd_plan *plan, const pd_run *run, pd_err *err)
{
    const bool made = plan->constants && pd_shared_current(plan->constants); /* by this plan or another one */
    pd_plan_guard_begin(plan, 0);
    for (int i = 0; i < plan->count; i++) {
        pd_plan_guard_step(plan, i);
        if (!plan->nodes[i]->constant || (plan->stale && !made))
            PD_TRY(run_node(plan, plan->nodes[i], false, run, err));
    }
    pd_plan_guard_step(plan, plan->count);
    if (plan->stale && plan->constants) pd_shared_done(plan->constants);
    return PD_OK;
}

static void tell_complete(const pd_plan *plan, const pd_node *n)
{
    for (int k = 0; k < n->n_in; k++) {
        if (n->grad_mode[k] == PD_GRAD_NONE || !n->in[k]->param || plan->value[n->in[k]->id].last_writer != n->id)
            continue;
        bool again = false; /* the same weight in a later slot? */
        for (int j = k + 1; j < n->n_in; j++) again = again || n->in[j] == n->in[k];
        if (!again) pd_params_tell(pd_tape_params(plan->tape), n->in[k]->param);
    }
}

static pd_status backward_loop(pd_plan *plan, const pd_run *run, pd_err *err)
{
    pd_plan_guard_begin(plan, plan->count);
    for (pd_value *v = pd_tape_values(plan->tape); v; v = v->next)
        if (v->root && v->grad) PD_TRY(plan->device->seed(plan->device, v->grad, v->root_scale, err));
    for (int i = plan->count - 1; i >= 0; i--) {
        pd_plan_guard_step(plan, 2 * plan->count - 1 - i);
        if (!plan->nodes[i]->backward) continue;
        PD_TRY(run_node(plan, plan->nodes[i], true, run, err));
        tell_complete(plan, plan->nodes[i]);
    }
    pd_plan_guard_step(plan, 2 * plan->count);
    return PD_OK;
}

#define PLAIN_RUNS 2 /* before a run is recorded: libraries have then made what they make on first use */

typedef pd_status (*loop_fn)(pd_plan *plan, const pd_run *run, pd_err *err);

static pd_status run_loop(pd_plan *plan, pd_recording *r, loop_fn loop, const pd_run *run, pd_err *err)
{
    pd_device *d = plan->device;
    /* what begins collectives is not recorded: processes would have to record at the same step */
    const bool shared = d->comm && pd_tape_syncs_stats(plan->tape);
    if (!d->graph_begin || plan->no_graphs || plan->times || run->constants || shared) return loop(plan, run, err);
    if (!r->graph && r->plain_runs < PLAIN_RUNS) {
        r->plain_runs++;
        return loop(plan, run, err);
    }
    if (!r->graph) {
        void *graph = NULL;
        pd_err ignored = PD_ERR_INIT;
        PD_TRY(d->graph_begin(d, err));
        const pd_status status = loop(plan, run, err);
        const pd_status ended = d->graph_end(d, &graph, status == PD_OK ? err : &ignored);
        if (status != PD_OK && graph) d->graph_free(d, graph);
        PD_TRY(status);
        PD_TRY(ended);
        r->graph = graph;
    }
    return d->graph_run(d, r->graph, err);
}

/* One number that changes when an input is bound elsewhere. */
static uintptr_t input_places(const pd_plan *plan)
{
    uintptr_t sum = 0;
    for (const pd_value *v = pd_tape_values(plan->tape); v; v = v->next)
        if (!v->node && !v->param) sum = sum * 31 + (uintptr_t)v->data;
    return sum;
}

pd_status pd_plan_forward(pd_plan *plan, pd_err *err)
{
    const pd_run run = {.device = plan->device, .constants = plan->stale};
    PD_TRY(grow(plan->workspace, plan->bytes, err)); /* where another plan had no memory to make it grow */
    if (plan->placed != plan->workspace->memory) assign_addresses(plan); /* another plan made it grow */
    for (pd_value *v = pd_tape_values(plan->tape); v; v = v->next)
        if (!v->node && !v->param && !v->data && pd_shape_size(v->shape))
            return PD_FAIL(err, PD_EINVAL, "%s: the input has no data (pd_plan_bind)", v->name);
    const uintptr_t inputs = input_places(plan);
    if (inputs != plan->inputs) forget_graphs(plan);
    plan->inputs = inputs;
    PD_TRY(run_loop(plan, &plan->graph[0], forward_loop, &run, err));
    plan->stale = false;
    return PD_OK;
}

pd_status pd_plan_backward(pd_plan *plan, bool accumulate, pd_err *err)
{
    if (plan->mode != PD_PLAN_TRAIN) return PD_FAIL(err, PD_EINVAL, "this plan was made for inference");
    if (plan->placed != plan->workspace->memory)
        return PD_FAIL(err, PD_EINVAL, "what the forward run left is gone: another plan was made since");
    const pd_run run = {.device = plan->device, .accumulate = accumulate};
    const pd_params *params = pd_tape_params(plan->tape);
    if (!accumulate) pd_params_tell(params, NULL);
    if (pd_params_listened(params)) return backward_loop(plan, &run, err); /* what a listener begins is not recorded */
    return run_loop(plan, &plan->graph[1 + accumulate], backward_loop, &run, err);
}

size_t pd_plan_bytes(const pd_plan *plan)
{
    return plan->bytes + plan->constant_bytes;
}

size_t pd_plan_naive_bytes(const pd_plan *plan)
{
    return plan->naive;
}

pd_status pd_plan_time_nodes(pd_plan *plan, pd_err *err)
{
    if (!plan->times) plan->times = calloc((size_t)plan->count + 1, sizeof *plan->times);
    return plan->times ? PD_OK : PD_FAIL(err, PD_ENOMEM, "out of memory for timing");
}

const pd_node_time *pd_plan_times(const pd_plan *plan)
{
    return plan->times;
}
