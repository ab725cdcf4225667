#include "kernels/roi_targets.h"
#include "kernels/roi_targets_math.h"
#include "kernels/roi_targets_node.h"

#include <string.h>

static size_t align_up(size_t n)
{
    return (n + PD_ALIGN - 1) / PD_ALIGN * PD_ALIGN;
}

static pd_status plan(pd_node *node, pd_device *device, pd_err *err)
{
    const roi_targets_args *a = node->args;
    const size_t candidates = (size_t)a->g + (size_t)a->m;
    (void)device;
    (void)err;
    node->scratch_fwd = align_up(2 * candidates * sizeof(int)) + pd_assign_work(a->m, a->g);
    return PD_OK;
}

/* Rows of one image: the candidates with positive match, then the background ones. */
static void write_rows(const pd_node *node, size_t image, const int *match, int n_gt, int n)
{
    const roi_targets_args *a = node->args;
    const size_t num = (size_t)a->cfg.sample.num;
    const pd_box *gt = (const pd_box *)node->in[GT]->data + image * (size_t)a->g;
    const pd_box *proposals = (const pd_box *)node->in[PROPOSALS]->data + image * (size_t)a->m;
    pd_box *rois = (pd_box *)node->out[0]->data + image * num;
    int *row_match = (int *)node->out[1]->data + image * num, *from_gt = (int *)node->out[2]->data + image * num;
    size_t row = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < n; i++) {
            if (pd_row_pass(match[i]) != pass) continue;
            rois[row] = i < n_gt ? gt[i] : proposals[i - n_gt];
            row_match[row] = match[i];
            from_gt[row++] = i < n_gt;
        }
    ((int *)node->out[3]->data)[image] = (int)row;
    for (; row < num; row++) {
        rois[row] = (pd_box){0, 0, 0, 0};
        row_match[row] = PD_MATCH_IGNORED;
        from_gt[row] = 0;
    }
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const roi_targets_args *a = node->args;
    const size_t candidates = (size_t)a->g + (size_t)a->m;
    int *match = node->scratch, *work = match + candidates;
    void *assign_work = (char *)node->scratch + align_up(2 * candidates * sizeof(int));
    for (int i = 0; i < a->n; i++) {
        const int n_gt = ((const int *)node->in[N_GT]->data)[i], m = ((const int *)node->in[N_PROPOSALS]->data)[i];
        const pd_box *gt = (const pd_box *)node->in[GT]->data + (size_t)i * (size_t)a->g;
        if (n_gt < 0 || n_gt > a->g || m < 0 || m > a->m)
            return PD_FAIL(err, PD_EINVAL,
                           "image %d of the batch has %d ground truths and %d proposals, the room is %d and %d", i,
                           n_gt, m, a->g, a->m);
        for (int k = 0; k < n_gt; k++) match[k] = pd_own_match(gt[k], k);
        pd_assign_boxes(match + n_gt, (const pd_box *)node->in[PROPOSALS]->data + (size_t)i * (size_t)a->m, m, NULL,
                        NULL, gt, n_gt, &a->cfg.assign, assign_work, run->device->pool);
        pd_sample_matches(match, n_gt + m, &a->cfg.sample, (uint32_t)((const int *)node->in[DRAW]->data)[i], work);
        write_rows(node, (size_t)i, match, n_gt, n_gt + m);
    }
    return PD_OK;
}

static const pd_kernel cpu = {plan, fwd, NULL, NULL};
static const pd_op roi_targets = {.name = "roi_targets", .kernel = {[PD_CPU] = &cpu}};

static const char *fault(const roi_targets_args *a, pd_value *const in[INPUTS])
{
    const pd_assign_cfg *c = &a->cfg.assign;
    if (!(c->pos > 0 && c->neg <= c->pos && c->neg >= 0 && c->min_pos >= 0))
        return "thresholds: expected 0 <= neg <= pos, 0 < pos, 0 <= min_pos";
    if (a->cfg.sample.num < 1 || !(a->cfg.sample.fraction >= 0 && a->cfg.sample.fraction <= 1))
        return "sampler: expected num >= 1, fraction in 0..1";
    if (in[PROPOSALS]->shape.rank != 3 || in[PROPOSALS]->shape.dim[2] != 4) return "proposals: expected (n, m, 4)";
    if (in[GT]->shape.rank != 3 || in[GT]->shape.dim[0] != a->n || in[GT]->shape.dim[2] != 4)
        return "ground truth: expected (n, g, 4)";
    for (int i = 0; i < INPUTS; i++)
        if (i != PROPOSALS && i != GT &&
            (in[i]->dtype != PD_I32 || in[i]->shape.rank != 1 || in[i]->shape.dim[0] != a->n))
            return "counts and draws: expected int32 (n)";
    return NULL;
}

pd_roi_targets_out pd_roi_targets(pd_tape *tape, pd_value *proposals, pd_value *n_proposals, pd_value *gt,
                                  pd_value *n_gt, pd_value *draw, const pd_roi_targets_cfg *cfg)
{
    pd_value *dead = pd_tape_dead(tape);
    pd_roi_targets_out out = {dead, dead, dead, dead};
    if (pd_tape_status(tape, NULL) != PD_OK) return out;
    const roi_targets_args a = {
        .cfg = *cfg, .n = proposals->shape.dim[0], .m = proposals->shape.dim[1], .g = gt->shape.dim[1]};
    pd_value *in[INPUTS] = {proposals, n_proposals, gt, n_gt, draw};
    const char *wrong = fault(&a, in);
    if (wrong) {
        pd_tape_fail(tape, PD_EINVAL, "roi_targets: %s", wrong);
        return out;
    }
    const int num = cfg->sample.num;
    const pd_shape shapes[] = {PD_SHAPE(a.n, num, 4), PD_SHAPE(a.n, num), PD_SHAPE(a.n, num), PD_SHAPE(a.n)};
    const pd_dtype types[] = {PD_F32, PD_I32, PD_I32, PD_I32};
    pd_node *node = pd_tape_add(tape, &roi_targets, NULL, INPUTS, in, 4, shapes, types, &a, sizeof a);
    if (node) out = (pd_roi_targets_out){node->out[0], node->out[1], node->out[2], node->out[3]};
    return out;
}
