/* COCO annotation files: what is read, which boxes count, what is refused and how it is named. */
#include "datasets/coco.h"
#include "engine/file.h"
#include "tests/pd_test.h"

#include <unistd.h>

static pd_arena *arena;
static char path[300];

static pd_status parse(pd_coco *set, const char *text, char *const *classes, int n, pd_err *err)
{
    pd_err unused = PD_ERR_INIT;
    if (pd_file_write(path, text, strlen(text), &unused) != PD_OK) return PD_EIO;
    return pd_coco_open(set, path, classes, n, arena, err);
}

/* Annotations first, ids with gaps and a negative one, unknown fields, escapes. */
static const char good[] =
    "{\"info\": {\"x\": [1, {\"y\": \"]}\"}]},\n"
    " \"annotations\": [\n"
    "  {\"id\": 1, \"image_id\": 900000000000, \"category_id\": 7, \"bbox\": [10, 20, 30.5, 40], \"area\": 1000,"
    "   \"iscrowd\": 0, \"segmentation\": [[1, 2, 3, 4, 5, 6]]},\n"
    "  {\"id\": 2, \"image_id\": -5, \"category_id\": 90, \"bbox\": [0.1, 0.2, 5, 5]},\n"
    "  {\"id\": 3, \"image_id\": 900000000000, \"category_id\": 90, \"bbox\": [1, 1, 9, 9], \"area\": 81, \"iscrowd\": "
    "1,"
    "   \"segmentation\": {\"counts\": [1], \"size\": [1, 1]}},\n"
    "  {\"id\": 4, \"image_id\": 900000000000, \"category_id\": 90, \"bbox\": [1, 1, 9, 9], \"ignore\": true},\n"
    "  {\"id\": 5, \"image_id\": 900000000000, \"category_id\": 90, \"bbox\": [100, 1, 9, 9]},\n"
    "  {\"id\": 6, \"image_id\": 900000000000, \"category_id\": 90, \"bbox\": [1, 1, 0.9, 9]},\n"
    "  {\"id\": 7, \"image_id\": 900000000000, \"category_id\": 90, \"bbox\": [1, 1, 9, 9], \"area\": 0},\n"
    "  {\"id\": 8, \"image_id\": 900000000000, \"category_id\": 8, \"bbox\": [1, 1, 9, 9]},\n"
    "  {\"id\": 9, \"image_id\": 6, \"category_id\": 7, \"bbox\": [1, 1, 9, 9]},\n"
    "  {\"id\": 10, \"image_id\": 900000000000, \"category_id\": 7, \"bbox\": [-5, -5, 50, 50]}],\n"
    " \"categories\": [{\"id\": 90, \"name\": \"tooth\\u0062rush\"}, {\"id\": 7, \"name\": \"dog\"}],\n"
    " \"images\": [{\"id\": 900000000000, \"width\": 100, \"height\": 80.0, \"file_name\": \"a/b.jpg\", \"coco_url\": "
    "null},\n"
    "  {\"id\": -5, \"width\": 31, \"height\": 64, \"file_name\": \"\\u00e9.png\"},\n"
    "  {\"id\": 3, \"width\": 32, \"height\": 32, \"file_name\": \"c.png\"}]}\n";

