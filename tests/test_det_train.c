/* pd_det_train as a user meets it: what is said of images without boxes, the learning rate scaled to the images of a
 * step, early stop, multi-scale training, frozen parts, the best checkpoint; and the memory that pd_info forecast.
 * ctest: slow */
#include "datasets/image.h"
#include "engine/file.h"
#include "engine/json.h"
#include "engine/log.h"
#include "engine/safetensors.h"
#include "tests/pd_test.h"
#include "tests/programs.h"

#include <sys/resource.h>

static pd_err err;
static pd_arena *arena;
static char dir[256];

/* Six pictures of 64 x 48: a bright square in each but the last two; one of these has a crowd only, one nothing. */
static void make_set(void)
{
    char path[512];
    char text[4096] = "{\"categories\": [{\"id\": 5, \"name\": \"square\"}], \"images\": [";
    pd_image image = PD_IMAGE_INIT;
    size_t at = strlen(text);
    image.h = 48, image.w = 64;
    image.room = (size_t)image.h * (size_t)image.w * 3;
    image.rgb = malloc(image.room);
    for (int i = 0; i < 6 && image.rgb; i++) {
        const int x0 = 4 + 6 * i, y0 = 4 + 3 * i;
        for (int y = 0; y < image.h; y++)
            for (int x = 0; x < image.w; x++) {
                const bool inside = i < 4 && x >= x0 && x < x0 + 24 && y >= y0 && y < y0 + 24;
                memset(image.rgb + 3 * (y * image.w + x), inside ? 230 : 20, 3);
            }
        snprintf(path, sizeof path, "%s/%d.png", dir, i);
        PD_CHECK_OK(pd_image_save(path, &image, &err));
        at += (size_t)snprintf(text + at, sizeof text - at,
                               "%s{\"id\": %d, \"width\": 64, \"height\": 48, \"file_name\": \"%d.png\"}",
                               i ? ", " : "", i + 1, i);
    }
    at += (size_t)snprintf(text + at, sizeof text - at, "], \"annotations\": [");
    for (int i = 0; i < 5; i++)
        at += (size_t)snprintf(text + at, sizeof text - at,
                               "%s{\"id\": %d, \"image_id\": %d, \"category_id\": 5, \"bbox\": [%d, %d, 24, 24], "
                               "\"area\": 576, \"iscrowd\": %d}",
                               i ? ", " : "", i + 1, i + 1, 4 + 6 * i, 4 + 3 * i, i == 4);
    at += (size_t)snprintf(text + at, sizeof text - at, "]}");
    snprintf(path, sizeof path, "%s/set.json", dir);
    PD_CHECK_OK(pd_file_write(path, text, at, &err));
    static const char config[] =
        "{\"model\": {\"type\": \"retinanet\", \"backbone\": {\"arch\": \"resnet18\"}},\n"
        " \"train\": {\"images_per_step\": 2, \"epochs\": 1, \"pictures\": 0, \"log_interval\": 1}}\n";
    snprintf(path, sizeof path, "%s/config.json", dir);
    PD_CHECK_OK(pd_file_write(path, config, strlen(config), &err));
    pd_image_free(&image);
}

/* A run in dir/NAME with the set for training and validation. */
static void run(pd_child *c, const char *name, const char *more)
{
    PD_ROW(name);
    pd_child_run(
        c, NULL, PD_BIN_DIR,
        "pd_det_train %s/config.json --threads 2 --work-dir %s/%s --set data.train.images=%s"
        " --set data.train.annotations=%s/set.json --set data.val.images=%s --set data.val.annotations=%s/set.json"
        " --set data.resize=[64,64] %s",
        dir, dir, name, dir, dir, dir, dir, more);
    PD_CHECK_MSG(c->code == 0, "code %d: %s", c->code, c->err);
}

/* A number of the run's log: the value of KIND NAME at its i-th point; NaN: there is none. */
static double logged(const char *run_name, const char *kind, const char *name, size_t i)
{
    char path[512];
    pd_log_series *series = NULL;
    size_t count = 0;
    snprintf(path, sizeof path, "%s/%s/log.jsonl", dir, run_name);
    PD_CHECK_OK(pd_log_read(&series, &count, path, arena, &err));
    const pd_log_series *s = series ? pd_log_find(series, count, kind, name) : NULL;
    return s && i < s->count ? s->points[i].value : NAN;
}

