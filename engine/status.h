/* status.h: how every function of this library reports failure: a status plus one sentence.
 *
 * A function that can fail returns pd_status and takes `pd_err *err` last. On failure its out-parameters are
 * untouched and err holds one line that says what, where, which value and what to do. The deepest failure writes the
 * sentence; callers pass it on (PD_TRY) and may prefix it with context (pd_err_context).
 * Nothing in the library prints, exits or aborts. err may be NULL where the caller wants the code only. */
#ifndef PD_STATUS_H
#define PD_STATUS_H

typedef enum pd_status {
    PD_OK = 0,
    PD_EINVAL,  /* an argument, option or configuration value is impossible */
    PD_ENOMEM,  /* out of memory */
    PD_EIO,     /* the operating system refused a file operation */
    PD_EFORMAT, /* a file's content is not what its format asks for */
    PD_EDEVICE, /* a compute library or device failed or lacks an operation */
    PD_ESTOP,   /* stopped on request (Ctrl-C, a closed queue); not a fault */
} pd_status;

typedef struct pd_err {
    pd_status code;
    char text[1024]; /* one line, no trailing newline; "" while code is PD_OK */
} pd_err;

#define PD_ERR_INIT {PD_OK, ""}

/* Writes code and the formatted sentence into err (if not NULL) and returns code. */
pd_status pd_fail(pd_err *err, pd_status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "<context>: " in front of err's sentence. No effect on PD_OK or NULL. */
void pd_err_context(pd_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* "invalid argument", "out of memory", ...; never NULL. */
const char *pd_status_text(pd_status code);

/* The same as an expression that compilers and analysers see to be `code`: behind PD_TRY, results are set. */
#define PD_FAIL(err, code, ...) (pd_fail((err), (code), __VA_ARGS__), pd_status_same(code))
static inline pd_status pd_status_same(pd_status code)
{
    return code;
}

/* Forward a failure as it is. */
#define PD_TRY(expr)                                                                                                   \
    do {                                                                                                               \
        const pd_status pd_try_status_ = (expr);                                                                       \
        if (pd_try_status_ != PD_OK) return pd_try_status_;                                                            \
    } while (0)

/* The same where something must be released first: needs a local `pd_status status` and a label `done`. */
#define PD_TRY_DONE(expr)                                                                                              \
    do {                                                                                                               \
        status = (expr);                                                                                               \
        if (status != PD_OK) goto done;                                                                                \
    } while (0)

#endif
