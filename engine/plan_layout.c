#include "engine/plan_layout.h"
#include "engine/poison.h"

#include <stdlib.h>

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
            pd_value_plan *v = &plan->value[n->in[k]->id];
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
        v->store = v->dtype == PD_U8 ? PD_STORE_8 : map && pd_precision_is_half(p) ? half : PD_STORE_32;
        v->pitch = v->shape.rank ? v->shape.dim[v->shape.rank - 1] : 1;
        v->host = NULL;
        v->sum = v->square = NULL;
    }
}

/* Before its readers are planned. */
static void pad_output(const pd_plan *plan, const pd_node *n)
{
    pd_value *y = n->out[0];
    bool may = n->pad_channels > y->pitch && !y->keep && !plan->value[y->id].wants_grad;
    for (int i = n->id + 1; i < plan->count && may; i++)
        for (int k = 0; k < plan->nodes[i]->n_in; k++)
            may = may && (plan->nodes[i]->in[k] != y || (k == 0 && plan->nodes[i]->op->padded_x));
    if (may) y->pitch = n->pad_channels;
}

static pd_status plan_kernels(pd_plan *plan, pd_err *err)
{
    for (int i = 0; i < plan->count; i++) {
        pd_node *n = plan->nodes[i];
        n->kernel = find_kernel(plan->device, n->op);
        n->keep_apart = false;
        n->joined = 0;
        n->pad_channels = 0;
        if (!n->kernel || !n->kernel->fwd || (n->backward && !n->kernel->bwd))
            return PD_FAIL(err, PD_EDEVICE, "%s %s: has no %s %s", n->op->name, n->name, plan->device->name,
                           n->kernel && n->kernel->fwd ? "backward" : "implementation");
        n->saved_bytes = n->scratch_fwd = n->scratch_bwd = n->kept_bytes = 0;
        const pd_status status = n->kernel->plan ? n->kernel->plan(n, plan->device, err) : PD_OK;
        if (status != PD_OK) return pd_err_context(err, "%s %s", n->op->name, n->name), status;
        if (n->pad_channels) pad_output(plan, n);
    }
    return PD_OK;
}

/* What a value takes, with what pads its pixels. */
static size_t room(const pd_value *v)
{
    const int last = v->shape.rank ? v->shape.dim[v->shape.rank - 1] : 1;
    return last ? pd_value_bytes(v) / (size_t)last * (size_t)v->pitch : 0;
}

static void live(pd_buffer *b, int step)
{
    if (step < b->start) b->start = step;
    if (step > b->end) b->end = step;
}

static void find_lifetimes(pd_plan *plan)
{
    const int last = 2 * plan->count;
    for (int i = 0; i < plan->count; i++) {
        pd_node *n = plan->nodes[i];
        pd_node_plan *np = &plan->node[i];
        const int fwd = i, bwd = last - 1 - i;
        np->saved = (pd_buffer){.bytes = n->saved_bytes, .start = fwd, .end = n->backward ? bwd : fwd};
        np->scratch_fwd = (pd_buffer){.bytes = n->scratch_fwd, .start = fwd, .end = fwd};
        np->scratch_bwd = (pd_buffer){.bytes = n->backward ? n->scratch_bwd : 0, .start = bwd, .end = bwd};
        for (int k = 0; k < n->n_out; k++) {
            const pd_value *v = n->out[k];
            pd_buffer *b = &plan->value[v->id].data;
            *b = (pd_buffer){.bytes = room(v), .start = fwd, .end = fwd};
            if (n->backward && has_bit(n->op->bwd_reads_out, k)) live(b, bwd);
            if (v->keep) live(b, last);
            b->constant = n->constant;
            if (plan->value[v->id].wants_grad)
                plan->value[v->id].grad = (pd_buffer){.bytes = pd_value_bytes(v), .start = bwd, .end = bwd};
            if (v->root) live(&plan->value[v->id].grad, plan->count);
        }
        for (int k = 0; k < n->n_in; k++) {
            if (!n->in[k]) continue;
            pd_value_plan *v = &plan->value[n->in[k]->id];
            v->users++;
            if (!n->in[k]->node) continue;
            live(&v->data, fwd);
            if (n->backward && has_bit(n->op->bwd_reads_in, k)) live(&v->data, bwd);
            if (n->grad_mode[k] != PD_GRAD_NONE) live(&v->grad, bwd);
        }
    }
}

static pd_buffer *home(pd_buffer *b)
{
    while (b->in) b = b->in;
    return b;
}

static void lay_into(pd_buffer *b, pd_buffer *host)
{
    live(home(host), b->start);
    live(home(host), b->end);
    b->in = host;
}

