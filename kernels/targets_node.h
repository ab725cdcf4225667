/* targets_node.h: how a recorded pd_match_targets looks to its implementations: the inputs' places and the settings
 * (node->args). Included by them only, one operation a file. */
#ifndef PD_TARGETS_NODE_H
#define PD_TARGETS_NODE_H

#include "kernels/targets.h"

enum { MATCH, GT_LABEL };

typedef struct targets_args {
    int n, boxes, g, k, group; /* g: INT32_MAX without labels */
    pd_norm norm;
} targets_args;

#endif
