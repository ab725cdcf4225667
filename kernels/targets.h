/* targets.h: from matches to what the losses read: a class per box, and the weight of each image.
 *
 * Every detection loss here is  sum over images i of weight[i] * (sum of its terms),  and weight holds the normaliser.
 * Images are normalised in groups of `group` (one GPU's batch in the original recipe, 2 images): the loss of a group is
 * divided by its own norm, and the groups are averaged, so weight[i] = 1 / (groups * norm of i's group). A step on 16
 * images with group 2 thus equals 8 GPUs with 2 images each. The last group may be smaller.
 *
 *   PD_NORM_POSITIVES   sum over the group's images of max(positives, 1)                          RetinaNet
 *   PD_NORM_SAMPLES     sum over the group's images of max(positives, 1) + max(negatives, 1)      RPN
 *   PD_NORM_ALL         max(positives + negatives of the group, 1)                                RoI heads */
#ifndef PD_TARGETS_H
#define PD_TARGETS_H

#include "engine/tape.h"

typedef enum pd_norm { PD_NORM_POSITIVES, PD_NORM_SAMPLES, PD_NORM_ALL } pd_norm;

typedef struct pd_targets {
    pd_value *label;  /* (n, a) I32: class 0..k-1, k background, -1 takes no part */
    pd_value *count;  /* (n, 2) I32: positives, negatives */
    pd_value *weight; /* (n) F32 */
} pd_targets;

/* match: (n, a) I32 of pd_assign or pd_sample. gt_label: (n, g) I32 in 0..k-1, or NULL: every ground truth is class 0
 * (the RPN's "object"; k = 1). k: number of classes. A label out of range or a match beyond g fails the run. */
pd_targets pd_match_targets(pd_tape *tape, pd_value *match, pd_value *gt_label, int k, pd_norm norm, int group);

#endif
