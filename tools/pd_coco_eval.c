/* pd_coco_eval: COCO AP of one results file, or a table of several, equal to pycocotools to the last bit. */
#include "eval/coco_ap.h"
#include "tools/cli.h"
#include "tools/coco_check_files.h"
#include "tools/coco_html.h"
#include "tools/coco_output.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_SCORE 0.3 /* detections of the page's confusion matrix */

/* The command line. */
typedef struct options {
    const char *iou_type, *areas, *categories, *images, *image_dir, *json, *arrays, *html;
    pd_numbers limits, thresholds, sigmas;
    bool check, curves, tide;
    double boundary;
    double confusion; /* score; below 0: not asked for */
    int bootstrap;    /* resamples */
    int64_t seed;
    bool lvis, no_categories, classwise, markdown, skip_unknown, unique_ids, area_from_box, default_iscrowd;
} options;

typedef struct session {
    const pd_cli *cli;
    const pd_cli_args *args;
    const options *opt;
    pd_arena *arena;
    pd_pool *pool;
    pd_coco_gt *gt;
    pd_coco_params params;
    pd_coco_run *runs;
    size_t n_runs;
    pd_coco_difference (*differences)[PD_COCO_METRICS]; /* (runs) of run i to run 0; entry 0 is unused */
} session;

/* ---- parameters ---- */

static pd_status read_type(pd_coco_type *out, const char *text, pd_err *err)
{
    for (int type = PD_COCO_BBOX; type <= PD_COCO_KEYPOINTS; type++)
        if (!text || !strcmp(text, pd_coco_type_name((pd_coco_type)type))) {
            *out = (pd_coco_type)type;
            return PD_OK;
        }
    return PD_FAIL(err, PD_EINVAL, "--iou-type %s: expected bbox, segm or keypoints", text);
}

static pd_status read_limits(session *s, pd_err *err)
{
    const pd_numbers *const in = &s->opt->limits;
    if (!in->items) return PD_OK;
    size_t *limits;
    PD_TRY(PD_ALLOC(&limits, s->arena, in->count, err));
    for (size_t i = 0; i < in->count; i++) {
        if (!(in->items[i] >= 1 && in->items[i] <= 1e9) || in->items[i] != floor(in->items[i]))
            return PD_FAIL(err, PD_EINVAL, "--max-dets: %g is not a whole number of 1 or more", in->items[i]);
        limits[i] = (size_t)in->items[i];
    }
    s->params.limits = limits;
    s->params.n_limits = in->count;
    return PD_OK;
}

/* "[[0, 1e10], [0, 1024]]". */
static pd_status read_areas(session *s, pd_err *err)
{
    if (!s->opt->areas) return PD_OK;
    pd_json_doc *doc = NULL;
    PD_TRY(pd_json_parse(&doc, "--area-rng", s->opt->areas, strlen(s->opt->areas), err));
    pd_status status = PD_OK;
    const pd_json *const list = pd_json_root(doc);
    pd_coco_range *areas = NULL;
    size_t n = 0;
    if (pd_json_type(list) == PD_JSON_ARRAY) PD_TRY_DONE(PD_ALLOC(&areas, s->arena, pd_json_count(list) + 1, err));
    for (const pd_json *pair = areas ? pd_json_first(list) : NULL; pair; pair = pd_json_next(pair), n++) {
        const pd_json *const low = pd_json_first(pair), *const high = low ? pd_json_next(low) : NULL;
        if (pd_json_type(pair) != PD_JSON_ARRAY || !high || pd_json_next(high) || pd_json_type(low) != PD_JSON_NUMBER ||
            pd_json_type(high) != PD_JSON_NUMBER) {
            n = 0;
            break;
        }
        areas[n] = (pd_coco_range){pd_json_number(low), pd_json_number(high)};
    }
    if (!n)
        status = PD_FAIL(err, PD_EINVAL,
                         "--area-rng %s: expected a list of pairs, all areas first, as [[0, 1e10], [0, 1024]]",
                         s->opt->areas);
    s->params.areas = areas;
    s->params.n_areas = n;
done:
    pd_json_close(doc);
    return status;
}

