#include "tools/train_run.h"
#include "engine/file.h"
#include "tools/progress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const optimizers[] = {"sgd", "adamw", "lamb", NULL};
static const char *const decays[] = {"all", "no_norm", "kernels", NULL}; /* as in pd_decay */
static const pd_field optimizer_fields[] = {
    PD_ENUM(pd_optimizer_cfg, type, optimizers, .text = "sgd", .doc = "sgd, adamw or lamb (the last two on the CPU)"),
    PD_DOUBLE(pd_optimizer_cfg, lr, .def = 0.1, .min = 0, .max = 1000, .doc = "base learning rate"),
    PD_DOUBLE(pd_optimizer_cfg, momentum, .def = 0.9, .min = 0, .max = 1, .doc = "of SGD"),
    PD_DOUBLE(pd_optimizer_cfg, beta1, .def = 0.9, .min = 0, .max = 0.999999, .doc = "of AdamW and LAMB: decay of the mean gradient"),
    PD_DOUBLE(pd_optimizer_cfg, beta2, .def = 0.999, .min = 0, .max = 0.999999, .doc = "of AdamW and LAMB: decay of the mean square"),
    PD_DOUBLE(pd_optimizer_cfg, eps, .def = 1e-6, .min = 0, .max = 1, .doc = "of AdamW and LAMB: added to the root of the mean square"),
    PD_DOUBLE(pd_optimizer_cfg, weight_decay, .def = 1e-4, .min = 0, .max = 1, .doc = "weight decay"),
    PD_ENUM(pd_optimizer_cfg, decay, decays, .text = "all", .doc = "what decays: all, no_norm (not batch norms), kernels (no vectors)"),
    PD_DOUBLE(pd_optimizer_cfg, clip_norm, .def = 0, .min = 0, .max = 1e9,
              .doc = "largest L2 norm of all gradients; 0: none"),
    PD_BOOL(pd_optimizer_cfg, nesterov, .def = 0, .doc = "Nesterov's momentum"),
};
const pd_table pd_optimizer_table = PD_TABLE(pd_optimizer_cfg, optimizer_fields);

pd_status pd_train_run_init(pd_train_run *run, pd_device *device, pd_params *params, const char *dir,
                            const pd_optimizer_cfg *optimizer, const pd_schedule *schedule, double ema_decay,
                            int64_t total_epochs, int64_t total_steps, pd_err *err)
{
    *run = (pd_train_run){.device = device,
                          .params = params,
                          .dir = dir,
                          .optimizer = *optimizer,
                          .schedule = *schedule,
                          .ema_decay = ema_decay,
                          .total_epochs = total_epochs,
                          .total_steps = total_steps,
                          .passes = 1,
                          .at.best = NAN,
                          .grad_norm = NAN};
    size_t count;
    const float *weights = pd_params_weights(params, &count);
    run->arena = pd_arena_new();
    if (!run->arena) return PD_FAIL(err, PD_ENOMEM, "out of memory for a training run");
    PD_TRY(device->alloc(device, (void **)&run->velocity, count * sizeof(float), err));
    PD_TRY(device->fill(device, run->velocity, 0, count * sizeof(float), err));
    pd_params_decay(params, (pd_decay)optimizer->decay);
    if (optimizer->type) {
        PD_TRY(device->alloc(device, (void **)&run->square, count * sizeof(float), err));
        PD_TRY(device->fill(device, run->square, 0, count * sizeof(float), err));
    }
    if (ema_decay > 0) {
        PD_TRY(device->alloc(device, (void **)&run->ema, count * sizeof(float), err));
        PD_TRY(device->copy(device, run->ema, weights, count * sizeof(float), err));
    }
    return PD_OK;
}

void pd_train_run_free(pd_train_run *run)
{
    pd_average_free(run->average);
    if (run->velocity) run->device->release(run->device, run->velocity);
    if (run->square) run->device->release(run->device, run->square);
    if (run->ema) run->device->release(run->device, run->ema);
    pd_log_close(run->log, NULL);
    pd_arena_free(run->arena);
    *run = (pd_train_run){0};
}

