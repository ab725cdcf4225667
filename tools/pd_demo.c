/* pd_demo: the whole story in one command: draws a data set, pretrains a ParaDise backbone on it, trains RetinaNet with
 * it, evaluates, folds with proof, evaluates the folded model, and writes one report. */
#include "engine/file.h"
#include "engine/log.h"
#include "eval/coco_ap.h"
#include "tools/program.h"
#include "tools/cli.h"
#include "tools/progress.h"
#include "tools/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})
enum { MOST_ARGS = 31, MOST_STAGES = 8 };

typedef struct stage {
    const char *what;
    double seconds;
} stage;

typedef struct demo {
    const char *dir; /* where all of it goes */
    pd_home home;
    int64_t seed;
    pd_arena *arena;
    stage stages[MOST_STAGES];
    int n_stages;
} demo;

/* Text in the arena; "" when out of memory (the program that gets it fails). */
static const char *joined(demo *d, const char *a, const char *b)
{
    char *text;
    return pd_format(&text, d->arena, NULL, "%s%s", a, b) == PD_OK ? text : "";
}

static const char *in_dir(demo *d, const char *name)
{
    char *path;
    return pd_path_join(&path, d->dir, name, d->arena, NULL) == PD_OK ? path : "";
}

/* ---- the programs ---- */

/* One stage: shows the command, runs it, takes its time. */
static pd_status run(demo *d, const char *what, const char *to, const char *const *args, pd_err *err)
{
    const char *argv[MOST_ARGS + 1] = {NULL};
    char *program;
    PD_TRY(pd_path_join(&program, d->home.bin, args[0], d->arena, err));
    argv[0] = program;
    for (int i = 1; i < MOST_ARGS && args[i]; i++) argv[i] = args[i];
    const double start = pd_seconds();
    PD_TRY(pd_program_run(what, argv, to, err));
    d->stages[d->n_stages++] = (stage){what, pd_seconds() - start};
    return PD_OK;
}

static pd_status run_programs(demo *d, pd_err *err)
{
    char *seed, *train_seed;
    PD_TRY(pd_format(&seed, d->arena, err, "%lld", (long long)d->seed));
    PD_TRY(pd_format(&train_seed, d->arena, err, "train.seed=%lld", (long long)d->seed));
    const char *shapes = in_dir(d, "shapes"), *classes = in_dir(d, "shapes/imagenet");
    const char *train = in_dir(d, "shapes/coco/train"), *val = in_dir(d, "shapes/coco/val");
    const char *train_truth = in_dir(d, "shapes/coco/annotations/instances_train.json");
    const char *val_truth = in_dir(d, "shapes/coco/annotations/instances_val.json");
    const char *cls_config = joined(d, d->home.configs, "/demo_cls_pd_a_r18.json");
    const char *det_config = joined(d, d->home.configs, "/demo_retina_pd_a_r18.json");
    const char *cls = in_dir(d, "cls"), *backbone = in_dir(d, "cls/best.safetensors");
    const char *det = in_dir(d, "det"), *detector = in_dir(d, "det/best.safetensors");
    const char *folded = in_dir(d, "folded.safetensors");

    PD_TRY(run(d, "draw the data", in_dir(d, "shapes.txt"),
               ARGS("pd_make_shapes", shapes, "--seed", seed, "--crops", "200", "--difficulty", "0.4"), err));
    PD_TRY(run(d, "pretrain PD-A-ResNet-18", NULL,
               ARGS("pd_cls_train", cls_config, "-d", classes, "--work-dir", cls, "--set", train_seed), err));
    PD_TRY(
        run(d, "train RetinaNet", NULL,
            ARGS("pd_det_train", det_config, "--backbone", backbone, "--work-dir", det, "--set", train_seed, "--set",
                 joined(d, "data.train.images=", train), "--set", joined(d, "data.train.annotations=", train_truth),
                 "--set", joined(d, "data.val.images=", val), "--set", joined(d, "data.val.annotations=", val_truth)),
            err));
    PD_TRY(run(d, "fold, with proof", in_dir(d, "fold.txt"), ARGS("pd_fold", detector, "-o", folded, "--images", val),
               err));
    PD_TRY(run(d, "detect, unfolded", NULL,
               ARGS("pd_detect", detector, val_truth, "--images", val, "-o", in_dir(d, "results.json")), err));
    return run(d, "detect, folded", NULL,
               ARGS("pd_detect", folded, val_truth, "--images", val, "-o", in_dir(d, "results_folded.json"), "--draw",
                    in_dir(d, "pictures")),
               err);
}

