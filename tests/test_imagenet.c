/* The folder index: order, labels, what is left out, what is refused. */
#include "datasets/imagenet.h"
#include "tests/pd_test.h"

#include <sys/stat.h>

static char dir[256];

static void touch(const char *name)
{
    pd_err err = PD_ERR_INIT;
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    char *slash = strrchr(path, '/');
    *slash = '\0';
    PD_CHECK_OK(pd_make_dirs(path, &err));
    *slash = '/';
    if (slash[1]) PD_CHECK_OK(pd_file_write(path, "x", 1, &err));
}

int main(void)
{
    pd_err err = PD_ERR_INIT;
    pd_arena *arena = pd_arena_new();
    PD_CHECK(pd_test_dir(dir, "imagenet"));
    char root[512], path[600];
    static const char *const files[] = {"train/n02/b.JPEG",
                                        "train/n02/a.JPEG",
                                        "train/n01/potter's wheel.x",
                                        "train/n10/noend",
                                        "train/n10/.hidden",
                                        "train/n10/inner/z.JPEG",
                                        "train/.cache/q.JPEG",
                                        "train/list.txt",
                                        "val/n10/v.png",
                                        "val/n01/w.png",
                                        "odd/n99/v.png",
                                        "holes/n01/a",
                                        "holes/n02/.only",
                                        "empty/"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) touch(files[i]);

    pd_imagenet train = {0}, val = {0};
    snprintf(root, sizeof root, "%s/train", dir);
    PD_CHECK_OK(pd_imagenet_open(&train, root, NULL, 0, arena, &err));
    PD_CHECK_INT(train.n_classes, 3);
    PD_CHECK_INT(train.n, 4);
    static const char *const want[] = {"n01/potter's wheel.x", "n02/a.JPEG", "n02/b.JPEG", "n10/noend"};
    static const int labels[] = {0, 1, 1, 2};
    for (size_t i = 0; i < 4 && train.n == 4; i++) {
        char full[600];
        snprintf(full, sizeof full, "%s/%s", root, want[i]);
        PD_CHECK_OK(pd_imagenet_path(path, sizeof path, &train, i, &err));
        PD_CHECK_STR(path, full);
        PD_CHECK_INT(train.labels[i], labels[i]);
    }
    PD_CHECK_STR(train.classes[1], "n02");
    PD_CHECK_FAILS(pd_imagenet_path(path, 5, &train, 0, &err), PD_EINVAL, "longer than 4 bytes");

    /* A validation set keeps the training set's numbers though it lacks a class. */
    snprintf(root, sizeof root, "%s/val", dir);
    PD_CHECK_OK(pd_imagenet_open(&val, root, train.classes, train.n_classes, arena, &err));
    PD_CHECK_INT(val.n, 2);
    PD_CHECK_INT(val.n_classes, 3);
    PD_CHECK(val.labels[0] == 0 && val.labels[1] == 2);

    pd_imagenet none = {0};
    snprintf(root, sizeof root, "%s/odd", dir);
    PD_CHECK_FAILS(pd_imagenet_open(&none, root, train.classes, train.n_classes, arena, &err), PD_EFORMAT,
                   "odd/n99: not one of the 3");
    snprintf(root, sizeof root, "%s/holes", dir);
    PD_CHECK_FAILS(pd_imagenet_open(&none, root, NULL, 0, arena, &err), PD_EFORMAT, "holes/n02: no files");
    snprintf(root, sizeof root, "%s/empty", dir);
    PD_CHECK_FAILS(pd_imagenet_open(&none, root, NULL, 0, arena, &err), PD_EFORMAT, "no class folders");
    snprintf(root, sizeof root, "%s/missing", dir);
    PD_CHECK_FAILS(pd_imagenet_open(&none, root, NULL, 0, arena, &err), PD_EIO, "/missing");
    PD_CHECK(none.n == 0);

    snprintf(path, sizeof path, "rm -r '%s'", dir);
    PD_CHECK_INT(system(path), 0);
    pd_arena_free(arena);
    return pd_test_end();
}
