/* linear_node.h: how a recorded pd_linear looks to its implementations: the inputs' places and the settings
 * (node->args). Included by them only, one operation a file. */
#ifndef PD_LINEAR_NODE_H
#define PD_LINEAR_NODE_H

#include "kernels/linear.h"

enum { X, W, BIAS };

#endif
