#include "tools/report.h"

#include "engine/file.h"
#include "engine/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the page's style and script ---- */

static const char STYLE[] =
    ":root{color-scheme:light dark;--page:#f6f6f4;--card:#fff;--ink:#1a1a19;--faint:#6b6a64;--grid:#e4e3dd;"
    "--c0:#2a78d6;--c1:#eb6834;--c2:#1baf7a;--c3:#eda100;--c4:#4a3aa7;--c5:#e34948;--c6:#008300;--c7:#e87ba4}\n"
    "@media(prefers-color-scheme:dark){:root{--page:#0d0d0d;--card:#1a1a19;--ink:#f2f1ec;--faint:#a3a198;--grid:#"
    "33322e;"
    "--c0:#3987e5;--c1:#d95926;--c2:#199e70;--c3:#c98500;--c4:#9085e9;--c5:#e66767;--c6:#3aa03a;--c7:#d55181}}\n"
    "*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);"
    "font:15px/1.45 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}\n"
    "main{max-width:1240px;margin:0 auto;padding:20px 16px 48px}h1{font-size:24px;margin:8px 0 "
    "2px;overflow-wrap:anywhere}"
    "h2{font-size:17px;margin:28px 0 10px}.sub{color:var(--faint);margin:0 0 16px;overflow-wrap:anywhere}\n"
    ".grid{display:grid;gap:14px;grid-template-columns:repeat(auto-fill,minmax(min(100%,360px),1fr))}\n"
    ".facts{display:flex;flex-wrap:wrap;gap:12px;margin:0 0 14px}.facts div{background:var(--card);border-radius:8px;"
    "padding:10px 16px;min-width:110px}.facts b{display:block;font-size:21px}.facts "
    "span{color:var(--faint);font-size:13px}\n"
    "figure{margin:0;background:var(--card);border-radius:8px;padding:12px;min-width:0}"
    "figcaption{font-weight:600}.pictures figcaption{font-weight:400;font-size:13px;color:var(--faint);margin-top:6px;"
    "overflow-wrap:anywhere}.pictures img{display:block;max-width:100%;height:auto;margin:0 auto;border-radius:4px}\n"
    ".legend{display:flex;flex-wrap:wrap;gap:2px 14px;font-size:13px;color:var(--faint);margin:2px 0 4px}"
    ".legend b{color:var(--ink);font-weight:600;font-variant-numeric:tabular-nums}"
    ".legend i,.tip i{display:inline-block;width:14px;border-top:3px solid;vertical-align:middle;margin-right:5px}"
    "i.dash{border-top-style:dashed}\n"
    ".plot{position:relative}svg{display:block;width:100%;height:auto;overflow:visible}.plot>svg{touch-action:pan-y}"
    "svg text{fill:var(--faint);font-size:12px;font-variant-numeric:tabular-nums}"
    ".plot svg svg{overflow:hidden}.grid path.grid,path.grid{stroke:var(--grid);stroke-width:1;fill:none}"
    "path.curve{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}"
    "path.raw{fill:none;stroke-width:1;opacity:.28}path.dash{stroke-dasharray:5 4}path.hair{stroke:var(--faint);"
    "stroke-width:1;fill:none}\n"
    ".tip{position:absolute;top:0;pointer-events:none;background:var(--card);border:1px solid "
    "var(--grid);border-radius:6px;"
    "padding:5px 9px;font-size:12px;white-space:nowrap;box-shadow:0 2px 8px #0003;z-index:2}"
    ".tip b{font-variant-numeric:tabular-nums}\n"
    ".scroll{overflow-x:auto;background:var(--card);border-radius:8px;padding:6px 12px}table{border-collapse:collapse;"
    "width:100%;font-size:14px}th,td{text-align:left;padding:5px 12px 5px 0;border-bottom:1px solid var(--grid);"
    "white-space:nowrap}th{color:var(--faint);font-weight:600}tr:last-child td{border-bottom:0}.n{text-align:right;"
    "font-variant-numeric:tabular-nums}\n"
    "details{background:var(--card);border-radius:8px;padding:10px 14px;margin-top:28px}summary{cursor:pointer;"
    "font-weight:600}pre{overflow-x:auto;font-size:13px}\n";