/* "1,2.5,text": each is an integer, a fraction, or text. */
static pd_status read_ids(session *s, const char *text, const pd_coco_id **out, size_t *count, pd_err *err)
{
    if (!text) return PD_OK;
    size_t n = 1;
    for (const char *p = text; *p; p++) n += *p == ',';
    pd_coco_id *ids;
    char *copy;
    PD_TRY(PD_ALLOC(&ids, s->arena, n, err));
    PD_TRY(pd_strdup(&copy, s->arena, text, err));
    n = 0;
    for (char *word = strsep(&copy, ","); word; word = strsep(&copy, ",")) {
        char *end_whole, *end_real;
        const long long whole = strtoll(word, &end_whole, 10);
        const double real = strtod(word, &end_real);
        if (*word && !*end_whole)
            ids[n++] = pd_coco_int_id(whole);
        else if (*word && !*end_real)
            ids[n++] =
                real == floor(real) ? pd_coco_int_id((int64_t)real) : (pd_coco_id){PD_COCO_ID_REAL, 0, real, NULL};
        else
            ids[n++] = (pd_coco_id){PD_COCO_ID_TEXT, 0, 0, word};
    }
    *out = ids;
    *count = n;
    return PD_OK;
}

static pd_status read_params(session *s, pd_err *err)
{
    const options *const o = s->opt;
    pd_coco_params *const p = &s->params;
    PD_TRY(read_type(&p->type, o->iou_type, err));
    PD_TRY(read_limits(s, err));
    PD_TRY(read_areas(s, err));
    PD_TRY(read_ids(s, o->images, &p->images, &p->n_images, err));
    PD_TRY(read_ids(s, o->categories, &p->categories, &p->n_categories, err));
    for (size_t i = 0; i < o->thresholds.count; i++)
        if (!(o->thresholds.items[i] > 0 && o->thresholds.items[i] <= 1))
            return PD_FAIL(err, PD_EINVAL, "--iou-thrs: %g is not above 0 and at most 1", o->thresholds.items[i]);
    if (o->sigmas.count && p->type != PD_COCO_KEYPOINTS)
        return PD_FAIL(err, PD_EINVAL, "--sigmas goes with --iou-type keypoints");
    p->iou_thrs = o->thresholds.items;
    p->n_iou = o->thresholds.count;
    p->sigmas = o->sigmas.items;
    p->n_sigmas = o->sigmas.count;
    p->boundary = o->boundary;
    p->lvis = o->lvis;
    p->no_categories = o->no_categories;
    p->keep = (o->arrays ? PD_COCO_KEEP_ARRAYS : 0) | (o->curves || o->bootstrap || o->html ? PD_COCO_KEEP_MATCHES : 0);
    return PD_OK;
}

/* ---- notes on standard error ---- */

static void note(const session *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void note(const session *s, const char *fmt, ...)
{
    if (s->args->quiet) return;
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "%s: note: ", s->cli->program);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
}

static void note_ground_truth(const session *s)
{
    const pd_coco_gt_notes *const n = pd_coco_gt_get_notes(s->gt);
    const char *const file = s->args->args[0];
    if (n->unlisted)
        note(s, "%s: %zu of %zu annotations are of images or categories that are not listed: left out", file,
             n->unlisted, n->annotations);
    if (n->repeated_ids)
        note(s,
             "%s: %zu annotations repeat an id: the last one of an id stands in for all, as in pycocotools "
             "(--unique-ids)",
             file, n->repeated_ids);
    if (n->id_zero && !s->opt->unique_ids)
        note(s, "%s: %zu annotations have id 0: a match to one counts as none, as in pycocotools (--unique-ids)", file,
             n->id_zero);
    if (n->ignore_keys && !s->opt->lvis)
        note(s, "%s: %zu annotations have \"ignore\" set: it has no effect, as in pycocotools", file, n->ignore_keys);
}

static void note_run(const session *s, const pd_coco_run *run)
{
    const pd_coco_result *const r = run->result;
    if (run->notes.unknown_categories)
        note(s, "%s: %zu of %zu records are of categories that the ground truth does not list: left out", run->file,
             run->notes.unknown_categories, run->notes.records);
    if (run->notes.unknown_images)
        note(s, "%s: %zu of %zu records are of images that the ground truth does not list: left out", run->file,
             run->notes.unknown_images, run->notes.records);
    if (run->notes.box_areas && r->type != PD_COCO_BBOX)
        note(s, "%s: records carry a box, so the box gives their area, as in pycocotools", run->file);
    if (r->stats[0] == -1 && r->ap_max > -1 && !s->opt->lvis)
        note(s, "%s: AP is looked up at %d detections, which is not among the limits; at %zu it is %.3f", run->file,
             r->type == PD_COCO_KEYPOINTS ? 20 : 100, r->limits[r->n_limits - 1], r->ap_max);
}

/* ---- the work ---- */

