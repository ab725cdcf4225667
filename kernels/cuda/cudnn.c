/* Convolutions by cuDNN's graph API: candidates of its heuristics, timed once for each shape. */
#include "kernels/cuda/gconv.h"
#include "kernels/cuda/graph.h"
#include "kernels/cuda/plan_store.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DESC CUDNN_TYPE_BACKEND_DESCRIPTOR
#define MAX_WORKSPACE ((int64_t)512 << 20)
#define CANDIDATES 14 /* of one heuristic mode: it lists the likely ones first */
#define WARM_RUNS 2
#define TIMED_RUNS 8

struct pd_gconv {
    char key[160];
    pd_gconv_desc desc;
    pd_graph graph;
    int64_t x, w, y, residual, bias, sum, square; /* unique ids; 0: none */
    pd_desc plan;                    /* NULL: cuDNN has none */
    int64_t workspace;
    double ms;
    pd_gconv *next;
};

struct pd_gconv_library {
    pd_cuda *device;
    cudnnHandle_t handle; /* NULL offline */
    char version[32];
    pd_graph properties; /* offline: holds device_properties */
    pd_desc device_properties;
    pd_gconv *plans;
    pd_plan_store *store; /* NULL offline */
};

static pd_status cudnn_fail(cudnnStatus_t status, const char *what, pd_err *err)
{
    char text[400] = "";
    cudnnGetLastErrorString(text, sizeof text);
    text[strcspn(text, "\n")] = '\0';
    return PD_FAIL(err, PD_EDEVICE, "cuDNN: %s: %s (%s)", what, cudnnGetErrorString(status), text);
}

