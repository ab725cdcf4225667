#include "kernels/dense_loss.h"
#include "kernels/dense_loss_node.h"
#include "kernels/simd.h"

#include <string.h>

pd_value *pd_dense_loss(pd_tape *tape, const pd_op *op, pd_value *const *logits, int levels, pd_value *label,
                        pd_value *weight, int k, const void *cfg, size_t cfg_size)
{
    char text[64];
    if (pd_tape_status(tape, NULL) != PD_OK) return pd_tape_dead(tape);
    dense_node a = {.args = {.levels = levels, .k = k}};
    if (levels < 1 || levels > PD_MAX_LEVELS || k < 1) {
        pd_tape_fail(tape, PD_EINVAL, "%s: %d levels and %d classes: expected 1..%d levels, at least 1 class", op->name,
                     levels, k, PD_MAX_LEVELS);
        return pd_tape_dead(tape);
    }
    if (label->dtype != PD_I32 || label->shape.rank != 2) {
        pd_tape_fail(tape, PD_EINVAL, "%s: labels %s: expected int32 (n, boxes)", op->name,
                     pd_shape_text(text, label->shape));
        return pd_tape_dead(tape);
    }
    a.args.n = label->shape.dim[0];
    a.args.boxes = label->shape.dim[1];
    if (weight->shape.rank != 1 || weight->shape.dim[0] != a.args.n) {
        pd_tape_fail(tape, PD_EINVAL, "%s: weights %s: expected (%d)", op->name, pd_shape_text(text, weight->shape),
                     a.args.n);
        return pd_tape_dead(tape);
    }
    pd_value *in[LOGITS + PD_MAX_LEVELS] = {label, weight};
    for (int l = 0; l < levels; l++) {
        const pd_shape s = logits[l]->shape;
        size_t per_image = 1;
        for (int i = 1; i < s.rank; i++) per_image *= (size_t)s.dim[i];
        if (s.dim[0] != a.args.n || per_image % (size_t)k || per_image / (size_t)k > (size_t)a.args.boxes) {
            pd_tape_fail(tape, PD_EINVAL,
                         "%s: logits %s of level %d: expected %d images of up to %d boxes x %d classes", op->name,
                         pd_shape_text(text, s), l, a.args.n, a.args.boxes, k);
            return pd_tape_dead(tape);
        }
        a.args.first[l + 1] = a.args.first[l] + (int)(per_image / (size_t)k);
        in[LOGITS + l] = logits[l];
    }
    if (a.args.first[levels] != a.args.boxes) {
        pd_tape_fail(tape, PD_EINVAL, "%s: the levels hold %d boxes, the labels %d", op->name, a.args.first[levels],
                     a.args.boxes);
        return pd_tape_dead(tape);
    }
    memcpy(a.cfg, cfg, cfg_size);
    return pd_tape_add1(tape, op, NULL, LOGITS + levels, in, PD_SHAPE(1), &a, sizeof a);
}

static size_t level_logits(const pd_dense_args *a, int l)
{
    return (size_t)(a->first[l + 1] - a->first[l]) * (size_t)a->k;
}

static size_t level_chunks(const pd_dense_args *a, int l)
{
    return (level_logits(a, l) + PD_DENSE_CHUNK - 1) / PD_DENSE_CHUNK;
}

static size_t all_chunks(const pd_dense_args *a)
{
    size_t chunks = 0;
    for (int l = 0; l < a->levels; l++) chunks += level_chunks(a, l);
    return chunks * (size_t)a->n;
}

pd_status pd_dense_loss_plan(pd_node *node, pd_device *device, pd_err *err)
{
    (void)device;
    (void)err;
    node->scratch_fwd = all_chunks(node->args) * sizeof(double);
    return PD_OK;
}

/* Logits [begin, begin + n) of one image and level. */
typedef struct chunk {
    int level, image;
    size_t begin;
    int n;
    const float *x;
    const int *label; /* of the level's boxes */
} chunk;

static chunk find_chunk(const pd_node *node, size_t number)
{
    const pd_dense_args *a = node->args;
    chunk c = {0};
    size_t per_image = level_chunks(a, 0);
    while (number >= per_image * (size_t)a->n) {
        number -= per_image * (size_t)a->n;
        per_image = level_chunks(a, ++c.level);
    }
    const size_t logits = level_logits(a, c.level);
    c.image = (int)(number / per_image);
    c.begin = number % per_image * PD_DENSE_CHUNK;
    c.n = (int)(logits - c.begin < PD_DENSE_CHUNK ? logits - c.begin : PD_DENSE_CHUNK);
    c.x = (const float *)node->in[LOGITS + c.level]->data + (size_t)c.image * logits + c.begin;
    c.label = (const int *)node->in[LABEL]->data + (size_t)c.image * (size_t)a->boxes + a->first[c.level];
    return c;
}

