/* Every operation against a slow reference in double; see check_ops.h.
 *
 *   check_ops [--op NAME] [--seed N] [--rounds N] [--bench]
 *
 * --op keeps the operations whose name contains NAME. --bench times a large, usual shape of each instead. */
#include "tests/check_ops.h"
#include "tests/pd_test.h"

#include <time.h>

static const check_family *const families[] = {&check_losses, &check_detection};

/* ---- operations that exist for the test only ---- */

/* A copy, so that an input is a value of the plan and not a parameter. */
static pd_status copy_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    (void)run;
    (void)err;
    const size_t bytes = pd_shape_size(node->out[0]->shape) * sizeof(float);
    if (bytes) memcpy(node->out[0]->data, node->in[0]->data, bytes);
    return PD_OK;
}

static pd_status copy_bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    (void)err;
    const bool add = pd_adds_grad(node, 0, run);
    const size_t n = pd_shape_size(node->out[0]->shape);
    for (size_t i = 0; i < n; i++) node->in[0]->grad[i] = node->out[0]->grad[i] + (add ? node->in[0]->grad[i] : 0.f);
    return PD_OK;
}

static const pd_kernel copy_cpu = {NULL, copy_fwd, copy_bwd, NULL};
static const pd_op copy = {.name = "check_copy", .differentiable = true, .kernel = {[PD_CPU] = &copy_cpu}};

/* sum of x[i] * w[i]: turns an output into a scalar, with w as its gradient. */
static pd_status dot_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    (void)run;
    (void)err;
    const float *x = node->in[0]->data, *w = node->in[1]->data;
    double sum = 0;
    for (size_t i = 0; i < pd_shape_size(node->in[0]->shape); i++) sum += (double)x[i] * (double)w[i];
    *(float *)node->out[0]->data = (float)sum;
    return PD_OK;
}

static pd_status dot_bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    (void)err;
    const float *w = node->in[1]->data, dy = node->out[0]->grad[0];
    const bool add = pd_adds_grad(node, 0, run);
    const size_t n = pd_shape_size(node->in[0]->shape);
    for (size_t i = 0; i < n; i++) node->in[0]->grad[i] = w[i] * dy + (add ? node->in[0]->grad[i] : 0.f);
    return PD_OK;
}

static const pd_kernel dot_cpu = {NULL, dot_fwd, dot_bwd, NULL};
static const pd_op dot = {
    .name = "check_dot", .bwd_reads_in = 2, .differentiable = true, .kernel = {[PD_CPU] = &dot_cpu}};

/* ---- building a case ---- */

static void give_up(const char *why)
{
    fprintf(stderr, "check_ops: %s\n", why);
    exit(1);
}

void *check_memory(check_case *c, size_t bytes)
{
    void *p = NULL;
    if (pd_alloc(&p, c->arena, bytes + 1, 1, NULL) != PD_OK) give_up("out of memory");
    return p;
}

int check_draw(check_case *c, int lo, int hi)
{
    return lo + (int)pd_rng_below(&c->rng, (uint32_t)(hi - lo + 1));
}

static check_tensor *new_tensor(check_case *c, const char *name, pd_shape shape, check_kind kind)
{
    if (c->n_in == CHECK_INPUTS) give_up("too many inputs: raise CHECK_INPUTS");
    check_tensor *t = &c->in[c->n_in++];
    if (pd_shape_size(shape) == 0 && kind != CHECK_INT) kind = CHECK_FIXED; /* a parameter is never empty */
    *t = (check_tensor){.name = name, .kind = kind, .shape = shape, .count = pd_shape_size(shape)};
    if (kind == CHECK_INT)
        t->i = check_memory(c, t->count * sizeof *t->i);
    else
        t->f = check_memory(c, t->count * sizeof *t->f);
    if (kind == CHECK_FLOAT || kind == CHECK_BUFFER) {
        pd_param spec = {.rank = shape.rank, .kind = kind == CHECK_FLOAT ? PD_WEIGHT : PD_BUFFER, .trainable = true};
        memcpy(spec.dim, shape.dim, sizeof spec.dim);
        t->value = pd_tape_param(c->tape, name, &spec);
        t->param = t->value->param;
        if (kind == CHECK_FLOAT && c->mode != CHECK_AS_PARAM)
            t->value = pd_tape_add1(c->tape, &copy, name, 1, &t->value, shape, NULL, 0);
    } else {
        t->memory = check_memory(c, t->count * sizeof(float));
        t->value = pd_tape_input(c->tape, name, kind == CHECK_INT ? PD_I32 : PD_F32, shape);
    }
    return t;
}

