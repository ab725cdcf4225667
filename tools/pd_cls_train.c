/* pd_cls_train: pretrains a classifier backbone on an ImageNet-layout folder. The story is in train(). */
#include "backbones/classifier.h"
#include "datasets/loader.h"
#include "datasets/mix.h"
#include "engine/file.h"
#include "tools/cli.h"
#include "tools/cls_config.h"
#include "tools/progress.h"
#include "tools/ranks.h"
#include "tools/report.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MIX_STREAM UINT64_C(0x6d697875700000) /* of random numbers, apart from the loader's */

/* What the command line says beside the configuration. */
typedef struct options {
    const char *arch, *data, *resume, *work_dir, *init;
    int workers, epochs, batch;
    double lr, momentum, decay;
    int64_t seed;
    bool evaluate, check, print_config, help_config, lenient;
} options;

/* Everything a run needs. */
typedef struct session {
    const pd_cli_args *args;
    const options *opt;
    pd_cls_config cfg;
    char *config_text;
    pd_arena *arena;
    pd_comm *comm; /* the processes that train together; NULL: alone */
    pd_device *device;
    char device_line[512];
    pd_imagenet train_set, val_set;
    pd_classifier *net;
    pd_loader *train_loader, *val_loader;
    pd_model_meta meta;
    pd_train_run run;
    pd_progress progress;
    int *mixed_labels; /* of mixup and CutMix */
    float *mix_work;
    size_t label_room, work_room;
} session;

/* ---- setting up ---- */

static pd_status read_config(session *s, pd_err *err)
{
    const options *o = s->opt;
    pd_config *c = NULL;
    pd_status status = PD_OK;
    if (s->args->n_args)
        PD_TRY(pd_config_load(&c, s->args->args[0], err));
    else
        PD_TRY(pd_config_parse(&c, "command line", "{}", 2, err));
    if (o->arch) PD_TRY_DONE(pd_config_set_string(c, "model.arch", o->arch, err));
    if (o->data) PD_TRY_DONE(pd_config_set_string(c, "data.root", o->data, err));
    if (o->work_dir) PD_TRY_DONE(pd_config_set_string(c, "work_dir", o->work_dir, err));
    if (o->workers >= 0) PD_TRY_DONE(pd_config_set_number(c, "data.workers", o->workers, err));
    if (o->epochs >= 0) PD_TRY_DONE(pd_config_set_number(c, "train.epochs", o->epochs, err));
    if (o->batch > 0) PD_TRY_DONE(pd_config_set_number(c, "train.batch_size", o->batch, err));
    if (o->lr >= 0) PD_TRY_DONE(pd_config_set_number(c, "optimizer.lr", o->lr, err));
    if (o->momentum >= 0) PD_TRY_DONE(pd_config_set_number(c, "optimizer.momentum", o->momentum, err));
    if (o->decay >= 0) PD_TRY_DONE(pd_config_set_number(c, "optimizer.weight_decay", o->decay, err));
    if (o->seed >= 0) PD_TRY_DONE(pd_config_set_number(c, "train.seed", (double)o->seed, err));
    for (size_t i = 0; i < s->args->set.count; i++) PD_TRY_DONE(pd_config_set(c, s->args->set.items[i], err));
    PD_TRY_DONE(pd_config_read(&s->cfg, c, &pd_cls_table, s->arena, err));
    if (!s->cfg.work_dir) {
        char *dir;
        const char *name = s->args->n_args ? s->args->args[0] : s->cfg.model.arch;
        const char *base = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
        const int length = (int)(strstr(base, ".json") ? (size_t)(strstr(base, ".json") - base) : strlen(base));
        PD_TRY_DONE(pd_format(&dir, s->arena, err, "runs/%.*s", length, base));
        s->cfg.work_dir = dir;
    }
    PD_TRY_DONE(pd_config_print(&s->config_text, &s->cfg, &pd_cls_table, s->arena, err));
done:
    pd_config_free(c);
    return status;
}

