/* results.h: detections: from a COCO results file, or image by image from memory; and the writer of such files.
 *
 * A results file is a JSON array of objects
 *     {"image_id": 139, "category_id": 1, "bbox": [x, y, w, h], "score": 0.98}
 * with `segmentation` ({"size": [h, w], "counts": text}) or `keypoints` (x, y, v triples) instead of or besides bbox.
 * The first record decides what the file holds, as in pycocotools: a box that is not empty, else a mask, else
 * keypoints; by that goes the area of a detection (w * h, pixels of the mask, extent of the points).
 *
 * Order: equal scores are ranked by image id, then by their order within the image. So what is added from memory gives
 * the same numbers whatever the order of the images and whichever thread adds them. */
#ifndef PD_RESULTS_H
#define PD_RESULTS_H

#include "engine/box.h"
#include "eval/coco_gt.h"

/* ---- detections to evaluate ---- */

typedef struct pd_coco_dt pd_coco_dt;

/* One detection. bbox is COCO's x, y, w, h in pixels of the original image. */
typedef struct pd_coco_det {
    int64_t category_id; /* as in the file, not a class index */
    double bbox[4];
    double score;
    const double *keypoints; /* n_points triples x, y, v, or NULL */
    size_t n_points;
    const char *counts; /* a mask as COCO's run-length text, terminated, of mask_h x mask_w pixels, or NULL */
    uint32_t mask_h, mask_w;
} pd_coco_det;

/* A detector's box as COCO has it: w = x2 - x1 computed in double. What trains, writes and evaluates uses this one
 * function, so that a results file gives the very numbers that were computed in memory. */
static inline pd_coco_det pd_coco_det_box(pd_box box, float score, int64_t category_id)
{
    const double x = (double)box.x1, y = (double)box.y1;
    return (pd_coco_det){
        .category_id = category_id, .bbox = {x, y, (double)box.x2 - x, (double)box.y2 - y}, .score = (double)score};
}

/* All zero: pycocotools' rules. */
typedef struct pd_coco_dt_options {
    unsigned read; /* PD_COCO_READ_MASKS, PD_COCO_READ_KEYPOINTS: what an evaluation will need besides boxes */
    bool skip_unknown_images; /* leave out, and count, records of images that the ground truth does not list */
} pd_coco_dt_options;

/* Reads a results file (plain JSON, or gzip). gt must outlive *out. options NULL: all zero; pool NULL: one thread; the
 * outcome does not depend on the threads. An empty array is a result without detections.
 * Errors: PD_EFORMAT with line and byte, with the record's number, or with the number of records of unknown images and
 * the first ids. */
pd_status pd_coco_dt_open(pd_coco_dt **out, const pd_coco_gt *gt, const char *path, const pd_coco_dt_options *options,
                          pd_pool *pool, pd_err *err);
/* The same from text in memory, which is not needed after the call. */
pd_status pd_coco_dt_parse(pd_coco_dt **out, const pd_coco_gt *gt, pd_bytes json, const char *name,
                           const pd_coco_dt_options *options, pd_pool *pool, pd_err *err);

/* An empty result to be filled by pd_coco_dt_add. gt must outlive it. */
pd_status pd_coco_dt_new(pd_coco_dt **out, const pd_coco_gt *gt, pd_err *err);
/* Adds all detections of one image (copied); n may be 0. May be called by several threads at a time. A category that
 * the ground truth does not list is left out and counted. Errors: PD_EINVAL for an unknown image, or one added before.
 */
pd_status pd_coco_dt_add(pd_coco_dt *dt, pd_coco_id image, const pd_coco_det *dets, size_t n, pd_err *err);
/* Writes what was added as a results file, images sorted by id. */
pd_status pd_coco_dt_save(const pd_coco_dt *dt, const char *path, pd_err *err);
void pd_coco_dt_close(pd_coco_dt *dt); /* NULL allowed */

/* What was read, for notes and warnings. */
typedef struct pd_coco_dt_notes {
    size_t records;            /* in the file, or added */
    size_t unknown_categories; /* left out: their category is not in the ground truth */
    size_t unknown_images;     /* left out by skip_unknown_images */
    bool box_areas;            /* masks or keypoints that carry a box: the box gives the area, as in pycocotools */
} pd_coco_dt_notes;
const pd_coco_dt_notes *pd_coco_dt_get_notes(const pd_coco_dt *dt);

/* ---- writing results ---- */

/* A results file being written; it appears under its name only when committed. One thread at a time. */
typedef struct pd_results pd_results;
pd_status pd_results_open(pd_results **out, const char *path, pd_err *err);
/* Appends the detections of one image. bbox is written unless all four are 0 and the detection has a mask or keypoints.
 * Every number reads back bit for bit. The first failure is kept and reported by pd_results_commit. */
void pd_results_add(pd_results *results, pd_coco_id image, const pd_coco_det *dets, size_t n);
/* Completes the file; frees in any case. Errors: PD_EIO; PD_EINVAL where a number was NaN or infinite. */
pd_status pd_results_commit(pd_results *results, pd_err *err);
void pd_results_cancel(pd_results *results); /* removes it; NULL allowed */

#endif
