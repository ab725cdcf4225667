/* fold.h: from trained parameters to folded ones, and the count of a network.
 *
 * pd_record_layer's PD_FORM_FUSED computes every folded kernel and bias on the tape (kernels/fold_bn.h); this copies them
 * into the parameters of the folded form, together with everything that does not change. */
#ifndef PD_FOLD_H
#define PD_FOLD_H

#include "engine/plan.h"

/* folded: allocated parameters of a folded network; unfolded: the trained ones; fused: a tape of them in PD_FORM_FUSED
 * whose inference plan has run once. Every folded parameter must find its source: PD_EINVAL names one that does not. */
pd_status pd_fold_params(pd_params *folded, const pd_params *unfolded, const pd_tape *fused, pd_err *err);

/* Multiply-accumulates of everything recorded, as the operations count themselves (see pd_op.macs); nodes whose name
 * starts with prefix only (NULL: all). */
double pd_tape_macs(const pd_tape *tape, const char *prefix);

#endif
