/* update.h: launchers of update.cu: the optimiser's step and what goes with it. All return a CUDA error code.
 *
 * The step is decided on the device: under fp16 the sum of the gradients' squares tells whether all are finite; a step
 * that is not changes nothing, and the scale of the gradients is halved; it doubles after PD_SCALE_GROWS good steps. */
#ifndef PD_CUDA_UPDATE_H
#define PD_CUDA_UPDATE_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PD_SCALE_START 65536.f
#define PD_SCALE_GROWS 2000.f

/* pd_cuda.update: the sum of squares of all gradients, then partial sums of blocks. */
#define PD_UPDATE_BLOCKS 1024
#define PD_UPDATE_BYTES (sizeof(double) * (1 + PD_UPDATE_BLOCKS))

int pd_cuda_seed(float *to, float value, const pd_scale_state *scale, cudaStream_t stream);
int pd_cuda_scale_start(pd_scale_state *scale, float value, cudaStream_t stream);

/* squares[0] = or += the sum of g's squares. */
int pd_cuda_squares(const float *g, size_t count, double *squares, bool add, cudaStream_t stream);
/* One range of weights. squares NULL: always steps. */
typedef struct pd_step_settings {
    float lr, momentum, decay, scale;
    bool nesterov;
} pd_step_settings;
int pd_cuda_step(float *w, float *v, const float *g, size_t count, const pd_step_settings *s,
                 const pd_scale_state *scale, const double *squares, cudaStream_t stream);
/* After a step: the scale for the next one. */
int pd_cuda_rescale(pd_scale_state *scale, const double *squares, cudaStream_t stream);
int pd_cuda_ema(float *average, const float *w, size_t count, float keep, cudaStream_t stream);
int pd_cuda_swap(float *a, float *b, size_t count, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