static void test_good(void)
{
    pd_err err = PD_ERR_INIT;
    pd_coco set = {0};
    PD_CHECK_OK(parse(&set, good, NULL, 0, &err));
    if (set.n_images != 3) return;
    PD_CHECK_INT(set.n_classes, 2);
    PD_CHECK_STR(set.classes[0], "dog");
    PD_CHECK_STR(set.classes[1], "toothbrush");
    PD_CHECK(set.category_ids[0] == 7 && set.category_ids[1] == 90);
    const pd_coco_photo *a = &set.images[0], *b = &set.images[1];
    PD_CHECK(a->id == 900000000000 && a->w == 100 && a->h == 80);
    PD_CHECK_STR(a->file, "a/b.jpg");
    PD_CHECK_STR(b->file, "\xc3\xa9.png");
    static const int uses[] = {PD_COCO_GT,   PD_COCO_CROWD, PD_COCO_IGNORED,  PD_COCO_OUTSIDE,
                               PD_COCO_TINY, PD_COCO_TINY,  PD_COCO_NO_CLASS, PD_COCO_GT};
    static const int labels[] = {0, 1, 1, 1, 1, 1, -1, 0};
    PD_CHECK_INT(a->n, 8);
    PD_CHECK_INT(a->n_gt, 2);
    for (size_t i = 0; i < 8 && a->n == 8; i++) {
        PD_CHECK_INT(set.anns[a->first + i].use, uses[i]);
        PD_CHECK_INT(set.anns[a->first + i].label, labels[i]);
    }
    const pd_box box = set.anns[a->first].box, far = set.anns[b->first].box;
    PD_CHECK(box.x1 == 10 && box.y1 == 20 && box.x2 == 40.5f && box.y2 == 60);
    PD_CHECK(far.x1 == 0.1f && far.x2 == (float)(0.1 + 5) && b->n == 1);
    PD_CHECK_INT(set.max_gt, 2);
    PD_CHECK_INT(set.no_image, 1);
    PD_CHECK_INT(set.n_anns, 9);
    PD_CHECK_INT(pd_coco_find(&set, -5), 1);
    PD_CHECK_INT(pd_coco_find(&set, 3), 2);
    PD_CHECK_INT(pd_coco_find(&set, 4), -1);
    PD_CHECK_INT(pd_coco_find(&set, 900000000000), 0);
    uint32_t *list = NULL;
    size_t n = 0;
    PD_CHECK_OK(pd_coco_train_images(&list, &n, &set, 32, false, arena, &err)); /* 1 is narrow, 2 has nothing */
    PD_CHECK(n == 1 && list[0] == 0);
    PD_CHECK_OK(pd_coco_train_images(&list, &n, &set, 32, true, arena, &err));
    PD_CHECK(n == 2 && list[1] == 2);
    char *text = NULL;
    PD_CHECK_OK(pd_coco_summary(&text, &set, arena, &err));
    PD_CHECK_STR(text,
                 "3 images, 2 classes, 10 annotations: 3 boxes, 1 crowds; left out: 1 marked ignore, 1 outside of "
                 "their image, 2 below 1 pixel, 1 of other categories, 1 of unknown images");
}

static void test_class_list(void)
{
    pd_err err = PD_ERR_INIT;
    pd_coco set = {0};
    char *both[] = {"toothbrush", "dog"}, *one[] = {"dog"}, *odd[] = {"dog", "cat"};
    PD_CHECK_OK(parse(&set, good, both, 2, &err));
    PD_CHECK(set.category_ids[0] == 90 && set.category_ids[1] == 7 && set.anns[set.images[0].first].label == 1);
    PD_CHECK_OK(parse(&set, good, one, 1, &err));
    PD_CHECK_INT(set.n_classes, 1);
    PD_CHECK_INT(set.counts[PD_COCO_GT], 2);
    PD_CHECK_INT(set.counts[PD_COCO_NO_CLASS], 3);
    uint32_t *list = NULL;
    size_t n = 9;
    PD_CHECK_OK(pd_coco_train_images(&list, &n, &set, 0, false, arena, &err)); /* image -5 has a toothbrush only */
    PD_CHECK(n == 1 && list[0] == 0);
    PD_CHECK_FAILS(parse(&set, good, odd, 2, &err), PD_EFORMAT, "no category \"cat\"");
}