static void warn(void *arg, const char *text)
{
    session *s = arg;
    if (pd_comm_rank(s->comm) == 0)
        pd_progress_line(&s->progress, "skipped: %s", text);
    else if (!s->args->quiet)
        fprintf(stderr, "rank %d: skipped: %s\n", pd_comm_rank(s->comm), text);
}

static pd_status open_loader(session *s, pd_loader **out, const pd_imagenet *set, bool train, pd_err *err)
{
    const pd_cls_config *c = &s->cfg;
    pd_loader_config l = pd_loader_defaults();
    l.imagenet = set;
    l.transform = train ? pd_cls_train_transform(c) : pd_cls_val_transform(c);
    PD_TRY(pd_ranks_share(&l.batch, s->comm, c->train.batch_size, "train.batch_size", err));
    l.rank = pd_comm_rank(s->comm);
    l.world = pd_comm_world(s->comm);
    l.exact = !train;
    l.shuffle = train && c->data.shuffle;
    l.drop_last = train && c->train.drop_last;
    l.seed = (uint64_t)c->train.seed;
    l.threads = c->data.workers;
    l.bad_images = c->data.bad_images == PD_POLICY_ERROR ? PD_BAD_ERROR : train ? PD_BAD_REPLACE : PD_BAD_DROP;
    l.warn = warn;
    l.warn_arg = s;
    return pd_loader_open(out, &l, err);
}

static pd_status open_data(session *s, pd_err *err)
{
    const pd_cls_config *c = &s->cfg;
    char *train, *val;
    if (!c->data.root) return PD_FAIL(err, PD_EINVAL, "data.root is not set: give the folder with train/ and val/ by -d DIR");
    PD_TRY(pd_path_join(&train, c->data.root, c->data.train, s->arena, err));
    PD_TRY(pd_path_join(&val, c->data.root, c->data.val, s->arena, err));
    PD_TRY(pd_imagenet_open(&s->train_set, train, NULL, 0, s->arena, err));
    if (pd_file_exists(val))
        PD_TRY(pd_imagenet_open(&s->val_set, val, s->train_set.classes, s->train_set.n_classes, s->arena, err));
    const int classes = c->model.num_classes ? c->model.num_classes : s->train_set.n_classes;
    if (classes < s->train_set.n_classes)
        return PD_FAIL(err, PD_EINVAL, "model.num_classes is %d, but %s holds %d class folders", classes, train,
                       s->train_set.n_classes);
    if (s->val_set.n) PD_TRY(open_loader(s, &s->val_loader, &s->val_set, false, err));
    if (s->opt->evaluate) return PD_OK;
    PD_TRY(open_loader(s, &s->train_loader, &s->train_set, true, err));
    if (pd_loader_steps(s->train_loader) == 0)
        return PD_FAIL(err, PD_EINVAL, "%s: %zu images are less than one batch of %d (train.batch_size; train.drop_last drops it)",
                       train, s->train_set.n, c->train.batch_size);
    return PD_OK;
}

static pd_status load_init(session *s, const char *path, pd_err *err)
{
    pd_st *file = NULL;
    char *report;
    const pd_load_options how = {.lenient = s->opt->lenient};
    PD_TRY(pd_st_open(&file, path, err));
    const pd_status status = pd_load_params(pd_classifier_params(s->net), file, &how, &report, s->arena, err);
    pd_st_close(file);
    if (status == PD_OK || status == PD_EFORMAT) fputs(report, stderr);
    return status;
}