static unsigned reads(pd_coco_type type)
{
    return type == PD_COCO_SEGM ? PD_COCO_READ_MASKS : type == PD_COCO_KEYPOINTS ? PD_COCO_READ_KEYPOINTS : 0;
}

static pd_coco_bootstrap bootstrap_of(const session *s)
{
    return (pd_coco_bootstrap){(size_t)s->opt->bootstrap, 0.95, (uint64_t)s->opt->seed};
}

/* What was asked for beyond AP. */
static pd_status analyse(session *s, pd_coco_run *run, const pd_coco_dt *dt, pd_err *err)
{
    const options *const o = s->opt;
    const pd_coco_result *const r = run->result;
    const bool has_half = r->iou_thrs[0] == 0.5; /* the page shows what can be shown */
    const bool shapes = r->type != PD_COCO_KEYPOINTS;
    if (o->curves || (o->html && has_half))
        PD_TRY(pd_coco_make_curves(&run->curves, run->result, 0.5, s->pool, s->arena, err));
    if (o->confusion >= 0 || o->html) {
        const double score = o->confusion >= 0 ? o->confusion : DEFAULT_SCORE;
        PD_TRY(pd_coco_confuse(&run->confusion, s->gt, dt, &s->params, 0.5, score, s->pool, err));
        run->has_confusion = true;
    }
    if (o->tide || (o->html && shapes)) {
        PD_TRY(pd_tide_run(&run->tide, s->gt, dt, &s->params, 0.5, 0.1, s->pool, err));
        run->has_tide = true;
    }
    if (o->bootstrap) {
        const pd_coco_bootstrap how = bootstrap_of(s);
        PD_TRY(pd_coco_bootstrap_run(run->intervals, run->result, &how, s->pool, err));
        run->has_intervals = true;
    }
    return PD_OK;
}

static pd_status evaluate_file(session *s, pd_coco_run *run, pd_err *err)
{
    const pd_coco_dt_options how = {.read = reads(s->params.type), .skip_unknown_images = s->opt->skip_unknown};
    pd_coco_dt *dt = NULL;
    PD_TRY(pd_coco_dt_open(&dt, s->gt, run->file, &how, s->pool, err));
    run->notes = *pd_coco_dt_get_notes(dt);
    pd_status status = pd_coco_evaluate(&run->result, s->gt, dt, &s->params, s->pool, err);
    if (status == PD_OK) status = analyse(s, run, dt, err);
    pd_coco_dt_close(dt);
    return status;
}

/* Every results file against the first one. */
static pd_status compare_runs(session *s, pd_err *err)
{
    const pd_coco_bootstrap how = bootstrap_of(s);
    PD_TRY(PD_ALLOC(&s->differences, s->arena, s->n_runs, err));
    for (size_t i = 1; i < s->n_runs; i++)
        PD_TRY(pd_coco_bootstrap_compare(s->differences[i], s->runs[0].result, s->runs[i].result, &how, s->pool, err));
    return PD_OK;
}

static pd_status evaluate_all(session *s, pd_err *err)
{
    const pd_coco_gt_options how = {.read = reads(s->params.type) | (s->opt->lvis ? PD_COCO_READ_LVIS : 0),
                                    .unique_ids = s->opt->unique_ids,
                                    .area_from_box = s->opt->area_from_box,
                                    .default_iscrowd = s->opt->default_iscrowd};
    PD_TRY(pd_coco_gt_open(&s->gt, s->args->args[0], &how, s->pool, err));
    s->n_runs = s->args->n_args - 1;
    PD_TRY(PD_ALLOC(&s->runs, s->arena, s->n_runs, err));
    for (size_t i = 0; i < s->n_runs; i++) {
        s->runs[i].file = s->args->args[i + 1];
        PD_TRY(evaluate_file(s, &s->runs[i], err));
    }
    return s->opt->bootstrap ? compare_runs(s, err) : PD_OK;
}

static pd_status write_json(const session *s, pd_err *err)
{
    pd_json_writer *const w = pd_json_object();
    pd_json_put_string(w, "ground_truth", s->args->args[0]);
    if (s->n_runs == 1) {
        pd_coco_put_run(w, &s->runs[0], s->gt);
    } else {
        pd_json_begin_array(w, "results");
        for (size_t i = 0; i < s->n_runs; i++) {
            pd_json_begin_object(w, NULL);
            pd_coco_put_run(w, &s->runs[i], s->gt);
            pd_json_end(w);
        }
        pd_json_end(w);
        pd_json_begin_array(w, "comparisons");
        for (size_t i = 1; s->differences && i < s->n_runs; i++) {
            pd_json_begin_object(w, NULL);
            pd_coco_put_difference(w, s->runs[0].file, s->runs[i].file, s->differences[i]);
            pd_json_end(w);
        }
        pd_json_end(w);
    }
    return pd_json_save(s->opt->json, w, false, err);
}

