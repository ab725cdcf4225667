/* targets_math.h: the class of one box and the weight of one image (targets.h), for the CPU's loops and CUDA kernels.
 */
#ifndef PD_TARGETS_MATH_H
#define PD_TARGETS_MATH_H

#include "engine/hd.h"
#include "kernels/assign.h"
#include "kernels/targets.h"

#define PD_TARGET_BAD (-2) /* a match beyond g, or a class out of range */

/* gt_label: (g) of the image, or NULL. */
PD_HD int pd_target_label(int match, const int *gt_label, int g, int k)
{
    if (match < 0) return match == PD_MATCH_BACKGROUND ? k : -1;
    if (match >= g) return PD_TARGET_BAD;
    const int c = gt_label ? gt_label[match] : 0;
    return c >= 0 && c < k ? c : PD_TARGET_BAD;
}

PD_HD int pd_target_at_least_one(int n)
{
    return n > 1 ? n : 1;
}

/* count: (n, 2) positives and negatives. */
PD_HD float pd_target_weight(pd_norm rule, const int *count, int n, int group, int image)
{
    const int first = image / group * group, last = n - first < group ? n : first + group;
    const int groups = n / group + (n % group > 0);
    int sum = 0;
    for (int i = first; i < last; i++) {
        const int pos = count[2 * i], neg = count[2 * i + 1];
        if (rule == PD_NORM_POSITIVES) sum += pd_target_at_least_one(pos);
        if (rule == PD_NORM_SAMPLES) sum += pd_target_at_least_one(pos) + pd_target_at_least_one(neg);
        if (rule == PD_NORM_ALL) sum += pos + neg;
    }
    return (float)(1 / (groups * (double)pd_target_at_least_one(sum)));
}

#endif
