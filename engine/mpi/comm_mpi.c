/* comm_mpi.c: engine/comm.h by MPI. Built as the plugin libparadise_mpi.so.
 *
 * One thread makes every MPI call, the first to the last (MPI_THREAD_FUNNELED): it takes collectives from a queue,
 * polls them to their end, and in between and while the queue is empty it exchanges heartbeats. So a rank that computes
 * is heard of as well as one that waits, and a collective proceeds while the caller computes.
 *
 * Heartbeats form a star: every rank sends its number of begun collectives to rank 0, rank 0 sends its own to all. */
#include "engine/comm.h"

#include <limits.h>
#include <mpi.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define QUEUE 64
#define SMALL 2048              /* elements; below, everybody gets everything and adds for himself */
#define PIECE ((size_t)8 << 20) /* elements of a large sum that are under way at once */
#define BYTES ((size_t)1 << 30) /* bytes of a broadcast under way at once */
#define PATIENCE 20             /* times the limit of silence: how long a collective may wait for a rank that lives */

typedef enum op_kind { SUM, BROADCAST, GATHER } op_kind;

typedef struct operation {
    op_kind kind;
    void *data;
    const void *mine;
    size_t count; /* elements or bytes */
    pd_comm_type type;
    int root;
    size_t *bytes; /* (world), the operation's own */
} operation;

/* What rank 0 knows of a rank, and every other rank of rank 0. */
typedef struct pulse {
    double heard;     /* when, seconds */
    int64_t begun;    /* collectives it had begun */
    int64_t message;  /* under way to it */
    MPI_Request sent; /* MPI_REQUEST_NULL: none is */
} pulse;

typedef struct mpi_comm {
    pd_comm base;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under the lock: */
    operation queue[QUEUE];
    size_t first, count;
    bool opened, busy, leaving;
    int exit_code;
    pd_err failure; /* code PD_OK: none */
    double limit;   /* seconds of silence; 0: nobody watches yet */
    pd_lost_fn lost;
    void *lost_arg;
    /* the thread's own: */
    MPI_Comm world, beats;
    pulse *pulses; /* (world) */
    void *scratch;
    size_t scratch_bytes;
    double next_beat, last_beat, waiting_since; /* waiting_since 0: not in a collective */
    int64_t begun;
    char description[96]; /* of the collective under way */
} mpi_comm;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static pd_status failed(const char *what, int code, pd_err *err)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    return PD_FAIL(err, PD_EDEVICE, "%s: MPI: %s", what, text);
}

