/* dense_loss_node.h: how a recorded focal_loss or bce_loss looks to its implementations: the inputs' places and the
 * settings (node->args). Included by them only, one operation a file. */
#ifndef PD_DENSE_LOSS_NODE_H
#define PD_DENSE_LOSS_NODE_H

#include "kernels/dense_loss.h"

enum { LABEL, WEIGHT, LOGITS };

typedef struct dense_node {
    pd_dense_args args;
    unsigned char cfg[64]; /* the author's settings */
} dense_node;

#endif
