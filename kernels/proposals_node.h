/* proposals_node.h: how a recorded pd_proposals looks to its implementations: the inputs' places and the settings
 * (node->args). Included by them only, one operation a file. */
#ifndef PD_PROPOSALS_NODE_H
#define PD_PROPOSALS_NODE_H

#include "kernels/proposals.h"

enum { SIZES, HEADS }; /* HEADS: the levels' logits, then their deltas */

typedef struct proposals_args {
    pd_proposals_cfg cfg;
    int n;
    pd_anchor_grid grid;
    int room;    /* candidates of all levels of one image */
    int largest; /* candidates of one level */
} proposals_args;

#endif
