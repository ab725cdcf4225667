/* pd_demo: the whole story in one command: draws a data set, pretrains a ParaDise backbone on it, trains RetinaNet with
 * it, evaluates, folds with proof, evaluates the folded model, and writes one report. */
#include "engine/file.h"
#include "engine/log.h"
#include "eval/coco_ap.h"
#include "tools/cli.h"
#include "tools/progress.h"
#include "tools/report.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define MAX_ARGS 32
#define STAGES 8

typedef struct demo {
    const char *dir, *bin, *configs;
    pd_arena *arena;
    struct {
        const char *what;
        double seconds;
    } stage[STAGES];
    int stages;
} demo;

/* DIR/name in the arena; "" when out of memory (the program that gets it fails). */
static const char *in_dir(demo *d, const char *name)
{
    char *path;
    return pd_path_join(&path, d->dir, name, d->arena, NULL) == PD_OK ? path : "";
}

static const char *text(demo *d, const char *a, const char *b)
{
    char *joined;
    return pd_format(&joined, d->arena, NULL, "%s%s", a, b) == PD_OK ? joined : "";
}

/* Runs a program of ours; its arguments end with NULL. to: file for its standard output, or NULL. */
static pd_status run(demo *d, const char *what, const char *to, const char *const *arguments, pd_err *err)
{
    char *argv[MAX_ARGS];
    int n = 0, code = 0;
    pid_t child;
    posix_spawn_file_actions_t actions;
    char *program;
    PD_TRY(pd_path_join(&program, d->bin, arguments[0], d->arena, err));
    for (; arguments[n] && n < MAX_ARGS - 1; n++) argv[n] = (char *)(uintptr_t)arguments[n];
    argv[0] = program;
    argv[n] = NULL;
    fprintf(stderr, "\n-- %s\n  ", what);
    for (int i = 0; i < n; i++) fprintf(stderr, " %s", i ? argv[i] : arguments[0]);
    fprintf(stderr, "\n");
    fflush(stdout);
    const double start = pd_seconds();
    posix_spawn_file_actions_init(&actions);
    if (to) posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, to, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    const int spawned = posix_spawn(&child, program, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (spawned) return PD_FAIL(err, PD_EIO, "%s: cannot start: %s", program, strerror(spawned));
    while (waitpid(child, &code, 0) < 0)
        if (errno != EINTR) return PD_FAIL(err, PD_EIO, "%s: lost: %s", program, strerror(errno));
    if (!WIFEXITED(code) || WEXITSTATUS(code)) return PD_FAIL(err, PD_EINVAL, "%s failed (its message is above)", arguments[0]);
    if (d->stages < STAGES) {
        d->stage[d->stages].what = what;
        d->stage[d->stages++].seconds = pd_seconds() - start;
    }
    return PD_OK;
}

static pd_status run_programs(demo *d, pd_err *err)
{
    const char *shapes = in_dir(d, "shapes"), *cls = in_dir(d, "cls"), *det = in_dir(d, "det");
    const char *gt = in_dir(d, "shapes/coco/annotations/instances_val.json"), *val = in_dir(d, "shapes/coco/val");
    const char *best = in_dir(d, "det/best.safetensors"), *folded = in_dir(d, "folded.safetensors");
    PD_TRY(run(d, "draw the data", in_dir(d, "shapes.txt"), (const char *[]){"pd_make_shapes", shapes, "--side", "160", "--difficulty", "0.3",
                                                                      "--crops", "200", NULL}, err));
    PD_TRY(run(d, "pretrain PD-A-ResNet-18", NULL,
               (const char *[]){"pd_cls_train", text(d, d->configs, "/demo_cls_pd_a_r18.json"), "-d", in_dir(d, "shapes/imagenet"),
                                "--work-dir", cls, NULL}, err));
    PD_TRY(run(d, "train RetinaNet", NULL,
               (const char *[]){"pd_det_train", text(d, d->configs, "/demo_retina_pd_a_r18.json"), "--work-dir", det, "--backbone",
                                in_dir(d, "cls/best.safetensors"), "--set",
                                text(d, "data.train.images=", in_dir(d, "shapes/coco/train")), "--set",
                                text(d, "data.train.annotations=", in_dir(d, "shapes/coco/annotations/instances_train.json")),
                                "--set", text(d, "data.val.images=", val), "--set", text(d, "data.val.annotations=", gt), NULL},
               err));
    PD_TRY(run(d, "fold, with proof", in_dir(d, "fold.txt"),
               (const char *[]){"pd_fold", best, "-o", folded, "--images", val, NULL}, err));
    PD_TRY(run(d, "detect, unfolded", NULL,
               (const char *[]){"pd_detect", best, gt, "--images", val, "-o", in_dir(d, "results.json"), NULL}, err));
    return run(d, "detect, folded", NULL,
               (const char *[]){"pd_detect", folded, gt, "--images", val, "-o", in_dir(d, "results_folded.json"), "--draw",
                                in_dir(d, "pictures"), NULL}, err);
}

/* ---- the report ------------------------------------------------------------------------------------------------------ */

#define ROWS 2
#define COLUMNS 8
static const char *const columns[COLUMNS] = {"model", "AP", "AP50", "AP75", "APs", "APm", "APl", "file"};
static const char *const row_names[ROWS] = {"RetinaNet, PD-A-ResNet-18", "the same, folded"};

typedef struct table {
    double stats[ROWS][6];
    char *cells[ROWS * COLUMNS];
} table;

static pd_status evaluate(demo *d, const pd_coco_gt *gt, const char *results, double stats[6], pd_err *err)
{
    pd_coco_dt *dt = NULL;
    pd_coco_result *r = NULL;
    pd_status status = pd_coco_dt_open(&dt, gt, in_dir(d, results), NULL, NULL, err);
    if (status == PD_OK) status = pd_coco_evaluate(&r, gt, dt, NULL, NULL, err);
    if (status == PD_OK) memcpy(stats, r->stats, 6 * sizeof *stats);
    pd_coco_result_free(r);
    pd_coco_dt_close(dt);
    return status;
}

static pd_status make_table(demo *d, table *t, pd_err *err)
{
    static const char *const results[ROWS] = {"results.json", "results_folded.json"};
    static const char *const files[ROWS] = {"det/best.safetensors", "folded.safetensors"};
    pd_coco_gt *gt = NULL;
    pd_status status = pd_coco_gt_open(&gt, in_dir(d, "shapes/coco/annotations/instances_val.json"), NULL, NULL, err);
    for (int r = 0; r < ROWS && status == PD_OK; r++) {
        status = evaluate(d, gt, results[r], t->stats[r], err);
        char **cell = &t->cells[r * COLUMNS];
        if (status == PD_OK) status = pd_strdup(&cell[0], d->arena, row_names[r], err);
        for (int i = 0; i < 6 && status == PD_OK; i++) status = pd_format(&cell[i + 1], d->arena, err, "%.3f", t->stats[r][i]);
        pd_bytes bytes = {NULL, 0};
        if (status == PD_OK) status = pd_file_map(&bytes, in_dir(d, files[r]), err);
        if (status == PD_OK) status = pd_format(&cell[7], d->arena, err, "%.0f MB", (double)bytes.size / 1e6);
        pd_file_unmap(&bytes);
    }
    pd_coco_gt_close(gt);
    return status;
}

static pd_status curve(demo *d, pd_report_curve *out, const char *label, const char *log, const char *kind, const char *name,
                       pd_err *err)
{
    pd_log_series *series;
    size_t count;
    double *x, *y;
    PD_TRY(pd_log_read(&series, &count, in_dir(d, log), d->arena, err));
    const pd_log_series *s = pd_log_find(series, count, kind, name);
    if (!s) return PD_FAIL(err, PD_EFORMAT, "%s: no \"%s\" in it", log, name);
    PD_TRY(PD_ALLOC(&x, d->arena, s->count, err));
    PD_TRY(PD_ALLOC(&y, d->arena, s->count, err));
    for (size_t i = 0; i < s->count; i++) {
        x[i] = s->points[i].step;
        y[i] = s->points[i].value;
    }
    *out = (pd_report_curve){.label = label, .x = x, .y = y, .count = s->count, .smooth = !strcmp(kind, "train")};
    return PD_OK;
}

static pd_status write_report(demo *d, const table *t, double seconds, pd_err *err)
{
    pd_report_curve c[6];
    PD_TRY(curve(d, &c[0], "training", "cls/log.jsonl", "train", "loss", err));
    PD_TRY(curve(d, &c[1], "top-1 on the validation set", "cls/log.jsonl", "val", "top1", err));
    PD_TRY(curve(d, &c[2], "classes", "det/log.jsonl", "train", "loss_cls", err));
    PD_TRY(curve(d, &c[3], "boxes", "det/log.jsonl", "train", "loss_bbox", err));
    PD_TRY(curve(d, &c[4], "AP", "det/log.jsonl", "val", "AP", err));
    PD_TRY(curve(d, &c[5], "AP50", "det/log.jsonl", "val", "AP50", err));
    const pd_report_chart charts[] = {
        {.title = "Backbone: loss", .x_label = "step", .curves = &c[0], .n_curves = 1},
        {.title = "Backbone: top-1, per cent", .x_label = "step", .curves = &c[1], .n_curves = 1},
        {.title = "RetinaNet: losses", .x_label = "step", .curves = &c[2], .n_curves = 2},
        {.title = "RetinaNet: AP on the validation set", .x_label = "step", .curves = &c[4], .n_curves = 2},
    };
    const char *stage_columns[] = {"stage", "seconds"}, *stage_cells[STAGES * 2];
    for (int i = 0; i < d->stages; i++) {
        char *cell;
        PD_TRY(pd_format(&cell, d->arena, err, "%.0f", d->stage[i].seconds));
        stage_cells[2 * i] = d->stage[i].what;
        stage_cells[2 * i + 1] = cell;
    }
    const pd_report_table tables[] = {
        {"Validation set", columns, COLUMNS, (const char *const *)t->cells, ROWS},
        {"Time", stage_columns, 2, stage_cells, (size_t)d->stages},
    };
    enum { PICTURES = 12 };
    pd_report_image images[PICTURES];
    char **names;
    size_t count;
    PD_TRY(pd_list_dir(&names, &count, in_dir(d, "pictures"), 'f', d->arena, err));
    if (count > PICTURES) count = PICTURES;
    for (size_t i = 0; i < count; i++)
        images[i] = (pd_report_image){.path = text(d, in_dir(d, "pictures/"), names[i]), .caption = names[i]};
    char ap[32], ap50[32], time[32];
    snprintf(ap, sizeof ap, "%.3f", t->stats[1][0]);
    snprintf(ap50, sizeof ap50, "%.3f", t->stats[1][1]);
    pd_duration_text(time, seconds);
    const pd_report_fact facts[] = {{"AP, folded", ap}, {"AP50, folded", ap50}, {"time", time}};
    const pd_report report = {.title = "ParaDise: the demonstration",
                              .subtitle = "Drawn shapes: a backbone pretrained, a detector trained, folded and evaluated",
                              .facts = facts, .n_facts = 3, .charts = charts, .n_charts = 4, .tables = tables, .n_tables = 2,
                              .images = images, .n_images = count};
    return pd_report_write(in_dir(d, "report.html"), &report, err);
}

static void print_table(const demo *d, const table *t, double seconds)
{
    char time[32];
    printf("\n");
    for (int i = 0; i < COLUMNS; i++) printf(i ? " %8s" : "%-28s", columns[i]);
    printf("\n");
    for (int r = 0; r < ROWS; r++) {
        for (int i = 0; i < COLUMNS; i++) printf(i ? " %8s" : "%-28s", t->cells[r * COLUMNS + i]);
        printf("\n");
    }
    pd_duration_text(time, seconds);
    printf("\n%s. Everything is in %s; open %s/report.html\n", time, d->dir, d->dir);
}

/* Where the programs and configurations are: beside this program, in the build tree or installed. */
static pd_status find_home(demo *d, pd_err *err)
{
    char self[4096];
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length < 0) return PD_FAIL(err, PD_EIO, "cannot find this program's folder: %s", strerror(errno));
    self[length] = '\0';
    char *slash = strrchr(self, '/'), *bin, *tree, *installed;
    if (slash) *slash = '\0';
    PD_TRY(pd_strdup(&bin, d->arena, self, err));
    d->bin = bin;
    if (d->configs) return PD_OK;
    PD_TRY(pd_format(&tree, d->arena, err, "%s/../../configs", self));
    PD_TRY(pd_format(&installed, d->arena, err, "%s/../share/paradise/configs", self));
    d->configs = pd_is_dir(tree) ? tree : installed;
    return pd_is_dir(d->configs) ? PD_OK : PD_FAIL(err, PD_EIO, "%s: no configurations there: give --configs DIR", d->configs);
}

