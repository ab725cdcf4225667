/* Matrix products by cuBLASLt. It is column-major: our row-major c = a b is its c' = b' a'. */
#include "kernels/cuda/gemm.h"

#include <cublasLt.h>
#include <stdlib.h>

#define WORKSPACE ((size_t)32 << 20)
#define ALIGNED 16 /* bytes that the matrices' addresses are multiples of; the library would take 256 for granted */

/* A product that was asked for before, with its chosen algorithm. */
typedef struct product {
    pd_gemm shape;
    cublasLtMatmulAlgo_t algo;
    struct product *next;
} product;

struct pd_gemm_library {
    cublasLtHandle_t handle;
    void *workspace;
    product *known;
};

#define LT_TRY(call, err)                                                                                              \
    do {                                                                                                               \
        const cublasStatus_t code_ = (call);                                                                           \
        if (code_ != CUBLAS_STATUS_SUCCESS)                                                                            \
            return PD_FAIL(err, PD_EDEVICE, "cuBLASLt: %s: %s", #call, cublasLtGetStatusString(code_));                \
    } while (0)

#define LT_TRY_DONE(call, err)                                                                                         \
    do {                                                                                                               \
        const cublasStatus_t code_ = (call);                                                                           \
        if (code_ == CUBLAS_STATUS_SUCCESS) break;                                                                     \
        status = PD_FAIL(err, PD_EDEVICE, "cuBLASLt: %s: %s", #call, cublasLtGetStatusString(code_));                  \
        goto done;                                                                                                     \
    } while (0)

pd_status pd_gemm_open(pd_gemm_library **out, pd_cuda *device, pd_err *err)
{
    pd_gemm_library *l = calloc(1, sizeof *l);
    if (!l) return PD_FAIL(err, PD_ENOMEM, "out of memory for cuBLASLt");
    *out = l; /* the device closes it, whatever happens here */
    LT_TRY(cublasLtCreate(&l->handle), err);
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

/* Descriptors of one call. */
typedef struct setup {
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulPreference_t preference;
} setup;

static pd_status find_algorithm(const cublasLtMatmulAlgo_t **out, pd_gemm_library *l, const pd_gemm *g, setup *s,
                                pd_err *err)
{
    for (const product *p = l->known; p; p = p->next)
        if (same(&p->shape, g)) {
            *out = &p->algo;
            return PD_OK;
        }
    const size_t workspace = WORKSPACE;
    cublasLtMatmulHeuristicResult_t best;
    int found = 0;
    LT_TRY(cublasLtMatmulPreferenceCreate(&s->preference), err);
    LT_TRY(cublasLtMatmulPreferenceSetAttribute(s->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                sizeof workspace),
           err);
    static const cublasLtMatmulPreferenceAttributes_t matrices[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    for (int i = 0; i < 4; i++) {
        const uint32_t bytes = ALIGNED;
        LT_TRY(cublasLtMatmulPreferenceSetAttribute(s->preference, matrices[i], &bytes, sizeof bytes), err);
    }
    LT_TRY(cublasLtMatmulAlgoGetHeuristic(l->handle, s->op, s->b, s->a, s->c, s->c, s->preference, 1, &best, &found),
           err);
    if (!found)
        return PD_FAIL(err, PD_EDEVICE, "cuBLASLt has no algorithm for a product (%d, %d) x (%d, %d)", g->m, g->k, g->k,
                       g->n);
    product *p = malloc(sizeof *p);
    if (!p) return PD_FAIL(err, PD_ENOMEM, "out of memory for a product");
    *p = (product){*g, best.algo, l->known};
    l->known = p;
    *out = &p->algo;
    return PD_OK;
}

static pd_status describe(setup *s, const pd_gemm *g, pd_err *err)
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

pd_status pd_gemm_run(pd_cuda *device, const pd_gemm *g, const void *a, const void *b, float beta, void *c, pd_err *err)
{
    pd_gemm_library *l = device->gemm;
    setup s = {0};
    const cublasLtMatmulAlgo_t *algo;
    const float alpha = 1;
    pd_status status = PD_OK;
    PD_TRY_DONE(describe(&s, g, err));
    PD_TRY_DONE(find_algorithm(&algo, l, g, &s, err));
    LT_TRY_DONE(cublasLtMatmul(l->handle, s.op, &alpha, b, s.b, a, s.a, &beta, c, s.c, c, s.c, algo, l->workspace,
                               WORKSPACE, device->stream),
                err);
done:
    if (s.preference) cublasLtMatmulPreferenceDestroy(s.preference);
    if (s.c) cublasLtMatrixLayoutDestroy(s.c);
    if (s.b) cublasLtMatrixLayoutDestroy(s.b);
    if (s.a) cublasLtMatrixLayoutDestroy(s.a);
    if (s.op) cublasLtMatmulDescDestroy(s.op);
    return status;
}
