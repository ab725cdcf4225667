#include "detectors/retinanet.h"
#include "detectors/fpn.h"
#include "detectors/retina_head.h"
#include "kernels/box_loss.h"
#include "kernels/targets.h"

pd_retinanet_cfg pd_retinanet_cfg_default(void)
{
    return (pd_retinanet_cfg){
        .focal = {.alpha = 0.25f, .gamma = 2}, .smooth_l1_beta = 0, .assign = pd_assign_cfg_retina(), .norm_group = 2};
}

void pd_record_retinanet(pd_tape *t, pd_form form, pd_arch arch, int classes, pd_value *image, pd_retinanet *out)
{
    static const int strides[PD_RETINA_LEVELS] = {8, 16, 32, 64, 128};
    const pd_anchor_cfg anchors = pd_anchor_cfg_retina();
    const pd_stages stages = pd_record_resnet(t, form, "backbone.", arch, image);
    int h[PD_RETINA_LEVELS], w[PD_RETINA_LEVELS];
    pd_err err = PD_ERR_INIT;
    pd_record_fpn_retina(t, &stages, out->p);
    for (int l = 0; l < PD_RETINA_LEVELS; l++) {
        h[l] = out->p[l]->shape.dim[1];
        w[l] = out->p[l]->shape.dim[2];
        pd_record_retina_head(t, out->p[l], classes, anchors.n_ratios * anchors.n_scales, &out->cls[l], &out->reg[l]);
    }
    if (pd_tape_status(t, NULL) == PD_OK &&
        pd_anchor_grid_init(&out->grid, &anchors, PD_RETINA_LEVELS, h, w, strides, &err) != PD_OK)
        pd_tape_fail(t, err.code, "%s", err.text);
}

pd_retinanet_losses pd_record_retinanet_losses(pd_tape *t, const pd_retinanet *net, int classes,
                                               const pd_ground_truth *gt, const pd_retinanet_cfg *cfg)
{
    pd_value *anchors = pd_anchors(t, &net->grid);
    pd_value *match = pd_assign(t, anchors, &net->grid, NULL, gt->boxes, gt->count, gt->sizes, &cfg->assign);
    const pd_targets targets = pd_match_targets(t, match, gt->labels, classes, PD_NORM_POSITIVES, cfg->norm_group);
    const pd_box_loss_cfg box = {.coder = pd_box_coder_unit(), .beta = cfg->smooth_l1_beta};
    pd_retinanet_losses loss;
    loss.cls = pd_focal_loss(t, net->cls, PD_RETINA_LEVELS, targets.label, targets.weight, classes, &cfg->focal);
    loss.bbox = pd_box_loss(t, net->reg, PD_RETINA_LEVELS, anchors, match, gt->boxes, targets.weight, &box);
    loss.count = pd_tape_keep(t, targets.count);
    pd_tape_minimise(t, loss.cls, 1);
    pd_tape_minimise(t, loss.bbox, 1);
    return loss;
}
