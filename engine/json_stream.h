/* json_stream.h: a pull reader for JSON in memory: annotation and result files of any size, without a tree.
 *
 * The text (usually a mapped file) is walked once, forward. The reader calls for what it expects and gets it, or a
 * message: "val.json: line 7, byte 812: expected a number, found "x"". Values that nobody asks for are skipped by
 * looking for brackets and quotes only, 16 bytes at a time.
 *
 *     pd_js j;
 *     pd_js_begin(&j, file.data, file.size, path);
 *     pd_js_object(&j);
 *     for (pd_js_text key; pd_js_key(&j, &key);) {
 *         if (pd_js_is(key, "height")) pd_js_double(&j, &height);
 *         else pd_js_skip(&j);
 *     }
 *     PD_TRY(pd_js_end(&j, err));
 *
 * Errors are sticky: after the first one every call does nothing and returns false, and pd_js_end reports it. So a
 * reader needs no check at each step. Accepted is RFC 8259 and, as Python does, NaN, Infinity and -Infinity; a UTF-8
 * byte-order mark in front is passed over. Nesting is limited to PD_JS_DEPTH. Every string that is read is checked to
 * be UTF-8; a skipped value is checked for matching brackets only (pd_js_strict checks all of it).
 *
 * Nothing is allocated and nothing recurses. A reader is a plain value on its owner's stack: one thread. The text must
 * outlive the reader and the pd_js_text values taken from it. */
#ifndef PD_JS_STREAM_H
#define PD_JS_STREAM_H

#include "engine/json_number.h"
#include "engine/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PD_JS_DEPTH 256
#define PD_JS_KEY                                                                                                      \
    64 /* decoded bytes of a key with escapes; a longer one cannot be compared in full and equals nothing */

/* Text in the file, or in the reader's buffer until the next key. Not terminated. */
typedef struct pd_js_text {
    const char *data;
    size_t size;
    bool escaped; /* holds backslash escapes: pd_js_decode resolves them */
} pd_js_text;

typedef enum pd_js_kind {
    PD_JS_NOTHING, /* the end of the text, or a byte that starts no value */
    PD_JS_OBJECT,
    PD_JS_ARRAY,
    PD_JS_STRING,
    PD_JS_NUMBER,
    PD_JS_BOOL,
    PD_JS_NULL,
} pd_js_kind;

/* All fields are private; only json_stream.c and the inline functions below touch them. */
typedef struct pd_js {
    const unsigned char *begin, *at, *end;
    const char *name;
    int depth;
    bool fresh;                       /* just entered: no comma before the next key or item */
    bool strict;                      /* skipping checks everything */
    uint64_t array[PD_JS_DEPTH / 64]; /* bit d: level d + 1 is an array */
    char key[PD_JS_KEY];
    pd_err err;
} pd_js;

/* A reader at the start of `size` bytes; `name` (kept) is the file's name in messages. */
void pd_js_begin(pd_js *j, const void *data, size_t size, const char *name);
/* The same before the value at `offset`. */
void pd_js_begin_at(pd_js *j, const void *data, size_t size, const char *name, size_t offset);
/* The first error, or PD_EFORMAT where anything but white space follows the value. */
pd_status pd_js_end(pd_js *j, pd_err *err);
/* The first error so far; for readers that stop in the middle. */
pd_status pd_js_error(const pd_js *j, pd_err *err);
/* From now on pd_js_skip checks all of the syntax and UTF-8. */
void pd_js_strict(pd_js *j);

/* What comes next; consumes white space only. */
pd_js_kind pd_js_peek(pd_js *j);
/* Byte offset of the reader in the text. */
static inline size_t pd_js_offset(const pd_js *j)
{
    return (size_t)(j->at - j->begin);
}
/* The same, of the next value itself: consumes the white space before it. */
static inline size_t pd_js_start(pd_js *j)
{
    pd_js_peek(j);
    return pd_js_offset(j);
}

/* Enter an object or array. */
bool pd_js_object(pd_js *j);
bool pd_js_array(pd_js *j);
/* The next key of the object, the reader then stands before its value, which must be read or skipped; false at the end
 * of the object, which is left. Escapes in keys are resolved. */
bool pd_js_key(pd_js *j, pd_js_text *key);
/* True before the next item of the array; false at its end, which is left. */
bool pd_js_item(pd_js *j);

/* Values. *out is untouched on failure. */
bool pd_js_double(pd_js *j, double *out);
bool pd_js_number(pd_js *j, pd_js_num *out); /* knows integers from floats */
bool pd_js_bool(pd_js *j, bool *out);
bool pd_js_null(pd_js *j);
bool pd_js_string(pd_js *j, pd_js_text *out);
bool pd_js_skip(pd_js *j); /* any value */

/* Resolves escapes into out (room for text.size bytes); returns the length. Half a surrogate pair becomes three bytes
 * as if it were a character, as Python keeps it. */
size_t pd_js_decode(pd_js_text text, char *out);
/* text is exactly this key. */
static inline bool pd_js_is(pd_js_text text, const char *literal)
{
    return text.size == strlen(literal) && !memcmp(text.data, literal, text.size);
}

/* Records an error of meaning at a byte offset, in the same form: "NAME: line L, byte N: ...". Returns false. */
bool pd_js_fail(pd_js *j, size_t offset, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Records a failure that is not the text's, say of an allocation while a record was read. Returns false. */
bool pd_js_fail_with(pd_js *j, const pd_err *cause);

/* ---- one array read by several threads ------------------------------------------------------------------------
 * Guess, then prove: the second thread starts at a place that looks like a record's start; the first thread reads
 * on until it arrives there exactly, between two items of the array. That it does so is the proof that the guess
 * was right; if it steps over the place, the guess was inside a string or a nested value, and what the second
 * thread read is thrown away. No byte is looked at twice, and the answer never depends on a guess. */

/* Offset of a '{' in [from, size) that follows a '}' and a comma, or `size` where there is none. */
size_t pd_js_guess_record(const void *data, size_t size, size_t from);
/* A second reader of the array that `array` has entered, before the item at `offset`; pd_js_item is the first call. */
void pd_js_begin_item(pd_js *j, const pd_js *array, size_t offset);

#endif
