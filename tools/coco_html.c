#include "tools/coco_html.h"

#include "tools/chart.h"
#include "tools/coco_page.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void put_text(FILE *out, const char *text)
{
    pd_html_text(out, text);
}

/* A number of the page: three decimals, or a dash for "nothing to find". */
static void put_value(FILE *out, double value)
{
    if (value < 0)
        fprintf(out, "&ndash;");
    else
        fprintf(out, "%.3f", value);
}

static const char *label_of(pd_coco_id id, const char *name, char room[PD_COCO_ID_ROOM])
{
    return *name ? name : pd_coco_id_format(room, id);
}

/* ---- charts ---- */

#define POINTS 101
#define CURVES 10

/* Curves over x = 0, 0.01 .. 1, values 0 .. 1; below 0 is a gap. */
typedef struct {
    const char *title, *x_label;
    size_t n;
    char names[CURVES][24];
    double y[CURVES][POINTS];
} chart;

static void put_frame(FILE *out, const char *x_label)
{
    for (int i = 0; i <= 5; i++) {
        const int y = 270 - 50 * i;
        fprintf(out,
                "<line class=\"grid\" x1=\"40\" x2=\"620\" y1=\"%d\" y2=\"%d\"/><text x=\"34\" y=\"%d\" "
                "text-anchor=\"end\">%.1f</text>",
                y, y, y + 4, i / 5.0);
        if (i) fprintf(out, "<text x=\"%d\" y=\"290\" text-anchor=\"middle\">%.1f</text>", 40 + 116 * i, i / 5.0);
    }
    fprintf(out, "<text x=\"330\" y=\"312\" text-anchor=\"middle\">%s</text>", x_label);
}

static void put_chart(FILE *out, const chart *c)
{
    fprintf(
        out,
        "<figure><figcaption>%s</figcaption><svg viewBox=\"0 0 640 318\" role=\"img\" aria-label=\"%s\" data-t=\"\" "
        "data-l=\"%s\" data-n='[",
        c->title, c->title, c->x_label);
    for (size_t k = 0; k < c->n; k++) fprintf(out, "%s\"%s\"", k ? "," : "", c->names[k]);
    fprintf(out, "]' data-y=\"[");
    for (size_t k = 0; k < c->n; k++) {
        fprintf(out, "%s[", k ? "," : "");
        for (int i = 0; i < POINTS; i++) fprintf(out, "%s%.3g", i ? "," : "", c->y[k][i] < 0 ? 0 : c->y[k][i]);
        fprintf(out, "]");
    }
    fprintf(out, "]\">");
    put_frame(out, c->x_label);
    for (size_t k = 0; k < c->n; k++) {
        fprintf(out, "<polyline style=\"stroke:var(--c%zu)\" points=\"", k);
        for (int i = 0; i < POINTS; i++)
            if (c->y[k][i] >= 0) fprintf(out, "%.1f,%.1f ", 40 + 5.8 * i, 270 - 250 * c->y[k][i]);
        fprintf(out, "\"/>");
    }
    fprintf(out, "<line class=\"at\" y1=\"20\" y2=\"270\" style=\"display:none\"/></svg><div class=\"key\">");
    for (size_t k = 0; k < c->n; k++)
        fprintf(out, "<span><i style=\"background:var(--c%zu)\"></i>%s</span>", k, c->names[k]);
    fprintf(out, "</div></figure>\n");
}

/* Mean precision over categories at each recall, a curve for each IoU threshold. */
static void put_precision_recall(FILE *out, chart *c, const pd_coco_result *r)
{
    if (r->n_recall != POINTS) return;
    *c = (chart){.title = "Precision over recall, mean of categories", .x_label = "recall"};
    c->n = r->n_iou < CURVES ? r->n_iou : CURVES;
    for (size_t t = 0; t < c->n; t++) {
        snprintf(c->names[t], sizeof c->names[t], "IoU %.2f", r->iou_thrs[t]);
        for (size_t rec = 0; rec < POINTS; rec++) {
            double sum = 0;
            size_t n = 0;
            for (size_t k = 0; k < r->n_categories; k++) {
                const double p = pd_coco_precision(r, t, rec, k, 0, r->n_limits - 1);
                if (p < 0) continue;
                sum += p;
                n++;
            }
            c->y[t][rec] = n ? sum / (double)n : -1;
        }
    }
    put_chart(out, c);
}

