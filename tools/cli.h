/* cli.h: the command line of every program: options by tables, --help, one-line failures, Ctrl-C.
 *
 *     bool json = false;
 *     double thr = 0.3;
 *     const char *out = NULL;
 *     const pd_opt opts[] = {
 *         PD_OPT_FLAG(0, "json", &json, "print JSON"),
 *         PD_OPT_DOUBLE(0, "score-thr", "X", &thr, 0, 1, "least score of a box"),
 *         PD_OPT_STRING('o', "output", "FILE", &out, "where the results go"),
 *     };
 *     const pd_cli cli = {.program = "pd_detect", .usage = "MODEL INPUT...", .about = "Detects objects in images.",
 *                         .example = "pd_detect model.safetensors photo.jpg --draw out",
 *                         .opts = opts, .n_opts = 3, .common = PD_CLI_DEVICE | PD_CLI_THREADS | PD_CLI_QUIET,
 *                         .min_args = 2, .max_args = -1};
 *     pd_cli_args args;
 *     const int code = pd_cli_parse(&args, &cli, argc, argv);
 *     if (code >= 0) return code;                  // --help, --version, wrong usage
 *     ...
 *     const int result = status == PD_OK ? 0 : pd_cli_fail(&cli, &err);
 *     pd_cli_free(&args);
 *
 * Options are read by getopt_long: long names may be cut as long as they stay unique, options may follow arguments,
 * "--" ends them. Results belong on standard output, everything else on standard error. Exit codes: 0 done, 1 the work
 * failed, 2 wrong usage. */
#ifndef PD_CLI_H
#define PD_CLI_H

#include "tools/progress.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum pd_opt_type {
    PD_OPT_T_FLAG,    /* bool *: set to true */
    PD_OPT_T_STRING,  /* const char **: points into argv */
    PD_OPT_T_STRINGS, /* pd_strings *: one more each time the option is given */
    PD_OPT_T_INT,     /* int * */
    PD_OPT_T_INT64,   /* int64_t * */
    PD_OPT_T_DOUBLE,  /* double * */
    PD_OPT_T_NUMBERS, /* pd_numbers *: comma-separated doubles */
    PD_OPT_T_SIZE,    /* int[2]: "1280x800" as written; "224" gives 224 twice */
} pd_opt_type;

typedef struct pd_strings {
    const char **items; /* point into argv */
    size_t count, room;
} pd_strings;

typedef struct pd_numbers {
    double *items;
    size_t count;
} pd_numbers;

typedef struct pd_opt {
    int letter;       /* 0: long name only */
    const char *name; /* long name */
    const char *arg;  /* name of the value in the help, NULL for flags */
    pd_opt_type type;
    void *to;
    double min, max; /* numbers: the range allowed (both 0: all of the type) */
    bool *given;     /* optional: set to true when the option was there */
    const char *help;
} pd_opt;

#define PD_OPT_FLAG(letter, name, to, help)                                                                            \
    {                                                                                                                  \
        (letter), (name), NULL, PD_OPT_T_FLAG, (to), 0, 0, NULL, (help)                                                \
    }
#define PD_OPT_STRING(letter, name, arg, to, help)                                                                     \
    {                                                                                                                  \
        (letter), (name), (arg), PD_OPT_T_STRING, (to), 0, 0, NULL, (help)                                             \
    }
#define PD_OPT_STRINGS(letter, name, arg, to, help)                                                                    \
    {                                                                                                                  \
        (letter), (name), (arg), PD_OPT_T_STRINGS, (to), 0, 0, NULL, (help)                                            \
    }
#define PD_OPT_INT(letter, name, arg, to, min, max, help)                                                              \
    {                                                                                                                  \
        (letter), (name), (arg), PD_OPT_T_INT, (to), (min), (max), NULL, (help)                                        \
    }
#define PD_OPT_INT64(letter, name, arg, to, min, max, help)                                                            \
    {                                                                                                                  \
        (letter), (name), (arg), PD_OPT_T_INT64, (to), (min), (max), NULL, (help)                                      \
    }
