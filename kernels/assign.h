/* assign.h: which ground truth each anchor or proposal is trained on ("max-IoU assigner").
 *
 * For one image with boxes b_j and ground truths g_i, in float32 with pd_box_iou:
 *   m_j = max_i IoU, at the first i that reaches it; best_i = max_j IoU
 *   match_j = background           if m_j < neg
 *           = that i               if m_j >= pos
 *           = ignored              in between
 *   low_quality: then, for i = 0, 1, ... with best_i >= min_pos and best_i > 0: every j with IoU_ij == best_i (the same
 *   bits) gets i. So a later ground truth takes a box from an earlier one, even where it overlaps less.
 * Without ground truth every box is background. A ground truth that touches no box (best_i = 0, one clipped to no area,
 * say) claims none. Thresholds and the order of ties are mmdetection's, with "lowest index" where it leaves a choice.
 *
 * Boxes that are not usable (anchors in the padding or outside) are ignored and decide nothing. No n x G matrix is
 * made: boxes go through in blocks, and only blocks that hold a best IoU are visited twice. */
#ifndef PD_ASSIGN_H
#define PD_ASSIGN_H

#include "engine/box.h"
#include "kernels/anchors.h"

#define PD_MATCH_BACKGROUND (-1)
#define PD_MATCH_IGNORED (-2) /* takes no part in any loss */

typedef struct pd_assign_cfg {
    float pos, neg, min_pos; /* neg <= pos */
    bool low_quality;
    int border; /* for anchors: see pd_anchor_flags; -1: no such test */
} pd_assign_cfg;

pd_assign_cfg pd_assign_cfg_retina(void);      /* 0.5, 0.4, 0, low quality, border -1 */
pd_assign_cfg pd_assign_cfg_rpn(void);         /* 0.7, 0.3, 0.3, low quality, border 0 */
pd_assign_cfg pd_assign_cfg_roi(float thresh); /* thresh three times, no low quality */

/* Bytes of work memory for n boxes and up to g ground truths. */
size_t pd_assign_work(int n, int g);

/* One image. usable: (n) 0 or 1, or NULL: all. ignore: (n) or NULL; 1 = this box lies on an ignore region: its IoUs
 * count as -1, so it is ignored if there is ground truth. match: (n). work: pd_assign_work bytes, aligned to PD_ALIGN.
 * pool NULL: one thread; the result does not depend on the threads. */
void pd_assign_boxes(int *match, const pd_box *boxes, int n, const unsigned char *usable, const unsigned char *ignore,
                     const pd_box *gt, int g, const pd_assign_cfg *cfg, void *work, pd_pool *pool);

/* Sets ignore[j] to 1 where the intersection with a region, divided by the box's own area, exceeds thresh. */
void pd_assign_ignore(unsigned char *ignore, const pd_box *boxes, int n, const pd_box *regions, int n_regions,
                      float thresh);

/* On a tape.
 *   boxes    (a, 4) shared by all images, or (n, a, 4)
 *   grid     the anchors' grid, for the flags of pd_anchor_flags; NULL: boxes are no anchors, all are usable
 *   n_boxes  (n) I32: only the first so many boxes of an image are usable; NULL: all
 *   gt       (n, g, 4), of which the first n_gt[i] count; n_gt (n) I32 (a number outside 0..g fails the run)
 *   sizes    (n, 4) I32: h, w, pad_h, pad_w of each image in pixels of the batch; may be NULL without grid
 *   returns  (n, a) I32: index of the ground truth, PD_MATCH_BACKGROUND or PD_MATCH_IGNORED */
pd_value *pd_assign(pd_tape *tape, pd_value *boxes, const pd_anchor_grid *grid, pd_value *n_boxes, pd_value *gt,
                    pd_value *n_gt, pd_value *sizes, const pd_assign_cfg *cfg);

#endif
