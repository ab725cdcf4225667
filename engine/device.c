#include "engine/device.h"
#include "engine/arena.h"
#include "engine/comm.h"
#include "engine/library.h"
#include "engine/plugin.h"

#include <dlfcn.h>
#include <stdio.h>
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
    if (align == LARGE_PAGE)
        (void)madvise(p, (bytes / align + 1) * align, MADV_HUGEPAGE); /* a refusal costs speed only */
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

static pd_status cpu_fill(pd_device *device, void *memory, int byte, size_t bytes, pd_err *err)
{
    (void)device;
    (void)err;
    if (bytes) memset(memory, byte, bytes);
    return PD_OK;
}

static pd_status cpu_seed(pd_device *device, float *to, float value, pd_err *err)
{
    (void)device;
    (void)err;
    *to = value;
    return PD_OK;
}

static pd_status cpu_sync(pd_device *device, pd_err *err)
{
    (void)device;
    (void)err;
    return PD_OK;
}

static pd_status open_cpu(pd_device **out, int threads, pd_err *err)
{
    pd_device *device = calloc(1, sizeof *device);
    if (!device) return PD_FAIL(err, PD_ENOMEM, "out of memory for a device");
    *device = (pd_device){
        .kind = PD_CPU,
        .name = "cpu",
        .alloc = cpu_alloc,
        .release = cpu_release,
        .upload = cpu_copy,
        .download = cpu_copy,
        .copy = cpu_copy,
        .fill = cpu_fill,
        .seed = cpu_seed,
        .sync = cpu_sync,
    };
    const pd_status status = pd_pool_new_compute(&device->pool, threads, 1, err);
    if (status != PD_OK) {
        free(device);
        return status;
    }
    snprintf(device->title, sizeof device->title, "%d thread%s", pd_pool_threads(device->pool),
             pd_pool_threads(device->pool) == 1 ? "" : "s");
    *out = device;
    return PD_OK;
}

/* ---- plugins ---- */

#define PLUGIN_FILE "libparadise_cuda.so"

static pd_status check_plugin(const pd_plugin *plugin, const char *path, pd_err *err)
{
    static const unsigned sizes[] = PD_PLUGIN_SIZES;
    if (plugin->abi != PD_PLUGIN_ABI || strcmp(plugin->version, PD_VERSION) != 0 ||
        memcmp(plugin->sizes, sizes, sizeof sizes) != 0)
        return PD_FAIL(err, PD_EDEVICE, "%s belongs to another build (its version: %s, interface %u; wanted: %s, %d)",
                       path, plugin->version, plugin->abi, PD_VERSION, PD_PLUGIN_ABI);
    return PD_OK;
}

/* It stays loaded: drivers keep threads. */
static pd_status load_plugin(const pd_plugin **out, pd_err *err)
{
    char path[4096];
    void *handle;
    if (!pd_library_find(path, sizeof path, PLUGIN_FILE))
        return PD_FAIL(err, PD_EDEVICE, "%s is not installed beside this program (build with -DPD_CUDA=ON)", PLUGIN_FILE);
    PD_TRY(pd_library_load(&handle, path, false, err));
    pd_plugin_fn *entry = NULL;
    void *symbol = dlsym(handle, "pd_plugin_cuda");
    memcpy(&entry, &symbol, sizeof entry); /* ISO C has no cast from void * to a function */
    if (!entry) return PD_FAIL(err, PD_EDEVICE, "%s is no plugin of this library", path);
    PD_TRY(check_plugin(entry(), path, err));
    *out = entry();
    return PD_OK;
}

