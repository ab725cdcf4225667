/* postprocess.h: from head outputs to detections in pixels of the original image.
 *
 * RetinaNet, per image (mmdetection's order of steps):
 *   1. per level with more than pre_nms anchors: the pre_nms anchors with the largest score over all classes, sorted by
 *      it; smaller levels entire, in grid order. score = 1 / (1 + e^-logit)
 *   2. boxes decoded from the anchors, clipped to the image, divided by the image's scale factors
 *   3. every (anchor, class) with score > score_thresh is a candidate
 *   4. class-wise non-maximum suppression (nms.h, or soft_nms.h), then the best max_per_image over all classes, by
 * score descending topk_mode PD_TOPK_PAIRS is the order of later mmdetection releases: step 3 first, then the pre_nms
 * best pairs of each level. Equal scores: the lower index (level, cell, anchor, class) first.
 *
 * Box heads (Cascade R-CNN, Faster R-CNN), per image: the logits of all stages are averaged, one softmax over classes
 * and background is taken, then steps 3 and 4, with one box of a row for all classes or one for each.
 *
 * Plain functions over host memory; no sigmoid is taken where the logit already decides. Images and anchors are shared
 * out to the pool's threads, the result does not depend on them. */
#ifndef PD_POSTPROCESS_H
#define PD_POSTPROCESS_H

#include "engine/batch.h"
#include "engine/thread.h"
#include "kernels/anchors.h"
#include "kernels/box_coder.h"

typedef struct pd_detection {
    pd_box box; /* original pixels */
    float score;
    int label; /* 0-based class */
} pd_detection;

typedef enum pd_topk_mode { PD_TOPK_ANCHORS, PD_TOPK_PAIRS } pd_topk_mode;

typedef enum pd_nms_type { PD_NMS_PLAIN, PD_NMS_SOFT_LINEAR, PD_NMS_SOFT_GAUSSIAN } pd_nms_type;

typedef struct pd_postprocess_cfg {
    int pre_nms;        /* per level; 1000 */
    float score_thresh; /* 0.05; >= 0 */
    pd_nms_type nms_type;
    float nms_iou;                    /* 0.5 */
    bool nms_exact;                   /* plain: false: emulate mmdetection's float32 class offsets (nms.h) */
    float soft_sigma, soft_min_score; /* soft_nms.h: 0.5, 0.05 */
    int max_per_image;                /* 100 */
    pd_topk_mode topk_mode;
    pd_box_coder coder;
} pd_postprocess_cfg;

pd_postprocess_cfg pd_postprocess_cfg_default(void);

/* Head outputs of n images, NHWC: logits[l] (n, h, w, a*k), deltas[l] (n, h, w, a*4), l as in grid. */
typedef struct pd_head_outputs {
    int n, k;
    const pd_anchor_grid *grid;
    const float *logits[PD_MAX_LEVELS], *deltas[PD_MAX_LEVELS];
} pd_head_outputs;

/* A box in pixels of a resized image, mirrored or not, in pixels of the original; and the way there (not clipped). */
pd_box pd_box_to_original(pd_box box, const pd_image_info *info);
pd_box pd_box_to_resized(pd_box box, const pd_image_info *info);

/* out: (n, max_per_image), of which the first count[i] rows of image i are set. info: (n); h, w, scale_x, scale_y are
 * read. PD_EINVAL for impossible settings (nothing is written), PD_ENOMEM (out and count are undefined). */
pd_status pd_postprocess(pd_detection *out, int *count, const pd_head_outputs *heads, const pd_image_info *info,
                         const pd_postprocess_cfg *cfg, pd_pool *pool, pd_err *err);

/* Steps 1 to 3 for one image (heads->n is 1): its candidates are added to a list (candidates.h). */
typedef struct pd_candidates pd_candidates;
pd_status pd_postprocess_collect(pd_candidates *c, const pd_head_outputs *heads, const pd_image_info *info,
                                 const pd_postprocess_cfg *cfg, pd_pool *pool, pd_err *err);

#define PD_MAX_STAGES 8

/* Outputs of a box head for m rows per image, of which the first count[i] are used. */
typedef struct pd_roi_outputs {
    int n, m, k, stages;
    const int *count;                   /* (n) */
    const float *logits[PD_MAX_STAGES]; /* (n, m, k + 1) of each stage, background last */
    const pd_box *boxes;                /* (n, m) final boxes, decoded and clipped, in pixels of the resized image */
    const float *deltas;                /* (n, m, k, 4) not NULL: every class's offsets, `boxes` are what they move */
    pd_box_coder coder;                 /* of deltas */
} pd_roi_outputs;

/* Class scores of a row (of all images' rows): the softmax of the mean logits. score: (k + 1), background last. */
void pd_roi_scores(float *score, const pd_roi_outputs *heads, size_t row);

/* The final box of a row for a class, in pixels of the resized image; info: the row's image. */
pd_box pd_roi_box(const pd_roi_outputs *heads, size_t row, int label, const pd_image_info *info);

/* As pd_postprocess; pre_nms, topk_mode and coder are not read. */
pd_status pd_postprocess_rois(pd_detection *out, int *count, const pd_roi_outputs *heads, const pd_image_info *info,
                              const pd_postprocess_cfg *cfg, pd_pool *pool, pd_err *err);

#endif
