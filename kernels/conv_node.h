/* conv_node.h: how a recorded pd_conv looks to its implementations: the inputs' places and the settings (node->args).
 * Included by them only, one operation a file. */
#ifndef PD_CONV_NODE_H
#define PD_CONV_NODE_H

#include "kernels/conv.h"

enum { X, W, BIAS, RESIDUAL };

#endif
