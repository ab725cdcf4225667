/* sampler.h: which samples make up which step of an epoch: a pure function of (seed, epoch), so a run resumes at any
 * (epoch, step) by asking again.
 *
 * A rank's plan is a list of sample indices; step s is order[s * batch .. ), `batch` long but perhaps the last. All
 * ranks get the same number of steps of the same sizes (but for `exact`), and in their step s together see what one
 * process sees in its steps s * world .. (s + 1) * world - 1: how many processes there are changes no training. The
 * modes:
 *
 *   plain    all samples, shuffled if asked. Step s of all ranks together is the s-th run of batch * world samples,
 * rank r its r-th part: one process with batch 4 sees what two with batch 2 see. The rest at the end is a smaller last
 *            step (its parts made equal by repeating samples from the start), or cut off by drop_last.
 *   groups   mmdetection's GroupSampler (specification 2.7), used when group is given and shuffle is set: in each group
 *            shuffle, extend to a multiple of batch by repeating from its start (drop_last: cut instead), cut into
 * chunks of `batch`, shuffle all chunks, rank r takes chunks r, r + world, ...; fewer chunks than ranks at the end are
 *            left out. A step holds one group only. (There the extension is to batch * world and shares are contiguous,
 *            so that the number of GPUs changes the order.)
 *   exact    for evaluation: every sample once over all ranks, rank r takes the r-th contiguous share; ranks may differ
 * in their number of steps. Neither shuffled nor grouped. */
#ifndef PD_SAMPLER_H
#define PD_SAMPLER_H

#include "engine/arena.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct pd_sampler {
    size_t n;             /* samples, 1 .. 2^32 - 2 */
    const uint8_t *group; /* (n) 0 or 1, or NULL */
    int batch;            /* samples per step and rank */
    bool shuffle, drop_last, exact;
    uint64_t seed;
    int rank, world; /* 0 <= rank < world */
} pd_sampler;

/* PD_EINVAL with the value when a setting is impossible, also when drop_last leaves no step. */
pd_status pd_sampler_check(const pd_sampler *s, pd_err *err);

/* Length of this rank's plan; the same for every epoch. Steps: pd_sampler_steps. */
size_t pd_sampler_count(const pd_sampler *s);
size_t pd_sampler_steps(const pd_sampler *s);

/* Writes the plan of an epoch: pd_sampler_count indices. PD_ENOMEM. */
pd_status pd_sampler_plan(uint32_t *order, const pd_sampler *s, uint32_t epoch, pd_err *err);

#endif
