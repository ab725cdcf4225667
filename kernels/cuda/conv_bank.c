/* The branches of a ParaDise layer: runs of neighbouring branches, each one convolution. Several branches in one are a
 * dense convolution in which their kernels are embedded, its outputs side by side. Which runs: what the library's
 * timings say of the shape. */
#include "kernels/conv_bank_node.h"
#include "kernels/cuda/convolution.h"
#include "kernels/cuda/ops.h"

#include <stdlib.h>
#include <string.h>

typedef struct bank_state {
    int count;                  /* convolutions */
    int begin[PD_MAX_BANK + 1]; /* convolution i: the branches from begin[i] to begin[i + 1] */
    pd_convolution conv[PD_MAX_BANK];
    size_t kept_at[PD_MAX_BANK];
} bank_state;

static void bank_release(pd_node *node)
{
    bank_state *s = node->state;
    for (int i = 0; s && i < s->count; i++) pd_convolution_free(&s->conv[i]);
    free(s);
    node->state = NULL;
}

static pd_conv_shape shape_of(const pd_node *node, int j)
{
    const bank_args *b = node->args;
    return pd_conv_shape_of(&b->conv[j], &node->in[X]->shape, &node->in[W + j]->shape, &node->out[j]->shape);
}

/* Do only batch norms read the outputs? They know how to read them side by side. */
static bool outputs_may_join(const pd_node *node)
{
    const bank_args *a = node->args;
    for (int j = 0; j < a->count; j++)
        if (node->out[j]->keep) return false;
    for (const pd_node *n = node->next; n; n = n->next)
        for (int i = 0; i < n->n_in; i++)
            if (n->in[i] && n->in[i]->node == node && strncmp(n->op->name, "bn_sum", 6) != 0) return false;
    return true;
}

/* Can this kernel lie in the middle of a larger one? */
static bool centred(const pd_conv_shape *s)
{
    return s->kh % 2 == 1 && s->kw % 2 == 1 && s->pad_h == s->kh / 2 && s->pad_w == s->kw / 2;
}

/* The divisions of the branches into runs; bit k: branch k is in the run of branch k - 1. */
#define DIVISIONS 4

static void divisions(const pd_node *node, unsigned out[DIVISIONS])
{
    const bank_args *a = node->args;
    unsigned all = 0, dense = 0, alike = 0;
    bool may = outputs_may_join(node) && node->in[X]->shape.dim[3] % 8 == 0;
    for (int j = 0; j < a->count; j++) may = may && node->out[j]->shape.dim[3] % 8 == 0;
    for (int j = 1; j < a->count && may; j++) {
        const pd_conv_shape p = shape_of(node, j - 1), q = shape_of(node, j);
        if (!centred(&p) || !centred(&q) || p.stride != q.stride) continue;
        all |= 1u << j;
        if (p.groups != 1 || q.groups != 1) continue;
        dense |= 1u << j;
        if (p.kh == q.kh && p.kw == q.kw) alike |= 1u << j;
    }
    out[0] = all;
    out[1] = dense;
    out[2] = alike;
    out[3] = 0;
}

/* The branches from `begin` to `end` as one convolution with the largest window. */
static pd_conv_shape run_shape(const pd_node *node, int begin, int end, pd_conv_shape *part)
{
    pd_conv_shape whole = shape_of(node, begin);
    part[0] = whole;
    if (end == begin + 1) return whole;
    for (int j = begin + 1; j < end; j++) {
        const pd_conv_shape p = part[j - begin] = shape_of(node, j);
        if (p.kh > whole.kh) whole.kh = p.kh;
        if (p.kw > whole.kw) whole.kw = p.kw;
        whole.k += p.k;
    }
    whole.pad_h = whole.kh / 2;
    whole.pad_w = whole.kw / 2;
    whole.groups = 1;
    return whole;
}

static pd_status plan_run(pd_convolution *out, pd_node *node, pd_cuda *device, int begin, int end, bool sums,
                          pd_err *err)
{
    pd_conv_shape part[PD_MAX_BANK];
    const pd_conv_shape whole = run_shape(node, begin, end, part);
    pd_convolution_wants wants = {
        .joined = end > begin + 1, .sums = sums, .dx = node->backward && pd_wants_grad(node, X), .constant = true};
    for (int j = begin; j < end; j++) {
        wants.dw = wants.dw || (node->backward && pd_wants_grad(node, W + j));
        wants.constant = wants.constant && node->in[W + j]->constant;
    }
    return pd_convolution_plan(out, device, &whole, end - begin, part, node->out[begin]->store, node->in[X]->store,
                               wants, err);
}

static double pass_ms(const pd_value *v)
{
    return pd_pass_ms(pd_shape_size(v->shape), v->store);
}

