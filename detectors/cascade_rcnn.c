#include "detectors/cascade_rcnn.h"
#include "detectors/box_stage.h"
#include "detectors/detector_kind.h"
#include "detectors/fpn.h"
#include "detectors/rpn_head.h"
#include "kernels/bce_loss.h"
#include "kernels/box_loss.h"
#include "kernels/pick_deltas.h"
#include "kernels/refine.h"
#include "kernels/roi_align.h"
#include "kernels/softmax_ce.h"
#include "kernels/targets.h"

#include <string.h>

#define LEVELS 5 /* P2..P6 */

typedef struct stage {
    pd_value *rois; /* (n, m, 4) */
    pd_value *cls, *reg;
    int *level;                                       /* (n, m), room for outputs() */
    pd_value *loss_cls, *loss_bbox, *correct, *count; /* training */
    float weight;
} stage;

typedef struct cascade {
    pd_anchor_grid grid;
    pd_value *p[LEVELS], *cls[LEVELS], *reg[LEVELS];
    pd_proposals_out proposals;
    float *packed; /* (n, m, 5) proposals with their scores, room for outputs() */
    int stages, classes;
    bool class_boxes;
    int row_boxes;      /* 1, or one for every class */
    pd_box_coder coder; /* of the last stage */
    bool numbered;      /* names with the stage's number, as a cascade has them */
    stage stage[PD_MAX_BOX_STAGES];
    pd_value *boxes; /* (n, m, 4) behind the last stage; with boxes for every class: in front of it */
    pd_value *loss_rpn_cls, *loss_rpn_bbox;
    pd_detections_out found;
} cascade;

pd_cascade_cfg pd_cascade_cfg_default(void)
{
    static const pd_box_coder coders[3] = {
        {{0.1f, 0.1f, 0.2f, 0.2f}, 0}, {{0.05f, 0.05f, 0.1f, 0.1f}, 0}, {{0.033f, 0.033f, 0.067f, 0.067f}, 0}};
    static const float ious[3] = {0.5f, 0.6f, 0.7f}, weights[3] = {1, 0.5f, 0.25f};
    const pd_proposals_cfg train = {2000, 2000, 0.7f, false, pd_box_coder_unit()},
                           test = {1000, 1000, 0.7f, false, train.coder};
    pd_cascade_cfg cfg = {.rpn = {.assign = pd_assign_cfg_rpn(),
                                  .sample = {.num = 256, .fraction = 0.5f},
                                  .smooth_l1_beta = 1.f / 9,
                                  .train = train,
                                  .test = test},
                          .stages = 3,
                          .sample = {.num = 512, .fraction = 0.25f},
                          .smooth_l1_beta = 1,
                          .norm_group = 2};
    for (int k = 0; k < 3; k++) cfg.stage[k] = (pd_box_stage_cfg){pd_assign_cfg_roi(ious[k]), coders[k], weights[k]};
    return cfg;
}

pd_cascade_cfg pd_faster_cfg_default(void)
{
    pd_cascade_cfg cfg = pd_cascade_cfg_default();
    cfg.stages = 1;
    cfg.class_boxes = true;
    cfg.rpn.assign.border = -1;
    cfg.rpn.smooth_l1_beta = cfg.smooth_l1_beta = 0;
    cfg.rpn.train.max_keep = 1000;
    return cfg;
}

/* ---- recording ---- */

/* Backbone, pyramid; proposal head where proposals are made here. */
static void record_network(pd_tape *t, pd_form form, const pd_detector_settings *set, const pd_detector_inputs *in,
                           cascade *net)
{
    static const int strides[LEVELS] = {4, 8, 16, 32, 64};
    const pd_anchor_cfg anchors = pd_anchor_cfg_rpn();
    const pd_stages stages = pd_record_resnet(t, pd_backbone_form(set, form), "backbone.", set->arch, in->image);
    int h[LEVELS], w[LEVELS];
    pd_err err = PD_ERR_INIT;
    pd_record_fpn_rcnn(t, form, &set->neck, &stages, net->p);
    if (in->proposals) return;
    for (int l = 0; l < LEVELS; l++) {
        h[l] = net->p[l]->shape.dim[1];
        w[l] = net->p[l]->shape.dim[2];
        pd_record_rpn_head(t, form, &set->head, net->p[l], anchors.n_ratios * anchors.n_scales, &net->cls[l],
                           &net->reg[l]);
    }
    if (pd_tape_status(t, NULL) == PD_OK &&
        pd_anchor_grid_init(&net->grid, &anchors, LEVELS, h, w, strides, &err) != PD_OK)
        pd_tape_fail(t, err.code, "%s", err.text);
}

