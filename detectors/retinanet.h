/* retinanet.h: RetinaNet on a tape: backbone, pyramid, head, targets and losses.
 * Lin et al. 2017, "Focal Loss for Dense Object Detection", in the form of mmdetection 2.x. */
#ifndef PD_RETINANET_H
#define PD_RETINANET_H

#include "backbones/resnet.h"
#include "kernels/anchors.h"
#include "kernels/assign.h"
#include "kernels/focal_loss.h"

#define PD_RETINA_LEVELS 5

typedef struct pd_retinanet_cfg {
    pd_focal_cfg focal;   /* alpha 0.25, gamma 2 */
    float smooth_l1_beta; /* 0: L1 */
    pd_assign_cfg assign; /* 0.5, 0.4, 0, low quality */
    int norm_group;       /* images that share one normaliser: 2 */
} pd_retinanet_cfg;
pd_retinanet_cfg pd_retinanet_cfg_default(void);

/* What recording gives back. */
typedef struct pd_retinanet {
    pd_anchor_grid grid;
    pd_value *p[PD_RETINA_LEVELS], *cls[PD_RETINA_LEVELS], *reg[PD_RETINA_LEVELS];
} pd_retinanet;

/* The network. image (n, h, w, 3), h and w multiples of 32. */
void pd_record_retinanet(pd_tape *t, pd_form form, pd_arch arch, int classes, pd_value *image, pd_retinanet *out);

/* Ground truth of a batch, as inputs of the tape: boxes (n, g, 4), labels (n, g) I32, count (n) I32, sizes (n, 4) I32:
 * h, w, pad_h, pad_w. */
typedef struct pd_ground_truth {
    pd_value *boxes, *labels, *count, *sizes;
} pd_ground_truth;

/* loss_cls and loss_bbox (both minimised), and positives and negatives per image (n, 2) I32. */
typedef struct pd_retinanet_losses {
    pd_value *cls, *bbox, *count;
} pd_retinanet_losses;
pd_retinanet_losses pd_record_retinanet_losses(pd_tape *t, const pd_retinanet *net, int classes,
                                               const pd_ground_truth *gt, const pd_retinanet_cfg *cfg);

#endif
