/* detect_all.h: a detector over everything a loader delivers: what pd_det_train validates with and pd_detect runs. */
#ifndef PD_DETECT_ALL_H
#define PD_DETECT_ALL_H

#include "datasets/loader.h"
#include "detectors/detector.h"
#include "engine/comm.h"
#include "eval/coco_ap.h"
#include "tools/progress.h"

/* Called once per image, in the loader's order. info->id is the COCO id, or the index of the path. */
typedef pd_status (*pd_found_fn)(void *arg, const pd_image_info *info, const pd_detection *found, int count, pd_err *err);

/* One pass over the loader. progress NULL: silent. Stops with PD_ESTOP when Ctrl-C was pressed. */
pd_status pd_detect_all(pd_detector *d, pd_form form, pd_loader *loader, pd_found_fn fn, void *arg, pd_progress *progress,
                        pd_err *err);

/* The same where the loader has this process's share of the images (exact): fn is called on rank 0, once per image of all
 * processes, in the order in which one process would have met them. */
pd_status pd_detect_shared(pd_detector *d, pd_form form, pd_loader *loader, pd_comm *comm, pd_found_fn fn, void *arg,
                           pd_err *err);

/* A pd_found_fn that collects detections for the evaluator. ids: COCO category id by label. */
typedef struct pd_collect {
    pd_coco_dt *dt;
    const int64_t *ids;
} pd_collect;
pd_status pd_collect_found(void *arg, const pd_image_info *info, const pd_detection *found, int count, pd_err *err);

#endif
