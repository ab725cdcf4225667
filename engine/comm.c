#include "engine/comm.h"
#include "engine/device.h"
#include "engine/library.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PLUGIN_FILE "libparadise_mpi.so"

/* ---- joining ---- */

/* How many processes a launcher says it started: Open MPI's mpirun, those of MPICH's family, srun. 1: none was at work.
 */
static long launched(void)
{
    static const char *const sizes[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE",
                                        "SLURM_STEP_NUM_TASKS"};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const char *text = getenv(sizes[i]);
        if (text) return strtol(text, NULL, 10);
    }
    return 1;
}

/* It stays loaded. Global: Open MPI's own plugins look for its symbols. */
static pd_status load_plugin(const pd_comm_plugin **out, pd_err *err)
{
    char path[4096];
    void *handle;
    if (!pd_library_find(path, sizeof path, PLUGIN_FILE))
        return PD_FAIL(err, PD_EDEVICE,
                       "%s is not beside this program: it is built where CMake finds MPI (libopenmpi-dev)", PLUGIN_FILE);
    PD_TRY(pd_library_load(&handle, path, true, err));
    const pd_comm_plugin *plugin = dlsym(handle, "pd_comm_mpi");
    if (!plugin || strcmp(plugin->version, PD_VERSION) != 0 || plugin->comm_size != sizeof(pd_comm))
        return PD_FAIL(err, PD_EDEVICE, "%s belongs to another build; wanted: version %s", path, PD_VERSION);
    *out = plugin;
    return PD_OK;
}

/* What every process tells the others when it joins. */
typedef struct introduction {
    pd_peer peer;
    cpu_set_t processors;
} introduction;

/* Processes of one machine that may all use the same processors each keep to a part of them. */
static void share_processors(const pd_comm *comm, const introduction *all)
{
    const introduction *me = &all[comm->rank];
    const int count = CPU_COUNT(&me->processors);
    if (count < comm->local_world) return;
    for (int r = 0; r < comm->world; r++)
        if (!strcmp(all[r].peer.host, me->peer.host) && !CPU_EQUAL(&all[r].processors, &me->processors)) return;
    const int begin = count * comm->local_rank / comm->local_world;
    const int end = count * (comm->local_rank + 1) / comm->local_world;
    cpu_set_t mine;
    CPU_ZERO(&mine);
    int at = 0;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &me->processors)) continue;
        if (at >= begin && at < end) CPU_SET(cpu, &mine);
        at++;
    }
    (void)sched_setaffinity(0, sizeof mine, &mine); /* a refusal costs speed only */
}

static pd_status introduce(pd_comm *comm, pd_err *err)
{
    introduction me = {.peer.pid = (int64_t)getpid()}, *all = NULL;
    size_t bytes;
    (void)gethostname(me.peer.host, sizeof me.peer.host - 1);
    if (sched_getaffinity(0, sizeof me.processors, &me.processors) != 0) CPU_ZERO(&me.processors);
    PD_TRY(pd_comm_gather((void **)&all, &bytes, comm, &me, sizeof me, err));
    comm->peers = calloc((size_t)comm->world, sizeof *comm->peers);
    if (!comm->peers) {
        free(all);
        return PD_FAIL(err, PD_ENOMEM, "out of memory for %d processes", comm->world);
    }
    comm->local_rank = comm->local_world = comm->machines = 0;
    for (int r = 0; r < comm->world; r++) {
        comm->peers[r] = all[r].peer;
        bool new_machine = true;
        for (int k = 0; k < r; k++) new_machine = new_machine && strcmp(all[k].peer.host, all[r].peer.host) != 0;
        comm->machines += new_machine;
        if (strcmp(all[r].peer.host, me.peer.host) != 0) continue;
        comm->local_world++;
        comm->local_rank += r < comm->rank;
    }
    share_processors(comm, all);
    free(all);
    return PD_OK;
}

pd_status pd_comm_open(pd_comm **out, pd_err *err)
{
    const pd_comm_plugin *plugin;
    pd_comm *comm;
    const long started = launched();
    if (started < 2) {
        *out = NULL;
        return PD_OK;
    }
    pd_status status = load_plugin(&plugin, err);
    if (status != PD_OK) {
        pd_err_context(err, "one of %ld processes", started);
        return status;
    }
    PD_TRY(plugin->open(&comm, err));
    if (comm->world < 2) {
        comm->close(comm, 0);
        return PD_FAIL(err, PD_EDEVICE,
                       "the launcher started %ld processes, but MPI sees one: start with the mpirun of the MPI "
                       "that this was built with, or with srun --mpi=pmix (or pmi2)",
                       started);
    }
    status = introduce(comm, err);
    if (status != PD_OK) {
        comm->close(comm, 1);
        return status;
    }
    *out = comm;
    return PD_OK;
}

