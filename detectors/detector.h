/* detector.h: a detector, ready to train or to run: parameters, and one plan per input shape.
 *
 *   pd_detector *d;
 *   PD_TRY(pd_detector_new(&d, device, &settings, &err));
 *   ... fill pd_detector_params(d): pd_params_init, or pd_load_params ...
 *   PD_TRY(pd_detector_detect(d, pd_detector_form(d), &batch, found, count, &err));
 *
 * The backbone always normalises by its running statistics ("norm_eval"), also in training: its branches are folded on
 * the tape, so a ParaDise backbone trains at the cost of the plain one, with exact gradients for every branch.
 * Results stay valid until the next call. One thread at a time. The device must outlive the detector. */
#ifndef PD_DETECTOR_H
#define PD_DETECTOR_H

#include "detectors/postprocess.h"
#include "detectors/retinanet.h"
#include "engine/batch.h"
#include "engine/plan.h"

typedef enum pd_detector_type { PD_RETINANET } pd_detector_type;

typedef struct pd_detector_settings {
    pd_detector_type type;
    pd_arch arch;
    int classes;
    int frozen_stages; /* -1: none; 0: stem; k: stem and stages 1..k */
    bool folded;       /* parameters of a folded file: only PD_FORM_FOLDED runs */
    bool train;        /* with gradients */
    pd_retinanet_cfg retinanet;
    pd_postprocess_cfg test;
} pd_detector_settings;

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

/* The parts of the loss, by the reference's names; `loss` is their sum. */
#define PD_MAX_LOSSES 12
typedef struct pd_losses {
    int count;
    const char *name[PD_MAX_LOSSES];
    float value[PD_MAX_LOSSES];
    float loss;
    int positives; /* boxes that were trained on an object */
} pd_losses;

/* One training forward of a batch with boxes, and its gradients. */
pd_status pd_detector_loss(pd_detector *d, const pd_batch *batch, pd_losses *losses, pd_err *err);
pd_status pd_detector_backward(pd_detector *d, bool accumulate, pd_err *err);

/* Detections of every image in pixels of the original image: out (n, test.max_per_image), count (n). */
pd_status pd_detector_detect(pd_detector *d, pd_form form, const pd_batch *batch, pd_detection *out, int *count,
                             pd_err *err);

/* What the network itself puts out (n, h, w, c), by the reference's names: "p3".., "cls_score.0".., "bbox_pred.0".. */
#define PD_MAX_HEADS 24
typedef struct pd_raw {
    int count;
    char name[PD_MAX_HEADS][16];
    const float *data[PD_MAX_HEADS];
    pd_shape shape[PD_MAX_HEADS];
} pd_raw;
pd_status pd_detector_raw(pd_detector *d, pd_form form, const float *pixels, int n, int h, int w, pd_raw *out, pd_err *err);
/* Detections from the last pd_detector_raw. */
pd_status pd_detector_decode(pd_detector *d, const pd_image_info *info, pd_detection *out, int *count, pd_err *err);

/* Call after parameters were changed: what inference plans made of them is made again. */
void pd_detector_changed(pd_detector *d);

/* The plan and tape behind the last call, for profiles and counts. */
pd_plan *pd_detector_plan(pd_detector *d);
pd_tape *pd_detector_tape(pd_detector *d);

#endif
