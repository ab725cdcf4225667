/* refine.h: boxes moved by a stage's predicted offsets: the next stage's boxes. No gradient (Cai & Vasconcelos 2018,
 * "Cascade R-CNN", trains each stage on its own boxes).
 *
 *   rois    (n, m, 4), of which the first n_rois[i] count; n_rois (n) I32
 *   deltas  (n * m, 4) or any shape of that size   class-agnostic
 *   drop    (n, m) I32 or NULL   rows with 1 are taken out and the rest moves up (ground truths between training
 * stages) sizes   (n, 4) I32           decoded boxes are clipped to the image's h, w boxes   (n, m, 4)            rows
 * from count[i] on are 0 count   (n) I32 */
#ifndef PD_REFINE_H
#define PD_REFINE_H

#include "engine/tape.h"
#include "kernels/box_coder.h"

typedef struct pd_refined {
    pd_value *boxes, *count;
} pd_refined;

pd_refined pd_refine(pd_tape *tape, pd_value *rois, pd_value *n_rois, pd_value *deltas, pd_value *drop, pd_value *sizes,
                     const pd_box_coder *coder);

#endif
