/* The branches of a ParaDise layer: one dense convolution in which all branches' kernels are embedded, its outputs side
 * by side, or one convolution a branch: what the library's timings say of the shape. */
#include "kernels/conv_bank_node.h"
#include "kernels/cuda/convolution.h"
#include "kernels/cuda/ops.h"

#include <stdlib.h>
#include <string.h>

typedef struct bank_state {
    bool joined;
    int count; /* convolutions: 1 if joined */
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

/* All branches as one convolution with the largest window; 0 parts: their windows have no common middle. */
static int joined_shape(const pd_node *node, pd_conv_shape *whole, pd_conv_shape *part)
{
    const bank_args *a = node->args;
    *whole = shape_of(node, 0);
    for (int j = 0; j < a->count; j++) {
        part[j] = shape_of(node, j);
        if (part[j].kh > whole->kh) whole->kh = part[j].kh;
        if (part[j].kw > whole->kw) whole->kw = part[j].kw;
        if (part[j].stride != whole->stride) return 0;
    }
    whole->pad_h = whole->kh / 2;
    whole->pad_w = whole->kw / 2;
    whole->groups = 1;
    whole->k *= a->count;
    for (int j = 0; j < a->count; j++)
        if (part[j].kh % 2 != 1 || part[j].kw % 2 != 1 || part[j].pad_h != part[j].kh / 2 ||
            part[j].pad_w != part[j].kw / 2)
            return 0;
    return whole->c % 8 || whole->k % 8 ? 0 : a->count;
}

static double ms_of(const pd_convolution *c)
{
    return pd_gconv_ms(c->fwd) + pd_gconv_ms(c->data) + pd_gconv_ms(c->weights);
}

/* Grouped branches of our own are bound by memory: three passes of the input and the output at some 2 TB/s. */
static double own_ms(const pd_convolution *c)
{
    const pd_conv_shape *s = &c->shape;
    const double in = (double)s->n * s->h * s->w * s->c, out = (double)s->n * s->oh * s->ow * s->k;
    return 3 * (in + out) * (double)pd_store_bytes(c->store) / 2e9;
}

static pd_status plan_joined(pd_node *node, pd_cuda *device, bank_state *s, pd_err *err)
{
    pd_conv_shape whole, part[PD_MAX_BANK];
    const bank_args *a = node->args;
    pd_convolution_wants wants = {.joined = true, .dx = node->backward && pd_wants_grad(node, X), .constant = true};
    if (device->bank == PD_BANK_APART || a->count < 2 || !outputs_may_join(node)) return PD_OK;
    if (!joined_shape(node, &whole, part)) return PD_OK;
    for (int j = 0; j < a->count; j++) {
        wants.dw = wants.dw || (node->backward && pd_wants_grad(node, W + j));
        wants.constant = wants.constant && node->in[W + j]->constant;
    }
    PD_TRY(pd_convolution_plan(&s->conv[0], device, &whole, a->count, part, node->out[0]->store, node->in[X]->store,
                               wants, err));
    s->joined = true;
    s->count = 1;
    return PD_OK;
}

static pd_status plan_apart(pd_node *node, pd_cuda *device, bank_state *s, pd_err *err)
{
    const bank_args *a = node->args;
    for (int j = 0; j < a->count; j++) {
        const pd_conv_shape shape = shape_of(node, j);
        const pd_convolution_wants wants = {.constant = node->in[W + j]->constant,
                                            .dx = node->backward && pd_wants_grad(node, X),
                                            .dw = node->backward && pd_wants_grad(node, W + j)};
        PD_TRY(pd_convolution_plan(&s->conv[j], device, &shape, 1, &shape, node->out[0]->store, node->in[X]->store,
                                   wants, err));
        s->count = j + 1;
    }
    return PD_OK;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static pd_status bank_plan(pd_node *node, pd_device *d, pd_err *err)
{
    pd_cuda *device = pd_cuda_of(d);
    bank_state *s = calloc(1, sizeof *s);
    if (!s) return PD_FAIL(err, PD_ENOMEM, "out of memory for a bank of convolutions");
    node->state = s;
    PD_TRY(plan_joined(node, device, s, err));
    if (!s->joined || device->bank == PD_BANK_TIMED) {
        bank_state apart = {0};
        PD_TRY(plan_apart(node, device, &apart, err));
        double ms = 0;
        for (int j = 0; j < apart.count; j++) ms += apart.conv[j].own ? own_ms(&apart.conv[j]) : ms_of(&apart.conv[j]);
        if (!s->joined || ms < ms_of(&s->conv[0])) *s = apart;
    }
    node->join_outputs = s->joined;
    for (int j = 0; j < s->count; j++) {
        s->kept_at[j] = node->saved_bytes;
        node->saved_bytes += pd_convolution_kept(&s->conv[j]);
        node->scratch_fwd = larger(node->scratch_fwd, pd_convolution_scratch_fwd(&s->conv[j]));
        node->scratch_bwd = larger(node->scratch_bwd, pd_convolution_scratch_bwd(&s->conv[j]));
    }
    return PD_OK;
}

static pd_status bank_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    bank_state *s = node->state;
    const bank_args *a = node->args;
    const float *w[PD_MAX_BANK];
    for (int j = 0; j < a->count; j++) w[j] = node->in[W + j]->data;
    for (int j = 0; j < s->count; j++) {
        const int pitch = s->joined ? node->out[0]->pitch : node->out[j]->shape.dim[3];
        PD_TRY(pd_convolution_fwd(&s->conv[j], node->in[X]->data, w + j, NULL, NULL, node->out[j]->data, pitch,
                                  run->constants, (char *)node->saved + s->kept_at[j], node->scratch, err));
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
    for (int j = 0; j < s->count; j++) {
        const int pitch = s->joined ? node->out[0]->pitch : node->out[j]->shape.dim[3];
        void *kept = (char *)node->saved + s->kept_at[j];
        const float *dy = node->out[j]->grad;
        bool any = false;
        for (int i = j; i < (s->joined ? a->count : j + 1); i++) any = any || dw[i];
        if (pd_wants_grad(node, X))
            PD_TRY(pd_convolution_bwd_data(&s->conv[j], w + j, dy, pitch, node->in[X]->grad, add, kept, node->scratch,
                                           err));
        add = true;
        if (any)
            PD_TRY(pd_convolution_bwd_weights(&s->conv[j], node->in[X]->data, dy, pitch, dw + j, add_w + j, kept,
                                              node->scratch, err));
    }
    return PD_OK;
}

const pd_kernel pd_cuda_conv_bank = {bank_plan, bank_fwd, bank_bwd, bank_release};