static void put_score_curves(FILE *out, chart *c, const pd_coco_curves *curves)
{
    *c = (chart){.title = "Over the score threshold, all categories, IoU 0.50", .x_label = "score", .n = 3};
    snprintf(c->names[0], sizeof c->names[0], "precision");
    snprintf(c->names[1], sizeof c->names[1], "recall");
    snprintf(c->names[2], sizeof c->names[2], "F1");
    const pd_coco_point *const p = curves->points[curves->n_categories];
    for (int i = 0; i < POINTS; i++) {
        c->y[0][i] = p[i].tp + p[i].fp ? p[i].precision : -1;
        c->y[1][i] = p[i].recall;
        c->y[2][i] = p[i].f1;
    }
    put_chart(out, c);
}

/* ---- tables ---- */

static void put_bar(FILE *out, double value, double most)
{
    if (value > 0 && most > 0) fprintf(out, "<i class=\"bar\" style=\"width:%.0fpx\"></i>", 90 * value / most);
}

static void put_gain(FILE *out, const char *name, const char *meaning, double gain, double most)
{
    fprintf(out, "<tr><td>%s<small>%s</small></td><td class=\"b\">", name, meaning);
    put_bar(out, gain, most);
    fprintf(out, "%.3f</td>", gain);
}

static void put_tide(FILE *out, const pd_tide *t)
{
    static const char *const meaning[] = {"right place, wrong category",
                                          "right category, wrong place",
                                          "both wrong",
                                          "object found twice",
                                          "nothing is there",
                                          "object not found"};
    double most = fmax(t->false_positives, t->false_negatives);
    for (int i = 0; i < PD_TIDE_ERRORS; i++) most = fmax(most, t->gain[i]);
    fprintf(out,
            "<section><h2>Where AP is lost</h2><p>TIDE at IoU %.2f (AP %.3f): what AP would gain if all errors of one "
            "kind were mended.</p><div class=\"wide narrow\"><table><thead><tr><th>error</th><th class=\"b\">gain</th>"
            "<th>count</th></tr></thead><tbody>",
            t->foreground, t->ap);
    for (int i = 0; i < PD_TIDE_ERRORS; i++) {
        put_gain(out, pd_tide_name((pd_tide_error)i), meaning[i], t->gain[i], most);
        fprintf(out, "<td>%zu</td></tr>\n", t->count[i]);
    }
    put_gain(out, "FP", "all that is wrong, together", t->false_positives, most);
    fprintf(out, "<td></td></tr>\n");
    put_gain(out, "FN", "all that is missed, together", t->false_negatives, most);
    fprintf(out, "<td></td></tr>\n</tbody></table></div></section>\n");
}

static void put_cell(FILE *out, double value)
{
    fprintf(out, "<td data-v=\"%.6f\">", value);
    put_value(out, value);
    fprintf(out, "</td>");
}

static void put_category(FILE *out, const pd_coco_run *run, size_t k)
{
    const pd_coco_category_ap *const row = &run->result->categories[k];
    char id[PD_COCO_ID_ROOM];
    fprintf(out, "<tr><td title=\"");
    put_text(out, label_of(row->id, row->name, id));
    fprintf(out, "\">");
    put_text(out, label_of(row->id, row->name, id));
    fprintf(out, "</td><td class=\"b\" data-v=\"%.6f\">", row->ap);
    put_bar(out, row->ap, 1);
    put_value(out, row->ap);
    fprintf(out, "</td>");
    put_cell(out, row->ap50);
    put_cell(out, row->ap75);
    if (run->result->type != PD_COCO_KEYPOINTS) put_cell(out, row->ap_small);
    put_cell(out, row->ap_medium);
    put_cell(out, row->ap_large);
    put_cell(out, row->ar);
    if (run->curves) {
        const bool any = row->objects > 0;
        put_cell(out, any ? run->curves->best[k].f1 : -1);
        put_cell(out, any ? run->curves->best[k].score : -1);
    }
    fprintf(out, "<td>%zu</td><td>%zu</td></tr>\n", row->objects, row->detections);
}

