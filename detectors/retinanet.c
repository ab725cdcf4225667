#include "detectors/retinanet.h"
#include "detectors/detector_kind.h"
#include "detectors/fpn.h"
#include "detectors/retina_head.h"
#include "kernels/box_loss.h"
#include "kernels/targets.h"

typedef struct retinanet {
    pd_anchor_grid grid;
    pd_value *p[PD_RETINA_LEVELS], *cls[PD_RETINA_LEVELS], *reg[PD_RETINA_LEVELS];
    pd_value *loss_cls, *loss_bbox, *count; /* count: (n, 2) I32 positives and negatives */
    pd_detections_out found;
} retinanet;

pd_retinanet_cfg pd_retinanet_cfg_default(void)
{
    return (pd_retinanet_cfg){
        .focal = {.alpha = 0.25f, .gamma = 2}, .smooth_l1_beta = 0, .assign = pd_assign_cfg_retina(), .norm_group = 2};
}

static void record_network(pd_tape *t, pd_form form, const pd_detector_settings *set, pd_value *image, retinanet *net)
{
    static const int strides[PD_RETINA_LEVELS] = {8, 16, 32, 64, 128};
    const pd_anchor_cfg anchors = pd_anchor_cfg_retina();
    const pd_stages stages = pd_record_resnet(t, pd_backbone_form(set, form), "backbone.", set->arch, image);
    int h[PD_RETINA_LEVELS], w[PD_RETINA_LEVELS];
    pd_err err = PD_ERR_INIT;
    pd_record_fpn_retina(t, form, &set->neck, &stages, net->p);
    for (int l = 0; l < PD_RETINA_LEVELS; l++) {
        h[l] = net->p[l]->shape.dim[1];
        w[l] = net->p[l]->shape.dim[2];
        pd_record_retina_head(t, form, &set->head, net->p[l], set->classes, anchors.n_ratios * anchors.n_scales,
                              &net->cls[l], &net->reg[l]);
    }
    if (pd_tape_status(t, NULL) == PD_OK &&
        pd_anchor_grid_init(&net->grid, &anchors, PD_RETINA_LEVELS, h, w, strides, &err) != PD_OK)
        pd_tape_fail(t, err.code, "%s", err.text);
}

static void record_losses(pd_tape *t, const pd_detector_settings *set, const pd_detector_inputs *in, retinanet *net)
{
    const pd_retinanet_cfg *cfg = &set->retinanet;
    const pd_box_loss_cfg box = {.coder = pd_box_coder_unit(), .beta = cfg->smooth_l1_beta};
    pd_value *anchors = pd_anchors(t, &net->grid);
    pd_value *match = pd_assign(t, anchors, &net->grid, NULL, in->boxes, in->count, in->sizes, &cfg->assign);
    const pd_targets targets = pd_match_targets(t, match, in->labels, set->classes, PD_NORM_POSITIVES, cfg->norm_group);
    net->loss_cls =
        pd_focal_loss(t, net->cls, PD_RETINA_LEVELS, targets.label, targets.weight, set->classes, &cfg->focal);
    net->loss_bbox = pd_box_loss(t, net->reg, PD_RETINA_LEVELS, anchors, match, in->boxes, targets.weight, &box);
    net->count = pd_tape_keep(t, targets.count);
    pd_tape_minimise(t, net->loss_cls, 1);
    pd_tape_minimise(t, net->loss_bbox, 1);
}

static void record(pd_tape *t, pd_form form, const pd_detector_settings *set, const pd_detector_inputs *in, void *net)
{
    retinanet *r = net;
    record_network(t, form, set, in->image, r);
    if (pd_tape_training(t)) {
        record_losses(t, set, in, r);
        return;
    }
    if (in->scales) {
        const pd_detections_cfg cfg = pd_found_cfg(set);
        r->found = pd_dense_detections(t, &r->grid, r->cls, r->reg, set->classes, in->sizes, in->scales, &cfg);
        return;
    }
    for (int l = 0; l < PD_RETINA_LEVELS; l++) {
        pd_tape_keep(t, r->p[l]);
        pd_tape_keep(t, r->cls[l]);
        pd_tape_keep(t, r->reg[l]);
    }
}

static const pd_detections_out *found(const void *net)
{
    return &((const retinanet *)net)->found;
}

static void losses(const void *net, pd_losses *out)
{
    const retinanet *r = net;
    pd_losses_add(out, "loss_cls", *(const float *)r->loss_cls->host);
    pd_losses_add(out, "loss_bbox", *(const float *)r->loss_bbox->host);
    for (int i = 0; i < r->count->shape.dim[0]; i++) out->positives += ((const int *)r->count->host)[2 * i];
}

static void outputs(void *net, pd_raw *out)
{
    const retinanet *r = net;
    for (int l = 0; l < PD_RETINA_LEVELS; l++) pd_raw_add(out, r->p[l]->host, PD_F32, r->p[l]->shape, "p%d", l + 3);
    for (int l = 0; l < PD_RETINA_LEVELS; l++)
        pd_raw_add(out, r->cls[l]->host, PD_F32, r->cls[l]->shape, "cls_score.%d", l);
    for (int l = 0; l < PD_RETINA_LEVELS; l++)
        pd_raw_add(out, r->reg[l]->host, PD_F32, r->reg[l]->shape, "bbox_pred.%d", l);
}

static pd_head_outputs head_outputs(const retinanet *r, const pd_detector_settings *set)
{
    pd_head_outputs heads = {.n = r->cls[0]->shape.dim[0], .k = set->classes, .grid = &r->grid};
    for (int l = 0; l < PD_RETINA_LEVELS; l++) {
        heads.logits[l] = r->cls[l]->host;
        heads.deltas[l] = r->reg[l]->host;
    }
    return heads;
}

static pd_status decode(const void *net, const pd_detector_settings *set, const pd_image_info *info, pd_detection *out,
                        int *count, pd_pool *pool, pd_err *err)
{
    const pd_head_outputs heads = head_outputs(net, set);
    return pd_postprocess(out, count, &heads, info, &set->test, pool, err);
}

static pd_status candidates(const void *net, const pd_detector_settings *set, const pd_image_info *info,
                            pd_candidates *out, pd_pool *pool, pd_err *err)
{
    const pd_head_outputs heads = head_outputs(net, set);
    return pd_postprocess_collect(out, &heads, info, &set->test, pool, err);
}

const pd_detector_kind pd_kind_retinanet = {.name = "retinanet",
                                            .title = "RetinaNet",
                                            .bytes = sizeof(retinanet),
                                            .record = record,
                                            .found = found,
                                            .losses = losses,
                                            .outputs = outputs,
                                            .decode = decode,
                                            .candidates = candidates};
