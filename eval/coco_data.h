/* coco_data.h: what a ground truth and a set of detections look like inside. Private to eval/. */
#ifndef PD_COCO_DATA_H
#define PD_COCO_DATA_H

#include "eval/coco_id.h"
#include "eval/mask.h"
#include "eval/results.h"

#include <pthread.h>

/* A field of a record: not there, there and usable, there but of the wrong form. An evaluation that needs it complains.
 */
typedef enum pd_coco_field { PD_COCO_ABSENT, PD_COCO_GOOD, PD_COCO_BAD } pd_coco_field;

/* One annotation. */
typedef struct pd_coco_object {
    double bbox[4], area;
    uint32_t image, category; /* indexes, or PD_COCO_NONE: not listed */
    uint8_t has_bbox, has_area, has_iscrowd, has_num_keypoints, has_keypoints, has_mask; /* pd_coco_field */
    bool crowd;                                                                          /* iscrowd is not 0: ignored */
    bool crowd_overlap; /* iscrowd's whole part is not 0: overlaps go by the detection's area, and it matches many times
                         */
    bool id_zero;       /* a match to it counts as none */
    bool unlabelled;    /* num_keypoints is 0 */
    bool ignore_key;    /* "ignore" is not 0: means something to LVIS only */
    uint32_t n_points;
    const double *keypoints; /* (n_points, 3) */
    pd_mask mask;
    const char *mask_fault; /* where has_mask is BAD: why */
} pd_coco_object;

/* Where an object is looked for. Two annotations with one id share the later one as object; else object is the place.
 */
typedef struct pd_coco_place {
    uint32_t object;          /* index of the object that is found here; it is filed under its own image and category */
    uint32_t image, category; /* under which it is listed; category PD_COCO_NONE: found only without categories */
} pd_coco_place;

/* Ids of categories that an image lists (LVIS), as category indexes: items[start[i] .. start[i + 1]) for image i. */
typedef struct pd_coco_id_lists {
    uint32_t *items;
    size_t *start;
} pd_coco_id_lists;

struct pd_coco_gt {
    pd_arena *memory;
    char *name; /* of the file */
    pd_coco_gt_options options;
    pd_coco_gt_notes notes;
    pd_coco_image *images;
    pd_coco_category *categories;
    size_t n_images, n_categories, n_objects, n_places;
    pd_coco_id_table image_table, category_table;
    pd_coco_object *objects; /* (n_objects) file order */
    pd_coco_raw_id *ids;     /* (n_objects) annotation ids, for messages */
    bool unlisted_places;    /* some place has no category */
    pd_coco_place *places;   /* by the object's category, its image, then in the order pycocotools meets them */
    size_t *category_start;  /* (n_categories + 1) into places */
    pd_arena **parts;        /* (n_parts) keypoints and masks of the objects */
    size_t n_parts;
    pd_coco_id_lists negative, not_exhaustive; /* PD_COCO_READ_LVIS: categories known absent; not all marked */
    char *frequency;                           /* PD_COCO_READ_LVIS: (n_categories) 'r', 'c', 'f', or 0 */
};

/* The part of a detection that a plain box does not have. */
typedef struct pd_coco_shape {
    double area; /* unless the file holds boxes */
    const char *mask_fault;
    uint8_t has_keypoints, has_mask;
    uint32_t n_points;
    const double *keypoints;
    pd_rle_text mask;    /* run lengths as text */
    const pd_mask *runs; /* a mask that came otherwise (polygons, plain counts); else NULL */
} pd_coco_shape;

typedef struct pd_coco_item {
    double bbox[4], score;
    uint32_t image, category;
    const pd_coco_shape *shape; /* NULL: a box and no more */
} pd_coco_item;

/* A listed record that cannot be evaluated. */
typedef struct pd_coco_bad_item {
    uint32_t image, category;
    size_t record; /* 0-based, in its block */
    size_t offset; /* byte in the file */
    const char *reason;
} pd_coco_bad_item;

/* Detections in file order (or of one image, from memory). */
typedef struct pd_coco_block {
    pd_coco_item *items;
    size_t n, capacity;
    pd_coco_bad_item *bad;
    size_t n_bad, bad_capacity;
    size_t records; /* read, with those left out */
    size_t unknown_categories, unknown_images;
    pd_coco_raw_id first_unknown[3]; /* image ids */
    size_t first_unknown_at[3];      /* byte offsets */
    size_t first_unknown_record;
    pd_coco_raw_id before; /* image id of the last record, and its index */
    uint32_t before_image;
    bool box_areas;
    bool descending_image; /* image indexes go down somewhere */
    uint32_t last_image;
    size_t *histogram; /* (n_categories) items of each */
    pd_arena *memory;  /* shapes; NULL until one is needed */
    pd_mask_work work;
} pd_coco_block;

typedef enum pd_coco_dt_kind { PD_COCO_DT_BOXES, PD_COCO_DT_MASKS, PD_COCO_DT_KEYPOINTS } pd_coco_dt_kind;

struct pd_coco_dt {
    const pd_coco_gt *gt;
    char *name; /* of the file, "" from memory */
    pd_coco_dt_kind kind;
    unsigned read; /* PD_COCO_READ_... that the file was opened with; from memory all */
    pd_coco_dt_notes notes;
    pd_coco_block *blocks; /* file order; from memory: any order of images */
    size_t n_blocks, capacity;
    pthread_mutex_t lock; /* pd_coco_dt_add */
    unsigned char *added; /* (n_images) from memory: this image has its block; NULL from a file */
    pd_arena *memory;
};

/* Area of a detection, for the area ranges. */
static inline double pd_coco_item_area(const pd_coco_dt *dt, const pd_coco_item *item)
{
    return dt->kind == PD_COCO_DT_BOXES || !item->shape ? item->bbox[2] * item->bbox[3] : item->shape->area;
}

/* "GT.json: annotations[17] (id 4)" in front of err's sentence. */
pd_status pd_coco_object_fail(const pd_coco_gt *gt, size_t object, pd_err *err, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Whether the image lists the category. */
bool pd_coco_listed_by_image(const pd_coco_id_lists *lists, uint32_t image, uint32_t category);

/* Reads a list of exactly four numbers into out. BAD for anything else that is valid JSON. */
pd_coco_field pd_coco_read_box(pd_js *j, double out[4]);
/* Reads a list of x, y, v triples into the arena. BAD for anything else; failures of memory are in j. */
pd_coco_field pd_coco_read_points(pd_js *j, const double **out, uint32_t *n, pd_arena *arena);
/* Reads a number, true or false; BAD for anything else. */
pd_coco_field pd_coco_read_number(pd_js *j, double *out);

/* Stable counting sort: out[...] = in[...] (indexes into keys), by keys[index] in 0..n_keys-1. in NULL: 0..n-1. */
void pd_coco_sort_by(uint32_t *out, const uint32_t *in, size_t n, const uint32_t *keys, size_t *count, size_t n_keys);

#endif
