/* assign_math.h: the decisions of the max-IoU assigner (assign.h) for one box, for the CPU's loops and CUDA kernels. */
#ifndef PD_ASSIGN_MATH_H
#define PD_ASSIGN_MATH_H

#include "engine/hd.h"
#include "kernels/assign.h"

/* The match of a box whose largest IoU is `best`, with ground truth `from`; best is -1 where the box does not count. */
PD_HD int pd_assign_match(float best, int from, const pd_assign_cfg *cfg)
{
    if (best >= cfg->pos) return from;
    return best >= 0 && best < cfg->neg ? PD_MATCH_BACKGROUND : PD_MATCH_IGNORED;
}

/* Does a ground truth whose largest IoU with any box is `best` claim the boxes that reach it? */
PD_HD bool pd_assign_claims(float best, const pd_assign_cfg *cfg)
{
    return best > 0 && best >= cfg->min_pos;
}

#endif
