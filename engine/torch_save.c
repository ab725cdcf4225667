/* The writing half of torch_file.h, and its views. */
#include "engine/torch_file.h"
#include "engine/zip_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE 16384 /* bytes gathered before they are handed on */

/* ---- views ---- */

pd_view pd_view_of(const pd_st_tensor *t)
{
    pd_view v = {.type = t->type, .ndim = t->ndim, .elements = t->elements, .bytes = t->bytes, .data = t->data};
    int64_t stride = 1;
    for (int i = t->ndim; i-- > 0;) {
        v.shape[i] = t->shape[i];
        v.stride[i] = stride;
        stride *= t->shape[i];
    }
    return v;
}

pd_view pd_view_rows(const pd_view *view, int64_t first, int64_t count)
{
    pd_view v = *view;
    const size_t size = pd_st_type_size(v.type), row = v.elements / (size_t)(v.shape[0] ? v.shape[0] : 1);
    v.shape[0] = count;
    v.elements = row * (size_t)count;
    v.bytes = v.elements * size;
    v.data += (size_t)(first * v.stride[0]) * size;
    return v;
}

void pd_view_walk(const pd_view *v, pd_view_put put, void *arg)
{
    unsigned char buffer[PIECE];
    const size_t size = pd_st_type_size(v->type);
    int64_t index[PD_ST_DIMS] = {0}, run = 1;
    int outer = v->ndim; /* dimensions that have to be stepped through; those behind lie in one piece of `run` */
    size_t used = 0;
    if (!v->elements) return;
    while (outer > 0 && (v->stride[outer - 1] == run || v->shape[outer - 1] == 1)) run *= v->shape[--outer];
    const size_t bytes = (size_t)run * size;
    for (;;) {
        int64_t at = 0;
        for (int i = 0; i < outer; i++) at += index[i] * v->stride[i];
        const unsigned char *from = v->data + (size_t)at * size;
        if (used + bytes > sizeof buffer) {
            put(arg, buffer, used);
            used = 0;
        }
        if (bytes > sizeof buffer) {
            put(arg, from, bytes);
        } else {
            memcpy(buffer + used, from, bytes);
            used += bytes;
        }
        int i = outer;
        while (i > 0 && ++index[i - 1] == v->shape[i - 1]) index[--i] = 0;
        if (i == 0) break;
    }
    if (used) put(arg, buffer, used);
}

/* ---- the pickle ---- */

/* Bytes being collected; after a first failure the rest do nothing. */
typedef struct script {
    unsigned char *data;
    size_t size, room;
    pd_status status;
    pd_err *err;
} script;

static void put(script *s, const void *data, size_t size)
{
    if (s->status == PD_OK) s->status = pd_grow(&s->data, &s->room, s->size + size, 1, s->err);
    if (s->status != PD_OK) return;
    memcpy(s->data + s->size, data, size);
    s->size += size;
}

static void op(script *s, const char *codes)
{
    put(s, codes, strlen(codes));
}

static void put_little(script *s, char code, uint64_t v, int bytes)
{
    unsigned char b[9] = {(unsigned char)code};
    for (int i = 0; i < bytes; i++) b[1 + i] = (unsigned char)(v >> 8 * i);
    put(s, b, 1 + (size_t)bytes);
}

static void put_int(script *s, int64_t v)
{
    if (v >= 0 && v < 256)
        put_little(s, 'K', (uint64_t)v, 1); /* BININT1 */
    else if (v >= INT32_MIN && v <= INT32_MAX)
        put_little(s, 'J', (uint64_t)v, 4); /* BININT */
    else {
        op(s, "\x8a"); /* LONG1 of 8 bytes */
        put_little(s, 8, (uint64_t)v, 8);
    }
}

static void put_text(script *s, const char *text)
{
    put_little(s, 'X', strlen(text), 4); /* BINUNICODE */
    op(s, text);
}

