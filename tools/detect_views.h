/* detect_views.h: a detector over several views of each image: test-time augmentation. */
#ifndef PD_DETECT_VIEWS_H
#define PD_DETECT_VIEWS_H

#include "tools/detect_all.h"

#define PD_MAX_VIEWS 32

/* As pd_detect_all, each image by pd_detector_detect_views. loaders: one per view, with batches of one, of the same
 * images in the same order; an image that cannot be read must fail in all. */
pd_status pd_detect_views_all(pd_detector *d, pd_form form, pd_loader *const *loaders, int n, pd_found_fn fn, void *arg,
                              pd_progress *progress, pd_err *err);

#endif