#define PD_OPT_DOUBLE(letter, name, arg, to, min, max, help)                                                           \
    {                                                                                                                  \
        (letter), (name), (arg), PD_OPT_T_DOUBLE, (to), (min), (max), NULL, (help)                                     \
    }
#define PD_OPT_NUMBERS(letter, name, arg, to, help)                                                                    \
    {                                                                                                                  \
        (letter), (name), (arg), PD_OPT_T_NUMBERS, (to), 0, 0, NULL, (help)                                            \
    }
#define PD_OPT_SIZE(letter, name, arg, to, help)                                                                       \
    {                                                                                                                  \
        (letter), (name), (arg), PD_OPT_T_SIZE, (to), 1, 65536, NULL, (help)                                           \
    }

/* Options that programs share; -h/--help and --version are always there. A program without QUIET, DEVICE or THREADS takes
 * these options all the same (a script may give them to any program); they change nothing there and are not in its help,
 * and --device cuda is wrong usage. */
enum {
    PD_CLI_QUIET = 1,   /* --quiet */
    PD_CLI_DEVICE = 2,  /* --device cpu|cuda[:N]|auto and --precision fp32|tf32|fp16|bf16 */
    PD_CLI_THREADS = 4, /* --threads N */
    PD_CLI_SET = 8,     /* --set KEY=VALUE, any number of times */
};

typedef struct pd_cli {
    const char *program; /* "pd_detect" */
    const char *usage;   /* the arguments: "MODEL INPUT..." */
    const char *about;   /* what it does, a sentence or two */
    const char *example; /* one full command */
    const pd_opt *opts;
    size_t n_opts;
    unsigned common;        /* PD_CLI_... */
    int min_args, max_args; /* positional arguments; -1: any number */
} pd_cli;

typedef struct pd_cli_args {
    const char **args; /* positional arguments, in order; point into argv */
    size_t n_args;
    bool quiet;
    int threads;        /* 0: all processors this process may use */
    const char *device; /* "auto", "cpu", "cuda" or "cuda:1": for pd_device_open */
    const char *precision; /* for pd_device_set_precision; NULL: not given */
    pd_strings set;
    const pd_cli *cli;
} pd_cli_args;

/* Reads the command line into the options' targets and `out`. -1: go on. Otherwise the exit code: 0 after --help or
 * --version (printed on stdout), 2 after wrong usage. */
int pd_cli_parse(pd_cli_args *out, const pd_cli *cli, int argc, char **argv);
/* Frees what the parse allocated, the lists of its options included; after a parse that did not return -1 there is
 * nothing to free. */
void pd_cli_free(pd_cli_args *args);

/* The help page. */
void pd_cli_help(FILE *out, const pd_cli *cli);

/* Prints "pd_x: <err's sentence>" on stderr. Returns 1; 130 for PD_ESTOP. */
int pd_cli_fail(const pd_cli *cli, const pd_err *err);
/* Prints "pd_x: <sentence>" and a hint at --help on stderr. Returns 2. */
int pd_cli_wrong(const pd_cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Flushes and closes stdout, so that a full disk or a broken pipe is noticed. Returns `code`, or 1 after a message. */
int pd_cli_close_stdout(const pd_cli *cli, int code);

/* ---- numbers from text; whole text or PD_EINVAL naming `what` ---- */
pd_status pd_cli_int(int64_t *out, const char *what, const char *text, int64_t min, int64_t max, pd_err *err);
pd_status pd_cli_double(double *out, const char *what, const char *text, double min, double max, pd_err *err);
/* "0.5,0.75": at least one number. Free with free(out->items). */
pd_status pd_cli_numbers(pd_numbers *out, const char *what, const char *text, pd_err *err);

/* ---- stopping ---- */

/* From now on SIGINT and SIGTERM ask to stop: the program ends its step, saves and leaves. The second one kills. */
void pd_cli_catch_stop(void);
bool pd_cli_stop_asked(void);

#endif
