/* coco_ap.h: COCO's average precision and recall: the twelve (keypoints: ten) numbers, per category, and the arrays.
 *
 * The reference is pycocotools 2.0.11 with numpy 1.24: equal bit for bit, also in the order of equal scores, in the
 * rounding of the means (numpy 2 rounds those of over 8192 numbers differently in the last bit) and in what is odd
 * about it. Matching: eval/match.h.
 *
 * For a category, area range and detection limit: all detections (the best `limit` of each image) sorted by score; with
 * n objects to be found and tp, fp counted along the list,
 *     recall = tp / n,  precision = tp / (tp + fp + 2^-52), made non-increasing from the right,
 * and read off at 101 recalls. AP is the mean over IoU thresholds, recalls and categories; AR the mean of the last
 * recall. -1 stands for "nothing to find", and is in no mean.
 *
 * Thread rule: pd_coco_evaluate may be called by several threads at once with different pools; results do not depend on
 * the number of threads. A pd_coco_result is constant. */
#ifndef PD_COCO_AP_H
#define PD_COCO_AP_H

#include "eval/coco_gt.h"
#include "eval/results.h"

typedef struct pd_coco_range {
    double low, high; /* both ends belong to it */
} pd_coco_range;

/* All zero (and NULL instead of a pointer to it): pycocotools' defaults. A list that is NULL is its default. The lists
 * are copied. */
typedef struct pd_coco_params {
    pd_coco_type type;
    const double *iou_thrs; /* default 0.50, 0.55 .. 0.95 */
    size_t n_iou;
    const double *recall_thrs; /* default 0, 0.01 .. 1 */
    size_t n_recall;
    const size_t *limits; /* detections an image and category; sorted here. Default 1, 10, 100; keypoints 20 */
    size_t n_limits;
    const pd_coco_range *areas; /* the first is "all". Default all, small, medium, large; keypoints without small */
    size_t n_areas;
    const double *sigmas; /* of keypoints, as many as points; default COCO's 17 of a person */
    size_t n_sigmas;
    /* LVIS (Gupta et al. 2019): categories are marked in some images only. Detections of an image count for categories
     * that it has or lists in neg_category_ids; unmatched ones of not_exhaustive_category_ids are ignored; the best 300
     * of an image (the largest limit) take part; what has no area does not. Thirteen numbers, as lvis-api 0.5.3 has
     * them. */
    bool lvis;
    /* Masks: above 0, the overlap with an object that is no crowd is the smaller of mask IoU and boundary IoU (Cheng et
     * al. 2021); usually 0.02 of the image's diagonal. Boundary AP. */
    double boundary;
    bool no_categories;       /* all categories as one (pycocotools useCats = 0) */
    const pd_coco_id *images; /* evaluate on these only; an unknown id is an error. NULL: all */
    size_t n_images;
    const pd_coco_id *categories; /* these only; NULL: all */
    size_t n_categories;
    unsigned keep; /* PD_COCO_KEEP_... */
} pd_coco_params;

enum {
    PD_COCO_KEEP_ARRAYS = 1,  /* the scores too, for pd_coco_score and the dump: 8 bytes more per T R K A M */
    PD_COCO_KEEP_MATCHES = 2, /* the matched lists, for curves, confusion, error analysis, resampling */
};

/* The numbers of one category. Area "all", largest limit; AP50 and AP75 are -1 where the threshold is not evaluated. */
typedef struct pd_coco_category_ap {
    pd_coco_id id; /* -1 where categories are not used */
    const char *name;
    double ap, ap50, ap75, ap_small, ap_medium, ap_large, ar;
    size_t objects;    /* to be found: not crowd, not ignored */
    size_t detections; /* within the limit */
} pd_coco_category_ap;

#define PD_COCO_STATS 13

typedef struct pd_coco_result {
    pd_coco_type type;
    int n_stats;                      /* 12, keypoints 10, LVIS 13 */
    double stats[PD_COCO_STATS];      /* AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl; see names */
    const char *names[PD_COCO_STATS]; /* "AP", "AP50", ... */
    char lines[PD_COCO_STATS][128];   /* pycocotools' summary, without newline; "" for a limit that is not there */
    /* pycocotools looks AP up at limit 100 (keypoints 20), so stats[0] is -1 where that is not among the limits. This
     * is AP at the largest limit, whatever it is. */
    double ap_max;
    size_t n_iou, n_recall, n_categories, n_areas, n_limits; /* T R K A M */
    const double *iou_thrs, *recall_thrs;
    const size_t *limits;               /* ascending */
    const pd_coco_range *areas;         /* (A) */
    pd_coco_category_ap *categories;    /* (K), sorted by id */
    size_t images, objects, detections; /* evaluated: images, objects not ignored, detections within the limit */
    struct pd_coco_arrays *arrays;      /* private */
    struct pd_coco_matches *matches;    /* private; NULL without PD_COCO_KEEP_MATCHES */
    pd_arena *memory;                   /* private */
} pd_coco_result;

/* Evaluates. Release with pd_coco_result_free. Needs what the type needs: gt and dt opened with PD_COCO_READ_MASKS for
 * segm, PD_COCO_READ_KEYPOINTS for keypoints. params NULL: boxes, all defaults; pool NULL: one thread. Errors:
 * PD_EINVAL for impossible parameters; PD_EFORMAT for a record that lacks what is needed (names it). */
pd_status pd_coco_evaluate(pd_coco_result **out, const pd_coco_gt *gt, const pd_coco_dt *dt,
                           const pd_coco_params *params, pd_pool *pool, pd_err *err);
void pd_coco_result_free(pd_coco_result *result); /* NULL allowed */

/* The arrays: IoU threshold t, recall r, category k, area a, limit m. -1: nothing to find, or (scores) not kept. */
double pd_coco_precision(const pd_coco_result *result, size_t t, size_t r, size_t k, size_t a, size_t m);
double pd_coco_score(const pd_coco_result *result, size_t t, size_t r, size_t k, size_t a, size_t m);
double pd_coco_recall(const pd_coco_result *result, size_t t, size_t k, size_t a, size_t m);

/* precision (T, R, K, A, M), recall (T, K, A, M), scores (T, R, K, A, M): little-endian doubles, one after the other.
 * Errors: PD_EINVAL without PD_COCO_KEEP_ARRAYS; PD_EIO. */
pd_status pd_coco_dump_arrays(const pd_coco_result *result, const char *path, pd_err *err);

#endif
