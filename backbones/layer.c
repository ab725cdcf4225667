#include "backbones/layer.h"
#include "kernels/bn_sum.h"
#include "kernels/conv_bank.h"
#include "kernels/fold_bn.h"
#include "kernels/gate.h"
#include "kernels/linear.h"
#include "kernels/mix_conv.h"
#include "kernels/pool.h"

#include <math.h>
#include <string.h>

/* The convolutions of a ParaDise layer: five, of which the two of the skeleton are one branch. */
static const struct {
    unsigned branch;
    const char *conv, *bn;
    int kh, kw;
    bool grouped;
} parts[PD_MAX_BRANCHES] = {
    {PD_S1, "ori_conv", "ori_bn", 3, 3, false},
    {PD_S2, "new_conv", "new_bn", 3, 3, false},
    {PD_SKELETON, "ac_convbn.ver_conv", "ac_convbn.ver_bn", 3, 1, false},
    {PD_SKELETON, "ac_convbn.hor_conv", "ac_convbn.hor_bn", 1, 3, false},
    {PD_GROUP, "group_conv", "group_bn", 3, 3, true},
};

static const struct {
    unsigned branch;
    const char *name;
} branch_names[] = {{PD_S1, "s1"}, {PD_S2, "s2"}, {PD_SKELETON, "skeleton"}, {PD_GROUP, "group"}};

/* One convolution with the batch norm behind it, and which gate weight it has. */
typedef struct part {
    pd_value *w, *gamma, *beta, *mean, *var;
    int kh, kw, groups, column;
} part;

static pd_value *conv_weight(pd_tape *t, const char *name, pd_init init, int out, int in, int kh, int kw)
{
    if (init.kind == PD_INIT_CONST) init = (pd_init){PD_INIT_NORMAL, sqrt(2.0 / ((double)out * kh * kw))};
    const pd_param spec = {.rank = 4, .dim = {out, in, kh, kw}, .kind = PD_WEIGHT, .layout = PD_LAYOUT_CONV, .init = init};
    return pd_tape_param(t, name, &spec);
}

static pd_value *vector(pd_tape *t, const char *name, int count, pd_param_kind kind, double value)
{
    const pd_param spec = {.rank = 1, .dim = {count}, .kind = kind, .init = {PD_INIT_CONST, value}};
    return pd_tape_param(t, name, &spec);
}

static part make_part(pd_tape *t, const pd_layer *l, const char *conv, const char *bn, int in, int kh, int kw, int groups,
                      int column)
{
    const pd_param counter = {.rank = 0, .kind = PD_COUNTER};
    const int out = l->out;
    part p = {.kh = kh, .kw = kw, .groups = groups, .column = column};
    p.w = conv_weight(t, pd_tape_name(t, "%s.weight", conv), l->init, out, in / groups, kh, kw);
    p.gamma = vector(t, pd_tape_name(t, "%s.weight", bn), out, PD_WEIGHT, l->scale > 0 ? l->scale : 1);
    p.beta = vector(t, pd_tape_name(t, "%s.bias", bn), out, PD_WEIGHT, 0);
    p.mean = vector(t, pd_tape_name(t, "%s.running_mean", bn), out, PD_BUFFER, 0);
    p.var = vector(t, pd_tape_name(t, "%s.running_var", bn), out, PD_BUFFER, 1);
    pd_tape_param(t, pd_tape_name(t, "%s.num_batches_tracked", bn), &counter);
    return p;
}

static int gcd(int a, int b)
{
    while (b) {
        const int r = a % b;
        a = b;
        b = r;
    }
    return a;
}

