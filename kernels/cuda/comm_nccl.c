/* Collectives on GPU memory: engine/comm.h by NCCL. Its id goes from rank 0 to all by the host's communicator.
 *
 * Collectives run on a stream of their own, behind what the computing stream had been given when they began;
 * pd_comm_wait makes the computing stream wait, not the host. The communicator never blocks the host: every call is
 * polled to its end, with a limit. A thread watches for errors of the network; on one it aborts, which ends kernels
 * that hang, and the next call returns the error. That a process is lost, the heartbeats of the host's communicator
 * find. */
#include "engine/comm.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/ops.h"

#include <nccl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define LIMIT 600.0 /* seconds for a call to be taken: others may come late to the first one, with plans to time */

typedef struct nccl_comm {
    pd_comm base;
    pd_cuda *device;
    ncclComm_t comm;
    cudaStream_t stream;
    cudaEvent_t given, done;
    pthread_t watchdog;
    bool watched;
    atomic_bool leaving;
    pthread_mutex_t lock; /* one thread at a time calls NCCL for `comm`: asking for its state completes calls, too */
    atomic_int failure;   /* an ncclResult_t that the watchdog saw, and it aborted `comm`; 0: none */
} nccl_comm;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static pd_status failed(const nccl_comm *c, const char *call, ncclResult_t code, pd_err *err)
{
    return PD_FAIL(err, PD_EDEVICE, "%s: NCCL: %s: %s", call, ncclGetErrorString(code),
                   c->comm && !atomic_load(&c->failure) ? ncclGetLastError(c->comm) : "");
}

/* Before a call: it is this thread's turn, and the communicator is whole. Left by taken. */
static pd_status enter(nccl_comm *c, const char *call, pd_err *err)
{
    pthread_mutex_lock(&c->lock);
    const int failure = atomic_load(&c->failure);
    if (!failure) return PD_OK;
    pthread_mutex_unlock(&c->lock);
    return failed(c, call, (ncclResult_t)failure, err);
}

/* Polls a call that does not block until it was taken, most often within microseconds. */
static pd_status taken(nccl_comm *c, const char *call, ncclResult_t code, pd_err *err)
{
    const double start = now();
    for (double waited = 0; code == ncclInProgress && waited < LIMIT; waited = now() - start) {
        const ncclResult_t asked = ncclCommGetAsyncError(c->comm, &code);
        if (asked != ncclSuccess) code = asked;
        if (code == ncclInProgress && waited < 1e-4)
            sched_yield();
        else if (code == ncclInProgress)
            usleep(50);
    }
    pd_status status = PD_OK;
    if (code == ncclInProgress)
        status = PD_FAIL(err, PD_EDEVICE,
                         "%s: NCCL: not taken within %.0f s: does every process have a GPU of its own, and can "
                         "they reach each other (NCCL_DEBUG=INFO says more)?",
                         call, LIMIT);
    else if (code != ncclSuccess)
        status = failed(c, call, code, err);
    pthread_mutex_unlock(&c->lock);
    return status;
}

