/* roi_targets.h: which boxes train one stage of a box head. No gradient.
 *
 * Per image: proposals are assigned to ground truth (assign.h); the ground truths themselves stand in front of them as
 * candidates, each matched to itself (those without area are left out); the sampler (sample.h) chooses; the rows are
 * the chosen positives by ascending candidate, then the chosen background boxes by ascending candidate.
 *
 *   proposals   (n, m, 4), of which the first n_proposals[i] count; n_proposals (n) I32
 *   gt          (n, g, 4), n_gt (n) I32; draw (n) I32, see sample.h
 *   rois        (n, num, 4)       rows from count[i] on are 0
 *   match       (n, num) I32      ground truth, PD_MATCH_BACKGROUND, or PD_MATCH_IGNORED from count[i] on
 *   from_gt     (n, num) I32      1: the row is a ground truth box
 *   count       (n) I32 */
#ifndef PD_ROI_TARGETS_H
#define PD_ROI_TARGETS_H

#include "kernels/assign.h"
#include "kernels/sample.h"

typedef struct pd_roi_targets_cfg {
    pd_assign_cfg assign; /* pd_assign_cfg_roi */
    pd_sample_cfg sample; /* 512, 0.25 */
} pd_roi_targets_cfg;

typedef struct pd_roi_targets_out {
    pd_value *rois, *match, *from_gt, *count;
} pd_roi_targets_out;

pd_roi_targets_out pd_roi_targets(pd_tape *tape, pd_value *proposals, pd_value *n_proposals, pd_value *gt,
                                  pd_value *n_gt, pd_value *draw, const pd_roi_targets_cfg *cfg);

#endif
