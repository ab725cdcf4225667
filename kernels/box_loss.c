#include "kernels/box_loss.h"
#include "kernels/box_loss_math.h"
#include "kernels/box_loss_node.h"

#include <string.h>

#define CHUNK 4096 /* boxes */

static size_t chunks_per_image(const box_args *a)
{
    return ((size_t)a->boxes + CHUNK - 1) / CHUNK;
}

static pd_status plan(pd_node *node, pd_device *device, pd_err *err)
{
    const box_args *a = node->args;
    (void)device;
    (void)err;
    node->scratch_fwd = chunks_per_image(a) * (size_t)a->n * sizeof(double);
    return PD_OK;
}

/* Boxes [begin, end) of one image. */
typedef struct chunk {
    size_t image;
    int begin, end;
    const int *match;  /* of the image */
    const pd_box *box; /* of the image */
    const pd_box *gt;  /* of the image */
} chunk;

static chunk find_chunk(const pd_node *node, size_t number)
{
    const box_args *a = node->args;
    chunk c = {.image = number / chunks_per_image(a)};
    c.begin = (int)(number % chunks_per_image(a)) * CHUNK;
    c.end = a->boxes - c.begin < CHUNK ? a->boxes : c.begin + CHUNK;
    c.match = (const int *)node->in[MATCH]->data + c.image * (size_t)a->boxes;
    c.box = (const pd_box *)node->in[BOXES]->data + (a->shared ? 0 : c.image * (size_t)a->boxes);
    c.gt = (const pd_box *)node->in[GT]->data + c.image * (size_t)a->g;
    return c;
}

/* Where the four offsets of a box lie in its level's tensor; moves *level on as b grows. */
static size_t place(const box_args *a, size_t image, int b, int *level)
{
    while (b >= a->first[*level + 1]) ++*level;
    const int in_level = a->first[*level + 1] - a->first[*level];
    return 4 * (image * (size_t)in_level + (size_t)(b - a->first[*level]));
}

typedef struct job {
    pd_node *node;
    const pd_run *run;
} job;

static void forward_chunks(void *arg, size_t begin, size_t end, int thread)
{
    const job *j = arg;
    const box_args *a = j->node->args;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const chunk c = find_chunk(j->node, i);
        double sum = 0;
        int level = 0;
        for (int b = c.begin; b < c.end; b++) {
            if (c.match[b] < 0) continue;
            const size_t at = place(a, c.image, b, &level);
            float d[4];
            pd_box_miss(d, &a->cfg.coder, c.box[b], c.gt[c.match[b]],
                        (const float *)j->node->in[DELTAS + level]->data + at);
            for (int k = 0; k < 4; k++) sum += (double)pd_smooth_l1(d[k], a->cfg.beta);
        }
        ((double *)j->node->scratch)[i] = sum * (double)((const float *)j->node->in[WEIGHT]->data)[c.image];
    }
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const box_args *a = node->args;
    job j = {node, run};
    const int *match = node->in[MATCH]->data;
    for (size_t i = 0; i < (size_t)a->n * (size_t)a->boxes; i++)
        if (match[i] >= a->g)
            return PD_FAIL(err, PD_EINVAL, "match %d, but there is room for %d ground truths", match[i], a->g);
    const size_t chunks = chunks_per_image(a) * (size_t)a->n;
    pd_parallel(run->device->pool, chunks, forward_chunks, &j);
    double sum = 0;
    for (size_t i = 0; i < chunks; i++) sum += ((const double *)node->scratch)[i];
    *(float *)node->out[0]->data = (float)sum;
    return PD_OK;
}

/* Zeroes the gradients of the chunk's boxes where nobody wrote before. */
static void clear(const job *j, const chunk *c)
{
    const box_args *a = j->node->args;
    for (int l = 0; l < a->levels; l++) {
        const int from = c->begin > a->first[l] ? c->begin : a->first[l];
        const int to = c->end < a->first[l + 1] ? c->end : a->first[l + 1];
        if (from >= to || !pd_wants_grad(j->node, DELTAS + l) || pd_adds_grad(j->node, DELTAS + l, j->run)) continue;
        int level = l;
        memset(j->node->in[DELTAS + l]->grad + place(a, c->image, from, &level), 0,
               4 * (size_t)(to - from) * sizeof(float));
    }
}