static pd_status open_net(session *s, pd_err *err)
{
    const pd_cls_config *c = &s->cfg;
    pd_classifier_settings set = {.classes = c->model.num_classes ? c->model.num_classes : s->train_set.n_classes,
                                  .train = !s->opt->evaluate, .sync_bn = c->model.sync_bn};
    pd_cls_loss_settings(&set, c);
    PD_TRY(pd_arch_parse(&set.arch, c->model.arch, c->model.branches, err));
    PD_TRY(pd_classifier_new(&s->net, s->device, &set, err));
    PD_TRY(pd_params_init(pd_classifier_params(s->net), (uint64_t)c->train.seed, err));
    if (c->model.zero_init_residual) PD_TRY(pd_classifier_zero_residuals(s->net, err));
    if (s->opt->init) PD_TRY(load_init(s, s->opt->init, err));
    s->meta = (pd_model_meta){.type = "classifier", .arch = set.arch, .classes = set.classes, .config = s->config_text,
                              .names = set.classes == s->train_set.n_classes ? (const char *const *)s->train_set.classes : NULL};
    for (int i = 0; i < 3; i++) {
        s->meta.mean[i] = c->data.mean[i] * 255;
        s->meta.std[i] = c->data.std[i] * 255;
    }
    return PD_OK;
}

/* ---- validation ---- */

typedef struct score {
    double loss, top1, top5; /* per cent */
    size_t images;
} score;

/* Adds one image: its cross-entropy, and the rank of its class (ties count against it only before it). */
static void judge(score *sum, const float *logits, int classes, int label)
{
    double top = -DBL_MAX, total = 0;
    int better = 0;
    for (int k = 0; k < classes; k++) {
        top = fmax(top, (double)logits[k]);
        better += logits[k] > logits[label] || (logits[k] == logits[label] && k < label);
    }
    for (int k = 0; k < classes; k++) total += exp((double)logits[k] - top);
    sum->loss += log(total) + top - (double)logits[label];
    sum->top1 += better < 1;
    sum->top5 += better < 5;
    sum->images++;
}

static pd_status validate(session *s, score *out, pd_err *err)
{
    score sum = {0};
    const int classes = pd_classifier_get(s->net)->classes;
    PD_TRY(pd_loader_start(s->val_loader, 0, 0, err));
    for (;;) {
        const pd_batch *b;
        pd_classified y;
        PD_TRY(pd_loader_next(s->val_loader, &b, err));
        if (!b) break;
        PD_TRY(pd_classifier_run(s->net, PD_FORM_FUSED, b->pixels, b->n, b->h, b->w, &y, err));
        for (int i = 0; i < b->n; i++) judge(&sum, y.logits + (size_t)i * (size_t)classes, classes, b->labels[i]);
        pd_loader_done(s->val_loader, b);
        if (pd_cli_stop_asked()) return PD_FAIL(err, PD_ESTOP, "stopped during a validation; go on with --resume auto");
    }
    double all[] = {sum.loss, sum.top1, sum.top5, (double)sum.images};
    PD_TRY(pd_comm_sum(s->comm, all, 4, PD_COMM_F64, err));
    sum = (score){all[0], all[1], all[2], (size_t)all[3]};
    if (sum.images) {
        const double n = (double)sum.images;
        sum.loss /= n;
        sum.top1 *= 100 / n;
        sum.top5 *= 100 / n;
    }
    *out = sum;
    return PD_OK;
}

/* Behind the last step of an epoch, or of the run where that ends inside one: validation and checkpoints. What was
 * stopped or killed in here comes again in a run that goes on: the checkpoint of the last step was taken before, and
 * `closed` tells. */
static pd_status end_epoch(session *s, bool whole, pd_err *err)
{
    bool best = false;
    if (whole) {
        s->run.at.epoch++;
        s->run.at.step_in_epoch = 0;
    }
    if (s->val_loader) {
        score v;
        PD_TRY(pd_train_swap_ema(&s->run, err));
        pd_classifier_changed(s->net);
        const pd_status status = validate(s, &v, err);
        PD_TRY(pd_train_swap_ema(&s->run, status == PD_OK ? err : NULL));
        PD_TRY(status);
        best = !(v.top1 <= s->run.at.best); /* NaN: the first */
        if (best) s->run.at.best = v.top1;
        const pd_log_value line[] = {{"epoch", (double)s->run.at.epoch}, {"loss", v.loss}, {"top1", v.top1}, {"top5", v.top5}};
        PD_TRY(pd_log_write(s->run.log, "val", s->run.at.step, pd_wall_time(), line, 4, err));
        pd_progress_line(&s->progress, "epoch %lld: val loss %.4f, top-1 %.2f %%, top-5 %.2f %%%s", (long long)s->run.at.epoch,
                         v.loss, v.top1, v.top5, best ? " (best)" : "");
    }
    if (best) PD_TRY(pd_train_save(&s->run, "best.safetensors", &s->meta, true, err));
    s->run.at.closed = s->run.at.step;
    return pd_train_save(&s->run, "last.safetensors", &s->meta, false, err);
}