static const char *stage_name(pd_tape *t, const cascade *net, int k)
{
    return net->numbered ? pd_tape_name(t, "roi_head.bbox_head.%d", k) : "roi_head.bbox_head";
}

static void record_rpn_losses(pd_tape *t, const pd_cascade_cfg *cfg, const pd_detector_inputs *in, cascade *net)
{
    const pd_rpn_cfg *rpn = &cfg->rpn;
    const pd_box_loss_cfg box = {pd_box_coder_unit(), rpn->smooth_l1_beta};
    pd_value *anchors = pd_anchors(t, &net->grid);
    pd_value *match = pd_assign(t, anchors, &net->grid, NULL, in->boxes, in->count, in->sizes, &rpn->assign);
    match = pd_sample(t, match, in->draw, &rpn->sample);
    const pd_targets targets = pd_match_targets(t, match, NULL, 1, PD_NORM_SAMPLES, cfg->norm_group);
    pd_tape_keep(t, targets.count); /* for whoever looks at the tape */
    net->loss_rpn_cls = pd_bce_loss(t, net->cls, LEVELS, targets.label, targets.weight, 1);
    net->loss_rpn_bbox = pd_box_loss(t, net->reg, LEVELS, anchors, match, in->boxes, targets.weight, &box);
    pd_tape_minimise(t, net->loss_rpn_cls, 1);
    pd_tape_minimise(t, net->loss_rpn_bbox, 1);
}

static void record_losses(pd_tape *t, const pd_detector_settings *set, const pd_detector_inputs *in, cascade *net)
{
    const pd_cascade_cfg *cfg = &set->cascade;
    record_rpn_losses(t, cfg, in, net);
    net->proposals = pd_proposals(t, &net->grid, net->cls, net->reg, in->sizes, &cfg->rpn.train);
    pd_refined boxes = {net->proposals.boxes, net->proposals.count};
    for (int k = 0; k < cfg->stages; k++) {
        const pd_box_stage_cfg *c = &cfg->stage[k];
        stage *s = &net->stage[k];
        pd_roi_targets_cfg targets_cfg = {c->assign, cfg->sample};
        const pd_box_loss_cfg box = {c->coder, cfg->smooth_l1_beta};
        targets_cfg.sample.stream = (uint32_t)k + 1;
        const pd_roi_targets_out r =
            pd_roi_targets(t, boxes.boxes, boxes.count, in->boxes, in->count, in->draw, &targets_cfg);
        const pd_targets targets = pd_match_targets(t, r.match, in->labels, set->classes, PD_NORM_ALL, cfg->norm_group);
        pd_record_box_stage(t, stage_name(t, net, k), net->p, r.rois, r.count, set->classes, net->row_boxes, &s->cls,
                            &s->reg);
        pd_value *deltas = cfg->class_boxes ? pd_pick_deltas(t, s->reg, targets.label) : s->reg;
        s->loss_cls = pd_softmax_ce(t, s->cls, targets.label, targets.weight, 0, &s->correct);
        s->loss_bbox = pd_box_loss(t, &deltas, 1, r.rois, r.match, in->boxes, targets.weight, &box);
        s->count = pd_tape_keep(t, targets.count);
        s->weight = c->weight;
        pd_tape_keep(t, s->correct);
        pd_tape_minimise(t, s->loss_cls, c->weight);
        pd_tape_minimise(t, s->loss_bbox, c->weight);
        if (k + 1 < cfg->stages) boxes = pd_refine(t, r.rois, r.count, s->reg, r.from_gt, in->sizes, &c->coder);
    }
}

