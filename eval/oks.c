#include "eval/oks.h"

#include "eval/mean.h"

#include <math.h>

/* numpy's maximum with 0: a NaN stays one. */
static inline double above_zero(double v)
{
    return v > 0 || v != v ? v : 0;
}

static size_t labelled_terms(double *e, const double *det, const pd_coco_object *object, const double *variances,
                             size_t n, double area)
{
    const double *const points = object->keypoints;
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        const double dx = det[3 * i] - points[3 * i], dy = det[3 * i + 1] - points[3 * i + 1];
        e[kept] = (dx * dx + dy * dy) / variances[i] / area / 2;
        kept += points[3 * i + 2] > 0;
    }
    return kept;
}

static size_t box_terms(double *e, const double *det, const pd_coco_object *object, const double *variances, size_t n,
                        double area)
{
    const double *const b = object->bbox;
    const double x0 = b[0] - b[2], x1 = b[0] + b[2] * 2, y0 = b[1] - b[3], y1 = b[1] + b[3] * 2;
    for (size_t i = 0; i < n; i++) {
        const double x = det[3 * i], y = det[3 * i + 1];
        const double dx = above_zero(x0 - x) + above_zero(x - x1), dy = above_zero(y0 - y) + above_zero(y - y1);
        e[i] = (dx * dx + dy * dy) / variances[i] / area / 2;
    }
    return n;
}

double pd_oks(const double *det, const pd_coco_object *object, const double *variances, size_t n, double least)
{
    double e[PD_OKS_POINTS + 1];
    const double area = object->area + 0x1p-52;
    size_t kept = labelled_terms(e, det, object, variances, n, area);
    if (kept == 0) kept = box_terms(e, det, object, variances, n, area);
    /* exp(-e) <= 1 / (1 + e) for e >= 0: most pairs are far apart, and need no exponential. */
    double bound = 0, smallest = 0;
    for (size_t i = 0; i < kept; i++) {
        bound += 1 / (1 + e[i]);
        smallest = e[i] < smallest ? e[i] : smallest;
    }
    if (smallest >= 0 && bound * (1 + 1e-9) < least * (double)kept) return -1;
    for (size_t i = 0; i < kept; i++) e[i] = exp(-e[i]);
    return pd_pairwise_sum(e, kept) / (double)kept;
}
