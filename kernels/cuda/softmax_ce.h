/* softmax_ce.h: launchers of softmax_ce.cu (kernels/softmax_ce.h). All return a CUDA error code.
 *
 * A class that is too large cannot fail a run here without a wait: it makes the loss NaN. */
#ifndef PD_CUDA_SOFTMAX_CE_H
#define PD_CUDA_SOFTMAX_CE_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pd_ce_shape {
    int rows, k, per_weight;
    float smoothing;
    pd_store store; /* of the logits and their gradient */
} pd_ce_shape;

/* What a row keeps for backward, and adds to the loss. */
typedef struct pd_ce_row {
    float max, inverse_sum, weight;
    float loss, correct; /* the loss before its weight */
} pd_ce_row;

/* weight NULL: the mean over rows with a label. */
int pd_ce_fwd(const pd_ce_shape *s, const void *logits, const int *label, const float *weight, pd_ce_row *row,
              float *loss, float *correct, cudaStream_t stream);
int pd_ce_bwd(const pd_ce_shape *s, const void *logits, const int *label, const pd_ce_row *row, const float *dloss,
              void *dlogits, bool add, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
