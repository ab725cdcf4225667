/* mixed_loss.h: launchers of mixed_loss.cu (kernels/mixed_loss.h). All return a CUDA error code.
 *
 * A class or a share out of range cannot fail a run here without a wait: it makes the loss NaN. */
#ifndef PD_CUDA_MIXED_LOSS_H
#define PD_CUDA_MIXED_LOSS_H

#include "kernels/cuda/cuda.h"
#include "kernels/mixed_loss.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pd_mixed_rows {
    pd_mixed_cfg cfg;
    int rows, k;
    pd_store store; /* of the logits and their gradient */
    const void *x;
    const int *a, *b;   /* classes */
    const float *share; /* one number */
} pd_mixed_rows;

/* What a row keeps for backward: softmax(x)_c = exp(x_c - max) * inverse_sum. */
typedef struct pd_mixed_row {
    float max, inverse_sum;
} pd_mixed_row;

/* parts: (2, rows) of work memory. */
int pd_mixed_fwd(const pd_mixed_rows *m, pd_mixed_row *row, double *parts, float *loss, float *correct,
                 cudaStream_t stream);
int pd_mixed_bwd(const pd_mixed_rows *m, const pd_mixed_row *row, const float *dloss, void *dx, bool add,
                 cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
