/* match.h: detections to objects, one cell (image and category) at a time. Private to eval/.
 *
 * For each area range and IoU threshold t on its own, detections by falling score (stable, NaN last) take the object of
 * highest overlap that is >= min(t, 1 - 1e-10) and still free; of equal overlaps the last one. Objects to be found come
 * before ignored ones (crowds, outside the area range, without labelled keypoints): only a detection that fits none of
 * the former looks at the latter, and is then ignored itself. A crowd takes any number of detections. A detection
 * without object whose own area is out of range is ignored. A NaN overlap passes every test, as it does in pycocotools.
 *
 * All thresholds are matched at once, as bits of a word. Thread rule: one pd_match_scratch a thread. */
#ifndef PD_MATCH_H
#define PD_MATCH_H

#include "eval/boundary.h"
#include "eval/coco_ap.h"
#include "eval/coco_data.h"

#define PD_MATCH_THRESHOLDS 32 /* more are matched in several rounds */

/* What matching needs of an object, side by side for the objects of a class. */
typedef struct pd_match_object {
    double bbox[4];
    uint32_t object; /* index in the ground truth */
    uint32_t image;
    bool crowd_overlap, id_zero;
    const pd_mask *boundary; /* NULL: mask IoU alone */
} pd_match_object;

/* A detection's fate: bit t is threshold t. */
typedef struct pd_match {
    uint32_t matched, ignored;
} pd_match;

/* The overlap that counts at a threshold. */
static inline double pd_match_floor(double threshold)
{
    const double most = 1 - 1e-10;
    return threshold < most ? threshold : most;
}

typedef struct pd_match_setup {
    const pd_coco_gt *gt;
    const pd_coco_dt *dt;
    pd_coco_type type;
    const double *thresholds; /* at most PD_MATCH_THRESHOLDS */
    size_t n_thresholds;
    double least;    /* the lowest pd_match_floor of them */
    double boundary; /* dilation ratio, 0: mask IoU alone */
    const pd_coco_range *areas;
    size_t n_areas;
    size_t limit;            /* detections kept of a cell */
    const double *variances; /* keypoints: (2 sigma)^2 */
    size_t n_points;
    bool lvis;        /* unmatched detections of a category that the image does not mark exhaustively are ignored */
    bool no_overlaps; /* keypoints without categories: pycocotools finds none */
} pd_match_setup;

typedef struct pd_match_scratch {
    uint32_t *order; /* of detections, by score */
    uint64_t *keys;
    size_t order_capacity, keys_capacity;
    double *overlaps; /* of one detection with all objects */
    uint32_t *used;   /* (objects, areas) bit t: taken at threshold t */
    struct pd_match_candidate *candidates;
    size_t overlaps_capacity, used_capacity, candidates_capacity;
    pd_mask runs; /* a detection's mask, unpacked */
    size_t runs_capacity;
    pd_mask_work work;
    pd_mask boundary; /* of that mask */
    size_t boundary_capacity;
    pd_boundary_work boundary_work;
    size_t cell; /* set by the caller: the cell's place in order, so that threads agree on which failure is the first */
    pd_err err;  /* the failure of the lowest cell on this thread */
    size_t fault_cell;
} pd_match_scratch;

void pd_match_scratch_free(pd_match_scratch *scratch);

/* Records a failure of the current cell, unless an earlier cell has failed. Returns false. */
bool pd_match_fail(pd_match_scratch *scratch, const pd_err *err);

/* Order of scores as integers: ascending keys are falling scores, NaN last, -0 equal to 0. */
uint64_t pd_score_key(double score);

/* Matches a cell. items (n) in file order; objects (m); ignore: of object g in area a at [g * n_areas + a]. order[i]
 * gets the index of the detection of rank i; matches (n, n_areas) the fate of rank i. Returns how many ranks there are:
 * n, or the limit. On failure (memory; a record that lacks what the type needs) scratch->err is set. */
size_t pd_match_cell(pd_match_scratch *scratch, const pd_match_setup *setup, const pd_coco_item *const *items, size_t n,
                     const pd_match_object *objects, const uint8_t *ignore, size_t m, uint32_t *order,
                     pd_match *matches);

/* An object is ignored in every area range. */
static inline bool pd_match_always_ignored(const pd_coco_object *object, const pd_coco_params *params)
{
    if (params->lvis) return object->ignore_key;
    return object->crowd || (params->type == PD_COCO_KEYPOINTS && object->unlabelled);
}

/* An object is ignored in an area range. */
static inline bool pd_match_ignored(const pd_coco_object *object, const pd_coco_params *params, pd_coco_range area)
{
    return pd_match_always_ignored(object, params) || object->area < area.low || object->area > area.high;
}

#endif
