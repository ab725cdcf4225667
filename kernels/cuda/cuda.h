/* cuda.h: the CUDA device as its operations see it, and how a call of NVIDIA's libraries becomes an error sentence.
 *
 * Everything below kernels/cuda is built into the plugin libparadise_cuda.so and nowhere else. An operation NAME has
 *   NAME.cu   its kernels and plain-C launchers (declared in NAME.h); C++ stays inside
 *   NAME.c    its pd_kernel: what is planned, which launches make forward and backward
 * and a row in ops.h. tests/emulate compiles the same files for the CPU. docs/cuda.md says more. */
#ifndef PD_KERNELS_CUDA_H
#define PD_KERNELS_CUDA_H

#include "engine/device.h"
#include "engine/tape.h"

#include <cuda_runtime_api.h>

typedef struct pd_gconv_library pd_gconv_library; /* gconv.h */
typedef struct pd_gemm_library pd_gemm_library;   /* gemm.h */

/* What steps keep in device memory. pd_device.scale shows the first two. */
typedef struct pd_step_state {
    float scale;      /* gradients carry it; 1 unless fp16 */
    float good_steps; /* since it changed */
    /* of the step under way, or the last one: */
    float by;    /* multiplies gradients: the caller's scale, what shortens them, 1 / the scale that they carry */
    int skip;    /* changes nothing: some gradient was not finite under fp16 */
    double norm; /* of the gradients, where they are clipped */
} pd_step_state;

/* An upload passes through pinned memory and a place on the device, so that it runs beside what is computed: host ->
 * pinned (by the caller's thread) -> slot (stream `copies`) -> destination (stream `stream`, in order). A slot is used
 * again when it was read, behind the step before: there are slots for the uploads of several steps, few of them large.
 */
typedef struct pd_upload_slot {
    void *pinned, *memory;
    size_t bytes;
    cudaEvent_t arrived, free; /* in `memory`; read from it */
} pd_upload_slot;

#define PD_SMALL_SLOTS 32
#define PD_LARGE_SLOTS 3

typedef struct pd_cuda {
    pd_device device; /* first: a pd_device of this kind is a pd_cuda */
    int index;
    bool offline;        /* plans only: there is no GPU behind it (gconv.h) */
    cudaStream_t stream; /* where everything is computed, in order */
    cudaStream_t copies; /* uploads, beside it */
    pd_upload_slot small[PD_SMALL_SLOTS], large[PD_LARGE_SLOTS];
    int next_small, next_large;
    pd_step_state *step;
    void *update; /* memory of the optimiser's kernels (update.c) */
    size_t update_bytes;
    pd_gconv_library *conv;
    pd_gemm_library *gemm;
    void *tuning; /* memory in which candidates are timed while plans are made */
    size_t tuning_bytes;
} pd_cuda;

static inline pd_cuda *pd_cuda_of(pd_device *device)
{
    return (pd_cuda *)device;
}

/* Forwards a failed call of the CUDA run time (or a launcher, which returns its code as an int). */
#define PD_CUDA_TRY(call, err)                                                                                         \
    do {                                                                                                               \
        const cudaError_t pd_cuda_code_ = (cudaError_t)(call);                                                         \
        if (pd_cuda_code_ != cudaSuccess) return pd_cuda_fail(pd_cuda_code_, #call, err);                              \
    } while (0)

pd_status pd_cuda_fail(cudaError_t code, const char *call, pd_err *err);

/* At least `bytes` of memory for timing candidates; kept until the device is closed. */
pd_status pd_cuda_tuning(void **out, pd_cuda *device, size_t bytes, pd_err *err);

/* A CUDA device that plans and cannot run: cuDNN is asked for plans for the GPU that `json` describes (cuDNN's device
 * properties). For tests and for memory figures where there is no GPU. */
pd_status pd_cuda_open_offline(pd_device **out, const char *json, pd_err *err);

static inline size_t pd_align_up(size_t n)
{
    return (n + 255) / 256 * 256;
}

#endif