static void print_more(const session *s, const pd_coco_run *run)
{
    const options *const o = s->opt;
    if (s->n_runs > 1 && (o->classwise || o->curves || o->tide || o->confusion >= 0 || o->bootstrap))
        printf("\n%s%s\n", o->markdown ? "### " : "", run->file);
    if (o->classwise) {
        fputc('\n', stdout);
        pd_coco_print_categories(stdout, run->result, o->markdown);
    }
    if (o->curves) {
        fputc('\n', stdout);
        pd_coco_print_best(stdout, run->curves);
    }
    if (o->confusion >= 0) {
        fputc('\n', stdout);
        pd_coco_print_confusion(stdout, &run->confusion, s->gt, o->markdown);
    }
    if (o->tide) {
        fputc('\n', stdout);
        pd_coco_print_tide(stdout, &run->tide, o->markdown);
    }
    if (run->has_intervals) {
        const pd_coco_bootstrap how = bootstrap_of(s);
        fputc('\n', stdout);
        pd_coco_print_intervals(stdout, run->intervals, &how);
    }
}

static void print_results(const session *s)
{
    if (s->n_runs > 1 || s->opt->markdown)
        pd_coco_print_table(stdout, s->runs, s->n_runs, s->opt->markdown);
    else
        pd_coco_print_summary(stdout, s->runs[0].result);
    for (size_t i = 0; i < s->n_runs; i++) print_more(s, &s->runs[i]);
    for (size_t i = 1; s->differences && i < s->n_runs; i++) {
        fputc('\n', stdout);
        pd_coco_print_difference(stdout, s->runs[0].file, s->runs[i].file, s->differences[i]);
    }
}

static pd_status run(session *s, pd_err *err)
{
    PD_TRY(pd_pool_new(&s->pool, s->args->threads, err));
    PD_TRY(evaluate_all(s, err));
    if (s->opt->json) PD_TRY(write_json(s, err));
    if (s->opt->html)
        PD_TRY(pd_coco_write_html(s->opt->html, s->args->args[0], s->runs, s->n_runs, s->differences, s->gt, err));
    if (s->opt->arrays) PD_TRY(pd_coco_dump_arrays(s->runs[0].result, s->opt->arrays, err));
    note_ground_truth(s); /* not before all has gone well: a failure is one line */
    for (size_t i = 0; i < s->n_runs; i++) note_run(s, &s->runs[i]);
    print_results(s);
    return PD_OK;
}

/* --check: the report instead of an evaluation. */
static pd_status check_files(session *s, bool *good, pd_err *err)
{
    const char *const dt = s->args->n_args > 1 ? s->args->args[1] : NULL;
    size_t errors = 0;
    PD_TRY(pd_pool_new(&s->pool, s->args->threads, err));
    PD_TRY(pd_coco_check_files(stdout, s->args->args[0], dt, s->opt->image_dir, s->pool, &errors, err));
    *good = errors == 0;
    if (errors) fprintf(stderr, "%s: %zu error%s\n", s->cli->program, errors, errors > 1 ? "s" : "");
    return PD_OK;
}

