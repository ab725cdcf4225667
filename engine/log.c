#include "engine/log.h"

#include "engine/file.h"
#include "engine/json.h"
#include "engine/tfevents.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOG_LIMIT ((size_t)1 << 30) /* bytes of a log that can be read back */

struct pd_log {
    int fd;
    char *path;
    pd_tfevents *events;
    pd_arena *line; /* of the line being written */
};

/* ---- lines ---- */

/* The next whole line of [*at, end): its begin and length without the line break; false where none is left. */
static bool next_line(const char **begin, size_t *length, const char **at, const char *end)
{
    const char *stop = *at < end ? memchr(*at, '\n', (size_t)(end - *at)) : NULL;
    if (!stop) return false;
    *begin = *at;
    *length = (size_t)(stop - *at);
    *at = stop + 1;
    return true;
}

/* The "step" of a line, NaN where it has none. */
static double step_of(const pd_json_doc *doc)
{
    const pd_json *step = pd_json_member(pd_json_root(doc), "step");
    return step && pd_json_type(step) == PD_JSON_NUMBER ? pd_json_number(step) : NAN;
}

static pd_status parse_line(pd_json_doc **doc, const char *path, size_t number, const char *text, size_t length,
                            pd_err *err)
{
    pd_json_doc *d;
    const pd_status status = pd_json_parse(&d, "", text, length, err);
    if (status != PD_OK) return pd_err_context(err, "%s:%zu", path, number), status;
    if (pd_json_type(pd_json_root(d)) != PD_JSON_OBJECT) {
        pd_json_close(d);
        return PD_FAIL(err, PD_EFORMAT, "%s:%zu: expected one JSON object a line", path, number);
    }
    *doc = d;
    return PD_OK;
}

/* Whether a run that goes on from `step` will write this line again. */
static bool comes_again(const pd_json_doc *doc, int64_t step, const char *again)
{
    const pd_json *kind = pd_json_member(pd_json_root(doc), "kind");
    const double at = step_of(doc);
    if (at > (double)step) return true;
    return again && at == (double)step && kind && pd_json_type(kind) == PD_JSON_STRING &&
           !strcmp(pd_json_string(kind), again);
}

/* How many bytes of the file stay when a run goes on from `step`. */
static pd_status kept_bytes(size_t *out, const char *path, int64_t step, const char *again, pd_err *err)
{
    pd_bytes file;
    PD_TRY(pd_file_map(&file, path, err));
    const char *first = (const char *)file.data, *at = first, *end = first + file.size, *line;
    size_t length, kept = 0;
    pd_status status = PD_OK;
    while (next_line(&line, &length, &at, end)) {
        pd_json_doc *doc;
        pd_err own = PD_ERR_INIT;
        status = parse_line(&doc, path, 0, line, length, &own);
        if (status == PD_ENOMEM) PD_FAIL(err, PD_ENOMEM, "%s", own.text);
        if (status != PD_OK) break; /* what a power failure left of it: the log ends here */
        const bool behind = comes_again(doc, step, again);
        pd_json_close(doc);
        if (behind) break;
        kept = (size_t)(at - first);
    }
    pd_file_unmap(&file);
    if (status == PD_ENOMEM) return status;
    *out = kept;
    return PD_OK;
}

/* ---- writing ---- */

