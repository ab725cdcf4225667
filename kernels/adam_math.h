/* adam_math.h: the formulas of adam.h for one weight, for the CPU loop and the CUDA kernels. */
#ifndef PD_ADAM_MATH_H
#define PD_ADAM_MATH_H

#include "engine/hd.h"
#include "kernels/adam.h"

#include <math.h>

/* What a step has for all weights. */
typedef struct pd_adam_numbers {
    float beta1, beta2, eps, scale, lr;
    float correct1, correct2; /* 1 / (1 - beta1^t), 1 / sqrt(1 - beta2^t) */
} pd_adam_numbers;

static inline pd_adam_numbers pd_adam_numbers_of(const pd_adam *set)
{
    const double t = (double)set->step;
    const pd_adam_numbers n = {(float)set->beta1,
                               (float)set->beta2,
                               (float)set->eps,
                               (float)set->scale,
                               (float)set->lr,
                               (float)(1 / (1 - pow(set->beta1, t))),
                               (float)(1 / sqrt(1 - pow(set->beta2, t)))};
    return n;
}

/* Moves both means on by the gradient g (with its scale); returns u. */
PD_HD float pd_adam_moments(float *m, float *v, float g, const pd_adam_numbers *n)
{
    *m = n->beta1 * *m + (1 - n->beta1) * g;
    *v = n->beta2 * *v + (1 - n->beta2) * g * g;
    return *m * n->correct1 / (sqrtf(*v) * n->correct2 + n->eps);
}

PD_HD float pd_adamw_weight(float w, float u, float lr, float decay)
{
    return w * (1 - lr * decay) - lr * u;
}

/* LAMB's r, of a tensor's sums of squares of weights and updates. */
PD_HD float pd_lamb_ratio(double w, double u, float decay)
{
    return decay > 0 && w > 0 && u > 0 ? (float)sqrt(w / u) : 1.f;
}

#endif
