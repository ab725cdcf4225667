#include "tools/trainer.h"
#include "tools/ranks.h"

#include <math.h>
#include <string.h>

/* ---- opening ---- */

pd_status pd_trainer_work_dir(const char **out, pd_trainer *t, const char *name, pd_err *err)
{
    char *dir;
    const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name, *end = strstr(base, ".json");
    PD_TRY(pd_format(&dir, t->arena, err, "runs/%.*s", (int)(end ? (size_t)(end - base) : strlen(base)), base));
    *out = dir;
    return PD_OK;
}

static void warn(void *arg, const char *text)
{
    pd_trainer *t = arg;
    if (pd_comm_rank(t->comm) == 0)
        pd_progress_line(&t->progress, "skipped: %s", text);
    else if (!t->args->quiet)
        fprintf(stderr, "rank %d: skipped: %s\n", pd_comm_rank(t->comm), text);
}

pd_loader_config pd_trainer_loader(pd_trainer *t, bool train)
{
    pd_loader_config l = pd_loader_defaults();
    l.rank = pd_comm_rank(t->comm);
    l.world = pd_comm_world(t->comm);
    l.exact = !train;
    l.warn = warn;
    l.warn_arg = t;
    return l;
}

pd_status pd_trainer_begin(pd_trainer *t, pd_params *params, int64_t per_epoch, int passes, pd_err *err)
{
    const pd_trainer_plan *p = &t->plan;
    pd_train_run *run = &t->run;
    char *resume, ranks[96];
    const int64_t planned = per_epoch * p->epochs;
    const int64_t total = p->max_steps && p->max_steps < planned ? p->max_steps : planned;
    PD_TRY(pd_train_run_init(run, t->device, params, p->work_dir, p->optimizer, p->schedule, p->ema, p->epochs, total,
                             err));
    run->patience = p->patience;
    run->passes = passes;
    run->comm = t->comm;
    PD_TRY(pd_train_resume_path(&resume, run, t->opt->resume, t->arena, err));
    if (resume) PD_TRY(pd_train_resume(run, resume, err));
    PD_TRY(pd_train_run_open(run, t->config_text, resume != NULL, err));
    t->per_epoch = per_epoch;
    t->resumed = resume != NULL;
    pd_progress_begin(&t->progress, "training", "steps", total, t->args->quiet || pd_comm_rank(t->comm));
    if (t->comm) pd_progress_line(&t->progress, "%s", pd_ranks_text(ranks, t->comm, t->device));
    pd_progress_line(&t->progress, "%s", t->device_line);
    if (resume) pd_progress_line(&t->progress, "going on from %s, step %lld", resume, (long long)run->at.step);
    return PD_OK;
}

/* ---- the loop ---- */

static void start_sums(pd_trainer *t)
{
    memset(t->sums, 0, sizeof t->sums);
    t->images = t->data_s = t->step_s = 0;
    t->steps = 0;
    t->started = pd_seconds();
}

/* Adds up the losses that are there. all: waits for those under way, too. */
static pd_status read_losses(pd_trainer *t, bool all, pd_err *err)
{
    while (pd_train_unread(&t->run, all)) PD_TRY(t->kind->late(t, err));
    return PD_OK;
}

static pd_status save_last(pd_trainer *t, pd_err *err)
{
    PD_TRY(read_losses(t, true, err)); /* nothing that came of a bad one is kept */
    return pd_train_save(&t->run, "last.safetensors", &t->meta, false, err);
}

