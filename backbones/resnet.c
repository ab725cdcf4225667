#include "backbones/resnet.h"
#include "kernels/gate.h"
#include "kernels/pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    int depth, blocks[4];
    bool bottleneck;
} depths[] = {
    {18, {2, 2, 2, 2}, false},  {34, {3, 4, 6, 3}, false},  {50, {3, 4, 6, 3}, true},
    {101, {3, 4, 23, 3}, true}, {152, {3, 8, 36, 3}, true},
};

static const struct {
    const char *prefix;
    pd_mixture mixture;
    unsigned branches; /* 0: the caller's choice */
    bool se, ge;
} families[] = {
    [PD_RESNET] = {"", PD_PLAIN_CONV, 0, false, false},
    [PD_RESNET_SE] = {"se_", PD_PLAIN_CONV, 0, true, false},
    [PD_RESNET_GE] = {"ge_", PD_PLAIN_CONV, 0, false, true},
    [PD_RESNET_AC] = {"ac_", PD_SUM, PD_S1 | PD_SKELETON, false, false},
    [PD_RESNET_PD_A] = {"pd_a_", PD_SUM, 0, false, false},
    [PD_RESNET_PD_B] = {"pd_b_", PD_GATED, 0, false, false},
};

#define COUNT(a) (sizeof(a) / sizeof *(a))

const char *pd_arch_list(void)
{
    return "resnet, se_resnet, ge_resnet, ac_resnet, pd_a_resnet, pd_b_resnet, each with depth 18, 34, 50, 101 or 152 "
           "(pd_b_resnet50)";
}

pd_status pd_arch_parse(pd_arch *out, const char *name, const char *branches, pd_err *err)
{
    pd_arch a = {0};
    bool known = false;
    const char *body = strstr(name, "resnet");
    if (body) {
        char *end;
        a.depth = (int)strtol(body + 6, &end, 10);
        for (size_t i = 0; i < COUNT(families); i++)
            if (strlen(families[i].prefix) == (size_t)(body - name) && !strncmp(families[i].prefix, name, (size_t)(body - name)))
                for (size_t d = 0; d < COUNT(depths); d++)
                    if (depths[d].depth == a.depth && end != body + 6 && !*end) {
                        a.family = (pd_family)i;
                        known = true;
                    }
    }
    if (!known) return PD_FAIL(err, PD_EINVAL, "architecture \"%s\" is unknown; there are %s", name, pd_arch_list());
    const bool chooses = families[a.family].mixture != PD_PLAIN_CONV && !families[a.family].branches;
    a.branches = chooses ? PD_ALL_BRANCHES : families[a.family].branches;
    if (branches && *branches) {
        unsigned mask;
        PD_TRY(pd_branches_parse(&mask, branches, err));
        if (!chooses && mask != a.branches)
            return PD_FAIL(err, PD_EINVAL, "architecture \"%s\" has no choice of branches (\"%s\" given); PD-A and PD-B have",
                           name, branches);
        a.branches = mask;
    }
    *out = a;
    return PD_OK;
}

const char *pd_arch_name(char text[32], pd_arch arch)
{
    snprintf(text, 32, "%sresnet%d", families[arch.family].prefix, arch.depth);
    return text;
}

static bool is_bottleneck(pd_arch arch)
{
    return arch.depth >= 50;
}

int pd_arch_channels(pd_arch arch)
{
    return is_bottleneck(arch) ? 2048 : 512;
}

const int *pd_depth_blocks(int depth, bool *bottleneck)
{
    for (size_t d = 0; d < COUNT(depths); d++) {
        if (depths[d].depth != depth) continue;
        *bottleneck = depths[d].bottleneck;
        return depths[d].blocks;
    }
    return NULL;
}

/* What all blocks of one net share. */
typedef struct net {
    pd_tape *t;
    pd_form form;
    pd_arch arch;
} net;

static pd_value *plain(const net *n, const char *conv, const char *bn, pd_value *x, int out, int kernel, int stride,
                       pd_value *residual, bool relu)
{
    const pd_layer l = {.out = out, .kernel = kernel, .stride = stride, .groups = 1};
    return pd_record_layer(n->t, n->form, conv, bn, x, &l, residual, relu);
}

/* The 3x3 that ParaDise takes apart. */
static pd_value *spatial(const net *n, const char *conv, const char *bn, pd_value *x, int out, int stride,
                         pd_value *residual, bool relu)
{
    const pd_layer l = {.out = out, .kernel = 3, .stride = stride, .groups = 1,
                        .mixture = families[n->arch.family].mixture, .branches = n->arch.branches};
    return pd_record_layer(n->t, n->form, conv, bn, x, &l, residual, relu);
}

