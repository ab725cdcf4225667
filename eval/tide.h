/* tide.h: where the AP is lost: the six error types of TIDE and what mending each would gain.
 *
 * Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors"; numbers equal tidecv 1.0.1. At
 * one IoU threshold `foreground` (0.5), a detection without object is the first of these that fits:
 *
 *   Loc    overlaps an object of its category by background .. foreground
 *   Cls    overlaps an object of another category by >= foreground
 *   Dupe   overlaps a taken object of its category by >= foreground
 *   Bkg    overlaps nothing by more than `background` (0.1)
 *   Both   anything else: wrong place and wrong category
 *
 * and Miss is an object that no detection found and no Cls or Loc would find once mended.
 *
 * gain: AP with all errors of the type mended (Cls and Loc become hits, the best per object; Both, Dupe and Bkg vanish;
 * missed objects are not asked for) minus AP as it is, not below 0. TIDE's AP differs from COCO's in details: no area
 * ranges, 100 detections an image of all categories together, and a category with detections but no objects counts as
 * 0. Images are met in the order of their ids (tidecv: in file order); it matters only where scores are equal. */
#ifndef PD_TIDE_H
#define PD_TIDE_H

#include "eval/coco_ap.h"

typedef enum pd_tide_error {
    PD_TIDE_CLS,
    PD_TIDE_LOC,
    PD_TIDE_BOTH,
    PD_TIDE_DUPE,
    PD_TIDE_BKG,
    PD_TIDE_MISS,
    PD_TIDE_ERRORS,
} pd_tide_error;

/* "Cls", "Loc", "Both", "Dupe", "Bkg", "Miss". */
const char *pd_tide_name(pd_tide_error error);

typedef struct pd_tide {
    double foreground, background;
    double ap;                   /* TIDE's AP at foreground, 0..1 */
    double gain[PD_TIDE_ERRORS]; /* dAP of each type */
    double false_positives;      /* dAP if every false positive had score 0 */
    double false_negatives;      /* dAP if every missed object were not asked for */
    size_t count[PD_TIDE_ERRORS];
} pd_tide;

/* Boxes or masks. params (or NULL) gives type, images and categories. */
pd_status pd_tide_run(pd_tide *out, const pd_coco_gt *gt, const pd_coco_dt *dt, const pd_coco_params *params,
                      double foreground, double background, pd_pool *pool, pd_err *err);

#endif