#define MPI_TRY(call)                                                                                                  \
    do {                                                                                                               \
        const int mpi_code_ = (call);                                                                                  \
        if (mpi_code_ != MPI_SUCCESS) return failed(#call, mpi_code_, err);                                            \
    } while (0)

/* ---- heartbeats ---- */

/* Whom this rank watches: everybody, or rank 0. */
static int watched(const mpi_comm *c)
{
    return c->base.rank == 0 ? c->base.world : 1;
}

/* Tells, and ends the run. */
static void lose(mpi_comm *c, int rank, const char *how, double seconds)
{
    char text[384];
    const pd_peer *p = &c->base.peers[rank];
    snprintf(text, sizeof text,
             "rank %d (%s, process %lld) %s for %.0f s: all %d processes end here; --resume auto goes on", rank,
             p->host, (long long)p->pid, how, seconds, c->base.world);
    c->lost(c->lost_arg, text);
    MPI_Abort(MPI_COMM_WORLD, 1);
}

static void hear(mpi_comm *c, double time)
{
    int there = 0;
    MPI_Status status;
    while (MPI_Iprobe(MPI_ANY_SOURCE, 0, c->beats, &there, &status) == MPI_SUCCESS && there) {
        int64_t begun = 0;
        if (MPI_Recv(&begun, 1, MPI_INT64_T, status.MPI_SOURCE, 0, c->beats, MPI_STATUS_IGNORE) != MPI_SUCCESS) return;
        c->pulses[status.MPI_SOURCE].heard = time;
        c->pulses[status.MPI_SOURCE].begun = begun;
    }
}

static void say(mpi_comm *c)
{
    for (int r = 0; r < watched(c); r++) {
        pulse *p = &c->pulses[r];
        int done = 1;
        if (r == c->base.rank) continue;
        if (p->sent != MPI_REQUEST_NULL) MPI_Test(&p->sent, &done, MPI_STATUS_IGNORE);
        if (!done) continue;
        p->message = c->begun;
        MPI_Isend(&p->message, 1, MPI_INT64_T, r, 0, c->beats, &p->sent);
    }
}

static void beat(mpi_comm *c)
{
    const double time = now();
    pthread_mutex_lock(&c->lock);
    const double limit = c->limit;
    pthread_mutex_unlock(&c->lock);
    if (limit <= 0 || time < c->next_beat) return;
    const bool slept =
        time - c->last_beat > limit / 2; /* all stopped together (Ctrl-Z), or watching begins: a new start */
    c->last_beat = time;
    c->next_beat = time + (limit < 10 ? limit / 10 : 1);
    hear(c, time);
    say(c);
    for (int r = 0; r < watched(c); r++) {
        pulse *p = &c->pulses[r];
        if (r == c->base.rank) continue;
        if (slept) p->heard = time;
        if (time - p->heard > limit) lose(c, r, "has not been heard of", time - p->heard);
        const double waited = c->waiting_since > 0 ? time - c->waiting_since : 0;
        if (waited > PATIENCE * limit && p->begun < c->begun) lose(c, r, "lives, but keeps the others waiting", waited);
    }
}

/* ---- collectives ---- */

static pd_status finish(mpi_comm *c, MPI_Request *request, pd_err *err)
{
    for (unsigned turn = 0;; turn++) {
        int done = 0;
        MPI_TRY(MPI_Test(request, &done, MPI_STATUS_IGNORE));
        if (done) return PD_OK;
        beat(c);
        const struct timespec nap = {0, 50000};
        if (turn < 100)
            sched_yield();
        else
            nanosleep(&nap, NULL);
    }
}

static size_t size_of(pd_comm_type type)
{
    return type == PD_COMM_F64 || type == PD_COMM_I64 ? 8 : 4;
}

static MPI_Datatype type_of(pd_comm_type type)
{
    return type == PD_COMM_F64 ? MPI_DOUBLE : type == PD_COMM_I64 ? MPI_INT64_T : MPI_FLOAT;
}

static pd_status need_scratch(mpi_comm *c, size_t bytes, pd_err *err)
{
    if (bytes <= c->scratch_bytes) return PD_OK;
    void *more = realloc(c->scratch, bytes);
    if (!more) return PD_FAIL(err, PD_ENOMEM, "out of memory: %zu bytes to sum over the processes", bytes);
    c->scratch = more;
    c->scratch_bytes = bytes;
    return PD_OK;
}

/* to[i] = parts[0][i] + parts[1][i] + ..., the ranks' parts lying one behind the other. */
static void add_parts(void *to, const void *parts, size_t n, int world, pd_comm_type type)
{
    const double scale = type == PD_COMM_MEAN ? 1.0 / world : 1;
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        int64_t whole = 0;
        for (size_t at = i; at < n * (size_t)world; at += n) {
            if (type == PD_COMM_F64) sum += ((const double *)parts)[at];
            if (type == PD_COMM_I64) whole += ((const int64_t *)parts)[at];
            if (size_of(type) == 4) sum += (double)((const float *)parts)[at];
        }
        if (type == PD_COMM_F64) ((double *)to)[i] = sum;
        if (type == PD_COMM_I64) ((int64_t *)to)[i] = whole;
        if (size_of(type) == 4) ((float *)to)[i] = (float)(sum * scale);
    }
}

