/* coco_gt.h: the ground truth of a COCO evaluation, read once and evaluated against as often as you like.
 *
 *     pd_coco_gt *gt;                                                      once
 *     PD_TRY(pd_coco_gt_open(&gt, "val.json", NULL, pool, err));
 *     pd_coco_dt *dt;                                                      per epoch
 *     PD_TRY_DONE(pd_coco_dt_new(&dt, gt, err));                           eval/results.h
 *     ... pd_coco_dt_add(dt, image, detections, n, err) from any thread ...
 *     PD_TRY_DONE(pd_coco_evaluate(&ap, gt, dt, NULL, pool, err));         eval/coco_ap.h
 *     log("AP %.3f", ap->stats[0]);
 *
 * Format: Lin et al. 2014, "Microsoft COCO"; an object with `images`, `categories`, `annotations`; other keys are
 * skipped. Meaning follows pycocotools 2.0.11 to the last bit, corners included; where that stops with an exception,
 * these calls fail with a message that names file and record. Ids may be integers, fractions or text; 2 and 2.0 are one
 * id.
 *
 *   images[].id                  a repeated id counts once
 *   images[].width, .height      needed for masks
 *   categories[].id, .name       a repeated id counts once; the name is for reports
 *   annotations[].id             a number. Two with one id: the last stands in for both; unique_ids undoes it
 *   annotations[].image_id       of an image that is not listed: left out, counted
 *   annotations[].category_id    of a category that is not listed: left out, counted
 *   annotations[].area           what small/medium/large goes by; a crowd needs none
 *   annotations[].iscrowd        needed. 0, 1, true, false; any number in (-1, 256): not 0 is a crowd
 *   annotations[].bbox           [x, y, w, h]
 *   annotations[].segmentation   polygons, or run lengths, plain or as text
 *   annotations[].keypoints      x, y, v triples; v > 0 is labelled
 *   annotations[].num_keypoints  0: the object is ignored
 *
 * What is missing or wrong in a record becomes an error only when an evaluation needs it, as in pycocotools; the error
 * names the record. What is wrong in the text is an error at once, with line and byte:
 *
 *   a file of 0 bytes, cut off, or with anything behind the value       error
 *   not UTF-8                                                           error in keys and strings that are read
 *   nested deeper than PD_JS_DEPTH (256)                                error
 *   a key twice in one object                                           the last one counts
 *   NaN, Infinity, -Infinity                                            numbers, as in Python
 *   1e999, -1e999; 1e-999                                               infinite; 0
 *   a whole number beyond 64 bits                                       a double
 *   a byte-order mark                                                   passed over
 *   what nobody asks for (a polygon where boxes are evaluated)          only its brackets and quotes are looked at;
 *                                                                       pd_coco_check_syntax looks at everything
 *
 * Thread rule: once open a pd_coco_gt is constant; any number of threads may use it. */
#ifndef PD_COCO_GT_H
#define PD_COCO_GT_H

#include "engine/file.h"
#include "engine/thread.h"

/* How a detection is compared to an object: box IoU, mask IoU, object keypoint similarity. */
typedef enum pd_coco_type { PD_COCO_BBOX, PD_COCO_SEGM, PD_COCO_KEYPOINTS } pd_coco_type;

/* "bbox", "segm", "keypoints", as in pycocotools' iouType. */
const char *pd_coco_type_name(pd_coco_type type);

typedef enum pd_coco_id_kind { PD_COCO_ID_WHOLE, PD_COCO_ID_REAL, PD_COCO_ID_TEXT } pd_coco_id_kind;

/* An image's or category's id. Equal by value: a fraction that is whole is stored as WHOLE. */
typedef struct pd_coco_id {
    pd_coco_id_kind kind;
    int64_t whole;
    double real;
    const char *text; /* UTF-8, terminated */
} pd_coco_id;

static inline pd_coco_id pd_coco_int_id(int64_t id)
{
    return (pd_coco_id){PD_COCO_ID_WHOLE, id, 0, NULL};
}

/* Order of ids: numbers by value, then text by code point. */
int pd_coco_id_compare(pd_coco_id a, pd_coco_id b);
/* "139", "1.5" or "\"000139\"" (text is cut to fit). Returns out. */
#define PD_COCO_ID_ROOM 80 /* bytes, with the closing 0 */
const char *pd_coco_id_format(char out[PD_COCO_ID_ROOM], pd_coco_id id);

typedef struct pd_coco_image {
    pd_coco_id id;
    double width, height;  /* pixels; -1 where the file has none */
    const char *file_name; /* "" where the file has none */
} pd_coco_image;

typedef struct pd_coco_category {
    pd_coco_id id;
    const char *name; /* "" where the file has none */
} pd_coco_category;

/* What to read besides boxes; reading less is faster. */
enum {
    PD_COCO_READ_MASKS = 1,
    PD_COCO_READ_KEYPOINTS = 2,
    PD_COCO_READ_NAMES = 4, /* file names of images */
    PD_COCO_READ_LVIS = 8,  /* LVIS: neg_category_ids, not_exhaustive_category_ids, frequency */
};

/* All zero: boxes only, and pycocotools' rules. */
typedef struct pd_coco_gt_options {
    unsigned read;        /* PD_COCO_READ_... together */
    bool unique_ids;      /* every annotation counts for itself, whatever its id: repeated ids and id 0 do no harm */
    bool area_from_box;   /* an object without area has w * h */
    bool default_iscrowd; /* an object without iscrowd is none */
} pd_coco_gt_options;

typedef struct pd_coco_gt pd_coco_gt;

/* Opens `path` (plain JSON, or gzip told by its first bytes). options NULL: all zero; pool NULL: one thread.
 * Errors: PD_EIO, PD_ENOMEM, PD_EFORMAT with file, line and byte or with the record's number and id. */
pd_status pd_coco_gt_open(pd_coco_gt **out, const char *path, const pd_coco_gt_options *options, pd_pool *pool,
                          pd_err *err);
/* The same from text in memory, which is not needed after the call; `name` is used in messages. */
pd_status pd_coco_gt_parse(pd_coco_gt **out, pd_bytes json, const char *name, const pd_coco_gt_options *options,
                           pd_pool *pool, pd_err *err);
void pd_coco_gt_close(pd_coco_gt *gt); /* NULL allowed */

/* Images and categories, each once, sorted by id: index i everywhere in eval/ counts in this order. */
size_t pd_coco_gt_image_count(const pd_coco_gt *gt);
size_t pd_coco_gt_category_count(const pd_coco_gt *gt);
const pd_coco_image *pd_coco_gt_image(const pd_coco_gt *gt, size_t i);
const pd_coco_category *pd_coco_gt_category(const pd_coco_gt *gt, size_t i);
/* The index of an id; false where there is none. */
bool pd_coco_gt_find_image(const pd_coco_gt *gt, pd_coco_id id, size_t *index);
bool pd_coco_gt_find_category(const pd_coco_gt *gt, pd_coco_id id, size_t *index);

/* What the file held, for notes and warnings. */
typedef struct pd_coco_gt_notes {
    size_t annotations;  /* in the file */
    size_t unlisted;     /* of an image or category that is not listed: left out */
    size_t repeated_ids; /* annotations whose id an earlier one has */
    size_t id_zero;      /* objects with id 0: a match to one counts as none */
    size_t ignore_keys;  /* annotations with a non-zero `ignore`, which has no effect */
    size_t repeated_images, repeated_categories;
} pd_coco_gt_notes;
const pd_coco_gt_notes *pd_coco_gt_get_notes(const pd_coco_gt *gt);

#endif