void pd_comm_close(pd_comm *comm, int code)
{
    if (comm) comm->close(comm, code);
}

pd_status pd_comm_of_device(pd_comm **out, pd_comm *host, pd_device *device, pd_err *err)
{
    if (!host || device->kind == PD_CPU) {
        *out = host;
        return PD_OK;
    }
    const pd_comm_maker *maker = device->find(device, "comm");
    if (!maker)
        return PD_FAIL(err, PD_EDEVICE, "%s: several processes need NCCL, which this build was made without",
                       device->name);
    return maker->open(out, host, device, err);
}

/* ---- who ---- */

int pd_comm_rank(const pd_comm *comm)
{
    return comm ? comm->rank : 0;
}

int pd_comm_world(const pd_comm *comm)
{
    return comm ? comm->world : 1;
}

int pd_comm_local_rank(const pd_comm *comm)
{
    return comm ? comm->local_rank : 0;
}

int pd_comm_local_world(const pd_comm *comm)
{
    return comm ? comm->local_world : 1;
}

int pd_comm_machines(const pd_comm *comm)
{
    return comm ? comm->machines : 1;
}

/* ---- what ---- */

pd_status pd_comm_watch(pd_comm *comm, double seconds, pd_lost_fn lost, void *arg, pd_err *err)
{
    PD_TRY(pd_comm_barrier(comm, err)); /* so that nobody is missed who has not come so far */
    if (comm) comm->watch(comm, seconds, lost, arg);
    return PD_OK;
}

pd_status pd_comm_start_sum(pd_comm *comm, void *data, size_t count, pd_comm_type type, pd_err *err)
{
    return comm && count ? comm->sum(comm, data, count, type, err) : PD_OK;
}

pd_status pd_comm_wait(pd_comm *comm, pd_err *err)
{
    return comm ? comm->wait(comm, err) : PD_OK;
}

pd_status pd_comm_sum(pd_comm *comm, void *data, size_t count, pd_comm_type type, pd_err *err)
{
    PD_TRY(pd_comm_start_sum(comm, data, count, type, err));
    return pd_comm_wait(comm, err);
}

pd_status pd_comm_broadcast(pd_comm *comm, void *data, size_t bytes, int root, pd_err *err)
{
    if (comm && bytes) PD_TRY(comm->broadcast(comm, data, bytes, root, err));
    return pd_comm_wait(comm, err);
}

pd_status pd_comm_gather(void **all, size_t *all_bytes, pd_comm *comm, const void *mine, size_t bytes, pd_err *err)
{
    const int world = pd_comm_world(comm);
    int64_t *length = calloc((size_t)world, sizeof *length);
    size_t *each = calloc((size_t)world, sizeof *each), total = 0;
    char *data = NULL;
    pd_status status = PD_OK;
    if (!length || !each) {
        status = PD_FAIL(err, PD_ENOMEM, "out of memory to gather from %d processes", world);
        goto done;
    }
    length[pd_comm_rank(comm)] = (int64_t)bytes;
    PD_TRY_DONE(pd_comm_sum(comm, length, (size_t)world, PD_COMM_I64, err));
    for (int r = 0; r < world; r++) total += each[r] = (size_t)length[r];
    data = malloc(total + 1);
    if (!data) {
        status = PD_FAIL(err, PD_ENOMEM, "out of memory to gather %zu bytes from %d processes", total, world);
        goto done;
    }
    if (!comm && bytes) memcpy(data, mine, bytes);
    if (comm && total) PD_TRY_DONE(comm->gather(comm, data, mine, each, err));
    PD_TRY_DONE(pd_comm_wait(comm, err));
    *all = data;
    *all_bytes = total;
    data = NULL;
done:
    free(length);
    free(each);
    free(data);
    return status;
}

pd_status pd_comm_any(bool *any, pd_comm *comm, bool mine, pd_err *err)
{
    int64_t count = mine;
    PD_TRY(pd_comm_sum(comm, &count, 1, PD_COMM_I64, err));
    *any = count > 0;
    return PD_OK;
}

pd_status pd_comm_barrier(pd_comm *comm, pd_err *err)
{
    int64_t nothing = 0;
    return pd_comm_sum(comm, &nothing, 1, PD_COMM_I64, err);
}
