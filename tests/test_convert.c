/* Names of other programs' files, and pd_convert: what becomes of each key, values that move, what network it is, and
 * back. PyTorch's files are test_torch_file's. golden/torch/torchvision_logits.safetensors is what torchvision 0.14's
 * resnet18 and resnet50 with 10 classes answer in eval mode, weights by tests/oracle.h and seed 5, for its tensor "x"
 * (2, 3, 64, 64) of the same seed: here the weights go through a .pth file, pd_convert and pd_classify. */
#include "backbones/classifier.h"
#include "backbones/import.h"
#include "detectors/detector.h"
#include "engine/file.h"
#include "engine/torch_file.h"
#include "tests/oracle.h"
#include "tests/pd_test.h"
#include "tests/programs.h"

#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[256], text[1 << 16];

/* ---- names
 * ------------------------------------------------------------------------------------------------------------ */

static const struct {
    const char *map, *theirs, *ours; /* ours NULL: left over */
    pd_map_change change;
    const char *back; /* NULL: as theirs */
} names[] = {
    {"torchvision", "conv1.weight", "conv1.weight", PD_MAP_KEEP, NULL},
    {"torchvision", "layer3.22.downsample.1.num_batches_tracked", "layer3.22.downsample.1.num_batches_tracked",
     PD_MAP_KEEP, NULL},
    {"torchvision", "module.fc.bias", "fc.bias", PD_MAP_KEEP, "fc.bias"},
    {"torchvision", "module.module.bn1.running_var", "bn1.running_var", PD_MAP_KEEP, "bn1.running_var"},
    {"torchvision", "bn1.running_mean2", NULL, PD_MAP_KEEP, NULL},
    {"torchvision", "layer1.0.conv1.weights", NULL, PD_MAP_KEEP, NULL},
    {"torchvision", "layer.0.conv1.weight", NULL, PD_MAP_KEEP, NULL},
    {"torchvision", "linear.weight", NULL, PD_MAP_KEEP, NULL},
    {"torchvision", "layer1.0.se.fc1.weight", NULL, PD_MAP_KEEP, NULL},
    {"torchvision", "", NULL, PD_MAP_KEEP, NULL},
    {"torchvision", "backbone.body.layer1.0.bn2.running_var", "backbone.layer1.0.bn2.running_var", PD_MAP_KEEP,
     "backbone.layer1.0.bn2.running_var"},
    {"torchvision", "backbone.fpn.inner_blocks.0.0.weight", "neck.lateral_convs.0.conv.weight", PD_MAP_KEEP,
     "neck.lateral_convs.0.conv.weight"},
    {"torchvision", "backbone.fpn.layer_blocks.3.bias", "neck.fpn_convs.3.conv.bias", PD_MAP_KEEP,
     "neck.fpn_convs.3.conv.bias"}, /* before 0.13 */
    {"torchvision", "rpn.head.conv.0.0.weight", "rpn_head.rpn_conv.weight", PD_MAP_KEEP, "rpn_head.rpn_conv.weight"},
    {"torchvision", "rpn.head.bbox_pred.bias", "rpn_head.rpn_reg.bias", PD_MAP_KEEP, "rpn_head.rpn_reg.bias"},
    {"torchvision", "roi_heads.box_head.fc7.weight", "roi_head.bbox_head.shared_fcs.1.weight", PD_MAP_KEEP,
     "roi_head.bbox_head.shared_fcs.1.weight"},
    {"torchvision", "roi_heads.box_predictor.cls_score.bias", "roi_head.bbox_head.fc_cls.bias", PD_MAP_BACK_LAST,
     "roi_head.bbox_head.fc_cls.bias"},
    {"torchvision", "roi_heads.box_predictor.bbox_pred.weight", "roi_head.bbox_head.fc_reg.weight", PD_MAP_DROP_BACK,
     "roi_head.bbox_head.fc_reg.weight"},
    {"torchvision", "roi_heads.mask_head.mask_fcn1.weight", NULL, PD_MAP_KEEP, NULL},
    {"none", "module.linear.weight", "module.linear.weight", PD_MAP_KEEP, NULL},
    {"timm", "layer2.10.se.fc1.weight", "layer2.10.se.fc.0.weight", PD_MAP_FLATTEN, NULL},
    {"timm", "layer2.10.se.fc2.bias", "layer2.10.se.fc.2.bias", PD_MAP_FLATTEN, NULL},
    {"timm", "layer2.0.conv3.weight", "layer2.0.conv3.weight", PD_MAP_KEEP, NULL},
    {"timm", "conv1.0.weight", NULL, PD_MAP_KEEP, NULL}, /* the stem of resnet50d */
    {"paradise", "module.layer1.0.conv1.ac_convbn.ver_bn.running_mean", "layer1.0.conv1.ac_convbn.ver_bn.running_mean",
     PD_MAP_KEEP, NULL},
    {"paradise", "module.layer4.1.conv2.fc.2.bias", "layer4.1.conv2.fc.2.bias", PD_MAP_KEEP, NULL},
    {"paradise", "module.layer4.1.conv2.group_conv.weight", "layer4.1.conv2.group_conv.weight", PD_MAP_KEEP, NULL},
    {"mmdet", "backbone.layer1.0.conv2.ori_conv.weight", "backbone.layer1.0.conv2.ori_conv.weight", PD_MAP_KEEP, NULL},
    {"mmdet", "neck.fpn_convs.0.conv.group_bn.running_var", "neck.fpn_convs.0.conv.group_bn.running_var", PD_MAP_KEEP, NULL},
    {"mmdet", "rpn_head.rpn_conv.ac_convbn.hor_conv.weight", "rpn_head.rpn_conv.ac_convbn.hor_conv.weight", PD_MAP_KEEP, NULL},
    {"mmdet", "bbox_head.retina_cls.ori_conv.weight", NULL, PD_MAP_KEEP, NULL},
    {"mmdet", "neck.fpn_convs.4.conv.bias", "neck.fpn_convs.4.conv.bias", PD_MAP_KEEP, NULL},
    {"mmdet", "bbox_head.retina_cls.weight", "bbox_head.retina_cls.weight", PD_MAP_KEEP, NULL},
    {"mmdet", "bbox_head.cls_convs.3.weight", "bbox_head.cls_convs.3.conv.weight", PD_MAP_KEEP,
     "bbox_head.cls_convs.3.conv.weight"},
    {"mmdet", "bbox_head.cls_convs.3.conv.weight", "bbox_head.cls_convs.3.conv.weight", PD_MAP_KEEP, NULL},
    {"mmdet", "roi_head.bbox_head.2.fc_cls.weight", "roi_head.bbox_head.2.fc_cls.weight", PD_MAP_KEEP, NULL},
    {"mmdet", "backbone.fc.weight", NULL, PD_MAP_KEEP, NULL},
    {"mmdet", "roi_head.mask_head.conv_logits.weight", NULL, PD_MAP_KEEP, NULL},
    {"mmdet1", "bbox_head.1.fc_cls.weight", "roi_head.bbox_head.1.fc_cls.weight", PD_MAP_BACK_LAST, ""},
    {"mmdet1", "bbox_head.fc_reg.bias", "roi_head.bbox_head.fc_reg.bias", PD_MAP_DROP_BACK, ""},
    {"mmdet1", "bbox_head.0.shared_fcs.1.weight", "roi_head.bbox_head.0.shared_fcs.1.weight", PD_MAP_KEEP, ""},
    {"mmdet1", "rpn_head.rpn_cls.weight", "rpn_head.rpn_cls.weight", PD_MAP_KEEP, ""},
    {"mmdet1", "bbox_head.conv_cls.weight", NULL, PD_MAP_KEEP, NULL},
};

