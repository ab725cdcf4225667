#include "kernels/proposals.h"
#include "kernels/nms.h"
#include "kernels/proposals_math.h"
#include "kernels/proposals_node.h"
#include "kernels/topk.h"

#include <string.h>

static size_t align_up(size_t n)
{
    return (n + PD_ALIGN - 1) / PD_ALIGN * PD_ALIGN;
}

/* Scratch of one image. */
typedef struct candidates {
    pd_box *box;
    float *score;
    int *level, *order;
    void *work;
    int n;
} candidates;

static pd_nms_cfg nms_cfg(const proposals_args *a)
{
    return (pd_nms_cfg){.iou = a->cfg.nms_iou, .exact = a->cfg.nms_exact, .max_keep = a->cfg.max_keep};
}

static size_t order_room(const proposals_args *a)
{
    const int n = a->largest > a->cfg.max_keep ? a->largest : a->cfg.max_keep;
    return (size_t)n;
}

static size_t image_scratch(const proposals_args *a)
{
    const pd_nms_cfg nms = nms_cfg(a);
    const size_t room = (size_t)a->room, one = pd_topk_work(a->largest), two = pd_nms_work(a->room, &nms);
    return align_up(room * sizeof(pd_box)) + align_up(room * sizeof(float)) + align_up(room * sizeof(int)) +
           align_up(order_room(a) * sizeof(int)) + align_up(one > two ? one : two);
}

static candidates lay_out(const proposals_args *a, void *scratch)
{
    const size_t room = (size_t)a->room;
    char *at = scratch;
    candidates c = {.box = (pd_box *)(void *)at};
    c.score = (float *)(void *)(at += align_up(room * sizeof(pd_box)));
    c.level = (int *)(void *)(at += align_up(room * sizeof(float)));
    c.order = (int *)(void *)(at += align_up(room * sizeof(int)));
    c.work = at + align_up(order_room(a) * sizeof(int));
    return c;
}

static pd_status plan(pd_node *node, pd_device *device, pd_err *err)
{
    const proposals_args *a = node->args;
    (void)device;
    (void)err;
    node->scratch_fwd = image_scratch(a) * (size_t)a->n;
    return PD_OK;
}

static void add_level(candidates *c, const pd_node *node, size_t image, int l)
{
    const proposals_args *a = node->args;
    const int first = a->grid.first[l], in_level = a->grid.first[l + 1] - first;
    const float *logits = (const float *)node->in[HEADS + l]->data + image * (size_t)in_level;
    const float *deltas = (const float *)node->in[HEADS + a->grid.levels + l]->data + image * (size_t)in_level * 4;
    const int *size = (const int *)node->in[SIZES]->data + 4 * image;
    const bool cut = in_level > a->cfg.pre_nms;
    const int n = cut ? pd_topk(c->order, logits, in_level, a->cfg.pre_nms, c->work) : in_level;
    for (int k = 0; k < n; k++) {
        const int i = cut ? c->order[k] : k;
        pd_box anchor, b;
        pd_delta t;
        memcpy(&t, deltas + 4 * (size_t)i, sizeof t);
        pd_anchor_fill(&anchor, &a->grid, first + i, first + i + 1);
        if (!pd_proposal_box(&b, &a->cfg.coder, anchor, t, size[0], size[1])) continue;
        c->box[c->n] = b;
        c->score[c->n] = pd_proposal_score(logits[i]);
        c->level[c->n++] = l;
    }
}

static void propose(void *arg, size_t begin, size_t end, int thread)
{
    const pd_node *node = arg;
    const proposals_args *a = node->args;
    const pd_nms_cfg nms = nms_cfg(a);
    const size_t most = (size_t)a->cfg.max_keep;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        candidates c = lay_out(a, (char *)node->scratch + i * image_scratch(a));
        for (int l = 0; l < a->grid.levels; l++) add_level(&c, node, i, l);
        const int kept = pd_nms(c.order, c.box, c.score, c.level, c.n, &nms, c.work);
        pd_box *box = (pd_box *)node->out[0]->data + i * most;
        float *score = (float *)node->out[1]->data + i * most;
        memset(box, 0, most * sizeof *box);
        memset(score, 0, most * sizeof *score);
        for (int k = 0; k < kept; k++) {
            box[k] = c.box[c.order[k]];
            score[k] = c.score[c.order[k]];
        }
        ((int *)node->out[2]->data)[i] = kept;
    }
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    (void)err;
    pd_parallel_each(run->device->pool, (size_t)((const proposals_args *)node->args)->n, propose, node);
    return PD_OK;
}

static const pd_kernel cpu = {plan, fwd, NULL, NULL};
static const pd_op proposals = {.name = "proposals", .kernel = {[PD_CPU] = &cpu}};

static const char *fault(const proposals_args *a, pd_value *const *logits, pd_value *const *deltas,
                         const pd_value *sizes)
{
    if (a->cfg.pre_nms < 1 || a->cfg.max_keep < 1 || !(a->cfg.nms_iou >= 0))
        return "expected pre_nms >= 1, max_keep >= 1, nms_iou >= 0";
    if (sizes->dtype != PD_I32 || sizes->shape.rank != 2 || sizes->shape.dim[1] != 4)
        return "sizes: expected int32 (n, 4): h, w, pad_h, pad_w";
    for (int l = 0; l < a->grid.levels; l++) {
        const size_t boxes = (size_t)a->n * (size_t)(a->grid.first[l + 1] - a->grid.first[l]);
        if (pd_shape_size(logits[l]->shape) != boxes || pd_shape_size(deltas[l]->shape) != 4 * boxes)
            return "expected one logit and four offsets per anchor";
    }
    return NULL;
}

pd_proposals_out pd_proposals(pd_tape *tape, const pd_anchor_grid *grid, pd_value *const *logits,
                              pd_value *const *deltas, pd_value *sizes, const pd_proposals_cfg *cfg)
{
    pd_value *dead = pd_tape_dead(tape);
    pd_proposals_out out = {dead, dead, dead};
    if (pd_tape_status(tape, NULL) != PD_OK) return out;
    proposals_args a = {.cfg = *cfg, .n = sizes->shape.dim[0], .grid = *grid};
    const char *wrong = fault(&a, logits, deltas, sizes);
    if (wrong) {
        pd_tape_fail(tape, PD_EINVAL, "proposals: %s", wrong);
        return out;
    }
    pd_value *in[HEADS + 2 * PD_MAX_LEVELS] = {sizes};
    for (int l = 0; l < grid->levels; l++) {
        const int in_level = grid->first[l + 1] - grid->first[l], n = in_level < cfg->pre_nms ? in_level : cfg->pre_nms;
        a.room += n;
        if (n > a.largest) a.largest = n;
        in[HEADS + l] = logits[l];
        in[HEADS + grid->levels + l] = deltas[l];
    }
    const pd_shape shapes[] = {PD_SHAPE(a.n, cfg->max_keep, 4), PD_SHAPE(a.n, cfg->max_keep), PD_SHAPE(a.n)};
    const pd_dtype types[] = {PD_F32, PD_F32, PD_I32};
    pd_node *node = pd_tape_add(tape, &proposals, NULL, HEADS + 2 * grid->levels, in, 3, shapes, types, &a, sizeof a);
    if (node) out = (pd_proposals_out){node->out[0], node->out[1], node->out[2]};
    return out;
}
