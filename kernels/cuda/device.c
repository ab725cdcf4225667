#include "kernels/cuda/device.h"
#include "kernels/cuda/gconv.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/update.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SMALL_UPLOAD ((size_t)64 << 10)
#define LARGEST_SLOT ((size_t)256 << 20) /* longer uploads go in pieces */

pd_status pd_cuda_fail(cudaError_t code, const char *call, pd_err *err)
{
    (void)cudaGetLastError(); /* the next call's answer is its own */
    return PD_FAIL(err, PD_EDEVICE, "CUDA: %s: %s", call, cudaGetErrorString(code));
}

/* ---- memory
 * ----------------------------------------------------------------------------------------------------------- */

static void forget_tuning(pd_cuda *c)
{
    if (c->tuning) (void)cudaFree(c->tuning);
    c->tuning = NULL;
    c->tuning_bytes = 0;
}

static pd_status cuda_alloc(pd_device *device, void **out, size_t bytes, pd_err *err)
{
    void *memory = NULL;
    pd_cuda *c = pd_cuda_of(device);
    if (c->offline) return PD_FAIL(err, PD_EDEVICE, "%s only plans: it has no memory", device->name);
    cudaError_t code = cudaMalloc(&memory, bytes ? bytes : 1);
    if (code == cudaErrorMemoryAllocation && c->tuning) {
        (void)cudaGetLastError();
        (void)cudaStreamSynchronize(c->stream);
        forget_tuning(c);
        code = cudaMalloc(&memory, bytes ? bytes : 1);
    }
    if (code == cudaErrorMemoryAllocation) {
        size_t left = 0, all = 0;
        (void)cudaGetLastError();
        (void)cudaMemGetInfo(&left, &all);
        return PD_FAIL(err, PD_ENOMEM,
                       "%s (%s): out of memory: %zu MiB asked for, %zu of %zu MiB are free; use a smaller batch",
                       device->name, device->title, bytes >> 20, left >> 20, all >> 20);
    }
    PD_CUDA_TRY(code, err);
    *out = memory;
    return PD_OK;
}

static void cuda_release(pd_device *device, void *memory)
{
    (void)device;
    if (memory) (void)cudaFree(memory);
}

static pd_status new_slot(pd_upload_slot *s, pd_err *err)
{
    PD_CUDA_TRY(cudaEventCreateWithFlags(&s->arrived, cudaEventDisableTiming), err);
    PD_CUDA_TRY(cudaEventCreateWithFlags(&s->free, cudaEventDisableTiming), err);
    return PD_OK;
}

static void empty_slot(pd_upload_slot *s)
{
    if (s->pinned) (void)cudaFreeHost(s->pinned);
    if (s->memory) (void)cudaFree(s->memory);
    s->pinned = s->memory = NULL;
    s->bytes = 0;
}

static void free_slot(pd_upload_slot *s)
{
    empty_slot(s);
    if (s->arrived) (void)cudaEventDestroy(s->arrived);
    if (s->free) (void)cudaEventDestroy(s->free);
}

static pd_status grow_slot(pd_cuda *c, pd_upload_slot *s, size_t bytes, pd_err *err)
{
    if (bytes <= s->bytes) return PD_OK;
    empty_slot(s);
    PD_CUDA_TRY(cudaMallocHost(&s->pinned, bytes), err);
    PD_TRY(cuda_alloc(&c->device, &s->memory, bytes, err));
    s->bytes = bytes;
    return PD_OK;
}

static pd_status upload_piece(pd_cuda *c, char *to, const char *from, size_t bytes, pd_err *err)
{
    const bool small = bytes <= SMALL_UPLOAD;
    pd_upload_slot *s = small ? &c->small[c->next_small] : &c->large[c->next_large];
    if (small)
        c->next_small = (c->next_small + 1) % PD_SMALL_SLOTS;
    else
        c->next_large = (c->next_large + 1) % PD_LARGE_SLOTS;
    PD_CUDA_TRY(cudaEventSynchronize(s->free), err);
    PD_TRY(grow_slot(c, s, small ? SMALL_UPLOAD : bytes, err));
    memcpy(s->pinned, from, bytes);
    PD_CUDA_TRY(cudaMemcpyAsync(s->memory, s->pinned, bytes, cudaMemcpyHostToDevice, c->copies), err);
    PD_CUDA_TRY(cudaEventRecord(s->arrived, c->copies), err);
    PD_CUDA_TRY(cudaStreamWaitEvent(c->stream, s->arrived, 0), err);
    PD_CUDA_TRY(cudaMemcpyAsync(to, s->memory, bytes, cudaMemcpyDeviceToDevice, c->stream), err);
    PD_CUDA_TRY(cudaEventRecord(s->free, c->stream), err);
    return PD_OK;
}

