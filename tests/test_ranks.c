/* Training by several processes: pd_cls_train and pd_det_train under mpirun with two ranks, one thread each, against
 * one. the same gradients and weights (SyncBN, PD-A and PD-B), the same losses, detections and AP; the same bits each
 * time; killed and stopped ranks; going on from a checkpoint, with as many ranks or with one. ctest: slow, shares */
#include "engine/file.h"
#include "engine/log.h"
#include "engine/safetensors.h"
#include "tests/pd_test.h"
#include "tests/programs.h"
#include "tests/ranks.h"

#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static pd_err err;
static char dir[256], mpirun[256];

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void doze(double s)
{
    const struct timespec t = {(time_t)s, (long)((s - floor(s)) * 1e9)};
    nanosleep(&t, NULL);
}

/* ---- runs ---- */

/* Starts a program as `world` processes in the folder DIR/name, its run in run/ there. */
static void start(pd_child *c, const char *name, int world, const char *command)
{
    char at[512], launch[512] = "";
    snprintf(at, sizeof at, "%s/%s", dir, name);
    (void)mkdir(at, 0777);
    if (world > 1) snprintf(launch, sizeof launch, "mpirun -np %d %s/", world, PD_BIN_DIR);
    const pd_child_how how = {.dir = at};
    pd_child_start(c, &how, world > 1 ? mpirun : PD_BIN_DIR, "%s%s --work-dir run --threads 1 --quiet", launch,
                   command);
}

static void run(const char *name, int world, const char *command)
{
    pd_child c = {0};
    start(&c, name, world, command);
    pd_child_wait(&c);
    PD_CHECK_MSG(c.code == 0, "%s: exit %d: %s", name, c.code, c.err);
    pd_child_free(&c);
}

static const char *in_run(char path[512], const char *name, const char *file)
{
    snprintf(path, 512, "%s/%s/run/%s", dir, name, file);
    return path;
}

/* Largest difference of the tensors whose names begin with one of two prefixes, as a share of the largest value. */
static double difference(const char *a, const char *b, const char *prefix, const char *not_prefix)
{
    char path[512];
    pd_st *x = NULL, *y = NULL;
    double most = 0, largest = 0;
    PD_CHECK_OK(pd_st_open(&x, in_run(path, a, "last.safetensors"), &err));
    PD_CHECK_OK(pd_st_open(&y, in_run(path, b, "last.safetensors"), &err));
    for (size_t i = 0; x && y && i < pd_st_count(x); i++) {
        const pd_st_tensor *t = pd_st_at(x, i), *u = pd_st_find(y, t->name);
        if (strncmp(t->name, prefix, strlen(prefix)) ||
            (*not_prefix && !strncmp(t->name, not_prefix, strlen(not_prefix))) || t->type != PD_ST_F32)
            continue;
        PD_CHECK_MSG(u && u->bytes == t->bytes, "%s is not in both", t->name);
        for (size_t k = 0; u && k < t->bytes / sizeof(float); k++) {
            const double p = (double)((const float *)t->data)[k], q = (double)((const float *)u->data)[k];
            if (!(fabs(p - q) <= most)) most = fabs(p - q); /* NaN too */
            if (fabs(p) > largest) largest = fabs(p);
        }
    }
    pd_st_close(x);
    pd_st_close(y);
    PD_CHECK(largest > 0);
    return most / largest;
}

/* The log's series of b as those of a, within tol of the value; those that tell of time aside. */
static void compare_logs(const char *a, const char *b, double tol)
{
    char path[512];
    pd_arena *arena = pd_arena_new();
    pd_log_series *x = NULL, *y = NULL;
    size_t n = 0, m = 0;
    PD_CHECK_OK(pd_log_read(&x, &n, in_run(path, a, "log.jsonl"), arena, &err));
    PD_CHECK_OK(pd_log_read(&y, &m, in_run(path, b, "log.jsonl"), arena, &err));
    PD_CHECK_INT(m, n);
    for (size_t i = 0; i < n; i++) {
        if (strstr(x[i].name, "_s")) continue;
        const pd_log_series *other = pd_log_find(y, m, x[i].kind, x[i].name);
        PD_CHECK_INT(other ? other->count : 0, x[i].count);
        for (size_t k = 0; other && other->count == x[i].count && k < x[i].count; k++) {
            const double p = x[i].points[k].value, q = other->points[k].value;
            PD_CHECK_MSG((isnan(p) && isnan(q)) || fabs(p - q) <= tol * fmax(1, fabs(p)),
                         "%s %s at step %g: %.9g and %.9g", x[i].kind, x[i].name, x[i].points[k].step, p, q);
        }
    }
    pd_arena_free(arena);
}

/* ---- classifiers ---- */

#define CLASSIFIER                                                                                                     \
    " -d ../imagenet -b 4 --seed 3 --weight-decay 0 --set data.train_transform={\"crop\":32}"                          \
    " --set data.val_transform={\"resize\":32,\"crop\":32} --set train.log_interval=1 --set data.workers=1"

