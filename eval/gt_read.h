/* gt_read.h: the text of a ground truth as lists of records, before ids are looked up. Private to eval/. */
#ifndef PD_GT_READ_H
#define PD_GT_READ_H

#include "eval/coco_data.h"

/* images[i] */
typedef struct pd_gt_image {
    pd_coco_raw_id id;
    double width, height;
    pd_js_text file_name;
    size_t negative, not_exhaustive; /* offsets of their lists, 0 where there is none */
} pd_gt_image;

/* categories[i] */
typedef struct pd_gt_category {
    pd_coco_raw_id id;
    pd_js_text name;
    char frequency;
} pd_gt_category;

/* annotations[i] */
typedef struct pd_gt_object {
    pd_coco_object object;
    pd_coco_raw_id id, image, category;
    size_t mask_at; /* offset of the segmentation */
} pd_gt_object;

/* A stretch of annotations. */
typedef struct pd_gt_objects {
    pd_gt_object *items;
    size_t n, capacity, ignore_keys;
    pd_arena *memory; /* keypoints */
} pd_gt_objects;

/* A file being read. */
typedef struct pd_gt_reading {
    pd_coco_gt *gt;
    pd_pool *pool;
    pd_bytes text;
    bool mapped;
    bool has_images, has_categories;
    pd_gt_image *images;
    pd_gt_category *categories;
    size_t n_images, images_capacity, n_categories, categories_capacity;
    pd_gt_objects *objects; /* in parts */
    size_t n_parts;
} pd_gt_reading;

/* Reads the whole file into *r, whose first four fields are set. Release in any case. */
pd_status pd_gt_read(pd_gt_reading *r, const char *name, pd_err *err);
void pd_gt_release(pd_gt_reading *r);

#endif