static void test_names(void)
{
    pd_err err = PD_ERR_INIT;
    pd_arena *arena = pd_arena_new();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        pd_map map = PD_MAP_NONE;
        pd_map_change change;
        char *ours = NULL, *back = NULL;
        PD_ROW(names[i].theirs);
        PD_CHECK_OK(pd_map_parse(&map, names[i].map, &err));
        PD_CHECK_STR(pd_map_name(map), names[i].map);
        PD_CHECK_OK(pd_map_read(&ours, &change, map, names[i].theirs, arena, &err));
        if (!names[i].ours) {
            PD_CHECK_MSG(!ours, "became \"%s\"", ours);
            continue;
        }
        PD_CHECK_STR(ours, names[i].ours);
        PD_CHECK_INT(change, names[i].change);
        if (names[i].back && !*names[i].back) {
            PD_CHECK_FAILS(pd_map_write(&back, &change, map, names[i].ours, arena, &err), PD_EINVAL,
                           "mmdet1 is for reading");
            continue;
        }
        PD_CHECK_OK(pd_map_write(&back, &change, map, names[i].ours, arena, &err));
        PD_CHECK_STR(back, names[i].back ? names[i].back : names[i].theirs);
        const bool read_only = names[i].back && !strcmp(names[i].back, names[i].ours); /* stays what it is with us */
        PD_CHECK_INT(change, read_only ? PD_MAP_KEEP : names[i].change);
    }
    PD_ROW("");
    pd_map map;
    PD_CHECK_FAILS(pd_map_parse(&map, "keras", &err), PD_EINVAL, "map \"keras\" is unknown; there are torchvision");
    pd_arena_free(arena);
}

