/* Reading; writing is in safetensors_write.c. */
#include "engine/safetensors.h"

#include "engine/file.h"
#include "engine/half.h"
#include "engine/json.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are copied as they lie in the file");

static const struct {
    const char *name;
    size_t size;
} types[] = {
    [PD_ST_F32] = {"F32", 4},   [PD_ST_F64] = {"F64", 8}, [PD_ST_F16] = {"F16", 2},
    [PD_ST_BF16] = {"BF16", 2}, [PD_ST_I64] = {"I64", 8}, [PD_ST_I32] = {"I32", 4},
    [PD_ST_U8] = {"U8", 1},     [PD_ST_I8] = {"I8", 1},   [PD_ST_BOOL] = {"BOOL", 1},
};
#define N_TYPES (sizeof types / sizeof *types)

const char *pd_st_type_name(pd_st_type type)
{
    return types[type].name;
}

size_t pd_st_type_size(pd_st_type type)
{
    return types[type].size;
}

typedef struct meta {
    const char *key, *value;
} meta;

struct pd_st {
    pd_arena *arena;
    char *path;
    pd_bytes file; /* mapped, where `mapped` */
    bool mapped;
    pd_st_tensor *tensors; /* sorted by name */
    size_t n_tensors;
    meta *metas;
    size_t n_metas;
};

/* ---- the header ---- */

static pd_status read_shape(pd_st_tensor *t, const pd_json_doc *doc, const pd_json *entry, pd_err *err)
{
    const pd_json *shape;
    PD_TRY(pd_json_get_array(&shape, doc, entry, "shape", err));
    const size_t n = pd_json_count(shape);
    if (n > PD_ST_DIMS)
        return pd_json_fail(doc, shape, err, "%zu dimensions, more than the %d this program takes", n, PD_ST_DIMS);
    t->ndim = (int)n;
    t->elements = 1;
    int i = 0;
    for (const pd_json *v = pd_json_first(shape); v; v = pd_json_next(v), i++) {
        const double d = pd_json_type(v) == PD_JSON_NUMBER ? pd_json_number(v) : -1;
        if (!(d >= 0 && d < 0x1p53) || d != (double)(int64_t)d)
            return pd_json_fail(doc, v, err, "a dimension is a whole number of 0 or more");
        t->shape[i] = (int64_t)d;
        if (!pd_mul_fits(t->elements, (size_t)t->shape[i], &t->elements))
            return pd_json_fail(doc, shape, err, "more elements than memory can hold");
    }
    if (!pd_mul_fits(t->elements, types[t->type].size, &t->bytes))
        return pd_json_fail(doc, shape, err, "more bytes than memory can hold");
    return PD_OK;
}

static pd_status read_type(pd_st_type *out, const pd_json_doc *doc, const pd_json *entry, pd_err *err)
{
    const char *name;
    PD_TRY(pd_json_get_string(&name, doc, entry, "dtype", err));
    for (size_t i = 0; i < N_TYPES; i++) {
        if (strcmp(name, types[i].name) != 0) continue;
        *out = (pd_st_type)i;
        return PD_OK;
    }
    return pd_json_fail(doc, entry, err,
                        "dtype \"%.20s\" is not supported (F32, F64, F16, BF16, I64, I32, U8, I8, BOOL)", name);
}

/* One tensor's entry; `data` are the file's bytes behind the header. */
static pd_status read_entry(pd_st_tensor *t, const pd_json_doc *doc, const pd_json *entry, pd_bytes data, pd_err *err)
{
    if (pd_json_type(entry) != PD_JSON_OBJECT) return pd_json_fail(doc, entry, err, "a tensor's entry is an object");
    PD_TRY(read_type(&t->type, doc, entry, err));
    PD_TRY(read_shape(t, doc, entry, err));
    const pd_json *offsets;
    PD_TRY(pd_json_get_array(&offsets, doc, entry, "data_offsets", err));
    size_t at[2] = {0, 0}, i = 0;
    for (const pd_json *v = pd_json_first(offsets); v; v = pd_json_next(v), i++) {
        const double d = pd_json_type(v) == PD_JSON_NUMBER ? pd_json_number(v) : -1;
        if (i > 1 || !(d >= 0 && d < 0x1p53) || d != (double)(int64_t)d)
            return pd_json_fail(doc, v, err, "expected two whole numbers, [begin, end]");
        at[i] = (size_t)d;
    }
    if (i != 2) return pd_json_fail(doc, offsets, err, "expected two whole numbers, [begin, end]");
    if (at[0] > at[1] || at[1] > data.size)
        return pd_json_fail(doc, offsets, err, "bytes %zu to %zu do not lie within the file's %zu bytes of data", at[0],
                            at[1], data.size);
    if (at[1] - at[0] != t->bytes) {
        char shape[128];
        pd_st_shape_text(shape, t->ndim, t->shape);
        return pd_json_fail(doc, entry, err, "%s of %s needs %zu bytes, its offsets give it %zu", shape,
                            types[t->type].name, t->bytes, at[1] - at[0]);
    }
    t->data = data.data + at[0];
    return PD_OK;
}

