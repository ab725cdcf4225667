/* pd_table: the six rows of the published detection table on a data set of one's own: RetinaNet and Cascade R-CNN with
 * a ResNet, PD-A and PD-B. Pretrains the three backbones, trains the six detectors, prints the table. Can be stopped
 * and started again at any time: what is done is not done twice. */
#include "backbones/resnet.h"
#include "engine/file.h"
#include "engine/log.h"
#include "tools/cli.h"
#include "tools/program.h"

#include <math.h>
#include <string.h>

enum { STATS = 6, FAMILIES = 3, DETECTORS = 2, MOST_ARGS = 64, MOST_SEEDS = 16, TITLE = 64 };
static const char *const stats[STATS] = {"AP", "AP50", "AP75", "APs", "APm", "APl"};

static const struct {
    const char *prefix, *title; /* of architectures; of people */
} families[FAMILIES] = {{"", ""}, {"pd_a_", "PD-A-"}, {"pd_b_", "PD-B-"}};

static const struct {
    const char *config, *title;
} detectors[DETECTORS] = {{"small_retina", "RetinaNet"}, {"small_cascade", "Cascade R-CNN"}};

typedef struct options {
    const char *classes, *boxes, *configs, *only;
    int depth, seeds, cls_epochs, det_epochs;
    int64_t seed;
} options;

typedef struct job {
    const options *o;
    const char *dir;
    const pd_cli_args *args; /* --set is for the detectors, the rest for all */
    pd_home home;
    pd_arena *arena;
} job;

/* A row's measures, one of each seed. */
typedef struct row {
    double ap[MOST_SEEDS][STATS];
} row;

/* ---- runs ---- */

typedef struct command {
    const char *argv[MOST_ARGS + 1];
    int n;
} command;

static void add(command *c, const char *arg)
{
    if (c->n < MOST_ARGS) c->argv[c->n++] = arg;
}

/* "--set key=value", formatted. */
static pd_status add_set(command *c, const job *j, pd_err *err, const char *key, const char *value)
{
    char *text;
    PD_TRY(pd_format(&text, j->arena, err, "%s=%s", key, value));
    add(c, "--set");
    add(c, text);
    return PD_OK;
}

static pd_status add_number(command *c, const job *j, pd_err *err, const char *key, int64_t value)
{
    char *text;
    PD_TRY(pd_format(&text, j->arena, err, "%lld", (long long)value));
    return add_set(c, j, err, key, text);
}

static pd_status begin(command *c, const job *j, const char *program, const char *config, const char *dir, int64_t seed,
                       pd_err *err)
{
    char *path, *file;
    *c = (command){.n = 0};
    PD_TRY(pd_path_join(&path, j->home.bin, program, j->arena, err));
    PD_TRY(pd_format(&file, j->arena, err, "%s/%s.json", j->home.configs, config));
    add(c, path);
    add(c, file);
    add(c, "--work-dir");
    add(c, dir);
    add(c, "--resume");
    add(c, "auto");
    add(c, "--device");
    add(c, j->args->device);
    if (j->args->precision) {
        add(c, "--precision");
        add(c, j->args->precision);
    }
    if (j->args->quiet) add(c, "--quiet");
    if (j->args->threads) {
        char *threads;
        PD_TRY(pd_format(&threads, j->arena, err, "%d", j->args->threads));
        add(c, "--threads");
        add(c, threads);
    }
    return add_number(c, j, err, "train.seed", seed);
}

/* The folder of a run: DIR/cls_pd_a_resnet50_1. */
static pd_status run_dir(char **out, const job *j, const char *kind, const char *arch, int64_t seed, pd_err *err)
{
    return pd_format(out, j->arena, err, "%s/%s_%s_%lld", j->dir, kind, arch, (long long)seed);
}

static pd_status train_backbone(const job *j, const char *arch, int64_t seed, pd_err *err)
{
    command c;
    char *dir, *what;
    PD_TRY(run_dir(&dir, j, "cls", arch, seed, err));
    PD_TRY(begin(&c, j, "pd_cls_train", "small_cls", dir, seed, err));
    PD_TRY(add_set(&c, j, err, "model.arch", arch));
    PD_TRY(add_set(&c, j, err, "data.root", j->o->classes));
    if (j->o->cls_epochs >= 0) PD_TRY(add_number(&c, j, err, "train.epochs", j->o->cls_epochs));
    PD_TRY(pd_format(&what, j->arena, err, "pretrain %s, seed %lld", arch, (long long)seed));
    return pd_program_run(what, c.argv, NULL, err);
}

