#include "tools/coco_html.h"

#include "tools/chart.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the page's fixed parts
 * ------------------------------------------------------------------------------------------- */

static const char style[] =
    ":root{--bg:#fff;--ink:#1c2330;--faint:#667085;--line:#e2e6ee;--card:#f7f8fb;--bar:#3b6fd6;--c0:#3b6fd6;--c1:#"
    "d9603b;"
    "--c2:#2f9e6b;--c3:#8b56c9;--c4:#b98900;--c5:#c23a78;--c6:#1f93a8;--c7:#6b7280;--c8:#7a9a01;--c9:#a15c38}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#12151c;--ink:#e6e9f0;--faint:#98a2b3;--line:#2a3040;--card:#191e28;"
    "--bar:#6c9bff;--c0:#6c9bff;--c1:#ff8f6b;--c2:#57c795;--c3:#b58cf0;--c4:#e0b341;--c5:#f074ab;--c6:#54c3d8;--c7:#"
    "a0a7b4;"
    "--c8:#b3d24a;--c9:#d59570}}\n"
    "*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,sans-serif}\n"
    "main{max-width:1100px;margin:0 auto;padding:1.2rem}h1{font-size:1.5rem;margin:.2rem 0}h2{font-size:1.15rem;"
    "margin:2rem 0 .6rem}p{margin:.3rem 0;color:var(--faint)}.path{overflow-wrap:anywhere}\n"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(104px,1fr));gap:.6rem;margin:1rem 0}.tile{"
    "background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.5rem .7rem}.tile b{display:block;"
    "font-size:1.35rem;font-variant-numeric:tabular-nums}.tile span{color:var(--faint);font-size:.85rem}\n"
    ".two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr));gap:1rem}figure{margin:0;"
    "background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.6rem}figcaption{font-weight:600}\n"
    "svg{width:100%;height:auto;display:block}svg text{fill:var(--faint);font:13px system-ui,sans-serif}svg "
    ".grid{stroke:"
    "var(--line)}svg "
    "polyline{fill:none;stroke-width:1.8;stroke-linejoin:round}.key{display:flex;flex-wrap:wrap;gap:.15rem "
    ".8rem;font-size:.82rem;color:var(--faint)}.key i{display:inline-block;width:.9rem;height:.25rem;border-radius:2px;"
    "margin-right:.3rem;vertical-align:middle}\n"
    ".wide{overflow-x:auto;border:1px solid var(--line);border-radius:8px}table{border-collapse:collapse;width:100%;"
    "font-variant-numeric:tabular-nums;font-size:.9rem}th,td{padding:.28rem .55rem;text-align:right;border-bottom:1px "
    "solid "
    "var(--line);white-space:nowrap}th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:"
    "var(--bg);max-width:16rem;overflow:hidden;text-overflow:ellipsis}thead "
    "th{position:sticky;top:0;background:var(--card);"
    "z-index:1}thead th:first-child{z-index:2;background:var(--card)}.sort th{cursor:pointer}.tall{max-height:32rem;"
    "overflow:auto}.bar{display:inline-block;height:.7rem;background:var(--bar);border-radius:2px;vertical-align:"
    "middle;"
    "margin-right:.4rem}.b{text-align:left;min-width:150px}tr:last-child td{border-bottom:0}\n"
    "input{font:inherit;color:inherit;background:var(--card);border:1px solid "
    "var(--line);border-radius:6px;padding:.3rem "
    ".6rem;width:min(100%,22rem);margin:.2rem 0 .6rem}pre{overflow-x:auto;background:var(--card);border:1px solid "
    "var(--line);border-radius:8px;padding:.7rem;font-size:.8rem}.m{table-layout:fixed;width:auto}.m td,.m "
    "th{border:0;padding:0;"
    "width:22px;height:22px;min-width:22px;max-width:22px;font-size:.62rem;text-align:center}.m tbody th{width:9rem;"
    "max-width:9rem;min-width:9rem;padding:0 "
    ".4rem;text-align:right;overflow:hidden;text-overflow:ellipsis;font-size:.75rem;"
    "font-weight:400}.m thead th{height:7.5rem;vertical-align:bottom}.m thead th "
    "span{writing-mode:vertical-rl;transform:"
    "rotate(180deg);max-height:7.2rem;overflow:hidden;font-size:.75rem;font-weight:400}#tip{position:fixed;display:"
    "none;"
    "background:var(--ink);color:var(--bg);border-radius:5px;padding:.15rem .5rem;font-size:.82rem;pointer-events:none;"
    "z-index:9;max-width:80vw}\n";

/* Sorting by a click on a head, searching, and what is under the pointer. */
static const char script[] =
    "const tip=document.getElementById('tip');\n"
    "document.addEventListener('pointermove',e=>{const "
    "t=e.target.closest('[data-t]');if(!t){tip.style.display='none';return}"
    "tip.textContent=t.dataset.t;tip.style.display='block';tip.style.left=Math.min(e.clientX+12,innerWidth-tip."
    "offsetWidth-8)"
    "+'px';tip.style.top=(e.clientY+14)+'px'});\n"
    "for(const table of document.querySelectorAll('table.sort')){const "
    "body=table.tBodies[0];[...table.tHead.rows[0].cells]"
    ".forEach((th,i)=>{let up=i===0;th.onclick=()=>{const key=r=>r.cells[i].dataset.v??r.cells[i].textContent;const "
    "rows="
    "[...body.rows].sort((a,b)=>{const x=key(a),y=key(b);return "
    "i===0?x.localeCompare(y):x-y});if(!up)rows.reverse();up=!up;"
    "body.append(...rows)}});const "
    "find=table.closest('section').querySelector('input');if(find)find.oninput=()=>{const q="
    "find.value.toLowerCase();for(const r of body.rows)r.hidden=!r.cells[0].textContent.toLowerCase().includes(q)}}\n"
    "for(const svg of document.querySelectorAll('svg[data-x]')){const x=JSON.parse(svg.dataset.x),names=JSON.parse("
    "svg.dataset.n),ys=JSON.parse(svg.dataset.y),line=svg.querySelector('.at');svg.addEventListener('pointermove',e=>{"
    "const "
    "m=svg.getScreenCTM();const px=(e.clientX-m.e)/m.a;const i=Math.max(0,Math.min(x.length-1,Math.round((px-40)/580*"
    "(x.length-1))));const "
    "at=40+580*i/(x.length-1);line.setAttribute('x1',at);line.setAttribute('x2',at);line.style.display="
    "'';svg.dataset.t=svg.dataset.l+' '+x[i]+': '+names.map((n,k)=>n+' '+ys[k][i]).join(', ')});svg.addEventListener("
    "'pointerleave',()=>{line.style.display='none'})}\n";

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

/* ---- charts
 * --------------------------------------------------------------------------------------------------------------- */

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
        const int y = 270 - 50 * i, x = 40 + 116 * i;
        fprintf(out,
                "<line class=\"grid\" x1=\"40\" x2=\"620\" y1=\"%d\" y2=\"%d\"/><text x=\"34\" y=\"%d\" "
                "text-anchor=\"end\">%.1f</text><text x=\"%d\" y=\"286\" text-anchor=\"middle\">%.1f</text>",
                y, y, y + 4, i / 5.0, x, i / 5.0);
    }
    fprintf(out, "<text x=\"620\" y=\"302\" text-anchor=\"end\">%s</text>", x_label);
}