static pd_status sum_small(mpi_comm *c, void *data, size_t n, pd_comm_type type, pd_err *err)
{
    MPI_Request request;
    PD_TRY(need_scratch(c, n * size_of(type) * (size_t)c->base.world, err));
    MPI_TRY(MPI_Iallgather(data, (int)n, type_of(type), c->scratch, (int)n, type_of(type), c->world, &request));
    PD_TRY(finish(c, &request, err));
    add_parts(data, c->scratch, n, c->base.world, type);
    return PD_OK;
}

/* Rank r gets everybody's r-th part, adds them up and gives everybody the sum. */
static pd_status sum_large(mpi_comm *c, void *data, size_t n, pd_comm_type type, pd_err *err)
{
    const int world = c->base.world, me = c->base.rank;
    pd_status status = PD_OK;
    MPI_Request request;
    int *counts = calloc((size_t)world * 4, sizeof *counts);
    if (!counts) return PD_FAIL(err, PD_ENOMEM, "out of memory to sum over %d processes", world);
    int *starts = counts + world, *same = starts + world, *places = same + world;
    for (int r = 0; r < world; r++) {
        starts[r] = (int)(n * (size_t)r / (size_t)world);
        counts[r] = (int)(n * ((size_t)r + 1) / (size_t)world) - starts[r];
    }
    for (int r = 0; r < world; r++) {
        same[r] = counts[me];
        places[r] = r * counts[me];
    }
    int code = MPI_SUCCESS;
    PD_TRY_DONE(need_scratch(c, (size_t)counts[me] * (size_t)world * size_of(type) + 1, err));
    code = MPI_Ialltoallv(data, counts, starts, type_of(type), c->scratch, same, places, type_of(type), c->world,
                          &request);
    if (code == MPI_SUCCESS) {
        PD_TRY_DONE(finish(c, &request, err));
        add_parts((char *)data + (size_t)starts[me] * size_of(type), c->scratch, (size_t)counts[me], world, type);
        code = MPI_Iallgatherv(MPI_IN_PLACE, 0, type_of(type), data, counts, starts, type_of(type), c->world, &request);
    }
    if (code == MPI_SUCCESS) PD_TRY_DONE(finish(c, &request, err));
    if (code != MPI_SUCCESS) status = failed("sum", code, err);
done:
    free(counts);
    return status;
}

static pd_status run_sum(mpi_comm *c, const operation *op, pd_err *err)
{
    for (size_t at = 0; at < op->count; at += PIECE) {
        const size_t n = op->count - at < PIECE ? op->count - at : PIECE;
        void *data = (char *)op->data + at * size_of(op->type);
        PD_TRY(n < SMALL ? sum_small(c, data, n, op->type, err) : sum_large(c, data, n, op->type, err));
    }
    return PD_OK;
}

static pd_status run_broadcast(mpi_comm *c, const operation *op, pd_err *err)
{
    for (size_t at = 0; at < op->count; at += BYTES) {
        MPI_Request request;
        const size_t n = op->count - at < BYTES ? op->count - at : BYTES;
        MPI_TRY(MPI_Ibcast((char *)op->data + at, (int)n, MPI_BYTE, op->root, c->world, &request));
        PD_TRY(finish(c, &request, err));
    }
    return PD_OK;
}

static pd_status run_gather(mpi_comm *c, const operation *op, pd_err *err)
{
    char *to = op->data;
    for (int r = 0; r < c->base.world; r++) { /* as broadcasts: any length */
        if (r == c->base.rank) memcpy(to, op->mine, op->bytes[r]);
        const operation part = {.kind = BROADCAST, .data = to, .count = op->bytes[r], .root = r};
        PD_TRY(run_broadcast(c, &part, err));
        to += op->bytes[r];
    }
    return PD_OK;
}

/* ---- the thread ---- */

