/* config.h: configurations: JSON files to C structs, by tables.
 *
 * A struct lives beside the code that obeys it, with a table of rows, one per field: name, type, default, range, one
 * line of documentation. One reader serves all; nothing is read that is not in a table, and nothing in a file is
 * ignored. The same tables print the resolved configuration and the help.
 *
 *     typedef struct { int num_classes; float gamma; const char *names; int size[2]; pd_opt_cfg opt; } head_cfg;
 *     static const pd_field head_fields[] = {
 *         PD_INT(head_cfg, num_classes, .def = 80, .min = 1, .max = 4096, .doc = "foreground classes"),
 *         PD_FLOAT(head_cfg, gamma, .def = 2, .min = 0, .max = 10, .doc = "Lin et al. 2017, eq. 5"),
 *         PD_STRING(head_cfg, names, .doc = "file with class names"),                 // default: null
 *         PD_INTS(head_cfg, size, .text = "[1333, 800]", .min = 1, .max = 8192, .doc = "long side, short side"),
 *         PD_OBJECT(head_cfg, opt, &opt_table, .doc = "optimiser"),
 *     };
 *     static const pd_table head_table = PD_TABLE(head_cfg, head_fields);
 *
 *     pd_config *c;
 *     PD_TRY(pd_config_load(&c, "configs/x.json", &err));
 *     pd_config_set(c, "opt.lr=0.02", &err);
 *     pd_config_read(&cfg, c, &head_table, arena, &err);
 *
 * Files. "_base_": "file.json" or a list of files, relative to the file that names them, is read first and the file is
 * merged over it as in mmdetection: objects key by key, everything else replaced; "_delete_": true inside an object
 * drops the keys that its bases gave it. Later bases lie over earlier ones. A file that comes back to itself is an
 * error.
 *
 * Errors are PD_EFORMAT for files and PD_EINVAL for assignments, and name file and line (or the assignment), key path,
 * what was read and what is allowed:
 *     configs/x.json:14: model.focal_gama: unknown key (did you mean "focal_gamma"?)
 *
 * Threads: tables are constant; a pd_config belongs to one thread. */
#ifndef PD_CONFIG_H
#define PD_CONFIG_H

#include "engine/arena.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum pd_field_type {
    PD_FIELD_BOOL,   /* bool */
    PD_FIELD_INT,    /* int */
    PD_FIELD_INT64,  /* int64_t, whole numbers below 2^53 in size */
    PD_FIELD_FLOAT,  /* float */
    PD_FIELD_DOUBLE, /* double */
    PD_FIELD_STRING, /* const char *; NULL is null in JSON, allowed only where it is the default */
    PD_FIELD_ENUM,   /* int: index into `names`; a string in JSON */
    PD_FIELD_OBJECT, /* a struct inside the struct, with a table of its own */
} pd_field_type;

typedef struct pd_table pd_table;

#define PD_FIELD_NONE SIZE_MAX /* no such member */

typedef struct pd_field {
    const char *name; /* the key, and the member's name */
    pd_field_type type;
    size_t offset;            /* of the member */
    size_t length;            /* 0: a single value; otherwise the array's capacity */
    size_t count_offset;      /* of the int that holds the number of elements; PD_FIELD_NONE: always `length` */
    size_t present_offset;    /* objects: of a bool, false for the string "none"; PD_FIELD_NONE: always an object */
    const char *const *names; /* enums: the words, ended by NULL */
    const pd_table *table;    /* objects */
    bool required;            /* a file must give it; there is no default */
    double def;               /* default of single numbers and bools; of PD_OBJECT_OR_NONE: 0 means "none" */
    const char *text;         /* default of strings and enums (the word), and of arrays (JSON, as "[0.9, 0.999]") */
    double min, max;          /* allowed range of a number, or of each element; both 0: whatever the type holds */
    bool above_min;           /* min itself is not allowed */
    const char *doc;          /* one line */
} pd_field;

struct pd_table {
    const pd_field *fields;
    size_t n_fields;
    size_t size; /* of the struct */
    /* Optional: what one row cannot say, as "milestones must rise". Its sentence is prefixed with the key path. */
    pd_status (*check)(const void *cfg, pd_err *err);
};

#define PD_TABLE(type, rows, ...)                                                                                      \
    {                                                                                                                  \
        .fields = (rows), .n_fields = sizeof(rows) / sizeof(rows)[0], .size = sizeof(type), __VA_ARGS__                \
    }

#define PD_FIELD_(T, m, kind, ...)                                                                                     \
    {                                                                                                                  \
        .name = #m, .type = (kind), .offset = offsetof(T, m), .count_offset = PD_FIELD_NONE,                           \
        .present_offset = PD_FIELD_NONE, __VA_ARGS__                                                                   \
    }
#define PD_LENGTH_(T, m) (sizeof(((T *)0)->m) / sizeof(((T *)0)->m)[0])

/* Single values: bool, int, int64_t, float, double, const char *. */
#define PD_BOOL(T, m, ...) PD_FIELD_(T, m, PD_FIELD_BOOL, __VA_ARGS__)
#define PD_INT(T, m, ...) PD_FIELD_(T, m, PD_FIELD_INT, __VA_ARGS__)
#define PD_INT64(T, m, ...) PD_FIELD_(T, m, PD_FIELD_INT64, __VA_ARGS__)
#define PD_FLOAT(T, m, ...) PD_FIELD_(T, m, PD_FIELD_FLOAT, __VA_ARGS__)
#define PD_DOUBLE(T, m, ...) PD_FIELD_(T, m, PD_FIELD_DOUBLE, __VA_ARGS__)
#define PD_STRING(T, m, ...) PD_FIELD_(T, m, PD_FIELD_STRING, __VA_ARGS__)
/* An int or an enum of that size; words: static const char *const words[] = {"sgd", "adam", NULL}; default .text. */
#define PD_ENUM(T, m, words, ...) PD_FIELD_(T, m, PD_FIELD_ENUM, .names = (words), __VA_ARGS__)

