/* trainer.h: a training program without what it trains: processes and device, the loop over epochs and steps, the log,
 * and checkpoints and validations where a run that was killed can go on. pd_cls_train and pd_det_train are kinds of it.
 *
 *     typedef struct session {
 *         pd_trainer t;                                   // first, so that the kind's functions find the rest
 *         ...
 *     } session;
 *     session s = {.t = {.kind = &kind, .args = &args, .opt = opt}};
 *     return pd_trainer_main(&s.t, &cli);                 // configure, run, close
 *
 * and in run(): open data and network, then
 *
 *     PD_TRY(pd_trainer_begin(t, params, per_epoch, passes, err));
 *     ... tell what is trained on ...
 *     PD_TRY(pd_trainer_loop(t, err));                    // forward, backward, late, log, validate
 *     ... report, on rank 0 ...
 */
#ifndef PD_TRAINER_H
#define PD_TRAINER_H

#include "datasets/loader.h"
#include "tools/cli.h"
#include "tools/train_run.h"

#define PD_TRAINER_SUMS 32   /* of a kind */
#define PD_TRAINER_VALUES 40 /* of a kind's log line */

/* What the command line says beside the configuration. */
typedef struct pd_trainer_options {
    const char *resume, *work_dir;
    bool check, print_config, help_config;
} pd_trainer_options;

#define PD_TRAINER_OPTIONS(o)                                                                                          \
    PD_OPT_STRING(0, "resume", "FILE", &(o).resume, "go on from a checkpoint; auto: from the run's last"),             \
        PD_OPT_STRING(0, "work-dir", "DIR", &(o).work_dir, "the run's folder"),                                        \
        PD_OPT_FLAG(0, "check", &(o).check, "check the configuration and stop"),                                       \
        PD_OPT_FLAG(0, "print-config", &(o).print_config, "print the merged configuration and stop"),                  \
        PD_OPT_FLAG(0, "help-config", &(o).help_config, "list every key of a configuration and stop")

/* What the configuration says; strings and structs stay the kind's. */
typedef struct pd_trainer_plan {
    const char *work_dir, *precision;
    double rank_timeout, ema;
    int epochs, log_interval, save_interval; /* steps; save_interval 0: each epoch */
    int val_interval, patience;              /* epochs; validations, 0: endless */
    int64_t max_steps;                       /* 0: no limit */
    const pd_optimizer_cfg *optimizer;
    const pd_schedule *schedule;
} pd_trainer_plan;

typedef struct pd_trainer pd_trainer;

typedef struct pd_trainer_kind {
    const pd_table *table; /* of the configuration, for --help-config */
    /* Sets t->plan and t->config_text, and refuses what cannot be trained. Before there is a device. */
    pd_status (*configure)(pd_trainer *t, pd_err *err);
    /* All the work. */
    pd_status (*run)(pd_trainer *t, pd_err *err);
    /* Frees what run() made, the loaders and t->run aside. */
    void (*close)(pd_trainer *t);
    /* One pass; its loss may come late (train_run.h). add: to the gradients that are there. */
    pd_status (*forward)(pd_trainer *t, const pd_batch *b, pd_err *err);
    pd_status (*backward)(pd_trainer *t, bool add, pd_err *err);
    /* Reads the loss of the oldest unread pass by pd_train_loss and adds to t->sums. */
    pd_status (*late)(pd_trainer *t, pd_err *err);
    /* t->sums are those of all processes since the last line, over so many images: writes what is made of them, and a
     * note for the terminal; returns how many values. */
    int (*log)(const pd_trainer *t, double images, pd_log_value line[PD_TRAINER_VALUES], char note[96]);
    /* Validates with the weights as they are and writes its log line: *result, larger is better, is the same in all
     * processes; text is for people. Not called without a val_loader. */
    pd_status (*validate)(pd_trainer *t, double *result, char text[160], pd_err *err);
} pd_trainer_kind;

struct pd_trainer {
    const pd_trainer_kind *kind;
    const pd_cli_args *args;
    const pd_trainer_options *opt;
    pd_trainer_plan plan;
    char *config_text; /* as it is printed and kept in files */
    pd_arena *arena;
    pd_comm *comm; /* the processes that train together; NULL: alone */
    pd_device *device;
    char device_line[512];
    pd_loader *train_loader, *val_loader; /* val_loader NULL: no validation */
    pd_model_meta meta;
    pd_train_run run;
    pd_progress progress;
    int64_t per_epoch; /* steps */
    bool resumed;
    bool idle; /* after pd_trainer_loop: a run that was complete, nothing was done */
    /* since the last log line */
    double sums[PD_TRAINER_SUMS];
    int n_sums; /* that the kind uses */
    double images, data_s, step_s, started;
    int steps;
};

/* From the parsed command line to the exit code; frees all but args. */
int pd_trainer_main(pd_trainer *t, const pd_cli *cli);

/* "runs/NAME" for a configuration file or an architecture, in t's arena. */
pd_status pd_trainer_work_dir(const char **out, pd_trainer *t, const char *name, pd_err *err);

/* A loader's settings as far as processes, warnings and the kind of pass go. */
pd_loader_config pd_trainer_loader(pd_trainer *t, bool train);

/* Opens the run, from its checkpoint where --resume says so, and tells what it runs on. per_epoch: steps, of `passes`
 * forward passes. */
pd_status pd_trainer_begin(pd_trainer *t, pd_params *params, int64_t per_epoch, int passes, pd_err *err);

/* Trains to the end and closes the log. PD_ESTOP: stopped by a signal, with a checkpoint. */
pd_status pd_trainer_loop(pd_trainer *t, pd_err *err);

#endif
