/* embed.h: launchers of embed.cu: a parameter (k, r, s, cg) float put into a library's kernel and its gradient taken
 * out.
 *
 * The library's kernel is (rows, rr, ss, cc) in its element type: larger windows get the smaller kernel in their
 * middle, a dense one (cc of all inputs) gets a grouped kernel block-diagonally, channels beyond are 0. The parameter's
 * outputs begin at row `first`. Both return a CUDA error code. */
#ifndef PD_CUDA_EMBED_H
#define PD_CUDA_EMBED_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pd_embedding {
    int k, r, s, cg, groups; /* the parameter */
    int rows, rr, ss, cc;    /* its place: as many rows as it has outputs, or more (0 beyond) */
    bool dense;              /* cc counts all inputs, not one group's */
    pd_store store;          /* of the place */
} pd_embedding;

/* to: the place's first row */
int pd_embed(const pd_embedding *e, const float *w, void *to, cudaStream_t stream);
/* dw = or += what lies in the place */
int pd_extract(const pd_embedding *e, const void *from, float *dw, bool add, cudaStream_t stream);

/* to = sum of a[i] * from[i * count ..], i < mix: kernels, or biases, mixed for one image. */
int pd_mix(int mix, const float *a, const float *from, size_t count, float *to, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
