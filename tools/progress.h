/* progress.h: how far a program is, on standard error.
 *
 * On a terminal one line that is drawn over itself, at most ten times a second: title, bar, done/total, rate, time
 * left, note. On a pipe plain lines, one each ten seconds, and nothing is overwritten. */
#ifndef PD_PROGRESS_H
#define PD_PROGRESS_H

#include "engine/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct pd_progress {
    FILE *out; /* NULL: quiet */
    bool terminal;
    bool drawn; /* a bar stands on the terminal's last line */
    char title[64];
    const char *unit;
    int64_t total;            /* 0: not known */
    double start, last, next; /* seconds: begun, drawn last, earliest next drawing */
} pd_progress;

/* `unit`: plural noun, as "images"; kept. */
void pd_progress_begin(pd_progress *p, const char *title, const char *unit, int64_t total, bool quiet);
/* `note` is shown behind (a loss, a file name); NULL allowed. */
void pd_progress_update(pd_progress *p, int64_t done, const char *note);
/* A line of its own, above the bar; on a pipe a plain line. Nothing where quiet. */
void pd_progress_line(pd_progress *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Removes the bar and prints one line: title, done, time and rate. */
void pd_progress_end(pd_progress *p, int64_t done);

/* Seconds of a clock that never jumps; and since 1970. */
double pd_seconds(void);
double pd_wall_time(void);

/* "45 s", "3:07", "2:15:00", "4 d 03 h". */
void pd_duration_text(char out[32], double seconds);

#endif
