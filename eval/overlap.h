/* overlap.h: how much a detection overlaps the objects of its cell. Private to eval/. */
#ifndef PD_OVERLAP_H
#define PD_OVERLAP_H

#include "eval/match.h"

/* Fills scratch->overlaps[0 .. m) with the overlap of item and each object, by the setup's type: boxes, masks or
 * keypoints. An overlap that cannot reach setup->least may be any number below it. False with scratch->err on failure.
 *
 * Boxes (dx,dy,dw,dh) and (gx,gy,gw,gh), in this order of operations: w = fmin(dw+dx, gw+gx) - fmax(dx, gx), h
 * likewise; 0 where one is <= 0, else w*h over dw*dh + gw*gh - w*h, for a crowd over dw*dh. Not clipped, no +1; NaN
 * runs through. */
bool pd_overlaps(pd_match_scratch *scratch, const pd_match_setup *setup, const pd_coco_item *item,
                 const pd_match_object *objects, size_t m);

/* Overlap of two boxes x, y, w, h as above. */
double pd_coco_box_overlap(const double d[4], const double g[4], bool crowd);

#endif