#define STATE_SIZE 8 /* numbers of train.state */
#define SCALE_SIZE 2 /* of train.scale */

/* Rank 0's weights, statistics, state and position for all. */
static pd_status share_state(pd_train_run *run, pd_err *err)
{
    pd_comm *comm = run->device->comm;
    size_t weights, buffers;
    float *const w = pd_params_weights(run->params, &weights), *const b = pd_params_buffers(run->params, &buffers);
    PD_TRY(pd_comm_broadcast(comm, w, weights * sizeof *w, 0, err));
    PD_TRY(pd_comm_broadcast(comm, b, buffers * sizeof *b, 0, err));
    PD_TRY(pd_comm_broadcast(comm, run->velocity, weights * sizeof *w, 0, err));
    if (run->square) PD_TRY(pd_comm_broadcast(comm, run->square, weights * sizeof *w, 0, err));
    if (run->ema) PD_TRY(pd_comm_broadcast(comm, run->ema, weights * sizeof *w, 0, err));
    if (run->device->scale) PD_TRY(pd_comm_broadcast(comm, run->device->scale, SCALE_SIZE * sizeof(float), 0, err));
    return pd_comm_broadcast(run->comm, &run->at, sizeof run->at, 0, err);
}

pd_status pd_train_run_open(pd_train_run *run, const char *config, bool resumed, pd_err *err)
{
    char *path;
    PD_TRY(share_state(run, err));
    PD_TRY(pd_average_new(&run->average, run->params, run->device->comm, run->passes, err));
    if (pd_comm_rank(run->comm) > 0) return PD_OK;
    PD_TRY(pd_make_dirs(run->dir, err));
    PD_TRY(pd_path_join(&path, run->dir, "config.json", run->arena, err));
    PD_TRY(pd_file_write(path, config, strlen(config), err));
    return pd_log_open(&run->log, run->dir, resumed ? run->at.step : -1, run->at.closed < run->at.step ? "val" : NULL,
                       pd_wall_time(), err);
}

bool pd_train_going(const pd_train_run *run)
{
    const pd_train_position *at = &run->at;
    if (run->patience && at->stale >= run->patience && at->closed == at->step) return false;
    return at->epoch < run->total_epochs && (at->step < run->total_steps || at->closed < at->step);
}

bool pd_train_judge(pd_train_run *run, double result)
{
    const bool best = !(result <= run->at.best); /* NaN: the first */
    if (best) run->at.best = result;
    run->at.stale = best ? 0 : run->at.stale + 1;
    return best;
}

static pd_status update(pd_train_run *run, const pd_sgd *sgd, pd_err *err)
{
    const pd_optimizer_cfg *o = &run->optimizer;
    if (!o->type) return pd_sgd_step(run->device, run->params, run->velocity, sgd, err);
    const pd_adam adam = {.lr = sgd->lr, .beta1 = o->beta1, .beta2 = o->beta2, .eps = o->eps, .weight_decay = o->weight_decay,
                          .scale = sgd->scale, .clip = sgd->clip, .step = run->at.step + 1, .lamb = o->type == 2};
    return pd_adam_step(run->device, run->params, run->velocity, run->square, &adam, err);
}

pd_status pd_train_step(pd_train_run *run, pd_err *err)
{
    pd_sgd sgd = {.momentum = run->optimizer.momentum,
                  .weight_decay = run->optimizer.weight_decay,
                  .nesterov = run->optimizer.nesterov,
                  .scale = 1.0 / run->passes};
    run->clip = (pd_clip){.max_norm = run->optimizer.clip_norm, .passes = run->passes, .norm = NAN};
    if (run->clip.max_norm > 0) sgd.clip = &run->clip;
    PD_TRY(pd_average_finish(run->average, err));
    run->lr = sgd.lr = pd_schedule_lr(&run->schedule, run->optimizer.lr, run->at.epoch, run->at.step, run->total_epochs,
                                      run->total_steps);
    PD_TRY(update(run, &sgd, err));
    if (run->ema) {
        size_t count;
        const float *weights = pd_params_weights(run->params, &count);
        /* the average forgets its start sooner: decay grows to its value (as torch's and TensorFlow's recipes do) */
        const double early = (1.0 + (double)run->at.step) / (10.0 + (double)run->at.step);
        PD_TRY(
            pd_ema_step(run->device, run->ema, weights, count, early < run->ema_decay ? early : run->ema_decay, err));
    }
    if (run->device->kind == PD_CPU) run->grad_norm = run->clip.norm;
    run->at.step++;
    run->at.step_in_epoch++;
    return PD_OK;
}