static pd_status cuda_upload(pd_device *device, void *to, const void *from, size_t bytes, pd_err *err)
{
    for (size_t at = 0; at < bytes; at += LARGEST_SLOT) {
        const size_t n = bytes - at < LARGEST_SLOT ? bytes - at : LARGEST_SLOT;
        PD_TRY(upload_piece(pd_cuda_of(device), (char *)to + at, (const char *)from + at, n, err));
    }
    return PD_OK;
}

static pd_status cuda_sync(pd_device *device, pd_err *err)
{
    PD_CUDA_TRY(cudaStreamSynchronize(pd_cuda_of(device)->stream), err);
    return PD_OK;
}

static pd_status cuda_download(pd_device *device, void *to, const void *from, size_t bytes, pd_err *err)
{
    if (!bytes) return PD_OK;
    PD_CUDA_TRY(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, pd_cuda_of(device)->stream), err);
    return cuda_sync(device, err);
}

/* ---- numbers that are read later ---- */

typedef struct late_slot {
    void *pinned;
    size_t room;
    cudaEvent_t arrived;
} late_slot;

static void late_free(pd_device *device, void *slot)
{
    late_slot *s = slot;
    (void)device;
    if (s->arrived) (void)cudaEventSynchronize(s->arrived);
    if (s->arrived) (void)cudaEventDestroy(s->arrived);
    if (s->pinned) (void)cudaFreeHost(s->pinned);
    free(s);
}

static pd_status new_late_slot(void **out, size_t bytes, pd_err *err)
{
    late_slot *s = calloc(1, sizeof *s);
    if (!s) return PD_FAIL(err, PD_ENOMEM, "out of memory for results");
    cudaError_t code = cudaEventCreateWithFlags(&s->arrived, cudaEventDisableTiming);
    if (code == cudaSuccess) code = cudaMallocHost(&s->pinned, bytes ? bytes : 1);
    if (code != cudaSuccess) late_free(NULL, s);
    PD_CUDA_TRY(code, err);
    s->room = bytes;
    *out = s;
    return PD_OK;
}

static pd_status late_copy(pd_device *device, void **slot, int count, const void *const *from, const size_t *bytes,
                           pd_err *err)
{
    cudaStream_t stream = pd_cuda_of(device)->stream;
    size_t total = 0;
    for (int i = 0; i < count; i++) total += bytes[i];
    if (*slot && ((late_slot *)*slot)->room < total) {
        late_free(device, *slot);
        *slot = NULL;
    }
    if (!*slot) PD_TRY(new_late_slot(slot, total, err));
    late_slot *s = *slot;
    char *to = s->pinned;
    for (int i = 0; i < count; to += bytes[i++])
        if (bytes[i]) PD_CUDA_TRY(cudaMemcpyAsync(to, from[i], bytes[i], cudaMemcpyDeviceToHost, stream), err);
    PD_CUDA_TRY(cudaEventRecord(s->arrived, stream), err);
    return PD_OK;
}

static pd_status late_wait(pd_device *device, void *slot, void **numbers, pd_err *err)
{
    (void)device;
    PD_CUDA_TRY(cudaEventSynchronize(((late_slot *)slot)->arrived), err);
    *numbers = ((late_slot *)slot)->pinned;
    return PD_OK;
}

static pd_status cuda_copy(pd_device *device, void *to, const void *from, size_t bytes, pd_err *err)
{
    if (bytes) PD_CUDA_TRY(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, pd_cuda_of(device)->stream), err);
    return PD_OK;
}

