/* coco_output.h: an evaluation as text, table, Markdown and JSON. */
#ifndef PD_COCO_OUTPUT_H
#define PD_COCO_OUTPUT_H

#include "engine/json.h"
#include "eval/bootstrap.h"
#include "eval/coco_ap.h"
#include "eval/confusion.h"
#include "eval/curves.h"
#include "eval/tide.h"

#include <stdio.h>

/* Curves at one IoU threshold: index K stands for all categories. */
typedef struct pd_coco_curves {
    size_t n_categories, t;
    double iou;
    pd_coco_point *best;          /* (K + 1) the threshold of best F1 */
    pd_coco_point (*points)[101]; /* (K + 1) at scores 0, 0.01 .. 1 */
} pd_coco_curves;

/* One results file and what came out of it. */
typedef struct pd_coco_run {
    const char *file;
    pd_coco_result *result;
    pd_coco_dt_notes notes;
    /* What was asked for beyond AP. */
    bool has_tide, has_confusion, has_intervals;
    pd_tide tide;
    pd_coco_confusion confusion;
    pd_coco_interval intervals[PD_COCO_METRICS];
    pd_coco_curves *curves; /* or NULL */
} pd_coco_run;

/* pycocotools' summary lines. */
void pd_coco_print_summary(FILE *out, const pd_coco_result *result);
/* One row a file: AP AP50 AP75 APs APm APl (keypoints without APs), aligned or as Markdown. */
void pd_coco_print_table(FILE *out, const pd_coco_run *runs, size_t n, bool markdown);
/* One row a category. */
void pd_coco_print_categories(FILE *out, const pd_coco_result *result, bool markdown);

void pd_coco_print_tide(FILE *out, const pd_tide *tide, bool markdown);
/* The pairs of categories that are taken for each other most often. */
void pd_coco_print_confusion(FILE *out, const pd_coco_confusion *confusion, const pd_coco_gt *gt, bool markdown);
void pd_coco_print_intervals(FILE *out, const pd_coco_interval *intervals, const pd_coco_bootstrap *how);
void pd_coco_print_difference(FILE *out, const char *a, const char *b, const pd_coco_difference *difference);
/* A pair of categories, and how often an object of one was detected as the other. */
typedef struct pd_coco_mistake {
    size_t object, detected, count;
} pd_coco_mistake;
/* The pairs that are mistaken most often, at most `room`; the background is none. Returns how many. */
size_t pd_coco_most_mistaken(pd_coco_mistake *out, size_t room, const pd_coco_confusion *confusion);
/* A category's name, or its id where it has none; "background" for the index behind the last one. Returns name or id.
 */
const char *pd_coco_category_label(const pd_coco_gt *gt, size_t i, char id[PD_COCO_ID_ROOM]);
/* The best F1 over all categories. */
void pd_coco_print_best(FILE *out, const pd_coco_curves *curves);
/* "AP", "AP50", "AP75". */
const char *pd_coco_metric_name(pd_coco_metric metric);

/* Computes the curves of a result, in the arena. Needs PD_COCO_KEEP_MATCHES; iou must be among the thresholds. */
pd_status pd_coco_make_curves(pd_coco_curves **out, const pd_coco_result *result, double iou, pd_pool *pool,
                              pd_arena *arena, pd_err *err);

/* Adds an evaluation to the open object: file, iou_type, stats, names, AP_max, summary, counts, parameters,
 * per_category, notes. Every number reads back bit for bit. */
void pd_coco_put_run(pd_json_writer *w, const pd_coco_run *run, const pd_coco_gt *gt);
void pd_coco_put_difference(pd_json_writer *w, const char *a, const char *b, const pd_coco_difference *difference);
/* Puts an id: a number or text. */
void pd_coco_put_id(pd_json_writer *w, const char *key, pd_coco_id id);

#endif
