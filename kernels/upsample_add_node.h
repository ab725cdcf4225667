/* upsample_add_node.h: how a recorded pd_upsample_add looks to its implementations: the inputs' places and the settings
 * (node->args). Included by them only, one operation a file. */
#ifndef PD_UPSAMPLE_ADD_NODE_H
#define PD_UPSAMPLE_ADD_NODE_H

#include "kernels/upsample_add.h"

enum { COARSE, LATERAL };

typedef struct up_args {
    size_t n, h, w, hc, wc, c;
} up_args;

#endif
