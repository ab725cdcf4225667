/* Matrix products by cuBLASLt. It is column-major: our row-major c = a b is its c' = b' a'. */
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/plan_store.h"
#include "kernels/cuda/timing.h"

#include <cublasLt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORKSPACE ((size_t)32 << 20)
#define CANDIDATES 8
#define ALIGNED 16 /* bytes that the matrices' addresses are multiples of; the library would take 256 for granted */

/* A product that was asked for before, with its chosen algorithm. */
typedef struct product {
    pd_gemm shape;
    cublasLtMatmulAlgo_t algo;
    double ms;
    struct product *next;
} product;

struct pd_gemm_library {
    cublasLtHandle_t handle;
    void *workspace;
    product *known;
    pd_plan_store *store;
};

#define LT_TRY(call, err)                                                                                              \
    do {                                                                                                               \
        const cublasStatus_t code_ = (call);                                                                           \
        if (code_ != CUBLAS_STATUS_SUCCESS)                                                                            \
            return PD_FAIL(err, PD_EDEVICE, "cuBLASLt: %s: %s", #call, cublasLtGetStatusString(code_));                \
    } while (0)

pd_status pd_gemm_open(pd_gemm_library **out, pd_cuda *device, pd_err *err)
{
    pd_gemm_library *l = calloc(1, sizeof *l);
    if (!l) return PD_FAIL(err, PD_ENOMEM, "out of memory for cuBLASLt");
    *out = l; /* the device closes it, whatever happens here */
    LT_TRY(cublasLtCreate(&l->handle), err);
    char name[256];
    snprintf(name, sizeof name, "cublaslt-%zu-%.160s.1", cublasLtGetVersion(), device->device.title);
    PD_TRY(pd_plan_store_open(&l->store, name, err));
    return device->device.alloc(&device->device, &l->workspace, WORKSPACE, err);
}

void pd_gemm_close(pd_gemm_library *l)
{
    if (!l) return;
    while (l->known) {
        product *next = l->known->next;
        free(l->known);
        l->known = next;
    }
    pd_plan_store_close(l->store);
    if (l->workspace) (void)cudaFree(l->workspace);
    if (l->handle) cublasLtDestroy(l->handle);
    free(l);
}

static cudaDataType_t type_of(pd_store store)
{
    return store == PD_STORE_F16 ? CUDA_R_16F : store == PD_STORE_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

static bool same(const pd_gemm *a, const pd_gemm *b)
{
    return a->ta == b->ta && a->tb == b->tb && a->m == b->m && a->n == b->n && a->k == b->k && a->lda == b->lda &&
           a->ldb == b->ldb && a->ldc == b->ldc && a->in == b->in && a->out == b->out && a->tf32 == b->tf32;
}

static void describe(char *key, size_t size, const pd_gemm *g)
{
    static const char *const store[] = {"f32", "f16", "bf16"};
    snprintf(key, size, "%d,%d,%d %s%d %s%d %d %s%s to %s", g->m, g->n, g->k, g->ta ? "t" : "", g->lda,
             g->tb ? "t" : "", g->ldb, g->ldc, store[g->in], g->in == PD_STORE_32 && g->tf32 ? "(tf32)" : "",
             store[g->out]);
}

/* Descriptors of one product. */
typedef struct setup {
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulPreference_t preference;
} setup;

static pd_status set_up(setup *s, const pd_gemm *g, pd_err *err)
{
    const cublasComputeType_t compute =
        g->in == PD_STORE_32 && g->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    const cublasOperation_t ta = g->ta ? CUBLAS_OP_T : CUBLAS_OP_N, tb = g->tb ? CUBLAS_OP_T : CUBLAS_OP_N;
    LT_TRY(cublasLtMatmulDescCreate(&s->op, compute, CUDA_R_32F), err);
    /* the library's A is our b, its B our a */
    LT_TRY(cublasLtMatmulDescSetAttribute(s->op, CUBLASLT_MATMUL_DESC_TRANSA, &tb, sizeof tb), err);
    LT_TRY(cublasLtMatmulDescSetAttribute(s->op, CUBLASLT_MATMUL_DESC_TRANSB, &ta, sizeof ta), err);
    const uint64_t m = (uint64_t)g->m, n = (uint64_t)g->n, k = (uint64_t)g->k;
    LT_TRY(cublasLtMatrixLayoutCreate(&s->a, type_of(g->in), g->ta ? m : k, g->ta ? k : m, g->lda), err);
    LT_TRY(cublasLtMatrixLayoutCreate(&s->b, type_of(g->in), g->tb ? k : n, g->tb ? n : k, g->ldb), err);
    LT_TRY(cublasLtMatrixLayoutCreate(&s->c, type_of(g->out), n, m, g->ldc), err);
    return PD_OK;
}

static void tear_down(setup *s)
{
    if (s->preference) cublasLtMatmulPreferenceDestroy(s->preference);
    if (s->c) cublasLtMatrixLayoutDestroy(s->c);
    if (s->b) cublasLtMatrixLayoutDestroy(s->b);
    if (s->a) cublasLtMatrixLayoutDestroy(s->a);
    if (s->op) cublasLtMatmulDescDestroy(s->op);
}

/* A product to be run, or timed. */
typedef struct call {
    pd_cuda *device;
    const setup *set;
    const cublasLtMatmulAlgo_t *algo;
    const void *a, *b;
    float beta;
    void *c;
} call;

static pd_status multiply(const call *m, pd_err *err)
{
    const pd_gemm_library *l = m->device->gemm;
    const float alpha = 1;
    LT_TRY(cublasLtMatmul(l->handle, m->set->op, &alpha, m->b, m->set->b, m->a, m->set->a, &m->beta, m->c, m->set->c,
                          m->c, m->set->c, m->algo, l->workspace, WORKSPACE, m->device->stream),
           err);
    return PD_OK;
}

static pd_status run_candidate(void *arg)
{
    return multiply(arg, NULL);
}

/* ---- choosing an algorithm ---- */

/* The library's proposals, the likely ones first: deterministic, and summed in float32. */
static pd_status propose(cublasLtMatmulHeuristicResult_t *out, int *count, pd_gemm_library *l, setup *s, pd_err *err)
{
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        uint32_t value;
    } wants[] = {{CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE},
                 {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, ALIGNED},
                 {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, ALIGNED},
                 {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, ALIGNED},
                 {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, ALIGNED}};
    const size_t workspace = WORKSPACE;
    LT_TRY(cublasLtMatmulPreferenceCreate(&s->preference), err);
    LT_TRY(cublasLtMatmulPreferenceSetAttribute(s->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                sizeof workspace),
           err);
    for (size_t i = 0; i < sizeof wants / sizeof *wants; i++)
        LT_TRY(
            cublasLtMatmulPreferenceSetAttribute(s->preference, wants[i].name, &wants[i].value, sizeof wants[i].value),
            err);
    LT_TRY(
        cublasLtMatmulAlgoGetHeuristic(l->handle, s->op, s->b, s->a, s->c, s->c, s->preference, CANDIDATES, out, count),
        err);
    return PD_OK;
}

/* An algorithm in words: its 64 bytes in hexadecimal digits, which are for one version of the library. */
#define WORDS ((int)(sizeof(cublasLtMatmulAlgo_t) / sizeof(uint64_t)))

static void write_algorithm(char *text, size_t size, const cublasLtMatmulAlgo_t *algo)
{
    uint64_t word[WORDS];
    memcpy(word, algo, sizeof word);
    for (int i = 0, at = 0; i < WORDS; i++)
        at += snprintf(text + at, size - (size_t)at, "%016llx", (unsigned long long)word[i]);
}

static bool read_algorithm(product *p, const char *text, const pd_gemm_library *l, const setup *s)
{
    uint64_t word[WORDS];
    cublasLtMatmulHeuristicResult_t result;
    if (!text || strlen(text) != 16 * (size_t)WORDS) return false;
    for (int i = 0; i < WORDS; i++) {
        char one[17] = "";
        memcpy(one, text + 16 * i, 16);
        word[i] = strtoull(one, NULL, 16);
    }
    memcpy(&p->algo, word, sizeof p->algo);
    return cublasLtMatmulAlgoCheck(l->handle, s->op, s->b, s->a, s->c, s->c, &p->algo, &result) ==
               CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= WORKSPACE;
}

static size_t matrix_bytes(int rows, int pitch, pd_store store)
{
    return pd_align_up((size_t)rows * (size_t)pitch * pd_store_bytes(store));
}

/* The fastest of the proposals. */
static pd_status time_proposals(product *p, pd_cuda *device, setup *s, pd_err *err)
{
    const pd_gemm *g = &p->shape;
    cublasLtMatmulHeuristicResult_t proposal[CANDIDATES];
    int count = 0;
    void *memory;
    const size_t a = matrix_bytes(g->ta ? g->k : g->m, g->lda, g->in),
                 b = matrix_bytes(g->tb ? g->n : g->k, g->ldb, g->in);
    PD_TRY(propose(proposal, &count, device->gemm, s, err));
    PD_TRY(pd_cuda_tuning(&memory, device, a + b + matrix_bytes(g->m, g->ldc, g->out), err));
    call m = {.device = device, .set = s, .a = memory, .b = (char *)memory + a, .c = (char *)memory + a + b};
    p->ms = HUGE_VAL;
    for (int i = 0; i < count; i++) {
        m.algo = &proposal[i].algo;
        const double ms = pd_cuda_time(device, run_candidate, &m, p->ms);
        if (ms >= p->ms) continue;
        p->ms = ms;
        p->algo = proposal[i].algo;
    }
    if (p->ms < HUGE_VAL) return PD_OK;
    return PD_FAIL(err, PD_EDEVICE, "cuBLASLt has no algorithm for a product (%d, %d) x (%d, %d)", g->m, g->k, g->k,
                   g->n);
}

static pd_status choose(product *p, pd_cuda *device, setup *s, pd_err *err)
{
    pd_gemm_library *l = device->gemm;
    char key[128], text[16 * WORDS + 1];
    describe(key, sizeof key, &p->shape);
    if (read_algorithm(p, pd_plan_store_find(l->store, key, &p->ms), l, s)) return PD_OK;
    PD_TRY(time_proposals(p, device, s, err));
    const product ours = *p;
    write_algorithm(text, sizeof text, &p->algo);
    PD_TRY(pd_plan_store_add(l->store, key, p->ms, text, err));
    if (!read_algorithm(p, pd_plan_store_find(l->store, key, &p->ms), l, s)) *p = ours; /* somebody else was first */
    return PD_OK;
}

static pd_status find(const product **out, pd_cuda *device, const pd_gemm *g, setup *s, pd_err *err)
{
    pd_gemm_library *l = device->gemm;
    for (const product *p = l->known; p; p = p->next)
        if (same(&p->shape, g)) {
            *out = p;
            return PD_OK;
        }
    product *p = calloc(1, sizeof *p);
    if (!p) return PD_FAIL(err, PD_ENOMEM, "out of memory for a product");
    p->shape = *g;
    const pd_status status = choose(p, device, s, err);
    if (status != PD_OK) {
        free(p);
        return status;
    }
    p->next = l->known;
    *out = l->known = p;
    return PD_OK;
}

/* ---- what others call ---- */

pd_status pd_gemm_plan(double *ms, pd_cuda *device, const pd_gemm *g, pd_err *err)
{
    setup s = {0};
    const product *p = NULL;
    pd_status status = set_up(&s, g, err);
    if (status == PD_OK) status = find(&p, device, g, &s, err);
    if (status == PD_OK) *ms = p->ms;
    tear_down(&s);
    return status;
}

pd_status pd_gemm_run(pd_cuda *device, const pd_gemm *g, const void *a, const void *b, float beta, void *c, pd_err *err)
{
    setup s = {0};
    const product *p = NULL;
    pd_status status = set_up(&s, g, err);
    if (status == PD_OK) status = find(&p, device, g, &s, err);
    call m = {.device = device, .set = &s, .a = a, .b = b, .beta = beta, .c = c};
    if (status == PD_OK) {
        m.algo = &p->algo;
        status = multiply(&m, err);
    }
    tear_down(&s);
    return status;
}