static void put_chart(FILE *out, const chart *c)
{
    fprintf(out,
            "<figure><figcaption>%s</figcaption><svg viewBox=\"0 0 640 308\" role=\"img\" data-t=\"\" data-l=\"%s\" "
            "data-x=\"[",
            c->title, c->x_label);
    for (int i = 0; i < POINTS; i++) fprintf(out, "%s%g", i ? "," : "", i / 100.0);
    fprintf(out, "]\" data-n='[");
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
    fprintf(out, "<line class=\"at grid\" y1=\"20\" y2=\"270\" style=\"display:none\"/></svg><div class=\"key\">");
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

/* ---- tables
 * ---------------------------------------------------------------------------------------------------------------- */

static void put_bar(FILE *out, double value, double most)
{
    if (value > 0 && most > 0) fprintf(out, "<i class=\"bar\" style=\"width:%.0fpx\"></i>", 90 * value / most);
}

static void put_tide(FILE *out, const pd_tide *t)
{
    double most = fmax(t->false_positives, t->false_negatives);
    for (int i = 0; i < PD_TIDE_ERRORS; i++) most = fmax(most, t->gain[i]);
    fprintf(
        out,
        "<section><h2>Where AP is lost</h2><p>TIDE at IoU %.2f (AP %.3f): what AP would gain if all errors of one kind "
        "were mended.</p><div class=\"wide\"><table><thead><tr><th>error</th><th "
        "class=\"b\">gain</th><th>count</th><th "
        "style=\"text-align:left\">what it is</th></tr></thead><tbody>",
        t->foreground, t->ap);
    static const char *const meaning[] = {"right place, wrong category",
                                          "right category, wrong place",
                                          "both wrong",
                                          "object found twice",
                                          "nothing is there",
                                          "object not found"};
    for (int i = 0; i < PD_TIDE_ERRORS; i++) {
        fprintf(out, "<tr><td>%s</td><td class=\"b\">", pd_tide_name((pd_tide_error)i));
        put_bar(out, t->gain[i], most);
        fprintf(out, "%.3f</td><td>%zu</td><td style=\"text-align:left\">%s</td></tr>", t->gain[i], t->count[i],
                meaning[i]);
    }
    fprintf(out, "<tr><td>all false positives</td><td class=\"b\">");
    put_bar(out, t->false_positives, most);
    fprintf(out, "%.3f</td><td></td><td></td></tr><tr><td>all misses</td><td class=\"b\">", t->false_positives);
    put_bar(out, t->false_negatives, most);
    fprintf(out, "%.3f</td><td></td><td></td></tr></tbody></table></div></section>\n", t->false_negatives);
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
        put_cell(out, run->curves->best[k].f1);
        put_cell(out, run->curves->best[k].score);
    }
    fprintf(out, "<td>%zu</td><td>%zu</td></tr>\n", row->objects, row->detections);
}