static pd_status read_meta(pd_st *st, const pd_json_doc *doc, const pd_json *object, pd_err *err)
{
    if (pd_json_type(object) != PD_JSON_OBJECT) return pd_json_fail(doc, object, err, "is no object of strings");
    PD_TRY(PD_ALLOC(&st->metas, st->arena, pd_json_count(object), err));
    for (const pd_json *v = pd_json_first(object); v; v = pd_json_next(v)) {
        char *key, *value;
        if (pd_json_type(v) != PD_JSON_STRING) return pd_json_fail(doc, v, err, "metadata must be a string");
        PD_TRY(pd_strdup(&key, st->arena, pd_json_key(v), err));
        PD_TRY(pd_strdup(&value, st->arena, pd_json_string(v), err));
        st->metas[st->n_metas++] = (meta){key, value};
    }
    return PD_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const pd_st_tensor *)a)->name, ((const pd_st_tensor *)b)->name);
}

static int by_place(const void *a, const void *b)
{
    const pd_st_tensor *s = a, *t = b;
    if (s->data != t->data) return s->data < t->data ? -1 : 1;
    return (s->bytes > t->bytes) - (s->bytes < t->bytes);
}

/* Tensors lie one behind the other and fill the file. */
static pd_status check_places(pd_st *st, pd_bytes data, pd_err *err)
{
    if (st->n_tensors) qsort(st->tensors, st->n_tensors, sizeof *st->tensors, by_place);
    const unsigned char *end = data.data;
    for (size_t i = 0; i < st->n_tensors; i++) {
        const pd_st_tensor *t = &st->tensors[i];
        if (t->data < end)
            return PD_FAIL(err, PD_EFORMAT, "%s: %s: its bytes overlap those of %s", st->path, t->name, t[-1].name);
        if (t->data > end)
            return PD_FAIL(err, PD_EFORMAT, "%s: %zu bytes in front of %s belong to no tensor", st->path,
                           (size_t)(t->data - end), t->name);
        end = t->data + t->bytes;
    }
    const size_t used = st->n_tensors ? (size_t)(end - data.data) : 0;
    if (used != data.size)
        return PD_FAIL(err, PD_EFORMAT, "%s: %zu bytes at the end belong to no tensor", st->path, data.size - used);
    return PD_OK;
}

static pd_status read_header(pd_st *st, const pd_json_doc *doc, pd_bytes data, pd_err *err)
{
    const pd_json *root = pd_json_root(doc);
    if (pd_json_type(root) != PD_JSON_OBJECT) return pd_json_fail(doc, root, err, "the header is no JSON object");
    PD_TRY(PD_ALLOC(&st->tensors, st->arena, pd_json_count(root), err));
    for (const pd_json *v = pd_json_first(root); v; v = pd_json_next(v)) {
        if (!strcmp(pd_json_key(v), "__metadata__")) {
            PD_TRY(read_meta(st, doc, v, err));
            continue;
        }
        pd_st_tensor *t = &st->tensors[st->n_tensors];
        char *name;
        PD_TRY(read_entry(t, doc, v, data, err));
        PD_TRY(pd_strdup(&name, st->arena, pd_json_key(v), err));
        t->name = name;
        st->n_tensors++;
    }
    PD_TRY(check_places(st, data, err));
    if (st->n_tensors) qsort(st->tensors, st->n_tensors, sizeof *st->tensors, by_name);
    return PD_OK;
}

/* ---- open and close ---- */

static pd_status open_bytes(pd_st **out, const char *name, pd_bytes file, bool mapped, pd_err *err)
{
    pd_status status = PD_OK;
    pd_json_doc *doc = NULL;
    pd_st *st = calloc(1, sizeof *st);
    if (st) st->arena = pd_arena_new();
    if (!st || !st->arena) {
        status = PD_FAIL(err, PD_ENOMEM, "%s: out of memory", name);
        goto done;
    }
    PD_TRY_DONE(pd_strdup(&st->path, st->arena, name, err));
    uint64_t length = 0;
    if (file.size < 8) {
        status = PD_FAIL(err, PD_EFORMAT, "%s: %zu bytes are too few for a safetensors file", name, file.size);
        goto done;
    }
    memcpy(&length, file.data, 8);
    if (length > PD_ST_HEADER_LIMIT || length > file.size - 8) {
        status =
            PD_FAIL(err, PD_EFORMAT, "%s: no safetensors file, or a cut one: a header of %llu bytes in a file of %zu",
                    name, (unsigned long long)length, file.size);
        goto done;
    }
    PD_TRY_DONE(pd_json_parse(&doc, name, file.data + 8, (size_t)length, err));
    PD_TRY_DONE(read_header(st, doc, (pd_bytes){file.data + 8 + length, file.size - 8 - (size_t)length}, err));
    st->file = file;
    st->mapped = mapped;
    *out = st;
    st = NULL;
done:
    pd_json_close(doc);
    pd_st_close(st);
    return status;
}

pd_status pd_st_open(pd_st **out, const char *path, pd_err *err)
{
    pd_bytes file;
    PD_TRY(pd_file_map(&file, path, err));
    const pd_status status = open_bytes(out, path, file, true, err);
    if (status != PD_OK) pd_file_unmap(&file);
    return status;
}

