/* How long the kernels of grouped.cu take for a shape, against which a bank's other divisions are weighed. */
#include "kernels/cuda/grouped.h"
#include "kernels/cuda/gconv.h"
#include "kernels/cuda/timing.h"

#include <math.h>
#include <stdio.h>

/* Forward and both gradients of a shape, in the device's tuning memory. */
typedef struct work {
    cudaStream_t stream;
    const pd_conv_shape *shape;
    pd_store store;
    void *x, *y;
    float *w, *partial;
} work;

static pd_status place(work *m, pd_cuda *device, pd_err *err)
{
    const pd_conv_shape *s = m->shape;
    const size_t e = pd_store_bytes(m->store);
    const size_t x = pd_align_up((size_t)s->n * (size_t)s->h * (size_t)s->w * (size_t)s->c * e);
    const size_t y = pd_align_up((size_t)s->n * (size_t)s->oh * (size_t)s->ow * (size_t)s->k * e);
    const size_t w = pd_align_up((size_t)(s->k * s->kh * s->kw * (s->c / s->groups)) * sizeof(float));
    void *memory;
    PD_TRY(pd_cuda_tuning(&memory, device, x + y + w + pd_grouped_floats(s) * sizeof(float), err));
    char *at = memory;
    m->x = at;
    m->y = at += x;
    m->w = (float *)(void *)(at += y);
    m->partial = (float *)(void *)(at + w);
    return PD_OK;
}

static pd_status run_all(void *arg)
{
    const work *m = arg;
    const int k = m->shape->k;
    PD_CUDA_TRY(pd_grouped_fwd(m->shape, m->store, m->x, m->w, m->y, k, m->stream), NULL);
    PD_CUDA_TRY(pd_grouped_data(m->shape, m->store, m->x, false, m->w, m->y, k, m->stream), NULL);
    PD_CUDA_TRY(pd_grouped_weights(m->shape, m->store, m->x, m->w, false, m->y, k, m->partial, m->stream), NULL);
    return PD_OK;
}

pd_status pd_grouped_time(double *ms, pd_cuda *device, const pd_conv_shape *s, pd_store store, pd_err *err)
{
    static const char *const stores[] = {"f32", "f16", "bf16"};
    pd_plan_store *kept = pd_gconv_store(device->conv);
    work m = {.stream = device->stream, .shape = s, .store = store};
    char key[160];
    *ms = 0;
    if (device->offline) return PD_OK;
    snprintf(key, sizeof key, "own %s x%d,%d,%d,%d k%d,%d,%d s%d p%d,%d g%d y%d,%d", stores[store], s->n, s->h, s->w,
             s->c, s->k, s->kh, s->kw, s->stride, s->pad_h, s->pad_w, s->groups, s->oh, s->ow);
    if (pd_plan_store_find(kept, key, ms)) return PD_OK;
    PD_TRY(place(&m, device, err));
    *ms = pd_cuda_time(device, run_all, &m, HUGE_VAL);
    if (*ms == HUGE_VAL) return PD_FAIL(err, PD_EDEVICE, "grouped convolutions do not run: %s", key);
    PD_TRY(pd_plan_store_add(kept, key, *ms, "-", err));
    (void)pd_plan_store_find(kept, key, ms);
    return PD_OK;
}
