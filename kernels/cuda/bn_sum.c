#include "kernels/cuda/bn_sum.h"
#include "engine/comm.h"
#include "kernels/bn_sum_node.h"
#include "kernels/cuda/ops.h"

/* Places in one piece of memory, handed out one behind the other. */
typedef struct purse {
    char *memory;
    size_t used;
} purse;

static void *take(purse *p, size_t bytes)
{
    void *at = p->memory ? p->memory + p->used : NULL;
    p->used += pd_align_up(bytes);
    return at;
}

static pd_bn_maps maps_of(const pd_node *node)
{
    const bn_args *a = node->args;
    const int *d = node->out[0]->shape.dim;
    const pd_value *gate = node->in[GATE];
    const long n = d[0], hw = (long)d[1] * d[2];
    pd_bn_maps m = {.branches = a->branches,
                    .c = d[3],
                    .samples = gate ? n : 1,
                    .rows = gate ? hw : n * hw,
                    .store = node->out[0]->store,
                    .gate = gate ? gate->data : NULL,
                    .gates = gate ? gate->shape.dim[1] : 0};
    for (int k = 0; k < a->branches; k++) {
        m.z[k] = node->in[IN(k, Z)]->data;
        m.dz[k] = node->in[IN(k, Z)]->grad;
        m.column[k] = a->gate[k];
        m.pitch[k] = node->in[IN(k, Z)]->pitch;
    }
    return m;
}

static pd_bn_vectors vectors_of(const pd_node *node, const pd_run *run)
{
    const bn_args *a = node->args;
    pd_bn_vectors v = {0};
    for (int k = 0; k < a->branches; k++) {
        v.gamma[k] = node->in[IN(k, GAMMA)]->data;
        v.beta[k] = node->in[IN(k, BETA)]->data;
        v.run_mean[k] = node->in[IN(k, MEAN)]->data;
        v.run_var[k] = node->in[IN(k, VAR)]->data;
        if (!node->backward) continue;
        if (pd_wants_grad(node, IN(k, GAMMA))) v.dgamma[k] = node->in[IN(k, GAMMA)]->grad;
        if (pd_wants_grad(node, IN(k, BETA))) v.dbeta[k] = node->in[IN(k, BETA)]->grad;
        v.add_gamma[k] = pd_adds_grad(node, IN(k, GAMMA), run);
        v.add_beta[k] = pd_adds_grad(node, IN(k, BETA), run);
    }
    return v;
}

/* Scratch of both directions. */
typedef struct forward_memory {
    double *sums, *count; /* (branches, 2, c), and 1 behind them */
    float *partial;
} forward_memory;

typedef struct backward_memory {
    double *sums, *count;
    float *partial, *total, *pqr;
} backward_memory;

static size_t lay_forward(forward_memory *f, const pd_bn_maps *m, bool batch_stats, void *memory)
{
    purse p = {memory, 0};
    const size_t kc = (size_t)m->branches * (size_t)m->c, pieces = (size_t)m->samples * (size_t)pd_bn_chunks(m);
    f->sums = take(&p, (2 * kc + 1) * sizeof(double));
    f->count = f->sums + 2 * kc;
    f->partial = take(&p, batch_stats ? pieces * 2 * kc * sizeof(float) : 0);
    return p.used;
}

static size_t lay_backward(backward_memory *b, const pd_bn_maps *m, void *memory)
{
    purse p = {memory, 0};
    const size_t c = (size_t)m->c, kc = (size_t)m->branches * c, samples = (size_t)m->samples;
    b->sums = take(&p, (2 * kc + 1) * sizeof(double));
    b->count = b->sums + 2 * kc;
    b->pqr = take(&p, 3 * kc * sizeof(float));
    b->total = take(&p, samples * (kc + c) * sizeof(float));
    b->partial = take(&p, samples * (size_t)pd_bn_chunks(m) * (kc + c) * sizeof(float));
    return p.used;
}

/* Saved: mean_rstd, and affine behind it. */
static float *saved_affine(const pd_node *node, const pd_bn_maps *m)
{
    return (float *)node->saved + 2 * (size_t)m->branches * (size_t)m->c;
}

static bool empty(const pd_bn_maps *m)
{
    return m->samples * m->rows == 0 || m->c == 0;
}

static pd_status bn_plan(pd_node *node, pd_device *device, pd_err *err)
{
    const bn_args *a = node->args;
    const pd_bn_maps m = maps_of(node);
    forward_memory f;
    backward_memory b;
    (void)device;
    for (int k = 0; k < a->branches; k++)
        if (node->grad_mode[IN(k, Z)] == PD_GRAD_ADD)
            return PD_FAIL(err, PD_EINVAL, "a branch's convolution output must not be used elsewhere");
    if (empty(&m)) return PD_OK;
    node->saved_bytes = 4 * (size_t)m.branches * (size_t)m.c * sizeof(float);
    node->scratch_fwd = lay_forward(&f, &m, a->set.batch_stats, NULL);
    node->scratch_bwd = lay_backward(&b, &m, NULL);
    return PD_OK;
}