/* The parts of a layer that are switched on; returns their number, 0 on failure. */
static int layer_parts(pd_tape *t, pd_form form, const char *conv, const char *bn, int in, const pd_layer *l, part *p, int *columns)
{
    *columns = 1;
    if (l->mixture == PD_PLAIN_CONV || form == PD_FORM_COUNT) {
        p[0] = make_part(t, l, conv, bn, in, l->kernel, l->kernel, l->groups, 0);
        return 1;
    }
    const int groups = l->branch_groups ? l->branch_groups : gcd(gcd(in, l->out), 64);
    if (l->kernel != 3 || !(l->branches & PD_S1) || in % groups || l->out % groups) {
        pd_tape_fail(t, PD_EINVAL, "%s: a ParaDise layer wants a 3x3 kernel, branch s1, and groups that divide its channels; "
                     "it has kernel %d, branches %s, %d groups for %d -> %d channels", conv, l->kernel,
                     pd_branches_text(l->branches), groups, in, l->out);
        return 0;
    }
    int count = 0, column = -1;
    unsigned last = 0;
    for (int i = 0; i < PD_MAX_BRANCHES; i++) {
        if (!(l->branches & parts[i].branch)) continue;
        column += parts[i].branch != last;
        last = parts[i].branch;
        p[count++] = make_part(t, l, pd_tape_name(t, "%s.%s", conv, parts[i].conv),
                               pd_tape_name(t, "%s.%s", conv, parts[i].bn), in, parts[i].kh, parts[i].kw,
                               parts[i].grouped ? groups : 1, l->mixture == PD_GATED ? column : 0);
    }
    if (l->mixture == PD_GATED) *columns = column + 1;
    return count;
}

static int count_branches(unsigned mask)
{
    return __builtin_popcount(mask & PD_ALL_BRANCHES);
}

/* PD-B's gate: (n, branches), softmax(W2 relu(W1 gap(x) + b1) + b2), reduction 16. */
static pd_value *record_gate(pd_tape *t, const char *conv, pd_value *x, unsigned branches)
{
    const int c = x->shape.dim[3], hidden = c / 16 > 0 ? c / 16 : 1;
    pd_value *h = pd_record_linear(t, pd_tape_name(t, "%s.fc.0", conv), pd_channel_means(t, x), hidden, true);
    return pd_row_softmax(t, pd_record_linear(t, pd_tape_name(t, "%s.fc.2", conv), h, count_branches(branches), false));
}

/* The kernels and biases of a layer with its batch norms folded: on the tape, or from a folded file. */
static pd_folded layer_kernels(pd_tape *t, pd_form form, const char *conv, const char *bn, int in, const pd_layer *l)
{
    const int groups = l->mixture == PD_PLAIN_CONV ? l->groups : 1;
    if (form == PD_FORM_FOLDED) {
        const int k = l->mixture == PD_GATED ? count_branches(l->branches) : 1;
        return (pd_folded){conv_weight(t, pd_tape_name(t, "%s.weight", conv), l->init, k * l->out, in / groups, l->kernel,
                                       l->kernel),
                           vector(t, pd_tape_name(t, "%s.bias", conv), k * l->out, PD_WEIGHT, 0)};
    }
    for (const pd_node *n = pd_tape_nodes(t); n; n = n->next) /* a layer that is recorded for several inputs */
        if (!strcmp(n->op->name, "fold_bn") && !strcmp(n->name, conv)) return (pd_folded){n->out[0], n->out[1]};
    part p[PD_MAX_BRANCHES];
    pd_fold_branch b[PD_MAX_BRANCHES];
    int columns;
    const int count = layer_parts(t, form, conv, bn, in, l, p, &columns);
    if (!count) return (pd_folded){pd_tape_dead(t), pd_tape_dead(t)};
    const bool depthwise = l->mixture == PD_PLAIN_CONV && l->groups > 1; /* keeps its groups; all else is dense */
    for (int i = 0; i < count; i++)
        b[i] = (pd_fold_branch){p[i].w, p[i].gamma, p[i].beta, p[i].mean, p[i].var, depthwise ? 1 : p[i].groups, p[i].column};
    return pd_fold_bn(t, conv, count, b, columns, l->kernel, l->kernel, in / groups, PD_BN_EPS);
}

