/* log.h: the record of a run: log.jsonl and TensorBoard events in the run's folder.
 *
 * log.jsonl holds one JSON object a line: {"kind": "train", "epoch": 0, "step": 50, "loss": 2.31, ...}. It is appended
 * to and handed to the operating system line by line, so that after a crash at most the last line is incomplete. A run
 * that goes on from a checkpoint first drops the lines behind the checkpoint's step: the file reads as if nothing had
 * happened.
 *
 * TensorBoard gets the same numbers as scalars "kind/name" over the step (engine/tfevents.h).
 *
 * Threads: one log belongs to one thread. */
#ifndef PD_LOG_H
#define PD_LOG_H

#include "engine/arena.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct pd_log pd_log;

typedef struct pd_log_value {
    const char *name;
    double value; /* NaN and infinities become null in JSON */
} pd_log_value;

/* Opens `dir`/log.jsonl (the folder must be there) and a new events file. resume_step -1: a new run, an old log.jsonl
 * is emptied; otherwise the file is cut in front of the first line with "step" > resume_step, and of the first line
 * that is no JSON object (what a power failure left), and an incomplete last line goes. again: the kind of line that
 * will be written once more at resume_step itself ("val" where the run stopped before its validation was saved), cut
 * there too; NULL: none. `wall_time`: seconds since 1970, for the events file. */
pd_status pd_log_open(pd_log **out, const char *dir, int64_t resume_step, const char *again, double wall_time,
                      pd_err *err);

/* log NULL: nothing is written. One line: kind and step, then the values in the order given (do not repeat "kind" or "step"; "epoch" is one of them).
 * Whole numbers are written without a point. */
pd_status pd_log_write(pd_log *log, const char *kind, int64_t step, double wall_time, const pd_log_value *values,
                       size_t count, pd_err *err);

/* Closes both files; NULL allowed. Fails when something could not be written. */
pd_status pd_log_close(pd_log *log, pd_err *err);

/* ---- reading back, for reports ---- */

typedef struct pd_log_point {
    double step, epoch, value; /* epoch NaN where the line has none */
} pd_log_point;

typedef struct pd_log_series {
    const char *kind, *name;
    pd_log_point *points;
    size_t count;
} pd_log_series;

/* Every numeric series of a log.jsonl, in the order of first appearance; null values become NaN. An incomplete last
 * line is left out; any other malformed line is an error. All in the arena. */
pd_status pd_log_read(pd_log_series **out, size_t *count, const char *path, pd_arena *arena, pd_err *err);

/* The series of that kind and name, or NULL. */
const pd_log_series *pd_log_find(const pd_log_series *series, size_t count, const char *kind, const char *name);

#endif