static pd_status train_detector(const job *j, int detector, const char *arch, int64_t seed, pd_err *err)
{
    static const char *const keys[4] = {"data.train.images", "data.train.annotations", "data.val.images",
                                        "data.val.annotations"};
    static const char *const parts[4] = {"train", "annotations/instances_train.json", "val",
                                         "annotations/instances_val.json"};
    command c;
    char *dir, *what, *cls, *backbone;
    PD_TRY(run_dir(&dir, j, detectors[detector].config, arch, seed, err));
    PD_TRY(run_dir(&cls, j, "cls", arch, seed, err));
    PD_TRY(pd_path_join(&backbone, cls, "best.safetensors", j->arena, err));
    PD_TRY(begin(&c, j, "pd_det_train", detectors[detector].config, dir, seed, err));
    add(&c, "--backbone");
    add(&c, backbone);
    PD_TRY(add_set(&c, j, err, "model.backbone.arch", arch));
    for (int i = 0; i < 4; i++) {
        char *path;
        PD_TRY(pd_path_join(&path, j->o->boxes, parts[i], j->arena, err));
        PD_TRY(add_set(&c, j, err, keys[i], path));
    }
    if (j->o->det_epochs >= 0) PD_TRY(add_number(&c, j, err, "train.epochs", j->o->det_epochs));
    for (size_t i = 0; i < j->args->set.count; i++) {
        add(&c, "--set");
        add(&c, j->args->set.items[i]);
    }
    if (c.n == MOST_ARGS) return PD_FAIL(err, PD_EINVAL, "too many --set");
    PD_TRY(pd_format(&what, j->arena, err, "%s, %s, seed %lld", detectors[detector].title, arch, (long long)seed));
    return pd_program_run(what, c.argv, NULL, err);
}

/* The measures of the validation with the best AP. */
static pd_status read_best(double out[STATS], const job *j, int detector, const char *arch, int64_t seed, pd_err *err)
{
    pd_log_series *series;
    const pd_log_series *s[STATS];
    size_t count, best = 0;
    char *dir, *path;
    PD_TRY(run_dir(&dir, j, detectors[detector].config, arch, seed, err));
    PD_TRY(pd_path_join(&path, dir, "log.jsonl", j->arena, err));
    PD_TRY(pd_log_read(&series, &count, path, j->arena, err));
    for (int i = 0; i < STATS; i++) {
        s[i] = pd_log_find(series, count, "val", stats[i]);
        if (!s[i] || !s[i]->count || s[i]->count != s[0]->count)
            return PD_FAIL(err, PD_EFORMAT, "%s: no validation with %s in it", path, stats[i]);
    }
    for (size_t k = 1; k < s[0]->count; k++)
        if (s[0]->points[k].value > s[0]->points[best].value) best = k;
    for (int i = 0; i < STATS; i++) out[i] = s[i]->points[best].value;
    return PD_OK;
}

/* ---- the table ---- */

/* In per cent, with half the spread where there are several seeds. -1: no object of that size. */
static void print_cell(const row *r, int stat, int seeds)
{
    double sum = 0, low = INFINITY, high = -INFINITY;
    for (int i = 0; i < seeds; i++) {
        const double v = r->ap[i][stat];
        sum += v;
        low = fmin(low, v);
        high = fmax(high, v);
    }
    if (low < 0)
        printf(" - |");
    else if (seeds == 1)
        printf(" %.1f |", 100 * sum);
    else
        printf(" %.1f +- %.1f |", 100 * sum / seeds, 50 * (high - low));
}

/* "RetinaNet, PD-A-ResNet-18". */
static void row_title(char title[TITLE], const options *o, int detector, int family)
{
    snprintf(title, TITLE, "%s, %sResNet-%d", detectors[detector].title, families[family].title, o->depth);
}

/* Is this row wanted? */
static bool chosen(const options *o, int detector, int family)
{
    char title[TITLE];
    row_title(title, o, detector, family);
    return !o->only || strstr(title, o->only);
}

static void print_table(const options *o, const row *rows)
{
    char title[TITLE];
    printf("| detector, backbone |");
    for (int i = 0; i < STATS; i++) printf(" %s |", stats[i]);
    printf("\n| --- |");
    for (int i = 0; i < STATS; i++) printf(" --- |");
    printf("\n");
    for (int d = 0; d < DETECTORS; d++)
        for (int f = 0; f < FAMILIES; f++) {
            if (!chosen(o, d, f)) continue;
            row_title(title, o, d, f);
            printf("| %s |", title);
            for (int i = 0; i < STATS; i++) print_cell(&rows[d * FAMILIES + f], i, o->seeds);
            printf("\n");
        }
}

