/* detector_kind.h: what one kind of detector (RetinaNet, Cascade R-CNN, ...) gives to detector.c.
 *
 * To add a kind: record it in a file of its own, fill a pd_detector_kind there, declare it here, give it a row in
 * detector.c's table and its settings a place in pd_detector_settings. */
#ifndef PD_DETECTOR_KIND_H
#define PD_DETECTOR_KIND_H

#include "detectors/candidates.h"
#include "detectors/detector.h"
#include "kernels/detections.h"

/* Inputs of the tape for n images with room for g boxes each. Those not used are NULL. */
typedef struct pd_detector_inputs {
    pd_value *image;          /* (n, h, w, 3) */
    pd_value *bytes, *mirror; /* what the image is made of, where it comes as bytes: (n, h, w, 3) U8, (n) I32 */
    pd_value *sizes;          /* (n, 4) I32: h, w, pad_h, pad_w of each image */
    /* training */
    pd_value *boxes;  /* (n, g, 4) */
    pd_value *labels; /* (n, g) I32 */
    pd_value *count;  /* (n) I32 */
    pd_value *draw;   /* (n) I32: images of the run before this one, for samplers */
    /* detection of kinds with proposals, where these are given from outside */
    pd_value *proposals, *n_proposals; /* (n, m, 4), (n) I32 */
    /* detection where the tape itself finds the boxes: (n, 3), as detections.h has it; heads are not kept then */
    pd_value *scales;
    bool lists; /* kinds with proposals: the host reads these and what becomes of them, no maps */
} pd_detector_inputs;

typedef struct pd_detector_kind {
    const char *name;  /* in configurations and model files */
    const char *title; /* for people */
    size_t bytes;      /* of `net` below: the values that the other functions read, zeroed, in the tape's memory */
    /* Impossible settings: PD_EINVAL. May be NULL. */
    pd_status (*check)(const pd_detector_settings *set, pd_err *err);
    /* Records the network with its losses (a training tape), or with all that detection needs. Failures: the tape's. */
    void (*record)(pd_tape *t, pd_form form, const pd_detector_settings *set, const pd_detector_inputs *in, void *net);
    /* What a tape with `scales` found. */
    const pd_detections_out *(*found)(const void *net);
    /* After a forward run: */
    void (*losses)(const void *net, pd_losses *out);
    void (*outputs)(void *net, pd_raw *out);
    pd_status (*decode)(const void *net, const pd_detector_settings *set, const pd_image_info *info, pd_detection *out,
                        int *count, pd_pool *pool, pd_err *err);
    /* For views of one image (views.c). Kinds without proposals: every candidate of the image (see candidates.h). */
    pd_status (*candidates)(const void *net, const pd_detector_settings *set, const pd_image_info *info,
                            pd_candidates *out, pd_pool *pool, pd_err *err);
    /* Kinds with proposals: those of the one image, by descending score; returns how many. */
    int (*proposals)(const void *net, const pd_box **boxes, const float **scores);
    /* What became of the first `count` given ones: boxes in pixels of the resized image (pd_row_boxes each), class
     * scores (classes + 1 each). */
    void (*rows)(const void *net, const pd_image_info *info, int count, pd_box *boxes, float *scores);
} pd_detector_kind;

extern const pd_detector_kind pd_kind_retinanet, pd_kind_cascade_rcnn, pd_kind_faster_rcnn;

/* For views.c: a forward run on one image whose proposals are `boxes`, or its own where boxes is NULL. *net: the kind's
 * values. */
pd_status pd_detector_run_one(pd_detector *d, pd_form form, const pd_batch *image, const pd_box *boxes, int count,
                              const void **net, pd_err *err);
const pd_detector_kind *pd_detector_kind_of(const pd_detector *d);
pd_pool *pd_detector_pool(const pd_detector *d);

/* Boxes that a proposal becomes: one, or one of every class. */
static inline int pd_row_boxes(const pd_detector_settings *set)
{
    return set->cascade.class_boxes ? set->classes : 1;
}

/* The form of the backbone in a detector that is recorded in `form`. */
pd_form pd_backbone_form(const pd_detector_settings *set, pd_form form);

/* The settings of a tape that finds the boxes itself. */
pd_detections_cfg pd_found_cfg(const pd_detector_settings *set);

/* Appends a part of the loss; parts with "loss" in their name count in the sum. name: static text. */
void pd_losses_add(pd_losses *out, const char *name, float value);

/* Appends an output; shape: as it is to be seen. */
void pd_raw_add(pd_raw *out, const void *data, pd_dtype type, pd_shape shape, const char *name, ...)
    __attribute__((format(printf, 5, 6)));

#endif
