/* What programs say to wrong use: one line that names the place, the value and what is allowed; exit code 2 for wrong
 * usage, 1 for work that failed; nothing written, nothing on standard output. A row per complaint. */
#include "engine/file.h"
#include "tests/pd_test.h"
#include "tests/programs.h"

static pd_err err;
static char dir[256];

static const struct {
    const char *command; /* @ is the folder with the files made below */
    int code;
    const char *says; /* in the last line on standard error */
} rows[] = {
    /* configurations */
    {"pd_cls_train @/typo.json --check", 1, "typo.json:1: model.archh: unknown key (did you mean \"arch\"?)"},
    {"pd_cls_train @/arch.json --check", 1, "arch.json:1: model: architecture \"pd_c_resnet18\" is unknown; there are"},
    {"pd_det_train @/det_arch.json --check", 1,
     "det_arch.json:1: model.backbone: architecture \"foo\" is unknown; there are"},
    {"pd_cls_train @/good.json --check --set train.epoch=3", 1,
     "command line: train.epoch: unknown key (did you mean \"epochs\"?)"},
    {"pd_cls_train @/good.json --check --set train.epochs=three", 1,
     "train.epochs: is \"three\" (a string), expected a whole number"},
    {"pd_cls_train @/good.json --check --set model.branches=s1,foo", 1,
     "model: branches \"s1,foo\": \"foo\" is unknown"},
    {"pd_cls_train @/good.json --check --set data.train_transform={\"area\":[0.5,0.1]}", 1,
     "data.train_transform: area [0.5, 0.1]; expected 0 < low <= high <= 1"},
    {"pd_cls_train @/good.json --check", 0, ""},
    {"pd_cls_train @/nothing.json", 1, "nothing.json: cannot open: No such file or directory"},
    {"pd_info @/typo.json", 1, "typo.json:1: model.archh: unknown key (did you mean \"arch\"?)"},
    /* training */
    {"pd_cls_train", 2, "a configuration, or -a ARCH and -d DIR, is needed"},
    {"pd_cls_train -a resnet18 -d @/nowhere", 1, "nowhere/train: cannot list the folder: No such file or directory"},
    {"pd_cls_train -a resnet18 -d @/imagenet -b 64 --work-dir @/w", 1,
     "30 samples are less than one step of 64 x 1: take fewer, or keep the last, smaller step (drop_last)"},
    {"pd_cls_train -a resnet18 -d @/imagenet -b 6 --init @/cut.safetensors --work-dir @/w", 1,
     "do not lie within the file's"},
    {"pd_cls_train -a resnet18 -d @/imagenet -b 6 --init @/noise --work-dir @/w", 1,
     "noise: no safetensors file, or a cut one"},
    {"pd_cls_train -a resnet34 -d @/imagenet -b 6 --init @/model.safetensors --work-dir @/w", 1,
     "model.safetensors: does not fit the model: 80 differences, the first: missing: layer1.2.conv1.weight"},
    {"pd_det_train @/det.json --work-dir @/w", 1, "data.train.images is not set"},
    {"pd_det_train @/det.json --work-dir @/w --set train.images_per_step=5", 1,
     "train.micro_batch is 2, which does not divide"},
    /* models and inputs */
    {"pd_classify @/model.safetensors", 2, "no image is given"},
    {"pd_classify @/model.safetensors --input x.safetensors", 2, "--input and --output go together"},
    {"pd_classify @/model.safetensors photo.jpg --input x --output y", 2,
     "photo.jpg: images and --input do not go together"},
    {"pd_classify @/model.safetensors photo.jpg --stages", 2, "--stages goes with --input and --output"},
    {"pd_classify @/model.safetensors @/cut.jpg", 1,
     "cut.jpg: damaged or unsupported JPEG: Premature end of JPEG file"},
    {"pd_classify @/model.safetensors @/nowhere.jpg", 1, "nowhere.jpg: cannot open: No such file or directory"},
    {"pd_classify @/model.safetensors @/cut.jpg --num-classes 5", 1, "file has (2, 512), model wants (5, 512)"},
    {"pd_classify @/model.safetensors --input @/model.safetensors --output @/y", 1,
     "model.safetensors: tensor \"x\" is missing"},
    {"pd_detect @/model.safetensors photo.jpg", 1, "model.safetensors: holds a classifier, a detector is wanted"},
    {"pd_detect @/model.safetensors --input x --raw y photo.jpg", 2, "images and --input do not go together"},
    {"pd_detect @/model.safetensors --input x --raw y -o z", 2, "-o and --draw go with images, --raw with --input"},
    {"pd_fold @/model.safetensors", 2, "-o FOLDED is needed"},
    {"pd_fold @/model.safetensors -o @/model.safetensors", 2, "model.safetensors: would replace what it is made of"},
    {"pd_fold @/model.safetensors -o @/folded --images @/imagenet", 1, "imagenet: no images in this folder"},
    {"pd_convert @/model.safetensors @/model.safetensors", 2, "model.safetensors: would replace what it is made of"},
    {"pd_convert @/noise @/y.safetensors", 1, "noise: no file of torch.save"},
    {"pd_info --table pd_a_resnet18", 2, "--table shows all networks"},
    {"pd_coco_eval @/coco/annotations/instances_val.json @/noise --iou-type box", 2,
     "--iou-type box: expected bbox, segm or keypoints"},
    {"pd_coco_eval @/coco/annotations/instances_val.json @/noise", 1, "noise: line 1, byte 0: expected a list"},
    {"pd_make_shapes @", 1, "is there already: choose another folder"},
    {"pd_table @/table --boxes @/coco", 2, "--classes and --boxes are needed"},
    {"pd_table @/table --classes @/imagenet --boxes @/coco --depth 20 --configs @", 2, "--depth 20: there are 18, 34, 50, 101 and 152"},
    {"pd_table @/table --classes @/imagenet --boxes @/coco --configs @/none", 1, "none: no configurations there"},
    /* options that all programs take */
    {"pd_info pd_a_resnet18 --quiet --device cpu --threads 1", 0, ""},
    {"pd_coco_eval @/coco/annotations/instances_val.json @/empty.json --quiet --device auto --threads 1", 0, ""},
    {"pd_convert --list @/model.safetensors --quiet --device cpu --threads 1", 0, ""},
    {"pd_convert --list @/model.safetensors --device cuda", 2, "--device cuda: this program works on the CPU"},
    {"pd_info pd_a_resnet18 --device gpu", 2, "--device: \"gpu\" is no device (expected cpu, cuda, cuda:N or auto)"},
    {"pd_make_shapes @/new --set a=1", 2, "unknown option --set"},
};

