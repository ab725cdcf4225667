#include "tools/coco_output.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

void pd_coco_print_summary(FILE *out, const pd_coco_result *r)
{
    for (int i = 0; i < r->n_stats; i++)
        if (*r->lines[i]) fprintf(out, "%s\n", r->lines[i]);
}

/* ---- tables ---- */

/* Columns on the screen that UTF-8 text takes, one a character. */
static int width_of(const char *text)
{
    int n = 0;
    for (const char *p = text; *p; p++) n += (*p & 0xc0) != 0x80;
    return n;
}

static void print_left(FILE *out, const char *text, int width)
{
    fprintf(out, "%s%*s", text, width - width_of(text), "");
}

/* The stats that the table of several files shows: the APs. */
static int ap_columns(const pd_coco_result *r)
{
    return r->type == PD_COCO_KEYPOINTS ? 5 : 6;
}

void pd_coco_print_table(FILE *out, const pd_coco_run *runs, size_t n, bool markdown)
{
    const pd_coco_result *const first = runs[0].result;
    const int columns = ap_columns(first);
    int width = 7;
    for (size_t i = 0; i < n; i++) width = width_of(runs[i].file) > width ? width_of(runs[i].file) : width;
    fprintf(out, "%s", markdown ? "| " : "");
    print_left(out, "results", width);
    for (int c = 0; c < columns; c++) fprintf(out, markdown ? " | %6s" : " %7s", first->names[c]);
    fprintf(out, markdown ? " |\n|" : "\n");
    if (markdown) {
        for (int i = 0; i < width + 2; i++) fputc('-', out);
        for (int c = 0; c < columns; c++) fprintf(out, "|-------:");
        fprintf(out, "|\n");
    }
    for (size_t i = 0; i < n; i++) {
        fprintf(out, "%s", markdown ? "| " : "");
        print_left(out, runs[i].file, width);
        for (int c = 0; c < columns; c++) fprintf(out, markdown ? " | %6.3f" : " %7.3f", runs[i].result->stats[c]);
        fprintf(out, markdown ? " |\n" : "\n");
    }
}

static const char *label_of(const pd_coco_category_ap *row, char id[PD_COCO_ID_ROOM])
{
    return *row->name ? row->name : pd_coco_id_format(id, row->id);
}

