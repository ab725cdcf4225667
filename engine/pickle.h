/* pickle.h: Python's pickle format read as plain data; nothing in it is ever run.
 *
 * A pickle is a program for a small stack machine, and Python's own reader calls any function that it names. This one
 * builds a tree: numbers, text, bytes, lists, tuples, dicts. A function or class that the caller lists ("torch.Size")
 * becomes a value with its name, a call of one becomes a value that holds function and arguments, for the caller to
 * make sense of. Any other name is an error that says it. An ordered dict is a dict.
 *
 * Protocols 2 to 5 as Python's pickler writes them; opcodes of older protocols, of extension registries and of
 * out-of-band buffers are errors with their names.
 *
 * Bounds: values, memo and stack are limited to `max_values` entries; each byte of input makes at most one value, no
 * size in the input is allocated before its bytes were seen. The tree has no cycles (an error) and is at most
 * PD_PICKLE_DEPTH deep; it may share parts, so a walk of everything can meet a value more than once.
 *
 * Threads: no state; a parsed tree may be read by many. */
#ifndef PD_PICKLE_H
#define PD_PICKLE_H

#include "engine/arena.h"

#include <stdbool.h>
#include <stdint.h>

#define PD_PICKLE_DEPTH 100
#define PD_PICKLE_VALUES ((size_t)4 << 20) /* the usual max_values */

typedef enum pd_pickle_kind {
    PD_PICKLE_NONE,
    PD_PICKLE_BOOL,
    PD_PICKLE_INT,
    PD_PICKLE_BIG, /* a whole number beyond 64 bits: its bytes, little-endian, two's complement */
    PD_PICKLE_FLOAT,
    PD_PICKLE_TEXT, /* UTF-8; or the byte string that Python 2 called str */
    PD_PICKLE_BYTES,
    PD_PICKLE_LIST, /* sets too */
    PD_PICKLE_TUPLE,
    PD_PICKLE_DICT,       /* items: key, value, key, value, ... as they were set; a later one wins */
    PD_PICKLE_GLOBAL,     /* a listed name: "module.name" */
    PD_PICKLE_CALL,       /* items: function (a global), arguments (a tuple) */
    PD_PICKLE_PERSISTENT, /* items: the id; something that lies outside the pickle */
    PD_PICKLE_OBJECT,     /* an object that is not listed, passed over: the name of its class */
} pd_pickle_kind;

typedef struct pd_pickle pd_pickle;
struct pd_pickle {
    pd_pickle_kind kind;
    unsigned visit; /* of the reader */
    union {
        bool truth;
        int64_t integer;
        double number;
        struct {
            const char *data; /* not ended by 0 (names of globals are); in the input or the arena */
            size_t size;
        } text;
        struct {
            pd_pickle **items;
            size_t count;
        } list;
    } as;
};

typedef struct pd_pickle_options {
    const char *const *globals; /* names that may appear, ended by NULL; collections.OrderedDict always may */
    bool skip_objects;          /* other names become PD_PICKLE_OBJECT in place of an error */
    size_t max_values;          /* 0: PD_PICKLE_VALUES */
} pd_pickle_options;

typedef struct pd_pickle_file {
    const pd_pickle *root;
    size_t size;                         /* bytes that the pickle took */
    const pd_pickle *const *persistents; /* every PD_PICKLE_PERSISTENT that was made */
    size_t n_persistents;
} pd_pickle_file;

/* Reads the pickle that `data` begins with. The input must outlive the tree, which lies in the arena. Errors
 * (PD_EFORMAT) begin with `name`. */
pd_status pd_pickle_parse(pd_pickle_file *out, const char *name, const void *data, size_t size,
                          const pd_pickle_options *options, pd_arena *arena, pd_err *err);

/* Whether a value is this text (or the global, or the object of this name). */
bool pd_pickle_is(const pd_pickle *value, pd_pickle_kind kind, const char *text);
/* The value of a text key in a dict, NULL where there is none. */
const pd_pickle *pd_pickle_get(const pd_pickle *dict, const char *key);
/* The tuple of arguments of a call of `function` with at least `least` of them; NULL where `value` is something else.
 */
const pd_pickle *pd_pickle_arguments(const pd_pickle *value, const char *function, size_t least);
/* One line on what a value is, for messages: `3`, `"resnet18"`, `a dict of 4`, `an object of argparse.Namespace`. Text
 * is cut and cleaned of what a terminal should not get. */
void pd_pickle_describe(char *out, size_t size, const pd_pickle *value);

#endif
