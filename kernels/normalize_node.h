/* normalize_node.h: how a recorded pd_normalize looks to its implementations: the inputs' places and the settings
 * (node->args). Included by them only. */
#ifndef PD_NORMALIZE_NODE_H
#define PD_NORMALIZE_NODE_H

#include "kernels/normalize.h"

enum { BYTES, SIZES, MIRROR, INPUTS };

typedef struct normalize_args {
    int n, h, w;
    pd_pixel_norm norm;
} normalize_args;

#endif