static void test_guess(void)
{
    static const struct {
        pd_map map;
        const char *names[3];
    } rows[] = {
        {PD_MAP_TORCHVISION, {"conv1.weight", "layer1.0.conv1.weight", "fc.weight"}},
        {PD_MAP_TORCHVISION, {"module.layer1.0.conv1.weight", "module.fc.weight", "x"}},
        {PD_MAP_TORCHVISION, {"backbone.body.conv1.weight", "rpn.head.cls_logits.bias", "x"}},
        {PD_MAP_TIMM, {"layer1.0.conv1.weight", "layer1.0.se.fc1.weight", "fc.weight"}},
        {PD_MAP_PARADISE, {"module.layer1.0.conv1.ori_conv.weight", "module.conv1.weight", "x"}},
        {PD_MAP_MMDET,
         {"backbone.layer1.0.conv1.ori_conv.weight", "rpn_head.rpn_cls.weight", "roi_head.bbox_head.fc_cls.weight"}},
        {PD_MAP_MMDET, {"backbone.conv1.weight", "bbox_head.retina_cls.weight", "x"}},
        {PD_MAP_MMDET1, {"backbone.conv1.weight", "rpn_head.rpn_cls.weight", "bbox_head.fc_cls.weight"}},
        {PD_MAP_NONE, {"encoder.weight", "decoder.bias", "layer1.weight"}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        PD_ROW(rows[i].names[1]);
        PD_CHECK_STR(pd_map_name(pd_map_guess(rows[i].names, 3)), pd_map_name(rows[i].map));
    }
    PD_ROW("");
}

/* Every architecture is found again by the names of its parameters, in a classifier and in a detector. */
static void test_arch_guess(void)
{
    static const struct {
        const char *arch, *branches;
    } rows[] = {{"resnet18", NULL},
                {"resnet34", NULL},
                {"resnet50", NULL},
                {"resnet101", NULL},
                {"resnet152", NULL},
                {"se_resnet34", NULL},
                {"se_resnet50", NULL},
                {"ge_resnet18", NULL},
                {"ge_resnet50", NULL},
                {"ac_resnet50", NULL},
                {"pd_a_resnet18", NULL},
                {"pd_b_resnet101", NULL},
                {"pd_b_resnet18", "s1,skeleton"},
                {"pd_a_resnet50", "s1,group"},
                {"pd_b_resnet50", "s1,s2"},
                {"pd_a_resnet18", "s1"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (int detector = 0; detector < 2; detector++) {
            pd_err err = PD_ERR_INIT;
            pd_arch arch, found = {0};
            pd_params *params = NULL;
            pd_tape *t = NULL;
            const char **list = NULL;
            char shown[32];
            PD_ROW(rows[i].arch);
            PD_CHECK_OK(pd_arch_parse(&arch, rows[i].arch, rows[i].branches, &err));
            PD_CHECK_OK(pd_params_new(&params, &err));
            PD_CHECK_OK(pd_tape_new(&t, params, false, &err));
            const char *prefix = detector ? "backbone." : "";
            pd_record_resnet(t, PD_FORM_EVAL, prefix, arch, pd_tape_input(t, "image", PD_F32, PD_SHAPE(1, 64, 64, 3)));
            PD_CHECK_OK(pd_tape_status(t, &err));
            const size_t n = pd_params_count(params);
            list = malloc(n * sizeof *list);
            for (size_t k = 0; k < n; k++) list[k] = pd_params_at(params, k)->name;
            PD_CHECK(pd_arch_guess(&found, prefix, list, n));
            PD_CHECK_STR(pd_arch_name(shown, found), rows[i].arch);
            PD_CHECK_INT(found.branches, arch.branches);
            PD_CHECK(!pd_arch_guess(&found, detector ? "" : "backbone.", list, n));
            PD_CHECK(!pd_arch_guess(&found, prefix, list, n / 2));
            for (size_t k = 0; k < n; k++) { /* all of these names are ours */
                pd_map_change change;
                char *ours = NULL;
                pd_arena *arena = pd_arena_new();
                PD_CHECK_OK(
                    pd_map_read(&ours, &change, detector ? PD_MAP_MMDET : PD_MAP_PARADISE, list[k], arena, &err));
                PD_CHECK_STR(ours, list[k]);
                pd_arena_free(arena);
            }
            free((void *)list);
            pd_tape_free(t);
            pd_params_free(params);
        }
    }
    PD_ROW("");
}

/* ---- the program
 * --------------------------------------------------------------------------------------------------------- */

/* Runs pd_convert in `dir`; what it says is in `text`, both outputs in turn. Returns its exit code. */
static int convert(const char *arguments)
{
    char command[1200];
    size_t n = 0;
    snprintf(command, sizeof command, "cd %s && %s/pd_convert %s 2>&1", dir, PD_BIN_DIR, arguments);
    FILE *pipe = popen(command, "r");
    if (!pipe) return -1;
    for (size_t got; n < sizeof text - 1 && (got = fread(text + n, 1, sizeof text - 1 - n, pipe)) > 0;) n += got;
    text[n] = '\0';
    const int status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000;
}

#define SAYS(part) PD_CHECK_MSG(strstr(text, part), "pd_convert does not say \"%s\" but: %.300s", part, text)
static pd_torch_item item(const char *name, const float *data, int ndim, int64_t a, int64_t b)
{
    const pd_st_tensor t = {.type = PD_ST_F32,
                            .ndim = ndim,
                            .shape = {a, b},
                            .elements = (size_t)(a * b),
                            .bytes = (size_t)(a * b) * 4,
                            .data = (const unsigned char *)data};
    pd_torch_item it = {.name = name, .ndim = ndim, .shape = {a, b}, .parts = {pd_view_of(&t)}, .n_parts = 1};
    return it;
}

static void path_of(char out[300], const char *name)
{
    snprintf(out, 300, "%s/%s", dir, name);
}

/* A tensor of a file as text: "(2, 3): 1 2 3 4 5 6" */
static const char *tensor(const char *file, const char *name)
{
    static char out[256];
    char path[300];
    float v[32];
    pd_err err = PD_ERR_INIT;
    pd_st *st = NULL;
    path_of(path, file);
    if (pd_st_open(&st, path, &err) != PD_OK) return err.text[0] ? "(no file)" : "";
    const pd_st_tensor *t = pd_st_find(st, name);
    if (!t || t->elements > 32) {
        pd_st_close(st);
        return "(no tensor)";
    }
    pd_st_shape_text(out, t->ndim, t->shape);
    size_t n = strlen(out);
    pd_st_read_f32(v, t);
    for (size_t i = 0; i < t->elements; i++) n += (size_t)snprintf(out + n, sizeof out - n, " %g", (double)v[i]);
    pd_st_close(st);
    return out;
}

static void test_values(void)
{
    static const float v[24] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23};
    char path[300];
    pd_err err = PD_ERR_INIT;
    const pd_torch_item old[] = {
        item("rpn_head.rpn_cls.bias", v, 1, 3, 1),      item("bbox_head.0.fc_cls.weight", v, 2, 3, 2),
        item("bbox_head.0.fc_cls.bias", v, 1, 3, 1),    item("bbox_head.0.fc_reg.weight", v, 2, 4, 2),
        item("bbox_head.fc_reg.weight", v, 2, 12, 2),   item("bbox_head.fc_reg.bias", v, 1, 12, 1),
        item("mask_head.conv_logits.bias", v, 1, 3, 1),
    };
    path_of(path, "old.pth");
    PD_CHECK_OK(pd_torch_save(path, old, 7, "state_dict", NULL, &err));
    PD_CHECK_INT(convert("old.pth new.safetensors"), 0);
    SAYS("renamed    bbox_head.0.fc_cls.weight -> roi_head.bbox_head.0.fc_cls.weight (3, 2)\n");
    SAYS("renamed    bbox_head.fc_reg.weight -> roi_head.bbox_head.fc_reg.weight (8, 2)\n");
    SAYS("taken      rpn_head.rpn_cls.bias (3)\n");
    SAYS("left over  mask_head.conv_logits.bias\n");
    SAYS("6 tensors taken, 5 of them renamed (map mmdet1), 1 left over\n");
    PD_CHECK_STR(tensor("new.safetensors", "roi_head.bbox_head.0.fc_cls.weight"), "(3, 2) 2 3 4 5 0 1");
    PD_CHECK_STR(tensor("new.safetensors", "roi_head.bbox_head.0.fc_cls.bias"), "(3) 1 2 0");
    PD_CHECK_STR(tensor("new.safetensors", "roi_head.bbox_head.0.fc_reg.weight"), "(4, 2) 0 1 2 3 4 5 6 7");
    PD_CHECK_STR(tensor("new.safetensors", "roi_head.bbox_head.fc_reg.weight"),
                 "(8, 2) 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23");
    PD_CHECK_STR(tensor("new.safetensors", "roi_head.bbox_head.fc_reg.bias"), "(8) 4 5 6 7 8 9 10 11");
    PD_CHECK_STR(tensor("new.safetensors", "rpn_head.rpn_cls.bias"), "(3) 0 1 2");
    PD_CHECK_STR(tensor("new.safetensors", "mask_head.conv_logits.bias"), "(no tensor)");

    pd_torch_item se[] = {item("module.layer1.0.se.fc1.weight", v, 2, 2, 3),
                          item("module.layer1.0.se.fc1.bias", v, 1, 2, 1)};
    for (int i = 2; i < 4; i++) se[0].shape[i] = se[0].parts[0].shape[i] = se[0].parts[0].stride[i] = 1;
    se[0].ndim = se[0].parts[0].ndim = 4;
    path_of(path, "se.pth");
    PD_CHECK_OK(pd_torch_save(path, se, 2, NULL, NULL, &err));
    PD_CHECK_INT(convert("se.pth se.safetensors"), 0);
    SAYS("renamed    module.layer1.0.se.fc1.weight -> layer1.0.se.fc.0.weight (2, 3)\n");
    PD_CHECK_STR(tensor("se.safetensors", "layer1.0.se.fc.0.weight"), "(2, 3) 0 1 2 3 4 5");
    PD_CHECK_INT(convert("se.safetensors back.pth --map timm"), 0);
    SAYS("renamed    layer1.0.se.fc.0.weight -> layer1.0.se.fc1.weight (2, 3, 1, 1)\n");
    SAYS("taken, 2 of them renamed (map timm)");
    PD_CHECK_INT(convert("back.pth again.safetensors --quiet"), 0);
    PD_CHECK_STR(text, "again.safetensors: 2 tensors taken, 2 of them renamed (map timm), 0 left over\n");
    PD_CHECK_STR(tensor("again.safetensors", "layer1.0.se.fc.0.weight"), "(2, 3) 0 1 2 3 4 5");
    PD_CHECK_STR(tensor("again.safetensors", "layer1.0.se.fc.0.bias"), "(2) 0 1");
    se[0].shape[2] = se[0].parts[0].shape[2] = 3; /* (2, 1, 3, 1) */
    se[0].shape[1] = se[0].parts[0].shape[1] = 1;
    PD_CHECK_OK(pd_torch_save(path, se, 2, NULL, NULL, &err));
    PD_CHECK_INT(convert("se.pth no.safetensors"), 1);
    SAYS("se.pth: module.layer1.0.se.fc1.weight: is no 1x1 convolution");

    pd_torch_item twice[] = {item("fc.bias", v, 1, 3, 1), item("module.fc.bias", v, 1, 3, 1)};
    PD_CHECK_OK(pd_torch_save(path, twice, 2, NULL, NULL, &err));
    PD_CHECK_INT(convert("se.pth no.safetensors --map torchvision"), 1);
    SAYS("both become fc.bias");
    path_of(path, "no.safetensors");
    PD_CHECK(!pd_file_exists(path));
}

/* All parameters of a network; every element the same: views that repeat one. To be freed. */
static pd_torch_item *zeros(const pd_params *params)
{
    static const float zero = 0;
    const size_t n = pd_params_count(params);
    pd_torch_item *items = calloc(n, sizeof *items);
    if (!items) abort();
    for (size_t i = 0; i < n; i++) {
        const pd_param *p = pd_params_at(params, i);
        pd_view v = {.type = PD_ST_F32, .ndim = p->rank, .elements = 1, .data = (const unsigned char *)&zero};
        for (int k = 0; k < p->rank; k++) {
            v.shape[k] = p->dim[k];
            v.elements *= (size_t)p->dim[k];
        }
        v.bytes = v.elements * 4;
        items[i] = (pd_torch_item){.name = p->name, .ndim = p->rank, .parts = {v}, .n_parts = 1};
        memcpy(items[i].shape, v.shape, sizeof v.shape);
    }
    return items;
}

/* A whole network: recognised, described, and the same bytes after a way through PyTorch's form. */
static void test_network(void)
{
    char path[300], other[300];
    pd_err err = PD_ERR_INIT;
    pd_arch arch;
    pd_params *params = NULL;
    pd_tape *t = NULL;
    PD_CHECK_OK(pd_arch_parse(&arch, "ac_resnet18", NULL, &err));
    PD_CHECK_OK(pd_params_new(&params, &err));
    PD_CHECK_OK(pd_tape_new(&t, params, false, &err));
    pd_record_classifier(t, PD_FORM_EVAL, arch, 7, pd_tape_input(t, "image", PD_F32, PD_SHAPE(1, 64, 64, 3)), NULL);
    PD_CHECK_OK(pd_tape_status(t, &err));
    const size_t n = pd_params_count(params);
    pd_torch_item *items = zeros(params);
    path_of(path, "net.pth");
    PD_CHECK_OK(pd_torch_save(path, items, n, NULL, NULL, &err));
    PD_CHECK_INT(convert("net.pth net.safetensors --quiet"), 0);
    SAYS("(map paradise), 0 left over; a classifier, ac_resnet18, 7 classes, branches s1,skeleton\n");
    pd_st *st = NULL;
    path_of(path, "net.safetensors");
    PD_CHECK_OK(pd_st_open(&st, path, &err));
    if (st) {
        PD_CHECK_STR(pd_st_meta(st, "arch"), "ac_resnet18");
        PD_CHECK_STR(pd_st_meta(st, "num_classes"), "7");
        PD_CHECK_STR(pd_st_meta(st, "type"), "classifier");
    }
    pd_st_close(st);
    PD_CHECK_INT(convert("net.safetensors back.pth --quiet"), 0);
    PD_CHECK_INT(convert("back.pth --list"), 0);
    SAYS("module.layer1.0.conv1.ac_convbn.hor_conv.weight");
    SAYS("arch: \"ac_resnet18\"");
    PD_CHECK_INT(convert("back.pth again.safetensors --quiet"), 0);
    pd_bytes a = {NULL, 0}, b = {NULL, 0};
    path_of(other, "again.safetensors");
    PD_CHECK_OK(pd_file_map(&a, path, &err));
    PD_CHECK_OK(pd_file_map(&b, other, &err));
    PD_CHECK(a.size > 40000000 && a.size == b.size && !memcmp(a.data, b.data, a.size));
    pd_file_unmap(&a);
    pd_file_unmap(&b);

    PD_CHECK_INT(convert("net.pth no.safetensors --arch pd_a_resnet18"), 1);
    SAYS("missing: layer1.0.conv1.new_conv.weight\n");
    SAYS("net.pth: is not pd_a_resnet18 with 7 classes: ");
    PD_CHECK_INT(convert("net.pth no.safetensors --arch ac_resnet18 --num-classes 8"), 1);
    SAYS("another shape: fc.weight: file has (7, 512), model wants (8, 512)\n");
    path_of(other, "no.safetensors");
    PD_CHECK(!pd_file_exists(other));
    path_of(path, "part.pth");
    PD_CHECK_OK(pd_torch_save(path, items + 1, n - 1, NULL, NULL, &err));
    PD_CHECK_INT(convert("part.pth part.safetensors --quiet"), 0);
    PD_CHECK(!strstr(text, "a classifier"));
    PD_CHECK_INT(convert("part.pth part.safetensors"), 0);
    SAYS("looks like ac_resnet18 with 7 classes, but 1 of its tensors differ (the first: missing: conv1.weight)");
    free(items);
    pd_tape_free(t);
    pd_params_free(params);
}

/* Faster R-CNN with a box for every class and with one for all: recognised, with the configuration that runs it. */
static void test_faster(void)
{
    static const char *const agnostic[] = {"\"reg_class_agnostic\": false", "\"reg_class_agnostic\": true"};
    char path[300];
    pd_err err = PD_ERR_INIT;
    for (int one = 0; one < 2; one++) {
        pd_params *params = NULL;
        pd_tape *t = NULL;
        pd_st *st = NULL;
        pd_detector_settings set = pd_detector_defaults(PD_FASTER_RCNN);
        PD_ROW(agnostic[one]);
        set.classes = 7;
        set.cascade.class_boxes = !one;
        PD_CHECK_OK(pd_arch_parse(&set.arch, "resnet18", NULL, &err));
        PD_CHECK_OK(pd_params_new(&params, &err));
        PD_CHECK_OK(pd_tape_new(&t, params, false, &err));
        PD_CHECK_OK(pd_record_detector(t, PD_FORM_EVAL, &set, 64, 64, &err));
        pd_torch_item *items = zeros(params);
        path_of(path, "faster.pth");
        PD_CHECK_OK(pd_torch_save(path, items, pd_params_count(params), NULL, NULL, &err));
        free(items);
        PD_CHECK_INT(convert("faster.pth faster.safetensors --quiet"), 0);
        SAYS("(map mmdet), 0 left over; a faster_rcnn, resnet18, 7 classes\n");
        path_of(path, "faster.safetensors");
        PD_CHECK_OK(pd_st_open(&st, path, &err));
        PD_CHECK(st && strstr(pd_st_meta(st, "config"), agnostic[one]));
        pd_st_close(st);
        pd_child info = {0};
        pd_child_run(&info, NULL, PD_BIN_DIR, "pd_info %s", path);
        PD_CHECK_MSG(info.code == 0 && strstr(info.out, "Faster R-CNN, resnet18, 7 classes"), "%s%s", info.out, info.err);
        pd_child_free(&info);
        pd_tape_free(t);
        pd_params_free(params);
    }
    PD_ROW("");
}

/* Weights that torchvision was given -> .pth -> our model -> logits: torchvision's. */
static void test_torchvision(void)
{
    static const char *const nets[] = {"resnet18", "resnet50"};
    static float x[2 * 3 * 64 * 64];
    const int64_t shape[4] = {2, 3, 64, 64};
    char path[300], command[1200];
    pd_err err = PD_ERR_INIT;
    pd_st *golden = NULL;
    pd_st_writer *w = NULL;
    pd_device *device = NULL;
    if (access(PD_BIN_DIR "/pd_classify", X_OK) != 0) return;
    pd_oracle_uniform(x, "x", sizeof x / sizeof *x, 5);
    path_of(path, "x.safetensors");
    PD_CHECK_OK(pd_st_create(&w, path, PD_ST_SORTED, &err));
    PD_CHECK_OK(pd_st_add(w, "x", PD_ST_F32, 4, shape, x, &err));
    PD_CHECK_OK(pd_st_commit(w, &err));
    PD_CHECK_OK(pd_st_open(&golden, PD_GOLDEN "/torch/torchvision_logits.safetensors", &err));
    PD_CHECK_OK(pd_device_open(&device, "cpu", 1, &err));
    for (size_t i = 0; golden && device && i < sizeof nets / sizeof *nets; i++) {
        pd_classifier_settings set = {.classes = 10};
        pd_classifier *net = NULL;
        pd_st *answer = NULL;
        PD_ROW(nets[i]);
        PD_CHECK_OK(pd_arch_parse(&set.arch, nets[i], NULL, &err));
        PD_CHECK_OK(pd_classifier_new(&net, device, &set, &err));
        if (!net) break;
        pd_oracle_fill(pd_classifier_params(net), 5, false, 1);
        path_of(path, "weights.safetensors");
        PD_CHECK_OK(pd_oracle_save(path, pd_classifier_params(net), &err));
        pd_classifier_free(net);
        PD_CHECK_INT(convert("weights.safetensors weights.pth --map torchvision --quiet"), 0);
        PD_CHECK_INT(convert("weights.pth model.safetensors --quiet"), 0);
        SAYS(nets[i]);
        SAYS("0 of them renamed (map torchvision), 0 left over; a classifier");
        snprintf(command, sizeof command,
                 "cd %s && %s/pd_classify model.safetensors --input x.safetensors --output y.safetensors --threads 1", dir,
                 PD_BIN_DIR);
        PD_CHECK_INT(system(command), 0);
        path_of(path, "y.safetensors");
        PD_CHECK_OK(pd_st_open(&answer, path, &err));
        if (!answer) break;
        float ours[20], theirs[20], top = 0;
        const pd_st_tensor *a = pd_st_find(answer, "logits"), *b = pd_st_find(golden, nets[i]);
        PD_CHECK(a && b && a->elements == 20 && b->elements == 20);
        if (a && b && a->elements == 20 && b->elements == 20) {
            pd_st_read_f32(ours, a);
            pd_st_read_f32(theirs, b);
            for (int k = 0; k < 20; k++) top = fmaxf(top, fabsf(theirs[k]));
            for (int k = 0; k < 20; k++) PD_CHECK_NEAR(ours[k], theirs[k], 1e-4 * (double)top);
        }
        pd_st_close(answer);
    }
    PD_ROW("");
    pd_st_close(golden);
    pd_device_close(device);
}

static void test_usage(void)
{
    PD_CHECK_INT(convert("--list " PD_GOLDEN "/torch/new.pth"), 0);
    SAYS("module.strided                                     F32   (2, 2, 2)\n");
    SAYS("optimizer.state.0.momentum_buffer: a tensor\n");
    PD_CHECK_INT(convert(PD_GOLDEN "/torch/new.pth x.safetensors --map none"), 0);
    SAYS("left over  epoch: 7\n");
    SAYS("18 tensors taken, 0 of them renamed (map none), 0 left over, and 17 other entries\n");
    PD_CHECK_STR(tensor("x.safetensors", "module.transposed"), "(4, 3) 0 4 8 1 5 9 2 6 10 3 7 11");
    PD_CHECK_INT(convert(PD_GOLDEN "/torch/object.pth x.safetensors"), 1);
    SAYS("object/data.pkl: pickle, byte 17: names argparse.Namespace");
    PD_CHECK_INT(convert(PD_GOLDEN "/torch/object.pth x.safetensors --skip-objects"), 0);
    SAYS("left over  args: an object of argparse.Namespace\n");
    PD_CHECK_INT(convert(PD_GOLDEN "/torch/new.pth x.safetensors --map torchvision"), 1);
    SAYS("none of its 18 tensors has a name that the map torchvision knows");
    PD_CHECK_INT(convert("nothing.pth x.safetensors"), 1);
    SAYS("nothing.pth: cannot open");
    PD_CHECK_INT(convert(PD_SOURCE_DIR "/CMakeLists.txt x.safetensors"), 1);
    SAYS("CMakeLists.txt: no file of torch.save");
    PD_CHECK_INT(convert("a.pth"), 2);
    SAYS("OUT is missing");
    PD_CHECK_INT(convert("a.pth b.safetensors --list"), 2);
    PD_CHECK_INT(convert("a.pth b.safetensors --map keras"), 2);
    SAYS("map \"keras\" is unknown");
    PD_CHECK_INT(convert("a.pth b.safetensors --branches s1"), 2);
}

int main(void)
{
    char command[300];
    test_names();
    test_guess();
    test_arch_guess();
    if (access(PD_BIN_DIR "/pd_convert", X_OK) != 0) {
        PD_SKIP("pd_convert is not built");
        return pd_test_end();
    }
    pd_test_dir(dir, "convert");
    test_values();
    test_network();
    test_faster();
    test_torchvision();
    test_usage();
    snprintf(command, sizeof command, "rm -r %s", dir);
    PD_CHECK_INT(system(command), 0);
    return pd_test_end();
}