static pd_status open_file(pd_log *log, int64_t resume_step, const char *again, pd_err *err)
{
    size_t kept = 0;
    if (resume_step >= 0 && pd_file_exists(log->path)) PD_TRY(kept_bytes(&kept, log->path, resume_step, again, err));
    log->fd = open(log->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (log->fd < 0) return PD_FAIL(err, PD_EIO, "%s: cannot open: %s", log->path, strerror(errno));
    if (ftruncate(log->fd, (off_t)kept) != 0)
        return PD_FAIL(err, PD_EIO, "%s: cannot cut: %s", log->path, strerror(errno));
    return PD_OK;
}

pd_status pd_log_open(pd_log **out, const char *dir, int64_t resume_step, const char *again, double wall_time,
                      pd_err *err)
{
    pd_log *log = calloc(1, sizeof *log);
    if (!log) return PD_FAIL(err, PD_ENOMEM, "%s: out of memory", dir);
    pd_status status = PD_OK;
    log->fd = -1;
    log->line = pd_arena_new();
    if (!log->line || asprintf(&log->path, "%s/log.jsonl", dir) < 0) {
        log->path = NULL;
        status = PD_FAIL(err, PD_ENOMEM, "%s: out of memory", dir);
        goto done;
    }
    PD_TRY_DONE(open_file(log, resume_step, again, err));
    PD_TRY_DONE(pd_tfevents_open(&log->events, dir, wall_time, resume_step + 1, err));
    *out = log;
    log = NULL;
done:
    if (log) pd_log_close(log, NULL);
    return status;
}

/* One write: a line is there whole, or the machine stopped in between. */
static pd_status append(const pd_log *log, const char *text, size_t length, pd_err *err)
{
    while (length) {
        const ssize_t n = write(log->fd, text, length);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return PD_FAIL(err, PD_EIO, "%s: cannot write: %s", log->path, strerror(errno));
        text += n;
        length -= (size_t)n;
    }
    return PD_OK;
}

pd_status pd_log_write(pd_log *log, const char *kind, int64_t step, double wall_time, const pd_log_value *values,
                       size_t count, pd_err *err)
{
    if (!log) return PD_OK;
    const char **names;
    double *numbers;
    char *text, *line;
    size_t n = 0;
    pd_arena_reset(log->line);
    PD_TRY(PD_ALLOC(&names, log->line, count, err));
    PD_TRY(PD_ALLOC(&numbers, log->line, count, err));
    pd_json_writer *w = pd_json_object();
    pd_json_put_string(w, "kind", kind);
    pd_json_put_int(w, "step", step);
    for (size_t i = 0; i < count; i++) {
        pd_json_put_double(w, values[i].name, values[i].value);
        if (!strcmp(values[i].name, "epoch")) continue; /* TensorBoard counts in steps */
        names[n] = values[i].name;
        numbers[n++] = values[i].value;
    }
    pd_status status = pd_json_finish(&text, w, false, log->line, err);
    if (status != PD_OK) return pd_err_context(err, "%s", log->path), status;
    PD_TRY(pd_format(&line, log->line, err, "%s\n", text));
    PD_TRY(append(log, line, strlen(line), err));
    return pd_tfevents_scalars(log->events, wall_time, step, kind, names, numbers, n, err);
}

pd_status pd_log_close(pd_log *log, pd_err *err)
{
    if (!log) return PD_OK;
    pd_status status = pd_tfevents_close(log->events, err);
    if (log->fd >= 0 && close(log->fd) != 0 && status == PD_OK)
        status = PD_FAIL(err, PD_EIO, "%s: cannot write: %s", log->path, strerror(errno));
    pd_arena_free(log->line);
    free(log->path);
    free(log);
    return status;
}

/* ---- reading back ---- */

typedef struct growing {
    const char *kind, *name;
    pd_log_point *points; /* heap */
    size_t count, room;
} growing;

typedef struct collection {
    growing *series;
    size_t count, room;
} collection;

static pd_status series_of(growing **out, collection *c, const char *kind, const char *name, pd_arena *arena,
                           pd_err *err)
{
    for (size_t i = 0; i < c->count; i++) {
        if (strcmp(c->series[i].kind, kind) != 0 || strcmp(c->series[i].name, name) != 0) continue;
        *out = &c->series[i];
        return PD_OK;
    }
    char *k, *n;
    PD_TRY(pd_grow(&c->series, &c->room, c->count + 1, sizeof *c->series, err));
    PD_TRY(pd_strdup(&k, arena, kind, err));
    PD_TRY(pd_strdup(&n, arena, name, err));
    c->series[c->count] = (growing){.kind = k, .name = n};
    *out = &c->series[c->count++];
    return PD_OK;
}

static pd_status collect(collection *c, const pd_json_doc *doc, pd_arena *arena, pd_err *err)
{
    const pd_json *root = pd_json_root(doc), *kind = pd_json_member(root, "kind"),
                  *epoch = pd_json_member(root, "epoch");
    const bool named = kind && pd_json_type(kind) == PD_JSON_STRING;
    const double e = epoch && pd_json_type(epoch) == PD_JSON_NUMBER ? pd_json_number(epoch) : NAN;
    for (const pd_json *v = pd_json_first(root); v; v = pd_json_next(v)) {
        const char *name = pd_json_key(v);
        const bool number = pd_json_type(v) == PD_JSON_NUMBER;
        if ((!number && pd_json_type(v) != PD_JSON_NULL) || !strcmp(name, "step") || !strcmp(name, "epoch")) continue;
        growing *g;
        PD_TRY(series_of(&g, c, named ? pd_json_string(kind) : "", name, arena, err));
        PD_TRY(pd_grow(&g->points, &g->room, g->count + 1, sizeof *g->points, err));
        g->points[g->count++] = (pd_log_point){step_of(doc), e, number ? pd_json_number(v) : NAN};
    }
    return PD_OK;
}

static pd_status finish(pd_log_series **out, const collection *c, pd_arena *arena, pd_err *err)
{
    pd_log_series *series;
    PD_TRY(PD_ALLOC(&series, arena, c->count, err));
    for (size_t i = 0; i < c->count; i++) {
        const growing *g = &c->series[i];
        series[i] = (pd_log_series){.kind = g->kind, .name = g->name, .count = g->count};
        PD_TRY(PD_ALLOC(&series[i].points, arena, g->count, err));
        memcpy(series[i].points, g->points, g->count * sizeof *g->points);
    }
    *out = series;
    return PD_OK;
}

pd_status pd_log_read(pd_log_series **out, size_t *count, const char *path, pd_arena *arena, pd_err *err)
{
    pd_bytes file;
    PD_TRY(pd_file_map(&file, path, err));
    collection c = {0};
    const char *at = (const char *)file.data, *end = at + file.size, *line;
    size_t length, number = 0;
    pd_status status = PD_OK;
    while (next_line(&line, &length, &at, end)) {
        pd_json_doc *doc;
        PD_TRY_DONE(parse_line(&doc, path, ++number, line, length, err));
        status = collect(&c, doc, arena, err);
        pd_json_close(doc);
        if (status != PD_OK) goto done;
    }
    PD_TRY_DONE(finish(out, &c, arena, err));
    *count = c.count;
done:
    for (size_t i = 0; i < c.count; i++) free(c.series[i].points);
    free(c.series);
    pd_file_unmap(&file);
    return status;
}

const pd_log_series *pd_log_find(const pd_log_series *series, size_t count, const char *kind, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(series[i].kind, kind) && !strcmp(series[i].name, name)) return &series[i];
    return NULL;
}
