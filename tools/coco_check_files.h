/* coco_check_files.h: pd_coco_eval --check: annotations, results and pictures looked over, as one report. */
#ifndef PD_COCO_CHECK_FILES_H
#define PD_COCO_CHECK_FILES_H

#include "eval/coco_check.h"

#include <stdio.h>

/* Prints the report on `out`. dt_path and image_dir may be NULL. A file that cannot be read at all is a finding too.
 * *errors: records with errors. */
pd_status pd_coco_check_files(FILE *out, const char *gt_path, const char *dt_path, const char *image_dir, pd_pool *pool,
                              size_t *errors, pd_err *err);

#endif