/* ---- training ---- */

/* Sums since the last log line. */
typedef struct tally {
    double loss, correct, images, data_s, step_s, started;
    int steps;
} tally;

/* Adds up the losses that are there. all: waits for those under way, too. */
static pd_status read_losses(session *s, tally *t, bool all, pd_err *err)
{
    while (pd_train_unread(&s->run, all)) {
        float loss;
        int correct, images;
        PD_TRY(pd_classifier_late(s->net, &loss, &correct, err));
        PD_TRY(pd_train_loss(&s->run, (double)loss, &images, err));
        t->loss += (double)loss * images;
        t->correct += correct;
    }
    return PD_OK;
}

static pd_status save_last(session *s, tally *t, pd_err *err)
{
    PD_TRY(read_losses(s, t, true, err)); /* nothing that came of a bad one is kept */
    return pd_train_save(&s->run, "last.safetensors", &s->meta, false, err);
}

static pd_status log_steps(session *s, tally *t, pd_err *err)
{
    PD_TRY(read_losses(s, t, true, err));
    double sums[] = {t->loss, t->correct, t->images};
    PD_TRY(pd_comm_sum(s->comm, sums, 3, PD_COMM_F64, err));
    PD_TRY(pd_train_read_norm(&s->run, err));
    t->loss = sums[0];
    t->correct = sums[1];
    t->images = sums[2];
    const double n = t->images > 0 ? t->images : 1, seconds = pd_seconds() - t->started, steps = t->steps ? t->steps : 1;
    const pd_log_value line[] = {{"epoch", (double)s->run.at.epoch}, {"loss", t->loss / n}, {"top1", 100 * t->correct / n},
                                 {"lr", s->run.lr}, {"images_per_s", t->images / seconds}, {"data_s", t->data_s / steps},
                                 {"step_s", t->step_s / steps}, {"grad_norm", s->run.grad_norm}};
    const size_t count = sizeof line / sizeof *line - (isnan(s->run.grad_norm) ? 1 : 0);
    const pd_status status = pd_log_write(s->run.log, "train", s->run.at.step, pd_wall_time(), line, count, err);
    char note[96];
    snprintf(note, sizeof note, "loss %.4f  top-1 %.1f %%  lr %.4g  %.1f images/s", t->loss / n, 100 * t->correct / n, s->run.lr,
             t->images / seconds);
    pd_progress_update(&s->progress, s->run.at.step, note);
    *t = (tally){.started = pd_seconds()};
    return status;
}

/* The forward pass of a batch, whose images are mixed where the configuration says so. */
static pd_status forward(session *s, const pd_batch *b, pd_err *err)
{
    const pd_mix_cfg cfg = {s->cfg.train.mixup, s->cfg.train.cutmix};
    if (cfg.mixup <= 0 && cfg.cutmix <= 0)
        return pd_classifier_loss(s->net, b->pixels, b->labels, b->n, b->h, b->w, NULL, NULL, err);
    PD_TRY(pd_grow(&s->mixed_labels, &s->label_room, (size_t)b->n, sizeof *s->mixed_labels, err));
    PD_TRY(pd_grow(&s->mix_work, &s->work_room, (size_t)b->h * (size_t)b->w * 3, sizeof *s->mix_work, err));
    pd_rng rng = pd_rng_make((uint64_t)s->cfg.train.seed ^ MIX_STREAM, (uint32_t)s->run.at.images,
                             (uint32_t)(s->run.at.images >> 32) << 16 | (uint32_t)pd_comm_rank(s->comm));
    const pd_mix mix = pd_mix_draw(&cfg, b->h, b->w, &rng);
    pd_mix_apply(&mix, b->pixels, b->labels, s->mixed_labels, b->n, b->h, b->w, s->mix_work);
    return pd_classifier_loss_mixed(s->net, b->pixels, b->labels, s->mixed_labels, mix.share, b->n, b->h, b->w, NULL,
                                    NULL, err);
}

