/* mixed_loss_node.h: how a recorded pd_mixed_loss looks to its implementations: the inputs' places and the settings
 * (node->args). Included by them only, one operation a file. */
#ifndef PD_MIXED_LOSS_NODE_H
#define PD_MIXED_LOSS_NODE_H

#include "kernels/mixed_loss.h"

enum { LOGITS, CLASS_A, CLASS_B, SHARE };

typedef struct mixed_args {
    int rows, k;
    pd_mixed_cfg cfg;
} mixed_args;

#endif