static pd_status cuda_fill(pd_device *device, void *memory, int byte, size_t bytes, pd_err *err)
{
    if (bytes) PD_CUDA_TRY(cudaMemsetAsync(memory, byte, bytes, pd_cuda_of(device)->stream), err);
    return PD_OK;
}

static pd_status cuda_seed(pd_device *device, float *to, float value, pd_err *err)
{
    pd_cuda *c = pd_cuda_of(device);
    if (c->tuning) { /* training has begun: collectives may need memory that is not ours to give back later */
        PD_TRY(cuda_sync(device, err));
        forget_tuning(c);
    }
    PD_CUDA_TRY(pd_cuda_seed(to, value, c->step, c->stream), err);
    return PD_OK;
}

static pd_status precision_set(pd_device *device, pd_err *err)
{
    const pd_cuda *c = pd_cuda_of(device);
    const bool scaled = device->precision == PD_FP16;
    if (c->offline) return PD_OK;
    PD_CUDA_TRY(pd_cuda_scale_start(c->step, scaled ? PD_SCALE_START : 1.f, c->stream), err);
    device->scale = scaled ? &c->step->scale : NULL;
    return PD_OK;
}

pd_status pd_cuda_tuning(void **out, pd_cuda *c, size_t bytes, pd_err *err)
{
    if (bytes > c->tuning_bytes) {
        forget_tuning(c);
        PD_TRY(cuda_alloc(&c->device, &c->tuning, bytes, err));
        c->tuning_bytes = bytes;
    }
    *out = c->tuning;
    return PD_OK;
}

/* ---- graphs
 * ------------------------------------------------------------------------------------------------------------ */

static pd_status graph_begin(pd_device *device, pd_err *err)
{
    pd_cuda *c = pd_cuda_of(device);
    /* plans are made: the memory that candidates were timed in is not needed while graphs run */
    PD_TRY(cuda_sync(device, err));
    forget_tuning(c);
    PD_CUDA_TRY(cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal), err);
    return PD_OK;
}

static pd_status graph_end(pd_device *device, void **out, pd_err *err)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t ready = NULL;
    PD_CUDA_TRY(cudaStreamEndCapture(pd_cuda_of(device)->stream, &graph), err);
    const cudaError_t code = cudaGraphInstantiate(&ready, graph, 0);
    (void)cudaGraphDestroy(graph);
    PD_CUDA_TRY(code, err);
    *out = ready;
    return PD_OK;
}

static pd_status graph_run(pd_device *device, void *graph, pd_err *err)
{
    PD_CUDA_TRY(cudaGraphLaunch((cudaGraphExec_t)graph, pd_cuda_of(device)->stream), err);
    return PD_OK;
}

static void graph_free(pd_device *device, void *graph)
{
    (void)cudaStreamSynchronize(pd_cuda_of(device)->stream);
    (void)cudaGraphExecDestroy((cudaGraphExec_t)graph);
}

/* ---- opening
 * ------------------------------------------------------------------------------------------------------------ */

int pd_cuda_count(char *why, size_t size)
{
    int count = 0;
    const cudaError_t code = cudaGetDeviceCount(&count);
    if (code == cudaSuccess && count > 0) return count;
    (void)cudaGetLastError();
    if (code == cudaErrorInsufficientDriver || code == cudaErrorNoDevice || code == cudaSuccess)
        snprintf(why, size, "no GPU with a working NVIDIA driver was found here%s%s", code ? ": " : "",
                 code ? cudaGetErrorString(code) : "");
    else
        snprintf(why, size, "the GPU cannot be used: %s", cudaGetErrorString(code));
    return 0;
}

static void cuda_close(pd_device *device)
{
    pd_cuda *c = pd_cuda_of(device);
    if (c->stream) (void)cudaStreamSynchronize(c->stream);
    pd_gconv_close(c->conv);
    pd_gemm_close(c->gemm);
    for (int i = 0; i < PD_SMALL_SLOTS; i++) free_slot(&c->small[i]);
    for (int i = 0; i < PD_LARGE_SLOTS; i++) free_slot(&c->large[i]);
    forget_tuning(c);
    cuda_release(device, c->step);
    cuda_release(device, c->update);
    if (c->copies) (void)cudaStreamDestroy(c->copies);
    if (c->stream) (void)cudaStreamDestroy(c->stream);
}