static void put_categories(FILE *out, const pd_coco_run *run)
{
    const pd_coco_result *const r = run->result;
    fprintf(
        out,
        "<section><h2>Categories</h2><p>%zu of them; a click on a head sorts.</p><input type=\"search\" "
        "placeholder=\"find a category\" aria-label=\"find a category\"><div class=\"wide tall\"><table class=\"sort\">"
        "<thead><tr><th>category</th><th "
        "class=\"b\">AP</th><th>AP50</th><th>AP75</th>%s<th>APm</th><th>APl</th><th>AR</th>%s"
        "<th>objects</th><th>detections</th></tr></thead><tbody>\n",
        r->n_categories, r->type == PD_COCO_KEYPOINTS ? "" : "<th>APs</th>",
        run->curves ? "<th>best F1</th><th>at score</th>" : "");
    for (size_t k = 0; k < r->n_categories; k++) put_category(out, run, k);
    fprintf(out, "</tbody></table></div></section>\n");
}

/* ---- confusion
 * --------------------------------------------------------------------------------------------------------------- */

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

static const char *category_label(const pd_coco_gt *gt, size_t i, char id[PD_COCO_ID_ROOM])
{
    if (i >= pd_coco_gt_category_count(gt)) return "background";
    const pd_coco_category *const c = pd_coco_gt_category(gt, i);
    return label_of(c->id, c->name, id);
}

static void put_matrix_row(FILE *out, const pd_coco_confusion *c, const pd_coco_gt *gt, const confused *list, size_t n,
                           size_t row)
{
    char a[PD_COCO_ID_ROOM], b[PD_COCO_ID_ROOM];
    const size_t *const counts = c->counts + row * (c->n + 1);
    size_t total = 0;
    for (size_t k = 0; k <= c->n; k++) total += counts[k];
    fprintf(out, "<tr><th>");
    put_text(out, category_label(gt, row, a));
    fprintf(out, "</th>");
    for (size_t i = 0; i < n; i++) {
        const size_t column = list[i].index, count = counts[column];
        if (!count) {
            fprintf(out, "<td></td>");
            continue;
        }
        const double share = (double)count / (double)total;
        fprintf(out, "<td style=\"background:color-mix(in srgb,var(%s) %.0f%%,transparent)\" data-t=\"",
                row == column ? "--c2" : "--c1", 8 + 92 * sqrt(share));
        put_text(out, category_label(gt, row, a));
        fprintf(out, " as ");
        put_text(out, category_label(gt, column, b));
        fprintf(out, ": %zu of %zu\"></td>", count, total);
    }
    fprintf(out, "</tr>\n");
}