/* For each chart: the nearest point of every curve under the pointer. */
static const char SCRIPT[] =
    "for(const f of document.querySelectorAll('.chart')){\n"
    "const "
    "d=JSON.parse(f.querySelector('script').textContent),s=f.querySelector('.plot>svg'),t=f.querySelector('.tip'),"
    "h=f.querySelector('.hair'),[l,tp,r,b,w]=d.box;\n"
    "const near=(a,v)=>{let i=0,j=a.length-1;while(i<j){const m=i+j>>1;a[m]<v?i=m+1:j=m}"
    "return i>0&&v-a[i-1]<a[i]-v?i-1:i};\n"
    "const hide=()=>{t.hidden=true;h.setAttribute('d','')};\n"
    "s.addEventListener('pointermove',e=>{const k=s.getBoundingClientRect(),z=w/k.width,px=(e.clientX-k.left)*z;\n"
    "if(px<l-8||px>r+8)return hide();\n"
    "const v=d.x[0]+(d.x[1]-d.x[0])*(px-l)/(r-l);let best=null;\n"
    "for(const c of d.curves){if(!c.x.length)continue;const "
    "x=c.x[near(c.x,v)];if(best===null||Math.abs(x-v)<Math.abs(best-v))"
    "best=x}\n"
    "if(best===null)return;const X=l+(r-l)*(best-d.x[0])/(d.x[1]-d.x[0]);h.setAttribute('d',`M${X} ${tp}V${b}`);\n"
    "t.textContent='';const head=document.createElement('div');head.textContent=`${d.xlabel} ${best}`;t.append(head);\n"
    "d.curves.forEach((c,n)=>{if(!c.x.length)return;const i=near(c.x,best);if(c.y[i]===null)return;"
    "if(Math.abs(c.x[i]-best)>(d.x[1]-d.x[0])/40)return;\n"
    "const row=document.createElement('div'),m=document.createElement('i'),q=document.createElement('b');"
    "m.style.borderColor=`var(--c${n%8})`;if((n>>3)%2)m.className='dash';"
    "q.textContent=' '+(+c.y[i].toPrecision(5));row.append(m,c.label,q);t.append(row)});\n"
    "t.hidden=false;const left=X/z,half=k.width/2;t.style.left=left<half?left+12+'px':'';"
    "t.style.right=left<half?'':k.width-left+12+'px'});\n"
    "s.addEventListener('pointerleave',hide)}\n";

/* ---- parts of the page ---- */

static void write_facts(FILE *out, const pd_report *r)
{
    if (!r->n_facts) return;
    fputs("<div class='facts'>", out);
    for (size_t i = 0; i < r->n_facts; i++) {
        fputs("<div><b>", out);
        pd_html_text(out, r->facts[i].value);
        fputs("</b><span>", out);
        pd_html_text(out, r->facts[i].label);
        fputs("</span></div>", out);
    }
    fputs("</div>\n", out);
}

static bool is_number(const char *text)
{
    char *end;
    (void)strtod(text, &end);
    return end != text && (!*end || !strcmp(end, "%"));
}

static void write_cell(FILE *out, const char *tag, const char *text, bool right)
{
    fprintf(out, "<%s%s>", tag, right ? " class='n'" : "");
    pd_html_text(out, text);
    fprintf(out, "</%s>", tag);
}

static void write_table(FILE *out, const pd_report_table *t)
{
    fputs("<h2>", out);
    pd_html_text(out, t->title);
    fputs("</h2><div class='scroll'><table><tr>", out);
    for (size_t c = 0; c < t->n_columns; c++) write_cell(out, "th", t->columns[c], t->n_rows && is_number(t->cells[c]));
    fputs("</tr>\n", out);
    for (size_t r = 0; r < t->n_rows; r++) {
        fputs("<tr>", out);
        for (size_t c = 0; c < t->n_columns; c++) {
            const char *cell = t->cells[r * t->n_columns + c];
            write_cell(out, "td", cell, is_number(cell));
        }
        fputs("</tr>\n", out);
    }
    fputs("</table></div>\n", out);
}

