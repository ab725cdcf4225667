#include "tests/oracle.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *pd_oracle_device_name(void)
{
    const char *name = getenv("PD_TEST_DEVICE");
    return name && *name ? name : "cpu";
}

pd_status pd_oracle_device(pd_device **out, pd_err *err)
{
    PD_TRY(pd_device_open(out, pd_oracle_device_name(), 2, err));
    if ((*out)->kind != PD_CPU) printf("computing on %s: %s\n", (*out)->name, (*out)->title);
    return pd_device_set_precision(*out, "fp32", err);
}

static uint64_t splitmix64(uint64_t x)
{
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

void pd_oracle_uniform(float *out, const char *name, size_t n, uint64_t seed)
{
    const uint64_t base = pd_hash_text(name) + (seed << 32);
    for (size_t i = 0; i < n; i++) out[i] = (float)((double)(splitmix64(base + i) >> 40) * 0x1p-23 - 1.0);
}

static bool ends_with(const char *text, const char *end)
{
    const size_t a = strlen(text), b = strlen(end);
    return a >= b && !strcmp(text + a - b, end);
}

/* How a parameter's values come of uniform numbers: offset + factor * u / divisor, rounded, times `scale`. */
typedef struct rule {
    double offset, factor, divisor, scale;
} rule;

/* The reference's rule for backbones. */
static rule backbone_rule(const pd_param *p)
{
    if (p->kind == PD_COUNTER) return (rule){0, 0, 1, 1};
    if (ends_with(p->name, "running_mean")) return (rule){0, 0.1, 1, 1};
    if (ends_with(p->name, "running_var")) return (rule){1, 0.5, 1, 1};
    if (ends_with(p->name, ".weight") && p->rank == 4)
        return (rule){0, sqrt(3.0) * sqrt(2.0 / ((double)p->dim[0] * p->dim[2] * p->dim[3])), 1, 1};
    if (ends_with(p->name, ".weight") && p->rank == 2) return (rule){0, 1, sqrt((double)p->dim[1]), 1};
    if (ends_with(p->name, ".weight")) return (rule){1, 0.2, 1, 1};
    return (rule){0, 0.1, 1, 1};
}

static const struct {
    const char *module;
    double gain;
} gains[] = {{"lateral_convs", 2},  {"fpn_convs", 1.5},  {"cls_convs", M_SQRT2}, {"reg_convs", M_SQRT2},
             {"rpn_conv", M_SQRT2}, {"shared_fcs", M_SQRT2}, {"retina_cls", 0.6},    {"retina_reg", 0.2},
             {"rpn_cls", 1},        {"rpn_reg", 0.2},        {"fc_cls", 0.7},        {"fc_reg", 0.15}};

static rule detector_rule(const pd_param *p)
{
    const char *module = "";
    double gain = 1;
    for (size_t i = 0; i < sizeof gains / sizeof *gains; i++)
        if (strstr(p->name, gains[i].module)) {
            module = gains[i].module;
            gain = gains[i].gain;
        }
    if (ends_with(p->name, ".weight")) return (rule){0, gain * sqrt(3.0 / ((double)p->count / p->dim[0])), 1, 1};
    return (rule){!strcmp(module, "retina_cls") ? -4.59511985 : 0, ends_with(module, "_reg") ? 0.02 : 0.1, 1, 1};
}

void pd_oracle_fill(pd_params *params, uint64_t seed, bool detector, double variance_scale)
{
    for (size_t i = 0; i < pd_params_count(params); i++) {
        const pd_param *p = pd_params_at(params, i);
        float *u = malloc((p->count + 1) * sizeof *u), *memory = malloc((p->count + 1) * sizeof *memory);
        if (!u || !memory) abort();
        pd_oracle_uniform(u, p->name, p->count, seed);
        rule r = !detector || !strncmp(p->name, "backbone.", 9) ? backbone_rule(p) : detector_rule(p);
        if (detector && ends_with(p->name, "running_var")) r.scale = variance_scale;
        for (size_t k = 0; k < p->count; k++)
            u[k] = (float)((double)(float)(r.offset + r.factor * (double)u[k] / r.divisor) * r.scale);
        pd_param_from_file_order(p, memory, u);
        if (pd_param_write(params, p, pd_param_block(params, p), memory, NULL) != PD_OK) abort();
        free(u);
        free(memory);
    }
}

float *pd_oracle_tensor(const pd_st *golden, const char *name, int dim[4], pd_arena *arena)
{
    const pd_st_tensor *t = pd_st_find(golden, name);
    float *file, *ours;
    if (!t || pd_alloc(&file, arena, t->elements, sizeof *file, NULL) != PD_OK ||
        pd_alloc(&ours, arena, t->elements, sizeof *ours, NULL) != PD_OK)
        return NULL;
    pd_st_read_f32(file, t);
    for (int i = 0; i < 4; i++) dim[i] = i < t->ndim ? (int)t->shape[i] : 1;
    if (t->ndim != 4) return file;
    const size_t n = (size_t)dim[0], c = (size_t)dim[1], hw = (size_t)dim[2] * (size_t)dim[3];
    for (size_t b = 0; b < n; b++)
        for (size_t i = 0; i < c; i++)
            for (size_t k = 0; k < hw; k++) ours[(b * hw + k) * c + i] = file[(b * c + i) * hw + k];
    return ours;
}

/* The largest difference, relative to the largest magnitude of `want`. */
static double difference(const float *got, const float *want, size_t n)
{
    double worst = 0, top = 0;
    for (size_t i = 0; i < n; i++) {
        const double d = fabs((double)got[i] - (double)want[i]);
        top = fmax(top, fabs((double)want[i]));
        worst = d <= worst ? worst : isnan(d) ? INFINITY : d;
    }
    return worst / fmax(top, 1e-30);
}

double pd_oracle_difference(const pd_st *golden, const char *name, const float *nhwc)
{
    pd_arena *arena = pd_arena_new();
    int dim[4];
    const float *want = arena ? pd_oracle_tensor(golden, name, dim, arena) : NULL;
    const double worst = want ? difference(nhwc, want, pd_st_find(golden, name)->elements) : INFINITY;
    pd_arena_free(arena);
    return worst;
}

double pd_oracle_between(const pd_st *golden, const pd_st *ours, const char *name)
{
    const pd_st_tensor *a = pd_st_find(golden, name), *b = pd_st_find(ours, name);
    if (!a || !b || a->ndim != b->ndim || memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof *a->shape) != 0)
        return INFINITY;
    float *want = malloc((a->elements + 1) * sizeof *want), *got = malloc((a->elements + 1) * sizeof *got);
    if (!want || !got) abort();
    pd_st_read_f32(want, a);
    pd_st_read_f32(got, b);
    const double worst = difference(got, want, a->elements);
    free(want);
    free(got);
    return worst;
}

pd_status pd_oracle_save(const char *path, const pd_params *params, pd_err *err)
{
    pd_st_writer *w = NULL;
    pd_arena *arena = pd_arena_new();
    pd_status status = arena ? pd_st_create(&w, path, PD_ST_SORTED, err) : PD_FAIL(err, PD_ENOMEM, "out of memory");
    if (status == PD_OK) status = pd_save_params(w, params, arena, err);
    if (status == PD_OK) {
        status = pd_st_commit(w, err);
        w = NULL;
    }
    pd_st_cancel(w);
    pd_arena_free(arena);
    return status;
}