int main(int argc, char **argv)
{
    options o = {.confusion = -1};
    const pd_opt opts[] = {
        PD_OPT_STRING(0, "iou-type", "TYPE", &o.iou_type, "bbox (default), segm or keypoints"),
        PD_OPT_NUMBERS(0, "max-dets", "LIST", &o.limits, "detections an image and category [1,10,100; keypoints 20]"),
        PD_OPT_NUMBERS(0, "iou-thrs", "LIST", &o.thresholds, "IoU thresholds [0.50,0.55 .. 0.95]"),
        PD_OPT_STRING(0, "area-rng", "JSON", &o.areas, "areas, all first: [[0,1e10],[0,1024],[1024,9216],[9216,1e10]]"),
        PD_OPT_NUMBERS(0, "sigmas", "LIST", &o.sigmas, "keypoints: one a point [COCO's 17 of a person]"),
        PD_OPT_DOUBLE(0, "boundary", "RATIO", &o.boundary, 0, 1, "segm: boundary AP, usually 0.02 of the diagonal"),
        PD_OPT_FLAG(0, "lvis", &o.lvis, "LVIS's federated AP: thirteen numbers, 300 detections an image"),
        PD_OPT_FLAG(0, "no-cats", &o.no_categories, "all categories as one"),
        PD_OPT_STRING(0, "cat-ids", "LIST", &o.categories, "these categories only"),
        PD_OPT_STRING(0, "img-ids", "LIST", &o.images, "these images only"),
        PD_OPT_FLAG(0, "classwise", &o.classwise, "also a row for each category"),
        PD_OPT_FLAG(0, "curves", &o.curves, "best F1 threshold; with --json precision, recall, F1 over scores"),
        PD_OPT_DOUBLE(0, "confusion", "SCORE", &o.confusion, 0, 1, "confusion matrix of detections from this score on"),
        PD_OPT_FLAG(0, "tide", &o.tide, "TIDE: what each type of error costs"),
        PD_OPT_INT(0, "bootstrap", "N", &o.bootstrap, 2, 1000000,
                   "confidence intervals from N resamples; compares results"),
        PD_OPT_INT64(0, "seed", "N", &o.seed, 0, 9007199254740992.0, "of the resamples [0]"),
        PD_OPT_FLAG(0, "markdown", &o.markdown, "tables as Markdown"),
        PD_OPT_STRING(0, "json", "FILE", &o.json, "write everything as JSON"),
        PD_OPT_STRING(0, "html", "FILE", &o.html, "write a page with curves, confusion, errors, categories"),
        PD_OPT_STRING(0, "dump-arrays", "FILE", &o.arrays, "write precision, recall, scores as doubles"),
        PD_OPT_FLAG(0, "check", &o.check, "look the files over instead: GT.json [DT.json]; exit 1 on errors"),
        PD_OPT_STRING(0, "images", "DIR", &o.image_dir, "with --check: the pictures too"),
        PD_OPT_FLAG(0, "skip-unknown-images", &o.skip_unknown, "leave out results of images that GT does not list"),
        PD_OPT_FLAG(0, "unique-ids", &o.unique_ids, "each annotation counts, whatever its id (0, repeated)"),
        PD_OPT_FLAG(0, "area-from-box", &o.area_from_box, "an object without area has w * h"),
        PD_OPT_FLAG(0, "default-iscrowd", &o.default_iscrowd, "an object without iscrowd is none"),
    };
    const pd_cli cli = {.program = "pd_coco_eval",
                        .usage = "GT.json DT.json [DT2.json ...]",
                        .about =
                            "COCO average precision and recall, equal to pycocotools to the last bit. Several results "
                            "give one table.",
                        .example = "pd_coco_eval instances_val2017.json results.json --classwise --json ap.json",
                        .opts = opts,
                        .n_opts = sizeof opts / sizeof *opts,
                        .common = PD_CLI_THREADS | PD_CLI_QUIET,
                        .min_args = 1,
                        .max_args = -1};
    pd_cli_args args;
    const int code = pd_cli_parse(&args, &cli, argc, argv);
    if (code >= 0) return code;
    pd_err err = PD_ERR_INIT;
    session s = {.cli = &cli, .args = &args, .opt = &o, .arena = pd_arena_new()};
    bool good = true;
    pd_status status = s.arena ? read_params(&s, &err) : PD_FAIL(&err, PD_ENOMEM, "out of memory");
    const char *const wrong = status != PD_OK && status != PD_ENOMEM ? err.text
                              : !o.check && args.n_args < 2 ? "a results file is wanted behind the ground truth"
                              : o.check && args.n_args > 2 ? "--check takes a ground truth and at most one results file"
                              : o.image_dir && !o.check    ? "--images goes with --check"
                              : o.arrays && args.n_args != 2 ? "--dump-arrays takes one results file"
                                                             : NULL;
    if (wrong) {
        const int usage = pd_cli_wrong(&cli, "%s", wrong);
        pd_arena_free(s.arena);
        pd_cli_free(&args);
        return usage;
    }
    if (status == PD_OK) status = o.check ? check_files(&s, &good, &err) : run(&s, &err);
    for (size_t i = 0; i < s.n_runs; i++) {
        pd_coco_result_free(s.runs[i].result);
        free(s.runs[i].confusion.counts);
    }
    pd_coco_gt_close(s.gt);
    pd_pool_free(s.pool);
    pd_arena_free(s.arena);
    const int result = status != PD_OK ? pd_cli_fail(&cli, &err) : good ? 0 : 1;
    pd_cli_free(&args);
    return pd_cli_close_stdout(&cli, result);
}
