#include "kernels/mixed_loss.h"
#include "kernels/mixed_loss_math.h"
#include "kernels/mixed_loss_node.h"
#include "kernels/vecmath.h"

#include <math.h>

/* Kept from fwd to bwd: softmax(x)_c = exp(x_c - max) * inverse_sum. */
typedef struct mixed_row {
    float max, inverse_sum;
} mixed_row;

typedef struct mixed_part {
    double loss, correct;
} mixed_part;

typedef struct job {
    const pd_node *node;
    const pd_run *run;
} job;

static pd_status plan(pd_node *node, pd_device *device, pd_err *err)
{
    const mixed_args *a = node->args;
    (void)device;
    (void)err;
    node->saved_bytes = (size_t)a->rows * sizeof(mixed_row);
    node->scratch_fwd = (size_t)a->rows * sizeof(mixed_part);
    return PD_OK;
}

/* log(1 + e^-|x|) + max(x, 0) */
static double softplus(double x)
{
    return (x > 0 ? x : 0) + log1p(exp(-fabs(x)));
}

static void forward_rows(void *arg, size_t begin, size_t end, int thread)
{
    const job *j = arg;
    const mixed_args *m = j->node->args;
    const int *a = j->node->in[CLASS_A]->data, *b = j->node->in[CLASS_B]->data;
    const float share = *(const float *)j->node->in[SHARE]->data;
    (void)thread;
    for (size_t r = begin; r < end; r++) {
        const float *x = (const float *)j->node->in[LOGITS]->data + r * (size_t)m->k;
        double sum = 0, loss = 0;
        int top = 0;
        for (int c = 1; c < m->k; c++)
            if (x[c] > x[top]) top = c;
        for (int c = 0; c < m->k; c++) sum += exp((double)x[c] - (double)x[top]);
        for (int c = 0; c < m->k; c++) {
            const double t = (double)pd_mixed_target(&m->cfg, m->k, c, a[r], b[r], share), v = (double)x[c];
            loss += m->cfg.kind == PD_MIXED_SIGMOID ? softplus(v) - v * t : t * (log(sum) + (double)x[top] - v);
        }
        ((mixed_row *)j->node->saved)[r] = (mixed_row){x[top], (float)(1 / sum)};
        ((mixed_part *)j->node->scratch)[r] = (mixed_part){loss, top == (share >= 0.5f ? a[r] : b[r])};
    }
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const mixed_args *m = node->args;
    const float share = *(const float *)node->in[SHARE]->data;
    if (!(share >= 0 && share <= 1))
        return PD_FAIL(err, PD_EINVAL, "a mixture's share is %g, expected 0..1", (double)share);
    for (int i = CLASS_A; i <= CLASS_B; i++)
        for (int r = 0; r < m->rows; r++) {
            const int c = ((const int *)node->in[i]->data)[r];
            if (c < 0 || c >= m->k)
                return PD_FAIL(err, PD_EINVAL, "row %d has class %d, expected 0..%d", r, c, m->k - 1);
        }
    job j = {node, run};
    pd_parallel(run->device->pool, (size_t)m->rows, forward_rows, &j);
    mixed_part sum = {0, 0};
    for (int r = 0; r < m->rows; r++) {
        sum.loss += ((const mixed_part *)node->scratch)[r].loss;
        sum.correct += ((const mixed_part *)node->scratch)[r].correct;
    }
    *(float *)node->out[0]->data = (float)(sum.loss / pd_mixed_terms(&m->cfg, m->rows, m->k));
    *(float *)node->out[1]->data = (float)sum.correct;
    return PD_OK;
}

static void backward_rows(void *arg, size_t begin, size_t end, int thread)
{
    const job *j = arg;
    const mixed_args *m = j->node->args;
    const int *a = j->node->in[CLASS_A]->data, *b = j->node->in[CLASS_B]->data;
    const float share = *(const float *)j->node->in[SHARE]->data;
    const float scale = j->node->out[0]->grad[0] / (float)pd_mixed_terms(&m->cfg, m->rows, m->k);
    const int add = pd_adds_grad(j->node, LOGITS, j->run);
    (void)thread;
    for (size_t r = begin; r < end; r++) {
        const float *x = (const float *)j->node->in[LOGITS]->data + r * (size_t)m->k;
        float *grad = j->node->in[LOGITS]->grad + r * (size_t)m->k;
        const mixed_row *row = (const mixed_row *)j->node->saved + r;
        for (int c = 0; c < m->k; c++) {
            const float p = m->cfg.kind == PD_MIXED_SIGMOID ? 1 / (1 + pd_vec_exp(-x[c]))
                                                            : pd_vec_exp(x[c] - row->max) * row->inverse_sum;
            const float g = scale * (p - pd_mixed_target(&m->cfg, m->k, c, a[r], b[r], share));
            grad[c] = add ? grad[c] + g : g;
        }
    }
}

static pd_status bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const mixed_args *m = node->args;
    job j = {node, run};
    (void)err;
    if (pd_wants_grad(node, LOGITS)) pd_parallel(run->device->pool, (size_t)m->rows, backward_rows, &j);
    return PD_OK;
}

static const pd_kernel cpu = {plan, fwd, bwd, NULL};
static const pd_op mixed_loss = {
    .name = "mixed_loss",
    .bwd_reads_in = 1u << LOGITS | 1u << CLASS_A | 1u << CLASS_B | 1u << SHARE,
    .differentiable = true,
    .kernel = {[PD_CPU] = &cpu},
};

pd_value *pd_mixed_loss(pd_tape *tape, pd_value *logits, pd_value *a, pd_value *b, pd_value *share,
                        const pd_mixed_cfg *cfg, pd_value **correct)
{
    pd_value *dead = pd_tape_dead(tape);
    if (correct) *correct = dead;
    if (pd_tape_status(tape, NULL) != PD_OK) return dead;
    const pd_shape s = logits->shape;
    char text[64];
    const bool classes = s.rank == 2 && s.dim[1] > 0 && a->dtype == PD_I32 && b->dtype == PD_I32 &&
                         pd_shape_size(a->shape) == (size_t)s.dim[0] && pd_shape_size(b->shape) == (size_t)s.dim[0];
    if (!classes || pd_shape_size(share->shape) != 1 || share->dtype != PD_F32) {
        pd_tape_fail(tape, PD_EINVAL,
                     "mixed_loss: logits %s: expected (rows, classes), two int32 classes for each row and one share",
                     pd_shape_text(text, s));
        return dead;
    }
    if (!(cfg->smoothing >= 0 && cfg->smoothing <= 1) || !(cfg->threshold >= 0 && cfg->threshold < 1)) {
        pd_tape_fail(tape, PD_EINVAL, "mixed_loss: smoothing %g, threshold %g: expected 0..1", (double)cfg->smoothing,
                     (double)cfg->threshold);
        return dead;
    }
    const mixed_args args = {s.dim[0], s.dim[1], *cfg};
    pd_value *in[] = {logits, a, b, share};
    const pd_shape shapes[] = {PD_SHAPE(1), PD_SHAPE(1)};
    pd_node *node = pd_tape_add(tape, &mixed_loss, NULL, 4, in, 2, shapes, NULL, &args, sizeof args);
    if (!node) return dead;
    if (correct) *correct = node->out[1];
    return node->out[0];
}
