/* classifier.h: a ResNet with a linear head, ready to train or to run: parameters, and one plan per input shape.
 *
 *   pd_classifier *c;
 *   PD_TRY(pd_classifier_new(&c, device, &settings, &err));
 *   ... fill pd_classifier_params(c): pd_params_init, or pd_load_params ...
 *   PD_TRY(pd_classifier_run(c, PD_FORM_FUSED, pixels, n, h, w, &out, &err));       out.logits: (n, classes)
 *
 * pixels: (n, h, w, 3) float32 in host memory, normalised as the model was trained. Results are host memory and stay valid
 * until the next call. One thread at a time. The device must outlive the classifier. */
#ifndef PD_CLASSIFIER_H
#define PD_CLASSIFIER_H

#include "backbones/resnet.h"
#include "engine/plan.h"

typedef struct pd_classifier_settings {
    pd_arch arch;
    int classes;
    bool folded;           /* parameters of a folded file: only PD_FORM_FOLDED runs */
    bool train;            /* with gradients: pd_classifier_loss and pd_classifier_backward work */
    bool sync_bn;          /* training: batch norm over the batches of all processes that train together */
    float label_smoothing; /* of the training loss */
    /* Another training loss than softmax cross-entropy of one class per image: */
    bool mixes;     /* classes of two images with shares (pd_classifier_loss_mixed) */
    bool sigmoid;   /* binary cross-entropy per class; implies mixes */
    float threshold; /* of sigmoid: targets over this count as 1; 0: as they are */
} pd_classifier_settings;

typedef struct pd_classifier pd_classifier;

pd_status pd_classifier_new(pd_classifier **out, pd_device *device, const pd_classifier_settings *settings, pd_err *err);
void pd_classifier_free(pd_classifier *c);
pd_params *pd_classifier_params(pd_classifier *c);
const pd_classifier_settings *pd_classifier_get(const pd_classifier *c);

/* Sets the scale of the last batch norm of every residual block to 0 (of all its branches), so that blocks begin as the
 * identity: Goyal et al. 2017, "Accurate, Large Minibatch SGD", 5.1. Short trainings bear much larger learning rates. */
pd_status pd_classifier_zero_residuals(pd_classifier *c, pd_err *err);

/* Inference in a form (PD_FORM_EVAL: branch by branch as defined; PD_FORM_FUSED: folded first, the fast one;
 * PD_FORM_FOLDED for folded parameters). */
typedef struct pd_classified {
    const float *logits; /* (n, classes) */
} pd_classified;
pd_status pd_classifier_run(pd_classifier *c, pd_form form, const float *pixels, int n, int h, int w, pd_classified *out,
                            pd_err *err);

/* The maps behind the stages in the last pd_classifier_run. */
typedef struct pd_stage_maps {
    const float *map[4]; /* C2..C5 (n, sh, sw, sc) */
    pd_shape shape[4];
} pd_stage_maps;
pd_status pd_classifier_stages(pd_classifier *c, pd_stage_maps *out, pd_err *err);

/* The form that is fastest for these parameters. */
pd_form pd_classifier_form(const pd_classifier *c);

/* One training forward: mean cross-entropy of the batch and how many rows were right. labels: (n) */
pd_status pd_classifier_loss(pd_classifier *c, const float *pixels, const int *labels, int n, int h, int w, float *loss,
                             int *correct, pd_err *err);
/* loss NULL: it is not waited for, and backward and the next step may follow at once; pd_classifier_late then gives loss
 * and right rows of the oldest forward that was not read, waiting for that alone. At most PD_PLAN_LATE may be unread. */
pd_status pd_classifier_late(pd_classifier *c, float *loss, int *correct, pd_err *err);
/* The same for images that are mixtures (datasets/mix.h; settings.mixes): image i is `share` of class labels[i], the rest
 * of class others[i]. */
pd_status pd_classifier_loss_mixed(pd_classifier *c, const float *pixels, const int *labels, const int *others, float share,
                                   int n, int h, int w, float *loss, int *correct, pd_err *err);
/* Gradients of the last loss into the parameters' gradient block. */
pd_status pd_classifier_backward(pd_classifier *c, bool accumulate, pd_err *err);

/* Call after parameters were changed: what inference plans made of them is made again. */
void pd_classifier_changed(pd_classifier *c);

/* Bytes that training on batches of n images of h x w takes: activations and their gradients as planned for the device,
 * and weights, gradients, momentum and statistics. Nothing of it is allocated. */
pd_status pd_classifier_training_bytes(size_t *out, pd_device *device, const pd_classifier_settings *settings, int n, int h,
                                       int w, pd_err *err);

/* The plan behind the last run or loss, for profiles. */
pd_plan *pd_classifier_plan(pd_classifier *c);
pd_tape *pd_classifier_tape(pd_classifier *c);

#endif