/* Validations that the run's log tells of. */
static size_t validations(const char *run_name)
{
    size_t i = 0;
    while (!isnan(logged(run_name, "val", "AP", i))) i++;
    return i;
}

static void test_images_without_boxes(void)
{
    pd_child c = {0};
    run(&c, "dropped", "");
    PD_CHECK(strstr(c.err, "5 of 6 training images"));
    PD_CHECK(strstr(c.err, "2 images have no box: 1 are used as background, 1 are left out"));
    PD_CHECK_INT(logged("dropped", "data", "images_used", 0), 5);
    PD_CHECK_INT(logged("dropped", "data", "images_without_boxes", 0), 2);
    PD_CHECK_INT(logged("dropped", "data", "images_without_boxes_used", 0), 1);
    PD_CHECK_INT(logged("dropped", "data", "crowds", 0), 1);
    run(&c, "kept", "--set data.keep_empty=true");
    PD_CHECK(strstr(c.err, "6 of 6 training images"));
    PD_CHECK(strstr(c.err, "2 images have no box: 2 are used as background, 0 are left out"));
    PD_CHECK_INT(logged("kept", "data", "images_without_boxes_used", 0), 2);
    pd_child_free(&c);
}

/* The rate of a step is the configuration's times images_per_step / lr_images; the saved configuration says so, and run
 * again with the option it is the same. */
static void test_auto_scale_lr(void)
{
    static const char settings[] = "--set optimizer.lr=0.016 --set train.max_steps=1";
    char more[256];
    pd_child c = {0};
    snprintf(more, sizeof more, "%s", settings);
    run(&c, "plain_lr", more);
    PD_CHECK_NEAR(logged("plain_lr", "train", "lr", 0), 0.016, 1e-12);
    snprintf(more, sizeof more, "%s --auto-scale-lr", settings);
    run(&c, "scaled_lr", more);
    PD_CHECK_NEAR(logged("scaled_lr", "train", "lr", 0), 0.002, 1e-12);
    PD_CHECK(strstr(c.err, "learning rate for 2 images a step: 0.002"));
    snprintf(more, sizeof more, "%s --auto-scale-lr --set train.lr_images=4", settings);
    run(&c, "scaled_lr_4", more);
    PD_CHECK_NEAR(logged("scaled_lr_4", "train", "lr", 0), 0.008, 1e-12);
    pd_child_run(&c, NULL, PD_BIN_DIR,
                 "pd_det_train %s/scaled_lr/config.json --work-dir %s/again --auto-scale-lr --threads 2", dir, dir);
    PD_CHECK_INT(c.code, 0);
    PD_CHECK_NEAR(logged("again", "train", "lr", 0), 0.002, 1e-12);
    pd_child_free(&c);
}

/* With a rate of 0 no validation is better than the first: two more, and the run ends; going on finds nothing to do. */
static void test_early_stop(void)
{
    static const char settings[] = "--set optimizer.lr=0 --set train.epochs=9 --set train.early_stop=2 --resume auto";
    pd_child c = {0};
    run(&c, "early", settings);
    PD_CHECK(strstr(c.err, "stopped early: 2 validations"));
    PD_CHECK_INT(validations("early"), 3);
    run(&c, "early", settings);
    PD_CHECK_INT(validations("early"), 3);
    run(&c, "early", "--set optimizer.lr=0 --set train.epochs=5 --resume auto"); /* without patience it goes on */
    PD_CHECK_INT(validations("early"), 5);
    pd_child_free(&c);
}

/* Whether a tensor of two files differs. */
static bool differs(const pd_st *a, const pd_st *b, const char *name)
{
    const pd_st_tensor *x = pd_st_find(a, name), *y = pd_st_find(b, name);
    PD_CHECK_MSG(x && y, "no tensor %s", name);
    return x && y && memcmp(x->data, y->data, x->elements * sizeof(float)) != 0;
}

