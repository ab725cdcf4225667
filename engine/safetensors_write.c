/* The writing half of safetensors.h. */
#include "engine/file.h"
#include "engine/half.h"
#include "engine/json.h"
#include "engine/safetensors.h"

#include <stdlib.h>
#include <string.h>

#define PIECE 4096 /* floats converted at a time */

typedef struct entry {
    char *name;
    pd_st_type type;
    int ndim;
    int64_t shape[PD_ST_DIMS];
    size_t bytes, at; /* at: offset in the data */
    const void *data; /* or */
    pd_st_fill fill;
    void *arg;
} entry;

struct pd_st_writer {
    pd_arena *arena;
    char *path;
    pd_st_order order;
    entry *entries;
    size_t count, room;
    char **meta; /* key, value, key, value, ... */
    size_t n_meta, meta_room;
    pd_out *out; /* during the commit */
    const entry *now;
    size_t written; /* bytes of `now` so far */
    bool wrong_type;
};

pd_status pd_st_create(pd_st_writer **out, const char *path, pd_st_order order, pd_err *err)
{
    pd_st_writer *w = calloc(1, sizeof *w);
    if (w) w->arena = pd_arena_new();
    if (!w || !w->arena) {
        free(w);
        return PD_FAIL(err, PD_ENOMEM, "%s: out of memory", path);
    }
    w->order = order;
    const pd_status status = pd_strdup(&w->path, w->arena, path, err);
    if (status == PD_OK)
        *out = w;
    else
        pd_st_cancel(w);
    return status;
}

void pd_st_cancel(pd_st_writer *w)
{
    if (!w) return;
    pd_out_cancel(w->out);
    free(w->entries);
    free((void *)w->meta);
    pd_arena_free(w->arena);
    free(w);
}

pd_status pd_st_add_meta(pd_st_writer *w, const char *key, const char *value, pd_err *err)
{
    for (size_t i = 0; i < w->n_meta; i += 2)
        if (!strcmp(w->meta[i], key)) return PD_FAIL(err, PD_EINVAL, "%s: metadata \"%s\" given twice", w->path, key);
    char *k, *v;
    PD_TRY(pd_grow((void *)&w->meta, &w->meta_room, w->n_meta + 2, sizeof *w->meta, err));
    PD_TRY(pd_strdup(&k, w->arena, key, err));
    PD_TRY(pd_strdup(&v, w->arena, value, err));
    w->meta[w->n_meta++] = k;
    w->meta[w->n_meta++] = v;
    return PD_OK;
}

static pd_status add(pd_st_writer *w, entry e, const char *name, const int64_t *shape, pd_err *err)
{
    if (e.ndim < 0 || e.ndim > PD_ST_DIMS)
        return PD_FAIL(err, PD_EINVAL, "%s: %s: %d dimensions, 0 to %d are possible", w->path, name, e.ndim,
                       PD_ST_DIMS);
    e.bytes = pd_st_type_size(e.type);
    for (int i = 0; i < e.ndim; i++) {
        e.shape[i] = shape[i];
        if (shape[i] < 0 || shape[i] > ((int64_t)1 << 53) || !pd_mul_fits(e.bytes, (size_t)shape[i], &e.bytes)) {
            char text[128];
            pd_st_shape_text(text, e.ndim, shape);
            return PD_FAIL(err, PD_EINVAL, "%s: %s: impossible shape %s", w->path, name, text);
        }
    }
    PD_TRY(pd_grow((void *)&w->entries, &w->room, w->count + 1, sizeof *w->entries, err));
    PD_TRY(pd_strdup(&e.name, w->arena, name, err));
    w->entries[w->count++] = e;
    return PD_OK;
}

pd_status pd_st_add(pd_st_writer *w, const char *name, pd_st_type type, int ndim, const int64_t *shape,
                    const void *data, pd_err *err)
{
    return add(w, (entry){.type = type, .ndim = ndim, .data = data}, name, shape, err);
}

pd_status pd_st_add_stream(pd_st_writer *w, const char *name, pd_st_type type, int ndim, const int64_t *shape,
                           pd_st_fill fill, void *arg, pd_err *err)
{
    return add(w, (entry){.type = type, .ndim = ndim, .fill = fill, .arg = arg}, name, shape, err);
}

/* ---- the commit ---- */

void pd_st_put(pd_st_writer *w, const void *data, size_t bytes)
{
    const size_t left = w->written < w->now->bytes ? w->now->bytes - w->written : 0;
    if (bytes <= left) pd_out_write(w->out, data, bytes);
    w->written += bytes; /* with too many the commit fails */
}

