/* fold_bn_node.h: how a recorded pd_fold_bn looks to its implementations: the inputs' places and the settings
 * (node->args). Included by them only, one operation a file. */
#ifndef PD_FOLD_BN_NODE_H
#define PD_FOLD_BN_NODE_H

#include "kernels/bn_sum.h"
#include "kernels/fold_bn.h"

enum { W, GAMMA, BETA, MEAN, VAR, PER_BRANCH };
#define IN(b, what) ((b)*PER_BRANCH + (what))

typedef struct fold_args {
    int branches, columns, k, r, s, c;
    int groups[PD_MAX_BRANCHES], column[PD_MAX_BRANCHES];
    float eps;
} fold_args;

#endif
