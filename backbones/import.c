#include "backbones/import.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* Patterns: '#' is a number, '&' "weight" or "bias", '%' a tensor of a batch norm, '*' any text; all else is itself. */
static const char *const batch_norm[] = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"};

static const char *const maps[] = {
    [PD_MAP_NONE] = "none",   [PD_MAP_TORCHVISION] = "torchvision", [PD_MAP_TIMM] = "timm",
    [PD_MAP_MMDET] = "mmdet", [PD_MAP_MMDET1] = "mmdet1",           [PD_MAP_PARADISE] = "paradise",
};

/* Where theirs differ from ours. In both, the parts that stand for something are the same, in the same order. */
static const struct rule {
    pd_map map;
    const char *theirs, *ours;
    pd_map_change change;
    bool read_only; /* an older name: never written */
} rules[] = {
    {PD_MAP_TORCHVISION, "backbone.body.*", "backbone.*", PD_MAP_KEEP, true},
    {PD_MAP_TORCHVISION, "backbone.fpn.inner_blocks.#.&", "neck.lateral_convs.#.conv.&", PD_MAP_KEEP, true},
    {PD_MAP_TORCHVISION, "backbone.fpn.inner_blocks.#.0.&", "neck.lateral_convs.#.conv.&", PD_MAP_KEEP, true},
    {PD_MAP_TORCHVISION, "backbone.fpn.layer_blocks.#.&", "neck.fpn_convs.#.conv.&", PD_MAP_KEEP, true},
    {PD_MAP_TORCHVISION, "backbone.fpn.layer_blocks.#.0.&", "neck.fpn_convs.#.conv.&", PD_MAP_KEEP, true},
    {PD_MAP_TORCHVISION, "rpn.head.conv.&", "rpn_head.rpn_conv.&", PD_MAP_KEEP, true},
    {PD_MAP_TORCHVISION, "rpn.head.conv.0.0.&", "rpn_head.rpn_conv.&", PD_MAP_KEEP, true},
    {PD_MAP_TORCHVISION, "rpn.head.cls_logits.&", "rpn_head.rpn_cls.&", PD_MAP_KEEP, true},
    {PD_MAP_TORCHVISION, "rpn.head.bbox_pred.&", "rpn_head.rpn_reg.&", PD_MAP_KEEP, true},
    {PD_MAP_TORCHVISION, "roi_heads.box_head.fc6.&", "roi_head.bbox_head.shared_fcs.0.&", PD_MAP_KEEP, true},
    {PD_MAP_TORCHVISION, "roi_heads.box_head.fc7.&", "roi_head.bbox_head.shared_fcs.1.&", PD_MAP_KEEP, true},
    {PD_MAP_TORCHVISION, "roi_heads.box_predictor.cls_score.&", "roi_head.bbox_head.fc_cls.&", PD_MAP_BACK_LAST, true},
    {PD_MAP_TORCHVISION, "roi_heads.box_predictor.bbox_pred.&", "roi_head.bbox_head.fc_reg.&", PD_MAP_DROP_BACK, true},
    {PD_MAP_TIMM, "layer#.#.se.fc1.&", "layer#.#.se.fc.0.&", PD_MAP_FLATTEN, false},
    {PD_MAP_TIMM, "layer#.#.se.fc2.&", "layer#.#.se.fc.2.&", PD_MAP_FLATTEN, false},
    {PD_MAP_MMDET, "bbox_head.cls_convs.#.&", "bbox_head.cls_convs.#.conv.&", PD_MAP_KEEP, true},
    {PD_MAP_MMDET, "bbox_head.reg_convs.#.&", "bbox_head.reg_convs.#.conv.&", PD_MAP_KEEP, true},
    {PD_MAP_MMDET1, "bbox_head.fc_cls.&", "roi_head.bbox_head.fc_cls.&", PD_MAP_BACK_LAST, true},
    {PD_MAP_MMDET1, "bbox_head.#.fc_cls.&", "roi_head.bbox_head.#.fc_cls.&", PD_MAP_BACK_LAST, true},
    {PD_MAP_MMDET1, "bbox_head.fc_reg.&", "roi_head.bbox_head.fc_reg.&", PD_MAP_DROP_BACK, true},
    {PD_MAP_MMDET1, "bbox_head.#.fc_reg.&", "roi_head.bbox_head.#.fc_reg.&", PD_MAP_DROP_BACK, true},
    {PD_MAP_MMDET1, "bbox_head.*", "roi_head.bbox_head.*", PD_MAP_KEEP, true},
};