/* One optimiser step from `accumulate` batches. *end: the epoch has no whole step left. */
static pd_status one_step(session *s, tally *t, bool *end, pd_err *err)
{
    const int groups = s->cfg.train.accumulate;
    for (int g = 0; g < groups; g++) {
        const pd_batch *b;
        const double waiting = pd_seconds();
        PD_TRY(pd_loader_next(s->train_loader, &b, err));
        const double begun = pd_seconds();
        *end = !b;
        if (!b) return PD_OK;
        PD_TRY(forward(s, b, err));
        pd_train_passed(&s->run, b->n);
        PD_TRY(read_losses(s, t, false, err));
        PD_TRY(pd_classifier_backward(s->net, g > 0, err));
        t->images += b->n;
        s->run.at.images += b->n * pd_comm_world(s->comm);
        pd_loader_done(s->train_loader, b);
        t->data_s += begun - waiting;
        t->step_s += pd_seconds() - begun;
    }
    const double begun = pd_seconds();
    PD_TRY(pd_train_step(&s->run, err));
    t->step_s += pd_seconds() - begun;
    t->steps++;
    return PD_OK;
}

static pd_status train(session *s, pd_err *err)
{
    const pd_cls_config *c = &s->cfg;
    pd_train_run *run = &s->run;
    const int64_t per_epoch = (int64_t)pd_loader_steps(s->train_loader) / c->train.accumulate;
    if (!per_epoch)
        return PD_FAIL(err, PD_EINVAL, "%s: %zu images are less than one step of %d batches of %d (train.accumulate)",
                       c->data.root, s->train_set.n, c->train.accumulate, c->train.batch_size);
    const int64_t planned = per_epoch * c->train.epochs;
    const int64_t total = c->train.max_steps && c->train.max_steps < planned ? c->train.max_steps : planned;
    char *resume;
    PD_TRY(pd_train_run_init(run, s->device, pd_classifier_params(s->net), c->work_dir, &c->optimizer, &c->schedule,
                             c->train.ema, c->train.epochs, total, err));
    run->passes = c->train.accumulate;
    run->comm = s->comm;
    PD_TRY(pd_train_resume_path(&resume, run, s->opt->resume, s->arena, err));
    if (resume) PD_TRY(pd_train_resume(run, resume, err));
    PD_TRY(pd_train_run_open(run, s->config_text, resume != NULL, err));
    pd_progress_begin(&s->progress, "training", "steps", total, s->args->quiet || pd_comm_rank(s->comm));
    char ranks[96];
    if (s->comm) pd_progress_line(&s->progress, "%s", pd_ranks_text(ranks, s->comm, s->device));
    pd_progress_line(&s->progress, "%s", s->device_line);
    if (resume) pd_progress_line(&s->progress, "going on from %s, step %lld", resume, (long long)run->at.step);
    pd_progress_line(&s->progress, "%zu training and %zu validation images, %d classes, %.2f M parameters, %lld steps per epoch",
                     s->train_set.n, s->val_set.n, pd_classifier_get(s->net)->classes,
                     (double)pd_params_elements(run->params, false) / 1e6, (long long)per_epoch);
    pd_cli_catch_stop();
    while (pd_train_going(run)) {
        tally t = {.started = pd_seconds()};
        bool end = false;
        PD_TRY(pd_loader_start(s->train_loader, (uint32_t)run->at.epoch, (size_t)(run->at.step_in_epoch * c->train.accumulate), err));
        while (run->at.step_in_epoch < per_epoch && run->at.step < total) {
            PD_TRY(one_step(s, &t, &end, err));
            if (end) break;
            if (run->at.step % c->train.log_interval == 0 || run->at.step == total) PD_TRY(log_steps(s, &t, err));
            bool stop;
            PD_TRY(pd_comm_any(&stop, s->comm, pd_cli_stop_asked(), err));
            const bool last = run->at.step_in_epoch >= per_epoch || run->at.step >= total;
            if (stop || (last && s->val_loader) || (c->train.save_interval && run->at.step % c->train.save_interval == 0))
                PD_TRY(save_last(s, &t, err));
            if (stop) return PD_FAIL(err, PD_ESTOP, "stopped at step %lld; go on with --resume auto", (long long)run->at.step);
        }
        PD_TRY(read_losses(s, &t, true, err));
        PD_TRY(end_epoch(s, end || run->at.step_in_epoch >= per_epoch, err));
    }
    pd_progress_end(&s->progress, run->at.step);
    int64_t bad = (int64_t)pd_loader_bad(s->train_loader);
    PD_TRY(pd_comm_sum(s->comm, &bad, 1, PD_COMM_I64, err));
    if (pd_comm_rank(s->comm)) return PD_OK;
    if (bad) fprintf(stderr, "%lld training images could not be read and were replaced\n", (long long)bad);
    PD_TRY(pd_log_close(run->log, err));
    run->log = NULL;
    char name[32], title[64];
    snprintf(title, sizeof title, "%s on %s", pd_arch_name(name, s->meta.arch), c->data.root);
    char best[32], count[32];
    snprintf(best, sizeof best, "%.2f %%", run->at.best);
    snprintf(count, sizeof count, "%lld", (long long)run->at.epoch);
    const pd_report_fact facts[] = {{"epochs", count}, {"best top-1", best}};
    const pd_report report = {.title = title, .facts = facts, .n_facts = isnan(run->at.best) ? 1 : 2};
    return pd_report_run(c->work_dir, &report, err);
}

