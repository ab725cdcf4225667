/* Runs that are killed and go on: pd_cls_train and pd_det_train killed with SIGKILL at seeded random moments and in the
 * validation behind the last step, and stopped by SIGINT or SIGTERM; --resume auto each time. The weights, the optimiser's state and
 * the log end as those of a run that nobody disturbed, to the last bit, and nothing half-written stays.
 *
 * PD_KILLS=N (2): random kills per scenario. PD_KILL_SEED=N: other moments.
 * ctest: slow */
#include "engine/file.h"
#include "engine/log.h"
#include "engine/rng.h"
#include "tests/pd_test.h"
#include "tests/programs.h"

#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static pd_err err;
static char dir[256];

typedef struct scenario {
    const char *name;
    const char *command; /* without --work-dir and --resume; @ is the data's folder */
    int steps;           /* of the whole run; a log line each */
} scenario;

static const scenario scenarios[] = {
    {"PD-B classifier",
     "pd_cls_train -a pd_b_resnet18 -d @/imagenet -b 6 --epochs 2 --lr 0.02 --seed 3"
     " --set data.train_transform={\"crop\":32} --set data.val_transform={\"resize\":32,\"crop\":32} --set train.save_interval=3"
     " --set schedule.type=cosine --set schedule.by=step --set train.log_interval=1",
     10},
    {"PD-B classifier, moving average, two batches a step",
     "pd_cls_train -a pd_b_resnet18 -d @/imagenet -b 5 --epochs 2 --lr 0.02 --set model.branches=s1,skeleton"
     " --set train.accumulate=2 --set train.ema=0.9 --set optimizer.clip_norm=5 --set train.save_interval=1"
     " --set data.train_transform={\"crop\":32} --set data.val_transform={\"resize\":32,\"crop\":32} --set train.log_interval=1",
     6},
    {"LAMB, sigmoids, mixtures, augmentation",
     "pd_cls_train -a resnet18 -d @/imagenet -b 5 --epochs 2 --lr 0.004 --set optimizer.type=lamb --set optimizer.decay=kernels"
     " --set train.loss=bce --set train.mixup=0.2 --set train.cutmix=1 --set train.accumulate=2 --set train.save_interval=1"
     " --set data.train_transform={\"crop\":32,\"augment\":{\"policy\":\"rand\"},\"erase\":0.5}"
     " --set data.val_transform={\"resize\":32,\"crop\":32} --set train.log_interval=1",
     6},
    {"RetinaNet",
     "pd_det_train @/retina.json --set train.epochs=2 --set train.images_per_step=4 --set train.micro_batch=2"
     " --set train.save_interval=2 --set train.pictures=1 --set train.log_interval=1 --set data.resize=[96,96]"
     " --set data.train.images=@/coco/train --set data.train.annotations=@/coco/annotations/instances_train.json"
     " --set data.val.images=@/coco/val --set data.val.annotations=@/coco/annotations/instances_val.json",
     6},
};

static const char retina_json[] =
    "{\"model\": {\"type\": \"retinanet\", \"backbone\": {\"arch\": \"resnet18\", \"frozen_stages\": -1}},\n"
    " \"optimizer\": {\"lr\": 0.002}, \"schedule\": {\"warmup_steps\": 4}}\n";

/* ---- one run ---- */

/* Starts the scenario in the folder `at`, its run in at/run: what a checkpoint says of its configuration does not depend on
 * the folder. */
static void start(pd_child *c, const scenario *s, const char *at)
{
    char command[2048] = "";
    const pd_child_how how = {.dir = at};
    size_t n = 0;
    for (const char *p = s->command; *p && n + sizeof dir < sizeof command; p++)
        n += (size_t)(*p == '@' ? sprintf(command + n, "%s", dir) : sprintf(command + n, "%c", *p));
    pd_child_start(c, &how, PD_BIN_DIR, "%s --work-dir run --resume auto --threads 2 --quiet", command);
}