static pd_status begin(mpi_comm *c, pd_err *err)
{
    int level, yes = 0;
    MPI_TRY(MPI_Initialized(&yes));
    if (yes) return PD_FAIL(err, PD_EINVAL, "MPI was started by someone else in this process");
    MPI_TRY(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level));
    if (level < MPI_THREAD_FUNNELED)
        return PD_FAIL(err, PD_EDEVICE, "this MPI was built for processes without threads");
    MPI_TRY(MPI_Comm_dup(MPI_COMM_WORLD, &c->world));
    MPI_TRY(MPI_Comm_dup(MPI_COMM_WORLD, &c->beats));
    MPI_TRY(MPI_Comm_set_errhandler(c->world, MPI_ERRORS_RETURN));
    MPI_TRY(MPI_Comm_set_errhandler(c->beats, MPI_ERRORS_RETURN));
    MPI_TRY(MPI_Comm_rank(c->world, &c->base.rank));
    MPI_TRY(MPI_Comm_size(c->world, &c->base.world));
    c->pulses = calloc((size_t)c->base.world, sizeof *c->pulses);
    if (!c->pulses) return PD_FAIL(err, PD_ENOMEM, "out of memory for %d processes", c->base.world);
    for (int r = 0; r < c->base.world; r++) c->pulses[r].sent = MPI_REQUEST_NULL;
    return PD_OK;
}

static pd_status run_operation(mpi_comm *c, operation *op, pd_err *err)
{
    pd_status status;
    c->begun++;
    c->waiting_since = now();
    switch (op->kind) {
    case SUM: status = run_sum(c, op, err); break;
    case BROADCAST: status = run_broadcast(c, op, err); break;
    default: status = run_gather(c, op, err); break;
    }
    c->waiting_since = 0;
    free(op->bytes);
    return status;
}

/* Everybody comes here in good order: nobody watches any more, and what is under way arrives. */
static void end(mpi_comm *c)
{
    MPI_Request request;
    pd_err err = PD_ERR_INIT;
    c->begun++;
    if (MPI_Ibarrier(c->world, &request) == MPI_SUCCESS) (void)finish(c, &request, &err);
    hear(c, now());
    for (int r = 0; r < watched(c); r++)
        if (c->pulses[r].sent != MPI_REQUEST_NULL) MPI_Request_free(&c->pulses[r].sent);
    MPI_Comm_free(&c->world);
    MPI_Comm_free(&c->beats);
    MPI_Finalize();
}

/* Waits, with the lock held, for work; heartbeats come to their time. */
static void await_work(mpi_comm *c)
{
    while (!c->count && !c->leaving) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        const long step = c->limit > 0 && c->limit < 10 ? (long)(c->limit * 5e7) : 500000000L;
        until.tv_nsec += step;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_cond_timedwait(&c->changed, &c->lock, &until);
        pthread_mutex_unlock(&c->lock);
        beat(c);
        pthread_mutex_lock(&c->lock);
    }
}

static void *thread_main(void *arg)
{
    mpi_comm *c = arg;
    pd_err err = PD_ERR_INIT;
    (void)begin(c, &err);
    pthread_mutex_lock(&c->lock);
    c->failure = err;
    c->opened = true;
    pthread_cond_broadcast(&c->changed);
    for (;;) {
        await_work(c);
        if (c->leaving) break;
        operation op = c->queue[c->first];
        c->busy = true;
        const bool dead = c->failure.code != PD_OK;
        pthread_mutex_unlock(&c->lock);
        const pd_status status = dead ? PD_OK : run_operation(c, &op, &err);
        pthread_mutex_lock(&c->lock);
        if (status != PD_OK) c->failure = err;
        c->first = (c->first + 1) % QUEUE;
        c->count--;
        c->busy = false;
        pthread_cond_broadcast(&c->changed);
    }
    const int code = c->exit_code;
    pthread_mutex_unlock(&c->lock);
    int started = 0;
    MPI_Initialized(&started);
    if (!started) return NULL;
    if (code) MPI_Abort(MPI_COMM_WORLD, code);
    end(c);
    return NULL;
}

/* ---- the caller's side ---- */

