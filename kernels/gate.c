#include "kernels/gate.h"
#include "kernels/gate_node.h"

#include <math.h>
#include <string.h>

static pd_status softmax_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    (void)run;
    (void)err;
    const size_t n = (size_t)node->out[0]->shape.dim[0], k = (size_t)node->out[0]->shape.dim[1];
    for (size_t r = 0; r < n; r++) {
        const float *x = (const float *)node->in[0]->data + r * k;
        float *y = (float *)node->out[0]->data + r * k, top = -INFINITY, sum = 0;
        for (size_t i = 0; i < k; i++) top = x[i] > top ? x[i] : top;
        for (size_t i = 0; i < k; i++) sum += y[i] = expf(x[i] - top);
        for (size_t i = 0; i < k; i++) y[i] /= sum;
    }
    return PD_OK;
}

static pd_status softmax_bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    (void)err;
    const size_t n = (size_t)node->out[0]->shape.dim[0], k = (size_t)node->out[0]->shape.dim[1];
    const bool add = pd_adds_grad(node, 0, run);
    for (size_t r = 0; r < n; r++) {
        const float *y = (const float *)node->out[0]->data + r * k, *dy = node->out[0]->grad + r * k;
        float *dx = node->in[0]->grad + r * k, dot = 0;
        for (size_t i = 0; i < k; i++) dot += y[i] * dy[i];
        for (size_t i = 0; i < k; i++) dx[i] = y[i] * (dy[i] - dot) + (add ? dx[i] : 0.f);
    }
    return PD_OK;
}

static const pd_kernel softmax_cpu = {NULL, softmax_fwd, softmax_bwd, NULL};
static const pd_op softmax_op = {
    .name = "row_softmax", .bwd_reads_out = 1u, .differentiable = true, .kernel = {[PD_CPU] = &softmax_cpu}};

pd_value *pd_row_softmax(pd_tape *t, pd_value *x)
{
    if (pd_tape_status(t, NULL) != PD_OK) return pd_tape_dead(t);
    if (x->shape.rank != 2) {
        pd_tape_fail(t, PD_EINVAL, "softmax wants (n, k)");
        return pd_tape_dead(t);
    }
    return pd_tape_add1(t, &softmax_op, "", 1, &x, x->shape, NULL, 0);
}

/* ---- excitation ---- */

typedef struct excite {
    size_t n, h, w, c, mh, mw;
    const float *x, *m, *residual, *y;
    float *out, *gate; /* sigmoid(m), made once per run */
    float *dy, *dx, *dm, *dres;
    bool relu, add_x, add_m, add_res;
} excite;

static excite excite_of(const pd_node *node)
{
    const int *d = node->out[0]->shape.dim;
    const pd_shape ms = node->in[M]->shape;
    return (excite){.n = (size_t)d[0], .h = (size_t)d[1], .w = (size_t)d[2], .c = (size_t)d[3],
                    .mh = ms.rank == 2 ? 1 : (size_t)ms.dim[1], .mw = ms.rank == 2 ? 1 : (size_t)ms.dim[2],
                    .x = node->in[X]->data, .m = node->in[M]->data,
                    .residual = node->in[RESIDUAL] ? node->in[RESIDUAL]->data : NULL, .y = node->out[0]->data,
                    .out = node->out[0]->data, .gate = node->saved, .relu = *(const bool *)node->args};
}

static void excite_rows(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const excite *e = arg;
    for (size_t row = begin; row < end; row++) {
        const size_t n = row / e->h, my = row % e->h * e->mh / e->h;
        for (size_t ox = 0; ox < e->w; ox++) {
            const size_t at = (row * e->w + ox) * e->c;
            const float *gate = e->gate + ((n * e->mh + my) * e->mw + ox * e->mw / e->w) * e->c;
            const float *x = e->x + at, *res = e->residual ? e->residual + at : NULL;
            float *y = e->out + at;
            for (size_t i = 0; i < e->c; i++) {
                const float v = x[i] * gate[i] + (res ? res[i] : 0.f);
                y[i] = e->relu && !(v > 0) ? 0 : v;
            }
        }
    }
}

