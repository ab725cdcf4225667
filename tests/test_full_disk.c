/* Disks that are full and folders that cannot be written: the program says so and ends with 1, what was there stays
 * whole, and a training goes on where it was once there is room. The full disk is a small tmpfs in a mount namespace of
 * this test's own; skipped where that is not allowed. */
#include "engine/file.h"
#include "engine/safetensors.h"
#include "tests/pd_test.h"
#include "tests/programs.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static pd_err err;
static char dir[256];

static const char training[] =
    "pd_cls_train -a resnet18 -d %s/imagenet -b 6 --epochs 2 --lr 0.02 --work-dir run --resume auto --threads 2 --quiet"
    " --set data.train_transform={\"crop\":32} --set data.val_transform={\"resize\":32,\"crop\":32} --set "
    "train.save_interval=2";

static const char *at(const char *name)
{
    static char path[8][400];
    static int next;
    char *p = path[next++ % 8];
    snprintf(p, 400, "%s/%s", dir, name);
    return p;
}

static bool mount_small(const char *folder, long long bytes, unsigned long flags)
{
    char size[64];
    snprintf(size, sizeof size, "size=%lld", bytes);
    return mount("tmpfs", folder, "tmpfs", flags, size) == 0;
}

static bool own_namespace(void)
{
    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static void check_failed(const pd_child *c, const char *says)
{
    PD_CHECK_INT(c->code, 1);
    PD_CHECK_MSG(strstr(c->err, says) && pd_count_lines(c->err) == 1, "%s: said \"%s\", expected one line with \"%s\"",
                 c->line, c->err, says);
}

/* The second checkpoint of a training has no room beside the first. */
static void test_training(void)
{
    struct stat st = {0};
    pd_child c = {0};
    pd_st *file = NULL;
    char **names = NULL;
    size_t count = 0;
    pd_arena *arena = pd_arena_new();
    const pd_child_how whole = {.dir = at("whole")}, small = {.dir = at("small")};
    PD_CHECK_OK(pd_make_dirs(whole.dir, &err));
    PD_CHECK_OK(pd_make_dirs(small.dir, &err));
    pd_child_run(&c, &whole, PD_BIN_DIR, training, dir);
    PD_CHECK_MSG(c.code == 0 && stat(at("whole/run/last.safetensors"), &st) == 0, "%s", c.err);
    if (!mount_small(small.dir, st.st_size + (st.st_size >> 1), 0)) {
        PD_SKIP("a tmpfs cannot be mounted here");
    } else {
        pd_child_run(&c, &small, PD_BIN_DIR, training, dir);
        check_failed(&c, "run/last.safetensors: cannot write: No space left on device");
        PD_CHECK_OK(pd_st_open(&file, at("small/run/last.safetensors"), &err)); /* the first one is whole */
        pd_st_close(file);
        PD_CHECK_OK(pd_list_dir(&names, &count, at("small/run"), 'f', arena, &err));
        for (size_t i = 0; i < count; i++)
            PD_CHECK_MSG(!strncmp(names[i], "events.", 7) || !strcmp(names[i], "config.json") ||
                             !strcmp(names[i], "log.jsonl") || !strcmp(names[i], "last.safetensors"),
                         "%s stayed behind", names[i]);
        PD_CHECK(mount_small(small.dir, 6 * (long long)st.st_size, MS_REMOUNT)); /* somebody made room */
        pd_child_run(&c, &small, PD_BIN_DIR, training, dir);
        PD_CHECK_MSG(c.code == 0, "%s", c.err);
        PD_CHECK(pd_same_files(at("whole/run/last.safetensors"), at("small/run/last.safetensors")));
        PD_CHECK(pd_same_files(at("whole/run/best.safetensors"), at("small/run/best.safetensors")));
    }
    pd_child_free(&c);
    pd_arena_free(arena);
}

/* Files of other programs: none appears half. */
static void test_outputs(void)
{
    pd_child c = {0};
    const char *model = at("whole/run/best.safetensors"), *full = at("full");
    PD_CHECK_OK(pd_make_dirs(full, &err));
    if (!mount_small(full, 1 << 20, 0)) return;
    pd_child_run(&c, NULL, PD_BIN_DIR, "pd_fold %s -o %s/folded.safetensors --verify 1 --input 64 --threads 2", model,
                 full);
    check_failed(&c, "full/folded.safetensors: cannot write: No space left on device");
    PD_CHECK(!pd_file_exists(at("full/folded.safetensors")));
    pd_child_run(&c, NULL, PD_BIN_DIR, "pd_make_shapes %s/drawn --train 200 --val 50 --threads 2 --quiet", full);
    check_failed(&c, "No space left on device");
    pd_child_free(&c);
}

static void test_folders(void)
{
    pd_child c = {0};
    const pd_child_how here = {.dir = dir};
    PD_CHECK_OK(pd_file_write(at("run"), "", 0, &err));
    pd_child_run(&c, &here, PD_BIN_DIR, training, dir);
    check_failed(&c, "run: cannot make the folder: a file has this name");
    remove(at("run"));
    PD_CHECK_OK(pd_make_dirs(at("locked"), &err));
    const pd_child_how locked = {.dir = at("locked")};
    if (!mount_small(locked.dir, 1 << 20, MS_RDONLY)) return;
    pd_child_run(&c, &locked, PD_BIN_DIR, training, dir);
    check_failed(&c, "run: cannot make the folder: Read-only file system");
    const pd_child_how full = {.out = "/dev/full"};
    pd_child_run(&c, &full, PD_BIN_DIR, "pd_info --table");
    check_failed(&c, "No space left on device");
    pd_child_free(&c);
}

int main(void)
{
    pd_child c = {0};
    if (!own_namespace()) {
        PD_SKIP("a mount namespace of its own is not allowed here");
        return pd_test_end();
    }
    if (!pd_test_dir(dir, "full_disk")) return 1;
    pd_child_run(
        &c, NULL, PD_BIN_DIR,
        "pd_make_shapes %s --train 1 --val 1 --crops 15 --val-crops 10 --classes 2 --side 96 --threads 2 --quiet", dir);
    PD_CHECK_MSG(c.code == 0, "%s", c.err);
    pd_child_free(&c);
    test_training();
    test_outputs();
    test_folders();
    for (int i = 0; i < 3; i++) umount2(at((const char *[]){"small", "full", "locked"}[i]), MNT_DETACH);
    pd_remove_tree(dir);
    return pd_test_end();
}
