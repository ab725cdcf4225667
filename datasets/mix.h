/* mix.h: mixup and CutMix: every image of a batch mixed with the one before it (the first with the last), all with the
 * same share, as torchvision's recipe does it. The loss then mixes the classes (kernels/mixed_loss.h).
 *
 *   mixup    x_i = l x_i + (1 - l) x_(i-1), l ~ Beta(alpha, alpha). Zhang et al. 2018, "mixup"
 *   CutMix   a box of the image before it, of about 1 - l of the area, cut at the edges; l becomes the share that is
 * left. Yun et al. 2019, "CutMix" With both on, each batch draws one of them, both equally likely. */
#ifndef PD_MIX_H
#define PD_MIX_H

#include "engine/rng.h"

#include <stdbool.h>

typedef struct pd_mix_cfg {
    double mixup, cutmix; /* alpha; 0: off */
} pd_mix_cfg;

typedef struct pd_mix {
    bool cut;
    float share;        /* of image i; the rest is that of image i - 1. 1: nothing is mixed */
    int x0, y0, x1, y1; /* cut: the box that comes from image i - 1 */
} pd_mix;

/* What a batch of (h, w) images draws. */
pd_mix pd_mix_draw(const pd_mix_cfg *cfg, int h, int w, pd_rng *rng);

/* Mixes pixels (n, h, w, 3) in place; work: (h, w, 3). mixed_labels (n): the classes of the images before. */
void pd_mix_apply(const pd_mix *mix, float *pixels, const int *labels, int *mixed_labels, int n, int h, int w,
                  float *work);

/* A number of the Beta(a, a) distribution, a > 0. */
double pd_rng_beta(pd_rng *rng, double a);

#endif
