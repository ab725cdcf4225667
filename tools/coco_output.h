/* coco_output.h: an evaluation as text, table, Markdown and JSON. */
#ifndef PD_COCO_OUTPUT_H
#define PD_COCO_OUTPUT_H

#include "engine/json.h"
#include "eval/coco_ap.h"

#include <stdio.h>

/* One results file and what came out of it. */
typedef struct pd_coco_run {
    const char *file;
    pd_coco_result *result;
    pd_coco_dt_notes notes;
} pd_coco_run;

/* pycocotools' summary lines. */
void pd_coco_print_summary(FILE *out, const pd_coco_result *result);
/* One row a file: AP AP50 AP75 APs APm APl (keypoints without APs), aligned or as Markdown. */
void pd_coco_print_table(FILE *out, const pd_coco_run *runs, size_t n, bool markdown);
/* One row a category. */
void pd_coco_print_categories(FILE *out, const pd_coco_result *result, bool markdown);

/* Adds an evaluation to the open object: file, iou_type, stats, names, AP_max, summary, counts, parameters,
 * per_category, notes. Every number reads back bit for bit. */
void pd_coco_put_run(pd_json_writer *w, const pd_coco_run *run, const pd_coco_gt_notes *gt_notes);
/* Puts an id: a number or text. */
void pd_coco_put_id(pd_json_writer *w, const char *key, pd_coco_id id);

#endif