/* Frozen parts keep still, decay and momentum or not; statistics always do; all else moves. */
static void test_frozen(void)
{
    static const char *const kept[] = {"backbone.conv1.weight",          "backbone.bn1.weight",
                                       "backbone.layer1.1.conv2.weight", "backbone.layer1.0.bn1.bias",
                                       "backbone.bn1.running_mean",      "backbone.layer2.0.bn1.running_var"};
    static const char *const moved[] = {"backbone.layer2.0.conv1.weight", "backbone.layer4.1.bn2.bias",
                                        "neck.lateral_convs.0.conv.bias", "bbox_head.retina_cls.bias"};
    char path[512];
    pd_st *before = NULL, *after = NULL;
    pd_child c = {0};
    run(&c, "start", "--set optimizer.lr=0 --set train.max_steps=1");
    run(&c, "moved", "--set optimizer.lr=0.01 --set optimizer.weight_decay=0.1 --set train.epochs=2");
    snprintf(path, sizeof path, "%s/start/last.safetensors", dir);
    PD_CHECK_OK(pd_st_open(&before, path, &err));
    snprintf(path, sizeof path, "%s/moved/last.safetensors", dir);
    PD_CHECK_OK(pd_st_open(&after, path, &err));
    for (size_t i = 0; before && after && i < sizeof kept / sizeof *kept; i++)
        PD_CHECK_MSG(!differs(before, after, kept[i]), "%s moved", kept[i]);
    for (size_t i = 0; before && after && i < sizeof moved / sizeof *moved; i++)
        PD_CHECK_MSG(differs(before, after, moved[i]), "%s did not move", moved[i]);
    pd_st_close(before);
    pd_st_close(after);
    snprintf(path, sizeof path, "%s/moved/best.safetensors", dir);
    PD_CHECK(pd_file_exists(path));
    pd_child_free(&c);
}

/* What was trained detects: a COCO set in batches, a folder, and views of each image. */
static void test_detect(void)
{
    pd_child c = {0};
    char path[512];
    PD_ROW("pd_detect");
    pd_child_run(&c, NULL, PD_BIN_DIR,
                 "pd_detect %s/moved/best.safetensors %s/set.json --images %s --batch 4 -o %s/one.json --threads 2",
                 dir, dir, dir, dir);
    PD_CHECK_MSG(c.code == 0 && strstr(c.err, "6 images"), "code %d: %s", c.code, c.err);
    pd_child_run(&c, NULL, PD_BIN_DIR, "pd_detect %s/moved/best.safetensors %s --batch 2 -o %s/two.json --threads 2",
                 dir, dir, dir);
    PD_CHECK_MSG(c.code == 0 && strstr(c.err, "6 images"), "code %d: %s", c.code, c.err);
    pd_child_run(
        &c, NULL, PD_BIN_DIR,
        "pd_detect %s/moved/best.safetensors %s/set.json --images %s --tta flip,32,64 -o %s/views.json --threads 2",
        dir, dir, dir, dir);
    PD_CHECK_MSG(c.code == 0 && strstr(c.err, "6 images"), "code %d: %s", c.code, c.err);
    snprintf(path, sizeof path, "%s/views.json", dir);
    PD_CHECK(pd_file_exists(path));
    pd_child_run(&c, NULL, PD_BIN_DIR, "pd_detect %s/moved/best.safetensors %s --tta flip,7 --threads 2", dir, dir);
    PD_CHECK_MSG(c.code != 0 && strstr(c.err, "\"7\" is neither flip nor a shorter side"), "code %d: %s", c.code,
                 c.err);
    pd_child_free(&c);
}

/* ParaDise convolutions in neck and head: folded, stored in 16 bits, and it detects. */
static void test_folded(void)
{
    pd_child c = {0};
    PD_ROW("pd_fold");
    run(&c, "heads",
        "--set train.max_steps=1 --set model.backbone.arch=pd_b_resnet18 --set model.neck.conv=pd_b --set model.head.conv=pd_b");
    pd_child_run(&c, NULL, PD_BIN_DIR,
                 "pd_fold %s/heads/last.safetensors -o %s/folded.safetensors --dtype f16 --verify 2 --input 64 --threads 2", dir,
                 dir);
    PD_CHECK_MSG(c.code == 0 && strstr(c.out, "stored as f16; the bound is 0.01 of"), "code %d: %s", c.code, c.err);
    pd_child_run(&c, NULL, PD_BIN_DIR,
                 "pd_detect %s/folded.safetensors %s/set.json --images %s -o %s/folded.json --threads 2", dir, dir, dir, dir);
    PD_CHECK_MSG(c.code == 0 && strstr(c.err, "6 images"), "code %d: %s", c.code, c.err);
    pd_child_free(&c);
}

