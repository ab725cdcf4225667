/* roi_align.h: launchers of roi_align.cu (kernels/roi_align.h). All return a CUDA error code.
 *
 * pd_roi_cut works out where each box reads and with which weights; forward and backward stand on it. Backward gathers:
 * every pixel adds the boxes that read it in their order, so two runs give the same bits.
 *
 * A count beyond the room cannot fail a run here without a wait: it makes the image's features NaN. */
#ifndef PD_CUDA_ROI_ALIGN_H
#define PD_CUDA_ROI_ALIGN_H

#include "engine/box.h"
#include "kernels/anchors.h"
#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pd_roi_maps {
    int levels, stride[PD_MAX_LEVELS], h[PD_MAX_LEVELS], w[PD_MAX_LEVELS];
    int n, m, c, size, ratio; /* m boxes an image, size * size bins */
    int longest;              /* the longest side of a map */
    pd_store store;           /* of all maps, of the result and of their gradients */
    const void *x[PD_MAX_LEVELS];
    void *dx[PD_MAX_LEVELS]; /* NULL: not wanted */
    bool add[PD_MAX_LEVELS];
    const pd_box *roi;
    const int *count; /* NULL: all boxes are used */
} pd_roi_maps;

/* Bytes of `table` below. */
size_t pd_roi_table(const pd_roi_maps *m);

int pd_roi_cut(const pd_roi_maps *m, void *table, cudaStream_t stream);
/* y (n * m, size, size, c) */
int pd_roi_fwd(const pd_roi_maps *m, const void *table, void *y, cudaStream_t stream);
int pd_roi_bwd(const pd_roi_maps *m, const void *table, const void *dy, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
