#include "engine/plan.h"
#include "engine/shared.h"
#include "engine/half.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A piece of the workspace and the span of steps during which it must not be shared. Step i < T is node i's forward,
 * step 2T - 1 - i its backward. A buffer that lies in another one's memory has `in` set and no offset of its own. */
typedef struct buffer {
    size_t bytes, offset;
    size_t inner; /* where it begins in `in` */
    int start, end;
    bool constant; /* lives in the plan's own memory, between runs too */
    struct buffer *in;
} buffer;

typedef struct node_plan {
    buffer saved, scratch_fwd, scratch_bwd;
    void *fwd_scratch, *bwd_scratch;
} node_plan;

typedef struct value_plan {
    buffer data, grad;
    int users;       /* slots of nodes that read it */
    bool trained;    /* something trainable lies in or below it, and a gradient can get there */
    bool wants_grad; /* a backward run writes its gradient */
    int last_writer; /* of a weight's gradient: the node that completes it */
    bool mutable;    /* a buffer that an operation of this tape changes */
    void *given;     /* device memory for what pd_plan_give brings; the plan's */
    void *host;      /* what pd_plan_fetch fills; NULL on the CPU */
} value_plan;

/* A run that is replayed. Valid as long as the inputs lie where they lay. */
typedef struct recording {
    void *graph;
    int plain_runs; /* since the last change of addresses */
} recording;

struct pd_workspace {
    pd_device *device;
    void *memory;
    size_t bytes;
};

struct pd_plan {
    pd_tape *tape;
    pd_device *device;
    pd_plan_mode mode;
    pd_arena *arena;
    pd_node **nodes;
    int count;
    node_plan *node;               /* (count) */
    value_plan *value;             /* (values of the tape) */
    pd_workspace *workspace, *own; /* own: the same, where the plan made it */
    void *placed;                  /* the workspace's memory that addresses were given for */
    pd_shared *constants; /* one block */
    size_t bytes, constant_bytes, naive;
    bool stale; /* constants must run */
    pd_node_time *times;
    recording graph[3]; /* forward, backward, backward that accumulates */
    bool no_graphs;
    uintptr_t inputs; /* where the inputs lay when graphs were recorded */
};

static bool has_bit(unsigned mask, int i)
{
    return i < 32 && (mask >> i & 1u);
}

/* Which values never change between runs: parameters that nobody trains, and what is computed from them alone. */
static void find_constants(pd_plan *plan)
{
    for (int i = 0; i < plan->count; i++)
        for (int k = 0; k < plan->nodes[i]->n_in && plan->nodes[i]->op->stateful; k++)
            if (plan->nodes[i]->in[k]) plan->value[plan->nodes[i]->in[k]->id].mutable = true;
    for (pd_value *v = pd_tape_values(plan->tape); v; v = v->next)
        v->constant = v->param && !plan->value[v->id].mutable &&
                      (plan->mode == PD_PLAN_INFER || v->param->kind != PD_WEIGHT || !v->param->trainable);
    for (int i = 0; i < plan->count; i++) {
        pd_node *n = plan->nodes[i];
        bool all = !n->op->stateful && n->n_in > 0;
        for (int k = 0; k < n->n_in; k++) all = all && (!n->in[k] || n->in[k]->constant);
        n->constant = all;
        for (int k = 0; k < n->n_out; k++) n->out[k]->constant = all;
    }
}

/* Which nodes run backward, and who sets and who adds each gradient. */
static void find_gradients(pd_plan *plan)
{
    for (pd_value *v = pd_tape_values(plan->tape); v; v = v->next) {
        plan->value[v->id].trained =
            plan->mode == PD_PLAN_TRAIN && v->param && v->param->trainable && v->param->kind == PD_WEIGHT;
        plan->value[v->id].wants_grad = plan->mode == PD_PLAN_TRAIN && v->root;
    }
    for (int i = 0; i < plan->count; i++) {
        const pd_node *n = plan->nodes[i];
        bool any = false;
        for (int k = 0; k < n->n_in; k++) any = any || (n->in[k] && plan->value[n->in[k]->id].trained);
        for (int k = 0; k < n->n_out; k++) plan->value[n->out[k]->id].trained = any && n->op->differentiable;
    }
    for (int i = plan->count - 1; i >= 0; i--) {
        pd_node *n = plan->nodes[i];
        bool above = false, below = false;
        for (int k = 0; k < n->n_out; k++)
            above = above || (plan->value[n->out[k]->id].wants_grad && plan->value[n->out[k]->id].trained);
        for (int k = 0; k < n->n_in; k++) below = below || (n->in[k] && plan->value[n->in[k]->id].trained);
        n->backward = above && below && n->op->differentiable;
        for (int k = 0; k < n->n_in; k++) {
            n->grad_mode[k] = PD_GRAD_NONE;
            if (!n->backward || !n->in[k] || !plan->value[n->in[k]->id].trained) continue;
            value_plan *v = &plan->value[n->in[k]->id];
            n->grad_mode[k] = v->wants_grad ? PD_GRAD_ADD : PD_GRAD_SET;
            v->wants_grad = true;
            v->last_writer = i;
        }
    }
}

