/* conv_bank_node.h: how a recorded pd_conv_bank looks to its implementations: the inputs' places and the settings
 * (node->args). Included by them only, one operation a file. */
#ifndef PD_CONV_BANK_NODE_H
#define PD_CONV_BANK_NODE_H

#include "kernels/conv_bank.h"

enum { X, W };

typedef struct bank_args {
    int count;
    pd_conv_args conv[PD_MAX_BANK];
} bank_args;

#endif
