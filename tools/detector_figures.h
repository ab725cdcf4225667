/* detector_figures.h: parameters and multiply-accumulates of a detector, part by part, counted as mmdetection's tool
 * does.
 *
 * A multiply-accumulate counts once; a convolution adds its bias once per output element, a batch norm two and a ReLU
 * one per element, a max pooling one per input element, a linear layer has no bias. Not counted: the pyramid's
 * upsampling, the proposal head's ReLU, residual sums, sigmoids, RoIAlign, suppression. Box stages run on every
 * proposal that detection may keep. Branches count as the one convolution that they become (PD_FORM_COUNT), or as they
 * are (PD_FORM_EVAL). */
#ifndef PD_DETECTOR_FIGURES_H
#define PD_DETECTOR_FIGURES_H

#include "detectors/detector.h"

typedef struct pd_figures {
    double params, trainable, macs;
} pd_figures;

enum { PD_BACKBONE, PD_NECK, PD_HEAD, PD_RPN, PD_ROI, PD_PARTS };
extern const char *const pd_part_names[PD_PARTS]; /* "backbone", "neck", "head", "rpn", "roi" */

typedef struct pd_detector_figures {
    pd_figures total, part[PD_PARTS]; /* parts that a detector does not have are 0 */
} pd_detector_figures;

/* Of one image of h x w. */
pd_status pd_count_detector(pd_detector_figures *out, pd_form form, const pd_detector_settings *settings, int h, int w,
                            pd_err *err);

#endif