/* Replaces the entries of boxes that are not background: 0 where left out, the positive term at the label's class. */
static void put_right(float *term, const chunk *c, int k, float (*positive)(float, const void *), const void *cfg)
{
    const size_t end = c->begin + (size_t)c->n;
    for (size_t box = c->begin / (size_t)k; box * (size_t)k < end; box++) {
        const int label = c->label[box];
        if (label >= k) continue;
        const size_t row = box * (size_t)k;
        if (label >= 0) {
            const size_t at = row + (size_t)label;
            if (at >= c->begin && at < end) term[at - c->begin] = positive(c->x[at - c->begin], cfg);
            continue;
        }
        const size_t from = row > c->begin ? row - c->begin : 0;
        const size_t to = row + (size_t)k < end ? row + (size_t)k - c->begin : (size_t)c->n;
        memset(term + from, 0, (to - from) * sizeof *term);
    }
}

/* By halves: vectorises, and rounds log2(n) times only. t has PD_DENSE_CHUNK entries and is overwritten. */
PD_CLONES static double sum_chunk(float *t)
{
    for (int n = PD_DENSE_CHUNK / 2; n >= 16; n /= 2)
        for (int i = 0; i < n; i++) t[i] += t[i + n];
    double sum = 0;
    for (int i = 0; i < 16; i++) sum += (double)t[i];
    return sum;
}

typedef struct job {
    pd_node *node;
    const pd_run *run;
    const pd_dense_terms *terms;
} job;

static void forward_chunks(void *arg, size_t begin, size_t end, int thread)
{
    const job *j = arg;
    const dense_node *a = j->node->args;
    float term[PD_DENSE_CHUNK];
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const chunk c = find_chunk(j->node, i);
        j->terms->background(term, c.x, c.n, a->cfg);
        put_right(term, &c, a->args.k, j->terms->positive, a->cfg);
        memset(term + c.n, 0, (PD_DENSE_CHUNK - (size_t)c.n) * sizeof *term);
        const float *weight = j->node->in[WEIGHT]->data;
        ((double *)j->node->scratch)[i] = (double)weight[c.image] * sum_chunk(term);
    }
}

pd_status pd_dense_loss_fwd(pd_node *node, const pd_run *run, const pd_dense_terms *terms)
{
    job j = {node, run, terms};
    const size_t chunks = all_chunks(node->args);
    pd_parallel(run->device->pool, chunks, forward_chunks, &j);
    double sum = 0;
    for (size_t i = 0; i < chunks; i++) sum += ((const double *)node->scratch)[i];
    *(float *)node->out[0]->data = (float)sum;
    return PD_OK;
}

PD_CLONES static void scale_into(float *restrict to, const float *restrict from, int n, float scale, int add)
{
    if (add) {
        for (int i = 0; i < n; i++) to[i] += scale * from[i];
    } else {
        for (int i = 0; i < n; i++) to[i] = scale * from[i];
    }
}

static void backward_chunks(void *arg, size_t begin, size_t end, int thread)
{
    const job *j = arg;
    const dense_node *a = j->node->args;
    float slope[PD_DENSE_CHUNK];
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const chunk c = find_chunk(j->node, i);
        if (!pd_wants_grad(j->node, LOGITS + c.level)) continue;
        j->terms->background_slope(slope, c.x, c.n, a->cfg);
        put_right(slope, &c, a->args.k, j->terms->positive_slope, a->cfg);
        const float *weight = j->node->in[WEIGHT]->data;
        float *grad = j->node->in[LOGITS + c.level]->grad + (size_t)c.image * level_logits(&a->args, c.level) + c.begin;
        scale_into(grad, slope, c.n, weight[c.image] * j->node->out[0]->grad[0],
                   pd_adds_grad(j->node, LOGITS + c.level, j->run));
    }
}

pd_status pd_dense_loss_bwd(pd_node *node, const pd_run *run, const pd_dense_terms *terms)
{
    job j = {node, run, terms};
    pd_parallel(run->device->pool, all_chunks(node->args), backward_chunks, &j);
    return PD_OK;
}
