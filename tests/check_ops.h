/* check_ops.h: how an operation is put to the test.
 *
 * A row of the table is a check_op: `build` draws a shape and values and records the operation; `reference` computes
 * the same outputs in double, slowly and obviously. The program check_ops then, for several seeds and ways of
 * embedding:
 *
 *   - runs a plan forward and compares every output with the reference;
 *   - runs it backward and compares the gradient of every differentiable input with central differences of the
 *     reference in double;
 *   - does so with the inputs as parameters, as results of another operation (so that the plan may share memory), and
 *     with a second reader of each input (so that gradients are added);
 *   - accumulates twice, and compares the bits of 1 and of 3 threads, and of a second run.
 *
 * To add an operation: write build and reference in tests/ops_FAMILY.c, append the row to its list. Every boolean
 * setting needs rows (variants) for both values that the reference tells apart. */
#ifndef PD_CHECK_OPS_H
#define PD_CHECK_OPS_H

#include "engine/plan.h"
#include "engine/rng.h"

#define CHECK_INPUTS 16
#define CHECK_OUTPUTS 6

typedef enum check_kind {
    CHECK_FLOAT,  /* differentiable */
    CHECK_FIXED,  /* float data without a gradient */
    CHECK_INT,    /* int32 data */
    CHECK_BUFFER, /* float state (running statistics): a buffer that the operation may change */
} check_kind;

typedef struct check_tensor {
    const char *name;
    check_kind kind;
    pd_shape shape;
    size_t count;
    float *f;      /* values the operation gets; build may overwrite them; NULL of CHECK_INT */
    int *i;        /* the same of CHECK_INT */
    double *d;     /* values for the reference: equal to f, except while a difference quotient is taken */
    double *after; /* CHECK_BUFFER: the reference may put the value after a forward run here (starts as d) */
    pd_value *value;
    pd_param *param;
    void *memory; /* what an input of the plan is bound to */
} check_tensor;

typedef struct check_output {
    pd_value *value;
    size_t count;
    double *want;
    bool graded; /* takes part in the gradient check */
} check_output;

typedef enum check_mode { CHECK_AS_PARAM, CHECK_AS_VALUE, CHECK_SHARED, CHECK_MODES } check_mode;

typedef struct check_case {
    pd_arena *arena;
    pd_params *params;
    pd_tape *tape;
    pd_rng rng;
    check_mode mode;
    int variant;
    bool bench; /* build a large, usual shape instead of a random small one */
    check_tensor in[CHECK_INPUTS];
    int n_in;
    check_output out[CHECK_OUTPUTS];
    int n_out;
    char text[256]; /* shown in failures: what build drew */
    void *own;      /* build's settings for the reference, in the arena */
} check_case;

typedef struct check_op {
    const char *name;
    int variants;
    void (*build)(check_case *c);
    /* Reads in[].d and in[].i, writes out[].want. */
    void (*reference)(check_case *c);
    /* Largest difference allowed, relative to the tensor's largest magnitude. 0: exact. */
    double tolerance, gradient_tolerance;
    bool training; /* recorded on a training tape */
} check_op;

/* ---- for build ---- */

/* A whole number in lo..hi. */
int check_draw(check_case *c, int lo, int hi);

/* New inputs. Values: uniform in [-scale, scale]; ints uniform in lo..hi. */
check_tensor *check_float(check_case *c, const char *name, pd_shape shape, double scale);
check_tensor *check_fixed(check_case *c, const char *name, pd_shape shape, double scale);
check_tensor *check_buffer(check_case *c, const char *name, pd_shape shape, double scale);
check_tensor *check_int(check_case *c, const char *name, pd_shape shape, int lo, int hi);

/* Zeroed memory of the case. */
void *check_memory(check_case *c, size_t bytes);

/* Declares an output to compare. graded: gradients are sent back through it. */
void check_result(check_case *c, pd_value *value, bool graded);

/* ---- the families ---- */

typedef struct check_family {
    const check_op *ops;
    int count;
} check_family;

extern const check_family check_losses;    /* tests/ops_loss.c */
extern const check_family check_detection; /* tests/ops_detect.c */

#endif