static const char *classifier(char command[1024], const char *arch, const char *more)
{
    snprintf(command, 1024, "pd_cls_train -a %s --set model.branches=s1,skeleton" CLASSIFIER " %s", arch, more);
    return command;
}

/* Pixels enough that the last stage's statistics are not those of a handful of numbers, which magnify rounding. (A ReLU
 * at its edge magnifies it too: test_comm has a network without these, and the bound of 1e-5.) */
#define LARGER " --set data.train_transform.crop=96"

/* After one step the momentum is the gradient. */
static void test_gradients(void)
{
    static const char *const archs[] = {"pd_a_resnet18", "pd_b_resnet18"};
    for (int i = 0; i < 2; i++) {
        char command[1024];
        PD_ROW(archs[i]);
        classifier(command, archs[i], "--epochs 1 --lr 0.001 --set train.max_steps=1 --set model.sync_bn=true" LARGER);
        run("one", 1, command);
        run("two", 2, command);
        const double d = difference("two", "one", "train.momentum.", "");
        printf("%s, gradients: %.2g of the largest\n", archs[i], d);
        PD_CHECK_MSG(d <= 1e-4, "gradients differ by %.3g of the largest", d);
        /* one rank for itself would norm by half the batch */
        run("alone", 2, classifier(command, archs[i], "--epochs 1 --lr 0.001 --set train.max_steps=1" LARGER));
        const double apart = difference("alone", "one", "train.momentum.", "");
        PD_CHECK_MSG(apart > 1e-3, "without SyncBN gradients differ by %.3g only", apart);
    }
    PD_ROW("");
}

/* Accumulation, clipping, a moving average; statistics, the validation and every figure of the log. */
static void test_weights(void)
{
    char command[1024], a[512], b[512];
    classifier(command, "pd_b_resnet18",
               "--epochs 1 --lr 0.0001 --set train.max_steps=3 --set train.accumulate=2 --set optimizer.clip_norm=5"
               " --set train.ema=0.9 --set model.sync_bn=true" LARGER);
    run("one", 1, command);
    run("two", 2, command);
    const double d = difference("two", "one", "", "train.");
    printf("weights and statistics after three steps: %.2g of the largest\n", d);
    PD_CHECK_MSG(d <= 1e-5, "weights and statistics differ by %.3g of the largest", d);
    PD_CHECK_MSG(difference("two", "one", "train.ema.", "") <= 1e-5, "averages differ");
    compare_logs("one", "two", 2e-4);
    run("again", 2, command);
    PD_CHECK_MSG(pd_same_files(in_run(a, "two", "last.safetensors"), in_run(b, "again", "last.safetensors")),
                 "two runs of two ranks end with different bits");
}

static void test_refusals(void)
{
    char command[1024];
    pd_child c = {0};
    classifier(command, "pd_a_resnet18", "--epochs 1 -b 5");
    start(&c, "refused", 2, command);
    pd_child_wait(&c);
    PD_CHECK_INT(c.code, 1);
    const char *said = strstr(c.err, "train.batch_size is 5, of which 2 processes cannot have equal shares");
    PD_CHECK_MSG(said, "said \"%s\"", c.err);
    /* once: rank 1 would tell a second later, which under a sanitizer can come before its end */
    if (!PD_SANITIZED) PD_CHECK_MSG(said && !strstr(said + 1, "train.batch_size is 5"), "said \"%s\"", c.err);
    pd_child_free(&c);
}

/* ---- killed, stopped, going on ---- */

/* The processes of a run: mpirun's children. */
static int ranks_of(pid_t pid, pid_t ranks[8])
{
    char path[64];
    int n = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid);
    FILE *f = fopen(path, "r");
    for (int child; f && n < 8 && fscanf(f, "%d", &child) == 1;) ranks[n++] = child;
    if (f) fclose(f);
    return n;
}

/* One that ended and that nobody asked about is dead too. */
static bool lives(pid_t pid)
{
    char path[64], state = 'Z';
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    if (f && fscanf(f, "%*d (%*[^)]) %c", &state) != 1) state = 'Z';
    if (f) fclose(f);
    return state != 'Z' && state != 'X';
}

static int last_step(const char *name)
{
    char path[512], line[4096];
    int step = 0;
    FILE *f = fopen(in_run(path, name, "log.jsonl"), "r");
    while (f && fgets(line, sizeof line, f)) {
        const char *p = strstr(line, "\"step\":");
        if (p && strchr(line, '\n')) step = atoi(p + 7);
    }
    if (f) fclose(f);
    return step;
}

/* Starts a run of two ranks, waits for a step and sends a signal to the rank, -1: to all. */
static void disturb(pd_child *c, const char *name, const char *command, int step, int rank, int signal_number)
{
    pid_t ranks[8];
    start(c, name, 2, command);
    while (pd_child_running(c) && last_step(name) < step) doze(0.005);
    const int n = c->pid > 0 ? ranks_of(c->pid, ranks) : 0;
    PD_CHECK_INT(n, 2);
    const double begun = seconds();
    for (int r = 0; r < n; r++)
        if (rank < 0 || rank == r) kill(ranks[r], signal_number);
    pd_child_wait(c);
    PD_CHECK_MSG(c->code != 0, "went on after signal %d", signal_number);
    const double took = seconds() - begun;
    printf("signal %d to rank %d: all gone after %.1f s\n", signal_number, rank, took);
    PD_CHECK_MSG(took < 60, "took %.1f s to end", took);
    for (int r = 0; r < n; r++) {
        while (lives(ranks[r]) && seconds() - begun < 60) doze(0.01); /* the launcher may be gone before its children */
        PD_CHECK_MSG(!lives(ranks[r]), "rank %d still lives", r);
    }
}

