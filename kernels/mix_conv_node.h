/* mix_conv_node.h: how a recorded pd_mix_conv looks to its implementations: the inputs' places and the settings
 * (node->args). Included by them only, one operation a file. */
#ifndef PD_MIX_CONV_NODE_H
#define PD_MIX_CONV_NODE_H

#include "kernels/mix_conv.h"

enum { X, GATE, KERNELS, BIAS, RESIDUAL };

#endif
