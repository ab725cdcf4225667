#include "tools/ranks.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static pd_status open_device(pd_device **out, const pd_comm *comm, const char *name, int threads, pd_err *err)
{
    const bool any = !strcmp(name, "auto");
    char own[32];
    pd_err none = PD_ERR_INIT;
    if (!comm || (!any && strcmp(name, "cuda") != 0)) return pd_device_open(out, name, threads, err);
    snprintf(own, sizeof own, "cuda:%d", comm->local_rank);
    if (pd_device_open(out, own, threads, &none) == PD_OK) return PD_OK;
    return pd_device_open(out, name, threads, err);
}

pd_status pd_ranks_device(pd_device **out, pd_comm *comm, const char *name, int threads, pd_err *err)
{
    pd_device *device;
    bool cpu, other;
    pd_status status = open_device(&device, comm, name, threads, err);
    if (status != PD_OK) return status;
    PD_TRY_DONE(pd_comm_any(&cpu, comm, device->kind == PD_CPU, err));
    PD_TRY_DONE(pd_comm_any(&other, comm, device->kind != PD_CPU, err));
    if (cpu && other) {
        status = PD_FAIL(err, PD_EDEVICE,
                         "this process came to %s, others to another kind of device: one process for each "
                         "GPU, or --device cpu for all",
                         device->name);
        goto done;
    }
    PD_TRY_DONE(pd_comm_of_device(&device->comm, comm, device, err));
    *out = device;
    device = NULL;
done:
    pd_device_close(device);
    return status;
}

static void lost(void *arg, const char *text)
{
    (void)arg;
    fprintf(stderr, "\n%s: %s\n", program_invocation_short_name, text);
}

pd_status pd_ranks_precision(char text[512], pd_device *device, const char *asked, const char *configured, pd_err *err)
{
    PD_TRY(pd_device_set_precision(device, asked ? asked : configured, err));
    snprintf(text, 512, "computing on %s (%s), %s%s%.200s", device->name, device->title,
             pd_precision_text(device->precision), *device->why && device->kind == PD_CPU ? "; " : "",
             device->kind == PD_CPU ? device->why : "");
    return PD_OK;
}

pd_status pd_ranks_watch(pd_comm *comm, double seconds, pd_err *err)
{
    return pd_comm_watch(comm, seconds, lost, NULL, err);
}

pd_status pd_ranks_share(int *out, const pd_comm *comm, int total, const char *key, pd_err *err)
{
    const int world = pd_comm_world(comm);
    if (total % world)
        return PD_FAIL(err, PD_EINVAL, "%s is %d, of which %d processes cannot have equal shares", key, total, world);
    *out = total / world;
    return PD_OK;
}

const char *pd_ranks_text(char text[96], const pd_comm *comm, const pd_device *device)
{
    const int machines = pd_comm_machines(comm), threads = pd_pool_threads(device->pool);
    text[0] = '\0';
    if (comm)
        snprintf(text, 96, "%d processes on %d machine%s, %d thread%s each", comm->world, machines,
                 machines == 1 ? "" : "s", threads, threads == 1 ? "" : "s");
    return text;
}

void pd_ranks_blame(const pd_comm *comm, pd_err *err)
{
    if (!comm) return;
    if (comm->rank > 0) sleep(1);
    pd_err_context(err, "rank %d", comm->rank);
}