static pd_cuda *new_device(int index)
{
    pd_cuda *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->index = index;
    c->device = (pd_device){
        .kind = PD_CUDA,
        .precision = PD_BF16,
        .alloc = cuda_alloc,
        .release = cuda_release,
        .upload = cuda_upload,
        .download = cuda_download,
        .copy = cuda_copy,
        .fill = cuda_fill,
        .seed = cuda_seed,
        .sync = cuda_sync,
        .late_copy = late_copy,
        .late_wait = late_wait,
        .late_free = late_free,
        .find = pd_cuda_find,
        .precision_set = precision_set,
        .graph_begin = graph_begin,
        .graph_end = graph_end,
        .graph_run = graph_run,
        .graph_free = graph_free,
        .close = cuda_close,
    };
    snprintf(c->device.name, sizeof c->device.name, "cuda:%d", index);
    return c;
}

static pd_status start(pd_cuda *c, pd_err *err)
{
    struct cudaDeviceProp properties;
    PD_CUDA_TRY(cudaSetDevice(c->index), err);
    PD_CUDA_TRY(cudaGetDeviceProperties(&properties, c->index), err);
    snprintf(c->device.title, sizeof c->device.title, "%.120s", properties.name);
    if (properties.major < 8)
        return PD_FAIL(err, PD_EDEVICE, "%s (%s): compute capability %d.%d; 8.0 (A100) or newer is needed",
                       c->device.name, c->device.title, properties.major, properties.minor);
    PD_CUDA_TRY(cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), err);
    PD_CUDA_TRY(cudaStreamCreateWithFlags(&c->copies, cudaStreamNonBlocking), err);
    for (int i = 0; i < PD_SMALL_SLOTS; i++) PD_TRY(new_slot(&c->small[i], err));
    for (int i = 0; i < PD_LARGE_SLOTS; i++) PD_TRY(new_slot(&c->large[i], err));
    PD_TRY(cuda_alloc(&c->device, (void **)&c->step, sizeof *c->step, err));
    PD_TRY(cuda_alloc(&c->device, &c->update, PD_UPDATE_BYTES, err));
    c->update_bytes = PD_UPDATE_BYTES;
    PD_CUDA_TRY(pd_cuda_scale_start(c->step, 1.f, c->stream), err);
    PD_TRY(pd_gconv_open(&c->conv, c, NULL, err));
    return pd_gemm_open(&c->gemm, c, err);
}

pd_status pd_cuda_open(pd_device **out, int index, pd_err *err)
{
    pd_cuda *c = new_device(index);
    if (!c) return PD_FAIL(err, PD_ENOMEM, "out of memory for a device");
    const pd_status status = start(c, err);
    if (status != PD_OK) {
        pd_err_context(err, "device \"%s\"", c->device.name);
        cuda_close(&c->device);
        free(c);
        return status;
    }
    *out = &c->device;
    return PD_OK;
}

static pd_status cannot_run(pd_node *node, const pd_run *run, pd_err *err)
{
    return PD_FAIL(err, PD_EDEVICE, "%s: %s only plans", node->op->name, run->device->name);
}

/* Operations that have no kernel here still have their place in a plan. */
static const void *offline_find(pd_device *device, const char *name)
{
    static const pd_kernel nothing = {NULL, cannot_run, cannot_run, NULL};
    const void *found = pd_cuda_find(device, name);
    return found ? found : &nothing;
}

pd_status pd_cuda_open_offline(pd_device **out, const char *json, pd_err *err)
{
    pd_cuda *c = new_device(0);
    if (!c) return PD_FAIL(err, PD_ENOMEM, "out of memory for a device");
    c->offline = true;
    c->device.find = offline_find;
    c->device.graph_begin = NULL;
    snprintf(c->device.name, sizeof c->device.name, "cuda (offline)");
    const pd_status status = pd_gconv_open(&c->conv, c, json, err);
    if (status != PD_OK) {
        free(c);
        return status;
    }
    *out = &c->device;
    return PD_OK;
}
