/* device.h: where tensors live and operations run.
 *
 * Models and plans see a device only through this header. An operation's table (tape.h) holds its CPU implementation;
 * another device finds its own by the operation's name (pd_device.find), so a new device changes no operation and no
 * caller. Devices other than the CPU come from a plugin that is loaded at run time (plugin.h): the same programs run
 * where there is no driver. One thread uses a device at a time. */
#ifndef PD_DEVICE_H
#define PD_DEVICE_H

#include "engine/thread.h"

#include <stdbool.h>

typedef enum pd_device_kind { PD_CPU, PD_CUDA, PD_DEVICE_KINDS } pd_device_kind;

/* How feature maps are stored and multiplied. Parameters, statistics and losses are float32 in all of them.
 *   fp32  float32 throughout
 *   tf32  float32 in memory, products in TensorFloat-32
 *   fp16  float16 feature maps, products summed in float32, gradients scaled by a power of two that adapts itself
 *   bf16  bfloat16 feature maps, products summed in float32 */
typedef enum pd_precision { PD_FP32, PD_TF32, PD_FP16, PD_BF16 } pd_precision;

typedef struct pd_device pd_device;
struct pd_device {
    pd_device_kind kind;
    pd_precision precision; /* change it with pd_device_set_precision, before anything is planned */
    char name[32];          /* "cpu", "cuda:0" */
    char title[160];        /* for people: "NVIDIA H100 80GB HBM3", "2 threads" */
    char why[320];          /* chosen by "auto": why not another one; else "" */
    pd_pool *pool;          /* compute threads of the host */
    struct pd_comm *comm;   /* collectives of this device's memory (comm.h); NULL: this process is alone */
    void *library;          /* the compute library's handles (kernels/onednn.h); made on first use */
    void (*library_free)(void *library);
    struct pd_shared *shared; /* what plans made of parameters (shared.h) */
    unsigned long changes;    /* how often parameters changed since the device was opened */
    /* Device memory, under fp16: the scale that gradients carry, and how many good steps it has lasted; a run that goes
     * on takes both along (tools/train_run.h). NULL where gradients carry none. */
    float *scale;
    /* For tests: of the ways in which an operation can be computed here, planned networks take this one, counted from 1
     * (the last one where there are fewer). 0: the fastest. */
    int way;
    pd_status (*alloc)(pd_device *, void **out, size_t bytes, pd_err *);
    void (*release)(pd_device *, void *memory);
    pd_status (*upload)(pd_device *, void *to, const void *from_host, size_t bytes, pd_err *);
    pd_status (*download)(pd_device *, void *to_host, const void *from, size_t bytes, pd_err *);
    pd_status (*copy)(pd_device *, void *to, const void *from, size_t bytes, pd_err *);
    pd_status (*fill)(pd_device *, void *memory, int byte, size_t bytes, pd_err *);
    /* *to = value, times the scale of gradients under fp16: where a backward run begins. */
    pd_status (*seed)(pd_device *, float *to, float value, pd_err *);
    pd_status (*sync)(pd_device *, pd_err *); /* waits for everything under way */
    /* Numbers that the host reads later: late_copy begins copies from `count` places behind what is under way and does
     * not wait; late_wait waits for these alone and shows them side by side, until the next late_copy into this slot
     * (*slot NULL: it is made). NULL on the CPU, where nothing is ever under way. */
    pd_status (*late_copy)(pd_device *, void **slot, int count, const void *const *from, const size_t *bytes, pd_err *);
    pd_status (*late_wait)(pd_device *, void *slot, void **numbers, pd_err *);
    void (*late_free)(pd_device *, void *slot);
    /* What the device has under a name: an operation's pd_kernel (tape.h), or a table that a header names ("update":
     * kernels/sgd.h). NULL: nothing. The function is NULL on the CPU, where callers hold their code themselves. */
    const void *(*find)(pd_device *, const char *name);
    /* Recording what runs between begin and end, to run it again at once. NULL where the device cannot. */
    pd_status (*graph_begin)(pd_device *, pd_err *);
    pd_status (*graph_end)(pd_device *, void **graph, pd_err *);
    pd_status (*graph_run)(pd_device *, void *graph, pd_err *);
    void (*graph_free)(pd_device *, void *graph);
    pd_status (*precision_set)(pd_device *, pd_err *); /* the precision was changed; NULL allowed */
    void (*close)(pd_device *); /* NULL allowed */
};

/* name: "cpu", "cuda" (the first), "cuda:1", or "auto": the first CUDA device that works, else the CPU; device->why
 * says which and why. threads: 0 for all processors of the affinity mask. Compute threads are pinned, one to a
 * processor. Errors: PD_EDEVICE where the device is not to be had; the sentence says what is missing. */
pd_status pd_device_open(pd_device **out, const char *name, int threads, pd_err *err);
void pd_device_close(pd_device *device); /* NULL allowed */

/* text: "fp32", "tf32", "fp16", "bf16", or NULL for the device's own choice (CPU: fp32; CUDA: bf16). The CPU computes
 * in fp32 only. Before anything is planned on the device. */
pd_status pd_device_set_precision(pd_device *device, const char *text, pd_err *err);
const char *pd_precision_text(pd_precision precision);

/* 16 bits a feature? */
static inline bool pd_precision_is_half(pd_precision p)
{
    return p == PD_FP16 || p == PD_BF16;
}

#endif
