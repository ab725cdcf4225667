#include "kernels/conv_bank.h"
#include "kernels/conv_bank_node.h"
#include "kernels/conv_direct.h"
#include "kernels/winograd.h"

#include <stdlib.h>
#include <string.h>

/* The branches, sorted by the algorithm that computes them. */
typedef struct bank_state {
    pd_device *device;
    pd_wino_shape fast;
    int fast_index[PD_MAX_BANK]; /* branch of the fast set's j-th convolution */
    int direct_count, direct_index[PD_MAX_BANK];
    pd_direct direct[PD_MAX_BANK];
} bank_state;

static void bank_release(pd_node *node)
{
    bank_state *s = node->state;
    if (!s) return;
    for (int i = 0; i < s->direct_count; i++) pd_direct_free(&s->direct[i]);
    free(s);
    node->state = NULL;
}

static pd_conv_shape shape_of(const pd_node *node, int j)
{
    const bank_args *b = node->args;
    return pd_conv_shape_of(&b->conv[j], &node->in[X]->shape, &node->in[W + j]->shape, &node->out[j]->shape);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static pd_status bank_plan(pd_node *node, pd_device *device, pd_err *err)
{
    const bank_args *a = node->args;
    bank_state *s = calloc(1, sizeof *s);
    if (!s) return PD_FAIL(err, PD_ENOMEM, "out of memory for a bank of convolutions");
    node->state = s;
    s->device = device;
    const int threads = pd_pool_threads(device->pool);
    bool is_fast[PD_MAX_BANK] = {false};
    for (int j = 0; j < a->count; j++) {
        const pd_conv_shape shape = shape_of(node, j);
        s->fast_index[s->fast.count] = j;
        is_fast[j] = pd_wino_add(&s->fast, &shape);
    }
    if (s->fast.count && !pd_wino_pays(&s->fast)) {
        memset(&s->fast, 0, sizeof s->fast);
        memset(is_fast, 0, sizeof is_fast);
    }
    if (s->fast.count) {
        node->scratch_fwd = pd_wino_fwd_scratch(&s->fast, threads);
        node->scratch_bwd = node->backward ? larger(pd_wino_bwd_data_scratch(&s->fast, threads),
                                                    pd_wino_bwd_weights_scratch(&s->fast, threads))
                                           : 0;
    }
    for (int j = 0; j < a->count; j++) {
        if (is_fast[j]) continue;
        const pd_conv_shape shape = shape_of(node, j);
        const pd_direct_wants wants = {.constant = node->in[W + j]->constant,
                                       .backward = node->backward,
                                       .dx = node->backward && pd_wants_grad(node, X),
                                       .dw = node->backward && pd_wants_grad(node, W + j)};
        pd_direct *d = &s->direct[s->direct_count];
        PD_TRY(pd_direct_plan(d, device, &shape, wants, err));
        s->direct_index[s->direct_count++] = j;
        node->scratch_fwd = larger(node->scratch_fwd, pd_direct_scratch_fwd(d));
        node->scratch_bwd = larger(node->scratch_bwd, pd_direct_scratch_bwd(d));
    }
    return PD_OK;
}

static pd_status bank_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    bank_state *s = node->state;
    const float *x = node->in[X]->data, *w[PD_MAX_BANK];
    float *y[PD_MAX_BANK];
    if (pd_shape_size(node->out[0]->shape) == 0) return PD_OK;
    for (int i = 0; i < s->fast.count; i++) {
        w[i] = node->in[W + s->fast_index[i]]->data;
        y[i] = node->out[s->fast_index[i]]->data;
    }
    if (s->fast.count) pd_wino_fwd(s->device->pool, &s->fast, x, w, y, NULL, node->scratch);
    for (int i = 0; i < s->direct_count; i++) {
        const int j = s->direct_index[i];
        PD_TRY(pd_direct_fwd(&s->direct[i], x, node->in[W + j]->data, run->constants, NULL, node->out[j]->data,
                             node->scratch, err));
    }
    return PD_OK;
}

