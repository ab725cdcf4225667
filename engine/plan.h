/* plan.h: place a recorded tape in memory and replay it.
 *
 * The plan walks the tape once: which values need gradients; how long every activation, gradient, saved and scratch
 * buffer lives; offsets in one workspace so that no two living buffers overlap (greedy, largest first); for each
 * gradient the first writer sets and later writers add; nodes with nothing trainable below get no backward and free
 * their inputs at once; library descriptors are made. After that a run is two plain loops and allocates nothing.
 *
 * Nodes whose inputs are all constant (frozen or inference weights: a folded kernel, say) run only in the first
 * forward and after pd_plan_refresh. One plan serves one set of shapes; keep several for several input shapes. Plans of
 * the same parameters keep constants, and what operations make of them (packed weights), once for all (shared.h).
 *
 * On a device that records graphs (pd_device.graph_begin) the third run and those behind it are one recorded launch
 * each for forward and backward, as long as neither the workspace nor a bound input has moved; pd_plan_no_graphs keeps
 * to the loops. */
#ifndef PD_PLAN_H
#define PD_PLAN_H

#include "engine/tape.h"

typedef struct pd_plan pd_plan;

typedef enum pd_plan_mode {
    PD_PLAN_INFER, /* forward only; all parameters are constants */
    PD_PLAN_TRAIN, /* forward and backward of the values given to pd_tape_minimise */
} pd_plan_mode;

/* Memory that several plans use in turn (one per input shape): as large as the largest needs. What one plan left in it
 * is gone when another is made or runs. */
typedef struct pd_workspace pd_workspace;
pd_status pd_workspace_new(pd_workspace **out, pd_device *device, pd_err *err);
void pd_workspace_free(pd_workspace *workspace); /* after the plans that use it; NULL allowed */
size_t pd_workspace_bytes(const pd_workspace *workspace);

/* One plan per tape. The tape's parameters must be allocated; the tape is kept (borrowed) as long as the plan lives.
 * workspace NULL: the plan has its own. Fails with the tape's first failure, if it had one, or where an operation has
 * no implementation on the device. */
pd_status pd_plan_new(pd_plan **out, pd_tape *tape, pd_device *device, pd_plan_mode mode, pd_workspace *workspace,
                      pd_err *err);
void pd_plan_free(pd_plan *plan); /* NULL allowed */

/* What pd_plan_bytes would say of such a plan; nothing of it is allocated, and the parameters need not be. */
pd_status pd_plan_measure(size_t *bytes, pd_tape *tape, pd_device *device, pd_plan_mode mode, pd_err *err);

/* Bytes that such a plan for inference takes besides its workspace: folded kernels and other constants, and what
 * operations make of them in the first run (about, where that depends on their values). */
pd_status pd_plan_measure_constants(size_t *bytes, pd_tape *tape, pd_device *device, pd_err *err);

/* Gives an input its data for the following runs (device memory, input's shape and dtype; borrowed). */
void pd_plan_bind(pd_value *input, void *data);

/* The same from host memory: the CPU reads it where it is (borrowed until the backward run is over), another device
 * gets a copy, so that `data` is free again when this returns. */
pd_status pd_plan_give(pd_plan *plan, pd_value *input, const void *data, pd_err *err);

/* Makes value->host of a kept value (or of all kept values: NULL) what the last forward run left, as float32 or int32
 * in host memory that belongs to the plan. On the CPU that is data itself. */
pd_status pd_plan_fetch(pd_plan *plan, pd_value *value, pd_err *err);

/* The same for all kept values, without waiting: what the last forward run left is copied behind it, and another run
 * may follow at once. pd_plan_fetched waits for the oldest such copy alone and makes the values' host show it, until
 * the next pd_plan_fetch_later. At most PD_PLAN_LATE copies may be unread (PD_EINVAL). For losses and counts, not for
 * maps. */
#define PD_PLAN_LATE 2
pd_status pd_plan_fetch_later(pd_plan *plan, pd_err *err);
pd_status pd_plan_fetched(pd_plan *plan, pd_err *err);

/* Parameters were changed from outside (loaded): constants are computed again in the next forward run. Tell every plan
 * of these parameters, and before a new one is made. */
void pd_plan_refresh(pd_plan *plan);

pd_status pd_plan_forward(pd_plan *plan, pd_err *err);

/* From now on always the plain loops. */
void pd_plan_no_graphs(pd_plan *plan);

/* After a forward run of a training plan. accumulate: gradients of parameters are added to what is there, otherwise
 * they are overwritten. Parameters that do not take part keep what they had: zero them once. */
pd_status pd_plan_backward(pd_plan *plan, bool accumulate, pd_err *err);

/* Bytes that a run needs (constants included), and what it would be if nothing shared memory. */
size_t pd_plan_bytes(const pd_plan *plan);
size_t pd_plan_naive_bytes(const pd_plan *plan);

/* Seconds spent in each node's forward and backward of the last runs, if timing is on; id = node->id. For profiles. */
typedef struct pd_node_time {
    double fwd, bwd;
} pd_node_time;
pd_status pd_plan_time_nodes(pd_plan *plan, pd_err *err); /* switches timing on */
const pd_node_time *pd_plan_times(const pd_plan *plan);   /* NULL when off */

#endif
