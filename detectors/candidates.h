/* candidates.h: a growing list of scored boxes of one image, and the detections that suppression leaves of it. */
#ifndef PD_CANDIDATES_H
#define PD_CANDIDATES_H

#include "detectors/postprocess.h"

/* Begin with zeros. */
struct pd_candidates {
    size_t count;
    pd_box *box;
    float *score;
    int *label;
    size_t box_room, score_room, label_room, keep_room, work_room; /* private */
    int *keep;
    void *work;
};

void pd_candidates_free(pd_candidates *c);

/* PD_ENOMEM; without a sentence where err is NULL. */
pd_status pd_candidates_add(pd_candidates *c, pd_box box, float score, int label, pd_err *err);

/* Class-wise suppression as cfg says (nms.h, soft_nms.h); the best max_per_image, by score descending, into out. Scores
 * in the list are changed by soft suppression. */
pd_status pd_candidates_detect(pd_candidates *c, const pd_postprocess_cfg *cfg, pd_detection *out, int *count,
                               pd_err *err);

#endif
