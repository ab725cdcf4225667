/* roi_align_node.h: how a recorded pd_roi_align looks to its implementations: the inputs' places and the settings
 * (node->args). Included by them only, one operation a file. */
#ifndef PD_ROI_ALIGN_NODE_H
#define PD_ROI_ALIGN_NODE_H

#include "kernels/anchors.h"
#include "kernels/roi_align.h"

enum { ROIS, N_ROIS, LEVELS };

typedef struct roi_args {
    int levels, stride[PD_MAX_LEVELS], h[PD_MAX_LEVELS], w[PD_MAX_LEVELS];
    int n, m, c, size, ratio;
    int longest; /* the longest side of a map */
} roi_args;

#endif
