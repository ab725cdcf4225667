/* retinanet.h: settings of RetinaNet. Lin et al. 2017, "Focal Loss for Dense Object Detection", in the form of
 * mmdetection 2.x. The network is recorded in retinanet.c: backbone, pyramid, head, targets and losses. */
#ifndef PD_RETINANET_H
#define PD_RETINANET_H

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

#endif