/* What decode() and others read on the host, where the tape does not find the boxes itself. */
static void keep_heads(pd_tape *t, const pd_detector_inputs *in, cascade *net)
{
    if (in->scales) return;
    for (int k = 0; k < net->stages; k++) {
        stage *s = &net->stage[k];
        pd_tape_keep(t, s->cls);
        pd_tape_keep(t, s->reg);
        pd_tape_keep(t, s->rois);
    }
    pd_tape_keep(t, net->boxes);
    if (in->proposals) return;
    pd_value *const kept[] = {net->proposals.boxes, net->proposals.score, net->proposals.count};
    for (int i = 0; i < 3; i++) pd_tape_keep(t, kept[i]);
    for (int l = 0; l < LEVELS && !in->lists; l++) {
        pd_tape_keep(t, net->p[l]);
        pd_tape_keep(t, net->cls[l]);
        pd_tape_keep(t, net->reg[l]);
    }
}

static void record_found(pd_tape *t, const pd_detector_settings *set, const pd_detector_inputs *in, cascade *net)
{
    pd_detections_cfg cfg = pd_found_cfg(set);
    pd_value *logits[PD_MAX_BOX_STAGES];
    cfg.coder = net->coder;
    for (int k = 0; k < net->stages; k++) logits[k] = net->stage[k].cls;
    net->found = pd_roi_detections(t, logits, net->stages, net->boxes, net->class_boxes ? net->stage[0].reg : NULL,
                                   net->proposals.count, set->classes, in->sizes, in->scales, &cfg);
}

static void record_detection(pd_tape *t, const pd_detector_settings *set, const pd_detector_inputs *in, cascade *net)
{
    const pd_cascade_cfg *cfg = &set->cascade;
    if (in->proposals) {
        net->proposals = (pd_proposals_out){.boxes = in->proposals, .count = in->n_proposals};
    } else {
        net->proposals = pd_proposals(t, &net->grid, net->cls, net->reg, in->sizes, &cfg->rpn.test);
    }
    net->boxes = net->proposals.boxes;
    for (int k = 0; k < cfg->stages; k++) {
        stage *s = &net->stage[k];
        s->rois = net->boxes;
        pd_record_box_stage(t, stage_name(t, net, k), net->p, s->rois, net->proposals.count, set->classes,
                            net->row_boxes, &s->cls, &s->reg);
        if (cfg->class_boxes) break; /* the one stage; only boxes of classes that score are worth decoding: decode() */
        net->boxes = pd_refine(t, s->rois, net->proposals.count, s->reg, NULL, in->sizes, &cfg->stage[k].coder).boxes;
    }
    keep_heads(t, in, net);
    if (in->scales) record_found(t, set, in, net);
}

/* Room for what outputs() makes. */
static void make_room(pd_tape *t, cascade *net)
{
    pd_err err = PD_ERR_INIT;
    const size_t rows = pd_shape_size(net->proposals.score->shape);
    if (pd_tape_status(t, NULL) != PD_OK) return;
    pd_status status = PD_ALLOC(&net->packed, pd_tape_arena(t), 5 * rows, &err);
    for (int k = 0; k < net->stages && status == PD_OK; k++)
        status = PD_ALLOC(&net->stage[k].level, pd_tape_arena(t), rows, &err);
    if (status != PD_OK) pd_tape_fail(t, err.code, "%s", err.text);
}

static void record(pd_tape *t, pd_form form, const pd_detector_settings *set, const pd_detector_inputs *in,
                   cascade *net)
{
    net->stages = set->cascade.stages;
    net->classes = set->classes;
    net->class_boxes = set->cascade.class_boxes;
    net->row_boxes = net->class_boxes ? set->classes : 1;
    net->coder = set->cascade.stage[net->stages - 1].coder;
    record_network(t, form, set, in, net);
    if (pd_tape_training(t)) {
        record_losses(t, set, in, net);
        return;
    }
    record_detection(t, set, in, net);
    if (!in->proposals) make_room(t, net);
}

static void record_cascade(pd_tape *t, pd_form form, const pd_detector_settings *set, const pd_detector_inputs *in,
                           void *net)
{
    ((cascade *)net)->numbered = true;
    record(t, form, set, in, net);
}

