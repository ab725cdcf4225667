#include "tests/scene.h"
#include "backbones/layer.h"
#include "kernels/conv.h"
#include "tests/pd_test.h"

const scene_precision precisions[PRECISIONS] = {
    {"fp32", 2e-5, 2e-4}, {"tf32", 5e-3, 3e-2}, {"fp16", 5e-3, 3e-2}, {"bf16", 3e-2, 1.5e-1}};

const char *only_precision;

bool precision_wanted(int p)
{
    return !only_precision || !strcmp(only_precision, precisions[p].name);
}

double distance_above(const float *a, const float *b, size_t n, double floor)
{
    double d = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)a[i] * (double)a[i];
    }
    return isnan(d) ? (double)INFINITY : sqrt(d) / (sqrt(size) + floor);
}

double distance(const float *a, const float *b, size_t n)
{
    return distance_above(a, b, n, 1e-12);
}

double norm(const float *a, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)a[i] * (double)a[i];
    return sqrt(sum);
}

/* ---- recording ---- */

static scene_input *new_input(scene *s, const char *name, pd_dtype type, pd_shape shape)
{
    scene_input *in = &s->in[s->inputs++];
    in->value = pd_tape_input(s->tape, name, type, shape);
    in->count = pd_shape_size(shape);
    void *memory = calloc(in->count + 1, sizeof(float));
    if (type == PD_F32)
        in->f = memory;
    else
        in->i = memory;
    return in;
}

scene_input *scene_floats(scene *s, const char *name, pd_shape shape, double scale)
{
    scene_input *in = new_input(s, name, PD_F32, shape);
    for (size_t i = 0; i < in->count; i++) in->f[i] = (float)(scale * pd_rng_normal(&s->rng));
    return in;
}

scene_input *scene_ints(scene *s, const char *name, pd_shape shape, int lo, int hi)
{
    scene_input *in = new_input(s, name, PD_I32, shape);
    for (size_t i = 0; i < in->count; i++) in->i[i] = lo + (int)pd_rng_below(&s->rng, (uint32_t)(hi - lo + 1));
    return in;
}

scene_input *scene_boxes(scene *s, const char *name, pd_shape shape, double side)
{
    scene_input *in = new_input(s, name, PD_F32, shape);
    for (size_t i = 0; i + 4 <= in->count; i += 4)
        for (size_t k = 0; k < 2; k++) {
            const double from = side * (pd_rng_double(&s->rng) - 0.125), most = side - from > 2 ? side - from : 2;
            in->f[i + k] = (float)from;
            in->f[i + 2 + k] = (float)(from + 1 + (most - 1) * pd_rng_double(&s->rng) * pd_rng_double(&s->rng));
        }
    return in;
}

pd_value *scene_map(pd_tape *t, const char *name, int n, int h, int w, int c)
{
    const pd_param x = {.rank = 4, .dim = {n, h, w, c}, .kind = PD_WEIGHT, .init = {PD_INIT_NORMAL, 1}};
    const pd_param k = {.rank = 4,
                        .dim = {c, c, 1, 1},
                        .kind = PD_WEIGHT,
                        .layout = PD_LAYOUT_CONV,
                        .init = {PD_INIT_NORMAL, 1 / sqrt(c)}};
    const pd_conv_args args = {.stride = 1, .groups = 1};
    return pd_conv(t, name, pd_tape_param(t, name, &x), pd_tape_param(t, pd_tape_name(t, "%s.mix", name), &k), NULL,
                   NULL, args);
}

pd_value *scene_rows(pd_tape *t, const char *name, int n, int c)
{
    const pd_param x = {.rank = 2, .dim = {n, 5}, .kind = PD_WEIGHT, .init = {PD_INIT_NORMAL, 1}};
    return pd_record_linear(t, pd_tape_name(t, "%s.fc", name), pd_tape_param(t, name, &x), c, false);
}

void scene_result(scene *s, pd_value *value)
{
    s->result[s->results++] = pd_tape_keep(s->tape, value);
}

void scene_loss(scene *s, pd_value *loss, double scale)
{
    pd_tape_minimise(s->tape, loss, (float)scale);
    scene_result(s, loss);
}

