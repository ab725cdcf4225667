/* pd_test.h: the whole test harness.
 *
 * A test program calls checks from plain functions and ends with `return pd_test_end();`. A failed check prints file,
 * line and what was compared, and the program goes on; the exit status is 1 if any failed, 77 (CTest: skipped) if
 * nothing was checked and PD_SKIP was used. Checks may be made by any thread. */
#ifndef PD_TEST_H
#define PD_TEST_H

#include "engine/status.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Atomic int pd_test_checks, pd_test_failures, pd_test_skips;
static const char *pd_test_row = ""; /* the table row under test, shown in failures */

#define PD_ROW(name) (pd_test_row = (name))

#define PD_CHECK_MSG(cond, ...)                                                                                        \
    do {                                                                                                               \
        pd_test_checks++;                                                                                              \
        if (!(cond)) {                                                                                                 \
            pd_test_failures++;                                                                                        \
            fprintf(stderr, "%s:%d: %s%s", __FILE__, __LINE__, pd_test_row, *pd_test_row ? ": " : "");                 \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fprintf(stderr, "\n");                                                                                     \
        }                                                                                                              \
    } while (0)

#define PD_CHECK(cond) PD_CHECK_MSG(cond, "failed: %s", #cond)

#define PD_CHECK_INT(got, want)                                                                                        \
    do {                                                                                                               \
        const long long got_ = (long long)(got), want_ = (long long)(want);                                            \
        PD_CHECK_MSG(got_ == want_, "%s is %lld, expected %lld", #got, got_, want_);                                   \
    } while (0)

#define PD_CHECK_STR(got, want)                                                                                        \
    do {                                                                                                               \
        const char *got_ = (got), *want_ = (want);                                                                     \
        PD_CHECK_MSG(got_ && !strcmp(got_, want_), "%s is \"%s\", expected \"%s\"", #got, got_ ? got_ : "(null)",      \
                     want_);                                                                                           \
    } while (0)

/* |got - want| <= tol; a NaN fails. */
#define PD_CHECK_NEAR(got, want, tol)                                                                                  \
    do {                                                                                                               \
        const double got_ = (double)(got), want_ = (double)(want), tol_ = (double)(tol);                               \
        PD_CHECK_MSG(fabs(got_ - want_) <= tol_, "%s is %.9g, expected %.9g within %g", #got, got_, want_, tol_);      \
    } while (0)

/* A call that must succeed; shows its error. */
#define PD_CHECK_OK(expr)                                                                                              \
    do {                                                                                                               \
        const pd_status st_ = (expr);                                                                                  \
        PD_CHECK_MSG(st_ == PD_OK, "%s: %s: %s", #expr, pd_status_text(st_), err.text);                                \
    } while (0)

/* A call that must fail with this status and a text that contains `part`. Uses the caller's `pd_err err`. */
#define PD_CHECK_FAILS(expr, status_wanted, part)                                                                      \
    do {                                                                                                               \
        const pd_status st_ = (expr);                                                                                  \
        PD_CHECK_MSG(st_ == (status_wanted) && strstr(err.text, (part)),                                               \
                     "%s: got \"%s\" (%s), expected \"%s\" with \"%s\"", #expr, err.text, pd_status_text(st_),         \
                     pd_status_text(status_wanted), (part));                                                           \
    } while (0)

#define PD_SKIP(...)                                                                                                   \
    do {                                                                                                               \
        pd_test_skips++;                                                                                               \
        fprintf(stderr, "skipped: ");                                                                                  \
        fprintf(stderr, __VA_ARGS__);                                                                                  \
        fprintf(stderr, "\n");                                                                                         \
    } while (0)

static inline int pd_test_end(void)
{
    printf("%d checks, %d failed, %d skipped\n", pd_test_checks, pd_test_failures, pd_test_skips);
    if (pd_test_failures) return 1;
    return pd_test_checks == 0 && pd_test_skips > 0 ? 77 : 0;
}

/* A scratch folder of this test program, emptied by the caller: $TMPDIR or /tmp. */
static inline const char *pd_test_dir(char buffer[256], const char *name)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(buffer, 256, "%s/pd_%s_XXXXXX", tmp && *tmp ? tmp : "/tmp", name);
    return mkdtemp(buffer);
}

#endif