void pd_train_passed(pd_train_run *run, int images)
{
    run->unread[run->n_unread++] = (pd_train_pass){run->at.step + 1, run->lr, images};
}

bool pd_train_unread(const pd_train_run *run, bool all)
{
    return run->n_unread > (all || run->device->kind == PD_CPU ? 0 : PD_PLAN_LATE - 1);
}

pd_status pd_train_loss(pd_train_run *run, double loss, int *images, pd_err *err)
{
    const pd_train_pass pass = run->unread[0];
    memmove(run->unread, run->unread + 1, (size_t)--run->n_unread * sizeof *run->unread);
    if (!isfinite(loss))
        return PD_FAIL(err, PD_EINVAL, "the loss is %g at step %lld: lower optimizer.lr (%g now) or check the data", loss,
                       (long long)pass.step, pass.lr);
    *images = pass.images;
    return PD_OK;
}

pd_status pd_train_read_norm(pd_train_run *run, pd_err *err)
{
    if (!(run->clip.max_norm > 0)) return PD_OK; /* no clipping, or no step yet */
    PD_TRY(pd_clip_read(&run->clip, run->device, err));
    run->grad_norm = run->clip.norm;
    return PD_OK;
}

static pd_status save_scale(pd_st_writer *w, float scale[SCALE_SIZE], pd_device *d, pd_err *err)
{
    const int64_t shape[1] = {SCALE_SIZE};
    if (!d->scale) return PD_OK;
    PD_TRY(d->download(d, scale, d->scale, SCALE_SIZE * sizeof *scale, err));
    return pd_st_add(w, "train.scale", PD_ST_F32, 1, shape, scale, err);
}

/* A file without a scale, or a device without one: nothing. */
static pd_status load_scale(pd_device *d, const pd_st *file, pd_err *err)
{
    const pd_st_tensor *t = pd_st_find(file, "train.scale");
    const int64_t shape[1] = {SCALE_SIZE};
    float scale[SCALE_SIZE];
    int exponent;
    if (!d->scale || !t) return PD_OK;
    PD_TRY(pd_st_need(&t, file, "train.scale", 1, shape, err));
    if (t->type != PD_ST_F32)
        return PD_FAIL(err, PD_EFORMAT, "%s: train.scale is %s, expected F32", pd_st_path(file), pd_st_type_name(t->type));
    memcpy(scale, t->data, sizeof scale);
    if (!(scale[0] >= 1 && scale[0] <= 1e9f && frexpf(scale[0], &exponent) == 0.5f))
        return PD_FAIL(err, PD_EFORMAT, "%s: train.scale[0] is %g, expected a power of two from 1 on", pd_st_path(file),
                       (double)scale[0]);
    if (!(scale[1] >= 0 && scale[1] <= 1e6f && scale[1] == floorf(scale[1])))
        return PD_FAIL(err, PD_EFORMAT, "%s: train.scale[1] is %g, expected a number of steps", pd_st_path(file),
                       (double)scale[1]);
    return d->upload(d, d->scale, scale, sizeof scale, err);
}

