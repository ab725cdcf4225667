/* boundary.h: the boundary of a mask: its pixels near its outline. Private to eval/.
 *
 * Cheng et al. 2021, "Boundary IoU": the pixels of the mask within distance d of a pixel that is not in it, d = ratio *
 * image diagonal, rounded, at least 1; outside of the image nothing is set. Distance is the larger of the two axes', as
 * their code erodes by a 3 x 3 square d times. */
#ifndef PD_BOUNDARY_H
#define PD_BOUNDARY_H

#include "eval/mask.h"

typedef struct pd_boundary_work {
    unsigned char *pixels, *inner; /* the mask's box, column by column */
    uint32_t *streak;              /* of each row: columns set up to here */
    size_t pixels_capacity, inner_capacity, streak_capacity;
} pd_boundary_work;
void pd_boundary_work_free(pd_boundary_work *work);

/* out->ends is a heap array of *capacity that grows. */
pd_status pd_mask_boundary(pd_mask *out, size_t *capacity, const pd_mask *mask, double ratio, pd_boundary_work *work,
                           pd_err *err);

#endif
