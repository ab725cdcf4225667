/* batch.h: what datasets hand to models: pixels, labels, boxes, and where each image came from.
 *
 * pixels: (n, h, w, 3) float32, RGB, normalised; images smaller than (h, w) are padded right and below with 0, which
 * is the mean colour. Or, where a loader was asked for them, bytes (n, h, w, 3) as they were before the mirror and the
 * normalisation, with what `norm` and `info` say still to be done (kernels/normalize.h). The batch and all it points to
 * belong to the loader and stay valid until it is handed back. */
#ifndef PD_BATCH_H
#define PD_BATCH_H

#include "engine/box.h"
#include "engine/pixel_math.h"

#include <stdint.h>

typedef struct pd_image_info {
    int64_t id;             /* COCO image id, or the sample's index for classification */
    int h, w;               /* valid pixels: the resized image, unpadded ("img_shape") */
    int pad_h, pad_w;       /* its own size rounded up to the pad divisor ("pad_shape"), <= the batch's */
    int ori_h, ori_w;       /* the file's size (after EXIF rotation where that applies) */
    float scale_x, scale_y; /* w / ori_w, h / ori_h: divide a box by these to get original pixels */
    int flipped;            /* 1: mirrored left-right */
} pd_image_info;

typedef struct pd_batch {
    int n, h, w;
    float *pixels;        /* NULL where there are bytes */
    unsigned char *bytes; /* else NULL */
    pd_pixel_norm norm;   /* of bytes */
    pd_image_info *info;  /* (n) */
    int *labels;          /* (n) class of the image; classification only, else NULL */
    int max_boxes;        /* room per image in boxes and box_labels; 0 without boxes */
    int *n_boxes;         /* (n) */
    pd_box *boxes;        /* (n, max_boxes) ground truth in pixels of the resized image */
    int *box_labels;      /* (n, max_boxes) 0-based class */
} pd_batch;

#endif
