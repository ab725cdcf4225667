/* dense_loss.h: launchers of dense_loss.cu: focal loss and binary cross-entropy of dense heads (kernels/dense_loss.h),
 * all levels and images in one launch. All return a CUDA error code. */
#ifndef PD_CUDA_DENSE_LOSS_H
#define PD_CUDA_DENSE_LOSS_H

#include "kernels/anchors.h"
#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pd_dense_maps {
    int levels, k, n, boxes;
    int first[PD_MAX_LEVELS + 1]; /* flat index of each level's first box */
    bool focal;                   /* else cross-entropy */
    float alpha, gamma;           /* focal */
    pd_store store;               /* of all logits and their gradients */
    const void *x[PD_MAX_LEVELS];
    void *dx[PD_MAX_LEVELS]; /* NULL: not wanted; may be x */
    bool add[PD_MAX_LEVELS];
    const int *label;
    const float *weight;
} pd_dense_maps;

/* Doubles of room for pd_dense_fwd. */
size_t pd_dense_parts(const pd_dense_maps *m);

int pd_dense_fwd(const pd_dense_maps *m, double *parts, float *loss, cudaStream_t stream);
int pd_dense_bwd(const pd_dense_maps *m, const float *dloss, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
