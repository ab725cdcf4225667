/* nms.h: launchers of nms.cu: suppression of many images at once (kernels/nms.h). All return a CUDA error code.
 *
 * Candidates lie in places 0..room-1 of their image. Stretches of them are sorted, and a candidate's rank is the sum of
 * what stands before it in each; then every pair is tested once, 64 tests to a word, and one block an image walks the
 * words. Nothing is read by the host.
 */
#ifndef PD_CUDA_NMS_H
#define PD_CUDA_NMS_H

#include "kernels/cuda/cuda.h"
#include "kernels/nms.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pd_nms_shape {
    pd_nms_cfg cfg;
    int n, room;
} pd_nms_shape;

/* What whoever finds the candidates writes. */
typedef struct pd_nms_list {
    uint64_t *order; /* (n, room) pd_score_order of the score and the place; PD_NMS_NONE: nothing there */
    pd_box *box;     /* (n, room) */
    int *label;      /* (n, room) */
    int *found;      /* (n, 2): candidates; bits of their largest coordinate, which must be >= 0. Begin with zeros. */
} pd_nms_list;

#define PD_NMS_NONE UINT64_MAX

size_t pd_nms_list_bytes(const pd_nms_shape *s);
/* The list's arrays in memory of so many bytes, aligned to 256. */
pd_nms_list pd_nms_list_in(void *memory, const pd_nms_shape *s);
int pd_nms_clear(const pd_nms_list *list, const pd_nms_shape *s, cudaStream_t stream);

/* keep (n, max_keep): places by descending score; kept (n). work: pd_nms_bytes. */
size_t pd_nms_bytes(const pd_nms_shape *s);
int pd_nms_fwd(const pd_nms_shape *s, const pd_nms_list *list, int *keep, int *kept, void *work, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
