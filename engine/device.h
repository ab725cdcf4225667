/* device.h: where tensors live and operations run.
 *
 * Models and plans see a device only through this header; an operation offers one implementation per device kind (see
 * tape.h), so a new device changes no caller. One thread uses a device at a time. */
#ifndef PD_DEVICE_H
#define PD_DEVICE_H

#include "engine/thread.h"

typedef enum pd_device_kind { PD_CPU, PD_CUDA, PD_DEVICE_KINDS } pd_device_kind;

typedef struct pd_device pd_device;
struct pd_device {
    pd_device_kind kind;
    const char *name;  /* "cpu" */
    pd_pool *pool;     /* compute threads */
    void *library;     /* the compute library's handles (kernels/onednn.h); made on first use */
    void (*library_free)(void *library);
    pd_status (*alloc)(pd_device *, void **out, size_t bytes, pd_err *);
    void (*release)(pd_device *, void *memory);
    pd_status (*upload)(pd_device *, void *to, const void *from_host, size_t bytes, pd_err *);
    pd_status (*download)(pd_device *, void *to_host, const void *from, size_t bytes, pd_err *);
    void (*close)(pd_device *);
};

/* name: "cpu" or "auto". threads: 0 for all processors of the affinity mask. Compute threads are pinned, one to a
 * processor, when there are enough of them. */
pd_status pd_device_open(pd_device **out, const char *name, int threads, pd_err *err);
void pd_device_close(pd_device *device); /* NULL allowed */

#endif