/* Our names: of a ResNet (behind "" or "backbone."), */
static const char *const backbone_names[] = {
    "conv1.&",
    "bn1.%",
    "layer#.#.conv#.&",
    "layer#.#.bn#.%",
    "layer#.#.downsample.0.&",
    "layer#.#.downsample.1.%",
    "layer#.#.se.fc.0.&",
    "layer#.#.se.fc.2.&",
    "layer#.#.ge.conv.#.&",
    "layer#.#.ge.bn.#.%",
};
/* of a ParaDise convolution, behind the names of those that may be one, */
static const char *const branch_names[] = {
    "ori_conv.weight",           "ori_bn.%",
    "new_conv.weight",           "new_bn.%",
    "ac_convbn.ver_conv.weight", "ac_convbn.ver_bn.%",
    "ac_convbn.hor_conv.weight", "ac_convbn.hor_bn.%",
    "group_conv.weight",         "group_bn.%",
    "fc.0.&",                    "fc.2.&",
};
static const char *const head_convs[] = {"neck.fpn_convs.#.conv", "bbox_head.cls_convs.#.conv",
                                         "bbox_head.reg_convs.#.conv", "rpn_head.rpn_conv"};
/* and of what stands on it. */
static const char *const head_names[] = {
    "fc.&",
    "neck.lateral_convs.#.conv.&",
    "neck.fpn_convs.#.conv.&",
    "bbox_head.cls_convs.#.conv.&",
    "bbox_head.reg_convs.#.conv.&",
    "bbox_head.retina_cls.&",
    "bbox_head.retina_reg.&",
    "rpn_head.rpn_conv.&",
    "rpn_head.rpn_cls.&",
    "rpn_head.rpn_reg.&",
    "roi_head.bbox_head.shared_fcs.#.&",
    "roi_head.bbox_head.fc_cls.&",
    "roi_head.bbox_head.fc_reg.&",
    "roi_head.bbox_head.#.shared_fcs.#.&",
    "roi_head.bbox_head.#.fc_cls.&",
    "roi_head.bbox_head.#.fc_reg.&",
};

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* Bytes of `text` that the sign stands for, 0 where it does not fit. */
static size_t stands_for(char sign, const char *text)
{
    switch (sign) {
    case '#': return strspn(text, "0123456789");
    case '*': return strlen(text);
    case '&':
    case '%':
        for (size_t i = 0; i < (sign == '&' ? 2 : COUNT(batch_norm)); i++)
            if (starts_with(text, batch_norm[i]) && !text[strlen(batch_norm[i])]) return strlen(batch_norm[i]);
        return 0;
    default: return *text == sign && sign;
    }
}

static bool matches(const char *pattern, const char *text)
{
    for (; *pattern; pattern++) {
        const size_t n = stands_for(*pattern, text);
        if (!n) return false;
        text += n;
    }
    return !*text;
}

/* `to` with its signs replaced by what those of `from`, which matches, stand for. */
static pd_status rewrite(char **out, const char *from, const char *to, const char *text, pd_arena *arena, pd_err *err)
{
    char *name;
    size_t n = 0;
    PD_TRY(pd_alloc(&name, arena, strlen(text) + strlen(to) + 1, 1, err));
    for (; *to; to++) {
        if (!strchr("#&%*", *to)) {
            name[n++] = *to;
            continue;
        }
        for (; !strchr("#&%*", *from); from++) text++;
        const size_t length = stands_for(*from++, text);
        memcpy(name + n, text, length);
        n += length;
        text += length;
    }
    *out = name;
    return PD_OK;
}

/* A tensor of the ParaDise convolution `conv`. */
static bool is_branch(const char *conv, const char *name)
{
    char pattern[80];
    for (size_t i = 0; i < COUNT(branch_names); i++) {
        snprintf(pattern, sizeof pattern, "%s.%s", conv, branch_names[i]);
        if (matches(pattern, name)) return true;
    }
    return false;
}

static bool is_ours(const char *name)
{
    const char *body = starts_with(name, "backbone.") ? name + strlen("backbone.") : name;
    for (size_t i = 0; i < COUNT(backbone_names); i++)
        if (matches(backbone_names[i], body)) return true;
    if (is_branch("layer#.#.conv#", body)) return true;
    for (size_t i = 0; i < COUNT(head_convs); i++)
        if (is_branch(head_convs[i], name)) return true;
    for (size_t i = 0; i < COUNT(head_names); i++)
        if (matches(head_names[i], name)) return true;
    return false;
}

pd_status pd_map_parse(pd_map *out, const char *name, pd_err *err)
{
    for (size_t i = 0; i < COUNT(maps); i++) {
        if (strcmp(maps[i], name) != 0) continue;
        *out = (pd_map)i;
        return PD_OK;
    }
    return PD_FAIL(err, PD_EINVAL,
                   "map \"%s\" is unknown; there are torchvision, timm, mmdet, mmdet1, paradise and none", name);
}

const char *pd_map_name(pd_map map)
{
    return maps[map];
}

static const char *without_module(const char *name)
{
    while (starts_with(name, "module.")) name += strlen("module.");
    return name;
}