static void write_base64(FILE *out, pd_bytes b)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < b.size; i += 3) {
        const size_t n = b.size - i;
        const uint32_t v =
            (uint32_t)b.data[i] << 16 | (n > 1 ? (uint32_t)b.data[i + 1] << 8 : 0) | (n > 2 ? b.data[i + 2] : 0);
        fputc(digits[v >> 18], out);
        fputc(digits[v >> 12 & 63], out);
        fputc(n > 1 ? digits[v >> 6 & 63] : '=', out);
        fputc(n > 2 ? digits[v & 63] : '=', out);
    }
}

static pd_status write_image(FILE *out, const pd_report_image *image, pd_err *err)
{
    pd_bytes b;
    PD_TRY(pd_file_map(&b, image->path, err));
    const char *type = NULL;
    if (b.size > 3 && !memcmp(b.data, "\xff\xd8\xff", 3)) type = "jpeg";
    if (b.size > 8 && !memcmp(b.data, "\x89PNG\r\n\x1a\n", 8)) type = "png";
    pd_status status = PD_OK;
    if (!type) {
        status = PD_FAIL(err, PD_EFORMAT, "%s: neither a JPEG nor a PNG file", image->path);
    } else {
        fprintf(out, "<figure><img alt='' loading='lazy' src='data:image/%s;base64,", type);
        write_base64(out, b);
        fputs("'>", out);
        if (image->caption) {
            fputs("<figcaption>", out);
            pd_html_text(out, image->caption);
            fputs("</figcaption>", out);
        }
        fputs("</figure>\n", out);
    }
    pd_file_unmap(&b);
    return status;
}

static pd_status write_page(FILE *out, const pd_report *r, pd_err *err)
{
    fputs("<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>\n"
          "<meta name='viewport' content='width=device-width,initial-scale=1'>\n<title>",
          out);
    pd_html_text(out, r->title);
    fprintf(out, "</title>\n<style>\n%s</style></head>\n<body><main>\n<h1>", STYLE);
    pd_html_text(out, r->title);
    fputs("</h1>\n<p class='sub'>", out);
    if (r->subtitle) pd_html_text(out, r->subtitle);
    fputs("</p>\n", out);
    write_facts(out, r);
    if (r->n_charts) fputs("<div class='grid'>\n", out);
    for (size_t i = 0; i < r->n_charts; i++) PD_TRY(pd_chart_write(out, &r->charts[i], err));
    if (r->n_charts) fputs("</div>\n", out);
    for (size_t i = 0; i < r->n_tables; i++) write_table(out, &r->tables[i]);
    if (r->n_images) fputs("<h2>Pictures</h2><div class='grid pictures'>\n", out);
    for (size_t i = 0; i < r->n_images; i++) PD_TRY(write_image(out, &r->images[i], err));
    if (r->n_images) fputs("</div>\n", out);
    if (r->config) {
        fputs("<details><summary>Configuration</summary><pre>", out);
        pd_html_text(out, r->config);
        fputs("</pre></details>\n", out);
    }
    fprintf(out, "</main>\n<script>\n%s</script></body></html>\n", SCRIPT);
    return PD_OK;
}

pd_status pd_report_write(const char *path, const pd_report *report, pd_err *err)
{
    pd_out *out;
    PD_TRY(pd_out_open(&out, path, err));
    const pd_status status = write_page(pd_out_stream(out), report, err);
    if (status == PD_OK) return pd_out_commit(out, err);
    pd_out_cancel(out);
    return status;
}

/* ---- from a run's folder ---- */

typedef enum group { LOSS, PARTS, ACCURACY, PRECISION, RATE, SPEED, TIME, OTHER, GROUPS } group;

static const char *const titles[GROUPS] = {"Loss",          "Parts of the loss", "Accuracy", "Average precision",
                                           "Learning rate", "Images per second", "Seconds",  NULL};

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

