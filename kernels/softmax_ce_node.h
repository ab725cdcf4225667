/* softmax_ce_node.h: how a recorded pd_softmax_ce looks to its implementations: the inputs' places and the settings
 * (node->args). Included by them only, one operation a file. */
#ifndef PD_SOFTMAX_CE_NODE_H
#define PD_SOFTMAX_CE_NODE_H

#include "kernels/softmax_ce.h"

enum { LOGITS, LABEL, WEIGHT };

typedef struct ce_args {
    int rows, k;
    int per_weight; /* rows that share a weight */
    float smoothing;
} ce_args;

#endif
