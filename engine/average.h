/* average.h: gradients and running statistics averaged over the processes of a run.
 *
 * The block of gradients is cut from its end to its start, the order in which backward runs complete it, into buckets
 * of neighbours. As soon as the last weight of a bucket has its gradient, and all buckets before it have begun, its
 * mean over the processes begins, while the backward run goes on (Li et al. 2020, "PyTorch Distributed"). Running
 * statistics of batch norms follow with the step: all processes have the same at the beginning of every step. */
#ifndef PD_AVERAGE_H
#define PD_AVERAGE_H

#include "engine/comm.h"
#include "engine/params.h"

typedef struct pd_average pd_average;

/* Listens to the gradients of params, which must be allocated with them and whose trainable weights no longer change.
 * passes: backward runs per step, all but the first of which accumulate. comm: of the memory of the parameters' device;
 * NULL: this process is alone, *out is NULL, and pd_average_finish has nothing to do. */
pd_status pd_average_new(pd_average **out, pd_params *params, pd_comm *comm, int passes, pd_err *err);
void pd_average_free(pd_average *a); /* before params; NULL allowed */

/* Behind the last backward run of a step: begins what has not begun and waits for all. */
pd_status pd_average_finish(pd_average *a, pd_err *err);

#endif
