/* detector.h: a detector, ready to train or to run: parameters, and one plan per input shape.
 *
 *   pd_detector *d;
 *   PD_TRY(pd_detector_new(&d, device, &settings, &err));
 *   ... fill pd_detector_params(d): pd_params_init, or pd_load_params ...
 *   PD_TRY(pd_detector_detect(d, pd_detector_form(d), &batch, found, count, &err));
 *
 * The backbone always normalises by its running statistics ("norm_eval"), also in training: its branches are folded on
 * the tape, so a ParaDise backbone trains at the cost of the plain one, with exact gradients for every branch. It may
 * also be folded first and trained as what it then is: a plain one (PD-A), or one kernel per gate weight (PD-B).
 * Results stay valid until the next call. One thread at a time. The device must outlive the detector. */
#ifndef PD_DETECTOR_H
#define PD_DETECTOR_H

#include "backbones/resnet.h"
#include "detectors/cascade_rcnn.h"
#include "detectors/postprocess.h"
#include "detectors/retinanet.h"
#include "engine/batch.h"
#include "engine/plan.h"

typedef enum pd_detector_type { PD_RETINANET, PD_CASCADE_RCNN, PD_FASTER_RCNN, PD_DETECTOR_TYPES } pd_detector_type;

/* "retinanet": as configurations and model files call it. */
const char *pd_detector_name(pd_detector_type type);
/* "RetinaNet": as people call it. */
const char *pd_detector_title(pd_detector_type type);
/* The type of that name. */
pd_status pd_detector_parse(pd_detector_type *out, const char *name, pd_err *err);

typedef struct pd_detector_settings {
    pd_detector_type type;
    pd_arch arch;
    int classes;
    int frozen_stages; /* -1: none; 0: stem; k: stem and stages 1..k */
    bool folded;       /* parameters of a folded file: only PD_FORM_FOLDED runs */
    bool fold_first;   /* the backbone's parameters are a folded file's, and are trained as such */
    bool train;        /* with gradients */
    pd_head_conv neck; /* output convolutions of the pyramid (not P6 and P7 of RetinaNet) */
    pd_head_conv head; /* RetinaNet's towers; the RPN's convolution */
    pd_retinanet_cfg retinanet;
    pd_cascade_cfg cascade;  /* of Faster R-CNN too: one stage */
    pd_postprocess_cfg test; /* pre_nms and topk_mode: RetinaNet only */
} pd_detector_settings;

/* A type's settings as the reference has them; arch and classes are still to be set. */
pd_detector_settings pd_detector_defaults(pd_detector_type type);

typedef struct pd_detector pd_detector;

pd_status pd_detector_new(pd_detector **out, pd_device *device, const pd_detector_settings *settings, pd_err *err);
void pd_detector_free(pd_detector *d); /* NULL allowed */
pd_params *pd_detector_params(pd_detector *d);
const pd_detector_settings *pd_detector_get(const pd_detector *d);
/* Changes test.max_per_image. */
pd_status pd_detector_limit(pd_detector *d, int max_per_image, pd_err *err);
/* The form that is fastest for these parameters. */
pd_form pd_detector_form(const pd_detector *d);
/* Side lengths of a batch must be multiples of this. */
#define PD_DETECTOR_DIVISOR 32

/* The parts of the loss, by the reference's names ("s0.acc", an accuracy in percent, among them); `loss` is the sum of
 * those with "loss" in their name. Names are static text. */
#define PD_MAX_LOSSES (2 + 3 * PD_MAX_BOX_STAGES)
typedef struct pd_losses {
    int count;
    const char *name[PD_MAX_LOSSES];
    float value[PD_MAX_LOSSES];
    float loss;
    int positives; /* boxes that were trained on an object (of a cascade's first stage) */
} pd_losses;

/* Batches of images may hold floats or bytes (engine/batch.h), here and below: what comes of them is the same, bit for
 * bit.
 *
 * One training forward of a batch with boxes, and its gradients. seen: images that the run has seen before this batch;
 * samplers draw by it, so that a run that is resumed draws what it would have drawn. */
