#include "tools/chart.h"

#include "engine/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The drawing's own units; CSS scales it to the card. */
#define WIDTH 480.0
#define HEIGHT 260.0
#define LEFT 48.0
#define RIGHT 12.0
#define TOP 10.0
#define BOTTOM 34.0
#define MOST_POINTS 800 /* of a curve that are drawn */

void pd_html_text(FILE *out, const char *text)
{
    for (; *text; text++) {
        switch (*text) {
        case '<': fputs("&lt;", out); break;
        case '>': fputs("&gt;", out); break;
        case '&': fputs("&amp;", out); break;
        case '"': fputs("&quot;", out); break;
        case '\'': fputs("&#39;", out); break;
        default: fputc(*text, out);
        }
    }
}

/* ---- numbers ---- */

typedef struct line {
    double *x, *y;
    size_t count;
} line;

typedef struct axis {
    double low, high;
    bool log;
} axis;

static double place(const axis *a, double v, double from, double to)
{
    const double low = a->log ? log10(a->low) : a->low, high = a->log ? log10(a->high) : a->high;
    return from + (to - from) * ((a->log ? log10(v) : v) - low) / (high - low);
}

/* Exponential moving average with the weight of the missing past taken out (Kingma and Ba 2015, eq. 1 of sec. 3). */
static void smooth(double *out, const double *y, size_t n)
{
    const double keep = exp(-1.0 / fmax((double)n / 50, 1));
    double sum = 0, weight = 0;
    for (size_t i = 0; i < n; i++) {
        if (isfinite(y[i])) {
            sum = keep * sum + (1 - keep) * y[i];
            weight = keep * weight + (1 - keep);
        }
        out[i] = isfinite(y[i]) ? sum / weight : NAN;
    }
}

