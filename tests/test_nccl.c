/* NCCL's collectives on one GPU, a run of one process: starting, sums, means and broadcasts on the device's memory,
 * their order behind what the device computes, leaving. Skipped where there is no GPU or the plugin has no NCCL. */
#include "engine/comm.h"
#include "engine/device.h"
#include "tests/pd_test.h"

static pd_err err;

/* A host communicator of one process: what pd_comm_open would join if there were more. */
static pd_status host_broadcast(pd_comm *c, void *data, size_t bytes, int root, pd_err *e)
{
    (void)c, (void)data, (void)bytes, (void)root, (void)e;
    return PD_OK;
}

static pd_status host_wait(pd_comm *c, pd_err *e)
{
    (void)c, (void)e;
    return PD_OK;
}

static void check_values(pd_device *device, pd_comm *comm)
{
    enum { N = 100003 };
    float *to, *from = malloc(N * sizeof *from), *back = malloc(N * sizeof *back);
    for (int i = 0; i < N; i++) from[i] = (float)i / 3;
    PD_CHECK_OK(device->alloc(device, (void **)&to, N * sizeof *to, &err));
    static const pd_comm_type types[] = {PD_COMM_F32, PD_COMM_MEAN};
    for (int k = 0; k < 3; k++) {
        PD_CHECK_OK(device->upload(device, to, from, N * sizeof *to, &err));
        if (k < 2)
            PD_CHECK_OK(pd_comm_sum(comm, to, N, types[k], &err));
        else
            PD_CHECK_OK(pd_comm_broadcast(comm, to, N * sizeof *to, 0, &err));
        PD_CHECK_OK(device->download(device, back, to, N * sizeof *to, &err));
        PD_CHECK_MSG(!memcmp(from, back, N * sizeof *from), "case %d: one process's sum is another number", k);
    }
    device->release(device, to);
    free(from);
    free(back);
}

int main(void)
{
    pd_device *device;
    pd_comm host = {.world = 1, .local_world = 1, .machines = 1, .broadcast = host_broadcast, .wait = host_wait};
    if (pd_device_open(&device, "cuda", 1, &err) != PD_OK) {
        PD_SKIP("%s", err.text);
        return pd_test_end();
    }
    if (!device->find(device, "comm")) {
        PD_SKIP("the plugin was built without NCCL");
    } else {
        PD_CHECK_OK(pd_comm_of_device(&device->comm, &host, device, &err));
        if (device->comm) check_values(device, device->comm);
    }
    pd_device_close(device);
    return pd_test_end();
}