static const pd_kernel *find_kernel(pd_device *device, const pd_op *op)
{
    if (op->kernel[device->kind] || !device->find) return op->kernel[device->kind];
    return device->find(device, op->name);
}

/* How every value lies in memory. */
static void choose_stores(pd_plan *plan)
{
    const pd_precision p = plan->device->precision;
    const pd_store half = p == PD_FP16 ? PD_STORE_F16 : PD_STORE_BF16;
    for (pd_value *v = pd_tape_values(plan->tape); v; v = v->next) {
        const bool map = v->dtype == PD_F32 && v->shape.rank == 4 && v->node && !v->node->op->makes_weights;
        v->store = map && pd_precision_is_half(p) ? half : PD_STORE_32;
        v->pitch = v->shape.rank ? v->shape.dim[v->shape.rank - 1] : 1;
        v->host = NULL;
    }
}

static pd_status plan_kernels(pd_plan *plan, pd_err *err)
{
    for (int i = 0; i < plan->count; i++) {
        pd_node *n = plan->nodes[i];
        n->kernel = find_kernel(plan->device, n->op);
        n->keep_apart = n->join_outputs = false;
        if (!n->kernel || !n->kernel->fwd || (n->backward && !n->kernel->bwd))
            return PD_FAIL(err, PD_EDEVICE, "%s %s: has no %s %s", n->op->name, n->name, plan->device->name,
                           n->kernel && n->kernel->fwd ? "backward" : "implementation");
        n->saved_bytes = n->scratch_fwd = n->scratch_bwd = 0;
        const pd_status status = n->kernel->plan ? n->kernel->plan(n, plan->device, err) : PD_OK;
        if (status != PD_OK) return pd_err_context(err, "%s %s", n->op->name, n->name), status;
    }
    return PD_OK;
}

static void live(buffer *b, int step)
{
    if (step < b->start) b->start = step;
    if (step > b->end) b->end = step;
}

static size_t value_bytes(const pd_value *v)
{
    return pd_shape_size(v->shape) * pd_store_bytes(v->store);
}

static void find_lifetimes(pd_plan *plan)
{
    const int last = 2 * plan->count;
    for (int i = 0; i < plan->count; i++) {
        pd_node *n = plan->nodes[i];
        node_plan *np = &plan->node[i];
        const int fwd = i, bwd = last - 1 - i;
        np->saved = (buffer){.bytes = n->saved_bytes, .start = fwd, .end = n->backward ? bwd : fwd};
        np->scratch_fwd = (buffer){.bytes = n->scratch_fwd, .start = fwd, .end = fwd};
        np->scratch_bwd = (buffer){.bytes = n->backward ? n->scratch_bwd : 0, .start = bwd, .end = bwd};
        for (int k = 0; k < n->n_out; k++) {
            const pd_value *v = n->out[k];
            buffer *b = &plan->value[v->id].data;
            *b = (buffer){.bytes = value_bytes(v), .start = fwd, .end = fwd};
            if (n->backward && has_bit(n->op->bwd_reads_out, k)) live(b, bwd);
            if (v->keep) live(b, last);
            b->constant = n->constant;
            if (plan->value[v->id].wants_grad)
                plan->value[v->id].grad = (buffer){.bytes = value_bytes(v), .start = bwd, .end = bwd};
            if (v->root) live(&plan->value[v->id].grad, plan->count);
        }
        for (int k = 0; k < n->n_in; k++) {
            if (!n->in[k]) continue;
            value_plan *v = &plan->value[n->in[k]->id];
            v->users++;
            if (!n->in[k]->node) continue;
            live(&v->data, fwd);
            if (n->backward && has_bit(n->op->bwd_reads_in, k)) live(&v->data, bwd);
            if (n->grad_mode[k] != PD_GRAD_NONE) live(&v->grad, bwd);
        }
    }
}

static buffer *home(buffer *b)
{
    while (b->in) b = b->in;
    return b;
}

static void lay_into(buffer *b, buffer *host)
{
    live(home(host), b->start);
    live(home(host), b->end);
    b->in = host;
}