static void record_faster(pd_tape *t, pd_form form, const pd_detector_settings *set, const pd_detector_inputs *in,
                          void *net)
{
    record(t, form, set, in, net);
}

static pd_status check_cascade(const pd_detector_settings *set, pd_err *err)
{
    if (set->cascade.stages < 1 || set->cascade.stages > PD_MAX_BOX_STAGES)
        return PD_FAIL(err, PD_EINVAL, "a cascade of %d stages: 1 to %d are possible", set->cascade.stages,
                       PD_MAX_BOX_STAGES);
    if (set->cascade.class_boxes && set->cascade.stages > 1)
        return PD_FAIL(err, PD_EINVAL, "boxes for every class go with one stage, not %d: the next stage needs one box",
                       set->cascade.stages);
    return PD_OK;
}

static pd_status check_faster(const pd_detector_settings *set, pd_err *err)
{
    if (set->cascade.stages == 1) return PD_OK;
    return PD_FAIL(err, PD_EINVAL, "Faster R-CNN has one stage, not %d; several are a cascade", set->cascade.stages);
}

/* ---- after a run ---- */

static const pd_detections_out *found(const void *v)
{
    return &((const cascade *)v)->found;
}

static void losses(const void *v, pd_losses *out)
{
    static const char *const names[PD_MAX_BOX_STAGES][3] = {{"s0.loss_cls", "s0.acc", "s0.loss_bbox"},
                                                            {"s1.loss_cls", "s1.acc", "s1.loss_bbox"},
                                                            {"s2.loss_cls", "s2.acc", "s2.loss_bbox"},
                                                            {"s3.loss_cls", "s3.acc", "s3.loss_bbox"}};
    static const char *const single[3] = {"loss_cls", "acc", "loss_bbox"};
    const cascade *net = v;
    pd_losses_add(out, "loss_rpn_cls", *(const float *)net->loss_rpn_cls->host);
    pd_losses_add(out, "loss_rpn_bbox", *(const float *)net->loss_rpn_bbox->host);
    for (int k = 0; k < net->stages; k++) {
        const stage *s = &net->stage[k];
        const char *const *name = net->numbered ? names[k] : single;
        const int *count = s->count->host;
        int rows = 0;
        for (int i = 0; i < s->count->shape.dim[0]; i++) {
            rows += count[2 * i] + count[2 * i + 1];
            if (k == 0) out->positives += count[2 * i];
        }
        pd_losses_add(out, name[0], s->weight * *(const float *)s->loss_cls->host);
        pd_losses_add(out, name[1], rows ? 100 * *(const float *)s->correct->host / (float)rows : 0);
        pd_losses_add(out, name[2], s->weight * *(const float *)s->loss_bbox->host);
    }
}

static void add_proposals(cascade *net, pd_raw *out, int n, int m)
{
    const float *box = net->proposals.boxes->host, *score = net->proposals.score->host;
    for (size_t r = 0; r < (size_t)n * (size_t)m; r++) {
        memcpy(net->packed + 5 * r, box + 4 * r, 4 * sizeof *box);
        net->packed[5 * r + 4] = score[r];
    }
    pd_raw_add(out, net->packed, PD_F32, PD_SHAPE(n, m, 5), "proposals");
    pd_raw_add(out, net->proposals.count->host, PD_I32, PD_SHAPE(n), "num_proposals");
}

/* The pyramid level that each box reads, 2..5, as the reference writes it; 0 in rows that are not used. */
static void add_levels(stage *s, pd_raw *out, int k, const int *count, int n, int m)
{
    const pd_box *rois = s->rois->host;
    for (int i = 0; i < n * m; i++) s->level[i] = i % m < count[i / m] ? pd_roi_level(rois[i], PD_ROI_LEVELS) + 2 : 0;
    pd_raw_add(out, s->level, PD_I32, PD_SHAPE(n, m), "stage%d.level", k);
}

