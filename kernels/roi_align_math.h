/* roi_align_math.h: how the bins of a box read the pixels of a map along one axis (roi_align.h), for the CPU loop and
 * the CUDA kernels. Bilinear samples on a grid are separable: a bin is the weighted sum of pixels whose weights are
 * products of one weight for x and one for y. */
#ifndef PD_ROI_ALIGN_MATH_H
#define PD_ROI_ALIGN_MATH_H

#include "engine/hd.h"

#include <math.h>

#define PD_ROI_MAX_SAMPLES 65536 /* of a bin, along an axis: a box so large is a constant to within float32 */

/* One axis of one box on one map. */
typedef struct pd_roi_axis {
    double start, bin; /* in the map's pixels */
    double samples;    /* of each bin; whole */
    int pixels;
} pd_roi_axis;

PD_HD pd_roi_axis pd_roi_axis_of(float lo, float hi, int stride, int size, int ratio, int pixels)
{
    const double scale = 1.0 / stride;
    pd_roi_axis a;
    a.start = (double)lo * scale - 0.5;
    a.bin = ((double)hi - (double)lo) * scale / size;
    a.samples = ratio > 0 ? (double)ratio : ceil(a.bin);
    if (!(a.samples > 0)) a.samples = 0; /* inside out, or not a number */
    if (a.samples > PD_ROI_MAX_SAMPLES) a.samples = PD_ROI_MAX_SAMPLES;
    a.pixels = pixels;
    return a;
}

/* Sample i of bin p: its pixel k and the share that it takes of pixel k + 1; -1: it is outside. */
PD_HD int pd_roi_sample(double *share, const pd_roi_axis *a, int p, int i)
{
    double at = a->start + p * a->bin + (i + 0.5) * a->bin / a->samples;
    if (!(at >= -1 && at <= a->pixels)) return -1;
    if (at < 0) at = 0;
    const int k = at >= a->pixels - 1 ? a->pixels - 1 : (int)at;
    *share = k + 1 < a->pixels ? at - k : 0;
    return k;
}

/* The pixels that a bin reads: first .. first + count - 1. */
typedef struct pd_roi_span {
    int first, count;
} pd_roi_span;

/* Of bin p; weight[i] is set to that of pixel first + i. The counts of all bins of a box together are at most
 * pixels + 3 * bins. */
PD_HD pd_roi_span pd_roi_bin(float *weight, const pd_roi_axis *a, int p)
{
    pd_roi_span s = {0, 0};
    int lo = a->pixels, hi = -1;
    double share;
    for (int i = 0; i < (int)a->samples; i++) {
        const int k = pd_roi_sample(&share, a, p, i);
        if (k < 0) continue;
        if (k < lo) lo = k;
        if (k > hi) hi = k;
    }
    if (hi < 0) return s;
    s.first = lo;
    s.count = (hi + 1 < a->pixels ? hi + 1 : hi) + 1 - lo;
    for (int i = 0; i < s.count; i++) weight[i] = 0;
    for (int i = 0; i < (int)a->samples; i++) {
        const int k = pd_roi_sample(&share, a, p, i);
        if (k < 0) continue;
        weight[k - lo] += (float)((1 - share) / a->samples);
        if (k + 1 < a->pixels) weight[k + 1 - lo] += (float)(share / a->samples);
    }
    return s;
}

#endif