/* Outputs side by side: the first one's buffer holds all, the others begin inside its first pixel. */
static void join(pd_plan *plan, const pd_node *n)
{
    value_plan *first = &plan->value[n->out[0]->id];
    const size_t row = (size_t)n->out[0]->pitch * pd_store_bytes(n->out[0]->store);
    first->data.bytes *= (size_t)n->n_out;
    first->grad.bytes *= (size_t)n->n_out;
    for (int k = 0; k < n->n_out; k++) {
        value_plan *v = &plan->value[n->out[k]->id];
        n->out[k]->pitch *= n->n_out;
        if (k == 0) continue;
        v->data.inner = (size_t)k * row;
        lay_into(&v->data, &first->data);
        v->grad.inner = (size_t)k * row;
        if (v->grad.bytes) lay_into(&v->grad, &first->grad);
    }
}

static bool grad_may_lie_over_data(const pd_plan *plan, const pd_value *v)
{
    const value_plan *vp = &plan->value[v->id];
    return vp->users == 1 && vp->wants_grad && !v->keep && !v->constant && !has_bit(v->node->op->bwd_reads_out, v->slot);
}

/* Gradients written over the data they belong to, and outputs written over inputs that are used no more. */
static void share_memory(pd_plan *plan)
{
    for (int i = 0; i < plan->count; i++)
        if (plan->nodes[i]->join_outputs) join(plan, plan->nodes[i]);
    for (int i = 0; i < plan->count; i++) {
        pd_node *n = plan->nodes[i];
        for (int k = 0; k < n->n_in; k++) {
            pd_value *v = n->in[k];
            if (!n->backward || !has_bit(n->op->grad_over_in, k) || n->grad_mode[k] != PD_GRAD_SET || !v->node)
                continue;
            const pd_node *maker = v->node;
            bool may = grad_may_lie_over_data(plan, v);
            if (maker->join_outputs) { /* all of them, or none: decided where the first one is met */
                for (int o = 0; o < maker->n_out; o++) may = may && grad_may_lie_over_data(plan, maker->out[o]);
                may = may && v->slot == 0;
            }
            if (may) lay_into(&plan->value[v->id].grad, &plan->value[v->id].data);
        }
    }
    for (int i = 0; i < plan->count; i++) {
        pd_node *n = plan->nodes[i];
        pd_value *v = n->op->out_over_in ? n->in[n->op->out_over_in - 1] : NULL;
        if (!v || !v->node || v->keep || v->constant || n->constant || value_bytes(v) != value_bytes(n->out[0]) ||
            n->keep_apart || n->join_outputs || v->node->join_outputs)
            continue;
        int slots = 0; /* the same value as another input of this node too? */
        for (int k = 0; k < n->n_in; k++) slots += n->in[k] == v;
        if (slots == 1 && home(&plan->value[v->id].data)->end == i)
            lay_into(&plan->value[n->out[0]->id].data, &plan->value[v->id].data);
    }
}

static int by_size(const void *a, const void *b)
{
    const buffer *x = *(buffer *const *)a, *y = *(buffer *const *)b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    return (x->start > y->start) - (x->start < y->start);
}

static int by_offset(const void *a, const void *b)
{
    const buffer *x = *(buffer *const *)a, *y = *(buffer *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Greedy placement: the largest first, each at the lowest offset where it meets no living neighbour. */
static pd_status place(pd_plan *plan, pd_err *err)
{
    const size_t room = 3 * (size_t)plan->count + 2 * (size_t)pd_tape_value_count(plan->tape);
    buffer **list, **near;
    PD_TRY(PD_ALLOC(&list, plan->arena, room, err));
    PD_TRY(PD_ALLOC(&near, plan->arena, room, err));
    size_t count = 0;
    for (int i = 0; i < plan->count; i++) {
        list[count++] = &plan->node[i].saved;
        list[count++] = &plan->node[i].scratch_fwd;
        list[count++] = &plan->node[i].scratch_bwd;
    }
    for (pd_value *v = pd_tape_values(plan->tape); v; v = v->next) {
        list[count++] = &plan->value[v->id].data;
        list[count++] = &plan->value[v->id].grad;
    }
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        list[i]->bytes = (list[i]->bytes + PD_ALIGN - 1) / PD_ALIGN * PD_ALIGN;
        plan->naive += list[i]->bytes;
        if (list[i]->constant) {
            list[i]->offset = plan->constant_bytes;
            plan->constant_bytes += list[i]->bytes;
        } else if (list[i]->bytes && !list[i]->in) {
            list[kept++] = list[i];
        }
    }
    qsort(list, kept, sizeof *list, by_size);
    for (size_t i = 0; i < kept; i++) {
        buffer *b = list[i];
        size_t n = 0;
        for (size_t j = 0; j < i; j++)
            if (list[j]->start <= b->end && b->start <= list[j]->end) near[n++] = list[j];
        qsort(near, n, sizeof *near, by_offset);
        b->offset = 0;
        for (size_t j = 0; j < n; j++) {
            if (near[j]->offset >= b->offset + b->bytes) break;
            if (near[j]->offset + near[j]->bytes > b->offset) b->offset = near[j]->offset + near[j]->bytes;
        }
        if (b->offset + b->bytes > plan->bytes) plan->bytes = b->offset + b->bytes;
    }
    return PD_OK;
}

static void *address(const pd_plan *plan, buffer *b)
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
        plan->graph[i] = (recording){0};
    }
}

