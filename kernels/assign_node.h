/* assign_node.h: how a recorded pd_assign looks to its implementations: the inputs' places and the settings
 * (node->args). Included by them only, one operation a file. */
#ifndef PD_ASSIGN_NODE_H
#define PD_ASSIGN_NODE_H

#include "kernels/assign.h"

enum { BOXES, N_BOXES, GT, N_GT, SIZES, INPUTS };

typedef struct assign_args {
    pd_assign_cfg cfg;
    int n, boxes, g;
    bool has_grid, shared; /* shared: boxes are the same for all images */
    pd_anchor_grid grid;
} assign_args;

#endif