/* The last step that a run's log tells of; 0: none. */
static int last_step(const char *at)
{
    char path[512], line[4096];
    int step = 0;
    snprintf(path, sizeof path, "%s/run/log.jsonl", at);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) {
        const char *p = strstr(line, "\"step\":");
        if (p && strchr(line, '\n')) step = atoi(p + 7);
    }
    if (f) fclose(f);
    return step;
}

/* Another file after each save. */
static uint64_t checkpoint_id(const char *at)
{
    char path[512];
    struct stat st;
    snprintf(path, sizeof path, "%s/run/last.safetensors", at);
    return stat(path, &st) == 0 ? (uint64_t)st.st_ino : 0;
}

static void doze(double seconds)
{
    const struct timespec t = {(time_t)seconds, (long)((seconds - floor(seconds)) * 1e9)};
    nanosleep(&t, NULL);
}

/* Waits until the log tells of `step`; false: the run ended before. */
static bool wait_for_step(pd_child *c, const char *at, int step)
{
    while (pd_child_running(c)) {
        if (last_step(at) >= step) return true;
        doze(0.0005);
    }
    return false;
}

/* ---- what it leaves ---- */

static void compare_files(const char *a, const char *b, const char *name)
{
    char x[512], y[512];
    snprintf(x, sizeof x, "%s/run/%s", a, name);
    snprintf(y, sizeof y, "%s/run/%s", b, name);
    PD_CHECK_MSG(pd_same_files(x, y), "%s differs from the undisturbed run's", name);
}

/* Every loss and every validation: the log reads as if nothing had happened. */
static void compare_logs(const char *a, const char *b)
{
    pd_arena *arena = pd_arena_new();
    pd_log_series *x = NULL, *y = NULL;
    size_t n = 0, m = 0;
    char path[512];
    snprintf(path, sizeof path, "%s/run/log.jsonl", a);
    PD_CHECK_OK(pd_log_read(&x, &n, path, arena, &err));
    snprintf(path, sizeof path, "%s/run/log.jsonl", b);
    PD_CHECK_OK(pd_log_read(&y, &m, path, arena, &err));
    PD_CHECK_INT(m, n);
    for (size_t i = 0; i < n; i++) {
        if (strstr(x[i].name, "_s")) continue; /* seconds, images per second */
        const pd_log_series *other = pd_log_find(y, m, x[i].kind, x[i].name);
        bool same = other && other->count == x[i].count;
        for (size_t k = 0; same && k < x[i].count; k++)
            same = x[i].points[k].step == other->points[k].step && x[i].points[k].value == other->points[k].value;
        PD_CHECK_MSG(same, "the log's %s %s differs from the undisturbed run's", x[i].kind, x[i].name);
    }
    pd_arena_free(arena);
}

static void check_leftovers(const char *at)
{
    pd_arena *arena = pd_arena_new();
    char path[512], **names = NULL;
    size_t n = 0;
    snprintf(path, sizeof path, "%s/run", at);
    PD_CHECK_OK(pd_list_dir(&names, &n, path, 'f', arena, &err));
    for (size_t i = 0; i < n; i++) PD_CHECK_MSG(!strstr(names[i], ".tmp"), "%s stayed behind", names[i]);
    snprintf(path, sizeof path, "%s/run/report.html", at);
    PD_CHECK(pd_file_exists(path));
    pd_arena_free(arena);
}

/* ---- the story ---- */

static void kill_at_random(const scenario *s, const char *at, int kills, pd_rng *rng)
{
    pd_child c = {0};
    int done = 0;
    for (int i = 0; i < kills; i++) {
        /* from "before the first step" to "behind the last but one"; then up to 0.1 s into whatever comes next */
        const int target = (int)(pd_rng_double(rng) * s->steps);
        const double later = 0.1 * pd_rng_double(rng);
        start(&c, s, at);
        if (!wait_for_step(&c, at, target)) break;
        doze(later);
        if (c.pid > 0) kill(c.pid, SIGKILL);
        pd_child_wait(&c);
        done += c.code == 1000 + SIGKILL;
    }
    PD_CHECK_MSG(done > 0, "no kill came before the end (%d: %s)", c.code, c.err ? c.err : "");
    printf("%s: %d of %d kills came before the end\n", s->name, done, kills);
    pd_child_free(&c);
}