void pd_declare_layer(pd_tape *t, pd_form form, const char *conv, const char *bn, int in, const pd_layer *l)
{
    part p[PD_MAX_BRANCHES];
    int columns;
    if (pd_tape_status(t, NULL) != PD_OK) return;
    if (form == PD_FORM_FUSED || form == PD_FORM_FOLDED)
        layer_kernels(t, form, conv, bn, in, l);
    else
        layer_parts(t, form, conv, bn, in, l, p, &columns);
}

pd_value *pd_record_layer(pd_tape *t, pd_form form, const char *conv, const char *bn, pd_value *x, const pd_layer *l,
                          pd_value *residual, bool relu)
{
    if (pd_tape_status(t, NULL) != PD_OK) return pd_tape_dead(t);
    pd_value *gate = l->mixture == PD_GATED ? record_gate(t, conv, x, l->branches) : NULL;
    const int pad = l->kernel / 2, in = x->shape.dim[3];
    pd_conv_args args = {.stride = l->stride, .pad_h = pad, .pad_w = pad, .relu = relu,
                         .groups = l->mixture == PD_PLAIN_CONV ? l->groups : 1};
    if (!bn) bn = conv;
    if (form == PD_FORM_FUSED || form == PD_FORM_FOLDED) {
        const pd_folded f = layer_kernels(t, form, conv, bn, in, l);
        return gate && gate->shape.dim[1] > 1 ? pd_mix_conv(t, conv, x, gate, f.kernel, f.bias, residual, args)
                                              : pd_conv(t, conv, x, f.kernel, f.bias, residual, args);
    }
    part p[PD_MAX_BRANCHES];
    int columns;
    const int count = layer_parts(t, form, conv, bn, in, l, p, &columns);
    if (!count) return pd_tape_dead(t);
    pd_bn_branch b[PD_MAX_BRANCHES];
    pd_bank_conv bank[PD_MAX_BRANCHES];
    pd_value *z[PD_MAX_BRANCHES];
    for (int i = 0; i < count; i++)
        bank[i] = (pd_bank_conv){p[i].w, {.stride = l->stride, .pad_h = p[i].kh / 2, .pad_w = p[i].kw / 2,
                                          .groups = p[i].groups}};
    if (count > 1)
        pd_conv_bank(t, conv, x, count, bank, z);
    else
        z[0] = pd_conv(t, conv, x, p[0].w, NULL, NULL, bank[0].args);
    for (int i = 0; i < count; i++)
        b[i] = (pd_bn_branch){z[i], p[i].gamma, p[i].beta, p[i].mean, p[i].var, p[i].column};
    const bool train = form == PD_FORM_TRAIN;
    const pd_bn_settings set = {PD_BN_EPS, PD_BN_MOMENTUM, train, relu, train && pd_tape_syncs_stats(t)};
    return pd_bn_sum(t, bn, count, b, form == PD_FORM_COUNT ? NULL : gate, residual, set);
}

pd_value *pd_record_linear(pd_tape *t, const char *name, pd_value *x, int out, bool relu)
{
    if (pd_tape_status(t, NULL) != PD_OK) return pd_tape_dead(t);
    const int in = x->shape.dim[1];
    const double bound = 1 / sqrt((double)in);
    const pd_param w = {.rank = 2, .dim = {out, in}, .kind = PD_WEIGHT, .init = {PD_INIT_UNIFORM, bound}};
    const pd_param b = {.rank = 1, .dim = {out}, .kind = PD_WEIGHT, .init = {PD_INIT_UNIFORM, bound}};
    pd_value *weight = pd_tape_param(t, pd_tape_name(t, "%s.weight", name), &w);
    pd_value *bias = pd_tape_param(t, pd_tape_name(t, "%s.bias", name), &b);
    return pd_linear(t, name, x, weight, bias, relu);
}

pd_init pd_xavier_uniform(int in, int out, int kernel)
{
    return (pd_init){PD_INIT_UNIFORM, sqrt(6.0 / ((double)(in + out) * kernel * kernel))};
}

