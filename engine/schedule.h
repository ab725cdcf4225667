/* schedule.h: the learning rate as a function of epoch and step.
 *
 * With e the epoch (from 0), k the step since the run began (from 0), T the unit the schedule counts in (`by`):
 *
 *     constant     base
 *     step         base * gamma^floor(t / every)                       t = e or k
 *     multistep    base * gamma^(number of milestones <= t)
 *     cosine       min_lr + (base - min_lr) (1 + cos(pi t / T_total)) / 2
 *
 * and for k < warmup_steps the result times 1 - (1 - k / warmup_steps) (1 - warmup_ratio): linear warm-up as in
 * mmdetection 2 (warmup_ratio 0.001) and 1 (1/3). Cosine per epoch is constant inside an epoch, per step it moves
 * each step. Loshchilov and Hutter 2017, "SGDR", eq. 5, without restarts. */
#ifndef PD_SCHEDULE_H
#define PD_SCHEDULE_H

#include "engine/config.h"

typedef enum pd_schedule_type {
    PD_SCHEDULE_CONSTANT,
    PD_SCHEDULE_STEP,
    PD_SCHEDULE_MULTISTEP,
    PD_SCHEDULE_COSINE,
} pd_schedule_type;

typedef enum pd_schedule_unit { PD_SCHEDULE_BY_EPOCH, PD_SCHEDULE_BY_STEP } pd_schedule_unit;

#define PD_SCHEDULE_MILESTONES 16

typedef struct pd_schedule {
    pd_schedule_type type;
    pd_schedule_unit by;
    int64_t every;                              /* step: units between drops */
    int64_t milestones[PD_SCHEDULE_MILESTONES]; /* multistep: units after which it drops */
    int n_milestones;
    double gamma;         /* factor of a drop */
    double min_lr;        /* cosine: where it ends */
    int64_t warmup_steps; /* 0: none */
    double warmup_ratio;
} pd_schedule;

/* Rows "type", "by", "every", "milestones", "gamma", "min_lr", "warmup_steps", "warmup_ratio", for a member `schedule`.
 * Defaults: constant, gamma 0.1, no warm-up. */
extern const pd_table pd_schedule_table;

/* total_epochs and total_steps: the whole run's length (cosine). */
double pd_schedule_lr(const pd_schedule *s, double base, int64_t epoch, int64_t step, int64_t total_epochs,
                      int64_t total_steps);

#endif
