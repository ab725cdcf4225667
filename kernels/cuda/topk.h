/* topk.h: launchers of topk.cu: the k largest scores of each level of each image (kernels/topk.h). All return a CUDA
 * error code.
 *
 * A block a level chooses by a radix select over (score, index), which no two entries share, so the tie rule is the
 * CPU's; the chosen ones are put in order by counting how many stand before each. */
#ifndef PD_CUDA_TOPK_H
#define PD_CUDA_TOPK_H

#include "kernels/anchors.h"
#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pd_topk_shape {
    int n, levels, k;
    int count[PD_MAX_LEVELS];          /* scores of a level of one image */
    const void *scores[PD_MAX_LEVELS]; /* (n, count) */
    pd_store store;                    /* of the scores */
    int slot[PD_MAX_LEVELS + 1];       /* where a level's picks begin among an image's; the last: how many these are */
} pd_topk_shape;

/* Sets slot: min(k, count) for each level. */
static inline void pd_topk_slots(pd_topk_shape *s)
{
    s->slot[0] = 0;
    for (int l = 0; l < s->levels; l++) s->slot[l + 1] = s->slot[l] + (s->count[l] < s->k ? s->count[l] : s->k);
}

/* pick: (n, slots) places in the level: of levels with more than k scores the k largest, descending, of the others all,
 * in their own order. work: (n, slots) 8 bytes each. */
int pd_topk_fwd(const pd_topk_shape *s, int *pick, uint64_t *work, cudaStream_t stream);

/* Lists of orders (topk_math.h) of levels of images, each with room of its own and a count. */
typedef struct pd_order_lists {
    int n, levels, k;
    const uint64_t *list; /* (n, room) */
    const int *count;     /* (n, PD_MAX_LEVELS) */
    size_t room;
    size_t begin[PD_MAX_LEVELS]; /* of a level's list among an image's */
    int slot[PD_MAX_LEVELS + 1]; /* where a level's chosen ones begin among an image's; the last: room for all */
} pd_order_lists;

/* sorted: (n, slots): the k smallest of each list (or all, where it has fewer), ascending. work: as large. */
int pd_topk_orders_fwd(const pd_order_lists *s, uint64_t *sorted, uint64_t *work, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
