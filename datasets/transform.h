/* transform.h: from decoded bytes to what a network eats: cut, resize, mirror, normalise, pad; boxes follow the pixels.
 *
 * Two ways of resizing, because the two fields grew up with different tools:
 *   classification  antialiased triangle filter in floating point, as Pillow's BILINEAR and torchvision's antialias;
 * the filter stays inside the cut box, as cutting first and resizing then does. No rounding to bytes in between.
 *   detection       OpenCV's INTER_LINEAR on bytes: 11-bit fixed point, half-pixel centres, no antialias; bit for bit
 *                   (detection specification 2.3; two equal halvings give the 2x2 mean, as there)
 * Output is float32 (h, w, 3) RGB. Normalised value of a byte x: (x / divide - mean) / std per channel, rounded to
 * float32 after each step; DETECT multiplies by the float32 of 1 / std instead, as there. */
#ifndef PD_TRANSFORM_H
#define PD_TRANSFORM_H

#include "datasets/augment.h"
#include "datasets/image.h"
#include "engine/box.h"
#include "engine/pixel_math.h"
#include "engine/rng.h"

typedef enum pd_transform_kind {
    PD_TRANSFORM_NONE,        /* the image as it is, normalised; all images of one size */
    PD_TRANSFORM_RANDOM_CROP, /* classification, training: random box resized to crop x crop, mirrored by chance */
    PD_TRANSFORM_CENTER_CROP, /* classification, validation: shorter side to `resize`, crop x crop from the middle */
    PD_TRANSFORM_DETECT,      /* detection: as large as long_side, short_side allow, mirrored by chance, padded */
} pd_transform_kind;

#define PD_MAX_SHORT_SIDES 32

typedef struct pd_transform {
    pd_transform_kind kind;
    int crop;                  /* *_CROP: side of the output */
    int resize;                /* CENTER_CROP: shorter side before the cut; 0: no resize */
    double area[2], aspect[2]; /* RANDOM_CROP: the box's share of the image, its width / height (log-uniform) */
    int tries;                 /* RANDOM_CROP: draws before the central fallback */
    pd_augment augment;        /* RANDOM_CROP: on bytes, behind crop and mirror. Pixels from outside: TRIVIAL black, RAND
                                * the mean colour, as torchvision and timm */
    double erase;              /* RANDOM_CROP: probability of random erasing, last of all */
    double flip;               /* RANDOM_CROP, DETECT, NONE: probability of a left-right mirror; 1: always */
    int long_side, short_side; /* DETECT: bounds of the longer and the shorter side, ratio kept */
    /* DETECT: multi-scale training: the bound of the shorter side is drawn for each image, one of these (the list's
     * value) or any whole number between the smallest and the largest (range). Empty: always short_side. */
    int short_sides[PD_MAX_SHORT_SIDES], n_short_sides;
    bool short_range;
    int divisor;               /* DETECT: the batch's height and width are multiples of this */
    double divide;             /* 255: mean and std are of [0, 1]; 1: of [0, 255] */
    double mean[3], std[3];    /* R, G, B */
} pd_transform;

/* The settings of the specifications: crop 224, area [0.1, 1], aspect [0.8, 1.25], 100 tries, flip 0.5;
 * resize 256, crop 224; 1333 x 800, flip 0.5 if train, divisor 32. ImageNet's mean and std. */
pd_transform pd_transform_train(void);
pd_transform pd_transform_val(void);
pd_transform pd_transform_none(void);
pd_transform pd_transform_detect(bool train);

/* PD_EINVAL with the setting and its value when one is impossible. */
pd_status pd_transform_check(const pd_transform *t, pd_err *err);

/* Are pictures bytes until they are normalised, so that a device may do that? NONE and DETECT: yes. *_CROP: no, their
 * filter ends in numbers between bytes, or random erasing in normalised noise. */
bool pd_transform_in_bytes(const pd_transform *t);

/* ---- the pieces ---- */

/* Working memory of the functions below; begin with zeros, release with pd_transform_work_free. One per thread. */
typedef struct pd_transform_work {
    void *memory;
    size_t room;
} pd_transform_work;
void pd_transform_work_free(pd_transform_work *work);

/* What normalises a byte, for whoever does it elsewhere (kernels/normalize.h). */
pd_pixel_norm pd_transform_norm(const pd_transform *t);

/* The normalised value: a table for bytes, by pd_transform_norm; slope and offset for resampled values. */
typedef struct pd_normalizer {
    float byte[3][256];
    float slope[3], offset[3]; /* value = x * slope + offset */
} pd_normalizer;
void pd_normalizer_init(pd_normalizer *out, const pd_transform *t);

/* torchvision's RandomResizedCrop: area uniform, aspect log-uniform, width and height rounded to even halves; the first
 * of `tries` that fits gets a uniform position; else the largest central box whose aspect is allowed. */
pd_rect pd_random_crop(int h, int w, const double area[2], const double aspect[2], int tries, pd_rng *rng);

/* Triangle filter: `box` (real pixels of the picture) to out (out_h, out_w, 3) float32, mirrored if flip, normalised.
 * Per axis: support = max(1, box size / out size), weights normalised to 1; pixels outside of `bounds` do not count.
 * bounds = the box itself: cut first, then resize (training); bounds = the whole picture: resize first, then cut
 * (validation). `image` may be a part of the picture: its pixel (0, 0) is pixel (at_x, at_y) of the picture; box and
 * bounds are in the picture's coordinates, and the part must hold what pd_filter_reach returns. */
typedef struct pd_area {
    double x, y, w, h;
} pd_area;
pd_status pd_resize_triangle(float *out, int out_h, int out_w, const pd_image *image, int at_x, int at_y, pd_area box,
                             pd_rect bounds, bool flip, const pd_normalizer *norm, pd_transform_work *work,
                             pd_err *err);

/* The pixels that the filter reads: the box and its support, cut at bounds. */
pd_rect pd_filter_reach(pd_area box, pd_rect bounds, int out_h, int out_w);

/* The part of a (h, w) image that CENTER_CROP sees: torchvision's Resize (longer side truncated) then CenterCrop
 * (offset rounded half to even), as one box in real pixels. Images smaller than the crop after `resize` are enlarged to
 * it instead of padded with black. */
pd_area pd_center_crop(int h, int w, int resize, int crop);

/* Size of a (h, w) image resized with its ratio kept: s = min(long_side / max(h, w), short_side / min(h, w)),
 * side = (int)(side * s + 0.5), at least 1. */
void pd_keep_ratio(int *out_h, int *out_w, int h, int w, int long_side, int short_side);

/* The bound of the shorter side for one image. Draws from rng only where there is a choice. */
int pd_draw_short_side(const pd_transform *t, pd_rng *rng);

/* OpenCV's bilinear resize on bytes to out->h, out->w; out is sized by the call and must not be image. */
pd_status pd_resize_opencv(pd_image *out, int out_h, int out_w, const pd_image *image, pd_transform_work *work,
                           pd_err *err);

/* Writes image, mirrored if flip and normalised, into the upper left of out (out_h, out_w, 3); the rest is 0. */
void pd_normalize_pad(float *out, int out_h, int out_w, const pd_image *image, bool flip, const pd_normalizer *norm);

/* A box of the original image in the resized one: times (scale_x, scale_y), clipped to (w, h), mirrored if flip.
 * float32 in this order. Never dropped, even if nothing is left of it. */
pd_box pd_box_resize(pd_box box, float scale_x, float scale_y, int h, int w, bool flip);

/* x rounded up to a multiple of divisor. */
int pd_round_up(int x, int divisor);

#endif