/* Gather-excite with parameters: depthwise stride-2 convolutions to a small map. A step is left out where its input is
 * 2 or 3 wide. The authors' counter does not see the two ReLUs. */
static pd_value *gather(const net *n, const char *name, pd_value *y)
{
    const int c = y->shape.dim[3];
    pd_value *m = y;
    for (int i = 0; i < 3; i++) {
        const pd_layer l = {.out = c, .kernel = 3, .stride = 2, .groups = c};
        const char *conv = pd_tape_name(n->t, "%s.conv.%d", name, i), *bn = pd_tape_name(n->t, "%s.bn.%d", name, i);
        if (m->shape.dim[2] / 2 == 1)
            pd_declare_layer(n->t, n->form, conv, bn, c, &l);
        else
            m = pd_record_layer(n->t, n->form, conv, bn, m, &l, NULL, i < 2 && n->form != PD_FORM_COUNT);
    }
    return m;
}

static pd_value *squeeze(const net *n, const char *name, pd_value *y)
{
    const int c = y->shape.dim[3];
    pd_value *h = pd_record_linear(n->t, pd_tape_name(n->t, "%s.fc.0", name), pd_global_avg_pool(n->t, y), c / 16, true);
    return pd_record_linear(n->t, pd_tape_name(n->t, "%s.fc.2", name), h, c, false);
}

static pd_value *block(const net *n, const char *name, pd_value *x, int width, int stride)
{
    pd_tape *t = n->t;
    const bool bottleneck = is_bottleneck(n->arch), se = families[n->arch.family].se, ge = families[n->arch.family].ge;
    const int out = bottleneck ? 4 * width : width;
    pd_value *skip = x;
    if (stride != 1 || x->shape.dim[3] != out)
        skip = plain(n, pd_tape_name(t, "%s.downsample.0", name), pd_tape_name(t, "%s.downsample.1", name), x, out, 1, stride,
                     NULL, false);
    const char *conv[3], *bn[3];
    for (int i = 0; i < 3; i++) {
        conv[i] = pd_tape_name(t, "%s.conv%d", name, i + 1);
        bn[i] = pd_tape_name(t, "%s.bn%d", name, i + 1);
    }
    pd_value *residual = se || ge ? NULL : skip;
    const bool relu = residual != NULL;
    pd_value *y;
    if (bottleneck) {
        y = plain(n, conv[0], bn[0], x, width, 1, 1, NULL, true);
        y = spatial(n, conv[1], bn[1], y, width, stride, NULL, true);
        y = plain(n, conv[2], bn[2], y, out, 1, 1, residual, relu);
    } else {
        y = spatial(n, conv[0], bn[0], x, width, stride, NULL, true);
        y = spatial(n, conv[1], bn[1], y, width, 1, residual, relu);
    }
    if (se) return pd_excite(t, y, squeeze(n, pd_tape_name(t, "%s.se", name), y), skip, true);
    if (ge) return pd_excite(t, y, gather(n, pd_tape_name(t, "%s.ge", name), y), skip, true);
    return y;
}

pd_stages pd_record_resnet(pd_tape *t, pd_form form, const char *prefix, pd_arch arch, pd_value *image)
{
    const net n = {t, form, arch};
    pd_value *x = plain(&n, pd_tape_name(t, "%sconv1", prefix), pd_tape_name(t, "%sbn1", prefix), image, 64, 7, 2, NULL, true);
    x = pd_max_pool(t, x, 3, 2, 1);
    pd_stages s = {{x, x, x, x}};
    for (size_t d = 0; d < COUNT(depths); d++) {
        if (depths[d].depth != arch.depth) continue;
        for (int i = 0; i < 4; i++) {
            for (int b = 0; b < depths[d].blocks[i]; b++)
                x = block(&n, pd_tape_name(t, "%slayer%d.%d", prefix, i + 1, b), x, 64 << i, i > 0 && b == 0 ? 2 : 1);
            s.c[i] = x;
        }
    }
    return s;
}

pd_value *pd_record_classifier(pd_tape *t, pd_form form, pd_arch arch, int classes, pd_value *image, pd_stages *stages)
{
    const pd_stages s = pd_record_resnet(t, form, "", arch, image);
    if (stages) *stages = s;
    return pd_record_linear(t, "fc", pd_global_avg_pool(t, s.c[3]), classes, false);
}
