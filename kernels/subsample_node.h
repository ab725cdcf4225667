/* subsample_node.h: how a recorded pd_subsample looks to its implementations: the inputs' places and the settings
 * (node->args). Included by them only, one operation a file. */
#ifndef PD_SUBSAMPLE_NODE_H
#define PD_SUBSAMPLE_NODE_H

#include "kernels/subsample.h"

typedef struct sub_args {
    size_t stride, n, h, w, oh, ow, c;
} sub_args;

#endif