static pd_status log_steps(pd_trainer *t, pd_err *err)
{
    const pd_train_run *run = &t->run;
    pd_log_value line[PD_TRAINER_VALUES + 6] = {{"epoch", (double)run->at.epoch}};
    char note[96], text[160];
    PD_TRY(read_losses(t, true, err));
    PD_TRY(pd_comm_sum(t->comm, t->sums, (size_t)t->n_sums, PD_COMM_F64, err));
    PD_TRY(pd_comm_sum(t->comm, &t->images, 1, PD_COMM_F64, err));
    PD_TRY(pd_train_read_norm(&t->run, err));
    const double seconds = pd_seconds() - t->started, steps = t->steps ? t->steps : 1;
    size_t n = 1 + (size_t)t->kind->log(t, t->images > 0 ? t->images : 1, line + 1, note);
    line[n++] = (pd_log_value){"lr", run->lr};
    line[n++] = (pd_log_value){"images_per_s", t->images / seconds};
    line[n++] = (pd_log_value){"data_s", t->data_s / steps};
    line[n++] = (pd_log_value){"step_s", t->step_s / steps};
    if (!isnan(run->grad_norm)) line[n++] = (pd_log_value){"grad_norm", run->grad_norm};
    snprintf(text, sizeof text, "%s  lr %.4g  %.4g images/s", note, run->lr, t->images / seconds);
    pd_progress_update(&t->progress, run->at.step, text);
    start_sums(t);
    return pd_log_write(run->log, "train", run->at.step, pd_wall_time(), line, n, err);
}

/* One optimiser step. *end: the epoch has no whole step left. */
static pd_status one_step(pd_trainer *t, bool *end, pd_err *err)
{
    for (int p = 0; p < t->run.passes; p++) {
        const pd_batch *b;
        const double waiting = pd_seconds();
        PD_TRY(pd_loader_next(t->train_loader, &b, err));
        const double begun = pd_seconds();
        *end = !b;
        if (!b) return PD_OK;
        PD_TRY(t->kind->forward(t, b, err));
        pd_train_passed(&t->run, b->n);
        PD_TRY(read_losses(t, false, err));
        PD_TRY(t->kind->backward(t, p > 0, err));
        t->images += b->n;
        t->run.at.images += b->n * pd_comm_world(t->comm);
        pd_loader_done(t->train_loader, b);
        t->data_s += begun - waiting;
        t->step_s += pd_seconds() - begun;
    }
    const double begun = pd_seconds();
    PD_TRY(pd_train_step(&t->run, err));
    t->step_s += pd_seconds() - begun;
    t->steps++;
    return PD_OK;
}

static pd_status validate(pd_trainer *t, bool *best, pd_err *err)
{
    double result = 0;
    char text[160];
    PD_TRY(pd_train_swap_ema(&t->run, err));
    const pd_status status = t->kind->validate(t, &result, text, err);
    PD_TRY(pd_train_swap_ema(&t->run, status == PD_OK ? err : NULL));
    if (status == PD_ESTOP) pd_err_context(err, "during a validation (go on with --resume auto)");
    PD_TRY(status);
    *best = pd_train_judge(&t->run, result);
    pd_progress_line(&t->progress, "epoch %lld: %s%s", (long long)t->run.at.epoch, text, *best ? " (best)" : "");
    return PD_OK;
}

/* Behind the last step of an epoch, or of the run where that ends inside one: validation and checkpoints. What was
 * stopped or killed in here comes again in a run that goes on: the checkpoint of the last step was taken before, and
 * `closed` tells. */
static pd_status end_epoch(pd_trainer *t, bool whole, pd_err *err)
{
    pd_train_position *at = &t->run.at;
    bool best = false;
    if (whole) {
        at->epoch++;
        at->step_in_epoch = 0;
    }
    const bool last = at->step >= t->run.total_steps || at->epoch >= t->plan.epochs;
    if (t->val_loader && (last || at->epoch % t->plan.val_interval == 0)) PD_TRY(validate(t, &best, err));
    if (best) PD_TRY(pd_train_save(&t->run, "best.safetensors", &t->meta, true, err));
    at->closed = at->step;
    return pd_train_save(&t->run, "last.safetensors", &t->meta, false, err);
}

