/* train_run.h: what every training program needs around its loop: the run's folder, the optimiser, checkpoints that go on
 * exactly, the log.
 *
 * A run folder holds config.json, log.jsonl, events.out.tfevents.*, last.safetensors, best.safetensors, report.html.
 * last.safetensors is a usable model plus "train." tensors: momentum, the moving average, and train.state (position and
 * best result). A run killed at any moment goes on from the last whole file with the very same weights.
 *
 * A run in fp16 adds train.scale: the scale of its gradients and how many good steps it has lasted (F32, 2). One that
 * goes on in fp16 begins with these; from a file without them (written in another precision, or on the CPU) with a new
 * scale. All other runs pass over them. So every run goes on from every file of its model and optimiser.
 *
 * Several processes (device->comm): each steps its own copy with the same averaged gradients, so all stay the same; rank 0
 * alone reads and writes the folder. */
#ifndef PD_TRAIN_RUN_H
#define PD_TRAIN_RUN_H

#include "engine/average.h"
#include "engine/checkpoint.h"
#include "engine/log.h"
#include "engine/plan.h"
#include "engine/schedule.h"
#include "kernels/adam.h"
#include "kernels/sgd.h"
#include "tools/model_file.h"

typedef struct pd_optimizer_cfg {
    int type;  /* 0 SGD, 1 AdamW, 2 LAMB */
    int decay; /* pd_decay */
    double lr, momentum, beta1, beta2, eps, weight_decay, clip_norm;
    bool nesterov;
} pd_optimizer_cfg;
extern const pd_table pd_optimizer_table;

typedef struct pd_train_position {
    int64_t step;          /* optimiser steps done */
    int64_t epoch;         /* the epoch under way */
    int64_t step_in_epoch; /* its steps done */
    double best;           /* best validation result so far; NaN: none */
    int64_t images;        /* images seen */
    int64_t closed;        /* the step behind which validation and checkpoints were last completed; 0: none yet */
    int64_t stale;         /* validations since the best one */
} pd_train_position;

/* A forward pass whose loss the host has not seen. */
typedef struct pd_train_pass {
    int64_t step; /* that it belongs to, from 1 on */
    double lr;    /* of the step before it */
    int images;
} pd_train_pass;

typedef struct pd_train_run {
    pd_device *device;
    pd_params *params;
    const char *dir;
    pd_optimizer_cfg optimizer;
    pd_schedule schedule;
    double ema_decay; /* 0: no moving average */
    int64_t total_epochs, total_steps;
    int passes;       /* backward runs per step; 1 unless changed before pd_train_run_open */
    pd_comm *comm;    /* the processes, host memory; NULL, alone, unless changed before pd_train_run_open */
    int64_t patience; /* the run ends after so many validations without a better result; 0, the default: it does not */
    float *velocity, *ema; /* blocks beside the weights; velocity: SGD's, or the others' mean of gradients */
    float *square;         /* AdamW, LAMB: the mean of squared gradients */
    pd_average *average;   /* over the processes; pd_train_run_open makes it */
    pd_train_position at;
    double lr;            /* of the last step */
    double grad_norm;     /* of the last step before it was clipped; NaN unless clipping. Elsewhere than on the CPU: what
                           * pd_train_read_norm found last */
    pd_clip clip;
    pd_train_pass unread[PD_PLAN_LATE];
    int n_unread;
    pd_log *log;
    pd_arena *arena;
} pd_train_run;

/* Blocks of the optimiser, zeroed. params must be allocated with gradients. */
pd_status pd_train_run_init(pd_train_run *run, pd_device *device, pd_params *params, const char *dir,
                            const pd_optimizer_cfg *optimizer, const pd_schedule *schedule, double ema_decay,
                            int64_t total_epochs, int64_t total_steps, pd_err *err);
void pd_train_run_free(pd_train_run *run);

/* Whether there is anything left to do: steps, or the validation behind the last one; and patience is left. */
bool pd_train_going(const pd_train_run *run);

/* Takes note of a validation's result; larger is better. True: the best so far. */
bool pd_train_judge(pd_train_run *run, double result);

/* Makes the folder, writes config.json and opens the log (lines behind run->at.step are dropped when resuming). What rank 0
 * has, weights, state and position, becomes everyone's; other ranks have no log. */
pd_status pd_train_run_open(pd_train_run *run, const char *config, bool resumed, pd_err *err);

/* Averages the gradients, which are sums over `passes` backward runs, over these and over the processes; clips, takes one
 * optimiser step, moves the average of the weights and the counters. */
pd_status pd_train_step(pd_train_run *run, pd_err *err);

/* Losses that come late: on the CPU the loss of a pass is there at once and looked at before anything is done with it;
 * elsewhere the host runs one pass ahead, so as not to wait. Of every forward pass (loss NULL; classifier.h, detector.h):
 *
 *   pd_train_passed(run, images);
 *   while (pd_train_unread(run, false)) {               (true, to wait for all: before a log line and a checkpoint)
 *       PD_TRY(pd_classifier_late(...)); or pd_detector_late
 *       PD_TRY(pd_train_loss(run, loss, &images, err)); (refuses a loss that is not finite, and says of which step)
 *       ... add it up ...
 *   } */
void pd_train_passed(pd_train_run *run, int images);
bool pd_train_unread(const pd_train_run *run, bool all);
pd_status pd_train_loss(pd_train_run *run, double loss, int *images, pd_err *err);

/* Makes grad_norm that of the last step. Waits for the step where a device makes it. */
pd_status pd_train_read_norm(pd_train_run *run, pd_err *err);

/* Writes DIR/name with model metadata and everything that resuming needs; weights_only: the model alone, with the moving
 * average in place of the weights where there is one. */
pd_status pd_train_save(pd_train_run *run, const char *name, const pd_model_meta *meta, bool weights_only, pd_err *err);

/* Goes on from a file: parameters, optimiser, position. */
pd_status pd_train_resume(pd_train_run *run, const char *path, pd_err *err);

/* DIR/last.safetensors if it is there and "auto" was asked for; the given path otherwise; NULL: nothing to resume, or this
 * is not rank 0. */
pd_status pd_train_resume_path(char **out, const pd_train_run *run, const char *resume, pd_arena *arena, pd_err *err);

/* Exchanges weights and their moving average (for validation); no effect without one. */
pd_status pd_train_swap_ema(pd_train_run *run, pd_err *err);

#endif