/* A branch whose output nobody differentiates has no gradient; the plan gives every output of a backward node one. */
static pd_status bank_bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    bank_state *s = node->state;
    const bool want_x = pd_wants_grad(node, X);
    bool add_x = want_x && pd_adds_grad(node, X, run), add_w[PD_MAX_BANK] = {false};
    const float *x = node->in[X]->data, *w[PD_MAX_BANK], *dy[PD_MAX_BANK];
    float *dw[PD_MAX_BANK], *dx = node->in[X]->grad;
    bool any_w = false;
    for (int i = 0; i < s->fast.count; i++) {
        const int j = s->fast_index[i];
        w[i] = node->in[W + j]->data;
        dy[i] = node->out[j]->grad;
        dw[i] = pd_wants_grad(node, W + j) ? node->in[W + j]->grad : NULL;
        add_w[i] = dw[i] && pd_adds_grad(node, W + j, run);
        any_w = any_w || dw[i];
    }
    if (s->fast.count && want_x) {
        pd_wino_bwd_data(s->device->pool, &s->fast, w, dy, dx, add_x, node->scratch);
        add_x = true;
    }
    if (s->fast.count && any_w) pd_wino_bwd_weights(s->device->pool, &s->fast, x, dy, dw, add_w, node->scratch);
    for (int i = 0; i < s->direct_count; i++) {
        const int j = s->direct_index[i];
        const float *g = node->out[j]->grad;
        if (want_x) PD_TRY(pd_direct_bwd_data(&s->direct[i], node->in[W + j]->data, g, dx, add_x, node->scratch, err));
        add_x = true;
        if (pd_wants_grad(node, W + j))
            PD_TRY(pd_direct_bwd_weights(&s->direct[i], x, g, node->in[W + j]->grad, pd_adds_grad(node, W + j, run),
                                         node->scratch, err));
    }
    return PD_OK;
}

static double bank_macs(const pd_node *node)
{
    double sum = 0;
    for (int j = 0; j < ((const bank_args *)node->args)->count; j++) {
        const int *w = node->in[W + j]->shape.dim;
        sum += (double)w[1] * w[2] * w[3] * (double)pd_shape_size(node->out[j]->shape);
    }
    return sum;
}

static const pd_kernel bank_cpu = {bank_plan, bank_fwd, bank_bwd, bank_release};
static const pd_op bank_op = {.name = "conv_bank",
                              .bwd_reads_in = ~0u,
                              .differentiable = true,
                              .kernel = {[PD_CPU] = &bank_cpu},
                              .macs = bank_macs};

bool pd_conv_bank_is_reference(const pd_node *node)
{
    if (node->op != &bank_op || !node->state) return false;
    const bank_state *s = node->state;
    bool found = false;
    for (int i = 0; i < s->direct_count; i++) found = found || pd_direct_is_reference(&s->direct[i]);
    return found;
}

void pd_conv_bank(pd_tape *t, const char *name, pd_value *x, int count, const pd_bank_conv *conv, pd_value **y)
{
    bank_args args = {.count = count};
    pd_value *in[1 + PD_MAX_BANK] = {x};
    pd_shape out[PD_MAX_BANK];
    for (int j = 0; j < count; j++) y[j] = pd_tape_dead(t);
    if (pd_tape_status(t, NULL) != PD_OK) return;
    if (count < 1 || count > PD_MAX_BANK) {
        pd_tape_fail(t, PD_EINVAL, "%s: %d convolutions of one input; 1 to %d are possible", name, count, PD_MAX_BANK);
        return;
    }
    for (int j = 0; j < count; j++) {
        args.conv[j] = conv[j].args;
        in[W + j] = conv[j].w;
        if (!pd_conv_output(t, name, x, conv[j].w, &conv[j].args, &out[j])) return;
        if (memcmp(&out[j], &out[0], sizeof out[0]) != 0 || conv[j].args.relu) {
            char a[64], b[64];
            pd_tape_fail(t, PD_EINVAL, "%s: branch %d of a bank makes %s, branch 0 %s", name, j,
                         pd_shape_text(a, out[j]), pd_shape_text(b, out[0]));
            return;
        }
    }
    const pd_node *node = pd_tape_add(t, &bank_op, name, 1 + count, in, count, out, NULL, &args, sizeof args);
    for (int j = 0; node && j < count; j++) y[j] = node->out[j];
}