static check_tensor *new_floats(check_case *c, const char *name, pd_shape shape, check_kind kind, double scale)
{
    check_tensor *t = new_tensor(c, name, shape, kind);
    for (size_t i = 0; i < t->count; i++) t->f[i] = (float)(scale * (2 * pd_rng_double(&c->rng) - 1));
    return t;
}

check_tensor *check_float(check_case *c, const char *name, pd_shape shape, double scale)
{
    return new_floats(c, name, shape, CHECK_FLOAT, scale);
}

check_tensor *check_fixed(check_case *c, const char *name, pd_shape shape, double scale)
{
    return new_floats(c, name, shape, CHECK_FIXED, scale);
}

check_tensor *check_buffer(check_case *c, const char *name, pd_shape shape, double scale)
{
    return new_floats(c, name, shape, CHECK_BUFFER, scale);
}

check_tensor *check_int(check_case *c, const char *name, pd_shape shape, int lo, int hi)
{
    check_tensor *t = new_tensor(c, name, shape, CHECK_INT);
    for (size_t i = 0; i < t->count; i++) t->i[i] = check_draw(c, lo, hi);
    return t;
}

void check_result(check_case *c, pd_value *value, bool graded)
{
    if (c->n_out == CHECK_OUTPUTS) give_up("too many outputs: raise CHECK_OUTPUTS");
    const size_t count = pd_shape_size(value->shape);
    check_output *o = &c->out[c->n_out++];
    double *want = check_memory(c, c->bench ? 0 : count * sizeof *want);
    *o = (check_output){pd_tape_keep(c->tape, value), count, want, graded};
}

/* ---- running a case ---- */

/* A case with everything that compares it. */
typedef struct trial {
    const check_op *op;
    check_case c;
    pd_device *device;
    pd_plan *plan;
    float *dy[CHECK_OUTPUTS];   /* gradient sent into each output */
    float *extra[CHECK_INPUTS]; /* CHECK_SHARED: gradient that the second reader adds */
    pd_value *dy_value[CHECK_OUTPUTS], *extra_value[CHECK_INPUTS];
    bool graded;
} trial;

static float *draw_floats(check_case *c, size_t n)
{
    float *v = check_memory(c, n * sizeof *v);
    for (size_t i = 0; i < n; i++) v[i] = 2 * pd_rng_float(&c->rng) - 1;
    return v;
}

static void add_dot(check_case *c, pd_value *x, pd_value **weights)
{
    char name[32];
    snprintf(name, sizeof name, "dot%d", x->id);
    *weights = pd_tape_input(c->tape, name, PD_F32, x->shape);
    pd_value *in[] = {x, *weights};
    pd_tape_minimise(c->tape, pd_tape_add1(c->tape, &dot, "", 2, in, PD_SHAPE(1), NULL, 0), 1.f);
}

static void set_inputs(trial *t)
{
    for (int i = 0; i < t->c.n_in; i++) {
        check_tensor *in = &t->c.in[i];
        const size_t bytes = in->count * sizeof(float);
        const void *from = in->kind == CHECK_INT ? (const void *)in->i : (const void *)in->f;
        if (in->param) {
            if (bytes) memcpy(in->param->data, from, bytes);
        } else {
            if (bytes) memcpy(in->memory, from, bytes);
            pd_plan_bind(in->value, in->memory);
        }
    }
    for (int i = 0; i < t->c.n_out; i++)
        if (t->dy_value[i]) pd_plan_bind(t->dy_value[i], t->dy[i]);
    for (int i = 0; i < t->c.n_in; i++)
        if (t->extra_value[i]) pd_plan_bind(t->extra_value[i], t->extra[i]);
}

