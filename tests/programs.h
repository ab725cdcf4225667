/* programs.h: runs the programs of this build as a user does and keeps what they said.
 *
 *     pd_child c = {0};
 *     pd_child_run(&c, NULL, PD_BIN_DIR, "pd_fold %s -o %s/folded.safetensors", model, dir);
 *     PD_CHECK_INT(c.code, 0);
 *     pd_child_free(&c);
 *
 * Words of a command line are separated by one blank or more; there is no quoting. */
#ifndef PD_TEST_PROGRAMS_H
#define PD_TEST_PROGRAMS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

typedef struct pd_child {
    int code;        /* exit code; 1000 + the signal that ended it */
    char *out, *err; /* what it wrote, ended by 0 */
    pid_t pid;       /* between start and wait */
    FILE *file[2];
    char line[4096]; /* the command, for messages */
} pd_child;

typedef struct pd_child_how {
    const char *dir;    /* its working folder; NULL: the test's */
    const char *out;    /* file in place of its standard output ("/dev/full"); NULL: kept */
    uint64_t file_limit; /* bytes that a file of its may have; 0: any */
} pd_child_how;

/* Starts bin/FIRST-WORD. The child counts from here on; what an earlier run said is freed. how NULL: {0}. */
void pd_child_start(pd_child *c, const pd_child_how *how, const char *bin, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* True while it runs; afterwards the child is as after pd_child_wait. */
bool pd_child_running(pd_child *c);
void pd_child_wait(pd_child *c);
void pd_child_free(pd_child *c);

#define pd_child_run(c, how, bin, ...) (pd_child_start(c, how, bin, __VA_ARGS__), pd_child_wait(c))

/* Number of lines of a text. */
int pd_count_lines(const char *text);

/* Whether two files hold the same bytes; false when one is missing. */
bool pd_same_files(const char *a, const char *b);

/* Removes a folder and all in it. */
void pd_remove_tree(const char *path);

#endif
