/* oks.h: object keypoint similarity of a detected and an annotated set of points. Private to eval/.
 *
 * Ruggero Ronchi and Perona 2017, and COCO's keypoint evaluation: the mean over labelled points of
 * exp(-d^2 / (2 area (2 sigma)^2)). Of an object without labelled points, d is the distance to its box grown to three
 * times its size, and all points count. Order of operations and summation are numpy's. */
#ifndef PD_OKS_H
#define PD_OKS_H

#include "eval/coco_data.h"

/* det (n, 3), variances (n): (2 sigma)^2. The object must have n points, an area and a box. If the result cannot reach
 * `least`, any number below it may be returned. */
double pd_oks(const double *det, const pd_coco_object *object, const double *variances, size_t n, double least);

#define PD_OKS_POINTS 512 /* most points of a set */

#endif
