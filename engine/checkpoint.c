#include "engine/checkpoint.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Lines of a report, grown on the heap. */
typedef struct lines {
    char *text;
    size_t size, room;
    size_t count;
} lines;

static pd_status add_line(lines *l, pd_err *err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static pd_status add_line(lines *l, pd_err *err, const char *fmt, ...)
{
    char line[512];
    va_list args;
    va_start(args, fmt);
    const int length = vsnprintf(line, sizeof line - 1, fmt, args);
    va_end(args);
    const size_t n = length < 0 ? 0 : (size_t)length < sizeof line - 1 ? (size_t)length : sizeof line - 2;
    PD_TRY(pd_grow(&l->text, &l->room, l->size + n + 2, 1, err));
    memcpy(l->text + l->size, line, n);
    l->text[l->size + n] = '\n';
    l->text[l->size + n + 1] = '\0';
    l->size += n + 1;
    l->count++;
    return PD_OK;
}

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool skipped(const char *name, const pd_load_options *o)
{
    if (starts_with(name, "train.")) return true;
    for (const char *const *s = o->skip; s && *s; s++)
        if (starts_with(name, *s)) return true;
    return false;
}

/* A scalar may be stored as () or (1). */
static bool same_shape(const pd_param *p, const pd_st_tensor *t)
{
    if (p->rank == 0 || (p->rank == 1 && p->dim[0] == 1)) return t->elements == 1;
    if (t->ndim != p->rank) return false;
    for (int i = 0; i < p->rank; i++)
        if (t->shape[i] != p->dim[i]) return false;
    return true;
}

static void param_shape(char text[128], const pd_param *p)
{
    int64_t shape[4];
    for (int i = 0; i < p->rank; i++) shape[i] = p->dim[i];
    pd_st_shape_text(text, p->rank, shape);
}

static pd_status compare(lines *report, const pd_params *params, const pd_st *file, const pd_load_options *o,
                         const pd_st_tensor **found, pd_err *err)
{
    const char *prefix = o->prefix ? o->prefix : "";
    const size_t skip = strlen(prefix);
    for (size_t i = 0; i < pd_params_count(params); i++) {
        const pd_param *p = pd_params_at(params, i);
        found[i] = NULL;
        if (!starts_with(p->name, prefix) || (o->only && !starts_with(p->name, o->only))) continue;
        const pd_st_tensor *t = pd_st_find(file, p->name + skip);
        if (!t && p->kind != PD_COUNTER) PD_TRY(add_line(report, err, "missing: %s", p->name + skip));
        if (!t) continue;
        if (same_shape(p, t)) {
            found[i] = t;
            continue;
        }
        char have[128], want[128];
        pd_st_shape_text(have, t->ndim, t->shape);
        param_shape(want, p);
        PD_TRY(add_line(report, err, "another shape: %s: file has %s, model wants %s", t->name, have, want));
    }
    char name[512];
    for (size_t i = 0; i < pd_st_count(file); i++) {
        const pd_st_tensor *t = pd_st_at(file, i);
        if (skipped(t->name, o)) continue;
        snprintf(name, sizeof name, "%s%s", prefix, t->name);
        if (!pd_params_find(params, name)) PD_TRY(add_line(report, err, "unexpected: %s", t->name));
    }
    return PD_OK;
}

/* Reads one tensor in file order through `buffer` into its place in a block. */
static pd_status read_tensor(float *block, const pd_params *params, const pd_param *p, const pd_st_tensor *t, float **buffer,
                             size_t *room, pd_err *err)
{
    PD_TRY(pd_grow(buffer, room, 2 * p->count, sizeof **buffer, err));
    pd_st_read_f32(*buffer, t);
    pd_param_from_file_order(p, *buffer + p->count, *buffer);
    return pd_param_write(params, p, block, *buffer + p->count, err);
}

pd_status pd_load_params(pd_params *params, const pd_st *file, const pd_load_options *options, char **report,
                         pd_arena *arena, pd_err *err)
{
    lines l = {0};
    float *buffer = NULL;
    size_t room = 0;
    const pd_st_tensor **found;
    pd_status status = PD_OK;
    PD_TRY(PD_ALLOC(&found, arena, pd_params_count(params) + 1, err));
    PD_TRY_DONE(compare(&l, params, file, options, found, err));
    PD_TRY_DONE(pd_strdup(report, arena, l.text ? l.text : "", err));
    if (l.count && !options->lenient) {
        const int first = (int)strcspn(*report, "\n");
        status = PD_FAIL(err, PD_EFORMAT, "%s: does not fit the model: %zu differences, the first: %.*s", pd_st_path(file),
                         l.count, first, *report);
        goto done;
    }
    for (size_t i = 0; i < pd_params_count(params); i++) {
        const pd_param *p = pd_params_at(params, i);
        if (found[i]) PD_TRY_DONE(read_tensor(pd_param_block(params, p), params, p, found[i], &buffer, &room, err));
    }
done:
    free(buffer);
    free(l.text);
    return status;
}

/* What a streamed tensor is made of. */
typedef struct source {
    const pd_params *params;
    const pd_param *p;
    const float *block; /* on the device */
} source;

static pd_status fill(void *arg, pd_st_writer *w, pd_err *err)
{
    const source *s = arg;
    const size_t count = s->p->count;
    float *buffer = malloc((2 * count + 1) * sizeof *buffer);
    if (!buffer) return PD_FAIL(err, PD_ENOMEM, "out of memory for %s", s->p->name);
    const pd_status status = pd_param_read(buffer, s->params, s->p, s->block, err);
    if (status == PD_OK && s->p->kind == PD_COUNTER) {
        const int64_t value = (int64_t)buffer[0];
        pd_st_put(w, &value, sizeof value);
    } else if (status == PD_OK) {
        pd_param_to_file_order(s->p, buffer + count, buffer);
        pd_st_put_f32(w, buffer + count, count);
    }
    free(buffer);
    return status;
}

static pd_status add_tensor(pd_st_writer *w, const char *name, const pd_params *params, const pd_param *p,
                            const float *block, pd_st_type type, pd_arena *arena, pd_err *err)
{
    source *s;
    int64_t shape[4];
    PD_TRY(PD_ALLOC(&s, arena, 1, err));
    *s = (source){params, p, block};
    for (int i = 0; i < p->rank; i++) shape[i] = p->dim[i];
    return pd_st_add_stream(w, name, p->kind == PD_COUNTER ? PD_ST_I64 : type, p->rank, shape, fill, s, err);
}

pd_status pd_save_params_as(pd_st_writer *writer, const pd_params *params, pd_st_type type, pd_arena *arena, pd_err *err)
{
    for (size_t i = 0; i < pd_params_count(params); i++) {
        const pd_param *p = pd_params_at(params, i);
        PD_TRY(add_tensor(writer, p->name, params, p, pd_param_block(params, p), type, arena, err));
    }
    return PD_OK;
}

pd_status pd_save_params(pd_st_writer *writer, const pd_params *params, pd_arena *arena, pd_err *err)
{
    return pd_save_params_as(writer, params, PD_ST_F32, arena, err);
}

pd_status pd_save_block(pd_st_writer *writer, const pd_params *params, const char *prefix, const float *block,
                        pd_arena *arena, pd_err *err)
{
    for (size_t i = 0; i < pd_params_count(params); i++) {
        const pd_param *p = pd_params_at(params, i);
        char *name;
        if (p->kind != PD_WEIGHT) continue;
        PD_TRY(pd_format(&name, arena, err, "%s%s", prefix, p->name));
        PD_TRY(add_tensor(writer, name, params, p, block, PD_ST_F32, arena, err));
    }
    return PD_OK;
}

pd_status pd_load_block(float *block, const pd_params *params, const char *prefix, const pd_st *file, pd_err *err)
{
    float *buffer = NULL;
    size_t room = 0;
    pd_status status = PD_OK;
    for (size_t i = 0; i < pd_params_count(params); i++) {
        const pd_param *p = pd_params_at(params, i);
        char name[512];
        if (p->kind != PD_WEIGHT) continue;
        snprintf(name, sizeof name, "%s%s", prefix, p->name);
        const pd_st_tensor *t = pd_st_find(file, name);
        if (!t || !same_shape(p, t)) {
            status = PD_FAIL(err, PD_EFORMAT, "%s: %s is %s", pd_st_path(file), name, t ? "of another shape" : "missing");
            goto done;
        }
        PD_TRY_DONE(read_tensor(block, params, p, t, &buffer, &room, err));
    }
done:
    free(buffer);
    return status;
}
