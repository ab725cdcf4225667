/* image_pass.h: image by image, all categories together: detections by score, objects, and all overlaps. Private to
 * eval/. */
#ifndef PD_IMAGE_PASS_H
#define PD_IMAGE_PASS_H

#include "eval/prepare.h"

/* One image. */
typedef struct pd_image_cell {
    const pd_coco_item *const *items; /* (n) by falling score, of equal scores in file order */
    size_t n, first_slot;             /* first_slot: number of detections in images before */
    const pd_match_object *objects;   /* (m) */
    size_t m, first_object;           /* first_object: objects before */
    const double *overlaps; /* (n, m); a crowd's are over the detection's area. What is under `least` may be any
                               number under it */
} pd_image_cell;

typedef struct pd_image_pass {
    double least;     /* overlaps that matter */
    double min_score; /* detections below are left out; -INFINITY: none are */
    size_t limit;     /* detections of an image */
    void (*visit)(void *arg, const pd_image_cell *cell, int thread); /* every image once, from any thread */
    void *arg;
} pd_image_pass;

/* p must have been prepared by image (PD_LAYOUT_IMAGES). Images without detections are visited too. */
pd_status pd_coco_each_image(const pd_coco_prepared *p, const pd_image_pass *pass, pd_err *err);

#endif