static void backward_chunks(void *arg, size_t begin, size_t end, int thread)
{
    const job *j = arg;
    const box_args *a = j->node->args;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const chunk c = find_chunk(j->node, i);
        const float scale = ((const float *)j->node->in[WEIGHT]->data)[c.image] * j->node->out[0]->grad[0];
        int level = 0;
        clear(j, &c);
        for (int b = c.begin; b < c.end; b++) {
            if (c.match[b] < 0) continue;
            const size_t at = place(a, c.image, b, &level);
            if (!pd_wants_grad(j->node, DELTAS + level)) continue;
            float d[4], *grad = j->node->in[DELTAS + level]->grad + at;
            pd_box_miss(d, &a->cfg.coder, c.box[b], c.gt[c.match[b]],
                        (const float *)j->node->in[DELTAS + level]->data + at);
            for (int k = 0; k < 4; k++) grad[k] += scale * pd_smooth_l1_slope(d[k], a->cfg.beta);
        }
    }
}

static pd_status bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const box_args *a = node->args;
    job j = {node, run};
    (void)err;
    pd_parallel(run->device->pool, chunks_per_image(a) * (size_t)a->n, backward_chunks, &j);
    return PD_OK;
}

static const pd_kernel cpu = {plan, fwd, bwd, NULL};
/* The gradient may not lie over the deltas: it is cleared before they are read. */
static const pd_op box_loss = {
    .name = "box_loss", .bwd_reads_in = ~0u, .differentiable = true, .kernel = {[PD_CPU] = &cpu}};

static const char *fault(const box_args *a, pd_value *const *in)
{
    const pd_shape b = in[BOXES]->shape, gt = in[GT]->shape;
    if (!(a->cfg.beta >= 0)) return "beta: expected >= 0";
    for (int i = 0; i < 4; i++)
        if (!(a->cfg.coder.std[i] > 0)) return "box coder: expected positive stds";
    if (in[MATCH]->dtype != PD_I32 || in[MATCH]->shape.rank != 2) return "matches: expected int32 (n, boxes)";
    if (!(b.rank == 2 && b.dim[0] == a->boxes && b.dim[1] == 4) &&
        !(b.rank == 3 && b.dim[0] == a->n && b.dim[1] == a->boxes && b.dim[2] == 4))
        return "references: expected (boxes, 4) or (n, boxes, 4)";
    if (gt.rank != 3 || gt.dim[0] != a->n || gt.dim[2] != 4) return "ground truth: expected (n, g, 4)";
    if (in[WEIGHT]->shape.rank != 1 || in[WEIGHT]->shape.dim[0] != a->n) return "weights: expected (n)";
    return NULL;
}

pd_value *pd_box_loss(pd_tape *tape, pd_value *const *deltas, int levels, pd_value *boxes, pd_value *match,
                      pd_value *gt, pd_value *weight, const pd_box_loss_cfg *cfg)
{
    if (pd_tape_status(tape, NULL) != PD_OK) return pd_tape_dead(tape);
    if (levels < 1 || levels > PD_MAX_LEVELS) {
        pd_tape_fail(tape, PD_EINVAL, "box_loss: %d levels, expected 1..%d", levels, PD_MAX_LEVELS);
        return pd_tape_dead(tape);
    }
    box_args a = {.cfg = *cfg,
                  .levels = levels,
                  .n = match->shape.dim[0],
                  .boxes = match->shape.dim[1],
                  .g = gt->shape.dim[1],
                  .shared = boxes->shape.rank == 2};
    pd_value *in[DELTAS + PD_MAX_LEVELS] = {boxes, match, gt, weight};
    const char *wrong = fault(&a, in);
    for (int l = 0; l < levels && !wrong; l++) {
        const pd_shape s = deltas[l]->shape;
        const size_t count = pd_shape_size(s), n = (size_t)(a.n ? a.n : 1);
        const bool rows = levels == 1 && s.rank == 2 && s.dim[0] == a.n * a.boxes && s.dim[1] == 4;
        if ((s.dim[0] != a.n && !rows) || count % (4 * n) || count / (4 * n) > (size_t)(a.boxes - a.first[l]))
            wrong = "deltas: expected (n, h, w, a*4) with as many boxes as references";
        else
            a.first[l + 1] = a.first[l] + (int)(count / (4 * n));
        in[DELTAS + l] = deltas[l];
    }
    if (!wrong && a.n && a.first[levels] != a.boxes) wrong = "deltas: fewer boxes than references";
    if (wrong) {
        pd_tape_fail(tape, PD_EINVAL, "box_loss: %s", wrong);
        return pd_tape_dead(tape);
    }
    return pd_tape_add1(tape, &box_loss, NULL, DELTAS + levels, in, PD_SHAPE(1), &a, sizeof a);
}