#define CUDNN_TRY(call, err)                                                                                           \
    do {                                                                                                               \
        const cudnnStatus_t cudnn_code_ = (call);                                                                      \
        if (cudnn_code_ != CUDNN_STATUS_SUCCESS) return cudnn_fail(cudnn_code_, #call, err);                           \
    } while (0)

/* ---- the library ---- */

static pd_status offline_properties(pd_gconv_library *l, const char *json, pd_err *err)
{
    pd_graph *g = &l->properties;
    l->device_properties = pd_graph_new(g, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    pd_graph_set(g, l->device_properties, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                 (int64_t)strlen(json), json);
    pd_graph_finalize(g, l->device_properties, "the device's description");
    return g->status == CUDNN_STATUS_SUCCESS ? PD_OK : pd_graph_fail(g, "offline", err);
}

static pd_status online(pd_gconv_library *l, pd_err *err)
{
    char name[256];
    CUDNN_TRY(cudnnCreate(&l->handle), err);
    CUDNN_TRY(cudnnSetStream(l->handle, l->device->stream), err);
    snprintf(name, sizeof name, "cudnn-%zu-%s", cudnnGetVersion(), l->device->device.title);
    return pd_plan_store_open(&l->store, name, err);
}

pd_status pd_gconv_open(pd_gconv_library **out, pd_cuda *device, const char *json, pd_err *err)
{
    pd_gconv_library *l = calloc(1, sizeof *l);
    if (!l) return PD_FAIL(err, PD_ENOMEM, "out of memory for cuDNN");
    const size_t v = cudnnGetVersion();
    l->device = device;
    snprintf(l->version, sizeof l->version, "cuDNN %zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
    const pd_status status = json ? offline_properties(l, json, err) : online(l, err);
    if (status != PD_OK) {
        pd_gconv_close(l);
        return status;
    }
    *out = l;
    return PD_OK;
}

void pd_gconv_close(pd_gconv_library *l)
{
    if (!l) return;
    for (pd_gconv *p = l->plans; p;) {
        pd_gconv *next = p->next;
        pd_graph_free(&p->graph);
        free(p);
        p = next;
    }
    pd_plan_store_close(l->store);
    pd_graph_free(&l->properties);
    if (l->handle) cudnnDestroy(l->handle);
    free(l);
}

const char *pd_gconv_version(const pd_gconv_library *l)
{
    return l->version;
}

/* ---- graphs ---- */

static cudnnDataType_t type_of(pd_store store)
{
    return store == PD_STORE_F16 ? CUDNN_DATA_HALF : store == PD_STORE_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}

static void describe(char *key, size_t size, const pd_gconv_desc *d)
{
    static const char *const kind[] = {"fwd", "dgrad", "wgrad"}, *const store[] = {"f32", "f16", "bf16"};
    const pd_conv_shape *s = &d->shape;
    snprintf(key, size, "%s %s%s x%d,%d,%d,%d k%d,%d,%d s%d p%d,%d g%d y%d,%d%s%s%s%s", kind[d->kind], store[d->store],
             d->store == PD_STORE_32 && d->tf32 ? "(tf32)" : "", s->n, s->h, s->w, s->c, s->k, s->kh, s->kw, s->stride,
             s->pad_h, s->pad_w, s->groups, s->oh, s->ow, d->residual ? " +residual" : "", d->bias ? " +bias" : "",
             d->relu ? " relu" : "", d->sums ? " sums" : "");
}

/* What a fused step writes: the result behind the last step, a value inside the kernel before. */
static pd_desc step_output(pd_gconv *p, int steps_left)
{
    const pd_conv_shape *s = &p->desc.shape;
    pd_desc d = pd_graph_tensor(&p->graph, steps_left ? CUDNN_DATA_FLOAT : type_of(p->desc.store), s->n, s->k, s->oh,
                                s->ow, steps_left > 0);
    if (!steps_left) p->y = p->graph.ids;
    return d;
}

static void build_graph(pd_gconv *p)
{
    const pd_gconv_desc *d = &p->desc;
    const pd_conv_shape *s = &d->shape;
    pd_graph *g = &p->graph;
    const cudnnDataType_t t = type_of(d->store);
    pd_desc x = pd_graph_tensor(g, t, s->n, s->c, s->h, s->w, false);
    p->x = g->ids;
    pd_desc w = pd_graph_tensor(g, t, s->k, s->c / s->groups, s->kh, s->kw, false);
    p->w = g->ids;
    int left = d->residual + d->bias + d->relu;
    pd_desc y = step_output(p, left);
    pd_graph_conv(g, d->kind, s, x, w, y);
    if (d->residual) {
        pd_desc z = pd_graph_tensor(g, t, s->n, s->k, s->oh, s->ow, false);
        p->residual = g->ids;
        pd_desc sum = step_output(p, --left);
        pd_graph_pointwise(g, CUDNN_POINTWISE_ADD, y, z, sum);
        y = sum;
    }
    if (d->bias) {
        pd_desc b = pd_graph_tensor(g, t, 1, s->k, 1, 1, false);
        p->bias = g->ids;
        pd_desc sum = step_output(p, --left);
        pd_graph_pointwise(g, CUDNN_POINTWISE_ADD, y, b, sum);
        y = sum;
    }
    if (d->relu) pd_graph_pointwise(g, CUDNN_POINTWISE_RELU_FWD, y, NULL, step_output(p, --left));
    if (d->sums) {
        pd_desc sum = pd_graph_tensor(g, CUDNN_DATA_FLOAT, 1, s->k, 1, 1, false);
        p->sum = g->ids;
        pd_desc square = pd_graph_tensor(g, CUDNN_DATA_FLOAT, 1, s->k, 1, 1, false);
        p->square = g->ids;
        pd_graph_sums(g, y, sum, square);
    }
    pd_graph_build(g);
}

/* ---- candidates ---- */

static pd_desc engine_of(pd_graph *g, pd_desc config)
{
    int64_t count = 0;
    pd_desc engine = pd_graph_new(g, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, DESC, 1, &count, &engine);
    return engine;
}

/* Deterministic, and in float32 without tensor cores unless they were asked for. */
static bool acceptable(pd_graph *g, const pd_gconv_desc *d, pd_desc config)
{
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    int64_t count = 0;
    pd_desc engine = engine_of(g, config);
    if (cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                 CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes) != CUDNN_STATUS_SUCCESS)
        return false;
    const bool exact = d->store == PD_STORE_32 && !d->tf32;
    for (int64_t i = 0; i < count; i++)
        if (notes[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC ||
            (exact &&
             (notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE || notes[i] == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS)))
            return false;
    return true;
}

/* Compiled when it is first made: tenths of a second each. */
static bool compiles_at_run_time(pd_graph *g, pd_desc config)
{
    cudnnBackendBehaviorNote_t notes[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT];
    int64_t count = 0;
    pd_desc engine = engine_of(g, config);
    if (cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
                                 CUDNN_BEHAVIOR_NOTE_TYPE_COUNT, &count, notes) != CUDNN_STATUS_SUCCESS)
        return false;
    for (int64_t i = 0; i < count; i++)
        if (notes[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) return true;
    return false;
}

/* Engine configurations of one heuristic mode, the likely ones first. */
static int configurations(pd_gconv_library *l, pd_gconv *p, cudnnBackendHeurMode_t mode, pd_desc *out, int room)
{
    pd_graph *g = &p->graph;
    int64_t count = 0;
    pd_desc heuristics = pd_graph_new(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    pd_graph_set(g, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, DESC, 1, &g->graph);
    pd_graph_set(g, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (l->device_properties)
        pd_graph_set(g, heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, DESC, 1, &l->device_properties);
    if (g->status != CUDNN_STATUS_SUCCESS || cudnnBackendFinalize(heuristics) != CUDNN_STATUS_SUCCESS) return 0;
    for (int i = 0; i < room; i++) out[i] = pd_graph_new(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (g->status != CUDNN_STATUS_SUCCESS || cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, DESC,
                                                                      room, &count, out) != CUDNN_STATUS_SUCCESS)
        return 0;
    return count < room ? (int)count : room;
}

/* A plan ready to run, or NULL: many configurations cannot be made for a given graph. */
static pd_desc finalized(pd_gconv_library *l, pd_graph *g, pd_desc config, int64_t *workspace)
{
    int64_t count = 0;
    pd_desc plan = pd_graph_new(g, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    pd_graph_set(g, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, DESC, 1, &config);
    if (l->device_properties)
        pd_graph_set(g, plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, DESC, 1, &l->device_properties);
    if (g->status != CUDNN_STATUS_SUCCESS || cudnnBackendFinalize(plan) != CUDNN_STATUS_SUCCESS) return NULL;
    *workspace = 0;
    cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count, workspace);
    return *workspace <= MAX_WORKSPACE ? plan : NULL;
}

/* ---- running and timing ---- */

#define MOST_TENSORS 7

static pd_status execute(pd_gconv_library *l, const pd_gconv *p, pd_desc plan, const pd_gconv_memory *m, pd_err *err)
{
    int64_t id[MOST_TENSORS];
    void *at[MOST_TENSORS];
    int n = 0;
    const struct {
        int64_t id;
        const void *at;
    } all[MOST_TENSORS] = {{p->x, m->x},       {p->w, m->w},     {p->y, m->y},          {p->residual, m->residual},
                           {p->bias, m->bias}, {p->sum, m->sum}, {p->square, m->square}};
    for (int i = 0; i < MOST_TENSORS; i++) {
        if (!all[i].id) continue;
        id[n] = all[i].id;
        at[n++] = (void *)(uintptr_t)all[i].at;
    }
    pd_graph pack = {0};
    pd_desc d = pd_graph_new(&pack, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    pd_graph_set(&pack, d, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, id);
    pd_graph_set(&pack, d, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, at);
    pd_graph_set(&pack, d, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &m->workspace);
    pd_graph_finalize(&pack, d, "a set of pointers");
    pd_status status = PD_OK;
    if (pack.status != CUDNN_STATUS_SUCCESS) {
        status = pd_graph_fail(&pack, p->key, err);
    } else {
        const cudnnStatus_t code = cudnnBackendExecute(l->handle, plan, d);
        if (code != CUDNN_STATUS_SUCCESS) status = cudnn_fail(code, p->key, err);
    }
    pd_graph_free(&pack);
    return status;
}

/* Places for one convolution in the device's tuning memory. */
static pd_status tuning_memory(pd_gconv_memory *m, pd_gconv_library *l, const pd_gconv *p, pd_err *err)
{
    const pd_conv_shape *s = &p->desc.shape;
    const size_t e = pd_store_bytes(p->desc.store);
    const size_t x = pd_align_up((size_t)s->n * (size_t)s->h * (size_t)s->w * (size_t)s->c * e);
    const size_t w = pd_align_up((size_t)s->k * (size_t)s->kh * (size_t)s->kw * (size_t)(s->c / s->groups) * e);
    const size_t y = pd_align_up((size_t)s->n * (size_t)s->oh * (size_t)s->ow * (size_t)s->k * e);
    const size_t channels = pd_align_up((size_t)s->k * sizeof(float)); /* a bias, or sums */
    void *memory;
    PD_TRY(pd_cuda_tuning(&memory, l->device, x + w + 2 * y + 3 * channels + (size_t)MAX_WORKSPACE, err));
    char *at = memory;
    m->x = at;
    m->w = at += x;
    m->y = at += w;
    m->residual = at += y;
    m->bias = at += y;
    m->sum = (float *)(void *)(at += channels);
    m->square = (float *)(void *)(at += channels);
    m->workspace = at + channels;
    return PD_OK;
}

/* Milliseconds of one run; infinite where it does not run. */
static double time_plan(pd_gconv_library *l, const pd_gconv *p, pd_desc plan, const pd_gconv_memory *m)
{
    cudaEvent_t begin = NULL, end = NULL;
    cudaStream_t stream = l->device->stream;
    float ms = 0;
    bool good = cudaEventCreate(&begin) == cudaSuccess && cudaEventCreate(&end) == cudaSuccess;
    for (int i = 0; good && i < WARM_RUNS + TIMED_RUNS; i++) {
        if (i == WARM_RUNS) good = cudaEventRecord(begin, stream) == cudaSuccess;
        good = good && execute(l, p, plan, m, NULL) == PD_OK;
    }
    good = good && cudaEventRecord(end, stream) == cudaSuccess && cudaEventSynchronize(end) == cudaSuccess &&
           cudaEventElapsedTime(&ms, begin, end) == cudaSuccess;
    if (begin) cudaEventDestroy(begin);
    if (end) cudaEventDestroy(end);
    if (!good) (void)cudaGetLastError(); /* a candidate's failure is not the next call's */
    return good ? (double)ms / TIMED_RUNS : HUGE_VAL;
}

/* compiled: engines that are compiled at run time, instead of those that are not. */
static pd_status try_mode(pd_gconv_library *l, pd_gconv *p, cudnnBackendHeurMode_t mode, bool compiled,
                          const pd_gconv_memory *m)
{
    pd_desc config[CANDIDATES];
    const int count = configurations(l, p, mode, config, CANDIDATES);
    for (int i = 0; i < count; i++) {
        int64_t workspace;
        if (!acceptable(&p->graph, &p->desc, config[i]) || compiles_at_run_time(&p->graph, config[i]) != compiled)
            continue;
        pd_desc plan = finalized(l, &p->graph, config[i], &workspace);
        if (!plan) continue;
        const double ms = l->handle ? time_plan(l, p, plan, m) : 0;
        if (p->plan && ms >= p->ms) continue;
        if (ms > 1e30) continue;
        p->plan = plan;
        p->workspace = workspace;
        p->ms = ms;
        if (!l->handle) return PD_OK; /* offline: the likeliest */
    }
    return PD_OK;
}

/* ---- plans kept between runs ---- */

static void restore(pd_gconv_library *l, pd_gconv *p, const char *json)
{
    int64_t count = 0;
    pd_desc plan = pd_graph_new(&p->graph, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    if (!plan || cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                                          (int64_t)strlen(json), json) != CUDNN_STATUS_SUCCESS)
        return;
    (void)l;
    if (cudnnBackendFinalize(plan) != CUDNN_STATUS_SUCCESS) return;
    cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count,
                             &p->workspace);
    p->plan = plan;
}

static pd_status keep(pd_gconv_library *l, const pd_gconv *p, pd_err *err)
{
    int64_t length = 0;
    if (cudnnBackendGetAttribute(p->plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, 0, &length,
                                 NULL) != CUDNN_STATUS_SUCCESS ||
        length < 1)
        return PD_OK; /* an engine that cannot be written down is timed again in the next run */
    char *json = calloc((size_t)length + 1, 1);
    if (!json) return PD_FAIL(err, PD_ENOMEM, "out of memory for a plan");
    pd_status status = PD_OK;
    if (cudnnBackendGetAttribute(p->plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, length,
                                 &length, json) == CUDNN_STATUS_SUCCESS)
        status = pd_plan_store_add(l->store, p->key, p->ms, json, err);
    free(json);
    return status;
}

/* ---- what others call ---- */

static pd_status choose(pd_gconv_library *l, pd_gconv *p, pd_err *err)
{
    pd_gconv_memory m = {0};
    build_graph(p);
    if (p->graph.status != CUDNN_STATUS_SUCCESS) return pd_graph_fail(&p->graph, p->key, err);
    const char *json = l->store ? pd_plan_store_find(l->store, p->key) : NULL;
    if (json) restore(l, p, json);
    if (p->plan) return PD_OK;
    if (l->handle) PD_TRY(tuning_memory(&m, l, p, err));
    PD_TRY(try_mode(l, p, CUDNN_HEUR_MODE_A, false, &m));
    if (!p->plan || l->handle) PD_TRY(try_mode(l, p, CUDNN_HEUR_MODE_B, false, &m));
    if (!p->plan) PD_TRY(try_mode(l, p, CUDNN_HEUR_MODE_FALLBACK, false, &m));
    /* sums of bfloat16 have no engine that is there already, and those few that can be compiled come first */
    if (!p->plan && p->desc.sums) PD_TRY(try_mode(l, p, CUDNN_HEUR_MODE_A, true, &m));
    return p->plan && l->store ? keep(l, p, err) : PD_OK;
}

pd_status pd_gconv_plan(const pd_gconv **out, pd_cuda *device, const pd_gconv_desc *desc, pd_err *err)
{
    pd_gconv_library *l = device->conv;
    char key[sizeof((pd_gconv *)0)->key];
    describe(key, sizeof key, desc);
    pd_gconv *p = l->plans;
    while (p && strcmp(p->key, key) != 0) p = p->next;
    if (!p) {
        p = calloc(1, sizeof *p);
        if (!p) return PD_FAIL(err, PD_ENOMEM, "out of memory for a plan");
        p->desc = *desc;
        snprintf(p->key, sizeof p->key, "%s", key);
        const pd_status status = choose(l, p, err);
        if (status != PD_OK) {
            pd_graph_free(&p->graph);
            free(p);
            return status;
        }
        p->next = l->plans;
        l->plans = p;
    }
    const bool plain = !desc->bias && !desc->residual && !desc->relu && !desc->sums;
    if (!p->plan && plain)
        return PD_FAIL(err, PD_EDEVICE, "%s has no plan for the convolution \"%s\"", l->version, key);
    *out = p->plan ? p : NULL;
    return PD_OK;
}

size_t pd_gconv_workspace(const pd_gconv *plan)
{
    return plan ? (size_t)plan->workspace : 0;
}

double pd_gconv_ms(const pd_gconv *plan)
{
    return plan ? plan->ms : 0;
}

pd_status pd_gconv_run(pd_cuda *device, const pd_gconv *plan, const pd_gconv_memory *memory, pd_err *err)
{
    return execute(device->conv, plan, plan->plan, memory, err);
}
