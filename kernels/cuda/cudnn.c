/* Convolutions by cuDNN's graph API: candidates of its heuristics, timed once for each shape. */
#include "kernels/cuda/gconv.h"
#include "kernels/cuda/graph.h"
#include "kernels/cuda/timing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DESC CUDNN_TYPE_BACKEND_DESCRIPTOR
#define MAX_WORKSPACE ((int64_t)512 << 20)
#define CANDIDATES 14 /* of one heuristic mode: it lists the likely ones first */
#define STORED 2      /* the version of what the store holds; new where build_graph gives tensors other ids */

struct pd_gconv {
    char key[160];
    pd_gconv_desc desc;
    int64_t x, w, y, residual, bias, sum, square; /* unique ids; 0: none */
    pd_graph chosen;                              /* holds plan and what it may refer to */
    pd_desc plan;                                 /* NULL: cuDNN has none */
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
    pd_plan_store *store;
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

static pd_status open_store(pd_gconv_library *l, const char *device, pd_err *err)
{
    char name[256];
    snprintf(name, sizeof name, "cudnn-%zu-%.160s.%d", cudnnGetVersion(), device, STORED);
    return pd_plan_store_open(&l->store, name, err);
}

static pd_status online(pd_gconv_library *l, pd_err *err)
{
    CUDNN_TRY(cudnnCreate(&l->handle), err);
    CUDNN_TRY(cudnnSetStream(l->handle, l->device->stream), err);
    return PD_OK;
}

pd_status pd_gconv_open(pd_gconv_library **out, pd_cuda *device, const char *json, pd_err *err)
{
    pd_gconv_library *l = calloc(1, sizeof *l);
    if (!l) return PD_FAIL(err, PD_ENOMEM, "out of memory for cuDNN");
    const size_t v = cudnnGetVersion();
    l->device = device;
    snprintf(l->version, sizeof l->version, "cuDNN %zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
    pd_status status = json ? offline_properties(l, json, err) : online(l, err);
    if (status == PD_OK) status = open_store(l, json ? "described" : device->device.title, err);
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
        pd_graph_free(&p->chosen);
        free(p);
        p = next;
    }
    pd_plan_store_close(l->store);
    pd_graph_free(&l->properties);
    if (l->handle) cudnnDestroy(l->handle);
    free(l);
}

pd_plan_store *pd_gconv_store(const pd_gconv_library *l)
{
    return l->store;
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
static pd_desc step_output(pd_gconv *p, pd_graph *g, int steps_left)
{
    const pd_conv_shape *s = &p->desc.shape;
    pd_desc d = pd_graph_tensor(g, steps_left ? CUDNN_DATA_FLOAT : type_of(p->desc.store), s->n, s->k, s->oh, s->ow,
                                steps_left > 0);
    if (!steps_left) p->y = g->ids;
    return d;
}

static void build_graph(pd_gconv *p, pd_graph *g, cudnnHandle_t handle)
{
    const pd_gconv_desc *d = &p->desc;
    const pd_conv_shape *s = &d->shape;
    const cudnnDataType_t t = type_of(d->store);
    pd_desc x = pd_graph_tensor(g, t, s->n, s->c, s->h, s->w, false);
    p->x = g->ids;
    pd_desc w = pd_graph_tensor(g, t, s->k, s->c / s->groups, s->kh, s->kw, false);
    p->w = g->ids;
    int left = d->residual + d->bias + d->relu;
    pd_desc y = step_output(p, g, left);
    pd_graph_conv(g, d->kind, s, x, w, y);
    if (d->residual) {
        pd_desc z = pd_graph_tensor(g, t, s->n, s->k, s->oh, s->ow, false);
        p->residual = g->ids;
        pd_desc sum = step_output(p, g, --left);
        pd_graph_pointwise(g, CUDNN_POINTWISE_ADD, y, z, sum);
        y = sum;
    }
    if (d->bias) {
        pd_desc b = pd_graph_tensor(g, t, 1, s->k, 1, 1, false);
        p->bias = g->ids;
        pd_desc sum = step_output(p, g, --left);
        pd_graph_pointwise(g, CUDNN_POINTWISE_ADD, y, b, sum);
        y = sum;
    }
    if (d->relu) pd_graph_pointwise(g, CUDNN_POINTWISE_RELU_FWD, y, NULL, step_output(p, g, --left));
    if (d->sums) {
        pd_desc sum = pd_graph_tensor(g, CUDNN_DATA_FLOAT, 1, s->k, 1, 1, false);
        p->sum = g->ids;
        pd_desc square = pd_graph_tensor(g, CUDNN_DATA_FLOAT, 1, s->k, 1, 1, false);
        p->square = g->ids;
        pd_graph_sums(g, y, sum, square);
    }
    pd_graph_build(g, handle);
}

/* ---- candidates ---- */

/* Of an engine's configuration: the engine, a descriptor of `g`. */
static pd_desc engine_of(pd_graph *g, pd_desc config)
{
    int64_t count = 0;
    pd_desc engine = pd_graph_new(g, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, DESC, 1, &count, &engine);
    return engine;
}

/* Deterministic and summed in float32; in float32 also without tensor cores, unless they were asked for, and without
 * transforms that cost digits. */
static bool acceptable(pd_desc engine, const pd_gconv_desc *d)
{
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    int64_t count = 0;
    if (cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                 CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes) != CUDNN_STATUS_SUCCESS)
        return false;
    unsigned bad = 1u << CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC | 1u << CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION;
    if (d->store == PD_STORE_32 && !d->tf32)
        bad |= 1u << CUDNN_NUMERICAL_NOTE_TENSOR_CORE | 1u << CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS |
               1u << CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6 | 1u << CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13;
    for (int64_t i = 0; i < count && i < CUDNN_NUMERICAL_NOTE_TYPE_COUNT; i++)
        if (bad >> notes[i] & 1) return false;
    return true;
}

/* Compiled when it is first made: tenths of a second each. */
static bool compiles_at_run_time(pd_desc engine)
{
    cudnnBackendBehaviorNote_t notes[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT];
    int64_t count = 0;
    if (cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
                                 CUDNN_BEHAVIOR_NOTE_TYPE_COUNT, &count, notes) != CUDNN_STATUS_SUCCESS)
        return false;
    for (int64_t i = 0; i < count && i < CUDNN_BEHAVIOR_NOTE_TYPE_COUNT; i++)
        if (notes[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) return true;
    return false;
}

/* Engine configurations of one heuristic mode for the graph in `g`, the likely ones first; descriptors of `list`. */
static int configurations(const pd_gconv_library *l, const pd_graph *g, pd_graph *list, cudnnBackendHeurMode_t mode,
                          pd_desc *out, int room)
{
    int64_t count = 0;
    pd_desc heuristics = pd_graph_new(list, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    pd_graph_set(list, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, DESC, 1, &g->graph);
    pd_graph_set(list, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (l->device_properties)
        pd_graph_set(list, heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, DESC, 1, &l->device_properties);
    if (list->status != CUDNN_STATUS_SUCCESS || cudnnBackendFinalize(heuristics) != CUDNN_STATUS_SUCCESS) return 0;
    for (int i = 0; i < room; i++) out[i] = pd_graph_new(list, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (list->status != CUDNN_STATUS_SUCCESS ||
        cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, DESC, room, &count, out) !=
            CUDNN_STATUS_SUCCESS)
        return 0;
    return count < room ? (int)count : room;
}

/* A plan is for the handle's device or for the described one. */
static pd_desc new_plan(const pd_gconv_library *l, pd_graph *g)
{
    pd_desc plan = pd_graph_new(g, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    if (l->device_properties)
        pd_graph_set(g, plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, DESC, 1, &l->device_properties);
    else
        pd_graph_set(g, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &l->handle);
    return plan;
}

/* Ready to run? Many configurations cannot be made for a given graph. */
static bool finalized(pd_graph *g, pd_desc plan, int64_t *workspace)
{
    int64_t count = 0;
    if (g->status != CUDNN_STATUS_SUCCESS || cudnnBackendFinalize(plan) != CUDNN_STATUS_SUCCESS) return false;
    *workspace = 0;
    cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count, workspace);
    return *workspace <= MAX_WORKSPACE;
}

/* The plan in words, to be freed; NULL: an engine that cannot be written down. */
static char *text_of(pd_desc plan)
{
    int64_t length = 0;
    if (cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, 0, &length,
                                 NULL) != CUDNN_STATUS_SUCCESS ||
        length < 1)
        return NULL;
    char *text = calloc((size_t)length + 1, 1);
    if (text && cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, length,
                                         &length, text) == CUDNN_STATUS_SUCCESS)
        return text;
    free(text);
    return NULL;
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

/* A candidate to be timed. */
typedef struct candidate {
    pd_gconv_library *library;
    const pd_gconv *conv;
    pd_desc plan;
    const pd_gconv_memory *memory;
} candidate;

static pd_status run_candidate(void *arg)
{
    const candidate *c = arg;
    return execute(c->library, c->conv, c->plan, c->memory, NULL);
}

/* What the search for a convolution's plan knows. */
typedef struct search {
    pd_graph graph;
    bool timed; /* else the likeliest that can be made is taken */
    pd_gconv_memory memory;
    uint64_t seen[3 * CANDIDATES]; /* plans that were tried: modes name the same ones */
    int count;
} search;

static bool seen_before(search *s, pd_desc plan)
{
    char *text = text_of(plan);
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    if (!text) return false;
    for (const char *c = text; *c; c++) hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
    free(text);
    for (int i = 0; i < s->count; i++)
        if (s->seen[i] == hash) return true;
    if (s->count < (int)(sizeof s->seen / sizeof *s->seen)) s->seen[s->count++] = hash;
    return false;
}

/* compiled: engines that are compiled at run time, instead of those that are not. */
static void try_mode(pd_gconv_library *l, pd_gconv *p, search *s, cudnnBackendHeurMode_t mode, bool compiled)
{
    pd_graph list = {0};
    pd_desc config[CANDIDATES];
    const int count = configurations(l, &s->graph, &list, mode, config, CANDIDATES);
    bool enough = false;
    for (int i = 0; i < count && !enough; i++) {
        int64_t workspace;
        pd_graph own = {0};
        pd_desc engine = engine_of(&own, config[i]);
        if (acceptable(engine, &p->desc) && compiles_at_run_time(engine) == compiled) {
            pd_desc plan = new_plan(l, &own);
            pd_graph_set(&own, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, DESC, 1, &config[i]);
            const bool good = finalized(&own, plan, &workspace) && !seen_before(s, plan);
            const double best = p->plan ? p->ms : HUGE_VAL;
            candidate c = {l, p, plan, &s->memory};
            const double ms = !good ? HUGE_VAL : s->timed ? pd_cuda_time(l->device, run_candidate, &c, best) : 0;
            if (ms < best) {
                pd_graph_free(&p->chosen);
                p->chosen = own;
                pd_graph_move(&p->chosen, &list, config[i]);
                p->plan = plan;
                p->workspace = workspace;
                p->ms = ms;
                own = (pd_graph){0};
                enough = !s->timed;
            }
        }
        pd_graph_free(&own);
    }
    pd_graph_free(&list);
}

/* ---- plans kept between runs ---- */

/* The plan that is stored under the key, unless that is the one in use or cannot be made. */
static void restore(pd_gconv_library *l, pd_gconv *p)
{
    double ms = 0;
    int64_t workspace;
    const char *text = pd_plan_store_find(l->store, p->key, &ms);
    char *ours = text && p->plan ? text_of(p->plan) : NULL;
    const bool same = ours && !strcmp(ours, text);
    free(ours);
    if (same) p->ms = ms;
    if (!text || same) return;
    pd_graph own = {0};
    pd_desc plan = new_plan(l, &own);
    pd_graph_set(&own, plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(text),
                 text);
    if (!finalized(&own, plan, &workspace)) {
        pd_graph_free(&own);
        return;
    }
    pd_graph_free(&p->chosen);
    p->chosen = own;
    p->plan = plan;
    p->workspace = workspace;
    p->ms = ms;
}

/* An engine that cannot be written down is timed again in the next run. */
static pd_status keep(pd_gconv_library *l, pd_gconv *p, pd_err *err)
{
    char *text = text_of(p->plan);
    const pd_status status = text ? pd_plan_store_add(l->store, p->key, p->ms, text, err) : PD_OK;
    free(text);
    if (status == PD_OK) restore(l, p); /* somebody else may have been first */
    return status;
}

/* ---- what others call ---- */

static pd_status find_plan(pd_gconv_library *l, pd_gconv *p, search *s, pd_err *err)
{
    build_graph(p, &s->graph, l->handle);
    if (s->graph.status != CUDNN_STATUS_SUCCESS) return pd_graph_fail(&s->graph, p->key, err);
    restore(l, p);
    if (p->plan) return PD_OK;
    const pd_status got = l->handle ? tuning_memory(&s->memory, l, p, err) : PD_OK;
    if (got != PD_OK && got != PD_ENOMEM) return got;
    s->timed = l->handle && got == PD_OK; /* a plan that is late, with the memory full, is chosen by its likelihood */
    try_mode(l, p, s, CUDNN_HEUR_MODE_A, false);
    if (!p->plan || s->timed) try_mode(l, p, s, CUDNN_HEUR_MODE_B, false);
    if (!p->plan) try_mode(l, p, s, CUDNN_HEUR_MODE_FALLBACK, false);
    /* sums of bfloat16 have no engine that is there already, and those few that can be compiled come first */
    if (!p->plan && p->desc.sums) try_mode(l, p, s, CUDNN_HEUR_MODE_A, true);
    return p->plan && got == PD_OK ? keep(l, p, err) : PD_OK;
}

static pd_status choose(pd_gconv_library *l, pd_gconv *p, pd_err *err)
{
    search s = {0};
    const pd_status status = find_plan(l, p, &s, err);
    pd_graph_free(&s.graph);
    return status;
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
            pd_graph_free(&p->chosen);
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
