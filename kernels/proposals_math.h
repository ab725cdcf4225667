/* proposals_math.h: one candidate of the region proposal network (proposals.h), for the CPU and CUDA. */
#ifndef PD_PROPOSALS_MATH_H
#define PD_PROPOSALS_MATH_H

#include "kernels/box_coder.h"

#include <stdbool.h>

PD_HD float pd_proposal_score(float logit)
{
    return 1.f / (1.f + expf(-logit));
}

/* The candidate's box, within the image's h and w. Returns whether it has an area, so is a candidate at all. */
PD_HD bool pd_proposal_box(pd_box *box, const pd_box_coder *coder, pd_box anchor, pd_delta t, int h, int w)
{
    *box = pd_box_clip(coder, pd_box_decode(coder, anchor, t), h, w);
    return box->x2 > box->x1 && box->y2 > box->y1;
}

#endif