/* Of outputs side by side: where the run of output k begins, and where it ends. */
static int run_begin(const pd_node *n, int k)
{
    while (has_bit(n->joined, k)) k--;
    return k;
}

static int run_end(const pd_node *n, int k)
{
    do k++;
    while (k < n->n_out && has_bit(n->joined, k));
    return k;
}

/* Outputs side by side: the first one's buffer holds all, the others begin inside its first pixel. */
static void join(pd_plan *plan, const pd_node *n, int begin, int end)
{
    pd_value *head = n->out[begin];
    pd_value_plan *first = &plan->value[head->id];
    const size_t row = (size_t)head->pitch * pd_store_bytes(head->store);
    first->data.bytes *= (size_t)(end - begin);
    first->grad.bytes *= (size_t)(end - begin);
    head->pitch *= end - begin;
    for (int k = begin + 1; k < end; k++) {
        pd_value_plan *v = &plan->value[n->out[k]->id];
        n->out[k]->pitch = head->pitch;
        v->data.inner = (size_t)(k - begin) * row;
        lay_into(&v->data, &first->data);
        v->grad.inner = (size_t)(k - begin) * row;
        if (v->grad.bytes) lay_into(&v->grad, &first->grad);
    }
}

static bool grad_may_lie_over_data(const pd_plan *plan, const pd_value *v)
{
    const pd_value_plan *vp = &plan->value[v->id];
    return vp->users == 1 && vp->wants_grad && !v->keep && !v->constant &&
           !has_bit(v->node->op->bwd_reads_out, v->slot);
}

/* Gradients written over the data they belong to, and outputs written over inputs that are used no more. */
static void share_memory(pd_plan *plan)
{
    for (int i = 0; i < plan->count; i++)
        for (int k = 0, end; plan->nodes[i]->joined && k < plan->nodes[i]->n_out; k = end) {
            end = run_end(plan->nodes[i], k);
            if (end > k + 1) join(plan, plan->nodes[i], k, end);
        }
    for (int i = 0; i < plan->count; i++) {
        pd_node *n = plan->nodes[i];
        for (int k = 0; k < n->n_in; k++) {
            pd_value *v = n->in[k];
            if (!n->backward || !has_bit(n->op->grad_over_in, k) || n->grad_mode[k] != PD_GRAD_SET || !v->node)
                continue;
            const pd_node *maker = v->node;
            bool may = grad_may_lie_over_data(plan, v);
            /* side by side: all of them, or none: decided where the first one is met */
            const int begin = run_begin(maker, v->slot), end = run_end(maker, v->slot);
            for (int o = begin; o < end; o++) may = may && grad_may_lie_over_data(plan, maker->out[o]);
            may = may && v->slot == begin;
            if (may) lay_into(&plan->value[v->id].grad, &plan->value[v->id].data);
        }
    }
    for (int i = 0; i < plan->count; i++) {
        pd_node *n = plan->nodes[i];
        pd_value *v = n->op->out_over_in ? n->in[n->op->out_over_in - 1] : NULL;
        if (!v || !v->node || v->keep || v->constant || n->constant || pd_value_bytes(v) != pd_value_bytes(n->out[0]) ||
            n->keep_apart || n->joined || v->node->joined)
            continue;
        int slots = 0; /* the same value as another input of this node too? */
        for (int k = 0; k < n->n_in; k++) slots += n->in[k] == v;
        if (slots == 1 && home(&plan->value[v->id].data)->end == i)
            lay_into(&plan->value[n->out[0]->id].data, &plan->value[v->id].data);
    }
}

static int by_size(const void *a, const void *b)
{
    const pd_buffer *x = *(pd_buffer *const *)a, *y = *(pd_buffer *const *)b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    return (x->start > y->start) - (x->start < y->start);
}

static int by_offset(const void *a, const void *b)
{
    const pd_buffer *x = *(pd_buffer *const *)a, *y = *(pd_buffer *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Greedy placement: the largest first, each at the lowest offset where it meets no living neighbour. */
static pd_status place(pd_plan *plan, pd_err *err)
{
    const size_t room = 3 * (size_t)plan->count + 2 * (size_t)pd_tape_value_count(plan->tape);
    pd_buffer **list, **near;
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
    const size_t line = plan->device->kind == PD_CPU ? PD_ALIGN : 256; /* as a GPU's allocations begin */
    for (size_t i = 0; i < count; i++) {
        list[i]->used = list[i]->bytes;
        if (list[i]->used) list[i]->bytes = (list[i]->used + PD_RED_ZONE + line - 1) / line * line;
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
        pd_buffer *b = list[i];
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

pd_status pd_plan_lay_out(pd_plan *plan, pd_err *err)
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