/* ---- the report ---- */

enum { ROWS = 2, COLUMNS = 8, STATS = COLUMNS - 2, PICTURES = 12 };
static const char *const columns[COLUMNS] = {"model", "AP", "AP50", "AP75", "APs", "APm", "APl", "file"};
static const struct {
    const char *name, *file, *results;
} models[ROWS] = {
    {"RetinaNet, PD-A-ResNet-18", "det/best.safetensors", "results.json"},
    {"the same, folded", "folded.safetensors", "results_folded.json"},
};

typedef struct table {
    const char *cells[ROWS * COLUMNS];
} table;

static pd_status evaluate(demo *d, const pd_coco_gt *gt, const char *results, double stats[STATS], pd_err *err)
{
    pd_coco_dt *dt = NULL;
    pd_coco_result *r = NULL;
    pd_status status = pd_coco_dt_open(&dt, gt, in_dir(d, results), NULL, NULL, err);
    if (status == PD_OK) status = pd_coco_evaluate(&r, gt, dt, NULL, NULL, err);
    if (status == PD_OK) memcpy(stats, r->stats, STATS * sizeof *stats);
    pd_coco_result_free(r);
    pd_coco_dt_close(dt);
    return status;
}

/* The table's row of one model. */
static pd_status make_row(demo *d, const char **cells, int model, const pd_coco_gt *gt, pd_err *err)
{
    double stats[STATS];
    pd_bytes file;
    char *text;
    PD_TRY(evaluate(d, gt, models[model].results, stats, err));
    cells[0] = models[model].name;
    for (int i = 0; i < STATS; i++) {
        PD_TRY(pd_format(&text, d->arena, err, "%.3f", stats[i]));
        cells[i + 1] = stats[i] < 0 ? "-" : text; /* -1: there is no object of that size */
    }
    PD_TRY(pd_file_map(&file, in_dir(d, models[model].file), err));
    const pd_status status = pd_format(&text, d->arena, err, "%.0f MB", (double)file.size / 1e6);
    pd_file_unmap(&file);
    cells[COLUMNS - 1] = text;
    return status;
}

static pd_status make_table(demo *d, table *t, pd_err *err)
{
    pd_coco_gt *gt;
    PD_TRY(pd_coco_gt_open(&gt, in_dir(d, "shapes/coco/annotations/instances_val.json"), NULL, NULL, err));
    pd_status status = PD_OK;
    for (int r = 0; r < ROWS && status == PD_OK; r++) status = make_row(d, &t->cells[r * COLUMNS], r, gt, err);
    pd_coco_gt_close(gt);
    return status;
}

