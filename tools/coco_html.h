/* coco_html.h: an evaluation as one HTML page that needs nothing else: no network, no other file.
 *
 * Numbers, precision over recall, precision, recall and F1 over scores, the errors of TIDE, a table of all categories
 * that can be sorted and searched, and the confusion matrix of the categories that are confused most. Charts are inline
 * SVG; the page follows the reader's light or dark setting and fits a telephone, and a thousand categories. */
#ifndef PD_COCO_HTML_H
#define PD_COCO_HTML_H

#include "tools/coco_output.h"

/* Writes the page; it appears whole or not at all. What a run does not hold (curves, TIDE, confusion) is left out. */
pd_status pd_coco_write_html(const char *path, const char *gt_path, const pd_coco_run *runs, size_t n,
                             const pd_coco_gt *gt, pd_err *err);

#endif