static void test_resume(void)
{
    char command[1024], a[512], b[512];
    pd_child c = {0};
    classifier(command, "pd_b_resnet18",
               "--epochs 2 --lr 0.0001 --set train.max_steps=8 --set train.save_interval=2 --set train.rank_timeout=4"
               " --set model.sync_bn=true"
               " --resume auto");
    run("whole", 2, command);
    disturb(&c, "broken", command, 3, -1, SIGKILL);
    disturb(&c, "broken", command, 5, 1, SIGKILL);
    PD_CHECK_MSG(strstr(c.err, "rank 1"), "said \"%s\"", c.err);
    disturb(&c, "broken", command, 6, 1, SIGSTOP);
    PD_CHECK_MSG(strstr(c.err, "pd_cls_train: rank 1 (") && strstr(c.err, "has not been heard of"), "said \"%s\"",
                 c.err);
    run("broken", 2, command);
    PD_CHECK_MSG(pd_same_files(in_run(a, "whole", "last.safetensors"), in_run(b, "broken", "last.safetensors")),
                 "what was killed and went on ends with other bits");
    compare_logs("whole", "broken", 0);
    /* with one rank in place of two: the same training but for rounding, which pictures this small magnify */
    disturb(&c, "fewer", command, 5, -1, SIGKILL);
    run("fewer", 1, command);
    PD_CHECK_INT(last_step("fewer"), 8);
    const double d = difference("fewer", "whole", "", "train.");
    printf("one rank went on from two ranks' checkpoint: %.2g of the largest\n", d);
    PD_CHECK_MSG(d < 0.02, "weights differ by %.3g of the largest", d);
    pd_child_free(&c);
}

/* ---- detectors ---- */

#define DETECTOR                                                                                                       \
    "pd_det_train ../retina.json --set train.epochs=1 --set train.images_per_step=4 --set train.micro_batch=1"         \
    " --set train.pictures=1 --set train.log_interval=1 --set data.resize=[96,96] --set data.workers=1"                \
    " --set data.train.images=../coco/train --set data.train.annotations=../coco/annotations/instances_train.json"     \
    " --set data.val.images=../coco/val --set data.val.annotations=../coco/annotations/instances_val.json "

static void test_detector(void)
{
    char a[512], b[512];
    /* weights that stay: the evaluation is that of one process, to the last bit */
    run("one", 1, DETECTOR "--set optimizer.lr=0");
    run("two", 2, DETECTOR "--set optimizer.lr=0");
    PD_CHECK_MSG(pd_same_files(in_run(a, "one", "val_results.json"), in_run(b, "two", "val_results.json")),
                 "two ranks found other boxes");
    compare_logs("one", "two", 1e-5);
    run("one", 1, DETECTOR "--set optimizer.lr=0.001");
    run("two", 2, DETECTOR "--set optimizer.lr=0.001");
    compare_logs("one", "two", 1e-3);
    PD_CHECK_MSG(difference("two", "one", "", "train.") <= 1e-5, "weights differ");
}

int main(int argc, char **argv)
{
    const char *only = argc > 1 ? argv[1] : ""; /* for people: the name of one part */
    static const char retina[] = "{\"model\": {\"type\": \"retinanet\", \"backbone\": {\"arch\": \"resnet18\", "
                                 "\"frozen_stages\": 1}}, \"schedule\": {\"warmup_steps\": 2}}\n";
    char path[512];
    pd_child c = {0};
    if (!pd_find_mpirun(mpirun)) {
        PD_SKIP("no mpirun of Open MPI on PATH");
        return pd_test_end();
    }
    if (!pd_test_dir(dir, "ranks")) return 1;
    pd_child_run(
        &c, NULL, PD_BIN_DIR,
        "pd_make_shapes %s --train 12 --val 5 --crops 16 --val-crops 5 --classes 2 --side 96 --threads 1 --quiet", dir);
    PD_CHECK_MSG(c.code == 0, "%s", c.err);
    pd_child_free(&c);
    snprintf(path, sizeof path, "%s/retina.json", dir);
    PD_CHECK_OK(pd_file_write(path, retina, strlen(retina), &err));
    static const struct {
        const char *name;
        void (*test)(void);
    } parts[] = {{"gradients", test_gradients},
                 {"weights", test_weights},
                 {"refusals", test_refusals},
                 {"resume", test_resume},
                 {"detector", test_detector}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!*only || !strcmp(only, parts[i].name)) parts[i].test();
    pd_remove_tree(dir);
    return pd_test_end();
}