static bool begin_trial(trial *t, const check_op *op, uint64_t seed, int variant, check_mode mode, int threads,
                        bool bench, pd_err *err)
{
    *t = (trial){.op = op, .c = {.arena = pd_arena_new(), .mode = mode, .variant = variant, .bench = bench}};
    check_case *c = &t->c;
    c->rng = pd_rng_make(seed, (uint32_t)pd_hash_text(op->name), (uint32_t)variant);
    if (pd_params_new(&c->params, err) != PD_OK || pd_tape_new(&c->tape, c->params, op->training, err) != PD_OK)
        return false;
    op->build(c);
    for (int i = 0; i < c->n_in && !bench; i++) {
        check_tensor *in = &c->in[i];
        if (in->kind == CHECK_INT) continue;
        in->d = check_memory(c, in->count * sizeof *in->d);
        in->after = check_memory(c, in->count * sizeof *in->after);
        for (size_t k = 0; k < in->count; k++) in->after[k] = in->d[k] = (double)in->f[k];
    }
    for (int i = 0; i < c->n_out; i++) {
        if (!c->out[i].graded) continue;
        t->graded = true;
        t->dy[i] = draw_floats(c, c->out[i].count);
        add_dot(c, c->out[i].value, &t->dy_value[i]);
    }
    for (int i = 0; i < c->n_in && mode == CHECK_SHARED && t->graded; i++) {
        if (c->in[i].kind != CHECK_FLOAT) continue;
        t->extra[i] = draw_floats(c, c->in[i].count);
        add_dot(c, c->in[i].value, &t->extra_value[i]);
    }
    pd_status status = pd_device_open(&t->device, "cpu", threads, err);
    if (status == PD_OK) status = pd_params_allocate(c->params, t->device, true, err);
    if (status == PD_OK)
        status = pd_plan_new(&t->plan, c->tape, t->device, t->graded ? PD_PLAN_TRAIN : PD_PLAN_INFER, NULL, err);
    if (status == PD_OK) set_inputs(t);
    return status == PD_OK;
}

static void end_trial(trial *t)
{
    pd_plan_free(t->plan);
    pd_tape_free(t->c.tape);
    pd_params_free(t->c.params);
    pd_device_close(t->device);
    pd_arena_free(t->c.arena);
}

static double element(const pd_value *v, const void *data, size_t i)
{
    return v->dtype == PD_I32 ? (double)((const int *)data)[i] : (double)((const float *)data)[i];
}

/* The largest difference, in units of the largest expected magnitude, is within the tolerance. slack: what the expected
 * values themselves may be off by. */
static void compare(const trial *t, const char *what, const pd_value *v, const void *got, const double *want, size_t n,
                    double tolerance, double slack)
{
    double most = 0, worst = 0;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, fabs(want[i]));
        const double d = fabs(element(v, got, i) - want[i]);
        if (!(d <= worst)) {
            worst = isnan(d) ? INFINITY : d;
            at = i;
        }
    }
    PD_CHECK_MSG(worst <= tolerance * most + slack,
                 "%s [%s]: %s[%zu] is %.9g, expected %.9g (off by %.2g of the largest %.3g; allowed %.2g)", t->op->name,
                 t->c.text, what, at, n ? element(v, got, at) : 0, n ? want[at] : 0, most > 0 ? worst / most : worst,
                 most, tolerance);
}

static void check_forward(trial *t)
{
    char what[64];
    t->op->reference(&t->c);
    for (int i = 0; i < t->c.n_out; i++) {
        const check_output *o = &t->c.out[i];
        snprintf(what, sizeof what, "output %d", i);
        compare(t, what, o->value, o->value->data, o->want, o->count, o->value->dtype == PD_I32 ? 0 : t->op->tolerance,
                t->op->tolerance > 0 ? 1e-12 : 0);
    }
    for (int i = 0; i < t->c.n_in; i++) {
        const check_tensor *in = &t->c.in[i];
        if (in->kind != CHECK_BUFFER) continue;
        snprintf(what, sizeof what, "%s after the run", in->name);
        compare(t, what, in->value, in->param->data, in->after, in->count, t->op->tolerance, 1e-12);
    }
}

/* What the reference says the scalar is: all outputs times their gradients. */
static double reference_scalar(trial *t)
{
    double sum = 0;
    t->op->reference(&t->c);
    for (int i = 0; i < t->c.n_out; i++)
        for (size_t k = 0; k < t->c.out[i].count && t->dy[i]; k++) sum += (double)t->dy[i][k] * t->c.out[i].want[k];
    return sum;
}

/* The same without signs: how large the terms are that cancel. */
static double reference_size(trial *t)
{
    double sum = 0;
    t->op->reference(&t->c);
    for (int i = 0; i < t->c.n_out; i++)
        for (size_t k = 0; k < t->c.out[i].count && t->dy[i]; k++)
            sum += fabs((double)t->dy[i][k] * t->c.out[i].want[k]);
    return sum;
}