/* What stands behind `sums`. Where processes train together and the statistics are theirs: sums and count of all. */
static pd_status share_sums(pd_bn_count *out, const pd_bn_maps *m, bool sync, const pd_run *run, double *sums,
                            double *count, pd_err *err)
{
    *out = (pd_bn_count){.own = (double)(m->samples * m->rows)};
    if (!sync) return PD_OK;
    PD_CUDA_TRY(pd_bn_set_count(count, out->own, pd_cuda_of(run->device)->stream), err);
    out->all = count; /* behind the sums: one collective */
    return pd_comm_sum(run->device->comm, sums, 2 * (size_t)m->branches * (size_t)m->c + 1, PD_COMM_F64, err);
}

/* Sums of the branches over this process's pixels; *shifted: of z - the branch's first pixel. Those that came with the
 * convolutions' outputs are taken, the others made in a pass of their own. */
static pd_status branch_sums(const pd_node *node, const pd_bn_maps *m, const forward_memory *f, bool *shifted,
                             cudaStream_t s, pd_err *err)
{
    const int chunks = pd_bn_chunks(m);
    pd_bn_given_sums given = {0};
    bool any = false;
    for (int k = 0; k < m->branches; k++) {
        given.sum[k] = node->in[IN(k, Z)]->sum;
        given.square[k] = node->in[IN(k, Z)]->square;
        any = any || given.sum[k];
    }
    if (!any) {
        PD_CUDA_TRY(pd_bn_sums(m, chunks, f->partial, s), err);
        PD_CUDA_TRY(pd_bn_totals(m, chunks, f->partial, *shifted, f->sums, s), err);
        return PD_OK;
    }
    *shifted = false;
    PD_CUDA_TRY(pd_bn_given(m, &given, f->sums, s), err);
    for (int k = 0; k < m->branches; k++) {
        pd_bn_maps one = *m;
        if (given.sum[k]) continue;
        one.branches = 1;
        one.z[0] = m->z[k];
        one.pitch[0] = m->pitch[k];
        PD_CUDA_TRY(pd_bn_sums(&one, chunks, f->partial, s), err);
        PD_CUDA_TRY(pd_bn_totals(&one, chunks, f->partial, false, f->sums + (size_t)k * 2 * (size_t)m->c, s), err);
    }
    return PD_OK;
}

static pd_status bn_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const bn_args *a = node->args;
    const pd_bn_maps m = maps_of(node);
    const pd_bn_vectors v = vectors_of(node, run);
    cudaStream_t s = pd_cuda_of(run->device)->stream;
    forward_memory f;
    pd_bn_count count;
    float *affine = saved_affine(node, &m);
    if (empty(&m)) return PD_OK;
    lay_forward(&f, &m, a->set.batch_stats, node->scratch);
    if (a->set.batch_stats) {
        bool shifted = !a->set.sync; /* the processes' first pixels differ */
        PD_TRY(branch_sums(node, &m, &f, &shifted, s, err));
        PD_TRY(share_sums(&count, &m, a->set.sync, run, f.sums, f.count, err));
        PD_CUDA_TRY(pd_bn_finish(&m, &v, f.sums, count, shifted, a->set.eps, a->set.momentum, node->saved, affine, s),
                    err);
    } else {
        PD_CUDA_TRY(pd_bn_running(&m, &v, a->set.eps, node->saved, affine, s), err);
    }
    PD_CUDA_TRY(pd_bn_apply(&m, affine, node->in[RESIDUAL] ? node->in[RESIDUAL]->data : NULL, a->set.relu,
                            node->out[0]->data, s),
                err);
    return PD_OK;
}

static pd_status bn_bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const bn_args *a = node->args;
    const pd_bn_maps m = maps_of(node);
    const pd_bn_vectors v = vectors_of(node, run);
    cudaStream_t s = pd_cuda_of(run->device)->stream;
    backward_memory b;
    if (empty(&m)) return PD_OK;
    lay_backward(&b, &m, node->scratch);
    const int chunks = pd_bn_chunks(&m);
    const void *dy = node->out[0]->grad, *y = node->out[0]->data;
    const bool again = m.branches == 1 && !m.gate && !node->in[RESIDUAL];
    const float *affine = again ? saved_affine(node, &m) : NULL;
    PD_CUDA_TRY(pd_bn_grad_sums(&m, chunks, dy, y, a->set.relu, affine, node->saved, b.partial, s), err);
    PD_CUDA_TRY(pd_bn_grad_totals(&m, chunks, b.partial, b.total, s), err);
    PD_CUDA_TRY(pd_bn_grad_finish(&m, &v, node->saved, b.total, b.sums, s), err);
    if (m.gate && pd_wants_grad(node, GATE))
        PD_CUDA_TRY(
            pd_bn_grad_gate(&m, &v, node->saved, b.total, node->in[GATE]->grad, pd_adds_grad(node, GATE, run), s), err);
    pd_bn_count count = {0};
    if (a->set.batch_stats) PD_TRY(share_sums(&count, &m, a->set.sync, run, b.sums, b.count, err));
    PD_CUDA_TRY(pd_bn_grad_coefficients(&m, &v, node->saved, b.sums, count, b.pqr, s), err);
    const bool residual = node->in[RESIDUAL] && pd_wants_grad(node, RESIDUAL);
    PD_CUDA_TRY(pd_bn_grad_apply(&m, b.pqr, dy, y, a->set.relu, affine, residual ? node->in[RESIDUAL]->grad : NULL,
                                 residual && pd_adds_grad(node, RESIDUAL, run), s),
                err);
    return PD_OK;
}

const pd_kernel pd_cuda_bn_sum = {bn_plan, bn_fwd, bn_bwd, NULL};