static pd_status evaluate(session *s, pd_err *err)
{
    score v;
    if (!s->val_loader) return PD_FAIL(err, PD_EINVAL, "%s: there is no folder \"%s\"", s->cfg.data.root, s->cfg.data.val);
    if (s->opt->resume) PD_TRY(load_init(s, s->opt->resume, err));
    PD_TRY(validate(s, &v, err));
    if (pd_comm_rank(s->comm)) return PD_OK;
    printf("%zu images: loss %.4f, top-1 %.4f %%, top-5 %.4f %%\n", v.images, v.loss, v.top1, v.top5);
    return PD_OK;
}

static pd_status run_all(session *s, pd_err *err)
{
    s->arena = pd_arena_new();
    if (!s->arena) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    if (s->opt->help_config) {
        char *text;
        PD_TRY(pd_config_help(&text, &pd_cls_table, s->arena, err));
        fputs(text, stdout);
        return PD_OK;
    }
    PD_TRY(pd_comm_open(&s->comm, err));
    PD_TRY(read_config(s, err));
    PD_TRY(pd_ranks_watch(s->comm, s->cfg.train.rank_timeout, err));
    PD_TRY(pd_ranks_device(&s->device, s->comm, s->args->device, s->args->threads, err));
    PD_TRY(pd_ranks_precision(s->device_line, s->device, s->args->precision, s->cfg.train.precision, err));
    pd_transform checked = pd_cls_train_transform(&s->cfg);
    PD_TRY(pd_transform_check(&checked, err));
    pd_arch arch;
    PD_TRY(pd_arch_parse(&arch, s->cfg.model.arch, s->cfg.model.branches, err));
    if (s->opt->print_config && pd_comm_rank(s->comm) == 0) puts(s->config_text);
    if (s->opt->check || s->opt->print_config) return PD_OK;
    PD_TRY(open_data(s, err));
    PD_TRY(open_net(s, err));
    return s->opt->evaluate ? evaluate(s, err) : train(s, err);
}