#define QUOTIENTS 48 /* elements of a tensor whose derivative is checked */
#define STEP 1e-5

static void check_gradients(trial *t)
{
    /* the difference of two sums in double keeps an error of some units of the last place */
    const double slack = 1e-12 + 8 * 2.2e-16 * reference_size(t) / STEP;
    for (int i = 0; i < t->c.n_in; i++) {
        check_tensor *in = &t->c.in[i];
        if (in->kind != CHECK_FLOAT || in->count == 0) continue;
        double want[QUOTIENTS];
        float got[QUOTIENTS];
        const size_t n = in->count < QUOTIENTS ? in->count : QUOTIENTS;
        for (size_t q = 0; q < n; q++) {
            const size_t at = in->count <= QUOTIENTS ? q : (size_t)check_draw(&t->c, 0, (int)in->count - 1);
            const double x = in->d[at];
            in->d[at] = x + STEP;
            const double up = reference_scalar(t);
            in->d[at] = x - STEP;
            const double down = reference_scalar(t);
            in->d[at] = x;
            want[q] = (up - down) / (2 * STEP) + (t->extra[i] ? (double)t->extra[i][at] : 0);
            got[q] = in->param->grad[at];
        }
        char what[64];
        snprintf(what, sizeof what, "gradient of %s", in->name);
        compare(t, what, in->value, got, want, n, t->op->gradient_tolerance, slack);
    }
}

/* Everything a run leaves: outputs and gradients, for comparing bits. */
static void *snapshot(const trial *t, size_t *bytes)
{
    size_t size = 0;
    for (int i = 0; i < t->c.n_out; i++) size += t->c.out[i].count * 4;
    for (int i = 0; i < t->c.n_in; i++) size += t->c.in[i].kind == CHECK_FLOAT && t->graded ? t->c.in[i].count * 4 : 0;
    char *all = malloc(size + 1), *at = all;
    if (!all) give_up("out of memory");
    for (int i = 0; i < t->c.n_out; i++) {
        if (t->c.out[i].count) memcpy(at, t->c.out[i].value->data, t->c.out[i].count * 4);
        at += t->c.out[i].count * 4;
    }
    for (int i = 0; i < t->c.n_in; i++) {
        const check_tensor *in = &t->c.in[i];
        if (in->kind != CHECK_FLOAT || !t->graded) continue;
        if (in->count) memcpy(at, in->param->grad, in->count * 4);
        at += in->count * 4;
    }
    *bytes = size;
    return all;
}

static bool run_once(trial *t, bool accumulate, pd_err *err)
{
    set_inputs(t);
    pd_status status = pd_plan_forward(t->plan, err);
    if (status == PD_OK && t->graded) status = pd_plan_backward(t->plan, accumulate, err);
    PD_CHECK_MSG(status == PD_OK, "%s [%s]: %s", t->op->name, t->c.text, err->text);
    return status == PD_OK;
}

static void check_accumulation(trial *t, pd_err *err)
{
    float *sum[CHECK_INPUTS] = {NULL};
    for (int i = 0; i < t->c.n_in; i++)
        if (t->c.in[i].kind == CHECK_FLOAT) memset(t->c.in[i].param->grad, 0, t->c.in[i].count * sizeof *t->c.in[i].f);
    if (!run_once(t, true, err) || !run_once(t, true, err)) return;
    for (int i = 0; i < t->c.n_in; i++) {
        const check_tensor *in = &t->c.in[i];
        if (in->kind != CHECK_FLOAT) continue;
        sum[i] = check_memory(&t->c, in->count * sizeof *sum[i]);
        if (in->count) memcpy(sum[i], in->param->grad, in->count * sizeof *sum[i]);
    }
    if (!run_once(t, false, err)) return;
    for (int i = 0; i < t->c.n_in; i++) {
        const check_tensor *in = &t->c.in[i];
        if (in->kind != CHECK_FLOAT) continue;
        double *twice = check_memory(&t->c, in->count * sizeof *twice);
        for (size_t k = 0; k < in->count; k++) twice[k] = 2 * (double)in->param->grad[k];
        compare(t, "gradient accumulated twice", in->value, sum[i], twice, in->count, 1e-5, 1e-12);
    }
}