/* *ms: of forward and backward, with the passes that add the input's gradients of all runs, and that for the sums of a
 * norm where our own kernels make its input. sums: the library's convolutions are asked for theirs. */
static pd_status plan_division(bank_state *s, double *ms, pd_node *node, pd_cuda *device, unsigned joined, bool sums,
                               pd_err *err)
{
    const bank_args *a = node->args;
    *ms = 0;
    *s = (bank_state){0};
    for (int begin = 0, end; begin < a->count; begin = end) {
        for (end = begin + 1; end < a->count && joined >> end & 1; end++) {
        }
        PD_TRY(plan_run(&s->conv[s->count], node, device, begin, end, sums, err));
        *ms += pd_convolution_ms(&s->conv[s->count]);
        if (s->conv[s->count].own && node->backward) *ms += pass_ms(node->out[begin]);
        if (s->count && node->backward && pd_wants_grad(node, X)) *ms += 3 * pass_ms(node->in[X]);
        s->begin[++s->count] = end;
    }
    return PD_OK;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static pd_status bank_plan(pd_node *node, pd_device *d, pd_err *err)
{
    unsigned joined[DIVISIONS];
    double ms, least = 0;
    pd_cuda *device = pd_cuda_of(d);
    bank_state *s = calloc(1, sizeof *s);
    if (!s) return PD_FAIL(err, PD_ENOMEM, "out of memory for a bank of convolutions");
    node->state = s;
    divisions(node, joined);
    for (int i = 0; i < DIVISIONS; i++) {
        bank_state other;
        if (d->way && i + 1 != (d->way < DIVISIONS ? d->way : DIVISIONS)) continue;
        if (i && !d->way && joined[i] == joined[i - 1]) continue;
        PD_TRY(plan_division(&other, &ms, node, device, joined[i], false, err));
        if (s->count && ms >= least) continue;
        *s = other; /* what the plans of the others took belongs to the library */
        least = ms;
        node->joined = joined[i];
    }
    /* engines with sums may have to be compiled: of the division that was chosen only */
    if (node->backward && pd_convolution_feeds_norm(node))
        PD_TRY(plan_division(s, &ms, node, device, node->joined, true, err));
    for (int i = 0; i < s->count; i++) {
        s->kept_at[i] = node->saved_bytes;
        node->saved_bytes += pd_convolution_kept(&s->conv[i]);
        node->scratch_fwd = larger(node->scratch_fwd, pd_convolution_scratch_fwd(&s->conv[i]));
        node->scratch_bwd = larger(node->scratch_bwd, pd_convolution_scratch_bwd(&s->conv[i]));
    }
    return PD_OK;
}

static pd_status bank_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    bank_state *s = node->state;
    const bank_args *a = node->args;
    const float *w[PD_MAX_BANK];
    for (int j = 0; j < a->count; j++) w[j] = node->in[W + j]->data;
    for (int i = 0; i < s->count; i++) {
        const int j = s->begin[i];
        char *kept = (char *)node->saved + s->kept_at[i];
        PD_TRY(pd_convolution_fwd(&s->conv[i], node->in[X]->data, w + j, NULL, NULL, node->out[j]->data,
                                  node->out[j]->pitch, run->constants, kept, node->scratch, err));
        pd_convolution_sums(&s->conv[i], kept, node->out + j);
    }
    return PD_OK;
}

static pd_status bank_bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    bank_state *s = node->state;
    const bank_args *a = node->args;
    const float *w[PD_MAX_BANK];
    float *dw[PD_MAX_BANK];
    bool add_w[PD_MAX_BANK], add = pd_wants_grad(node, X) && pd_adds_grad(node, X, run);
    for (int j = 0; j < a->count; j++) {
        w[j] = node->in[W + j]->data;
        dw[j] = pd_wants_grad(node, W + j) ? node->in[W + j]->grad : NULL;
        add_w[j] = dw[j] && pd_adds_grad(node, W + j, run);
    }
    for (int i = 0; i < s->count; i++) {
        const int j = s->begin[i], pitch = node->out[j]->pitch;
        void *kept = (char *)node->saved + s->kept_at[i];
        const float *dy = node->out[j]->grad;
        bool any = false;
        for (int k = j; k < s->begin[i + 1]; k++) any = any || dw[k];
        if (pd_wants_grad(node, X))
            PD_TRY(pd_convolution_bwd_data(&s->conv[i], w + j, dy, pitch, node->in[X]->grad, add, kept, node->scratch,
                                           err));
        add = true;
        if (any)
            PD_TRY(pd_convolution_bwd_weights(&s->conv[i], node->in[X]->data, dy, pitch, dw + j, add_w + j, kept,
                                              node->scratch, err));
    }
    return PD_OK;
}

const pd_kernel pd_cuda_conv_bank = {bank_plan, bank_fwd, bank_bwd, bank_release};