pd_value *pd_record_conv(pd_tape *t, const char *name, pd_value *x, int out, int kernel, int stride, pd_init weight,
                         double bias, bool relu)
{
    if (pd_tape_status(t, NULL) != PD_OK) return pd_tape_dead(t);
    const pd_param spec = {.rank = 4, .dim = {out, x->shape.dim[3], kernel, kernel}, .kind = PD_WEIGHT,
                           .layout = PD_LAYOUT_CONV, .init = weight};
    pd_value *w = pd_tape_param(t, pd_tape_name(t, "%s.weight", name), &spec);
    pd_value *b = vector(t, pd_tape_name(t, "%s.bias", name), out, PD_WEIGHT, bias);
    const pd_conv_args args = {.stride = stride, .pad_h = kernel / 2, .pad_w = kernel / 2, .groups = 1, .relu = relu};
    return pd_conv(t, name, x, w, b, NULL, args);
}

/* With branches whose weights are drawn as the plain convolution's: its variance over their sum's. */
static double linear_scale(const pd_head_conv *how, int in, int out)
{
    const int groups = how->groups ? how->groups : gcd(gcd(in, out), 64);
    const double share = how->mixture == PD_GATED ? 1.0 / count_branches(how->branches) : 1; /* the gate's, about */
    double sum = 0;
    for (int i = 0; i < PD_MAX_BRANCHES; i++)
        if (how->branches & parts[i].branch)
            sum += share * share * parts[i].kh * parts[i].kw / 9.0 / (parts[i].grouped ? groups : 1);
    return 1 / sqrt(sum);
}

pd_value *pd_record_head_conv(pd_tape *t, pd_form form, const char *name, pd_value *x, int out, const pd_head_conv *how,
                              pd_init weight, bool relu)
{
    if (pd_tape_status(t, NULL) != PD_OK) return pd_tape_dead(t);
    if (how->mixture == PD_PLAIN_CONV || form == PD_FORM_COUNT) {
        if (how->mixture == PD_GATED) record_gate(t, name, x, how->branches);
        return pd_record_conv(t, name, x, out, 3, 1, weight, 0, relu);
    }
    const pd_layer l = {.out = out, .kernel = 3, .stride = 1, .groups = 1, .mixture = how->mixture,
                        .branches = how->branches, .branch_groups = how->groups, .init = weight,
                        .scale = how->batch_norm ? 1 : linear_scale(how, x->shape.dim[3], out)};
    if (how->batch_norm && pd_tape_training(t) && form != PD_FORM_FOLDED) form = PD_FORM_TRAIN;
    return pd_record_layer(t, form, name, NULL, x, &l, NULL, relu);
}

pd_status pd_branches_parse(unsigned *mask_out, const char *text, pd_err *err)
{
    unsigned mask = 0;
    for (const char *p = text; *p;) {
        const size_t length = strcspn(p, ",");
        unsigned found = 0;
        for (size_t i = 0; i < sizeof branch_names / sizeof *branch_names; i++)
            if (strlen(branch_names[i].name) == length && !strncmp(branch_names[i].name, p, length))
                found = branch_names[i].branch;
        if (!found || mask & found)
            return PD_FAIL(err, PD_EINVAL, "branches \"%s\": \"%.*s\" is %s; a list of s1, s2, skeleton, group is wanted", text,
                           (int)length, p, found ? "there twice" : "unknown");
        mask |= found;
        p += length + (p[length] == ',');
    }
    if (!(mask & PD_S1)) return PD_FAIL(err, PD_EINVAL, "branches \"%s\": s1 must be one of them", text);
    *mask_out = mask;
    return PD_OK;
}

const char *pd_branches_text(unsigned mask)
{
    static const char *const text[16] = {"",
                                         "s1",
                                         "s2",
                                         "s1,s2",
                                         "skeleton",
                                         "s1,skeleton",
                                         "s2,skeleton",
                                         "s1,s2,skeleton",
                                         "group",
                                         "s1,group",
                                         "s2,group",
                                         "s1,s2,group",
                                         "skeleton,group",
                                         "s1,skeleton,group",
                                         "s2,skeleton,group",
                                         "s1,s2,skeleton,group"};
    return text[mask & PD_ALL_BRANCHES];
}