static group group_of(const char *name)
{
    if (!strcmp(name, "loss")) return LOSS;
    if (strstr(name, "loss")) return PARTS;
    if (!strncmp(name, "top", 3) || ends_with(name, "acc")) return ACCURACY;
    if (!strncmp(name, "AP", 2) || !strncmp(name, "AR", 2) || strstr(name, "mAP")) return PRECISION;
    if (!strcmp(name, "lr")) return RATE;
    if (!strcmp(name, "images_per_s")) return SPEED;
    if (ends_with(name, "_s") || ends_with(name, "time")) return TIME;
    return OTHER;
}

static pd_status make_curve(pd_report_curve *out, const pd_log_series *s, bool kind, pd_arena *arena, pd_err *err)
{
    double *x, *y;
    char *label;
    PD_TRY(PD_ALLOC(&x, arena, s->count, err));
    PD_TRY(PD_ALLOC(&y, arena, s->count, err));
    for (size_t i = 0; i < s->count; i++) {
        x[i] = s->points[i].step;
        y[i] = s->points[i].value;
    }
    PD_TRY(pd_format(&label, arena, err, "%s%s%s", kind ? s->kind : "", kind && *s->kind ? " " : "", s->name));
    const group g = group_of(s->name);
    *out = (pd_report_curve){label, x, y, s->count, !strcmp(s->kind, "train") && g != RATE};
    return PD_OK;
}

/* One chart of all series of a group, or of the series number `only`. */
static pd_status make_chart(pd_report_chart *out, const pd_log_series *series, size_t count, group g, size_t only,
                            pd_arena *arena, pd_err *err)
{
    pd_report_curve *curves;
    size_t n = 0;
    PD_TRY(PD_ALLOC(&curves, arena, count, err));
    for (size_t i = 0; i < count; i++)
        if (only == SIZE_MAX ? group_of(series[i].name) == g : i == only)
            PD_TRY(make_curve(&curves[n++], &series[i], g == LOSS || g == ACCURACY || g == TIME, arena, err));
    *out = (pd_report_chart){g == OTHER ? curves[0].label : titles[g], "step", curves, n, false};
    return PD_OK;
}

static pd_status collect(pd_report *r, const char *dir, const pd_report *extra, pd_arena *arena, pd_err *err)
{
    char *path;
    pd_log_series *series;
    pd_report_chart *charts;
    size_t count, n = 0;
    PD_TRY(pd_path_join(&path, dir, "log.jsonl", arena, err));
    PD_TRY(pd_log_read(&series, &count, path, arena, err));
    PD_TRY(PD_ALLOC(&charts, arena, GROUPS + count + extra->n_charts, err));
    for (int g = 0; g < OTHER; g++) {
        PD_TRY(make_chart(&charts[n], series, count, (group)g, SIZE_MAX, arena, err));
        n += charts[n].n_curves > 0;
    }
    for (size_t i = 0; i < count; i++)
        if (group_of(series[i].name) == OTHER) PD_TRY(make_chart(&charts[n++], series, count, OTHER, i, arena, err));
    for (size_t i = 0; i < extra->n_charts; i++) charts[n++] = extra->charts[i];
    *r = *extra;
    r->charts = charts;
    r->n_charts = n;
    PD_TRY(pd_path_join(&path, dir, "config.json", arena, err));
    if (!r->config && pd_file_exists(path)) {
        pd_bytes text;
        PD_TRY(pd_file_read(&text, path, (size_t)16 << 20, arena, err));
        r->config = (const char *)text.data;
    }
    return PD_OK;
}

pd_status pd_report_run(const char *dir, const pd_report *extra, pd_err *err)
{
    pd_arena *arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "%s: out of memory", dir);
    pd_report r;
    char *path = NULL;
    pd_status status = collect(&r, dir, extra, arena, err);
    if (status == PD_OK) status = pd_path_join(&path, dir, "report.html", arena, err);
    if (status == PD_OK) status = pd_report_write(path, &r, err);
    pd_arena_free(arena);
    return status;
}
