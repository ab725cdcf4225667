/* box_loss_node.h: how a recorded pd_box_loss looks to its implementations: the inputs' places and the settings
 * (node->args). Included by them only, one operation a file. */
#ifndef PD_BOX_LOSS_NODE_H
#define PD_BOX_LOSS_NODE_H

#include "kernels/anchors.h"
#include "kernels/box_loss.h"

enum { BOXES, MATCH, GT, WEIGHT, DELTAS };

typedef struct box_args {
    pd_box_loss_cfg cfg;
    int levels, n, boxes, g;
    bool shared;
    int first[PD_MAX_LEVELS + 1]; /* flat index of each level's first box */
} box_args;

#endif
