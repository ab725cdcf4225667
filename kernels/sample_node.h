/* sample_node.h: how a recorded pd_sample looks to its implementations: the inputs' places; the settings (node->args)
 * are its pd_sample_cfg. Included by them only, one operation a file. */
#ifndef PD_SAMPLE_NODE_H
#define PD_SAMPLE_NODE_H

#include "kernels/sample.h"

enum { MATCH, DRAW };

#endif