void pd_st_put_f32(pd_st_writer *w, const float *values, size_t count)
{
    uint16_t half[PIECE];
    double wide[PIECE];
    const pd_st_type type = w->now->type;
    if (type == PD_ST_F32) {
        pd_st_put(w, values, count * sizeof *values);
        return;
    }
    for (size_t done = 0, n; done < count && w->written <= w->now->bytes; done += n) {
        n = count - done < PIECE ? count - done : PIECE;
        switch (type) {
        case PD_ST_F16:
            for (size_t i = 0; i < n; i++) half[i] = pd_f16_from_float(values[done + i]);
            break;
        case PD_ST_BF16:
            for (size_t i = 0; i < n; i++) half[i] = pd_bf16_from_float(values[done + i]);
            break;
        case PD_ST_F64:
            for (size_t i = 0; i < n; i++) wide[i] = (double)values[done + i];
            break;
        case PD_ST_F32:
        case PD_ST_I64:
        case PD_ST_I32:
        case PD_ST_U8:
        case PD_ST_I8:
        case PD_ST_BOOL: w->wrong_type = true; return;
        }
        pd_st_put(w, type == PD_ST_F64 ? (const void *)wide : (const void *)half, n * pd_st_type_size(type));
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const entry *)a)->name, ((const entry *)b)->name);
}

static int wide_first(const void *a, const void *b)
{
    const size_t s = pd_st_type_size(((const entry *)a)->type), t = pd_st_type_size(((const entry *)b)->type);
    return s != t ? (s > t ? -1 : 1) : by_name(a, b);
}

/* Names are there once and are not the metadata's. */
static pd_status check_names(const pd_st_writer *w, pd_err *err)
{
    entry *sorted;
    PD_TRY(PD_ALLOC(&sorted, w->arena, w->count, err));
    memcpy(sorted, w->entries, w->count * sizeof *sorted);
    qsort(sorted, w->count, sizeof *sorted, by_name);
    for (size_t i = 0; i < w->count; i++) {
        if (!strcmp(sorted[i].name, "__metadata__"))
            return PD_FAIL(err, PD_EINVAL, "%s: no tensor may be called __metadata__", w->path);
        if (i && !strcmp(sorted[i].name, sorted[i - 1].name))
            return PD_FAIL(err, PD_EINVAL, "%s: tensor \"%s\" given twice", w->path, sorted[i].name);
    }
    return PD_OK;
}

static pd_status header(char **out, pd_st_writer *w, pd_err *err)
{
    pd_json_writer *j = pd_json_object();
    if (w->n_meta) {
        pd_json_begin_object(j, "__metadata__");
        for (size_t i = 0; i < w->n_meta; i += 2) pd_json_put_string(j, w->meta[i], w->meta[i + 1]);
        pd_json_end(j);
    }
    size_t at = 0;
    bool fits = true;
    for (size_t i = 0; i < w->count; i++) {
        entry *e = &w->entries[i];
        e->at = at;
        fits = fits && !__builtin_add_overflow(at, e->bytes, &at);
        pd_json_begin_object(j, e->name);
        pd_json_put_string(j, "dtype", pd_st_type_name(e->type));
        pd_json_put_ints(j, "shape", e->shape, (size_t)e->ndim);
        pd_json_put_ints(j, "data_offsets", (const int64_t[]){(int64_t)e->at, (int64_t)at}, 2);
        pd_json_end(j);
    }
    const pd_status status = pd_json_finish(out, j, false, w->arena, err);
    if (status != PD_OK) pd_err_context(err, "%s", w->path);
    if (status == PD_OK && !fits) return PD_FAIL(err, PD_EINVAL, "%s: more bytes than a file can hold", w->path);
    return status;
}

static pd_status write_entry(pd_st_writer *w, const entry *e, pd_err *err)
{
    w->now = e;
    w->written = 0;
    if (!e->fill) {
        pd_out_write(w->out, e->data, e->bytes);
        return PD_OK;
    }
    PD_TRY(e->fill(e->arg, w, err));
    if (w->wrong_type)
        return PD_FAIL(err, PD_EINVAL, "%s: %s: floats were given for a tensor of %s", w->path, e->name,
                       pd_st_type_name(e->type));
    if (w->written != e->bytes)
        return PD_FAIL(err, PD_EINVAL, "%s: %s: %s than the tensor's %zu bytes were given", w->path, e->name,
                       w->written > e->bytes ? "more" : "fewer", e->bytes);
    return PD_OK;
}

pd_status pd_st_commit(pd_st_writer *w, pd_err *err)
{
    pd_status status = PD_OK;
    char *text = NULL;
    if (w->count) {
        PD_TRY_DONE(check_names(w, err));
        if (w->order == PD_ST_SORTED) qsort(w->entries, w->count, sizeof *w->entries, wide_first);
    }
    PD_TRY_DONE(header(&text, w, err));
    PD_TRY_DONE(pd_out_open(&w->out, w->path, err));
    const uint64_t length = strlen(text), padded = (length + 7) / 8 * 8;
    pd_out_write(w->out, &padded, sizeof padded);
    pd_out_write(w->out, text, (size_t)length);
    pd_out_write(w->out, "        ", (size_t)(padded - length));
    for (size_t i = 0; i < w->count; i++) PD_TRY_DONE(write_entry(w, &w->entries[i], err));
    pd_out *out = w->out;
    w->out = NULL;
    status = pd_out_commit(out, err);
done:
    pd_st_cancel(w);
    return status;
}
