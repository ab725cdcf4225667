/* layer.h: convolution + batch norm, plain or disentangled into ParaDise branches, in the form that is asked for.
 *
 * "Parameter Disentanglement for Diverse Representations", Big Data Mining and Analytics 8(3), 2025.
 * One function records the same layer in several forms; the parameters' names are the authors'.
 *
 *   form            records                                                          used for
 *   PD_FORM_TRAIN   every branch, statistics of the batch                            pretraining
 *   PD_FORM_EVAL    every branch, running statistics, written out as defined         the reference; proof of a fold
 *   PD_FORM_FUSED   branches folded on the tape (fold_bn), then one convolution      inference of unfolded weights, and
 *                                                                                    training with fixed statistics
 *   PD_FORM_FOLDED  one convolution with bias from a folded file                     deployment
 *   PD_FORM_COUNT   one convolution and batch norm in place of the branches          counting, as papers do
 *
 * Under the fold a layer NAME has NAME.weight and NAME.bias; PD-B stacks its k kernels: (k * out, in, 3, 3), (k * out). */
#ifndef PD_LAYER_H
#define PD_LAYER_H

#include "engine/tape.h"

typedef enum pd_form { PD_FORM_TRAIN, PD_FORM_EVAL, PD_FORM_FUSED, PD_FORM_FOLDED, PD_FORM_COUNT } pd_form;

/* Branches of a ParaDise convolution, in the order of the gate's weights. */
enum { PD_S1 = 1, PD_S2 = 2, PD_SKELETON = 4, PD_GROUP = 8, PD_ALL_BRANCHES = 15 };

typedef enum pd_mixture {
    PD_PLAIN_CONV, /* one convolution, one batch norm */
    PD_SUM,        /* PD-A: the branches' sum */
    PD_GATED,      /* PD-B: weighted by a softmax of the input's mean, image by image */
} pd_mixture;

typedef struct pd_layer {
    int out, kernel, stride; /* square kernel, padding kernel / 2 */
    int groups;              /* of a plain convolution; 1 for ParaDise */
    pd_mixture mixture;      /* ParaDise wants kernel 3 */
    unsigned branches;       /* of a ParaDise layer */
    int branch_groups;       /* groups of the group branch; 0: gcd(in, out, 64) */
    pd_init init;            /* of the convolutions' weights; all zero: Kaiming-normal, fan_out */
    double scale;            /* first scale of the batch norms; 0: 1 */
} pd_layer;

/* y = relu?( layer(x) + residual ). conv: the convolution's (or ParaDise layer's) name, bn: the batch norm's (unused by
 * ParaDise layers and under the fold). residual may be NULL. */
pd_value *pd_record_layer(pd_tape *t, pd_form form, const char *conv, const char *bn, pd_value *x, const pd_layer *layer,
                          pd_value *residual, bool relu);

/* The parameters of a layer that this input is too small for: they exist, nothing runs. */
void pd_declare_layer(pd_tape *t, pd_form form, const char *conv, const char *bn, int in, const pd_layer *layer);

/* A linear layer with bias, weights drawn from U(-1/sqrt(in), 1/sqrt(in)). */
pd_value *pd_record_linear(pd_tape *t, const char *name, pd_value *x, int out, bool relu);

/* A convolution with bias and no norm, as necks and heads have them: NAME.weight, NAME.bias; square kernel, padding
 * kernel / 2. weight: how its values are drawn; bias: its first value. */
pd_value *pd_record_conv(pd_tape *t, const char *name, pd_value *x, int out, int kernel, int stride, pd_init weight,
                         double bias, bool relu);

/* How a 3x3 convolution of a neck or a head is made: plain with bias, or of ParaDise branches, which fold into just that.
 *   batch_norm   every branch has a batch norm: statistics of the batch (of each level by itself, where levels share the
 *                layer) in training, running ones otherwise
 *   linear       no statistics: every branch has a scale and a bias per channel, as Hu et al. 2022, "Online Convolutional
 *                Re-parameterization". They are kept as a batch norm of mean 0 and variance 1 that never moves, and
 *                start so that the sum has the variance that the plain convolution would have. Trains folded: one
 *                convolution. */
typedef struct pd_head_conv {
    pd_mixture mixture;
    unsigned branches; /* of a ParaDise convolution */
    int groups;        /* of the group branch; 0: gcd(in, out, 64) */
    bool batch_norm;
} pd_head_conv;

/* y = relu?( the 3x3 convolution NAME of x ), stride 1. weight: how the values of its convolutions are drawn; biases
 * begin at 0. Recorded for several inputs, it is one layer, and folded once. */
pd_value *pd_record_head_conv(pd_tape *t, pd_form form, const char *name, pd_value *x, int out, const pd_head_conv *how,
                              pd_init weight, bool relu);

/* Xavier uniform for a convolution: U(-a, a), a = sqrt(6 / ((in + out) * kernel^2)). */
pd_init pd_xavier_uniform(int in, int out, int kernel);

/* "s1,skeleton" -> mask. Unknown, repeated or no branches are errors; S1 must be there. */
pd_status pd_branches_parse(unsigned *mask, const char *text, pd_err *err);
const char *pd_branches_text(unsigned mask);

#define PD_BN_EPS 1e-5f
#define PD_BN_MOMENTUM 0.1f

#endif
