/* bn_sum_node.h: how a recorded pd_bn_sum looks to its implementations: the inputs' places and the settings
 * (node->args). Included by them only, one operation a file. */
#ifndef PD_BN_SUM_NODE_H
#define PD_BN_SUM_NODE_H

#include "kernels/bn_sum.h"

/* Inputs: gate, residual, then five per branch. */
enum { GATE, RESIDUAL, FIRST };
enum { Z, GAMMA, BETA, MEAN, VAR, PER_BRANCH };
#define IN(k, what) (FIRST + (k)*PER_BRANCH + (what))

typedef struct bn_args {
    pd_bn_settings set;
    int branches;
    int gate[PD_MAX_BRANCHES];
} bn_args;

#endif