static void put_dims(script *s, int ndim, const int64_t *v)
{
    op(s, "(");
    for (int i = 0; i < ndim; i++) put_int(s, v[i]);
    op(s, "t");
}

#define ORDERED_DICT "ccollections\nOrderedDict\n)R"

static void put_tensor(script *s, const pd_torch_item *t, size_t number)
{
    static const char *const classes[] = {
        [PD_ST_F32] = "Float",     [PD_ST_F64] = "Double", [PD_ST_F16] = "Half",
        [PD_ST_BF16] = "BFloat16", [PD_ST_I64] = "Long",   [PD_ST_I32] = "Int",
        [PD_ST_U8] = "Byte",       [PD_ST_I8] = "Char",    [PD_ST_BOOL] = "Bool",
    };
    char text[24];
    int64_t stride[PD_ST_DIMS], elements = 1;
    for (int i = t->ndim; i-- > 0;) {
        stride[i] = elements;
        elements *= t->shape[i];
    }
    op(s, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_text(s, "storage");
    op(s, "ctorch\n");
    op(s, classes[t->parts[0].type]);
    op(s, "Storage\n");
    snprintf(text, sizeof text, "%zu", number);
    put_text(s, text);
    put_text(s, "cpu");
    put_int(s, elements);
    op(s, "tQ");
    put_int(s, 0);
    put_dims(s, t->ndim, t->shape);
    put_dims(s, t->ndim, stride);
    op(s, "\x89" ORDERED_DICT "tR"); /* needs no gradient, has no hooks */
}

static void put_items(script *s, const pd_torch_item *items, size_t count, const char *key, const char *const *texts)
{
    op(s, "\x80\x02");
    if (key) {
        op(s, "}(");
        for (; texts && texts[0]; texts += 2) {
            put_text(s, texts[0]);
            put_text(s, texts[1]);
        }
        put_text(s, key);
    }
    op(s, ORDERED_DICT "(");
    for (size_t i = 0; i < count; i++) {
        put_text(s, items[i].name);
        put_tensor(s, &items[i], i);
    }
    op(s, key ? "uu." : "u.");
}

/* ---- the archive ---- */

static void put_zip(void *arg, const void *data, size_t bytes)
{
    pd_zip_put(arg, data, bytes);
}

static pd_status add_entry(pd_zip_writer *w, const char *name, const void *data, size_t size, pd_err *err)
{
    PD_TRY(pd_zip_begin(w, name, size, err));
    pd_zip_put(w, data, size);
    return PD_OK;
}

static pd_status add_storage(pd_zip_writer *w, const pd_torch_item *t, size_t number, pd_err *err)
{
    char name[48];
    size_t bytes = 0;
    snprintf(name, sizeof name, "archive/data/%zu", number);
    for (int i = 0; i < t->n_parts; i++) bytes += t->parts[i].bytes;
    PD_TRY(pd_zip_begin(w, name, bytes, err));
    for (int i = 0; i < t->n_parts; i++) pd_view_walk(&t->parts[i], put_zip, w);
    return PD_OK;
}

pd_status pd_torch_save(const char *path, const pd_torch_item *items, size_t count, const char *key,
                        const char *const *texts, pd_err *err)
{
    script s = {.err = err};
    pd_zip_writer *w = NULL;
    put_items(&s, items, count, key, texts);
    pd_status status = s.status;
    if (status != PD_OK) goto done;
    PD_TRY_DONE(pd_zip_create(&w, path, err));
    PD_TRY_DONE(add_entry(w, "archive/data.pkl", s.data, s.size, err));
    PD_TRY_DONE(add_entry(w, "archive/byteorder", "little", 6, err));
    for (size_t i = 0; i < count; i++) PD_TRY_DONE(add_storage(w, &items[i], i, err));
    PD_TRY_DONE(add_entry(w, "archive/version", "3\n", 2, err));
    status = pd_zip_commit(w, err);
    w = NULL;
done:
    pd_zip_cancel(w);
    free(s.data);
    return status;
}