/* ---- running ---- */

typedef struct outcome {
    void *result[SCENE_MOST]; /* of the first run */
    pd_dtype type[SCENE_MOST];
    size_t count[SCENE_MOST];
    int results;
    float *grads;
    size_t grad_count, part[SCENE_MOST * 2]; /* where each parameter's gradient begins */
    int parts;
} outcome;

static void outcome_free(outcome *o)
{
    for (int i = 0; i < o->results; i++) free(o->result[i]);
    free(o->grads);
}

/* Forward and two accumulating backward runs; the last one behind a recorded forward, where the device records. */
static pd_status run_scene(outcome *o, const scene_row *row, pd_device *d, pd_err *err)
{
    scene s = {.rng = pd_rng_make(11, (uint32_t)row->variant, 0)};
    pd_params *params = NULL;
    pd_plan *plan = NULL;
    pd_status status = PD_OK;
    *o = (outcome){.results = 0};
    PD_TRY_DONE(pd_params_new(&params, err));
    PD_TRY_DONE(pd_tape_new(&s.tape, params, true, err));
    row->record(&s, row->variant);
    PD_TRY_DONE(pd_tape_status(s.tape, err));
    PD_TRY_DONE(pd_params_allocate(params, d, true, err));
    PD_TRY_DONE(pd_params_init(params, 7, err));
    pd_params_weights(params, &o->grad_count);
    if (o->grad_count) PD_TRY_DONE(d->fill(d, pd_params_grads(params), 0, o->grad_count * sizeof(float), err));
    PD_TRY_DONE(pd_plan_new(&plan, s.tape, d, PD_PLAN_TRAIN, NULL, err));
    for (int i = 0; i < s.inputs; i++) {
        const scene_input *in = &s.in[i];
        PD_TRY_DONE(pd_plan_give(plan, in->value, in->f ? (const void *)in->f : in->i, err));
    }
    for (int run = 0; run < 2; run++) {
        PD_TRY_DONE(pd_plan_forward(plan, err));
        PD_TRY_DONE(pd_plan_fetch(plan, NULL, err));
        for (int i = 0; i < s.results && run == 0; i++) {
            const pd_value *v = s.result[i];
            o->type[i] = v->dtype;
            o->count[i] = pd_shape_size(v->shape);
            o->result[i] = calloc(o->count[i] + 1, sizeof(float));
            o->results++;
            if (o->count[i]) memcpy(o->result[i], v->host, o->count[i] * sizeof(float));
        }
        PD_TRY_DONE(pd_plan_backward(plan, run > 0, err));
    }
    for (size_t k = 0; k < pd_params_count(params); k++)
        if (pd_params_at(params, k)->kind == PD_WEIGHT) o->part[o->parts++] = pd_params_at(params, k)->offset;
    o->part[o->parts] = o->grad_count;
    o->grads = calloc(o->grad_count + 1, sizeof(float));
    if (o->grad_count)
        PD_TRY_DONE(d->download(d, o->grads, pd_params_grads(params), o->grad_count * sizeof(float), err));
done:
    pd_plan_free(plan);
    for (int i = 0; i < s.inputs; i++) {
        free(s.in[i].f);
        free(s.in[i].i);
    }
    pd_tape_free(s.tape);
    pd_params_free(params);
    return status;
}

static void compare(const scene_row *row, const outcome *want, outcome *got, const scene_precision *p)
{
    const double slack = row->slack > 0 ? row->slack : 1, forward = slack * p->forward, gradient = slack * p->gradient;
    for (int i = 0; i < want->results; i++) {
        if (want->type[i] == PD_I32) {
            const int *a = want->result[i], *b = got->result[i];
            size_t k = 0;
            while (k < want->count[i] && a[k] == b[k]) k++;
            PD_CHECK_MSG(k == want->count[i], "result %d: number %zu is %d, expected %d", i, k, b[k], a[k]);
            continue;
        }
        const double d =
            distance_above(want->result[i], got->result[i], want->count[i], want->count[i] == 1 ? 1 : 1e-12);
        PD_CHECK_MSG(d <= forward, "result %d differs by %.3g of its size (allowed %.3g)", i, d, forward);
    }
    /* fp16 gradients carry the scale */
    for (size_t k = 0; !strcmp(p->name, "fp16") && k < got->grad_count; k++) got->grads[k] /= 65536.f;
    /* each parameter by itself; what is small beside the others may be off by a share of those */
    const double floor = 0.02 * norm(want->grads, want->grad_count);
    double g = 0;
    for (int k = 0; k < want->parts; k++)
        g = fmax(g, distance_above(want->grads + want->part[k], got->grads + want->part[k],
                                   want->part[k + 1] - want->part[k], floor + 1e-12));
    PD_CHECK_MSG(g <= gradient, "gradients differ by %.3g of their size (allowed %.3g)", g, gradient);
}