/* A series of a run's log as a curve. */
static pd_status curve(demo *d, pd_report_curve *out, const char *label, const char *log, const char *kind,
                       const char *name, pd_err *err)
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
    enum { CURVES = 6 };
    static const struct {
        const char *label, *log, *kind, *name;
    } from[CURVES] = {
        {"training", "cls/log.jsonl", "train", "loss"},
        {"top-1 on the validation set", "cls/log.jsonl", "val", "top1"},
        {"classes", "det/log.jsonl", "train", "loss_cls"},
        {"boxes", "det/log.jsonl", "train", "loss_bbox"},
        {"AP", "det/log.jsonl", "val", "AP"},
        {"AP50", "det/log.jsonl", "val", "AP50"},
    };
    pd_report_curve c[CURVES];
    for (int i = 0; i < CURVES; i++)
        PD_TRY(curve(d, &c[i], from[i].label, from[i].log, from[i].kind, from[i].name, err));
    const pd_report_chart charts[] = {
        {.title = "Backbone: loss", .x_label = "step", .curves = &c[0], .n_curves = 1},
        {.title = "Backbone: top-1, per cent", .x_label = "step", .curves = &c[1], .n_curves = 1},
        {.title = "RetinaNet: losses", .x_label = "step", .curves = &c[2], .n_curves = 2},
        {.title = "RetinaNet: AP on the validation set", .x_label = "step", .curves = &c[4], .n_curves = 2},
    };
    static const char *const time_columns[] = {"stage", "seconds"};
    const char *times[MOST_STAGES * 2];
    for (int i = 0; i < d->n_stages; i++) {
        char *seconds_text;
        PD_TRY(pd_format(&seconds_text, d->arena, err, "%.0f", d->stages[i].seconds));
        times[2 * i] = d->stages[i].what;
        times[2 * i + 1] = seconds_text;
    }
    const pd_report_table tables[] = {
        {"Validation set", columns, COLUMNS, t->cells, ROWS},
        {"Time", time_columns, 2, times, (size_t)d->n_stages},
    };
    pd_report_image images[PICTURES];
    char **names;
    size_t n_images;
    PD_TRY(pd_list_dir(&names, &n_images, in_dir(d, "pictures"), 'f', d->arena, err));
    if (n_images > PICTURES) n_images = PICTURES;
    for (size_t i = 0; i < n_images; i++)
        images[i] = (pd_report_image){.path = joined(d, in_dir(d, "pictures/"), names[i]), .caption = names[i]};
    char time[32];
    pd_duration_text(time, seconds);
    const char *const *folded = &t->cells[COLUMNS];
    const pd_report_fact facts[] = {{"AP, folded", folded[1]}, {"AP50, folded", folded[2]}, {"time", time}};
    const pd_report report = {.title = "ParaDise: the demonstration",
                              .subtitle = "Drawn shapes: a detector trained from nothing, folded and evaluated",
                              .facts = facts,
                              .n_facts = sizeof facts / sizeof *facts,
                              .charts = charts,
                              .n_charts = sizeof charts / sizeof *charts,
                              .tables = tables,
                              .n_tables = sizeof tables / sizeof *tables,
                              .images = images,
                              .n_images = n_images};
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

int main(int argc, char **argv)
{
    demo d = {.seed = 1};
    const pd_opt opts[] = {
        PD_OPT_INT64(0, "seed", "N", &d.seed, 0, 9e15, "other pictures, weights and order"),
        PD_OPT_STRING(0, "configs", "DIR", &d.home.configs, "where demo_*.json are"),
    };
    const pd_cli cli = {.program = "pd_demo",
                        .usage = "DIR",
                        .about = "Draws data, trains a backbone and a detector, folds, evaluates, reports; all in DIR.",
                        .example = "pd_demo runs/demo",
                        .opts = opts,
                        .n_opts = sizeof opts / sizeof *opts,
                        .min_args = 1,
                        .max_args = 1};
    pd_cli_args args;
    const int code = pd_cli_parse(&args, &cli, argc, argv);
    if (code >= 0) return code;
    pd_cli_catch_stop(); /* Ctrl-C reaches the program that runs, which ends in order; so does this one */
    const double start = pd_seconds();
    table t = {0};
    pd_err err = PD_ERR_INIT;
    d.dir = args.args[0];
    d.arena = pd_arena_new();
    pd_status status = d.arena ? PD_OK : PD_FAIL(&err, PD_ENOMEM, "out of memory");
    if (status == PD_OK) status = pd_home_find(&d.home, d.home.configs, d.arena, &err);
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