static pd_status put(pd_comm *base, const operation *op, pd_err *err)
{
    mpi_comm *c = (mpi_comm *)base;
    pthread_mutex_lock(&c->lock);
    while (c->count == QUEUE && c->failure.code == PD_OK) pthread_cond_wait(&c->changed, &c->lock);
    const pd_err failure = c->failure;
    if (failure.code == PD_OK) {
        c->queue[(c->first + c->count++) % QUEUE] = *op;
        pthread_cond_broadcast(&c->changed);
    }
    pthread_mutex_unlock(&c->lock);
    return failure.code == PD_OK ? PD_OK : PD_FAIL(err, failure.code, "%s", failure.text);
}

static pd_status mpi_sum(pd_comm *base, void *data, size_t count, pd_comm_type type, pd_err *err)
{
    return put(base, &(operation){.kind = SUM, .data = data, .count = count, .type = type}, err);
}

static pd_status mpi_broadcast(pd_comm *base, void *data, size_t bytes, int root, pd_err *err)
{
    return put(base, &(operation){.kind = BROADCAST, .data = data, .count = bytes, .root = root}, err);
}

static pd_status mpi_gather(pd_comm *base, void *all, const void *mine, const size_t *bytes, pd_err *err)
{
    operation op = {.kind = GATHER, .data = all, .mine = mine, .bytes = calloc((size_t)base->world, sizeof *bytes)};
    if (!op.bytes) return PD_FAIL(err, PD_ENOMEM, "out of memory to gather from %d processes", base->world);
    memcpy(op.bytes, bytes, (size_t)base->world * sizeof *bytes);
    const pd_status status = put(base, &op, err);
    if (status != PD_OK) free(op.bytes);
    return status;
}

static pd_status mpi_wait(pd_comm *base, pd_err *err)
{
    mpi_comm *c = (mpi_comm *)base;
    pthread_mutex_lock(&c->lock);
    while (c->count) pthread_cond_wait(&c->changed, &c->lock);
    const pd_err failure = c->failure;
    pthread_mutex_unlock(&c->lock);
    return failure.code == PD_OK ? PD_OK : PD_FAIL(err, failure.code, "%s", failure.text);
}

static void mpi_watch(pd_comm *base, double seconds, pd_lost_fn lost, void *arg)
{
    mpi_comm *c = (mpi_comm *)base;
    pthread_mutex_lock(&c->lock);
    c->limit = seconds;
    c->lost = lost;
    c->lost_arg = arg;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static void mpi_close(pd_comm *base, int code)
{
    mpi_comm *c = (mpi_comm *)base;
    pthread_mutex_lock(&c->lock);
    c->leaving = true;
    c->exit_code = code;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->thread, NULL);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->changed);
    free(c->base.peers);
    free(c->pulses);
    free(c->scratch);
    free(c);
}

static pd_status mpi_open(pd_comm **out, pd_err *err)
{
    mpi_comm *c = calloc(1, sizeof *c);
    pthread_condattr_t attr;
    if (!c) return PD_FAIL(err, PD_ENOMEM, "out of memory for a communicator");
    c->base = (pd_comm){.sum = mpi_sum,
                        .broadcast = mpi_broadcast,
                        .gather = mpi_gather,
                        .wait = mpi_wait,
                        .watch = mpi_watch,
                        .close = mpi_close};
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c->changed, &attr);
    pthread_condattr_destroy(&attr);
    if (pthread_create(&c->thread, NULL, thread_main, c) != 0) {
        free(c);
        return PD_FAIL(err, PD_EDEVICE, "no thread for the communication with other processes can be had");
    }
    pthread_mutex_lock(&c->lock);
    while (!c->opened) pthread_cond_wait(&c->changed, &c->lock);
    const pd_err failure = c->failure;
    pthread_mutex_unlock(&c->lock);
    if (failure.code != PD_OK) {
        mpi_close(&c->base, 0);
        return PD_FAIL(err, failure.code, "%s", failure.text);
    }
    *out = &c->base;
    return PD_OK;
}

__attribute__((visibility("default"))) extern const pd_comm_plugin pd_comm_mpi;
const pd_comm_plugin pd_comm_mpi = {PD_VERSION, sizeof(pd_comm), mpi_open};