/* A second run leaves the same bits. */
static void compare_again(const scene_row *row, const outcome *first, pd_device *gpu)
{
    pd_err err = PD_ERR_INIT;
    outcome again;
    PD_CHECK_OK(run_scene(&again, row, gpu, &err));
    bool same = again.results == first->results && again.grad_count == first->grad_count;
    for (int i = 0; i < first->results && same; i++)
        same = !memcmp(first->result[i], again.result[i], first->count[i] * sizeof(float));
    PD_CHECK_MSG(same && !memcmp(first->grads, again.grads, first->grad_count * sizeof(float)),
                 "a second run leaves other bits");
    outcome_free(&again);
}

static void check_wrong(const scene_row *row, pd_device *cpu, pd_device *gpu)
{
    pd_err err = PD_ERR_INIT;
    outcome o;
    PD_ROW(row->name);
    PD_CHECK(run_scene(&o, row, cpu, &err) == PD_EINVAL);
    outcome_free(&o);
    err = (pd_err)PD_ERR_INIT;
    PD_CHECK_OK(pd_device_set_precision(gpu, "fp32", &err));
    PD_CHECK_OK(run_scene(&o, row, gpu, &err));
    for (int i = 0; i < o.results; i++)
        PD_CHECK_MSG(o.count[i] != 1 || o.type[i] != PD_F32 || isnan(*(const float *)o.result[i]), "loss %d is %g", i,
                     (double)*(const float *)o.result[i]);
    outcome_free(&o);
    PD_ROW("");
}

static void check_scene(const scene_row *row, pd_device *cpu, pd_device *gpu)
{
    pd_err err = PD_ERR_INIT;
    outcome want;
    PD_CHECK_OK(run_scene(&want, row, cpu, &err));
    for (int p = 0; p < PRECISIONS; p++) {
        char text[96];
        outcome got;
        if (!precision_wanted(p)) continue;
        snprintf(text, sizeof text, "%s %d, %s", row->name, row->variant, precisions[p].name);
        PD_ROW(text);
        PD_CHECK_OK(pd_device_set_precision(gpu, precisions[p].name, &err));
        const pd_status status = run_scene(&got, row, gpu, &err);
        PD_CHECK_MSG(status == PD_OK, "%s", err.text);
        if (status == PD_OK) compare(row, &want, &got, &precisions[p]);
        if (status == PD_OK && p == PRECISIONS - 1) compare_again(row, &got, gpu);
        outcome_free(&got);
        PD_ROW("");
    }
    outcome_free(&want);
}

scene_tally check_scenes(const scene_family *family, const char *only, pd_device *cpu, pd_device *gpu)
{
    const scene_tally before = {pd_test_checks, pd_test_failures};
    for (int i = 0; i < family->count; i++)
        if (strstr(family->row[i].name, only)) check_scene(&family->row[i], cpu, gpu);
    return (scene_tally){pd_test_checks - before.checks, pd_test_failures - before.failures};
}

scene_tally check_refused(const scene_family *family, const char *only, pd_device *cpu, pd_device *gpu)
{
    const scene_tally before = {pd_test_checks, pd_test_failures};
    for (int i = 0; i < family->count; i++)
        if (strstr(family->row[i].name, only)) check_wrong(&family->row[i], cpu, gpu);
    return (scene_tally){pd_test_checks - before.checks, pd_test_failures - before.failures};
}
