/* pool_node.h: how a recorded pd_max_pool looks to its implementations: the inputs' places and the settings
 * (node->args). Included by them only, one operation a file. */
#ifndef PD_POOL_NODE_H
#define PD_POOL_NODE_H

#include "kernels/pool.h"

typedef struct pool_args {
    int size, stride, pad;
} pool_args;

#endif