void pd_coco_print_categories(FILE *out, const pd_coco_result *r, bool markdown)
{
    static const char *const heads[] = {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR", "objects"};
    const bool points = r->type == PD_COCO_KEYPOINTS;
    char id[PD_COCO_ID_ROOM];
    int width = 8;
    for (size_t k = 0; k < r->n_categories; k++) {
        const int w = width_of(label_of(&r->categories[k], id));
        width = w > width ? w : width;
    }
    fprintf(out, "%s", markdown ? "| " : "");
    print_left(out, "category", width);
    for (int c = 0; c < 8; c++)
        if (c != 3 || !points) fprintf(out, markdown ? " | %7s" : " %7s", heads[c]);
    fprintf(out, markdown ? " |\n|" : "\n");
    if (markdown) {
        for (int i = 0; i < width + 2; i++) fputc('-', out);
        for (int c = 0; c < 8 - points; c++) fprintf(out, "|--------:");
        fprintf(out, "|\n");
    }
    for (size_t k = 0; k < r->n_categories; k++) {
        const pd_coco_category_ap *const row = &r->categories[k];
        const double values[] = {row->ap, row->ap50, row->ap75, row->ap_small, row->ap_medium, row->ap_large, row->ar};
        fprintf(out, "%s", markdown ? "| " : "");
        print_left(out, label_of(row, id), width);
        for (int c = 0; c < 7; c++)
            if (c != 3 || !points) fprintf(out, markdown ? " | %7.3f" : " %7.3f", values[c]);
        fprintf(out, markdown ? " | %7zu |\n" : " %7zu\n", row->objects);
    }
}

/* ---- beyond AP ---- */

const char *pd_coco_metric_name(pd_coco_metric metric)
{
    static const char *const names[] = {"AP", "AP50", "AP75"};
    return names[metric];
}

void pd_coco_print_tide(FILE *out, const pd_tide *t, bool markdown)
{
    fprintf(out, "TIDE at IoU %.2f: AP %.3f; what mending each error would gain\n", t->foreground, t->ap);
    if (markdown) fprintf(out, "\n| error |    gain |   count |\n|-------|--------:|--------:|\n");
    for (int i = 0; i < PD_TIDE_ERRORS; i++)
        fprintf(out, markdown ? "| %-5s | %7.3f | %7zu |\n" : " %-5s %7.3f  %zu\n", pd_tide_name((pd_tide_error)i),
                t->gain[i], t->count[i]);
    fprintf(out,
            markdown ? "| FP    | %7.3f |         |\n| FN    | %7.3f |         |\n" : " FP    %7.3f\n FN    %7.3f\n",
            t->false_positives, t->false_negatives);
}

/* a before b: more often; of equal count the earlier pair. */
static bool is_worse(pd_coco_mistake a, pd_coco_mistake b)
{
    if (a.count != b.count) return a.count > b.count;
    return a.object != b.object ? a.object < b.object : a.detected < b.detected;
}

size_t pd_coco_most_mistaken(pd_coco_mistake *out, size_t room, const pd_coco_confusion *c)
{
    size_t n = 0;
    for (size_t row = 0; row < c->n; row++)
        for (size_t column = 0; column < c->n; column++) {
            const pd_coco_mistake m = {row, column, c->counts[row * (c->n + 1) + column]};
            if (row == column || !m.count || (n == room && !is_worse(m, out[n - 1]))) continue;
            size_t at = n < room ? n++ : n - 1;
            for (; at > 0 && is_worse(m, out[at - 1]); at--) out[at] = out[at - 1];
            out[at] = m;
        }
    return n;
}

const char *pd_coco_category_label(const pd_coco_gt *gt, size_t i, char id[PD_COCO_ID_ROOM])
{
    if (i >= pd_coco_gt_category_count(gt)) return "background";
    const pd_coco_category *const c = pd_coco_gt_category(gt, i);
    return *c->name ? c->name : pd_coco_id_format(id, c->id);
}

void pd_coco_print_confusion(FILE *out, const pd_coco_confusion *c, const pd_coco_gt *gt, bool markdown)
{
    pd_coco_mistake top[20];
    const size_t n = pd_coco_most_mistaken(top, 20, c);
    fprintf(out, "Taken for another category most often (IoU %.2f, score %.2f)\n", c->iou, c->score);
    if (markdown) fprintf(out, "\n| object | detected as | times |\n|--------|-------------|------:|\n");
    for (size_t i = 0; i < n; i++) {
        char a[PD_COCO_ID_ROOM], b[PD_COCO_ID_ROOM];
        fprintf(out, markdown ? "| %s | %s | %zu |\n" : " %s as %s: %zu\n",
                pd_coco_category_label(gt, top[i].object, a), pd_coco_category_label(gt, top[i].detected, b),
                top[i].count);
    }
}

void pd_coco_print_intervals(FILE *out, const pd_coco_interval *x, const pd_coco_bootstrap *how)
{
    fprintf(out, "%g %% intervals of %zu resamples of the images (seed %llu)\n", 100 * how->level, how->rounds,
            (unsigned long long)how->seed);
    for (int m = 0; m < PD_COCO_METRICS; m++)
        fprintf(out, " %-4s %.4f  [%.4f, %.4f]  standard error %.4f\n", pd_coco_metric_name((pd_coco_metric)m),
                x[m].value, x[m].low, x[m].high, x[m].error);
}

void pd_coco_print_difference(FILE *out, const char *a, const char *b, const pd_coco_difference *d)
{
    fprintf(out, "%s against %s, on the same resamples\n", b, a);
    for (int m = 0; m < PD_COCO_METRICS; m++)
        fprintf(out, " %-4s %+.4f  [%+.4f, %+.4f]  better in %.1f %% of them\n", pd_coco_metric_name((pd_coco_metric)m),
                d[m].interval.value, d[m].interval.low, d[m].interval.high, 100 * (1 - d[m].a_better));
}

void pd_coco_print_best(FILE *out, const pd_coco_curves *c)
{
    const pd_coco_point *const p = &c->best[c->n_categories];
    fprintf(out, "Best F1 at IoU %.2f: %.3f at score %.3f (precision %.3f, recall %.3f)\n", c->iou, p->f1, p->score,
            p->precision, p->recall);
}

typedef struct {
    pd_coco_curves *curves;
    const pd_coco_result *result;
    const double *scores;
    pd_err *errs; /* (K + 1) */
} curve_job;

static void make_curve(void *arg, size_t begin, size_t end, int thread)
{
    (void)end;
    (void)thread;
    const curve_job *const job = arg;
    const size_t k = begin == job->curves->n_categories ? PD_COCO_ALL : begin;
    pd_err *const err = &job->errs[begin];
    if (pd_coco_best_f1(&job->curves->best[begin], job->result, k, job->curves->t, err) == PD_OK)
        pd_coco_points(job->curves->points[begin], job->result, k, job->curves->t, job->scores, 101, err);
}

pd_status pd_coco_make_curves(pd_coco_curves **out, const pd_coco_result *r, double iou, pd_pool *pool, pd_arena *arena,
                              pd_err *err)
{
    pd_coco_curves *c;
    curve_job job = {.result = r};
    double scores[101];
    for (int i = 0; i <= 100; i++) scores[i] = i / 100.0;
    PD_TRY(PD_ALLOC(&c, arena, 1, err));
    c->n_categories = r->n_categories;
    c->iou = iou;
    while (c->t < r->n_iou && r->iou_thrs[c->t] != iou) c->t++;
    if (c->t == r->n_iou) return PD_FAIL(err, PD_EINVAL, "curves at IoU %g, which is not among the thresholds", iou);
    PD_TRY(PD_ALLOC(&c->best, arena, r->n_categories + 1, err));
    PD_TRY(PD_ALLOC(&c->points, arena, r->n_categories + 1, err));
    PD_TRY(PD_ALLOC(&job.errs, arena, r->n_categories + 1, err));
    job.curves = c;
    job.scores = scores;
    pd_parallel_each(pool, r->n_categories + 1, make_curve, &job);
    for (size_t k = 0; k <= r->n_categories; k++)
        if (job.errs[k].code != PD_OK) {
            if (err) *err = job.errs[k];
            return job.errs[k].code;
        }
    *out = c;
    return PD_OK;
}

/* ---- JSON ---- */

void pd_coco_put_id(pd_json_writer *w, const char *key, pd_coco_id id)
{
    if (id.kind == PD_COCO_ID_TEXT)
        pd_json_put_string(w, key, id.text);
    else if (id.kind == PD_COCO_ID_REAL)
        pd_json_put_double(w, key, id.real);
    else
        pd_json_put_int(w, key, id.whole);
}

static void put_category(pd_json_writer *w, const pd_coco_result *r, const pd_coco_category_ap *row)
{
    pd_json_begin_object(w, NULL);
    pd_coco_put_id(w, "category_id", row->id);
    pd_json_put_string(w, "name", row->name);
    pd_json_put_double(w, "AP", row->ap);
    pd_json_put_double(w, "AP50", row->ap50);
    pd_json_put_double(w, "AP75", row->ap75);
    if (r->type != PD_COCO_KEYPOINTS) pd_json_put_double(w, "APs", row->ap_small);
    pd_json_put_double(w, "APm", row->ap_medium);
    pd_json_put_double(w, "APl", row->ap_large);
    pd_json_put_double(w, "AR", row->ar);
    pd_json_put_int(w, "objects", (int64_t)row->objects);
    pd_json_put_int(w, "detections", (int64_t)row->detections);
    pd_json_end(w);
}

static void put_params(pd_json_writer *w, const pd_coco_result *r)
{
    pd_json_begin_object(w, "params");
    pd_json_put_doubles(w, "iou_thrs", r->iou_thrs, r->n_iou);
    pd_json_put_doubles(w, "recall_thrs", r->recall_thrs, r->n_recall);
    pd_json_begin_array(w, "max_dets");
    for (size_t i = 0; i < r->n_limits; i++) pd_json_put_int(w, NULL, (int64_t)r->limits[i]);
    pd_json_end(w);
    pd_json_begin_array(w, "area_rngs");
    for (size_t i = 0; i < r->n_areas; i++) {
        pd_json_begin_array(w, NULL);
        pd_json_put_double(w, NULL, r->areas[i].low);
        pd_json_put_double(w, NULL, r->areas[i].high);
        pd_json_end(w);
    }
    pd_json_end(w);
    pd_json_end(w);
}

static void put_notes(pd_json_writer *w, const pd_coco_run *run, const pd_coco_gt_notes *gt)
{
    const pd_coco_result *const r = run->result;
    pd_json_begin_object(w, "notes");
    pd_json_put_int(w, "images", (int64_t)r->images);
    pd_json_put_int(w, "objects", (int64_t)r->objects);
    pd_json_put_int(w, "detections", (int64_t)r->detections);
    pd_json_put_int(w, "annotations", (int64_t)gt->annotations);
    pd_json_put_int(w, "annotations_left_out", (int64_t)gt->unlisted);
    pd_json_put_int(w, "annotations_repeated_ids", (int64_t)gt->repeated_ids);
    pd_json_put_int(w, "annotations_id_zero", (int64_t)gt->id_zero);
    pd_json_put_int(w, "results", (int64_t)run->notes.records);
    pd_json_put_int(w, "results_unknown_category", (int64_t)run->notes.unknown_categories);
    pd_json_put_int(w, "results_unknown_image", (int64_t)run->notes.unknown_images);
    pd_json_end(w);
}

static void put_tide(pd_json_writer *w, const pd_tide *t)
{
    pd_json_begin_object(w, "tide");
    pd_json_put_double(w, "foreground", t->foreground);
    pd_json_put_double(w, "background", t->background);
    pd_json_put_double(w, "AP", t->ap);
    pd_json_begin_object(w, "gain");
    for (int i = 0; i < PD_TIDE_ERRORS; i++) pd_json_put_double(w, pd_tide_name((pd_tide_error)i), t->gain[i]);
    pd_json_put_double(w, "FP", t->false_positives);
    pd_json_put_double(w, "FN", t->false_negatives);
    pd_json_end(w);
    pd_json_begin_object(w, "count");
    for (int i = 0; i < PD_TIDE_ERRORS; i++) pd_json_put_int(w, pd_tide_name((pd_tide_error)i), (int64_t)t->count[i]);
    pd_json_end(w);
    pd_json_end(w);
}

/* The matrix row by row; the last row and column are the background. */
static void put_confusion(pd_json_writer *w, const pd_coco_confusion *c)
{
    pd_json_begin_object(w, "confusion");
    pd_json_put_double(w, "iou", c->iou);
    pd_json_put_double(w, "score", c->score);
    pd_json_begin_array(w, "counts");
    for (size_t row = 0; row <= c->n; row++) {
        pd_json_begin_array(w, NULL);
        for (size_t k = 0; k <= c->n; k++) pd_json_put_int(w, NULL, (int64_t)c->counts[row * (c->n + 1) + k]);
        pd_json_end(w);
    }
    pd_json_end(w);
    pd_json_end(w);
}

static void put_point(pd_json_writer *w, const pd_coco_point *p)
{
    pd_json_put_double(w, "score", p->score);
    pd_json_put_double(w, "precision", p->precision);
    pd_json_put_double(w, "recall", p->recall);
    pd_json_put_double(w, "F1", p->f1);
    pd_json_put_int(w, "tp", (int64_t)p->tp);
    pd_json_put_int(w, "fp", (int64_t)p->fp);
}

static void put_series(pd_json_writer *w, const char *key, const pd_coco_point *p, size_t offset)
{
    pd_json_begin_array(w, key);
    for (int i = 0; i <= 100; i++) pd_json_put_double(w, NULL, *(const double *)((const char *)&p[i] + offset));
    pd_json_end(w);
}

/* For each category, then for all of them: best threshold, and precision, recall and F1 at scores 0, 0.01 .. 1. */
static void put_curves(pd_json_writer *w, const pd_coco_curves *c, const pd_coco_result *r)
{
    pd_json_begin_object(w, "curves");
    pd_json_put_double(w, "iou", c->iou);
    pd_json_begin_array(w, "categories");
    for (size_t k = 0; k <= c->n_categories; k++) {
        pd_json_begin_object(w, NULL);
        if (k < c->n_categories)
            pd_coco_put_id(w, "category_id", r->categories[k].id);
        else
            pd_json_put_null(w, "category_id");
        pd_json_begin_object(w, "best");
        put_point(w, &c->best[k]);
        pd_json_end(w);
        put_series(w, "precision", c->points[k], offsetof(pd_coco_point, precision));
        put_series(w, "recall", c->points[k], offsetof(pd_coco_point, recall));
        put_series(w, "F1", c->points[k], offsetof(pd_coco_point, f1));
        pd_json_end(w);
    }
    pd_json_end(w);
    pd_json_end(w);
}

static void put_interval(pd_json_writer *w, const pd_coco_interval *x)
{
    pd_json_put_double(w, "value", x->value);
    pd_json_put_double(w, "mean", x->mean);
    pd_json_put_double(w, "error", x->error);
    pd_json_put_double(w, "low", x->low);
    pd_json_put_double(w, "high", x->high);
}

static void put_intervals(pd_json_writer *w, const pd_coco_interval *x)
{
    pd_json_begin_object(w, "bootstrap");
    for (int m = 0; m < PD_COCO_METRICS; m++) {
        pd_json_begin_object(w, pd_coco_metric_name((pd_coco_metric)m));
        put_interval(w, &x[m]);
        pd_json_end(w);
    }
    pd_json_end(w);
}

void pd_coco_put_difference(pd_json_writer *w, const char *a, const char *b, const pd_coco_difference *d)
{
    pd_json_put_string(w, "a", a);
    pd_json_put_string(w, "b", b);
    for (int m = 0; m < PD_COCO_METRICS; m++) {
        pd_json_begin_object(w, pd_coco_metric_name((pd_coco_metric)m));
        put_interval(w, &d[m].interval);
        pd_json_put_double(w, "a_better", d[m].a_better);
        pd_json_end(w);
    }
}

void pd_coco_put_run(pd_json_writer *w, const pd_coco_run *run, const pd_coco_gt *gt)
{
    const pd_coco_result *const r = run->result;
    pd_json_put_string(w, "results_file", run->file);
    pd_json_put_string(w, "iou_type", pd_coco_type_name(r->type));
    pd_json_put_doubles(w, "stats", r->stats, (size_t)r->n_stats);
    pd_json_begin_array(w, "names");
    for (int i = 0; i < r->n_stats; i++) pd_json_put_string(w, NULL, r->names[i]);
    pd_json_end(w);
    pd_json_put_double(w, "AP_max", r->ap_max);
    pd_json_begin_array(w, "summary");
    for (int i = 0; i < r->n_stats; i++)
        if (*r->lines[i]) pd_json_put_string(w, NULL, r->lines[i]);
    pd_json_end(w);
    const int64_t counts[] = {(int64_t)r->n_iou, (int64_t)r->n_recall, (int64_t)r->n_categories, (int64_t)r->n_areas,
                              (int64_t)r->n_limits};
    pd_json_put_ints(w, "counts", counts, 5);
    put_params(w, r);
    pd_json_begin_array(w, "per_category");
    for (size_t k = 0; k < r->n_categories; k++) put_category(w, r, &r->categories[k]);
    pd_json_end(w);
    if (run->curves) put_curves(w, run->curves, r);
    if (run->has_confusion) put_confusion(w, &run->confusion);
    if (run->has_tide) put_tide(w, &run->tide);
    if (run->has_intervals) put_intervals(w, run->intervals);
    put_notes(w, run, pd_coco_gt_get_notes(gt));
}
