/* sample.h: which of the matched boxes train a head: a fixed number per image, at most a fixed part of it positive.
 *
 *   want_pos = (int)(num * fraction): all positives, or so many of them
 *   want_neg = num - positives taken: all background boxes, or so many of them
 * The others become PD_MATCH_IGNORED. Chosen uniformly without replacement by Philox numbers keyed by (seed, draw of
 * the image, stream), so the choice depends on neither threads nor the other images; or, with `first`, those of lowest
 * index (for comparisons with other programs). */
#ifndef PD_SAMPLE_H
#define PD_SAMPLE_H

#include "engine/tape.h"

typedef struct pd_sample_cfg {
    int num;        /* boxes per image */
    float fraction; /* of positives, 0..1 */
    bool first;
    uint64_t seed;
    uint32_t stream; /* a number for the place in the network: 0 the RPN, 1.. the box stages */
} pd_sample_cfg;

/* One image: match (n) is changed in place. work: n ints. */
void pd_sample_matches(int *match, int n, const pd_sample_cfg *cfg, uint32_t draw, int *work);

/* On a tape: match (n, a) I32 of pd_assign; draw (n) I32: a number that no other image of the run has, say the count of
 * images before it. Returns (n, a) I32. */
pd_value *pd_sample(pd_tape *tape, pd_value *match, pd_value *draw, const pd_sample_cfg *cfg);

#endif