/* What is left of the epoch under way. */
static pd_status train_epoch(pd_trainer *t, pd_err *err)
{
    pd_train_run *run = &t->run;
    bool end = false;
    start_sums(t);
    PD_TRY(
        pd_loader_start(t->train_loader, (uint32_t)run->at.epoch, (size_t)(run->at.step_in_epoch * run->passes), err));
    while (run->at.step_in_epoch < t->per_epoch && run->at.step < run->total_steps) {
        PD_TRY(one_step(t, &end, err));
        if (end) break;
        const int64_t step = run->at.step;
        const bool last = run->at.step_in_epoch >= t->per_epoch || step >= run->total_steps;
        if (step % t->plan.log_interval == 0 || step == run->total_steps) PD_TRY(log_steps(t, err));
        bool stop;
        PD_TRY(pd_comm_any(&stop, t->comm, pd_cli_stop_asked(), err));
        if (stop || (last && t->val_loader) || (t->plan.save_interval && step % t->plan.save_interval == 0))
            PD_TRY(save_last(t, err));
        if (stop) return PD_FAIL(err, PD_ESTOP, "stopped at step %lld; go on with --resume auto", (long long)step);
    }
    PD_TRY(read_losses(t, true, err));
    return end_epoch(t, end || run->at.step_in_epoch >= t->per_epoch, err);
}

pd_status pd_trainer_loop(pd_trainer *t, pd_err *err)
{
    pd_train_run *run = &t->run;
    const int64_t before = run->at.closed;
    pd_cli_catch_stop();
    while (pd_train_going(run)) PD_TRY(train_epoch(t, err));
    if (run->patience && run->at.stale >= run->patience && run->at.step < run->total_steps)
        pd_progress_line(&t->progress, "stopped early: %lld validations without a better result than %.3f",
                         (long long)run->at.stale, run->at.best);
    pd_progress_end(&t->progress, run->at.step);
    t->idle = t->resumed && run->at.closed == before;
    int64_t bad = (int64_t)pd_loader_bad(t->train_loader);
    PD_TRY(pd_comm_sum(t->comm, &bad, 1, PD_COMM_I64, err));
    if (bad && pd_comm_rank(t->comm) == 0)
        fprintf(stderr, "%lld training images could not be read and were replaced\n", (long long)bad);
    pd_log *log = run->log;
    run->log = NULL;
    return pd_log_close(log, err);
}

/* ---- the program ---- */

static pd_status run_all(pd_trainer *t, pd_err *err)
{
    t->arena = pd_arena_new();
    if (!t->arena) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    if (t->opt->help_config) {
        char *text;
        PD_TRY(pd_config_help(&text, t->kind->table, t->arena, err));
        fputs(text, stdout);
        return PD_OK;
    }
    PD_TRY(pd_comm_open(&t->comm, err));
    PD_TRY(t->kind->configure(t, err));
    PD_TRY(pd_ranks_watch(t->comm, t->plan.rank_timeout, err));
    PD_TRY(pd_ranks_device(&t->device, t->comm, t->args->device, t->args->threads, err));
    PD_TRY(pd_ranks_precision(t->device_line, t->device, t->args->precision, t->plan.precision, err));
    if (t->opt->print_config && pd_comm_rank(t->comm) == 0) puts(t->config_text);
    return t->opt->check || t->opt->print_config ? PD_OK : t->kind->run(t, err);
}

int pd_trainer_main(pd_trainer *t, const pd_cli *cli)
{
    pd_err err = PD_ERR_INIT;
    const pd_status status = run_all(t, &err);
    if (status != PD_OK) pd_ranks_blame(t->comm, &err);
    const int result = pd_cli_close_stdout(cli, status == PD_OK ? 0 : pd_cli_fail(cli, &err));
    if (result) pd_comm_close(t->comm, result); /* ends other processes and does not come back; NULL: nothing */
    pd_train_run_free(&t->run);
    pd_loader_close(t->train_loader);
    pd_loader_close(t->val_loader);
    t->kind->close(t);
    pd_device_close(t->device);
    pd_arena_free(t->arena);
    if (!result) pd_comm_close(t->comm, 0);
    return result;
}