int main(int argc, char **argv)
{
    demo d = {0};
    const pd_opt opts[] = {PD_OPT_STRING(0, "configs", "DIR", &d.configs, "where demo_*.json are")};
    const pd_cli cli = {.program = "pd_demo",
                        .usage = "DIR",
                        .about = "Draws data, trains a backbone and a detector, folds, evaluates, reports: all into DIR.",
                        .example = "pd_demo runs/demo",
                        .opts = opts,
                        .n_opts = 1,
                        .min_args = 1,
                        .max_args = 1};
    pd_cli_args args;
    const int code = pd_cli_parse(&args, &cli, argc, argv);
    if (code >= 0) return code;
    const double start = pd_seconds();
    table t = {0};
    pd_err err = PD_ERR_INIT;
    d.dir = args.args[0];
    d.arena = pd_arena_new();
    pd_status status = d.arena ? PD_OK : PD_FAIL(&err, PD_ENOMEM, "out of memory");
    if (status == PD_OK) status = find_home(&d, &err);
    if (status == PD_OK) status = pd_make_dirs(d.dir, &err);
    if (status == PD_OK) status = run_programs(&d, &err);
    if (status == PD_OK) status = make_table(&d, &t, &err);
    if (status == PD_OK) status = write_report(&d, &t, pd_seconds() - start, &err);
    if (status == PD_OK) print_table(&d, &t, pd_seconds() - start);
    pd_arena_free(d.arena);
    const int result = pd_cli_close_stdout(&cli, status == PD_OK ? 0 : pd_cli_fail(&cli, &err));
    pd_cli_free(&args);
    return result;
}