pd_status pd_detector_loss(pd_detector *d, const pd_batch *batch, int64_t seen, pd_losses *losses, pd_err *err);
/* losses NULL: they are not waited for, and backward and the next step may follow at once; pd_detector_late then gives
 * those of the oldest forward that was not read, waiting for that alone. At most PD_PLAN_LATE may be unread. */
pd_status pd_detector_late(pd_detector *d, pd_losses *losses, pd_err *err);
pd_status pd_detector_backward(pd_detector *d, bool accumulate, pd_err *err);

/* Detections of every image in pixels of the original image: out (n, test.max_per_image), count (n). */
pd_status pd_detector_detect(pd_detector *d, pd_form form, const pd_batch *batch, pd_detection *out, int *count,
                             pd_err *err);

/* Detections of one image from several views of it (test-time augmentation): batches of one image each, resized and
 * mirrored as their info says. out (test.max_per_image), *count; in pixels of the original.
 * As mmdetection 2.x does it: RetinaNet's candidates of all views go through one suppression. Detectors with proposals:
 * the proposals of all views, in the original image, go through one suppression (without levels); what is left runs
 * through the stages in each view; boxes and class scores are averaged over the views; then one suppression. */
pd_status pd_detector_detect_views(pd_detector *d, pd_form form, const pd_batch *const *views, int n, pd_detection *out,
                                   int *count, pd_err *err);

/* What the network itself puts out, by the reference's names. Maps are (n, h, w, c):
 *   RetinaNet        "p3".., "cls_score.0".., "bbox_pred.0"..
 *   Cascade, Faster  "p2".., "rpn_cls.0".., "rpn_bbox.0"..; and, m being cascade.rpn.test.max_keep, of which the first
 *                    num_proposals rows count and the rest is 0: "proposals" (n, m, 5) with the score last,
 *                    "num_proposals" (n) I32, and for each stage "stage0.rois" (n, m, 4), "stage0.level" (n, m) I32
 *                    (the pyramid level a box reads, 2..5), "stage0.cls_score" (n, m, classes + 1),
 *                    "stage0.bbox_pred" (n, m, 4), with boxes for every class (n, m, classes * 4)
 * info: h and w of each image bound its boxes; NULL: the whole of each. */
#define PD_MAX_HEADS 40
typedef struct pd_raw {
    int count;
    char name[PD_MAX_HEADS][24];
    const void *data[PD_MAX_HEADS];
    pd_dtype type[PD_MAX_HEADS];
    pd_shape shape[PD_MAX_HEADS];
} pd_raw;
pd_status pd_detector_raw(pd_detector *d, pd_form form, const float *pixels, const pd_image_info *info, int n, int h,
                          int w, pd_raw *out, pd_err *err);
/* Detections from the last pd_detector_raw, of the same images. */
pd_status pd_detector_decode(pd_detector *d, const pd_image_info *info, pd_detection *out, int *count, pd_err *err);

/* Call after parameters were changed: what inference plans made of them is made again. */
void pd_detector_changed(pd_detector *d);

/* The network for detection in one image of h x w on a tape, for counting; what the settings freeze is frozen. */
pd_status pd_record_detector(pd_tape *t, pd_form form, const pd_detector_settings *settings, int h, int w, pd_err *err);

/* Bytes that training on batches of n images of h x w takes: activations and their gradients as planned for the device,
 * weights, gradients, momentum and statistics, and the copies that writing a checkpoint makes of its largest tensor.
 * Nothing of it is allocated. */
pd_status pd_detector_training_bytes(size_t *out, pd_device *device, const pd_detector_settings *settings, int n, int h,
                                     int w, pd_err *err);

/* Bytes that detecting between training steps, image by image, takes besides that: the folded network. */
pd_status pd_detector_validation_bytes(size_t *out, pd_device *device, const pd_detector_settings *settings, int h,
                                       int w, pd_err *err);

/* The plan and tape behind the last call, for profiles and counts. */
pd_plan *pd_detector_plan(pd_detector *d);
pd_tape *pd_detector_tape(pd_detector *d);

#endif
