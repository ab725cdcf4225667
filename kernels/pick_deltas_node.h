/* pick_deltas_node.h: how a recorded pd_pick_deltas looks to its implementations: the inputs' places. Included by them
 * only, one operation a file. */
#ifndef PD_PICK_DELTAS_NODE_H
#define PD_PICK_DELTAS_NODE_H

#include "kernels/pick_deltas.h"

enum { DELTAS, LABEL };

#endif
