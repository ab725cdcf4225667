/* plugin.h: a device that is loaded at run time.
 *
 * libparadise_cuda.so holds everything that needs NVIDIA's libraries and exports one function, pd_plugin_cuda. It lies
 * beside the library or the programs (found relative to them). It shares this library's structures, so it must be
 * of the same build: version and sizes are compared when it is loaded. */
#ifndef PD_PLUGIN_H
#define PD_PLUGIN_H

#include "engine/device.h"
#include "engine/tape.h"

#define PD_PLUGIN_ABI 1

typedef struct pd_plugin {
    unsigned abi;        /* PD_PLUGIN_ABI */
    const char *version; /* PD_VERSION */
    unsigned sizes[6];   /* PD_PLUGIN_SIZES */
    /* Devices that work here. 0: `why` says what is missing. */
    int (*count)(char *why, size_t size);
    pd_status (*open)(pd_device **out, int index, pd_err *err);
} pd_plugin;

#define PD_PLUGIN_SIZES                                                                                                \
    {                                                                                                                  \
        sizeof(pd_device), sizeof(pd_node), sizeof(pd_value), sizeof(pd_run), sizeof(pd_kernel), sizeof(pd_param)      \
    }

/* What the plugin exports. */
typedef const pd_plugin *pd_plugin_fn(void);

/* Opens a device of a plugin: what pd_device_open does once the plugin is loaded; for tests also of one that is linked.
 */
pd_status pd_device_open_plugin(pd_device **out, const pd_plugin *plugin, int index, int threads, pd_err *err);

#endif