pd_map pd_map_guess(const char *const *names, size_t count)
{
    bool body = false, branches = false, backbone = false, rpn = false, head = false, timm = false, resnet = false;
    for (size_t i = 0; i < count; i++) {
        const char *name = without_module(names[i]);
        branches |= strstr(name, ".ori_conv.") != NULL;
        body |= starts_with(name, "backbone.body.");
        backbone |= starts_with(name, "backbone.");
        rpn |= starts_with(name, "rpn_head.");
        head |= starts_with(name, "bbox_head.");
        timm |= matches("layer#.#.se.fc1.&", name);
        resnet |= matches("layer#.#.conv#.weight", name);
    }
    if (body) return PD_MAP_TORCHVISION;
    if (backbone || rpn || head) return rpn && head ? PD_MAP_MMDET1 : PD_MAP_MMDET;
    if (branches) return PD_MAP_PARADISE;
    if (timm) return PD_MAP_TIMM;
    return resnet ? PD_MAP_TORCHVISION : PD_MAP_NONE;
}

pd_status pd_map_read(char **out, pd_map_change *change, pd_map map, const char *name, pd_arena *arena, pd_err *err)
{
    char *ours;
    *change = PD_MAP_KEEP;
    if (map == PD_MAP_NONE) return pd_strdup(out, arena, name, err);
    name = without_module(name);
    for (size_t i = 0; i < COUNT(rules); i++) {
        if (rules[i].map != map || !matches(rules[i].theirs, name)) continue;
        PD_TRY(rewrite(&ours, rules[i].theirs, rules[i].ours, name, arena, err));
        *out = is_ours(ours) ? ours : NULL;
        *change = rules[i].change;
        return PD_OK;
    }
    if (is_ours(name)) return pd_strdup(out, arena, name, err);
    *out = NULL;
    return PD_OK;
}

pd_status pd_map_write(char **out, pd_map_change *change, pd_map map, const char *name, pd_arena *arena, pd_err *err)
{
    if (map == PD_MAP_MMDET1)
        return PD_FAIL(err, PD_EINVAL, "map mmdet1 is for reading: files of mmdetection 1.x are not written");
    *change = PD_MAP_KEEP;
    if (map == PD_MAP_PARADISE) return pd_format(out, arena, err, "module.%s", name);
    for (size_t i = 0; i < COUNT(rules); i++) {
        if (rules[i].map != map || rules[i].read_only || !matches(rules[i].ours, name)) continue;
        *change = rules[i].change;
        return rewrite(out, rules[i].ours, rules[i].theirs, name, arena, err);
    }
    return pd_strdup(out, arena, name, err);
}

/* ---- what network it is ---- */

/* Signs of a family in its names. */
enum {
    HAS_CONV3 = 1,
    HAS_SE = 2,
    HAS_GE = 4,
    HAS_ORI = 8,
    HAS_NEW = 16,
    HAS_SKELETON = 32,
    HAS_GROUP = 64,
    HAS_GATE = 128
};
static const struct {
    const char *pattern;
    unsigned sign;
} signs[] = {
    {"layer#.#.conv3.weight", HAS_CONV3},
    {"layer#.#.se.fc.0.weight", HAS_SE},
    {"layer#.#.ge.conv.#.weight", HAS_GE},
    {"layer#.#.conv#.ori_conv.weight", HAS_ORI},
    {"layer#.#.conv#.new_conv.weight", HAS_NEW},
    {"layer#.#.conv#.ac_convbn.ver_conv.weight", HAS_SKELETON},
    {"layer#.#.conv#.group_conv.weight", HAS_GROUP},
    {"layer#.#.conv#.fc.0.weight", HAS_GATE},
};

bool pd_arch_guess(pd_arch *out, const char *prefix, const char *const *names, size_t count)
{
    static const int depths[] = {18, 34, 50, 101, 152};
    unsigned has = 0;
    int blocks[4] = {0};
    pd_arch a = {0};
    for (size_t i = 0; i < count; i++) {
        if (!starts_with(names[i], prefix)) continue;
        const char *name = names[i] + strlen(prefix);
        for (size_t k = 0; k < COUNT(signs); k++)
            if (matches(signs[k].pattern, name)) has |= signs[k].sign;
        if (!matches("layer#.#.*", name) || name[5] < '1' || name[5] > '4' || name[6] != '.') continue;
        const int block = (int)strtol(name + 7, NULL, 10), layer = name[5] - '1';
        if (block >= 0 && block < 1000 && block >= blocks[layer]) blocks[layer] = block + 1;
    }
    for (size_t i = 0; i < COUNT(depths); i++) {
        bool bottleneck;
        const int *want = pd_depth_blocks(depths[i], &bottleneck);
        if (!memcmp(want, blocks, sizeof blocks) && bottleneck == !!(has & HAS_CONV3)) a.depth = depths[i];
    }
    a.branches = (has & HAS_ORI ? PD_S1 : 0u) | (has & HAS_NEW ? PD_S2 : 0u) | (has & HAS_SKELETON ? PD_SKELETON : 0u) |
                 (has & HAS_GROUP ? PD_GROUP : 0u);
    if (a.branches)
        a.family = has & HAS_GATE                        ? PD_RESNET_PD_B
                   : a.branches == (PD_S1 | PD_SKELETON) ? PD_RESNET_AC
                                                         : PD_RESNET_PD_A;
    else
        a.family = has & HAS_SE ? PD_RESNET_SE : has & HAS_GE ? PD_RESNET_GE : PD_RESNET;
    if (!a.depth) return false;
    *out = a;
    return true;
}