/* Rows of a linear layer beyond an image's count hold its bias: the reference has 0 there. */
static void clear_rows(pd_value *v, const int *count, int n, int m)
{
    const size_t width = pd_shape_size(v->shape) / ((size_t)n * (size_t)m);
    for (int i = 0; i < n; i++)
        memset((float *)v->host + ((size_t)i * (size_t)m + (size_t)count[i]) * width, 0,
               (size_t)(m - count[i]) * width * sizeof(float));
}

static void outputs(void *v, pd_raw *out)
{
    cascade *net = v;
    const int n = net->proposals.score->shape.dim[0], m = net->proposals.score->shape.dim[1];
    const int *count = net->proposals.count->host;
    for (int l = 0; l < LEVELS; l++) pd_raw_add(out, net->p[l]->host, PD_F32, net->p[l]->shape, "p%d", l + 2);
    for (int l = 0; l < LEVELS; l++) pd_raw_add(out, net->cls[l]->host, PD_F32, net->cls[l]->shape, "rpn_cls.%d", l);
    for (int l = 0; l < LEVELS; l++) pd_raw_add(out, net->reg[l]->host, PD_F32, net->reg[l]->shape, "rpn_bbox.%d", l);
    add_proposals(net, out, n, m);
    for (int k = 0; k < net->stages; k++) {
        stage *s = &net->stage[k];
        clear_rows(s->cls, count, n, m);
        clear_rows(s->reg, count, n, m);
        pd_raw_add(out, s->rois->host, PD_F32, s->rois->shape, "stage%d.rois", k);
        add_levels(s, out, k, count, n, m);
        pd_raw_add(out, s->cls->host, PD_F32, PD_SHAPE(n, m, net->classes + 1), "stage%d.cls_score", k);
        pd_raw_add(out, s->reg->host, PD_F32, PD_SHAPE(n, m, 4 * net->row_boxes), "stage%d.bbox_pred", k);
    }
}

/* count: rows of each image that are used. */
static pd_roi_outputs roi_outputs(const cascade *net, const int *count)
{
    const int *shape = net->boxes->shape.dim;
    pd_roi_outputs heads = {.n = shape[0],
                            .m = shape[1],
                            .k = net->classes,
                            .stages = net->stages,
                            .count = count,
                            .boxes = net->boxes->host,
                            .coder = net->coder};
    if (net->class_boxes) heads.deltas = net->stage[0].reg->host;
    for (int k = 0; k < net->stages; k++) heads.logits[k] = net->stage[k].cls->host;
    return heads;
}

static pd_status decode(const void *v, const pd_detector_settings *set, const pd_image_info *info, pd_detection *out,
                        int *count, pd_pool *pool, pd_err *err)
{
    const cascade *net = v;
    const pd_roi_outputs heads = roi_outputs(net, net->proposals.count->host);
    return pd_postprocess_rois(out, count, &heads, info, &set->test, pool, err);
}

static int proposals(const void *v, const pd_box **boxes, const float **scores)
{
    const cascade *net = v;
    *boxes = net->proposals.boxes->host;
    *scores = net->proposals.score->host;
    return *(const int *)net->proposals.count->host;
}

static void rows(const void *v, const pd_image_info *info, int count, pd_box *boxes, float *scores)
{
    const cascade *net = v;
    const size_t per_row = (size_t)net->row_boxes;
    const pd_roi_outputs heads = roi_outputs(net, &count);
    for (size_t r = 0; r < (size_t)count; r++) {
        for (size_t c = 0; c < per_row; c++) boxes[r * per_row + c] = pd_roi_box(&heads, r, (int)c, info);
        pd_roi_scores(scores + r * ((size_t)heads.k + 1), &heads, r);
    }
}

#define KIND(word, words, checks, records)                                                                             \
    {                                                                                                                  \
        .name = word, .title = words, .bytes = sizeof(cascade), .check = checks, .record = records, .found = found,    \
        .losses = losses, .outputs = outputs, .decode = decode, .proposals = proposals, .rows = rows                   \
    }
const pd_detector_kind pd_kind_cascade_rcnn = KIND("cascade_rcnn", "Cascade R-CNN", check_cascade, record_cascade);
const pd_detector_kind pd_kind_faster_rcnn = KIND("faster_rcnn", "Faster R-CNN", check_faster, record_faster);