static void check_row(const check_op *op, uint64_t seed, int variant, check_mode mode)
{
    static const char *const mode_names[] = {"parameters", "values", "values read twice"};
    char row[160];
    snprintf(row, sizeof row, "--op %s --seed %llu, variant %d, %s", op->name, (unsigned long long)seed, variant,
             mode_names[mode]);
    PD_ROW(row);
    void *first = NULL;
    size_t bytes = 0;
    for (int threads = 1; threads <= 3; threads += 2) {
        pd_err err = PD_ERR_INIT;
        trial t;
        const bool ok = begin_trial(&t, op, seed, variant, mode, threads, false, &err);
        PD_CHECK_MSG(ok, "%s [%s]: %s", op->name, t.c.text, err.text);
        if (ok && run_once(&t, false, &err)) {
            if (threads == 1) {
                check_forward(&t);
                if (t.graded) check_gradients(&t);
                first = snapshot(&t, &bytes);
            }
            /* a second run on the used workspace, and a run on three threads, give the same bits */
            size_t again_bytes = 0;
            if (run_once(&t, false, &err)) {
                void *again = snapshot(&t, &again_bytes);
                PD_CHECK_MSG(first && bytes == again_bytes && !memcmp(first, again, bytes),
                             "%s [%s]: %d threads, second run: other bits", op->name, t.c.text, threads);
                free(again);
            }
            if (t.graded && threads == 1) check_accumulation(&t, &err);
        }
        end_trial(&t);
    }
    free(first);
    PD_ROW("");
}

/* ---- timing ---- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void bench_row(const check_op *op, uint64_t seed, int variant)
{
    pd_err err = PD_ERR_INIT;
    trial t;
    const bool ok = begin_trial(&t, op, seed, variant, CHECK_AS_VALUE, 0, true, &err);
    PD_CHECK_MSG(ok, "%s [%s]: %s", op->name, t.c.text, err.text);
    double best_fwd = INFINITY, best_bwd = INFINITY, seen_fwd = 0, seen_bwd = 0;
    const double start = now();
    if (ok && pd_plan_time_nodes(t.plan, &err) == PD_OK) {
        for (int run = 0; run < 7 && now() - start < 5; run++) {
            double fwd = 0, bwd = 0; /* of all runs so far */
            if (!run_once(&t, false, &err)) break;
            for (pd_node *n = pd_tape_nodes(t.c.tape); n; n = n->next) {
                if (strncmp(n->op->name, "check_", 6) == 0) continue;
                fwd += pd_plan_times(t.plan)[n->id].fwd;
                bwd += pd_plan_times(t.plan)[n->id].bwd;
            }
            best_fwd = fmin(best_fwd, fwd - seen_fwd);
            best_bwd = fmin(best_bwd, bwd - seen_bwd);
            seen_fwd = fwd;
            seen_bwd = bwd;
        }
        printf("%-16s variant %d  forward %9.3f ms  backward %9.3f ms  [%s]\n", op->name, variant, 1e3 * best_fwd,
               1e3 * best_bwd, t.c.text);
    }
    end_trial(&t);
}

int main(int argc, char **argv)
{
    const char *only = "";
    uint64_t seed = 1;
    int rounds = 10;
    bool bench = false;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--bench")) {
            bench = true;
        } else if (!strcmp(argv[i], "--op") && i + 1 < argc) {
            only = argv[++i];
        } else if (!strcmp(argv[i], "--seed") && i + 1 < argc) {
            seed = strtoull(argv[++i], NULL, 10);
        } else if (!strcmp(argv[i], "--rounds") && i + 1 < argc) {
            rounds = atoi(argv[++i]);
        } else {
            fprintf(stderr, "usage: check_ops [--op NAME] [--seed N] [--rounds N] [--bench]\n");
            return 2;
        }
    }
    printf("seed %llu\n", (unsigned long long)seed);
    for (size_t f = 0; f < sizeof families / sizeof *families; f++)
        for (int o = 0; o < families[f]->count; o++) {
            const check_op *op = &families[f]->ops[o];
            if (!strstr(op->name, only)) continue;
            for (int v = 0; v < op->variants; v++) {
                if (bench) bench_row(op, seed, v);
                for (int r = 0; r < rounds && !bench; r++)
                    for (int m = 0; m < CHECK_MODES; m++) check_row(op, seed + (uint64_t)r, v, (check_mode)m);
            }
        }
    return pd_test_end();
}
