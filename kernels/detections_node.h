/* detections_node.h: how recorded detections look to their implementations: the inputs' places and the settings
 * (node->args). Included by them only, one operation a file. */
#ifndef PD_DETECTIONS_NODE_H
#define PD_DETECTIONS_NODE_H

#include "kernels/detections.h"

enum { SIZES, SCALES, HEADS, BOXES = HEADS, DELTAS, COUNTS, STAGES };

/* Inputs from HEADS on: the levels' logits, then their deltas. */
typedef struct dense_args {
    pd_detections_cfg cfg;
    int n, k;
    pd_anchor_grid grid;
    int rows; /* anchors that are looked at in an image, at most */
    int most; /* candidates of an image, at most */
} dense_args;

/* Inputs: BOXES, DELTAS (or NULL), COUNTS, from STAGES on the stages' logits. */
typedef struct roi_args {
    pd_detections_cfg cfg;
    int n, m, k, stages;
} roi_args;

#endif