static void assign_addresses(pd_plan *plan)
{
    forget_graphs(plan);
    plan->placed = plan->workspace->memory;
    for (pd_value *v = pd_tape_values(plan->tape); v; v = v->next) {
        value_plan *vp = &plan->value[v->id];
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
 * that a run ever takes. Pages are touched now, not in the first step; and whoever reads what nobody wrote reads NaN. */
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

/* Where every buffer is to lie: everything that needs no memory yet. */
static pd_status lay_out(pd_plan *plan, pd_err *err)
{
    PD_TRY(pd_tape_status(plan->tape, err));
    plan->count = pd_tape_node_count(plan->tape);
    PD_TRY(PD_ALLOC(&plan->nodes, plan->arena, (size_t)plan->count, err));
    PD_TRY(PD_ALLOC(&plan->node, plan->arena, (size_t)plan->count, err));
    PD_TRY(PD_ALLOC(&plan->value, plan->arena, (size_t)pd_tape_value_count(plan->tape), err));
    for (pd_node *n = pd_tape_nodes(plan->tape); n; n = n->next) plan->nodes[n->id] = n;
    find_constants(plan);
    find_gradients(plan);
    choose_stores(plan);
    PD_TRY(plan_kernels(plan, err));
    find_lifetimes(plan);
    share_memory(plan);
    return place(plan, err);
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
    PD_TRY(lay_out(plan, err));
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
    const pd_status status = lay_out(plan, err);
    if (status == PD_OK) *bytes = pd_plan_bytes(plan);
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
    const size_t bytes = value_bytes(input);
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
    if (plan->device->kind == PD_CPU) return PD_OK; /* host is data */
    if (value) return fetch(plan, value, err);
    for (pd_value *v = pd_tape_values(plan->tape); v; v = v->next)
        if (v->keep && v->node) PD_TRY(fetch(plan, v, err));
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
    for (int i = 0; i < plan->count; i++)
        if (!plan->nodes[i]->constant || (plan->stale && !made))
            PD_TRY(run_node(plan, plan->nodes[i], false, run, err));
    if (plan->stale && plan->constants) pd_shared_done(plan->constants);
    return PD_OK;
}

static void tell_complete(const pd_plan *plan, const pd_node *n)
{
    for (int k = 0; k < n->n_in; k++) {
        if (n->grad_mode[k] == PD_GRAD_NONE || !n->in[k]->param || plan->value[n->in[k]->id].last_writer != n->id) continue;
        bool again = false; /* the same weight in a later slot? */
        for (int j = k + 1; j < n->n_in; j++) again = again || n->in[j] == n->in[k];
        if (!again) pd_params_tell(pd_tape_params(plan->tape), n->in[k]->param);
    }
}

static pd_status backward_loop(pd_plan *plan, const pd_run *run, pd_err *err)
{
    for (pd_value *v = pd_tape_values(plan->tape); v; v = v->next)
        if (v->root && v->grad) PD_TRY(plan->device->seed(plan->device, v->grad, v->root_scale, err));
    for (int i = plan->count - 1; i >= 0; i--) {
        if (!plan->nodes[i]->backward) continue;
        PD_TRY(run_node(plan, plan->nodes[i], true, run, err));
        tell_complete(plan, plan->nodes[i]);
    }
    return PD_OK;
}

#define PLAIN_RUNS 2 /* before a run is recorded: libraries have then made what they make on first use */

typedef pd_status (*loop_fn)(pd_plan *plan, const pd_run *run, pd_err *err);

static pd_status run_loop(pd_plan *plan, recording *r, loop_fn loop, const pd_run *run, pd_err *err)
{
    pd_device *d = plan->device;
    if (!d->graph_begin || plan->no_graphs || plan->times || run->constants) return loop(plan, run, err);
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