#define NCCL_TRY(c, call, err)                                                                                         \
    do {                                                                                                               \
        PD_TRY(enter((c), #call, (err)));                                                                              \
        PD_TRY(taken((c), #call, (call), (err)));                                                                      \
    } while (0)

static void *watch_errors(void *arg)
{
    nccl_comm *c = arg;
    while (!atomic_load(&c->leaving)) {
        usleep(200000);
        if (pthread_mutex_trylock(&c->lock) != 0) continue; /* who holds it looks himself */
        ncclResult_t state = ncclSuccess;
        if (ncclCommGetAsyncError(c->comm, &state) == ncclSuccess && state != ncclSuccess && state != ncclInProgress) {
            atomic_store(&c->failure, (int)state);
            (void)ncclCommAbort(c->comm);
        }
        pthread_mutex_unlock(&c->lock);
        if (atomic_load(&c->failure)) return NULL;
    }
    return NULL;
}

/* The collective stream goes on behind what is computed so far. */
static pd_status follow(nccl_comm *c, pd_err *err)
{
    PD_CUDA_TRY(cudaEventRecord(c->given, c->device->stream), err);
    PD_CUDA_TRY(cudaStreamWaitEvent(c->stream, c->given, 0), err);
    return PD_OK;
}

static pd_status nccl_sum(pd_comm *base, void *data, size_t count, pd_comm_type type, pd_err *err)
{
    nccl_comm *c = (nccl_comm *)base;
    const ncclDataType_t t = type == PD_COMM_F64 ? ncclFloat64 : type == PD_COMM_I64 ? ncclInt64 : ncclFloat32;
    PD_TRY(follow(c, err));
    NCCL_TRY(c, ncclAllReduce(data, data, count, t, type == PD_COMM_MEAN ? ncclAvg : ncclSum, c->comm, c->stream), err);
    return PD_OK;
}

static pd_status nccl_broadcast(pd_comm *base, void *data, size_t bytes, int root, pd_err *err)
{
    nccl_comm *c = (nccl_comm *)base;
    PD_TRY(follow(c, err));
    NCCL_TRY(c, ncclBroadcast(data, data, bytes, ncclChar, root, c->comm, c->stream), err);
    return PD_OK;
}

static pd_status nccl_gather(pd_comm *base, void *all, const void *mine, const size_t *bytes, pd_err *err)
{
    nccl_comm *c = (nccl_comm *)base;
    char *to = all;
    PD_TRY(follow(c, err));
    PD_TRY(enter(c, "ncclBroadcast", err));
    (void)ncclGroupStart(); /* what goes wrong in a group is told by its end */
    for (int r = 0; r < base->world; r++) {
        if (bytes[r]) (void)ncclBroadcast(mine, to, bytes[r], ncclChar, r, c->comm, c->stream);
        to += bytes[r];
    }
    return taken(c, "ncclBroadcast", ncclGroupEnd(), err);
}

static pd_status nccl_wait(pd_comm *base, pd_err *err)
{
    nccl_comm *c = (nccl_comm *)base;
    const int failure = atomic_load(&c->failure);
    if (failure) return failed(c, "a collective under way", (ncclResult_t)failure, err);
    PD_CUDA_TRY(cudaEventRecord(c->done, c->stream), err);
    PD_CUDA_TRY(cudaStreamWaitEvent(c->device->stream, c->done, 0), err);
    return PD_OK;
}

/* The host's communicator watches. */
static void nccl_watch(pd_comm *base, double seconds, pd_lost_fn lost, void *arg)
{
    (void)base;
    (void)seconds;
    (void)lost;
    (void)arg;
}

static void nccl_close(pd_comm *base, int code)
{
    nccl_comm *c = (nccl_comm *)base;
    atomic_store(&c->leaving, true);
    if (c->watched) pthread_join(c->watchdog, NULL);
    if (c->comm && !atomic_load(&c->failure)) {
        bool whole = !code && enter(c, "ncclCommFinalize", NULL) == PD_OK;
        whole = whole && taken(c, "ncclCommFinalize", ncclCommFinalize(c->comm), NULL) == PD_OK;
        if (!whole)
            (void)ncclCommAbort(c->comm);
        else
            (void)ncclCommDestroy(c->comm);
    }
    if (c->given) (void)cudaEventDestroy(c->given);
    if (c->done) (void)cudaEventDestroy(c->done);
    if (c->stream) (void)cudaStreamDestroy(c->stream);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static pd_status begin(nccl_comm *c, pd_comm *host, pd_err *err)
{
    ncclUniqueId id;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    if (host->rank == 0) NCCL_TRY(c, ncclGetUniqueId(&id), err);
    PD_TRY(pd_comm_broadcast(host, &id, sizeof id, 0, err));
    PD_CUDA_TRY(cudaSetDevice(c->device->index), err);
    PD_CUDA_TRY(cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), err);
    PD_CUDA_TRY(cudaEventCreateWithFlags(&c->given, cudaEventDisableTiming), err);
    PD_CUDA_TRY(cudaEventCreateWithFlags(&c->done, cudaEventDisableTiming), err);
    config.blocking = 0;
    NCCL_TRY(c, ncclCommInitRankConfig(&c->comm, host->world, id, host->rank, &config), err);
    if (pthread_create(&c->watchdog, NULL, watch_errors, c) != 0)
        return PD_FAIL(err, PD_EDEVICE, "no thread to watch NCCL can be had");
    c->watched = true;
    return PD_OK;
}

static pd_status nccl_open(pd_comm **out, pd_comm *host, pd_device *device, pd_err *err)
{
    nccl_comm *c = calloc(1, sizeof *c);
    if (!c) return PD_FAIL(err, PD_ENOMEM, "out of memory for a communicator");
    c->base = (pd_comm){.rank = host->rank,
                        .world = host->world,
                        .local_rank = host->local_rank,
                        .local_world = host->local_world,
                        .machines = host->machines,
                        .sum = nccl_sum,
                        .broadcast = nccl_broadcast,
                        .gather = nccl_gather,
                        .wait = nccl_wait,
                        .watch = nccl_watch,
                        .close = nccl_close};
    c->device = pd_cuda_of(device);
    (void)pthread_mutex_init(&c->lock, NULL);
    const pd_status status = begin(c, host, err);
    if (status != PD_OK) {
        nccl_close(&c->base, 1);
        return pd_err_context(err, "%s", device->name), status;
    }
    *out = &c->base;
    return PD_OK;
}

const pd_comm_maker pd_cuda_comm = {nccl_open};