static pd_status run_all(job *j, pd_err *err)
{
    row rows[DETECTORS * FAMILIES];
    char *arch[FAMILIES];
    PD_TRY(pd_home_find(&j->home, j->o->configs, j->arena, err));
    PD_TRY(pd_make_dirs(j->dir, err));
    for (int f = 0; f < FAMILIES; f++)
        PD_TRY(pd_format(&arch[f], j->arena, err, "%sresnet%d", families[f].prefix, j->o->depth));
    for (int s = 0; s < j->o->seeds; s++) {
        const int64_t seed = j->o->seed + s;
        for (int f = 0; f < FAMILIES; f++)
            if (chosen(j->o, 0, f) || chosen(j->o, 1, f)) PD_TRY(train_backbone(j, arch[f], seed, err));
        for (int d = 0; d < DETECTORS; d++)
            for (int f = 0; f < FAMILIES; f++) {
                if (!chosen(j->o, d, f)) continue;
                PD_TRY(train_detector(j, d, arch[f], seed, err));
                PD_TRY(read_best(rows[d * FAMILIES + f].ap[s], j, d, arch[f], seed, err));
            }
    }
    print_table(j->o, rows);
    return PD_OK;
}

int main(int argc, char **argv)
{
    options o = {.depth = 50, .seeds = 1, .seed = 1, .cls_epochs = -1, .det_epochs = -1};
    const pd_opt opts[] = {
        PD_OPT_STRING(0, "classes", "DIR", &o.classes, "pretraining: folder with train/CLASS/* and val/CLASS/*"),
        PD_OPT_STRING(0, "boxes", "DIR", &o.boxes, "train/, val/, annotations/instances_{train,val}.json"),
        PD_OPT_INT(0, "depth", "N", &o.depth, 18, 152, "of the ResNets: 18, 34, 50 (default), 101, 152"),
        PD_OPT_INT(0, "cls-epochs", "N", &o.cls_epochs, 0, 100000, "of pretraining (small_cls.json: 10)"),
        PD_OPT_INT(0, "det-epochs", "N", &o.det_epochs, 0, 100000, "of detectors (small_*.json: 12)"),
        PD_OPT_INT(0, "seeds", "N", &o.seeds, 1, MOST_SEEDS, "trainings of each row: mean and half the spread (1)"),
        PD_OPT_INT64(0, "seed", "N", &o.seed, 0, 9e15 - MOST_SEEDS, "the first (1)"),
        PD_OPT_STRING(0, "only", "TEXT", &o.only, "only rows with TEXT in their title: \"RetinaNet, PD-A\""),
        PD_OPT_STRING(0, "configs", "DIR", &o.configs, "where small_*.json are"),
    };
    const pd_cli cli = {.program = "pd_table",
                        .usage = "DIR",
                        .about =
                            "Trains RetinaNet and Cascade R-CNN with ResNet, PD-A and PD-B backbones on small data "
                            "into DIR and prints their APs. Goes on where it was stopped. --set: for the detectors.",
                        .example = "pd_table runs/table --classes imagenette-160 --boxes bccd",
                        .opts = opts,
                        .n_opts = sizeof opts / sizeof *opts,
                        .common = PD_CLI_DEVICE | PD_CLI_THREADS | PD_CLI_QUIET | PD_CLI_SET,
                        .min_args = 1,
                        .max_args = 1};
    pd_cli_args args;
    const int code = pd_cli_parse(&args, &cli, argc, argv);
    if (code >= 0) return code;
    if (!o.classes || !o.boxes) {
        pd_cli_free(&args);
        return pd_cli_wrong(&cli, "--classes and --boxes are needed");
    }
    int rows = 0;
    for (int i = 0; i < DETECTORS * FAMILIES; i++) rows += chosen(&o, i / FAMILIES, i % FAMILIES);
    if (!rows) {
        pd_cli_free(&args);
        return pd_cli_wrong(&cli, "--only \"%s\": no row has that in its title", o.only);
    }
    bool bottleneck;
    if (!pd_depth_blocks(o.depth, &bottleneck)) {
        pd_cli_free(&args);
        return pd_cli_wrong(&cli, "--depth %d: there are 18, 34, 50, 101 and 152", o.depth);
    }
    pd_cli_catch_stop();
    pd_err err = PD_ERR_INIT;
    job j = {.o = &o, .dir = args.args[0], .args = &args, .arena = pd_arena_new()};
    const pd_status status = j.arena ? run_all(&j, &err) : PD_FAIL(&err, PD_ENOMEM, "out of memory");
    pd_arena_free(j.arena);
    const int result = pd_cli_close_stdout(&cli, status == PD_OK ? 0 : pd_cli_fail(&cli, &err));
    pd_cli_free(&args);
    return result;
}
