/* comm.h: the processes that train together, one a device: who they are, and what they compute in common.
 *
 * mpirun or srun starts the processes. pd_comm_open sees it by the environment and joins them with MPI, which lives in
 * a plugin (libparadise_mpi.so): a process that is alone neither links nor starts MPI. Its pd_comm is NULL, and every
 * call here takes NULL for "alone": rank 0 of 1, sums are what they are, a broadcast has nothing to do.
 *
 * All processes make the same collective calls, in the same order and with the same sizes; they are carried out in that
 * order. Data is host memory; pd_device.comm is the same interface for a device's memory (pd_comm_of_device).
 *
 * Sums are taken in the order of the ranks and in double precision, whatever the network: the same number of processes
 * gives the same bits, in every run and on every rank (NCCL: in every run, on every rank).
 *
 * One thread makes the calls. */
#ifndef PD_COMM_H
#define PD_COMM_H

#include "engine/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pd_comm pd_comm;

typedef enum pd_comm_type {
    PD_COMM_F32,
    PD_COMM_F64,
    PD_COMM_I64,
    PD_COMM_MEAN, /* float32, and the mean in place of the sum */
} pd_comm_type;

/* Joins the processes of this run; *out NULL: this one is alone. PD_EDEVICE where a launcher started several, but MPI
 * is not to be had, or does not see them. Processes of one machine that a launcher did not bind share its processors
 * out: the calling thread, and threads started by it, keep to this process's part. */
pd_status pd_comm_open(pd_comm **out, pd_err *err);

/* Leaves. code 0: when all the others leave too; otherwise this process failed: all processes of the run are ended,
 * with this exit code where the launcher passes it on, and the call does not return. NULL: nothing. */
void pd_comm_close(pd_comm *comm, int code);

int pd_comm_rank(const pd_comm *comm);
int pd_comm_world(const pd_comm *comm);
/* Rank among the processes of this machine, and their number. */
int pd_comm_local_rank(const pd_comm *comm);
int pd_comm_local_world(const pd_comm *comm);
int pd_comm_machines(const pd_comm *comm);

/* From now on the processes hear of each other all the time, computing or not. When one has been silent for `seconds`
 * (killed, stopped, its machine lost), or keeps the others waiting in a collective 20 times as long, `lost` is called
 * with a sentence that names it, on a thread of the communicator, and then all processes are ended with exit code 1.
 * A collective too: `seconds` is the same everywhere. */
typedef void (*pd_lost_fn)(void *arg, const char *text);
pd_status pd_comm_watch(pd_comm *comm, double seconds, pd_lost_fn lost, void *arg, pd_err *err);

/* Begins data[i] = sum over the ranks of data[i]; data belongs to the communicator until pd_comm_wait. */
pd_status pd_comm_start_sum(pd_comm *comm, void *data, size_t count, pd_comm_type type, pd_err *err);
/* Until everything that was started is done; on a device's memory: operations of the device that follow see it done. */
pd_status pd_comm_wait(pd_comm *comm, pd_err *err);

/* Start and wait in one. */
pd_status pd_comm_sum(pd_comm *comm, void *data, size_t count, pd_comm_type type, pd_err *err);
/* Everybody's data becomes rank root's. */
pd_status pd_comm_broadcast(pd_comm *comm, void *data, size_t bytes, int root, pd_err *err);
/* The ranks' data, of any lengths, one behind the other; *all is the caller's to free. Host memory only. */
pd_status pd_comm_gather(void **all, size_t *all_bytes, pd_comm *comm, const void *mine, size_t bytes, pd_err *err);
/* *any: whether `mine` is true on some rank. Host memory only. */
pd_status pd_comm_any(bool *any, pd_comm *comm, bool mine, pd_err *err);
/* Until all have come here. */
pd_status pd_comm_barrier(pd_comm *comm, pd_err *err);

/* The collectives on a device's memory: `host` itself where the device computes in host memory; otherwise made by the
 * device, and closed with it. `host` must live longer. */
struct pd_device;
pd_status pd_comm_of_device(pd_comm **out, pd_comm *host, struct pd_device *device, pd_err *err);

/* ---- for implementations ---- */

/* A process of the run, for messages. */
typedef struct pd_peer {
    char host[64];
    int64_t pid;
} pd_peer;

struct pd_comm {
    int rank, world, local_rank, local_world, machines;
    pd_peer *peers; /* (world) set by pd_comm_open before `watch`; freed by `close` */
    /* All three begin something that `wait` ends. bytes: (world) what each rank contributes. */
    pd_status (*sum)(pd_comm *, void *data, size_t count, pd_comm_type type, pd_err *);
    pd_status (*broadcast)(pd_comm *, void *data, size_t bytes, int root, pd_err *);
    pd_status (*gather)(pd_comm *, void *all, const void *mine, const size_t *bytes, pd_err *);
    pd_status (*wait)(pd_comm *, pd_err *);
    void (*watch)(pd_comm *, double seconds, pd_lost_fn lost, void *arg);
    void (*close)(pd_comm *, int code);
};

/* What libparadise_mpi.so exports as "pd_comm_mpi". version: PD_VERSION and the size of pd_comm of its build. */
typedef struct pd_comm_plugin {
    const char *version;
    size_t comm_size;
    pd_status (*open)(pd_comm **out, pd_err *err);
} pd_comm_plugin;

/* What a device that has memory of its own gives under the name "comm" (pd_device.find). */
typedef struct pd_comm_maker {
    pd_status (*open)(pd_comm **out, pd_comm *host, struct pd_device *device, pd_err *err);
} pd_comm_maker;

#endif