static void interrupt(const scenario *s, const char *at)
{
    pd_child c = {0};
    start(&c, s, at);
    if (wait_for_step(&c, at, last_step(at) + 1)) {
        kill(c.pid, (s - scenarios) % 2 ? SIGTERM : SIGINT);
        pd_child_wait(&c);
        PD_CHECK_INT(c.code, 130);
        PD_CHECK_MSG(strstr(c.err, "go on with --resume auto") && pd_count_lines(c.err) == 1, "said \"%s\"", c.err);
        PD_CHECK_STR(c.out, "");
    }
    pd_child_free(&c);
}

/* Behind the last step the checkpoint is taken, then comes the validation: killed there. */
static void kill_in_last_validation(const scenario *s, const char *at)
{
    pd_child c = {0};
    start(&c, s, at);
    if (wait_for_step(&c, at, s->steps)) {
        const uint64_t before = checkpoint_id(at);
        while (checkpoint_id(at) == before && pd_child_running(&c)) doze(0.0002);
        if (c.pid > 0) kill(c.pid, SIGKILL);
    }
    pd_child_wait(&c);
    PD_CHECK_MSG(c.code == 1000 + SIGKILL, "ended with %d before it could be killed", c.code);
    pd_child_free(&c);
}

static void test(const scenario *s, int kills, uint64_t seed)
{
    char whole[400], other[400];
    pd_child c = {0};
    pd_rng rng = pd_rng_make(seed, (uint32_t)(s - scenarios), 0);
    PD_ROW(s->name);
    snprintf(whole, sizeof whole, "%s/whole", dir);
    snprintf(other, sizeof other, "%s/other", dir);
    PD_CHECK_OK(pd_make_dirs(whole, &err));
    PD_CHECK_OK(pd_make_dirs(other, &err));
    start(&c, s, whole);
    pd_child_wait(&c);
    PD_CHECK_MSG(c.code == 0, "%s: exit code %d: %s", c.line, c.code, c.err);
    PD_CHECK_INT(last_step(whole), s->steps);
    if (c.code == 0) {
        kill_at_random(s, other, kills, &rng);
        interrupt(s, other);
        kill_in_last_validation(s, other);
        for (int again = 0; again < 2; again++) { /* the second time nothing is left to do */
            start(&c, s, other);
            pd_child_wait(&c);
            PD_CHECK_MSG(c.code == 0, "going on: exit code %d: %s", c.code, c.err);
            compare_files(whole, other, "last.safetensors");
            compare_files(whole, other, "best.safetensors");
            compare_logs(whole, other);
        }
        check_leftovers(other);
    }
    pd_child_free(&c);
    pd_remove_tree(whole);
    pd_remove_tree(other);
}

static int setting(const char *name, int otherwise)
{
    const char *text = getenv(name);
    return text && *text ? atoi(text) : otherwise;
}

int main(void)
{
    pd_child c = {0};
    char path[512];
    if (!pd_test_dir(dir, "resume")) return 1;
    pd_child_run(&c, NULL, PD_BIN_DIR,
                 "pd_make_shapes %s --train 12 --val 6 --crops 15 --val-crops 10 --classes 2 --side 96 --threads 2 --quiet", dir);
    PD_CHECK_MSG(c.code == 0, "%s", c.err);
    pd_child_free(&c);
    snprintf(path, sizeof path, "%s/retina.json", dir);
    PD_CHECK_OK(pd_file_write(path, retina_json, strlen(retina_json), &err));
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++)
        test(&scenarios[i], setting("PD_KILLS", 2), (uint64_t)setting("PD_KILL_SEED", 1));
    pd_remove_tree(dir);
    return pd_test_end();
}
