#include "kernels/fold_bn.h"
#include "kernels/fold_bn_node.h"
#include "kernels/bn_sum.h"

#include <math.h>
#include <string.h>

typedef struct fold_run {
    const pd_node *node;
    const fold_args *a;
    const pd_run *run;
} fold_run;

/* Where tap (i, j) of output o of branch b lies in the whole kernel: its first of c / groups input channels. */
static size_t embedded(const fold_args *a, int b, const int *wd, size_t o, int i, int j)
{
    const int y = i + (a->r - wd[1]) / 2, x = j + (a->s - wd[2]) / 2;
    const size_t group = o / ((size_t)a->k / (size_t)a->groups[b]);
    return (((((size_t)a->column[b] * (size_t)a->k + o) * (size_t)a->r + (size_t)y) * (size_t)a->s + (size_t)x) *
            (size_t)a->c) + group * (size_t)wd[3];
}

static void fold_outputs(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const fold_run *f = arg;
    const fold_args *a = f->a;
    float *kernel = f->node->out[0]->data, *bias = f->node->out[1]->data;
    const size_t per_output = (size_t)a->r * (size_t)a->s * (size_t)a->c, k = (size_t)a->k;
    for (size_t o = begin; o < end; o++) {
        for (size_t g = 0; g < (size_t)a->columns; g++) {
            memset(kernel + (g * k + o) * per_output, 0, per_output * sizeof *kernel);
            bias[g * k + o] = 0;
        }
        for (int b = 0; b < a->branches; b++) {
            pd_value *const *in = f->node->in + IN(b, 0);
            const int *wd = in[W]->shape.dim;
            const float s = ((const float *)in[GAMMA]->data)[o] / sqrtf(((const float *)in[VAR]->data)[o] + a->eps);
            bias[(size_t)a->column[b] * k + o] +=
                ((const float *)in[BETA]->data)[o] - s * ((const float *)in[MEAN]->data)[o];
            const float *w = (const float *)in[W]->data + o * (size_t)(wd[1] * wd[2]) * (size_t)wd[3];
            for (int i = 0; i < wd[1]; i++)
                for (int j = 0; j < wd[2]; j++, w += wd[3]) {
                    float *to = kernel + embedded(a, b, wd, o, i, j);
                    for (int c = 0; c < wd[3]; c++) to[c] += s * w[c];
                }
        }
    }
}

static void fold_back_outputs(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const fold_run *f = arg;
    const fold_args *a = f->a;
    const float *dkernel = f->node->out[0]->grad, *dbias = f->node->out[1]->grad;
    for (size_t o = begin; o < end; o++) {
        for (int b = 0; b < a->branches; b++) {
            pd_value *const *in = f->node->in + IN(b, 0);
            const int *wd = in[W]->shape.dim;
            const float r = 1 / sqrtf(((const float *)in[VAR]->data)[o] + a->eps);
            const float s = ((const float *)in[GAMMA]->data)[o] * r;
            const float db = dbias ? dbias[(size_t)a->column[b] * (size_t)a->k + o] : 0;
            const size_t first = o * (size_t)(wd[1] * wd[2]) * (size_t)wd[3];
            const float *w = (const float *)in[W]->data + first;
            const bool want_w = pd_wants_grad(f->node, IN(b, W)), add_w = pd_adds_grad(f->node, IN(b, W), f->run);
            float *dw = want_w ? in[W]->grad + first : NULL;
            double dot = 0;
            for (int i = 0; i < wd[1]; i++)
                for (int j = 0; j < wd[2]; j++, w += wd[3]) {
                    const float *g = dkernel + embedded(a, b, wd, o, i, j);
                    float part = 0;
                    for (int c = 0; c < wd[3]; c++) part += g[c] * w[c];
                    dot += (double)part;
                    if (!want_w) continue;
                    for (int c = 0; c < wd[3]; c++) dw[c] = s * g[c] + (add_w ? dw[c] : 0.f);
                    dw += wd[3];
                }
            if (pd_wants_grad(f->node, IN(b, GAMMA))) {
                float *to = &in[GAMMA]->grad[o];
                const float v = r * ((float)dot - ((const float *)in[MEAN]->data)[o] * db);
                *to = v + (pd_adds_grad(f->node, IN(b, GAMMA), f->run) ? *to : 0.f);
            }
            if (pd_wants_grad(f->node, IN(b, BETA))) {
                float *to = &in[BETA]->grad[o];
                *to = db + (pd_adds_grad(f->node, IN(b, BETA), f->run) ? *to : 0.f);
            }
        }
    }
}

static pd_status fold_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    (void)err;
    fold_run f = {node, node->args, run};
    pd_parallel(run->device->pool, (size_t)f.a->k, fold_outputs, &f);
    return PD_OK;
}

static pd_status fold_bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    (void)err;
    fold_run f = {node, node->args, run};
    pd_parallel(run->device->pool, (size_t)f.a->k, fold_back_outputs, &f);
    return PD_OK;
}

static const pd_kernel fold_cpu = {NULL, fold_fwd, fold_bwd, NULL};
static const pd_op fold_op = {
    .name = "fold_bn", .bwd_reads_in = ~0u, .differentiable = true, .makes_weights = true, .kernel = {[PD_CPU] = &fold_cpu}};

pd_folded pd_fold_bn(pd_tape *t, const char *name, int branches, const pd_fold_branch *b, int columns, int r, int s,
                     int c, float eps)
{
    const pd_folded dead = {pd_tape_dead(t), pd_tape_dead(t)};
    if (pd_tape_status(t, NULL) != PD_OK) return dead;
    fold_args args = {.branches = branches, .columns = columns, .k = b[0].w->shape.dim[0], .r = r, .s = s, .c = c,
                      .eps = eps};
    pd_value *in[PER_BRANCH * PD_MAX_BRANCHES];
    for (int i = 0; i < branches; i++) {
        const int *d = b[i].w->shape.dim;
        char text[64];
        if (branches > PD_MAX_BRANCHES || d[0] != args.k || d[1] > r || d[2] > s || d[3] * b[i].groups != c ||
            b[i].column < 0 || b[i].column >= columns) {
            pd_tape_fail(t, PD_EINVAL, "%s: branch %d with a kernel %s and %d groups does not fit into (%d, %d, %d, %d)",
                         name, i, pd_shape_text(text, b[i].w->shape), b[i].groups, args.k, r, s, c);
            return dead;
        }
        pd_value *const part[PER_BRANCH] = {b[i].w, b[i].gamma, b[i].beta, b[i].mean, b[i].var};
        memcpy(&in[IN(i, 0)], part, sizeof part);
        args.groups[i] = b[i].groups;
        args.column[i] = b[i].column;
    }
    const pd_shape out[2] = {PD_SHAPE(columns * args.k, r, s, c), PD_SHAPE(columns * args.k)};
    const pd_node *node = pd_tape_add(t, &fold_op, name, PER_BRANCH * branches, in, 2, out, NULL, &args, sizeof args);
    return node ? (pd_folded){node->out[0], node->out[1]} : dead;
}