static void put_categories(FILE *out, const pd_coco_run *run)
{
    const pd_coco_result *const r = run->result;
    fprintf(out,
            "<section><h2>Categories</h2><p>%zu of them; a click on a head sorts.</p><input type=\"search\" "
            "placeholder=\"find a category\" aria-label=\"find a category\"><output></output><div class=\"wide "
            "tall\"><table class=\"sort\">"
            "<thead><tr><th>category</th><th "
            "class=\"b\">AP</th><th>AP50</th><th>AP75</th>%s<th>APm</th><th>APl</th><th>AR</th>%s"
            "<th>objects</th><th>detections</th></tr></thead><tbody>\n",
            r->n_categories, r->type == PD_COCO_KEYPOINTS ? "" : "<th>APs</th>",
            run->curves ? "<th>best F1</th><th>at score</th>" : "");
    for (size_t k = 0; k < r->n_categories; k++) put_category(out, run, k);
    fprintf(out, "</tbody></table></div></section>\n");
}

/* ---- confusion ---- */

#define SHOWN 40 /* categories of the matrix */

typedef struct {
    size_t index, wrong; /* category; how often it is confused */
} confused;

static int compare_confused(const void *a, const void *b)
{
    const confused *const x = a, *const y = b;
    if (x->wrong != y->wrong) return x->wrong > y->wrong ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static int compare_indexes(const void *a, const void *b)
{
    const confused *const x = a, *const y = b;
    return (x->index > y->index) - (x->index < y->index);
}

/* The categories that are confused most with others, in their order; then the background. */
static size_t choose_confused(confused *list, const pd_coco_confusion *c)
{
    const size_t width = c->n + 1;
    for (size_t i = 0; i < c->n; i++) {
        list[i] = (confused){i, 0};
        for (size_t k = 0; k < c->n; k++)
            if (k != i) list[i].wrong += c->counts[i * width + k] + c->counts[k * width + i];
    }
    qsort(list, c->n, sizeof *list, compare_confused);
    const size_t n = c->n < SHOWN ? c->n : SHOWN;
    qsort(list, n, sizeof *list, compare_indexes);
    list[n] = (confused){c->n, 0};
    return n + 1;
}

/* "dog as cat: 3 of 40"; the background is what is not there. */
static void put_cell_text(FILE *out, const pd_coco_confusion *c, const pd_coco_gt *gt, size_t row, size_t column)
{
    char id[PD_COCO_ID_ROOM];
    if (row < c->n) put_text(out, pd_coco_category_label(gt, row, id));
    if (column == c->n) {
        fprintf(out, " not found");
    } else if (column == row) {
        fprintf(out, " found");
    } else {
        fprintf(out, row < c->n ? " as " : "nothing there, taken for ");
        put_text(out, pd_coco_category_label(gt, column, id));
    }
}

static void put_matrix_row(FILE *out, const pd_coco_confusion *c, const pd_coco_gt *gt, const confused *list, size_t n,
                           size_t row)
{
    char id[PD_COCO_ID_ROOM];
    const size_t *const counts = c->counts + row * (c->n + 1);
    size_t total = 0;
    for (size_t k = 0; k <= c->n; k++) total += counts[k];
    fprintf(out, "<tr><th>");
    put_text(out, pd_coco_category_label(gt, row, id));
    fprintf(out, "</th>");
    for (size_t i = 0; i < n; i++) {
        const size_t column = list[i].index, count = counts[column];
        if (!count) {
            fprintf(out, "<td></td>");
            continue;
        }
        fprintf(out, "<td style=\"background:color-mix(in srgb,var(%s) %.0f%%,transparent)\" data-t=\"",
                row == column ? "--good" : "--bad", 8 + 92 * sqrt((double)count / (double)total));
        put_cell_text(out, c, gt, row, column);
        fprintf(out, ": %zu of %zu\"></td>", count, total);
    }
    fprintf(out, "</tr>\n");
}

static void put_matrix(FILE *out, const pd_coco_confusion *c, const pd_coco_gt *gt, const confused *list, size_t n)
{
    char id[PD_COCO_ID_ROOM];
    fprintf(out, "<div class=\"wide\"><table class=\"m\"><thead><tr><th></th>");
    for (size_t i = 0; i < n; i++) {
        fprintf(out, "<th><span>");
        put_text(out, pd_coco_category_label(gt, list[i].index, id));
        fprintf(out, "</span></th>");
    }
    fprintf(out, "</tr></thead><tbody>\n");
    for (size_t i = 0; i < n; i++) put_matrix_row(out, c, gt, list, n, list[i].index);
    fprintf(out, "</tbody></table></div>\n");
}

static void put_mistakes(FILE *out, const pd_coco_confusion *c, const pd_coco_gt *gt)
{
    pd_coco_mistake top[15];
    const size_t n = pd_coco_most_mistaken(top, sizeof top / sizeof *top, c);
    if (!n) return;
    fprintf(out,
            "<h2>Mistaken most often</h2><div class=\"wide narrow\"><table><thead><tr><th>object</th><th>times</th>"
            "<th>of all such objects</th></tr></thead><tbody>\n");
    for (size_t i = 0; i < n; i++) {
        char id[PD_COCO_ID_ROOM];
        size_t total = 0;
        for (size_t k = 0; k <= c->n; k++) total += c->counts[top[i].object * (c->n + 1) + k];
        fprintf(out, "<tr><td>");
        put_text(out, pd_coco_category_label(gt, top[i].object, id));
        fprintf(out, "<small>as ");
        put_text(out, pd_coco_category_label(gt, top[i].detected, id));
        fprintf(out, "</small></td><td>%zu</td><td>%.1f %%</td></tr>\n", top[i].count,
                100 * (double)top[i].count / (double)total);
    }
    fprintf(out, "</tbody></table></div>\n");
}

static pd_status put_confusion(FILE *out, const pd_coco_confusion *c, const pd_coco_gt *gt, pd_err *err)
{
    confused *const list = malloc((c->n + 1) * sizeof *list);
    if (!list) return PD_FAIL(err, PD_ENOMEM, "out of memory: %zu categories", c->n);
    const size_t n = choose_confused(list, c);
    fprintf(out,
            "<section><h2>Confusion</h2><p>Rows are objects, columns what they were detected as (IoU %.2f, score from "
            "%.2f); the stronger the colour, the more of the row. Row background: detections without object; column "
            "background: "
            "objects not found.",
            c->iou, c->score);
    if (n - 1 < c->n) fprintf(out, " Shown are the %zu of %zu categories that are confused most.", n - 1, c->n);
    fprintf(out, "</p>");
    put_matrix(out, c, gt, list, n);
    put_mistakes(out, c, gt);
    fprintf(out, "</section>\n");
    free(list);
    return PD_OK;
}

/* ---- the page ---- */

/* A summary line without its number and with single blanks: what the number is. */
static void put_meaning(FILE *out, const char *line)
{
    const char *const end = strrchr(line, '=');
    for (const char *p = line; *p && p < end - 1; p++)
        if (*p != ' ' || (p > line && p[-1] != ' ')) fputc(*p, out);
}

static void put_tiles(FILE *out, const pd_coco_run *run)
{
    const pd_coco_result *const r = run->result;
    fprintf(out, "<div class=\"tiles\" style=\"--n:%d\">",
            r->n_stats == 12   ? 6
            : r->n_stats == 10 ? 5
                               : (r->n_stats + 1) / 2);
    for (int i = 0; i < r->n_stats; i++) {
        fprintf(out, "<div class=\"tile\" data-t=\"");
        put_meaning(out, r->lines[i]);
        fprintf(out, "\"><b>");
        put_value(out, r->stats[i]);
        fprintf(out, "</b><span>%s</span></div>", r->names[i]);
    }
    fprintf(out, "</div>\n<p>%s; %zu images, %zu objects, %zu detections, at most %zu of an image%s; IoU %.2f to %.2f",
            pd_coco_type_name(r->type), r->images, r->objects, r->detections, r->limits[r->n_limits - 1],
            r->n_stats == 13 ? "" : " and category", r->iou_thrs[0], r->iou_thrs[r->n_iou - 1]);
    if (run->has_intervals)
        fprintf(out, "; 95 %% interval of AP %.4f to %.4f", run->intervals[0].low, run->intervals[0].high);
    if (run->curves) {
        const pd_coco_point *const best = &run->curves->best[run->curves->n_categories];
        fprintf(out, "; best F1 at IoU %.2f is %.3f at score %.3f", run->curves->iou, best->f1, best->score);
    }
    fprintf(out, ".</p>\n");
    if (r->stats[0] == -1 && r->ap_max > -1 && r->n_stats != 13)
        fprintf(out, "<p>AP is looked up at a limit that was not evaluated; at %zu detections it is %.3f.</p>\n",
                r->limits[r->n_limits - 1], r->ap_max);
}

static void put_difference(FILE *out, const pd_coco_difference *d)
{
    fprintf(out, "<td class=\"l\" data-v=\"%.6f\">%+.4f <small>%+.4f to %+.4f, better in %.0f %%</small></td>",
            d->interval.value, d->interval.value, d->interval.low, d->interval.high, 100 * (1 - d->a_better));
}

static void put_comparison(FILE *out, const pd_coco_run *runs, size_t n,
                           const pd_coco_difference (*differences)[PD_COCO_METRICS])
{
    const int columns = runs[0].result->type == PD_COCO_KEYPOINTS ? 5 : 6;
    fprintf(out, "<section><h2>Results</h2>");
    if (differences)
        fprintf(out, "<p>Against the first file, on the same resampled images: the difference of AP, its 95 %% "
                     "interval, and the share of resamples in which it is better.</p>");
    fprintf(out, "<div class=\"wide\"><table class=\"sort\"><thead><tr><th>file</th>");
    for (int c = 0; c < columns; c++) fprintf(out, "<th>%s</th>", runs[0].result->names[c]);
    fprintf(out, "%s</tr></thead><tbody>", differences ? "<th class=\"l\">against the first</th>" : "");
    for (size_t i = 0; i < n; i++) {
        fprintf(out, "<tr><td>");
        put_text(out, runs[i].file);
        fprintf(out, "</td>");
        for (int c = 0; c < columns; c++) put_cell(out, runs[i].result->stats[c]);
        if (differences && i) put_difference(out, &differences[i][PD_COCO_METRIC_AP]);
        fprintf(out, "%s</tr>\n", differences && !i ? "<td data-v=\"0\"></td>" : "");
    }
    fprintf(out, "</tbody></table></div></section>\n");
}

static pd_status put_run(FILE *out, const pd_coco_run *run, const pd_coco_gt *gt, chart *c, pd_err *err)
{
    put_tiles(out, run);
    fprintf(out, "<section><h2>Curves</h2><div class=\"two\">");
    put_precision_recall(out, c, run->result);
    if (run->curves) put_score_curves(out, c, run->curves);
    fprintf(out, "</div></section>\n");
    if (run->has_tide) put_tide(out, &run->tide);
    put_categories(out, run);
    if (run->has_confusion) PD_TRY(put_confusion(out, &run->confusion, gt, err));
    fprintf(out, "<section><h2>As pycocotools prints it</h2><pre>");
    for (int i = 0; i < run->result->n_stats; i++)
        if (*run->result->lines[i]) fprintf(out, "%s\n", run->result->lines[i]);
    fprintf(out, "</pre></section>\n");
    return PD_OK;
}

static pd_status put_page(FILE *out, const char *gt_path, const pd_coco_run *runs, size_t n,
                          const pd_coco_difference (*differences)[PD_COCO_METRICS], const pd_coco_gt *gt, pd_err *err)
{
    chart *const c = malloc(sizeof *c);
    if (!c) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    fprintf(out,
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
            "content=\"width=device-width,initial-scale=1\"><title>COCO "
            "evaluation</title><style>\n%s</style></head>\n<body><main>"
            "<h1>COCO evaluation</h1><p class=\"path\">Ground truth: ",
            pd_coco_page_style);
    put_text(out, gt_path);
    fprintf(out, "</p>\n");
    pd_status status = PD_OK;
    if (n > 1) put_comparison(out, runs, n, differences);
    for (size_t i = 0; i < n && status == PD_OK; i++) {
        if (n > 1)
            fprintf(out, "<details%s><summary><b class=\"path\">", i ? "" : " open");
        else
            fprintf(out, "<p class=\"path\">Results: ");
        put_text(out, runs[i].file);
        fprintf(out, n > 1 ? "</b></summary>\n" : "</p>\n");
        status = put_run(out, &runs[i], gt, c, err);
        if (n > 1) fprintf(out, "</details>\n");
    }
    fprintf(out, "</main><div id=\"tip\"></div><script>\n%s</script></body></html>\n", pd_coco_page_script);
    free(c);
    return status;
}

pd_status pd_coco_write_html(const char *path, const char *gt_path, const pd_coco_run *runs, size_t n,
                             const pd_coco_difference (*differences)[PD_COCO_METRICS], const pd_coco_gt *gt,
                             pd_err *err)
{
    pd_out *out;
    PD_TRY(pd_out_open(&out, path, err));
    const pd_status status = put_page(pd_out_stream(out), gt_path, runs, n, differences, gt, err);
    if (status != PD_OK) {
        pd_out_cancel(out);
        return status;
    }
    return pd_out_commit(out, err);
}