pd_status pd_device_open_plugin(pd_device **out, const pd_plugin *plugin, int index, int threads, pd_err *err)
{
    pd_device *device;
    char why[256] = "";
    PD_TRY(check_plugin(plugin, "the plugin", err));
    const int count = plugin->count(why, sizeof why);
    if (index >= count && count > 0)
        return PD_FAIL(err, PD_EDEVICE, "device \"cuda:%d\": there are %d here, the last is cuda:%d", index, count,
                       count - 1);
    if (count < 1) return PD_FAIL(err, PD_EDEVICE, "device \"cuda\": %s", why);
    PD_TRY(plugin->open(&device, index, err));
    const pd_status status = pd_pool_new_compute(&device->pool, threads, 1, err);
    if (status != PD_OK) {
        pd_device_close(device);
        return status;
    }
    *out = device;
    return PD_OK;
}

static pd_status open_cuda(pd_device **out, int index, int threads, pd_err *err)
{
    const pd_plugin *plugin;
    const pd_status status = load_plugin(&plugin, err);
    if (status != PD_OK) return pd_err_context(err, "device \"cuda\""), status;
    return pd_device_open_plugin(out, plugin, index, threads, err);
}

/* Is there a driver at all? NVIDIA's libraries, which come with the plugin, need not be loaded to find out. */
static bool has_driver(void)
{
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (driver) dlclose(driver);
    return driver != NULL;
}

/* The number behind "cuda:", 0 for "cuda", -1 for anything else. */
static int cuda_index(const char *name)
{
    char *end;
    if (!strcmp(name, "cuda")) return 0;
    if (strncmp(name, "cuda:", 5) || !name[5]) return -1;
    const long index = strtol(name + 5, &end, 10);
    return *end || index < 0 || index > 1023 ? -1 : (int)index;
}

pd_status pd_device_open(pd_device **out, const char *name, int threads, pd_err *err)
{
    const int index = cuda_index(name);
    if (index >= 0) return open_cuda(out, index, threads, err);
    if (!strcmp(name, "cpu")) return open_cpu(out, threads, err);
    if (strcmp(name, "auto") != 0)
        return PD_FAIL(err, PD_EDEVICE, "device \"%s\" is none of cpu, cuda, cuda:N, auto", name);
    pd_err none = PD_ERR_INIT;
    if (!has_driver()) {
        pd_fail(&none, PD_EDEVICE, "device \"cuda\": no NVIDIA driver (libcuda.so.1)");
    } else if (open_cuda(out, 0, threads, &none) == PD_OK) {
        snprintf((*out)->why, sizeof(*out)->why, "the first CUDA device");
        return PD_OK;
    }
    PD_TRY(open_cpu(out, threads, err));
    snprintf((*out)->why, sizeof(*out)->why, "%.*s", (int)sizeof(*out)->why - 1, none.text);
    return PD_OK;
}

void pd_device_close(pd_device *device)
{
    if (!device) return;
    if (device->comm && device->kind != PD_CPU) pd_comm_close(device->comm, 0); /* the CPU's is the host's */
    if (device->library_free) device->library_free(device->library);
    pd_pool_free(device->pool);
    if (device->close) device->close(device);
    free(device);
}

/* ---- precision ---- */

static const char *const precision_names[] = {"fp32", "tf32", "fp16", "bf16"};

const char *pd_precision_text(pd_precision precision)
{
    return precision_names[precision];
}

pd_status pd_device_set_precision(pd_device *device, const char *text, pd_err *err)
{
    if (!text) {
        device->precision = device->kind == PD_CPU ? PD_FP32 : PD_BF16;
        return device->precision_set ? device->precision_set(device, err) : PD_OK;
    }
    for (int i = 0; i < 4; i++) {
        if (strcmp(text, precision_names[i]) != 0) continue;
        if (device->kind == PD_CPU && i != PD_FP32)
            return PD_FAIL(err, PD_EDEVICE, "precision %s: the CPU computes in fp32 only%s%s", text,
                           *device->why ? "; no CUDA device was taken: " : "", device->why);
        device->precision = (pd_precision)i;
        return device->precision_set ? device->precision_set(device, err) : PD_OK;
    }
    return PD_FAIL(err, PD_EINVAL, "precision \"%s\" is none of fp32, tf32, fp16, bf16", text);
}
