#include "kernels/softmax_ce.h"
#include "kernels/softmax_ce_node.h"
#include "kernels/simd.h"
#include "kernels/vecmath.h"

#include <math.h>

/* Kept from fwd to bwd. */
typedef struct ce_row {
    float max, inverse_sum; /* softmax(x)_c = exp(x_c - max) * inverse_sum */
    float weight;           /* 0: takes no part */
} ce_row;

typedef struct ce_part {
    double loss;
    double correct;
} ce_part;

static pd_status plan(pd_node *node, pd_device *device, pd_err *err)
{
    const ce_args *a = node->args;
    (void)device;
    (void)err;
    node->saved_bytes = (size_t)a->rows * sizeof(ce_row);
    node->scratch_fwd = (size_t)a->rows * sizeof(ce_part);
    return PD_OK;
}

/* Sixteen partial sums, so that it vectorises in a fixed order. */
PD_CLONES static double sum_exp(const float *x, int k, float max)
{
    float part[16] = {0};
    int c = 0;
    for (; c + 16 <= k; c += 16)
        for (int i = 0; i < 16; i++) part[i] += pd_vec_exp(x[c + i] - max);
    double sum = 0;
    for (; c < k; c++) sum += (double)pd_vec_exp(x[c] - max);
    for (int i = 0; i < 16; i++) sum += (double)part[i];
    return sum;
}

typedef struct job {
    pd_node *node;
    const pd_run *run;
    float mean_weight; /* without weights: 1 / rows that take part */
} job;

static void forward_rows(void *arg, size_t begin, size_t end, int thread)
{
    const job *j = arg;
    const ce_args *a = j->node->args;
    const int *label = j->node->in[LABEL]->data;
    const float *weight = j->node->in[WEIGHT] ? j->node->in[WEIGHT]->data : NULL;
    (void)thread;
    for (size_t r = begin; r < end; r++) {
        const float *x = (const float *)j->node->in[LOGITS]->data + r * (size_t)a->k;
        ce_row *row = (ce_row *)j->node->saved + r;
        ce_part *part = (ce_part *)j->node->scratch + r;
        *row = (ce_row){0};
        *part = (ce_part){0};
        if (label[r] < 0) continue;
        int top = 0;
        double mean = 0;
        for (int c = 0; c < a->k; c++) {
            if (x[c] > x[top]) top = c;
            mean += (double)x[c];
        }
        mean /= a->k;
        const double sum = sum_exp(x, a->k, x[top]), max = (double)x[top], s = (double)a->smoothing;
        row->max = x[top];
        row->inverse_sum = (float)(1 / sum);
        row->weight = weight ? weight[r / (size_t)a->per_weight] : j->mean_weight;
        part->loss = (double)row->weight * (log(sum) + (1 - s) * (max - (double)x[label[r]]) + s * (max - mean));
        part->correct = top == label[r];
    }
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const ce_args *a = node->args;
    const int *label = node->in[LABEL]->data;
    int used = 0;
    for (int r = 0; r < a->rows; r++) {
        if (label[r] >= a->k)
            return PD_FAIL(err, PD_EINVAL, "row %d has class %d, expected 0..%d (or less than 0 to leave it out)", r,
                           label[r], a->k - 1);
        used += label[r] >= 0;
    }
    job j = {node, run, 1.f / (float)(used ? used : 1)};
    pd_parallel(run->device->pool, (size_t)a->rows, forward_rows, &j);
    ce_part sum = {0};
    for (int r = 0; r < a->rows; r++) {
        sum.loss += ((const ce_part *)node->scratch)[r].loss;
        sum.correct += ((const ce_part *)node->scratch)[r].correct;
    }
    *(float *)node->out[0]->data = (float)sum.loss;
    *(float *)node->out[1]->data = (float)sum.correct;
    return PD_OK;
}