pd_status pd_train_save(pd_train_run *run, const char *name, const pd_model_meta *meta, bool weights_only, pd_err *err)
{
    pd_st_writer *w = NULL;
    char *path;
    float scale[SCALE_SIZE]; /* read by the commit */
    const double state[STATE_SIZE] = {(double)run->at.step, (double)run->at.epoch, (double)run->at.step_in_epoch,
                                      run->at.best, (double)run->at.images, (double)run->at.closed,
                                      (double)run->at.stale};
    const int64_t state_shape[1] = {STATE_SIZE};
    if (pd_comm_rank(run->comm) > 0) return PD_OK;
    pd_arena *arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "out of memory for a checkpoint");
    pd_status status = PD_OK;
    bool swapped = false;
    if (weights_only) PD_TRY_DONE(pd_train_swap_ema(run, err));
    swapped = weights_only;
    PD_TRY_DONE(pd_path_join(&path, run->dir, name, arena, err));
    PD_TRY_DONE(pd_st_create(&w, path, PD_ST_SORTED, err));
    PD_TRY_DONE(pd_model_meta_write(w, meta, err));
    PD_TRY_DONE(pd_save_params(w, run->params, arena, err));
    if (!weights_only) {
        PD_TRY_DONE(pd_save_block(w, run->params, "train.momentum.", run->velocity, arena, err));
        if (run->square) PD_TRY_DONE(pd_save_block(w, run->params, "train.square.", run->square, arena, err));
        if (run->ema) PD_TRY_DONE(pd_save_block(w, run->params, "train.ema.", run->ema, arena, err));
        PD_TRY_DONE(save_scale(w, scale, run->device, err));
        PD_TRY_DONE(pd_st_add(w, "train.state", PD_ST_F64, 1, state_shape, state, err));
    }
    status = pd_st_commit(w, err);
    w = NULL;
done:
    if (swapped && pd_train_swap_ema(run, status == PD_OK ? err : NULL) != PD_OK && status == PD_OK) status = PD_EDEVICE;
    pd_st_cancel(w);
    pd_arena_free(arena);
    return status;
}

pd_status pd_train_resume(pd_train_run *run, const char *path, pd_err *err)
{
    pd_st *file = NULL;
    char *report;
    const pd_st_tensor *t;
    const int64_t shape[1] = {STATE_SIZE};
    double state[STATE_SIZE];
    PD_TRY(pd_st_open(&file, path, err));
    pd_status status = PD_OK;
    const pd_load_options options = {0};
    PD_TRY_DONE(pd_st_need(&t, file, "train.state", 1, shape, err));
    if (t->type != PD_ST_F64) {
        status = PD_FAIL(err, PD_EFORMAT, "%s: train.state is %s, expected F64", path, pd_st_type_name(t->type));
        goto done;
    }
    memcpy(state, t->data, sizeof state);
    for (int i = 0; i < STATE_SIZE; i++)
        if (i != 3 && !(state[i] >= 0 && state[i] < 1e15)) {
            status = PD_FAIL(err, PD_EFORMAT, "%s: train.state[%d] is %g: not a position of a run", path, i, state[i]);
            goto done;
        }
    status = pd_load_params(run->params, file, &options, &report, run->arena, err);
    if (status == PD_EFORMAT) fputs(report, stderr);
    if (status != PD_OK) goto done;
    PD_TRY_DONE(pd_load_block(run->velocity, run->params, "train.momentum.", file, err));
    if (run->square) PD_TRY_DONE(pd_load_block(run->square, run->params, "train.square.", file, err));
    if (run->ema) PD_TRY_DONE(pd_load_block(run->ema, run->params, "train.ema.", file, err));
    PD_TRY_DONE(load_scale(run->device, file, err));
    run->at = (pd_train_position){(int64_t)state[0], (int64_t)state[1], (int64_t)state[2], state[3], (int64_t)state[4],
                                  (int64_t)state[5], (int64_t)state[6]};
done:
    pd_st_close(file);
    return status;
}

pd_status pd_train_resume_path(char **out, const pd_train_run *run, const char *resume, pd_arena *arena, pd_err *err)
{
    char *path = NULL;
    if (pd_comm_rank(run->comm) > 0) resume = NULL;
    if (resume && strcmp(resume, "auto") != 0) return pd_strdup(out, arena, resume, err);
    if (resume) {
        PD_TRY(pd_path_join(&path, run->dir, "last.safetensors", arena, err));
        if (!pd_file_exists(path)) path = NULL;
    }
    *out = path;
    return PD_OK;
}

pd_status pd_train_swap_ema(pd_train_run *run, pd_err *err)
{
    if (!run->ema) return PD_OK;
    size_t count;
    float *weights = pd_params_weights(run->params, &count);
    return pd_swap_blocks(run->device, weights, run->ema, count, err);
}
