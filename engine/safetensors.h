/* safetensors.h: named tensors in a file: weights, checkpoints, test data.
 *
 * Format (huggingface/safetensors 0.4): 8 bytes little-endian header length N; N bytes of JSON,
 * {"name": {"dtype": "F32", "shape": [64, 3, 7, 7], "data_offsets": [begin, end]}, ..., "__metadata__": {"k": "v"}},
 * padded with blanks; then the data, offsets counted from its first byte, row-major, little-endian, without gaps.
 *
 * Reading maps the file; every length, offset, shape and dtype is checked before anything is used. Refused, as the
 * reference reader does: overlapping tensors, bytes that belong to no tensor, names that appear twice, metadata that
 * is not text. Errors name file and tensor.
 *
 * Writing streams: the header first, then each tensor from the caller's memory (or from a function), into a file that
 * appears whole or not at all.
 *
 * Threads: an open file may be read by many; a writer belongs to one. */
#ifndef PD_SAFETENSORS_H
#define PD_SAFETENSORS_H

#include "engine/arena.h"

#include <stdbool.h>
#include <stdint.h>

#define PD_ST_DIMS 8                           /* most dimensions of a tensor */
#define PD_ST_HEADER_LIMIT ((size_t)100 << 20) /* largest header, as in the reference */

typedef enum pd_st_type {
    PD_ST_F32,
    PD_ST_F64,
    PD_ST_F16,
    PD_ST_BF16,
    PD_ST_I64,
    PD_ST_I32,
    PD_ST_U8,
    PD_ST_I8,
    PD_ST_BOOL,
} pd_st_type;

/* "F32", ...; and bytes of an element. */
const char *pd_st_type_name(pd_st_type type);
size_t pd_st_type_size(pd_st_type type);

/* ---- reading ---- */

typedef struct pd_st pd_st;

typedef struct pd_st_tensor {
    const char *name;
    pd_st_type type;
    int ndim;                  /* 0: a scalar */
    int64_t shape[PD_ST_DIMS]; /* outermost first */
    size_t elements, bytes;
    const unsigned char *data; /* in the mapped file; aligned to nothing: copy, or read through pd_st_read_* */
} pd_st_tensor;

pd_status pd_st_open(pd_st **out, const char *path, pd_err *err);
/* The same over bytes in memory, which are kept, not copied; `name` stands in errors. */
pd_status pd_st_parse(pd_st **out, const char *name, const void *data, size_t size, pd_err *err);
void pd_st_close(pd_st *st); /* NULL allowed; tensors and strings of it are gone */

/* Tensors by number, sorted by name (bytewise). */
size_t pd_st_count(const pd_st *st);
const pd_st_tensor *pd_st_at(const pd_st *st, size_t i);
/* NULL when there is none. */
const pd_st_tensor *pd_st_find(const pd_st *st, const char *name);
const char *pd_st_path(const pd_st *st);

/* Metadata: the value, NULL when there is none; and by number, in the file's order. */
const char *pd_st_meta(const pd_st *st, const char *key);
size_t pd_st_meta_count(const pd_st *st);
void pd_st_meta_at(const pd_st *st, size_t i, const char **key, const char **value);

/* A tensor that must be there with this shape (ndim -1: any shape). */
pd_status pd_st_need(const pd_st_tensor **out, const pd_st *st, const char *name, int ndim, const int64_t *shape,
                     pd_err *err);

/* All elements as floats into out[elements]: any type; F64 and I64 are rounded. */
void pd_st_read_f32(float *out, const pd_st_tensor *tensor);
/* All elements as whole numbers; fails where the tensor's type is not I64, I32, U8, I8 or BOOL. */
pd_status pd_st_read_i64(int64_t *out, const pd_st *st, const pd_st_tensor *tensor, pd_err *err);

/* "(64, 3, 7, 7)" for messages. */
void pd_st_shape_text(char out[128], int ndim, const int64_t *shape);

/* ---- writing ---- */

typedef struct pd_st_writer pd_st_writer;

typedef enum pd_st_order {
    PD_ST_SORTED, /* wide elements first, then by name: every tensor is aligned, equal content gives equal files */
    PD_ST_GIVEN,  /* in the order of pd_st_add */
} pd_st_order;

pd_status pd_st_create(pd_st_writer **out, const char *path, pd_st_order order, pd_err *err);

/* Adds an entry to the metadata; copied. A key given twice fails. */
pd_status pd_st_add_meta(pd_st_writer *w, const char *key, const char *value, pd_err *err);

/* Adds a tensor. `data` is borrowed until commit or cancel; name and shape are copied. */
pd_status pd_st_add(pd_st_writer *w, const char *name, pd_st_type type, int ndim, const int64_t *shape,
                    const void *data, pd_err *err);

/* Adds a tensor whose bytes `fill` writes during commit, by calls to pd_st_put that add up to its size exactly: for
 * tensors that are stored in another layout or type, piece by piece. A failure of fill ends the commit. */
typedef pd_status (*pd_st_fill)(void *arg, pd_st_writer *w, pd_err *err);
pd_status pd_st_add_stream(pd_st_writer *w, const char *name, pd_st_type type, int ndim, const int64_t *shape,
                           pd_st_fill fill, void *arg, pd_err *err);
void pd_st_put(pd_st_writer *w, const void *data, size_t bytes);
/* The same from floats, converted to the tensor's type (F32, F64, F16 or BF16; others: the commit fails). */
void pd_st_put_f32(pd_st_writer *w, const float *values, size_t count);

/* Writes the file; frees the writer in any case. */
pd_status pd_st_commit(pd_st_writer *w, pd_err *err);
void pd_st_cancel(pd_st_writer *w); /* frees it, nothing is written; NULL allowed */

#endif
