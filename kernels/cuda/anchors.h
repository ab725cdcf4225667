/* anchors.h: launchers of anchors.cu (kernels/anchors.h). All return a CUDA error code. */
#ifndef PD_CUDA_ANCHORS_H
#define PD_CUDA_ANCHORS_H

#include "kernels/anchors.h"
#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One level of a pd_anchor_grid: small enough for a kernel's arguments, which the whole grid is not. */
typedef struct pd_anchor_level {
    int first, count; /* flat index of the first anchor; anchors */
    int w, stride, per_cell;
    pd_box base[PD_MAX_CELL_ANCHORS];
} pd_anchor_level;

static inline pd_anchor_level pd_anchor_level_of(const pd_anchor_grid *grid, int l)
{
    pd_anchor_level v;
    v.first = grid->first[l];
    v.count = grid->first[l + 1] - v.first;
    v.w = grid->w[l];
    v.stride = grid->stride[l];
    v.per_cell = grid->per_cell;
    for (int a = 0; a < PD_MAX_CELL_ANCHORS; a++) v.base[a] = grid->base[l][a];
    return v;
}

/* The level's anchors to out + first. */
int pd_anchors_fwd(const pd_anchor_level *level, pd_box *out, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
