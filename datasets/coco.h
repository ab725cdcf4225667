/* coco.h: a COCO annotation file as a compact index of images, categories and boxes.
 *
 * Read by the streaming parser: segmentations and unknown fields are skipped, no tree is built; a file as large as
 * train2017's (470 MB, 118,287 images, 860,001 annotations) takes about half a second and leaves 65 MB in the arena.
 * Ids are any 64-bit integers, with gaps, in any order. The file's order is kept.
 *
 * What is read:
 *   images       id, width, height, file_name
 *   categories   id, name. Sorted by id; label = position, 0..K-1. With a class list (pd_coco_open's classes): label =
 * position in the list, other categories are left out. annotations  image_id, category_id, bbox [x, y, w, h]; area (w *
 * h if missing), iscrowd (0), ignore (false) Boxes become corners x1 = x, x2 = x + w in float32.
 *
 * Which annotations are ground truth follows mmdetection 2.x: `use` says so for each, `counts` how many of each kind
 * there are, so that nothing is dropped in silence. */
#ifndef PD_COCO_H
#define PD_COCO_H

#include "engine/arena.h"
#include "engine/box.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum pd_coco_use {
    PD_COCO_GT,       /* a ground truth box */
    PD_COCO_CROWD,    /* iscrowd: no box to learn */
    PD_COCO_IGNORED,  /* "ignore": true */
    PD_COCO_OUTSIDE,  /* no overlap with the image */
    PD_COCO_TINY,     /* area <= 0, or narrower or lower than 1 pixel */
    PD_COCO_NO_CLASS, /* category not in the class list, or not in the file's categories */
    PD_COCO_USES
} pd_coco_use;

typedef struct pd_coco_ann {
    pd_box box;    /* original pixels, not clipped */
    int32_t label; /* -1 without a class */
    uint8_t
        use; /* pd_coco_use: the first of the list in the order IGNORED, OUTSIDE, TINY, NO_CLASS, CROWD that holds */
} pd_coco_ann;

typedef struct pd_coco_photo {
    int64_t id;
    int w, h;         /* as the file says; compared with the picture when that is decoded */
    const char *file; /* file_name */
    size_t first;     /* its annotations are anns[first .. first + n) in the file's order */
    uint32_t n, n_gt; /* all, and those with use PD_COCO_GT */
} pd_coco_photo;

typedef struct pd_coco {
    const char *path;
    size_t n_images;
    pd_coco_photo *images; /* in the file's order */
    size_t n_anns;
    pd_coco_ann *anns; /* grouped by image */
    int n_classes;
    char **classes;        /* name by label */
    int64_t *category_ids; /* COCO's id by label, for results files */
    uint32_t max_gt;       /* largest n_gt of any image */
    size_t counts[PD_COCO_USES];
    size_t no_image; /* annotations whose image_id is not in images: left out */
    /* private: images sorted by id, for pd_coco_find */
    uint32_t *by_id;
} pd_coco;

/* Reads the file; everything lives in the arena. classes NULL: all categories of the file. Else names in label order;
 * one that the file does not have is an error that names it.
 * PD_EFORMAT: file, line and column, record and what is wrong: a syntax error, a missing or mistyped field, an id
 * twice, a size below 1, a box that is not four finite numbers, no images, no categories. */
pd_status pd_coco_open(pd_coco *out, const char *path, char *const *classes, int n_classes, pd_arena *arena,
                       pd_err *err);

/* Index of the image with this id, or -1. */
ptrdiff_t pd_coco_find(const pd_coco *set, int64_t image_id);

/* The images to train on: at least one annotation of any kind and both sides of at least min_side pixels (mmdetection:
 * 32). *out: indices into images, in order. With keep_empty also images without annotations stay (they teach
 * background). */
pd_status pd_coco_train_images(uint32_t **out, size_t *n, const pd_coco *set, int min_side, bool keep_empty,
                               pd_arena *arena, pd_err *err);

/* "1937 annotations: 1920 boxes, 17 crowds; left out: 2 outside, ..." for the trainer's log. */
pd_status pd_coco_summary(char **text, const pd_coco *set, pd_arena *arena, pd_err *err);

#endif