/* grad = scale * (softmax - smooth), added to what is there or not. Gradient and logits may be the same memory. */
PD_CLONES static void row_slope(float *grad, const float *x, int k, const ce_row *row, float scale, float smooth,
                                int add)
{
    const float max = row->max, inverse = row->inverse_sum;
    if (add) {
        PD_IVDEP
        for (int c = 0; c < k; c++) grad[c] += scale * (pd_vec_exp(x[c] - max) * inverse - smooth);
    } else {
        PD_IVDEP
        for (int c = 0; c < k; c++) grad[c] = scale * (pd_vec_exp(x[c] - max) * inverse - smooth);
    }
}

static void backward_rows(void *arg, size_t begin, size_t end, int thread)
{
    const job *j = arg;
    const ce_args *a = j->node->args;
    const int *label = j->node->in[LABEL]->data;
    const int add = pd_adds_grad(j->node, LOGITS, j->run);
    (void)thread;
    for (size_t r = begin; r < end; r++) {
        const float *x = (const float *)j->node->in[LOGITS]->data + r * (size_t)a->k;
        float *grad = j->node->in[LOGITS]->grad + r * (size_t)a->k;
        const ce_row *row = (const ce_row *)j->node->saved + r;
        if (label[r] < 0) {
            for (int c = 0; c < a->k && !add; c++) grad[c] = 0;
            continue;
        }
        const float scale = row->weight * j->node->out[0]->grad[0];
        row_slope(grad, x, a->k, row, scale, a->smoothing / (float)a->k, add);
        grad[label[r]] -= scale * (1.f - a->smoothing);
    }
}

static pd_status bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const ce_args *a = node->args;
    job j = {node, run, 0};
    (void)err;
    if (pd_wants_grad(node, LOGITS)) pd_parallel(run->device->pool, (size_t)a->rows, backward_rows, &j);
    return PD_OK;
}

static const pd_kernel cpu = {plan, fwd, bwd, NULL};
static const pd_op softmax_ce = {
    .name = "softmax_ce",
    .bwd_reads_in = 1u << LOGITS | 1u << LABEL,
    .grad_over_in = 1u << LOGITS,
    .differentiable = true,
    .kernel = {[PD_CPU] = &cpu},
};

pd_value *pd_softmax_ce(pd_tape *tape, pd_value *logits, pd_value *label, pd_value *weight, float smoothing,
                        pd_value **correct)
{
    pd_value *dead = pd_tape_dead(tape);
    if (correct) *correct = dead;
    if (pd_tape_status(tape, NULL) != PD_OK) return dead;
    const pd_shape s = logits->shape;
    char text[64];
    const int k = s.rank > 1 ? s.dim[s.rank - 1] : 0, rows = s.dim[0];
    const int weights = weight ? weight->shape.dim[0] : 1;
    if (k < 1 || pd_shape_size(s) != (size_t)rows * (size_t)k) {
        pd_tape_fail(tape, PD_EINVAL, "softmax_ce: logits %s: expected (rows, classes)", pd_shape_text(text, s));
        return dead;
    }
    if (label->dtype != PD_I32 || pd_shape_size(label->shape) != (size_t)rows) {
        pd_tape_fail(tape, PD_EINVAL, "softmax_ce: labels %s: expected %d int32", pd_shape_text(text, label->shape),
                     rows);
        return dead;
    }
    if (weight && (weight->shape.rank != 1 || (weights ? rows % weights : rows))) {
        pd_tape_fail(tape, PD_EINVAL, "softmax_ce: weights %s: expected a number that divides %d rows",
                     pd_shape_text(text, weight->shape), rows);
        return dead;
    }
    if (!(smoothing >= 0 && smoothing <= 1)) {
        pd_tape_fail(tape, PD_EINVAL, "softmax_ce: smoothing %g: expected 0..1", (double)smoothing);
        return dead;
    }
    const ce_args a = {
        .rows = rows, .k = k, .per_weight = weights && rows ? rows / weights : 1, .smoothing = smoothing};
    pd_value *in[] = {logits, label, weight};
    const pd_shape shapes[] = {PD_SHAPE(1), PD_SHAPE(1)};
    pd_node *node = pd_tape_add(tape, &softmax_ce, NULL, 3, in, 2, shapes, NULL, &a, sizeof a);
    if (!node) return dead;
    if (correct) *correct = node->out[1];
    return node->out[0];
}