static void test_refusals(void)
{
#define IMAGE "\"images\": [{\"id\": 1, \"width\": 9, \"height\": 9, \"file_name\": \"a\"}]"
#define CATEGORY "\"categories\": [{\"id\": 1, \"name\": \"a\"}]"
#define ANN(x)                                                                                                         \
    "{" IMAGE ", " CATEGORY ",\n\"annotations\": [{\"image_id\": 1, \"category_id\": 1, \"bbox\": [1, 1, 2, 2]}, " x   \
    "]}"
    static const struct {
        const char *text, *part;
    } rows[] = {
        {"{" CATEGORY "}", "no \"images\""},
        {"{\"images\": [], " CATEGORY "}", "nothing in \"images\""},
        {"{" IMAGE "}", "no \"categories\""},
        {"[]", "line 1"},
        {"", "line 1"},
        {"{" IMAGE ", " IMAGE "}", "\"images\" appears twice"},
        {"{\"images\": [{\"id\": 1, \"width\": 9, \"height\": 9}], " CATEGORY "}", "image 0 has no \"file_name\""},
        {"{\"images\": [{\"id\": 1, \"height\": 9, \"file_name\": \"a\"}]}", "image 0 has no \"width\""},
        {"{\"images\": [{\"id\": \"1\"}]}", "expected a number"},
        {"{\"images\": [{\"id\": 1.5}]}", "id is 1.5; expected an integer"},
        {"{\"images\": [{\"width\": 0}]}", "width is 0; expected at least 1"},
        {"{\"images\": [{\"file_name\": \"\"}]}", "file_name is empty"},
        {"{\"images\": [{\"file_name\": \"a\\u0000b\"}]}", "zero byte"},
        {"{\"images\": [{\"id\": 1, \"width\": 9, \"height\": 9, \"file_name\": \"a\"},\n {\"id\": 1, \"width\": 9, "
         "\"height\": 9,"
         "\"file_name\": \"b\"}], " CATEGORY "}",
         "line 2, byte 67: image 1 has id 1, as one before it"},
        {"{" IMAGE ", \"categories\": [{\"id\": 1, \"name\": \"a\"}, {\"id\": 1, \"name\": \"b\"}]}",
         "category 1 has id 1"},
        {"{" IMAGE ", \"categories\": [{\"id\": 1}]}", "category 0 has no \"name\""},
        {ANN("{\"image_id\": 1, \"category_id\": 1}"), "annotation 1 has no \"bbox\""},
        {ANN("{\"category_id\": 1, \"bbox\": [1, 1, 2, 2]}"), "annotation 1 has no \"image_id\""},
        {ANN("{\"bbox\": [1, 1, 2]}"), "bbox has 3 numbers"},
        {ANN("{\"bbox\": [1, 1, 2, 2, 2]}"), "more than 4 numbers"},
        {ANN("{\"bbox\": [1, 1, 2, NaN]}"), "bbox holds nan"},
        {ANN("{\"bbox\": [1, 1, 2, 1e99]}"), "bbox holds 1e+99"},
        {ANN("{\"bbox\": null}"), "line 2"},
        {ANN("{\"iscrowd\": 2}"), "iscrowd is 2"},
        {ANN("{\"image_id\": 1,"), "line 2"},
    };
    pd_err err = PD_ERR_INIT;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        PD_ROW(rows[i].part);
        pd_coco set = {.n_images = 77};
        PD_CHECK_FAILS(parse(&set, rows[i].text, NULL, 0, &err), PD_EFORMAT, rows[i].part);
        PD_CHECK(strstr(err.text, path) != NULL);
        PD_CHECK_INT(set.n_images, 77);
    }
    PD_ROW("");
    pd_coco set;
    PD_CHECK_FAILS(pd_coco_open(&set, "/nonexistent.json", NULL, 0, arena, &err), PD_EIO, "/nonexistent.json");
    /* No annotations at all, as in the files for test images, is fine. */
    PD_CHECK_OK(parse(&set, "{" IMAGE ", " CATEGORY "}", NULL, 0, &err));
    PD_CHECK_INT(set.n_anns, 0);
}

/* The real subset: numbers counted by a Python script with the json module and mmdetection's rules. */
static void test_real(void)
{
    const char *shared = getenv("PD_SHARED");
    char file[512];
    snprintf(file, sizeof file, "%s/data/coco-mini/annotations/instances_train2017.json",
             shared ? shared : PD_SOURCE_DIR "/../shared");
    if (!pd_file_exists(file)) {
        PD_SKIP("no %s", file);
        return;
    }
    pd_err err = PD_ERR_INIT;
    pd_coco set = {0};
    uint32_t *list = NULL;
    size_t n = 0;
    PD_CHECK_OK(pd_coco_open(&set, file, NULL, 0, arena, &err));
    PD_CHECK_OK(pd_coco_train_images(&list, &n, &set, 32, false, arena, &err));
    PD_CHECK_INT(set.n_images, 220);
    PD_CHECK_INT(n, 219);
    PD_CHECK_INT(set.n_anns, 1937);
    PD_CHECK_INT(set.n_classes, 80);
    PD_CHECK_INT(set.counts[PD_COCO_CROWD], 17);
    PD_CHECK_INT(set.counts[PD_COCO_GT] + set.counts[PD_COCO_TINY], 1920);
    PD_CHECK_STR(set.classes[79], "toothbrush");
    PD_CHECK_INT(set.category_ids[79], 90);
}

int main(void)
{
    char dir[256];
    PD_CHECK(pd_test_dir(dir, "coco"));
    snprintf(path, sizeof path, "%s/a.json", dir);
    arena = pd_arena_new();
    test_good();
    test_class_list();
    test_refusals();
    test_real();
    unlink(path);
    rmdir(dir);
    pd_arena_free(arena);
    return pd_test_end();
}