int main(int argc, char **argv)
{
    options o = {.workers = -1, .epochs = -1, .lr = -1, .momentum = -1, .decay = -1, .seed = -1};
    const pd_opt opts[] = {
        PD_OPT_STRING('a', "arch", "NAME", &o.arch, "network, as pd_a_resnet18"),
        PD_OPT_STRING('d', "data", "DIR", &o.data, "folder with train/CLASS/* and val/CLASS/*"),
        PD_OPT_INT('j', "workers", "N", &o.workers, 0, 1024, "loading threads"),
        PD_OPT_INT(0, "epochs", "N", &o.epochs, 0, 100000, "passes over the training set"),
        PD_OPT_INT('b', "batch-size", "N", &o.batch, 1, 65536, "images per step"),
        PD_OPT_DOUBLE(0, "lr", "X", &o.lr, 0, 1000, "base learning rate"),
        PD_OPT_DOUBLE(0, "momentum", "X", &o.momentum, 0, 1, "of SGD"),
        PD_OPT_DOUBLE(0, "weight-decay", "X", &o.decay, 0, 1, "on all parameters"),
        PD_OPT_STRING(0, "resume", "FILE", &o.resume, "go on from a checkpoint; auto: from the run's last"),
        PD_OPT_STRING(0, "init", "FILE", &o.init, "weights to start from"),
        PD_OPT_FLAG(0, "lenient", &o.lenient, "--init may miss tensors or have others (they are listed)"),
        PD_OPT_FLAG('e', "evaluate", &o.evaluate, "only validate (weights by --resume or --init)"),
        PD_OPT_STRING(0, "work-dir", "DIR", &o.work_dir, "the run's folder"),
        PD_OPT_INT64(0, "seed", "N", &o.seed, 0, 9e15, "of weights, order and augmentation"),
        PD_OPT_FLAG(0, "check", &o.check, "check the configuration and stop"),
        PD_OPT_FLAG(0, "print-config", &o.print_config, "print the merged configuration and stop"),
        PD_OPT_FLAG(0, "help-config", &o.help_config, "list every key of a configuration and stop"),
    };
    const pd_cli cli = {.program = "pd_cls_train",
                        .usage = "[CONFIG.json]",
                        .about = "Trains an image classifier, the backbone of a detector, on folders of images.",
                        .example = "pd_cls_train -a pd_a_resnet18 -d imagenet --epochs 100 -b 256 --work-dir runs/pd_a",
                        .opts = opts,
                        .n_opts = sizeof opts / sizeof *opts,
                        .common = PD_CLI_DEVICE | PD_CLI_THREADS | PD_CLI_QUIET | PD_CLI_SET,
                        .min_args = 0,
                        .max_args = 1};
    pd_cli_args args;
    const int code = pd_cli_parse(&args, &cli, argc, argv);
    if (code >= 0) return code;
    if (!args.n_args && !o.arch && !o.help_config) {
        pd_cli_free(&args);
        return pd_cli_wrong(&cli, "a configuration, or -a ARCH and -d DIR, is needed");
    }
    session s = {.args = &args, .opt = &o};
    pd_err err = PD_ERR_INIT;
    const pd_status status = run_all(&s, &err);
    if (status != PD_OK) pd_ranks_blame(s.comm, &err);
    const int result = pd_cli_close_stdout(&cli, status == PD_OK ? 0 : pd_cli_fail(&cli, &err));
    if (result) pd_comm_close(s.comm, result); /* ends other processes and does not come back; NULL: nothing */
    pd_train_run_free(&s.run);
    pd_loader_close(s.train_loader);
    pd_loader_close(s.val_loader);
    pd_classifier_free(s.net);
    free(s.mixed_labels);
    free(s.mix_work);
    pd_device_close(s.device);
    pd_arena_free(s.arena);
    if (!result) pd_comm_close(s.comm, 0);
    pd_cli_free(&args);
    return result;
}
