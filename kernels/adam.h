/* adam.h: AdamW and LAMB, the optimizers of modern recipes, beside sgd.h.
 *
 *   g' = g * scale;  m = beta1 m + (1 - beta1) g';  v = beta2 v + (1 - beta2) g'^2
 *   u = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
 *   AdamW   w = w (1 - lr decay) - lr u          Loshchilov and Hutter 2019, "Decoupled Weight Decay"; as
 * torch.optim.AdamW LAMB    u += decay w;  w = w - lr r u        You et al. 2020, "Large Batch Optimization"; as timm's
 * Lamb r = |w| / |u| of the whole tensor (1 where either is 0), where it decays; 1 elsewhere
 *
 * Parameters with no_decay have decay 0. Runs on the device; norms are summed in a fixed order, whatever the threads.
 * LAMB leaves its updates in the gradients' place. Under fp16 as sgd.h says; a step that is left out counts in t. */
#ifndef PD_ADAM_H
#define PD_ADAM_H

#include "engine/params.h"

typedef struct pd_adam {
    double lr, beta1, beta2, eps, weight_decay;
    double scale; /* multiplies gradients */
    struct pd_clip *clip; /* as in sgd.h; NULL: none */
    int64_t step; /* t: 1 for the first */
    bool lamb;
} pd_adam;

/* Steps all trainable weights. mean and square have the size of the weights' block and begin at 0. */
pd_status pd_adam_step(pd_device *device, pd_params *params, float *mean, float *square, const pd_adam *settings,
                       pd_err *err);

#endif