/* The last line that is no hint at --help. */
static const char *last_line(char *text)
{
    char *line = "", *rest = text;
    for (char *next; (next = strsep(&rest, "\n"));)
        if (*next && strncmp(next, "Try '", 5) != 0) line = next;
    return line;
}

static void test_rows(void)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char command[2000];
        int n = 0;
        pd_child c = {0};
        for (const char *p = rows[i].command; *p; p++)
            n += snprintf(command + n, sizeof command - (size_t)n, *p == '@' ? "%s" : "%.1s", *p == '@' ? dir : p);
        PD_ROW(rows[i].command);
        pd_child_run(&c, NULL, PD_BIN_DIR, "%s", command);
        PD_CHECK_INT(c.code, rows[i].code);
        PD_CHECK_MSG(!rows[i].code || !*c.out, "wrote \"%s\" on standard output", c.out);
        PD_CHECK_MSG((rows[i].code == 2) == (strstr(c.err, "Try 'pd_") != NULL), "said \"%s\"", c.err);
        const char *line = last_line(c.err);
        PD_CHECK_MSG(strstr(line, rows[i].says), "said \"%s\", expected \"%s\"", line, rows[i].says);
        pd_child_free(&c);
    }
    PD_ROW("");
}

/* Every difference of a file is told, not the first. */
static void test_all_named(void)
{
    pd_child c = {0};
    pd_child_run(&c, NULL, PD_BIN_DIR, "pd_classify %s/model.safetensors %s/cut.jpg --arch resnet34", dir, dir);
    PD_CHECK_INT(c.code, 1);
    PD_CHECK_INT(pd_count_lines(c.err),
                 81); /* 16 convolutions with their batch norms' four tensors; and the program's own */
    PD_CHECK(strstr(c.err, "missing: layer4.2.bn2.running_var\n"));
    pd_child_free(&c);
}

static void put(const char *name, const void *text, size_t size)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    PD_CHECK_OK(pd_file_write(path, text, size, &err));
}

static void put_text(const char *name, const char *text)
{
    put(name, text, strlen(text));
}

/* The first `share` of a file as another. */
static void put_part(const char *name, const char *of, double share)
{
    pd_bytes file;
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, of);
    PD_CHECK_OK(pd_file_map(&file, path, &err));
    if (file.data) put(name, file.data, (size_t)((double)file.size * share));
    pd_file_unmap(&file);
}

static bool make_files(void)
{
    pd_child c = {0};
    pd_child_run(
        &c, NULL, PD_BIN_DIR,
        "pd_make_shapes %s --train 2 --val 2 --crops 15 --val-crops 5 --classes 2 --side 96 --threads 1 --quiet", dir);
    PD_CHECK_MSG(c.code == 0, "%s", c.err);
    pd_child_run(&c, NULL, PD_BIN_DIR,
                 "pd_cls_train -a resnet18 -d %s/imagenet -b 6 --work-dir %s/run --threads 1 --quiet --set "
                 "train.max_steps=1 --lr 0.001"
                 " --set data.train_transform={\"crop\":32} --set data.val_transform={\"resize\":32,\"crop\":32}",
                 dir, dir);
    PD_CHECK_MSG(c.code == 0 && !*c.out && !*c.err, "--quiet: said \"%s\" and \"%s\"", c.out, c.err);
    const bool made = c.code == 0;
    pd_child_free(&c);
    put_part("model.safetensors", "run/best.safetensors", 1);
    put_part("cut.safetensors", "run/best.safetensors", 0.5);
    put_part("cut.jpg", "imagenet/val/circle/00000.jpg", 0.5);
    put_text("good.json", "{\"model\": {\"arch\": \"pd_a_resnet18\"}}");
    put_text("typo.json", "{\"model\": {\"archh\": \"pd_a_resnet18\"}}");
    put_text("arch.json", "{\"model\": {\"arch\": \"pd_c_resnet18\"}}");
    put_text("det.json", "{\"model\": {\"backbone\": {\"arch\": \"resnet18\"}}}");
    put_text("det_arch.json", "{\"model\": {\"backbone\": {\"arch\": \"foo\"}}}");
    put_text("empty.json", "[]");
    put_text("noise", "\x1c\xd3\x91 no file of any kind");
    return made;
}

int main(void)
{
    if (!pd_test_dir(dir, "hostile")) return 1;
    if (make_files()) {
        test_rows();
        test_all_named();
    }
    char path[400];
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, ((const char *const[]){"w", "y", "folded"})[i]);
        PD_CHECK_MSG(!pd_file_exists(path), "%s was written", path);
    }
    pd_remove_tree(dir);
    return pd_test_end();
}
