/* update.h: launchers of update.cu: the optimiser's step and what goes with it. All return a CUDA error code.
 *
 * The step is decided on the device, before it begins: the sum of the gradients' squares gives their norm and what
 * shortens them; under fp16 it tells whether all are finite: a step that is not changes nothing, and the scale of the
 * gradients is halved; it doubles after PD_SCALE_GROWS good steps. */
#ifndef PD_CUDA_UPDATE_H
#define PD_CUDA_UPDATE_H

#include "kernels/adam_math.h"
#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PD_SCALE_START 65536.f
#define PD_SCALE_GROWS 2000.f

/* pd_cuda.update: the sum of squares of all gradients, then partial sums of blocks, then what LAMB needs. */
#define PD_UPDATE_BLOCKS 1024
#define PD_UPDATE_BYTES (sizeof(double) * (1 + PD_UPDATE_BLOCKS))

int pd_cuda_seed(float *to, float value, const pd_step_state *state, cudaStream_t stream);
int pd_cuda_scale_start(pd_step_state *state, float value, cudaStream_t stream);

/* squares[0] = or += the sum of g's squares. */
int pd_cuda_squares(const float *g, size_t count, double *squares, bool add, cudaStream_t stream);

/* Tensors, or runs of neighbouring ones, that one launch steps. A block has PD_UPDATE_PIECE weights of one of them. */
#define PD_UPDATE_TENSORS 64
#define PD_UPDATE_PIECE 4096
typedef struct pd_update_list {
    int count;
    unsigned block[PD_UPDATE_TENSORS + 1];                   /* number of each one's first block */
    size_t begin[PD_UPDATE_TENSORS], end[PD_UPDATE_TENSORS]; /* in the block of weights */
    float decay[PD_UPDATE_TENSORS];
} pd_update_list;

/* Before a step's launches: state->by, skip, norm, and the scale for the gradients behind this step. max_norm 0: no
 * clipping. squares: of all gradients, with the scale they carry; NULL: neither clipped nor fp16. */
typedef struct pd_step_wants {
    double scale, max_norm, passes;
    bool half;
} pd_step_wants;
int pd_cuda_begin_step(pd_step_state *state, const double *squares, const pd_step_wants *wants, cudaStream_t stream);

typedef struct pd_step_settings {
    float lr, momentum;
    bool nesterov;
} pd_step_settings;
int pd_cuda_step(const pd_update_list *l, float *w, float *v, const float *g, const pd_step_settings *s,
                 const pd_step_state *state, cudaStream_t stream);
int pd_cuda_adamw(const pd_update_list *l, float *w, float *m, float *v, const float *g, const pd_adam_numbers *n,
                  const pd_step_state *state, cudaStream_t stream);
/* parts: two doubles for each block; ratios: one float for each tensor. */
int pd_cuda_lamb(const pd_update_list *l, float *w, float *m, float *v, float *g, const pd_adam_numbers *n,
                 double *parts, float *ratios, const pd_step_state *state, cudaStream_t stream);
int pd_cuda_ema(float *average, const float *w, size_t count, float keep, cudaStream_t stream);
int pd_cuda_swap(float *a, float *b, size_t count, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
