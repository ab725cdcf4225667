/* refine_node.h: how a recorded pd_refine looks to its implementations: the inputs' places and the settings
 * (node->args). Included by them only, one operation a file. */
#ifndef PD_REFINE_NODE_H
#define PD_REFINE_NODE_H

#include "kernels/refine.h"

enum { ROIS, N_ROIS, DELTAS, DROP, SIZES, INPUTS };

typedef struct refine_args {
    pd_box_coder coder;
    int n, m;
} refine_args;

#endif
