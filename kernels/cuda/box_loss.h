/* box_loss.h: launchers of box_loss.cu (kernels/box_loss.h), all levels and images in one launch. All return a CUDA
 * error code.
 *
 * A match beyond the ground truths cannot fail a run here without a wait: it makes the loss NaN. */
#ifndef PD_CUDA_BOX_LOSS_H
#define PD_CUDA_BOX_LOSS_H

#include "kernels/anchors.h"
#include "kernels/box_loss.h"
#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pd_box_maps {
    pd_box_loss_cfg cfg;
    int levels, n, boxes, g;
    bool shared;                  /* references are the same for all images */
    int first[PD_MAX_LEVELS + 1]; /* flat index of each level's first box */
    pd_store store;               /* of all deltas and their gradients */
    const void *x[PD_MAX_LEVELS];
    void *dx[PD_MAX_LEVELS]; /* NULL: not wanted */
    bool add[PD_MAX_LEVELS];
    const pd_box *box, *gt;
    const int *match;
    const float *weight;
} pd_box_maps;

/* Doubles of room for pd_box_fwd. */
size_t pd_box_parts(const pd_box_maps *m);

int pd_box_fwd(const pd_box_maps *m, double *parts, float *loss, cudaStream_t stream);
int pd_box_bwd(const pd_box_maps *m, const float *dloss, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
