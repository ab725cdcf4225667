/* augment.h: changes of colour and shape on bytes, as training recipes of classifiers use them.
 *
 * The operations are Pillow's (ImageOps, ImageEnhance, Image.transform with BILINEAR); two policies choose:
 *   PD_AUGMENT_TRIVIAL  one operation of 14, its strength one of 31: torchvision's TrivialAugmentWide. Mueller and
 * Hutter 2021, "TrivialAugment" PD_AUGMENT_RAND     `layers` operations of 15, each with probability `chance`, of
 * strength N(magnitude, spread^2) in [0, 10]: timm's "rand-m6-mstd0.5-inc1" where magnitude is 6 and spread 0.5. Cubuk
 * et al. 2019, "RandAugment" Pixels that come in from outside are `fill`. */
#ifndef PD_AUGMENT_H
#define PD_AUGMENT_H

#include "datasets/image.h"
#include "engine/rng.h"

typedef enum pd_augment_op {
    PD_OP_IDENTITY,
    PD_OP_SHEAR_X, /* value: x moves by value per row */
    PD_OP_SHEAR_Y,
    PD_OP_TRANSLATE_X, /* pixels to the right; torchvision cuts to whole ones, timm does not */
    PD_OP_TRANSLATE_Y,
    PD_OP_ROTATE,       /* degrees, counterclockwise */
    PD_OP_BRIGHTNESS,   /* 0 black, 1 as it is */
    PD_OP_COLOR,        /* 0 grey */
    PD_OP_CONTRAST,     /* 0 its mean grey */
    PD_OP_SHARPNESS,    /* 0 smoothed, 2 sharpened */
    PD_OP_POSTERIZE,    /* bits that are kept, 0..8 */
    PD_OP_SOLARIZE,     /* values from here on are inverted, 0..256 */
    PD_OP_SOLARIZE_ADD, /* added to values under 128 */
    PD_OP_AUTOCONTRAST,
    PD_OP_EQUALIZE,
    PD_OP_INVERT,
    PD_OPS,
} pd_augment_op;

typedef enum pd_augment_kind { PD_AUGMENT_NONE, PD_AUGMENT_TRIVIAL, PD_AUGMENT_RAND } pd_augment_kind;

#define PD_AUGMENT_LAYERS 8

typedef struct pd_augment {
    pd_augment_kind kind;
    int layers; /* PD_AUGMENT_RAND, as all below; at most PD_AUGMENT_LAYERS */
    double magnitude, spread, chance;
} pd_augment;

typedef struct pd_augment_step {
    pd_augment_op op;
    double value;
} pd_augment_step;

/* Changes the image by one operation; `spare` is working memory, swapped with the image where that saves a copy. */
pd_status pd_augment_one(pd_image *image, pd_image *spare, pd_augment_op op, double value, const unsigned char fill[3],
                         pd_err *err);

/* What the policy draws for an image of (h, w); returns the number of steps, at most PD_AUGMENT_LAYERS. */
int pd_augment_draw(pd_augment_step *out, const pd_augment *how, int h, int w, pd_rng *rng);

/* Changes the image as the policy draws. */
pd_status pd_augment_apply(pd_image *image, pd_image *spare, const pd_augment *how, const unsigned char fill[3],
                           pd_rng *rng, pd_err *err);

/* Zhong et al. 2020, "Random Erasing": with probability `chance` a box of the (h, w, 3) image, share [0.02, 0.33] of
 * its area, height / width log-uniform in [0.3, 3.3], becomes 0 (the mean colour of normalised pixels). As
 * torchvision's RandomErasing draws: ten tries for a box that fits. */
void pd_random_erase(float *pixels, int h, int w, double chance, pd_rng *rng);

#endif