static pd_status put_confusion(FILE *out, const pd_coco_confusion *c, const pd_coco_gt *gt, pd_err *err)
{
    char id[PD_COCO_ID_ROOM];
    confused *const list = malloc((c->n + 1) * sizeof *list);
    if (!list) return PD_FAIL(err, PD_ENOMEM, "out of memory: %zu categories", c->n);
    const size_t n = choose_confused(list, c);
    fprintf(out,
            "<section><h2>Confusion</h2><p>Rows are objects, columns what they were detected as (IoU %.2f, score from "
            "%.2f). ",
            c->iou, c->score);
    if (n - 1 < c->n) fprintf(out, "The %zu of %zu categories that are confused most.", n - 1, c->n);
    fprintf(out, "</p><div class=\"wide\"><table class=\"m\"><thead><tr><th></th>");
    for (size_t i = 0; i < n; i++) {
        fprintf(out, "<th><span>");
        put_text(out, category_label(gt, list[i].index, id));
        fprintf(out, "</span></th>");
    }
    fprintf(out, "</tr></thead><tbody>\n");
    for (size_t i = 0; i < n; i++) put_matrix_row(out, c, gt, list, n, list[i].index);
    fprintf(out, "</tbody></table></div></section>\n");
    free(list);
    return PD_OK;
}

/* ---- the page
 * ------------------------------------------------------------------------------------------------------------------ */

static void put_tiles(FILE *out, const pd_coco_run *run)
{
    const pd_coco_result *const r = run->result;
    fprintf(out, "<div class=\"tiles\">");
    for (int i = 0; i < r->n_stats; i++) {
        fprintf(out, "<div class=\"tile\"><b>");
        put_value(out, r->stats[i]);
        fprintf(out, "</b><span>%s</span></div>", r->names[i]);
    }
    fprintf(out, "</div>\n<p>%zu images, %zu objects, %zu detections; %s", r->images, r->objects, r->detections,
            pd_coco_type_name(r->type));
    if (run->has_intervals)
        fprintf(out, "; 95 %% interval of AP %.4f to %.4f", run->intervals[0].low, run->intervals[0].high);
    if (run->curves) {
        const pd_coco_point *const best = &run->curves->best[run->curves->n_categories];
        fprintf(out, "; best F1 %.3f at score %.3f", best->f1, best->score);
    }
    fprintf(out, "</p>\n");
}

static void put_comparison(FILE *out, const pd_coco_run *runs, size_t n)
{
    const int columns = runs[0].result->type == PD_COCO_KEYPOINTS ? 5 : 6;
    fprintf(out, "<section><h2>Results</h2><div class=\"wide\"><table class=\"sort\"><thead><tr><th>file</th>");
    for (int c = 0; c < columns; c++) fprintf(out, "<th>%s</th>", runs[0].result->names[c]);
    fprintf(out, "</tr></thead><tbody>");
    for (size_t i = 0; i < n; i++) {
        fprintf(out, "<tr><td>");
        put_text(out, runs[i].file);
        fprintf(out, "</td>");
        for (int c = 0; c < columns; c++) put_cell(out, runs[i].result->stats[c]);
        fprintf(out, "</tr>");
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

static pd_status put_page(FILE *out, const char *gt_path, const pd_coco_run *runs, size_t n, const pd_coco_gt *gt,
                          pd_err *err)
{
    chart *const c = malloc(sizeof *c);
    if (!c) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    fprintf(out,
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
            "content=\"width=device-width,initial-scale=1\"><title>COCO "
            "evaluation</title><style>\n%s</style></head>\n<body><main>"
            "<h1>COCO evaluation</h1><p class=\"path\">Ground truth: ",
            style);
    put_text(out, gt_path);
    fprintf(out, "</p>\n");
    pd_status status = PD_OK;
    if (n > 1) put_comparison(out, runs, n);
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
    fprintf(out, "</main><div id=\"tip\"></div><script>\n%s</script></body></html>\n", script);
    free(c);
    return status;
}

pd_status pd_coco_write_html(const char *path, const char *gt_path, const pd_coco_run *runs, size_t n,
                             const pd_coco_gt *gt, pd_err *err)
{
    pd_out *out;
    PD_TRY(pd_out_open(&out, path, err));
    const pd_status status = put_page(pd_out_stream(out), gt_path, runs, n, gt, err);
    if (status != PD_OK) {
        pd_out_cancel(out);
        return status;
    }
    return pd_out_commit(out, err);
}