pd_status pd_st_parse(pd_st **out, const char *name, const void *data, size_t size, pd_err *err)
{
    return open_bytes(out, name, (pd_bytes){data, size}, false, err);
}

void pd_st_close(pd_st *st)
{
    if (!st) return;
    if (st->mapped) pd_file_unmap(&st->file);
    pd_arena_free(st->arena);
    free(st);
}

/* ---- looking ---- */

size_t pd_st_count(const pd_st *st)
{
    return st->n_tensors;
}

const pd_st_tensor *pd_st_at(const pd_st *st, size_t i)
{
    return &st->tensors[i];
}

const pd_st_tensor *pd_st_find(const pd_st *st, const char *name)
{
    const pd_st_tensor key = {.name = name};
    return st->n_tensors ? bsearch(&key, st->tensors, st->n_tensors, sizeof key, by_name) : NULL;
}

const char *pd_st_path(const pd_st *st)
{
    return st->path;
}

const char *pd_st_meta(const pd_st *st, const char *key)
{
    for (size_t i = 0; i < st->n_metas; i++)
        if (!strcmp(st->metas[i].key, key)) return st->metas[i].value;
    return NULL;
}

size_t pd_st_meta_count(const pd_st *st)
{
    return st->n_metas;
}

void pd_st_meta_at(const pd_st *st, size_t i, const char **key, const char **value)
{
    *key = st->metas[i].key;
    *value = st->metas[i].value;
}

void pd_st_shape_text(char out[128], int ndim, const int64_t *shape)
{
    size_t used = (size_t)snprintf(out, 128, "(");
    for (int i = 0; i < ndim && used < 128; i++)
        used += (size_t)snprintf(out + used, 128 - used, "%s%lld", i ? ", " : "", (long long)shape[i]);
    if (used < 128) snprintf(out + used, 128 - used, ")");
}

pd_status pd_st_need(const pd_st_tensor **out, const pd_st *st, const char *name, int ndim, const int64_t *shape,
                     pd_err *err)
{
    const pd_st_tensor *t = pd_st_find(st, name);
    if (!t) return PD_FAIL(err, PD_EFORMAT, "%s: tensor \"%s\" is missing", st->path, name);
    if (ndim >= 0 && (ndim != t->ndim || (ndim && memcmp(shape, t->shape, (size_t)ndim * sizeof *shape) != 0))) {
        char has[128], want[128];
        pd_st_shape_text(has, t->ndim, t->shape);
        pd_st_shape_text(want, ndim, shape);
        return PD_FAIL(err, PD_EFORMAT, "%s: %s: file has %s, expected %s", st->path, name, has, want);
    }
    *out = t;
    return PD_OK;
}

/* ---- values ---- */

#define LOAD(T)                                                                                                        \
    T v;                                                                                                               \
    memcpy(&v, t->data + i * sizeof v, sizeof v)

void pd_st_read_f32(float *out, const pd_st_tensor *t)
{
    if (t->type == PD_ST_F32 && t->bytes) memcpy(out, t->data, t->bytes);
    for (size_t i = 0; t->type != PD_ST_F32 && i < t->elements; i++) {
        switch (t->type) {
        case PD_ST_F32: break;
        case PD_ST_F64: {
            LOAD(double);
            out[i] = (float)v;
            break;
        }
        case PD_ST_F16: {
            LOAD(uint16_t);
            out[i] = pd_float_from_f16(v);
            break;
        }
        case PD_ST_BF16: {
            LOAD(uint16_t);
            out[i] = pd_float_from_bf16(v);
            break;
        }
        case PD_ST_I64: {
            LOAD(int64_t);
            out[i] = (float)v;
            break;
        }
        case PD_ST_I32: {
            LOAD(int32_t);
            out[i] = (float)v;
            break;
        }
        case PD_ST_U8: out[i] = (float)t->data[i]; break;
        case PD_ST_I8: out[i] = (float)(int8_t)t->data[i]; break;
        case PD_ST_BOOL: out[i] = t->data[i] ? 1.0f : 0.0f; break;
        }
    }
}

pd_status pd_st_read_i64(int64_t *out, const pd_st *st, const pd_st_tensor *t, pd_err *err)
{
    for (size_t i = 0; i < t->elements; i++) {
        switch (t->type) {
        case PD_ST_I64: {
            LOAD(int64_t);
            out[i] = v;
            break;
        }
        case PD_ST_I32: {
            LOAD(int32_t);
            out[i] = v;
            break;
        }
        case PD_ST_U8: out[i] = t->data[i]; break;
        case PD_ST_I8: out[i] = t->data[i] < 128 ? t->data[i] : t->data[i] - 256; break;
        case PD_ST_BOOL: out[i] = t->data[i] != 0; break;
        case PD_ST_F32:
        case PD_ST_F64:
        case PD_ST_F16:
        case PD_ST_BF16:
            return PD_FAIL(err, PD_EFORMAT, "%s: %s: holds %s, expected whole numbers", st->path, t->name,
                           types[t->type].name);
        }
    }
    return PD_OK;
}