/* Arrays in the struct, `int size[2]`: exactly as many elements as the array has. */
#define PD_INTS(T, m, ...) PD_FIELD_(T, m, PD_FIELD_INT, .length = PD_LENGTH_(T, m), __VA_ARGS__)
#define PD_FLOATS(T, m, ...) PD_FIELD_(T, m, PD_FIELD_FLOAT, .length = PD_LENGTH_(T, m), __VA_ARGS__)
#define PD_DOUBLES(T, m, ...) PD_FIELD_(T, m, PD_FIELD_DOUBLE, .length = PD_LENGTH_(T, m), __VA_ARGS__)

/* Lists, `int milestones[16]; int n_milestones;`: from none up to as many as the array has; n counts them. The default
 * without .text is the empty list. */
#define PD_LIST_(T, m, n, kind, ...)                                                                                   \
    {                                                                                                                  \
        .name = #m, .type = (kind), .offset = offsetof(T, m), .length = PD_LENGTH_(T, m),                              \
        .count_offset = offsetof(T, n), .present_offset = PD_FIELD_NONE, __VA_ARGS__                                   \
    }
#define PD_INT_LIST(T, m, n, ...) PD_LIST_(T, m, n, PD_FIELD_INT, __VA_ARGS__)
#define PD_INT64_LIST(T, m, n, ...) PD_LIST_(T, m, n, PD_FIELD_INT64, __VA_ARGS__)
#define PD_FLOAT_LIST(T, m, n, ...) PD_LIST_(T, m, n, PD_FIELD_FLOAT, __VA_ARGS__)
#define PD_DOUBLE_LIST(T, m, n, ...) PD_LIST_(T, m, n, PD_FIELD_DOUBLE, __VA_ARGS__)
#define PD_STRING_LIST(T, m, n, ...) PD_LIST_(T, m, n, PD_FIELD_STRING, __VA_ARGS__)
#define PD_ENUM_LIST(T, m, n, words, ...) PD_LIST_(T, m, n, PD_FIELD_ENUM, .names = (words), __VA_ARGS__)

/* A struct inside the struct. */
#define PD_OBJECT(T, m, tab, ...) PD_FIELD_(T, m, PD_FIELD_OBJECT, .table = (tab), __VA_ARGS__)
/* The same, or the string "none", which makes the bool member `present` false. Default .def: 1 the object, 0 "none". */
#define PD_OBJECT_OR_NONE(T, m, present, tab, ...)                                                                     \
    {                                                                                                                  \
        .name = #m, .type = PD_FIELD_OBJECT, .offset = offsetof(T, m), .count_offset = PD_FIELD_NONE,                  \
        .present_offset = offsetof(T, present), .table = (tab), __VA_ARGS__                                            \
    }

/* ---- reading ---- */

typedef struct pd_config pd_config; /* the merged keys, each with where it came from */

/* A file and its bases. */
pd_status pd_config_load(pd_config **out, const char *path, pd_err *err);
/* The same from memory (a checkpoint's metadata, "{}" for the defaults); `name` stands in errors. Bases are refused:
 * there is no folder to find them in. */
pd_status pd_config_parse(pd_config **out, const char *name, const char *text, size_t size, pd_err *err);
void pd_config_free(pd_config *config); /* NULL allowed */

/* One assignment, "a.b.c=JSON": what is no JSON is taken as a string, so that data.root=images/train works. An object
 * is merged over what is there, everything else replaces it. */
pd_status pd_config_set(pd_config *config, const char *assignment, pd_err *err);
/* The same with the value's type known: for options that override keys (--epochs, --data). */
pd_status pd_config_set_string(pd_config *config, const char *path, const char *value, pd_err *err);
pd_status pd_config_set_number(pd_config *config, const char *path, double value, pd_err *err);

/* The string at a path, NULL when there is none (or it is no string): what decides which table to read with. Lives as
 * long as the config. */
const char *pd_config_peek(const pd_config *config, const char *path);
bool pd_config_has(const pd_config *config, const char *path);

/* Fills the struct: defaults, then the file's keys, all checked. Strings go into the arena. `cfg` is untouched on
 * failure. */
pd_status pd_config_read(void *cfg, const pd_config *config, const pd_table *table, pd_arena *arena, pd_err *err);
/* The defaults alone; fails where a field is required. */
pd_status pd_config_defaults(void *cfg, const pd_table *table, pd_arena *arena, pd_err *err);

/* ---- printing ---- */

/* The struct as indented JSON, every key of the table in its order: for --print-config, the run folder and checkpoints.
 * Read again, it gives the same struct. */
pd_status pd_config_print(char **out, const void *cfg, const pd_table *table, pd_arena *arena, pd_err *err);
/* What can be set: a line per key with type, default, range and documentation. */
pd_status pd_config_help(char **out, const pd_table *table, pd_arena *arena, pd_err *err);

/* The word of `words` (ended by NULL) nearest to `wrong` by edit distance, or NULL when none is near. */
const char *pd_nearest_word(const char *wrong, const char *const *words);

#endif