/* Fewer points with the same look: of each bucket its smallest and its largest value, in their order. */
static void thin(line *l)
{
    if (l->count <= MOST_POINTS) return;
    const size_t buckets = MOST_POINTS / 2;
    size_t n = 0;
    for (size_t b = 0; b < buckets; b++) {
        const size_t begin = l->count * b / buckets, end = l->count * (b + 1) / buckets;
        size_t low = begin, high = begin;
        for (size_t i = begin; i < end; i++) {
            if (l->y[i] < l->y[low] || isnan(l->y[low])) low = i;
            if (l->y[i] > l->y[high] || isnan(l->y[high])) high = i;
        }
        const size_t first = low < high ? low : high, second = low < high ? high : low;
        const double x[2] = {l->x[first], l->x[second]}, y[2] = {l->y[first], l->y[second]};
        for (int k = 0; k < (first == second ? 1 : 2); k++, n++) {
            l->x[n] = x[k];
            l->y[n] = y[k];
        }
    }
    l->count = n;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Widens an axis to a curve's values; `trim` leaves out the outermost share at both ends, so that one spike does not
 * flatten the rest. */
static pd_status widen(axis *a, const line *l, double trim, pd_arena *arena, pd_err *err)
{
    double *sorted;
    size_t n = 0;
    PD_TRY(PD_ALLOC(&sorted, arena, l->count, err));
    for (size_t i = 0; i < l->count; i++)
        if (isfinite(l->y[i])) sorted[n++] = l->y[i];
    if (!n) return PD_OK;
    qsort(sorted, n, sizeof *sorted, by_value);
    const size_t cut = (size_t)(trim * (double)n);
    a->low = fmin(a->low, sorted[cut]);
    a->high = fmax(a->high, sorted[n - 1 - cut]);
    return PD_OK;
}

/* A round step that divides the range into at most `most` parts: 1, 2 or 5 times a power of ten. */
static double round_step(double range, double most)
{
    const double least = range / most, power = pow(10, floor(log10(least)));
    const double digit = least / power;
    return power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
}

static void tick_text(char out[32], double v)
{
    const double size = fabs(v);
    if (size >= 1e6 && size < 1e9)
        snprintf(out, 32, "%.4gM", v / 1e6);
    else if (size >= 1e4 && size < 1e6)
        snprintf(out, 32, "%.4gk", v / 1e3);
    else
        snprintf(out, 32, "%.4g", size < 1e-12 ? 0 : v);
}

/* ---- drawing ---- */

static void draw_tick(FILE *out, const axis *a, double v, bool is_x)
{
    char text[32];
    tick_text(text, v);
    if (is_x) {
        const double x = place(a, v, LEFT, WIDTH - RIGHT);
        fprintf(out, "<text x='%.1f' y='%.1f' text-anchor='middle'>%s</text>", x, HEIGHT - BOTTOM + 16, text);
        return;
    }
    const double y = place(a, v, HEIGHT - BOTTOM, TOP);
    fprintf(out, "<path class='grid' d='M%.1f %.1fH%.1f'/><text x='%.1f' y='%.1f' text-anchor='end'>%s</text>", LEFT, y,
            WIDTH - RIGHT, LEFT - 6, y + 4, text);
}

static void draw_ticks(FILE *out, const axis *a, bool is_x)
{
    if (a->log) {
        static const double digits[] = {1, 2, 5};
        const bool wide = log10(a->high / a->low) > 2.5;
        for (int power = (int)floor(log10(a->low)); power <= (int)ceil(log10(a->high)); power++)
            for (int k = 0; k < (wide ? 1 : 3); k++) {
                const double v = digits[k] * pow(10, power);
                if (v >= a->low * 0.999 && v <= a->high * 1.001) draw_tick(out, a, v, is_x);
            }
        return;
    }
    const double step = round_step(a->high - a->low, is_x ? 6 : 5), first = ceil(a->low / step - 1e-9);
    for (int i = 0; i < 12 && (first + i) * step <= a->high + step * 1e-6; i++)
        draw_tick(out, a, (first + i) * step, is_x);
}

static void draw_line(FILE *out, const line *l, const axis *x, const axis *y, size_t color, bool faint)
{
    bool pen = false;
    fprintf(out, "<path class='%s%s' style='stroke:var(--c%zu)' d='", faint ? "raw" : "curve",
            color / 8 % 2 ? " dash" : "", color % 8);
    for (size_t i = 0; i < l->count; i++) {
        if (!isfinite(l->y[i]) || (y->log && l->y[i] <= 0)) {
            pen = false;
            continue;
        }
        /* a lone point becomes a dot: a line of no length with round ends */
        fprintf(out, "%c%.1f %.1f%s", pen ? 'L' : 'M', place(x, l->x[i], LEFT, WIDTH - RIGHT),
                place(y, l->y[i], HEIGHT - BOTTOM, TOP), pen ? "" : "h0");
        pen = true;
    }
    fputs("'/>", out);
}

/* What the page's script needs, as JSON inside a script element, where "<" must not stand. */
static pd_status write_numbers(FILE *out, const pd_report_chart *chart, const line *lines, const axis *x, const axis *y,
                               pd_arena *arena, pd_err *err)
{
    pd_json_writer *w = pd_json_object();
    char *text;
    const double box[] = {LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM, WIDTH, HEIGHT};
    pd_json_put_doubles(w, "box", box, 6);
    pd_json_put_doubles(w, "x", (const double[]){x->low, x->high}, 2);
    pd_json_put_doubles(w, "y", (const double[]){y->low, y->high}, 2);
    pd_json_put_bool(w, "log", y->log);
    pd_json_put_string(w, "xlabel", chart->x_label);
    pd_json_begin_array(w, "curves");
    for (size_t c = 0; c < chart->n_curves; c++) {
        pd_json_begin_object(w, NULL);
        pd_json_put_string(w, "label", chart->curves[c].label);
        pd_json_begin_array(w, "x");
        for (size_t i = 0; i < lines[c].count; i++) pd_json_put_float(w, NULL, (float)lines[c].x[i]);
        pd_json_end(w);
        pd_json_begin_array(w, "y");
        for (size_t i = 0; i < lines[c].count; i++) pd_json_put_float(w, NULL, (float)lines[c].y[i]);
        pd_json_end(w);
        pd_json_end(w);
    }
    pd_json_end(w);
    PD_TRY(pd_json_finish(&text, w, false, arena, err));
    fputs("<script type='application/json'>", out);
    for (const char *p = text; *p; p++)
        if (*p == '<')
            fputs("\\u003c", out);
        else
            fputc(*p, out);
    fputs("</script>", out);
    return PD_OK;
}

static void draw_legend(FILE *out, const pd_report_chart *chart, const line *lines)
{
    fputs("<div class='legend'>", out);
    for (size_t c = 0; c < chart->n_curves; c++) {
        double last = NAN;
        for (size_t i = 0; i < lines[c].count; i++)
            if (isfinite(lines[c].y[i])) last = lines[c].y[i];
        fprintf(out, "<span><i class='%s' style='border-color:var(--c%zu)'></i>", c / 8 % 2 ? "dash" : "", c % 8);
        pd_html_text(out, chart->curves[c].label);
        if (isfinite(last)) fprintf(out, " <b>%.4g</b>", last);
        fputs("</span>", out);
    }
    fputs("</div>", out);
}

/* The curves as they are drawn: `lines` smoothed where asked for, `raw` beside them (count 0 where there is none). */
static pd_status make_lines(line *lines, line *raw, const pd_report_chart *chart, pd_arena *arena, pd_err *err)
{
    for (size_t c = 0; c < chart->n_curves; c++) {
        const pd_report_curve *curve = &chart->curves[c];
        line *l[2] = {&lines[c], &raw[c]};
        for (int k = 0; k < 2; k++) {
            PD_TRY(PD_ALLOC(&l[k]->x, arena, curve->count, err));
            PD_TRY(PD_ALLOC(&l[k]->y, arena, curve->count, err));
            for (size_t i = 0; i < curve->count; i++) {
                if (!isfinite(curve->x[i])) continue;
                l[k]->x[l[k]->count] = curve->x[i];
                l[k]->y[l[k]->count++] = curve->y[i];
            }
        }
        if (curve->smooth && lines[c].count >= 20)
            smooth(lines[c].y, raw[c].y, lines[c].count);
        else
            raw[c].count = 0;
    }
    return PD_OK;
}

/* The ranges of both axes; false where there is nothing to draw. */
static pd_status make_axes(axis *x, axis *y, const pd_report_chart *chart, const line *lines, const line *raw,
                           pd_arena *arena, pd_err *err)
{
    *x = *y = (axis){INFINITY, -INFINITY, false};
    bool positive = true;
    for (size_t c = 0; c < chart->n_curves; c++) {
        for (size_t i = 0; i < lines[c].count; i++) {
            if (!isfinite(lines[c].y[i])) continue;
            x->low = fmin(x->low, lines[c].x[i]);
            x->high = fmax(x->high, lines[c].x[i]);
            positive = positive && lines[c].y[i] > 0;
        }
        PD_TRY(widen(y, &lines[c], 0, arena, err));
        PD_TRY(widen(y, &raw[c], 0.02, arena, err));
    }
    if (!(x->high > x->low)) x->high = x->low + 1;
    y->log = chart->log_y && positive && y->low > 0;
    if (y->log) {
        y->low /= 1.1;
        y->high *= 1.1;
        return PD_OK;
    }
    if (y->low > 0 && y->low < 0.4 * y->high) y->low = 0; /* near enough to show the whole size */
    const double room = y->high > y->low ? y->high - y->low : fmax(fabs(y->high), 1e-6);
    if (y->low != 0) y->low -= 0.05 * room;
    y->high += 0.05 * room;
    return PD_OK;
}

static pd_status draw(FILE *out, const pd_report_chart *chart, pd_arena *arena, pd_err *err)
{
    line *lines, *raw;
    axis x, y;
    PD_TRY(PD_ALLOC(&lines, arena, chart->n_curves, err));
    PD_TRY(PD_ALLOC(&raw, arena, chart->n_curves, err));
    PD_TRY(make_lines(lines, raw, chart, arena, err));
    PD_TRY(make_axes(&x, &y, chart, lines, raw, arena, err));
    if (!isfinite(y.low) || !isfinite(x.low)) return PD_OK;
    fputs("<figure class='chart'><figcaption>", out);
    pd_html_text(out, chart->title);
    fputs("</figcaption>", out);
    draw_legend(out, chart, lines);
    fprintf(out, "<div class='plot'><svg viewBox='0 0 %g %g' role='img' aria-label='", WIDTH, HEIGHT);
    pd_html_text(out, chart->title);
    fputs("'>", out);
    draw_ticks(out, &y, false);
    draw_ticks(out, &x, true);
    fprintf(out, "<text x='%.1f' y='%.1f' text-anchor='end'>", WIDTH - RIGHT, HEIGHT - 3);
    pd_html_text(out, chart->x_label);
    /* an inner drawing cuts off what lies outside the axes */
    fprintf(out, "</text><svg x='%g' y='%g' width='%g' height='%g' viewBox='%g %g %g %g'>", LEFT, TOP - 4,
            WIDTH - LEFT - RIGHT + 4, HEIGHT - TOP - BOTTOM + 8, LEFT, TOP - 4, WIDTH - LEFT - RIGHT + 4,
            HEIGHT - TOP - BOTTOM + 8);
    for (size_t c = 0; c < chart->n_curves; c++) {
        thin(&raw[c]);
        thin(&lines[c]);
        if (raw[c].count) draw_line(out, &raw[c], &x, &y, c, true);
    }
    for (size_t c = chart->n_curves; c-- > 0;) draw_line(out, &lines[c], &x, &y, c, false);
    fputs("</svg><path class='hair' d=''/></svg><div class='tip' hidden></div></div>", out);
    PD_TRY(write_numbers(out, chart, lines, &x, &y, arena, err));
    fputs("</figure>\n", out);
    return PD_OK;
}

pd_status pd_chart_write(FILE *out, const pd_report_chart *chart, pd_err *err)
{
    pd_arena *arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    const pd_status status = draw(out, chart, arena, err);
    pd_arena_free(arena);
    return status;
}
