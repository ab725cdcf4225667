/* Out of memory, everywhere: each allocation of the data pipeline fails once; nothing leaks, hangs or goes unreported.
 * ctest: fault */
#include "datasets/loader.h"
#include "engine/file.h"
#include "tests/fault.h"
#include "tests/pd_test.h"

static char dir[256], json[300];

static pd_status load_image(void *arg, pd_err *err)
{
    pd_image image = PD_IMAGE_INIT;
    const pd_status status = pd_image_load(&image, arg, &(pd_image_options){.exif = true}, err);
    pd_image_free(&image);
    return status;
}

static pd_status save_image(void *arg, pd_err *err)
{
    static unsigned char rgb[12 * 12 * 3];
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, (const char *)arg);
    return pd_image_save(path, &(pd_image){12, 12, rgb, 0}, err);
}

static pd_status open_coco(void *arg, pd_err *err)
{
    pd_arena *arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    pd_coco set = {.n_images = 77};
    uint32_t *list;
    size_t n;
    char *text;
    pd_status status = pd_coco_open(&set, json, arg, arg ? 1 : 0, arena, err);
    if (status != PD_OK) PD_CHECK_INT(set.n_images, 77);
    if (status == PD_OK) status = pd_coco_train_images(&list, &n, &set, 1, true, arena, err);
    if (status == PD_OK) status = pd_coco_summary(&text, &set, arena, err);
    pd_arena_free(arena);
    return status;
}

/* Two epochs of a loader; arg: NULL for class folders, else COCO. */
static pd_status run_loader(void *arg, pd_err *err)
{
    pd_arena *arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    pd_imagenet folder = {0};
    pd_coco set = {0};
    pd_loader_config c = pd_loader_defaults();
    pd_loader *l = NULL;
    pd_status status;
    if (arg) {
        c.coco = &set;
        c.image_dir = dir;
        c.transform = pd_transform_detect(true);
        c.transform.long_side = c.transform.short_side = 40;
        c.group_aspect = true;
        status = pd_coco_open(&set, json, NULL, 0, arena, err);
    } else {
        char root[300];
        snprintf(root, sizeof root, "%s/classes", dir);
        c.imagenet = &folder;
        c.transform = pd_transform_train();
        c.transform.crop = 8;
        status = pd_imagenet_open(&folder, root, NULL, 0, arena, err);
    }
    c.batch = 2;
    c.shuffle = true;
    c.threads = 2;
    c.bad_images = PD_BAD_REPLACE;
    if (status == PD_OK) status = pd_loader_open(&l, &c, err);
    for (uint32_t epoch = 0; epoch < 2 && status == PD_OK; epoch++) {
        status = pd_loader_start(l, epoch, 0, err);
        for (const pd_batch *b = NULL; status == PD_OK; pd_loader_done(l, b)) {
            status = pd_loader_next(l, &b, err);
            if (status != PD_OK || !b) break;
        }
    }
    pd_loader_close(l);
    pd_arena_free(arena);
    return status;
}

int main(void)
{
    pd_err err = PD_ERR_INIT;
    PD_CHECK(pd_test_dir(dir, "fault_data"));
    char path[400], text[1000];
    unsigned char rgb[20 * 24 * 3];
    for (size_t i = 0; i < sizeof rgb; i++) rgb[i] = (unsigned char)(i * 7 % 251);
    static const char *const names[] = {"classes/a/1.jpg", "classes/a/2.png", "classes/b/3.jpg",
                                        "classes/b/broken.jpg"};
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/classes/%c", dir, names[i][8]);
        PD_CHECK_OK(pd_make_dirs(path, &err));
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        if (i < 3)
            PD_CHECK_OK(pd_image_save(path, &(pd_image){20, 24, rgb, 0}, &err));
        else
            PD_CHECK_OK(pd_file_write(path, "broken", 6, &err));
    }
    snprintf(json, sizeof json, "%s/gt.json", dir);
    snprintf(text, sizeof text,
             "{\"images\": [{\"id\": 1, \"width\": 24, \"height\": 20, \"file_name\": \"%s\"},"
             "{\"id\": 2, \"width\": 24, \"height\": 20, \"file_name\": \"%s\"}],"
             "\"categories\": [{\"id\": 1, \"name\": \"a\"}],"
             "\"annotations\": [{\"image_id\": 1, \"category_id\": 1, \"bbox\": [1, 2, 9, 9]}]}",
             names[0], names[1]);
    PD_CHECK_OK(pd_file_write(json, text, strlen(text), &err));

    char *classes[] = {"a"};
    char turned[400], jpeg[400];
    snprintf(turned, sizeof turned, "%s/images/exif6.png", PD_GOLDEN);
    snprintf(jpeg, sizeof jpeg, "%s/%s", dir, names[0]);
    PD_CHECK(pd_fault_sweep("a turned PNG", load_image, turned, false) >= 4);
    PD_CHECK(pd_fault_sweep("a JPEG", load_image, jpeg, false) >= 3);
    /* That the folder cannot be flushed is no failure. */
    PD_CHECK(pd_fault_sweep("writing a PNG", save_image, "x.png", true) >= 3);
    PD_CHECK(pd_fault_sweep("writing a JPEG", save_image, "x.jpg", true) >= 2);
    PD_CHECK(pd_fault_sweep("COCO", open_coco, NULL, false) >= 8);
    PD_CHECK(pd_fault_sweep("COCO with a class list", open_coco, classes, false) >= 8);
    /* The warning text of a broken file may be lost, and then the file is still replaced. */
    PD_CHECK(pd_fault_sweep("loader, class folders", run_loader, NULL, true) >= 20);
    PD_CHECK(pd_fault_sweep("loader, COCO", run_loader, json, true) >= 20);
    snprintf(text, sizeof text, "rm -r '%s'", dir);
    PD_CHECK_INT(system(text), 0);
    return pd_test_end();
}
