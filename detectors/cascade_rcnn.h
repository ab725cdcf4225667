/* cascade_rcnn.h: settings of Cascade R-CNN, and of Faster R-CNN, which is its case of one stage.
 * Cai & Vasconcelos 2018, "Cascade R-CNN"; Ren et al. 2015, "Faster R-CNN"; in the form of mmdetection 2.x.
 *
 * Training, per image: anchors are assigned and sampled for the proposal network; its boxes (no gradient), with the
 * ground truths in front, are assigned and sampled for the first stage; each stage's boxes, moved by its own
 * predictions (no gradient, ground truths taken out), are the candidates of the next. Gradients of all stages add up in
 * the pyramid. Detection: every proposal goes through all stages; the class scores are one softmax of the mean of the
 * stages' logits, the box is the last stage's. A cascade's boxes are class-agnostic: one set of offsets for all
 * classes; a single stage may have one for each class, as Faster R-CNN does: trained on the offsets of the object's
 * class, and in detection a box for each class that scores. */
#ifndef PD_CASCADE_RCNN_H
#define PD_CASCADE_RCNN_H

#include "kernels/proposals.h"
#include "kernels/roi_targets.h"

#define PD_MAX_BOX_STAGES 4

typedef struct pd_rpn_cfg {
    pd_assign_cfg assign;                                    /* 0.7, 0.3, 0.3, low quality, border 0 */
    pd_sample_cfg sample;                                    /* 256, 0.5 */
    float smooth_l1_beta;                                    /* 1/9; 0: L1 */
    pd_proposals_cfg train /* 2000 per level, 2000 */, test; /* 1000 per level, 1000; IoU 0.7 */
} pd_rpn_cfg;

typedef struct pd_box_stage_cfg {
    pd_assign_cfg assign; /* 0.5, 0.6, 0.7; no low quality */
    pd_box_coder coder;   /* stds 0.1 0.1 0.2 0.2; 0.05 0.05 0.1 0.1; 0.033 0.033 0.067 0.067 */
    float weight;         /* of the stage's losses: 1, 0.5, 0.25 */
} pd_box_stage_cfg;

typedef struct pd_cascade_cfg {
    pd_rpn_cfg rpn;
    int stages; /* 3; of Faster R-CNN 1 */
    pd_box_stage_cfg stage[PD_MAX_BOX_STAGES];
    pd_sample_cfg sample; /* of every stage: 512, 0.25; `stream` is set by the network */
    float smooth_l1_beta; /* 1; 0: L1 */
    bool class_boxes;     /* offsets for every class; one stage only */
    int norm_group;       /* images that share the losses' normalisers: 2 */
} pd_cascade_cfg;

/* Three stages as above. */
pd_cascade_cfg pd_cascade_cfg_default(void);
/* One stage, the cascade's first; offsets for every class, L1 for boxes, proposals from anchors that reach over the
 * border too (border -1), 1000 of them in training. */
pd_cascade_cfg pd_faster_cfg_default(void);

#endif
