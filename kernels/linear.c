#include "kernels/linear.h"
#include "kernels/linear_node.h"
#include "kernels/onednn.h"

#include <string.h>

static void sizes(const pd_node *node, int *n, int *in, int *out)
{
    *n = node->in[X]->shape.dim[0];
    *out = node->in[W]->shape.dim[0];
    *in = (int)(pd_shape_size(node->in[W]->shape) / (size_t)*out);
}

static bool has_relu(const pd_node *node)
{
    return *(const bool *)node->args;
}

static pd_status linear_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    (void)run;
    int n, in, out;
    sizes(node, &n, &in, &out);
    float *y = node->out[0]->data;
    const float *bias = node->in[BIAS] ? node->in[BIAS]->data : NULL;
    for (int i = 0; bias && i < n; i++) memcpy(y + (size_t)i * (size_t)out, bias, (size_t)out * sizeof *y);
    PD_TRY(pd_sgemm(false, true, n, out, in, node->in[X]->data, in, node->in[W]->data, in, bias ? 1.f : 0.f, y, out,
                    err));
    for (size_t i = 0; has_relu(node) && i < (size_t)n * (size_t)out; i++) y[i] = y[i] > 0 ? y[i] : 0;
    return PD_OK;
}

static pd_status linear_bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    int n, in, out;
    sizes(node, &n, &in, &out);
    float *dy = node->out[0]->grad;
    const float *y = node->out[0]->data;
    const size_t rows = (size_t)n, k = (size_t)out;
    for (size_t i = 0; has_relu(node) && i < rows * k; i++) dy[i] = y[i] > 0 ? dy[i] : 0;
    if (pd_wants_grad(node, X))
        PD_TRY(pd_sgemm(false, false, n, in, out, dy, out, node->in[W]->data, in,
                        pd_adds_grad(node, X, run) ? 1.f : 0.f, node->in[X]->grad, in, err));
    if (pd_wants_grad(node, W))
        PD_TRY(pd_sgemm(true, false, out, in, n, dy, out, node->in[X]->data, in,
                        pd_adds_grad(node, W, run) ? 1.f : 0.f, node->in[W]->grad, in, err));
    if (node->in[BIAS] && pd_wants_grad(node, BIAS)) {
        float *db = node->in[BIAS]->grad;
        if (!pd_adds_grad(node, BIAS, run)) memset(db, 0, k * sizeof *db);
        for (size_t r = 0; r < rows; r++)
            for (size_t i = 0; i < k; i++) db[i] += dy[r * k + i];
    }
    return PD_OK;
}

/* in * out per row; the ReLU once per output. A bias is not counted. */
static double linear_macs(const pd_node *node)
{
    int n, in, out;
    sizes(node, &n, &in, &out);
    return (double)n * out * (in + (has_relu(node) ? 1 : 0));
}

static const pd_kernel linear_cpu = {NULL, linear_fwd, linear_bwd, NULL};
static const pd_op linear_op = {.name = "linear", .bwd_reads_in = 1u << X | 1u << W, .bwd_reads_out = 1u,
                                .differentiable = true, .kernel = {[PD_CPU] = &linear_cpu}, .macs = linear_macs};

pd_value *pd_linear(pd_tape *t, const char *name, pd_value *x, pd_value *w, pd_value *bias, bool relu)
{
    if (pd_tape_status(t, NULL) != PD_OK) return pd_tape_dead(t);
    const size_t n = (size_t)x->shape.dim[0], in = n ? pd_shape_size(x->shape) / n : 0;
    if (w->shape.rank < 2 || n * (pd_shape_size(w->shape) / (size_t)w->shape.dim[0]) != n * in) {
        char a[64], b[64];
        pd_tape_fail(t, PD_EINVAL, "%s: weights %s do not fit an input %s", name, pd_shape_text(a, w->shape),
                     pd_shape_text(b, x->shape));
        return pd_tape_dead(t);
    }
    return pd_tape_add1(t, &linear_op, name, 3, (pd_value *[]){x, w, bias}, PD_SHAPE(x->shape.dim[0], w->shape.dim[0]),
                        &relu, sizeof relu);
}
