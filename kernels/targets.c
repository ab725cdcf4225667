#include "kernels/targets.h"
#include "kernels/targets_math.h"
#include "kernels/targets_node.h"

typedef struct label_job {
    const pd_node *node;
    int *bad; /* (n) the first match or label out of range, 0..boxes-1, or boxes */
} label_job;

static void label_images(void *arg, size_t begin, size_t end, int thread)
{
    const label_job *j = arg;
    const targets_args *a = j->node->args;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const int *match = (const int *)j->node->in[MATCH]->data + i * (size_t)a->boxes;
        const int *gt_label =
            j->node->in[GT_LABEL] ? (const int *)j->node->in[GT_LABEL]->data + i * (size_t)a->g : NULL;
        int *label = (int *)j->node->out[0]->data + i * (size_t)a->boxes;
        int *count = (int *)j->node->out[1]->data + 2 * i;
        int pos = 0, neg = 0;
        j->bad[i] = a->boxes;
        for (int b = 0; b < a->boxes; b++) {
            const int m = match[b];
            label[b] = pd_target_label(m, gt_label, a->g, a->k);
            if (label[b] == PD_TARGET_BAD && j->bad[i] == a->boxes) j->bad[i] = b;
            pos += m >= 0;
            neg += m == PD_MATCH_BACKGROUND;
        }
        count[0] = pos;
        count[1] = neg;
    }
}

static pd_status plan(pd_node *node, pd_device *device, pd_err *err)
{
    (void)device;
    (void)err;
    node->scratch_fwd = (size_t)((const targets_args *)node->args)->n * sizeof(int);
    return PD_OK;
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const targets_args *a = node->args;
    label_job j = {node, node->scratch};
    pd_parallel(run->device->pool, (size_t)a->n, label_images, &j);
    for (int i = 0; i < a->n; i++)
        if (j.bad[i] < a->boxes) {
            const int m = ((const int *)node->in[MATCH]->data)[(size_t)i * (size_t)a->boxes + (size_t)j.bad[i]];
            if (m >= a->g)
                return PD_FAIL(err, PD_EINVAL,
                               "image %d of the batch: match %d, but there is room for %d ground truths", i, m, a->g);
            return PD_FAIL(err, PD_EINVAL, "image %d of the batch: ground truth %d is of class %d, expected 0..%d", i,
                           m, ((const int *)node->in[GT_LABEL]->data)[(size_t)i * (size_t)a->g + (size_t)m], a->k - 1);
        }
    float *weight = node->out[2]->data;
    for (int i = 0; i < a->n; i++) weight[i] = pd_target_weight(a->norm, node->out[1]->data, a->n, a->group, i);
    return PD_OK;
}

static const pd_kernel cpu = {plan, fwd, NULL, NULL};
static const pd_op match_targets = {.name = "match_targets", .kernel = {[PD_CPU] = &cpu}};

pd_targets pd_match_targets(pd_tape *tape, pd_value *match, pd_value *gt_label, int k, pd_norm norm, int group)
{
    pd_value *dead = pd_tape_dead(tape);
    pd_targets t = {dead, dead, dead};
    if (pd_tape_status(tape, NULL) != PD_OK) return t;
    if (match->dtype != PD_I32 || match->shape.rank != 2 || k < 1 || group < 1 ||
        (gt_label &&
         (gt_label->dtype != PD_I32 || gt_label->shape.rank != 2 || gt_label->shape.dim[0] != match->shape.dim[0]))) {
        pd_tape_fail(tape, PD_EINVAL,
                     "match_targets: expected int32 matches (n, boxes) and labels (n, g), k >= 1, group >= 1");
        return t;
    }
    const targets_args a = {.n = match->shape.dim[0],
                            .boxes = match->shape.dim[1],
                            .g = gt_label ? gt_label->shape.dim[1] : INT32_MAX,
                            .k = k,
                            .group = group,
                            .norm = norm};
    pd_value *in[] = {match, gt_label};
    const pd_shape shapes[] = {match->shape, PD_SHAPE(a.n, 2), PD_SHAPE(a.n)};
    const pd_dtype types[] = {PD_I32, PD_I32, PD_F32};
    pd_node *node = pd_tape_add(tape, &match_targets, NULL, 2, in, 3, shapes, types, &a, sizeof a);
    if (node) t = (pd_targets){node->out[0], node->out[1], node->out[2]};
    return t;
}
