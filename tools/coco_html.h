/* coco_html.h: an evaluation as one HTML page that needs nothing else: no network, no other file.
 *
 * Numbers, precision over recall, precision, recall and F1 over scores, the errors of TIDE, a table of all categories
 * that can be sorted and searched, the confusion matrix of the categories that are confused most, and what is mistaken
 * for what. Charts are inline
 * SVG; the page follows the reader's light or dark setting and fits a telephone, and a thousand categories. */
#ifndef PD_COCO_HTML_H
#define PD_COCO_HTML_H

#include "tools/coco_output.h"

/* Writes the page; it appears whole or not at all. What a run does not hold (curves, TIDE, confusion) is left out.
 * differences (n, metrics): of each run to the first one, or NULL. */
pd_status pd_coco_write_html(const char *path, const char *gt_path, const pd_coco_run *runs, size_t n,
                             const pd_coco_difference (*differences)[PD_COCO_METRICS], const pd_coco_gt *gt,
                             pd_err *err);

#endif
