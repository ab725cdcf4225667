#include "engine/device.h"
#include "engine/arena.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LARGE_PAGE ((size_t)2 << 20)

/* Large blocks lie on large pages where the system has them: a step walks through hundreds of megabytes, and looking up
 * small pages took a third of the time of some operations. */
static pd_status cpu_alloc(pd_device *device, void **out, size_t bytes, pd_err *err)
{
    (void)device;
    const size_t align = bytes >= LARGE_PAGE / 2 ? LARGE_PAGE : PD_ALIGN;
    void *p = aligned_alloc(align, (bytes / align + 1) * align);
    if (!p) return PD_FAIL(err, PD_ENOMEM, "out of memory: %zu MiB asked for", bytes >> 20);
#ifdef MADV_HUGEPAGE
    if (align == LARGE_PAGE) (void)madvise(p, (bytes / align + 1) * align, MADV_HUGEPAGE); /* a refusal costs speed only */
#endif
    *out = p;
    return PD_OK;
}

static void cpu_release(pd_device *device, void *memory)
{
    (void)device;
    free(memory);
}

static pd_status cpu_copy(pd_device *device, void *to, const void *from, size_t bytes, pd_err *err)
{
    (void)device;
    (void)err;
    if (bytes) memcpy(to, from, bytes);
    return PD_OK;
}

static void cpu_close(pd_device *device)
{
    pd_pool_free(device->pool);
}

pd_status pd_device_open(pd_device **out, const char *name, int threads, pd_err *err)
{
    if (strcmp(name, "cpu") && strcmp(name, "auto"))
        return PD_FAIL(err, PD_EDEVICE, "device \"%s\": this build has \"cpu\" only (or \"auto\")", name);
    pd_device *device = calloc(1, sizeof *device);
    if (!device) return PD_FAIL(err, PD_ENOMEM, "out of memory for a device");
    *device = (pd_device){
        .kind = PD_CPU,
        .name = "cpu",
        .alloc = cpu_alloc,
        .release = cpu_release,
        .upload = cpu_copy,
        .download = cpu_copy,
        .close = cpu_close,
    };
    const pd_status status = pd_pool_new_compute(&device->pool, threads, 1, err);
    if (status != PD_OK) {
        free(device);
        return status;
    }
    *out = device;
    return PD_OK;
}

void pd_device_close(pd_device *device)
{
    if (!device) return;
    if (device->library_free) device->library_free(device->library);
    device->close(device);
    free(device);
}
