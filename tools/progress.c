#include "tools/progress.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define ON_TERMINAL 0.1 /* seconds between two drawings */
#define ON_PIPE 10.0
#define BAR 24 /* cells */

double pd_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double pd_wall_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void pd_duration_text(char out[32], double seconds)
{
    const long long s = seconds > 0 && seconds < 1e12 ? llround(seconds) : 0;
    if (s < 60)
        snprintf(out, 32, "%lld s", s);
    else if (s < 3600)
        snprintf(out, 32, "%lld:%02lld", s / 60, s % 60);
    else if (s < 48LL * 3600)
        snprintf(out, 32, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, 32, "%lld d %02lld h", s / 86400, s / 3600 % 24);
}

static void rate_text(char out[64], double rate, const char *unit)
{
    if (rate >= 100 || rate == 0)
        snprintf(out, 64, "%.0f %s/s", rate, unit);
    else if (rate >= 0.1)
        snprintf(out, 64, "%.3g %s/s", rate, unit);
    else
        snprintf(out, 64, "%.3g s each", 1 / rate);
}

void pd_progress_begin(pd_progress *p, const char *title, const char *unit, int64_t total, bool quiet)
{
    *p = (pd_progress){.out = quiet ? NULL : stderr, .unit = unit, .total = total, .start = pd_seconds()};
    snprintf(p->title, sizeof p->title, "%s", title);
    if (!p->out) return;
    const char *term = getenv("TERM");
    p->terminal = isatty(fileno(p->out)) && term && strcmp(term, "dumb") != 0;
    p->last = p->start;
    p->next = p->start + (p->terminal ? 0 : ON_PIPE);
}

static void erase(pd_progress *p)
{
    if (p->drawn) fputs("\r\033[K", p->out);
    p->drawn = false;
}

/* What stands behind the title: "120/500 images  24%  31.5 images/s  12 s left  loss 1.2" */
static void state_text(char *out, size_t size, const pd_progress *p, int64_t done, const char *note, double now)
{
    char rate[64], left[32], percent[16] = "", rest[64] = "";
    const double passed = now - p->start, speed = passed > 0 ? (double)done / passed : 0;
    rate_text(rate, speed, p->unit);
    if (p->total > 0) {
        snprintf(percent, sizeof percent, " %3d%%", (int)(100.0 * (double)done / (double)p->total));
        if (done > 0 && speed > 0) {
            pd_duration_text(left, (double)(p->total - done) / speed);
            snprintf(rest, sizeof rest, "  %s left", left);
        }
        snprintf(out, size, "%lld/%lld %s%s  %s%s%s%s", (long long)done, (long long)p->total, p->unit, percent, rate,
                 rest, note ? "  " : "", note ? note : "");
    } else {
        snprintf(out, size, "%lld %s  %s%s%s", (long long)done, p->unit, rate, note ? "  " : "", note ? note : "");
    }
}

static void draw_bar(pd_progress *p, int64_t done, const char *text)
{
    struct winsize window = {0};
    const int columns = ioctl(fileno(p->out), TIOCGWINSZ, &window) == 0 && window.ws_col > 20 ? window.ws_col : 80;
    char bar[BAR + 1] = "", line[512];
    if (p->total > 0) {
        const double share = (double)done / (double)p->total;
        const int full = (int)(fmin(fmax(share, 0), 1) * BAR);
        memset(bar, '-', BAR);
        memset(bar, '#', (size_t)full);
    }
    snprintf(line, sizeof line, "%s %s%s%s%s", p->title, *bar ? "[" : "", bar, *bar ? "] " : "", text);
    /* Never wider than the window, or the line would wrap and could not be drawn over. */
    if ((int)strlen(line) >= columns) line[columns - 1] = '\0';
    fprintf(p->out, "\r%s\033[K", line);
    (void)fflush(p->out);
    p->drawn = true;
}

void pd_progress_update(pd_progress *p, int64_t done, const char *note)
{
    if (!p->out) return;
    const double now = pd_seconds();
    if (now < p->next) return;
    char text[320];
    state_text(text, sizeof text, p, done, note, now);
    if (p->terminal)
        draw_bar(p, done, text);
    else
        fprintf(p->out, "%s: %s\n", p->title, text);
    p->last = now;
    p->next = now + (p->terminal ? ON_TERMINAL : ON_PIPE);
}

void pd_progress_line(pd_progress *p, const char *fmt, ...)
{
    if (!p->out) return;
    va_list args;
    erase(p);
    va_start(args, fmt);
    vfprintf(p->out, fmt, args);
    va_end(args);
    fputc('\n', p->out);
    (void)fflush(p->out);
    p->next = 0; /* the bar comes back with the next update */
    if (!p->terminal) p->next = pd_seconds() + ON_PIPE;
}

void pd_progress_end(pd_progress *p, int64_t done)
{
    if (!p->out) return;
    char rate[64], time[32];
    const double passed = pd_seconds() - p->start;
    rate_text(rate, passed > 0 ? (double)done / passed : 0, p->unit);
    pd_duration_text(time, passed);
    erase(p);
    fprintf(p->out, "%s: %lld %s in %s (%s)\n", p->title, (long long)done, p->unit, time, rate);
    (void)fflush(p->out);
    p->out = NULL;
}