/* All pixels that read cell (n, my): the gradient of x, the residual and, summed, of m. */
static void excite_back_cells(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const excite *e = arg;
    for (size_t cell_row = begin; cell_row < end; cell_row++) {
        const size_t n = cell_row / e->mh, my = cell_row % e->mh;
        float *dm = e->dm ? e->dm + cell_row * e->mw * e->c : NULL;
        if (dm && !e->add_m) memset(dm, 0, e->mw * e->c * sizeof *dm);
        for (size_t oy = 0; oy < e->h; oy++) {
            if (oy * e->mh / e->h != my) continue;
            for (size_t ox = 0; ox < e->w; ox++) {
                const size_t at = ((n * e->h + oy) * e->w + ox) * e->c, mx = ox * e->mw / e->w;
                const float *gate = e->gate + (cell_row * e->mw + mx) * e->c;
                for (size_t i = 0; i < e->c; i++) {
                    const float g = e->relu && !(e->y[at + i] > 0) ? 0 : e->dy[at + i], s = gate[i];
                    if (e->dx) e->dx[at + i] = g * s + (e->add_x ? e->dx[at + i] : 0.f);
                    if (e->dres) e->dres[at + i] = g + (e->add_res ? e->dres[at + i] : 0.f);
                    if (dm) dm[mx * e->c + i] += g * e->x[at + i] * s * (1 - s);
                }
            }
        }
    }
}

static pd_status excite_plan(pd_node *node, pd_device *device, pd_err *err)
{
    (void)device;
    (void)err;
    node->saved_bytes = pd_shape_size(node->in[M]->shape) * sizeof(float);
    return PD_OK;
}

static pd_status excite_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    (void)err;
    excite e = excite_of(node);
    const size_t cells = pd_shape_size(node->in[M]->shape);
    for (size_t i = 0; i < cells; i++) e.gate[i] = 1 / (1 + expf(-e.m[i]));
    pd_parallel(run->device->pool, e.n * e.h, excite_rows, &e);
    return PD_OK;
}

static pd_status excite_bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    (void)err;
    excite e = excite_of(node);
    e.dy = node->out[0]->grad;
    if (pd_wants_grad(node, X)) e.dx = node->in[X]->grad;
    if (pd_wants_grad(node, M)) e.dm = node->in[M]->grad;
    if (node->in[RESIDUAL] && pd_wants_grad(node, RESIDUAL)) e.dres = node->in[RESIDUAL]->grad;
    e.add_x = pd_adds_grad(node, X, run);
    e.add_m = pd_adds_grad(node, M, run);
    e.add_res = node->in[RESIDUAL] && pd_adds_grad(node, RESIDUAL, run);
    pd_parallel(run->device->pool, e.n * e.mh, excite_back_cells, &e);
    return PD_OK;
}

/* Additions, products and the sigmoid are not counted; the ReLU is. */
static double excite_macs(const pd_node *node)
{
    return *(const bool *)node->args ? (double)pd_shape_size(node->out[0]->shape) : 0;
}

static const pd_kernel excite_cpu = {excite_plan, excite_fwd, excite_bwd, NULL};
static const pd_op excite_op = {.name = "excite", .bwd_reads_in = 1u << X | 1u << M, .bwd_reads_out = 1u, .differentiable = true,
                                .kernel = {[PD_CPU] = &excite_cpu}, .macs = excite_macs};

pd_value *pd_excite(pd_tape *t, pd_value *x, pd_value *m, pd_value *residual, bool relu)
{
    if (pd_tape_status(t, NULL) != PD_OK) return pd_tape_dead(t);
    const int c = m->shape.dim[m->shape.rank == 2 ? 1 : 3];
    if (x->shape.rank != 4 || (m->shape.rank != 2 && m->shape.rank != 4) || c != x->shape.dim[3] ||
        m->shape.dim[0] != x->shape.dim[0]) {
        char a[64], b[64];
        pd_tape_fail(t, PD_EINVAL, "an excitation %s does not fit %s", pd_shape_text(a, m->shape),
                     pd_shape_text(b, x->shape));
        return pd_tape_dead(t);
    }
    return pd_tape_add1(t, &excite_op, "", 3, (pd_value *[]){x, m, residual}, x->shape, &relu, sizeof relu);
}