/* Several sizes in one run: another loss than with one, the same loss twice. */
static void test_multi_scale(void)
{
    static const char sizes[] = "--set optimizer.lr=0 --set data.short_sides=[32,96] --set data.resize=[128,64]";
    pd_child c = {0};
    run(&c, "sizes", sizes);
    run(&c, "sizes_again", sizes);
    run(&c, "one_size", "--set optimizer.lr=0 --set data.resize=[128,64]");
    int others = 0;
    for (size_t i = 0; i < 2; i++) {
        const double loss = logged("sizes", "train", "loss", i);
        PD_CHECK(loss == logged("sizes_again", "train", "loss", i));
        others += loss != logged("one_size", "train", "loss", i);
    }
    PD_CHECK_INT(others, 2);
    /* validation does not draw: the same weights give the same result */
    PD_CHECK(logged("sizes", "val", "AP", 0) == logged("one_size", "val", "AP", 0));
    pd_child_free(&c);
}

/* The memory that a training takes is within a tenth of what pd_info says before, also where small images come before
 * large ones, and with a validation of PD-B, which keeps folded kernels. The largest child so far is meant, so each one
 * must be larger than those before it. */
static void test_memory(void)
{
    static const struct {
        const char *name, *sets;
    } rows[] = {
        {"memory", "--set data.val.annotations=null"},
        {"memory_val", "--set model.backbone.arch=pd_b_resnet18 --set model.neck.conv=pd_b --set train.pictures=0"},
    };
    char path[512], more[512];
    pd_child c = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pd_json_doc *doc = NULL;
        struct rusage before, after;
        getrusage(RUSAGE_CHILDREN, &before);
        snprintf(more, sizeof more,
                 "--set model.type=cascade_rcnn --set data.resize=[640,480] --set data.short_sides=[416,448,480] "
                 "--set train.micro_batch=1 --set train.max_steps=3 %s",
                 rows[i].sets);
        run(&c, rows[i].name, more);
        getrusage(RUSAGE_CHILDREN, &after);
        snprintf(path, sizeof path, "%s/%s/config.json", dir, rows[i].name);
        pd_child_run(&c, NULL, PD_BIN_DIR, "pd_info %s --num-classes 1 --input 640x480 --json", path);
        PD_CHECK_INT(c.code, 0);
        PD_CHECK_OK(pd_json_parse(&doc, "pd_info", c.out, strlen(c.out), &err));
        const pd_json *said = doc ? pd_json_member(pd_json_root(doc), "training_bytes") : NULL;
        const double forecast = said ? pd_json_number(said) : NAN, taken = 1024.0 * (double)after.ru_maxrss;
        PD_CHECK(after.ru_maxrss > before.ru_maxrss);
        printf("%s: forecast %.2f GB, taken %.2f GB\n", rows[i].name, forecast / 1e9, taken / 1e9);
        if (PD_SANITIZED)
            PD_SKIP("%s: the sanitizer's own memory counts in what was taken", rows[i].name);
        else
            PD_CHECK_MSG(fabs(taken - forecast) <= 0.1 * taken, "forecast %.2f GB, taken %.2f GB", forecast / 1e9,
                         taken / 1e9);
        pd_json_close(doc);
    }
    pd_child_free(&c);
}

int main(void)
{
    if (!pd_test_dir(dir, "det_train")) return 1;
    arena = pd_arena_new();
    make_set();
    test_images_without_boxes();
    test_auto_scale_lr();
    test_early_stop();
    test_frozen();
    test_detect();
    test_multi_scale();
    test_memory();
    test_folded();
    pd_remove_tree(dir);
    pd_arena_free(arena);
    return pd_test_end();
}
