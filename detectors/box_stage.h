/* box_stage.h: one stage of a box head: RoI features, two linear layers with ReLU, a class and a box.
 *
 *   p[0..3]   P2..P5 (n, h, w, 256), strides 4, 8, 16, 32; each box reads one level (roi_align.h)
 *   rois      (n, m, 4), of which the first n_rois[i] count; n_rois (n) I32
 *   cls       (n * m, classes + 1) logits of a softmax, background last
 *   reg       (n * m, 4 * boxes) encoded offsets: the same for every class (boxes 1), or some for each (boxes = classes)
 * Rows beyond n_rois hold numbers that nobody may read. Parameters: NAME.shared_fcs.0, NAME.shared_fcs.1, NAME.fc_cls,
 * NAME.fc_reg; the first reads the 7 x 7 x 256 features in the order of the reference's files (channel, row, column).
 */
#ifndef PD_BOX_STAGE_H
#define PD_BOX_STAGE_H

#include "engine/tape.h"

#define PD_ROI_LEVELS 4 /* of the pyramid that boxes read */

void pd_record_box_stage(pd_tape *t, const char *name, pd_value *const p[PD_ROI_LEVELS], pd_value *rois,
                         pd_value *n_rois, int classes, int boxes, pd_value **cls, pd_value **reg);

#endif
