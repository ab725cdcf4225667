/* gate_node.h: how a recorded pd_excite looks to its implementations: the inputs' places and the settings (node->args).
 * Included by them only, one operation a file. */
#ifndef PD_GATE_NODE_H
#define PD_GATE_NODE_H

#include "kernels/gate.h"

enum { X, M, RESIDUAL };

#endif
