/* json.h: small JSON documents: configurations, model metadata, logs, reports. cJSON behind our errors.
 *
 * Reading: a document is parsed whole and stays as it is until closed; values are borrowed from it. Strict RFC 8259
 * (no comments, no trailing commas, no NaN), and stricter where silence would hide a mistake: a key that appears twice
 * in one object, a number too large for a double, and the character U+0000 are errors; keys are case-sensitive.
 * Nesting is limited to PD_JSON_DEPTH, the text to the caller's limit. Every error says file, line and key path:
 * `configs/x.json:14: model.neck.out: is "wide" (a string), expected a whole number`.
 *
 * Writing: a writer builds a document by calls in order. It is sticky: after a first failure the rest do nothing, and
 * pd_json_finish reports it.
 *
 * Threads: a document may be read by many threads; a writer belongs to one. Bulk files (COCO annotations) do not come
 * here: this builds a tree. */
#ifndef PD_JSON_H
#define PD_JSON_H

#include "engine/arena.h"

#include <stdbool.h>
#include <stdint.h>

#define PD_JSON_DEPTH 64                 /* objects and arrays inside each other */
#define PD_JSON_LIMIT ((size_t)64 << 20) /* a sane limit for configurations and the like, in bytes */

typedef struct cJSON pd_json; /* one value; owned by its document */
typedef struct pd_json_doc pd_json_doc;

typedef enum pd_json_kind {
    PD_JSON_NULL,
    PD_JSON_BOOL,
    PD_JSON_NUMBER,
    PD_JSON_STRING,
    PD_JSON_ARRAY,
    PD_JSON_OBJECT,
} pd_json_kind;

/* ---- documents ---- */

/* Parses `size` bytes. `name` stands in errors where a file name would. Nothing is kept of text or name. */
pd_status pd_json_parse(pd_json_doc **out, const char *name, const void *text, size_t size, pd_err *err);
/* Reads a file of at most `limit` bytes (0: PD_JSON_LIMIT). */
pd_status pd_json_read(pd_json_doc **out, const char *path, size_t limit, pd_err *err);
/* Frees it and all its values; NULL allowed. */
void pd_json_close(pd_json_doc *doc);

const pd_json *pd_json_root(const pd_json_doc *doc);
const char *pd_json_name(const pd_json_doc *doc);

/* ---- values ---- */

pd_json_kind pd_json_type(const pd_json *value);
/* The value of `key`, NULL when the object has none (or when `object` is no object). */
const pd_json *pd_json_member(const pd_json *object, const char *key);
/* The first value of an array or object, and the one behind a value: NULL at the end, and for other kinds. */
const pd_json *pd_json_first(const pd_json *container);
const pd_json *pd_json_next(const pd_json *value);
size_t pd_json_count(const pd_json *container); /* walks the list */
/* The key of a member of an object; NULL in an array. */
const char *pd_json_key(const pd_json *value);

/* The content; the value must be of that kind. */
bool pd_json_bool(const pd_json *value);
double pd_json_number(const pd_json *value);
const char *pd_json_string(const pd_json *value);

/* ---- typed members; the key must be there ----
 * On failure `*out` is untouched; PD_EFORMAT with file, line, key path, what was read and what is wanted. Strings
 * and values live as long as the document. */
pd_status pd_json_get_bool(bool *out, const pd_json_doc *doc, const pd_json *object, const char *key, pd_err *err);
pd_status pd_json_get_number(double *out, const pd_json_doc *doc, const pd_json *object, const char *key, pd_err *err);
/* A whole number in [min, max]; exact: below 2^53 in size. */
pd_status pd_json_get_int(int64_t *out, const pd_json_doc *doc, const pd_json *object, const char *key, int64_t min,
                          int64_t max, pd_err *err);
pd_status pd_json_get_string(const char **out, const pd_json_doc *doc, const pd_json *object, const char *key,
                             pd_err *err);
pd_status pd_json_get_array(const pd_json **out, const pd_json_doc *doc, const pd_json *object, const char *key,
                            pd_err *err);
pd_status pd_json_get_object(const pd_json **out, const pd_json_doc *doc, const pd_json *object, const char *key,
                             pd_err *err);

/* ---- errors about a value ---- */

/* The line (from 1) on which the value begins. */
size_t pd_json_line(const pd_json_doc *doc, const pd_json *value);
/* The key path, as `model.stages[2].width`; "" for the root. Cut to fit. */
void pd_json_path(char *out, size_t size, const pd_json_doc *doc, const pd_json *value);
/* Fails with PD_EFORMAT: "<name>:<line>: <path>: <formatted text>". */
pd_status pd_json_fail(const pd_json_doc *doc, const pd_json *value, pd_err *err, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* What a value is, for messages: `"wide" (a string)`, `3.5 (a number)`, `an array of 3`. Cut to fit. */
void pd_json_describe(char *out, size_t size, const pd_json *value);

/* ---- writing ---- */

typedef struct pd_json_writer pd_json_writer;

/* A writer whose document is an object (or array); NULL when out of memory, which the calls below accept and
 * pd_json_finish reports. */
pd_json_writer *pd_json_object(void);
pd_json_writer *pd_json_array(void);
void pd_json_free(pd_json_writer *w); /* NULL allowed */

/* Adds a member to the open object, or, with key NULL, an element to the open array. Numbers are written with the
 * fewest digits that read back as the same double (float: the same float); a NaN or an infinity, which JSON does not
 * have, becomes null. A string must be UTF-8; NULL is written as null. */
void pd_json_put_null(pd_json_writer *w, const char *key);
void pd_json_put_bool(pd_json_writer *w, const char *key, bool value);
void pd_json_put_int(pd_json_writer *w, const char *key, int64_t value);
void pd_json_put_double(pd_json_writer *w, const char *key, double value);
void pd_json_put_float(pd_json_writer *w, const char *key, float value);
void pd_json_put_string(pd_json_writer *w, const char *key, const char *value);
void pd_json_put_doubles(pd_json_writer *w, const char *key, const double *values, size_t count);
void pd_json_put_ints(pd_json_writer *w, const char *key, const int64_t *values, size_t count);
/* Opens an object or array inside; close it with pd_json_end. */
void pd_json_begin_object(pd_json_writer *w, const char *key);
void pd_json_begin_array(pd_json_writer *w, const char *key);
void pd_json_end(pd_json_writer *w);

/* The text in the arena, without a newline at its end: on one line, or indented by four blanks. Frees the writer in any
 * case. Everything opened must have been closed. */
pd_status pd_json_finish(char **out, pd_json_writer *w, bool pretty, pd_arena *arena, pd_err *err);
/* The same, into a file that appears whole or not at all (with a newline at its end). */
pd_status pd_json_save(const char *path, pd_json_writer *w, bool pretty, pd_err *err);

/* Length of the valid UTF-8 sequence at p (left >= 1 bytes), 0 where there is none (RFC 3629: no overlong forms, no
 * surrogates). */
size_t pd_utf8_length(const unsigned char *p, size_t left);

/* The shortest decimal that reads back as the same double (or float); "null" for NaN and infinities. */
void pd_json_format_double(char out[32], double value);
void pd_json_format_float(char out[32], float value);

#endif
