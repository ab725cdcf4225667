#include "detectors/candidates.h"
#include "engine/arena.h"
#include "kernels/nms.h"
#include "kernels/soft_nms.h"

#include <stdlib.h>

void pd_candidates_free(pd_candidates *c)
{
    free(c->box);
    free(c->score);
    free(c->label);
    free(c->keep);
    free(c->work);
    *c = (pd_candidates){0};
}

pd_status pd_candidates_add(pd_candidates *c, pd_box box, float score, int label, pd_err *err)
{
    PD_TRY(pd_grow(&c->box, &c->box_room, c->count + 1, sizeof *c->box, err));
    PD_TRY(pd_grow(&c->score, &c->score_room, c->count + 1, sizeof *c->score, err));
    PD_TRY(pd_grow(&c->label, &c->label_room, c->count + 1, sizeof *c->label, err));
    c->box[c->count] = box;
    c->score[c->count] = score;
    c->label[c->count++] = label;
    return PD_OK;
}

pd_status pd_candidates_detect(pd_candidates *c, const pd_postprocess_cfg *cfg, pd_detection *out, int *count,
                               pd_err *err)
{
    const pd_nms_cfg hard = {.iou = cfg->nms_iou, .exact = cfg->nms_exact, .max_keep = cfg->max_per_image};
    const pd_soft_nms_cfg soft = {.method = cfg->nms_type == PD_NMS_SOFT_LINEAR ? PD_SOFT_LINEAR : PD_SOFT_GAUSSIAN,
                                  .iou = cfg->nms_iou,
                                  .sigma = cfg->soft_sigma,
                                  .min_score = cfg->soft_min_score,
                                  .max_keep = cfg->max_per_image};
    const int n = (int)c->count;
    const bool plain = cfg->nms_type == PD_NMS_PLAIN;
    PD_TRY(pd_grow(&c->work, &c->work_room, plain ? pd_nms_work(n, &hard) : pd_soft_nms_work(n), 1, err));
    PD_TRY(pd_grow(&c->keep, &c->keep_room, (size_t)cfg->max_per_image, sizeof *c->keep, err));
    const int kept = plain ? pd_nms(c->keep, c->box, c->score, c->label, n, &hard, c->work)
                           : pd_soft_nms(c->keep, c->box, c->score, c->label, n, &soft, c->work);
    for (int i = 0; i < kept; i++) {
        const int k = c->keep[i];
        out[i] = (pd_detection){c->box[k], c->score[k], c->label[k]};
    }
    *count = kept;
    return PD_OK;
}
