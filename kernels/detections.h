/* detections.h: what a detector's heads found in each image, as an operation: decoded, suppressed, the best max_keep.
 * No gradient.
 *
 * The steps and their order are those of detectors/postprocess.h, which works on host memory and is what the CPU uses;
 * this is for devices that would have to bring whole heads there.
 *
 *   sizes    (n, 4) I32            h, w of each resized image (and two numbers that are not read)
 *   scales   (n, 3)                scale_x, scale_y from the original to the resized image; then 1 if it is mirrored
 *   box      (n, max_keep, 4)      pixels of the original image, by descending score; rows from count[i] on are 0
 *   score    (n, max_keep)
 *   label    (n, max_keep) I32     class
 *   count    (n) I32
 */
#ifndef PD_DETECTIONS_H
#define PD_DETECTIONS_H

#include "kernels/anchors.h"
#include "kernels/box_coder.h"
#include "kernels/nms.h"
#include "kernels/soft_nms.h"

typedef struct pd_detections_cfg {
    int pre_nms; /* anchors of a level; or pairs of anchor and class */
    bool pairs;
    float score_thresh;
    pd_nms_cfg nms;
    bool soft; /* by soft_nms (whose max_keep is nms.max_keep) instead of nms */
    pd_soft_nms_cfg soft_nms;
    pd_box_coder coder;
} pd_detections_cfg;

typedef struct pd_detections_out {
    pd_value *box, *score, *label, *count;
} pd_detections_out;

/* Dense heads: logits[l] (n, h, w, a*k) of sigmoids, deltas[l] (n, h, w, a*4), levels as in grid. */
pd_detections_out pd_dense_detections(pd_tape *tape, const pd_anchor_grid *grid, pd_value *const *logits,
                                      pd_value *const *deltas, int k, pd_value *sizes, pd_value *scales,
                                      const pd_detections_cfg *cfg);

#define PD_MAX_DETECTION_STAGES 8

/* Box heads: logits of each stage (n * m, k + 1), background last: one softmax of their mean. boxes (n, m, 4) in pixels
 * of the resized image, of which the first counts[i] are used. deltas NULL: these are the boxes of all classes; or (n *
 * m, k * 4): what moves them to the box of each class. pre_nms and pairs are not read. */
pd_detections_out pd_roi_detections(pd_tape *tape, pd_value *const *logits, int stages, pd_value *boxes,
                                    pd_value *deltas, pd_value *counts, int k, pd_value *sizes, pd_value *scales,
                                    const pd_detections_cfg *cfg);

#endif
