/* prepare.h: what takes part in an evaluation, in order: detections and objects by class and image. Private to eval/.
 *
 * "Class" is a category, or the one class of all when categories are not used. */
#ifndef PD_PREPARE_H
#define PD_PREPARE_H

#include "eval/coco_ap.h"
#include "eval/match.h"

typedef enum pd_layout {
    PD_LAYOUT_CLASSES, /* class by class, or all as one class where params say so, as pycocotools orders them */
    PD_LAYOUT_IMAGES,  /* one class of all, image by image, in file order */
} pd_layout;

typedef struct pd_coco_prepared {
    pd_layout layout;
    const pd_coco_gt *gt;
    const pd_coco_dt *dt;
    pd_pool *pool;
    pd_arena *memory;      /* borrowed: of the lists in params, and more */
    pd_coco_params params; /* with every default filled in, limits sorted */
    double *variances;
    unsigned char *image_in; /* (images) evaluated; NULL: all */
    size_t n_images;         /* evaluated */
    uint32_t *class_of;      /* (categories) its class, or PD_COCO_NONE */
    size_t n_classes;

    const pd_coco_item **items; /* by class, image, file order */
    size_t *item_start;         /* (n_classes + 1) */

    const pd_coco_place *places; /* by class, image, in the order pycocotools meets them */
    pd_coco_place *own_places;   /* where they are not the ground truth's own */
    size_t *place_start;         /* (n_classes + 1) */
    pd_match_object *objects;    /* of the places */
    pd_mask *boundaries;         /* of the places' masks; NULL unless asked for */
    uint8_t *ignore;             /* (places, A) */
    size_t *to_find;             /* (n_classes, A) objects not ignored */
} pd_coco_prepared;

/* Fills *out, which must be released in any case. params may be NULL. */
pd_status pd_coco_prepare(pd_coco_prepared *out, const pd_coco_gt *gt, const pd_coco_dt *dt,
                          const pd_coco_params *params, pd_layout layout, pd_pool *pool, pd_arena *memory, pd_err *err);
void pd_coco_prepared_release(pd_coco_prepared *p);

/* First place of the class whose object is of this image or a later one. */
size_t pd_coco_first_place(const pd_coco_prepared *p, size_t class_index, uint32_t image);

#endif
