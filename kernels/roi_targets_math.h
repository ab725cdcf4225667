/* roi_targets_math.h: decisions of roi_targets.h about one candidate, for the CPU loop and the CUDA kernels. */
#ifndef PD_ROI_TARGETS_MATH_H
#define PD_ROI_TARGETS_MATH_H

#include "kernels/assign.h"

/* Ground truth k as a candidate: matched to itself, left out where it has no area. */
PD_HD int pd_own_match(pd_box gt, int k)
{
    return gt.x2 > gt.x1 && gt.y2 > gt.y1 ? k : PD_MATCH_IGNORED;
}

/* The pass that writes a candidate's row: 0 the positives, 1 the background boxes, 2 none. */
PD_HD int pd_row_pass(int match)
{
    return match >= 0 ? 0 : match == PD_MATCH_BACKGROUND ? 1 : 2;
}

#endif
