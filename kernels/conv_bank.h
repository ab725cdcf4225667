/* conv_bank.h: several convolutions of one input: the branches of a ParaDise layer in training.
 *
 *   y_j = conv(x, w_j),  j < count
 *
 *   x    (n, h, w, c)
 *   w_j  (k, r_j, s_j, c / groups_j)
 *   y_j  (n, oh, ow, k): all of one shape
 *
 * The same as count times pd_conv without bias, but the input is transformed once for all branches where that is the
 * faster algorithm (kernels/winograd.h), and the gradients of x become one sum instead of count passes over memory.
 * Errors: as pd_conv; outputs of different shapes. */
#ifndef PD_CONV_BANK_H
#define PD_CONV_BANK_H

#include "kernels/conv.h"

#define PD_MAX_BANK 5

typedef struct pd_bank_conv {
    pd_value *w;
    pd_conv_args args; /* relu: false */
} pd_bank_conv;

/* Writes the outputs to y. */
void pd_conv_bank(pd_tape *t, const char *name, pd_value *x, int count, const pd_bank_conv *conv, pd_value **y);

/* As pd_conv_is_reference. */
bool pd_conv_bank_is_reference(const pd_node *node);

#endif
