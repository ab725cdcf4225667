/* roi_targets_node.h: how a recorded pd_roi_targets looks to its implementations: the inputs' places and the settings
 * (node->args). Included by them only, one operation a file. */
#ifndef PD_ROI_TARGETS_NODE_H
#define PD_ROI_TARGETS_NODE_H

#include "kernels/roi_targets.h"

enum { PROPOSALS, N_PROPOSALS, GT, N_GT, DRAW, INPUTS };

typedef struct roi_targets_args {
    pd_roi_targets_cfg cfg;
    int n, m, g;
} roi_targets_args;

#endif
