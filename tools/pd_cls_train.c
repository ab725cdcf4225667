/* pd_cls_train: pretrains a classifier backbone on an ImageNet-layout folder. The story is in tools/trainer.h. */
#include "backbones/classifier.h"
#include "datasets/mix.h"
#include "engine/file.h"
#include "tools/cls_config.h"
#include "tools/ranks.h"
#include "tools/report.h"
#include "tools/trainer.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#define MIX_STREAM UINT64_C(0x6d697875700000) /* of random numbers, apart from the loader's */

/* What the command line says beside the configuration. */
typedef struct options {
    pd_trainer_options common;
    const char *arch, *data, *init;
    int workers, epochs, batch;
    double lr, momentum, decay;
    int64_t seed;
    bool evaluate, lenient;
} options;

/* Everything a run needs. */
typedef struct session {
    pd_trainer t;
    const options *opt;
    pd_cls_config cfg;
    pd_imagenet train_set, val_set;
    pd_classifier *net;
    int *mixed_labels; /* of mixup and CutMix */
    float *mix_work;
    size_t label_room, work_room;
} session;

/* Of t->sums: a loss, and how many images were recognised. */
enum { LOSS, CORRECT, N_SUMS };

/* ---- setting up ---- */

static pd_status read_config(session *s, pd_err *err)
{
    const options *o = s->opt;
    const pd_cli_args *args = s->t.args;
    pd_config *c = NULL;
    pd_status status = PD_OK;
    if (args->n_args)
        PD_TRY(pd_config_load(&c, args->args[0], err));
    else
        PD_TRY(pd_config_parse(&c, "command line", "{}", 2, err));
    if (o->arch) PD_TRY_DONE(pd_config_set_string(c, "model.arch", o->arch, err));
    if (o->data) PD_TRY_DONE(pd_config_set_string(c, "data.root", o->data, err));
    if (o->common.work_dir) PD_TRY_DONE(pd_config_set_string(c, "work_dir", o->common.work_dir, err));
    if (o->workers >= 0) PD_TRY_DONE(pd_config_set_number(c, "data.workers", o->workers, err));
    if (o->epochs >= 0) PD_TRY_DONE(pd_config_set_number(c, "train.epochs", o->epochs, err));
    if (o->batch > 0) PD_TRY_DONE(pd_config_set_number(c, "train.batch_size", o->batch, err));
    if (o->lr >= 0) PD_TRY_DONE(pd_config_set_number(c, "optimizer.lr", o->lr, err));
    if (o->momentum >= 0) PD_TRY_DONE(pd_config_set_number(c, "optimizer.momentum", o->momentum, err));
    if (o->decay >= 0) PD_TRY_DONE(pd_config_set_number(c, "optimizer.weight_decay", o->decay, err));
    if (o->seed >= 0) PD_TRY_DONE(pd_config_set_number(c, "train.seed", (double)o->seed, err));
    for (size_t i = 0; i < args->set.count; i++) PD_TRY_DONE(pd_config_set(c, args->set.items[i], err));
    PD_TRY_DONE(pd_config_read(&s->cfg, c, &pd_cls_table, s->t.arena, err));
    if (!s->cfg.work_dir)
        PD_TRY_DONE(pd_trainer_work_dir(&s->cfg.work_dir, &s->t, args->n_args ? args->args[0] : s->cfg.model.arch, err));
    PD_TRY_DONE(pd_config_print(&s->t.config_text, &s->cfg, &pd_cls_table, s->t.arena, err));
done:
    pd_config_free(c);
    return status;
}

static pd_status configure(pd_trainer *t, pd_err *err)
{
    session *s = (session *)t;
    const pd_cls_config *c = &s->cfg;
    pd_arch arch;
    PD_TRY(read_config(s, err));
    const pd_transform transform = pd_cls_train_transform(c);
    PD_TRY(pd_transform_check(&transform, err));
    PD_TRY(pd_arch_parse(&arch, c->model.arch, c->model.branches, err));
    t->plan = (pd_trainer_plan){.work_dir = c->work_dir,
                                .precision = c->train.precision,
                                .rank_timeout = c->train.rank_timeout,
                                .ema = c->train.ema,
                                .epochs = c->train.epochs,
                                .log_interval = c->train.log_interval,
                                .save_interval = c->train.save_interval,
                                .val_interval = 1,
                                .max_steps = c->train.max_steps,
                                .optimizer = &c->optimizer,
                                .schedule = &c->schedule};
    t->n_sums = N_SUMS;
    return PD_OK;
}

static pd_status open_loader(session *s, pd_loader **out, const pd_imagenet *set, bool train, pd_err *err)
{
    const pd_cls_config *c = &s->cfg;
    pd_loader_config l = pd_trainer_loader(&s->t, train);
    l.imagenet = set;
    l.transform = train ? pd_cls_train_transform(c) : pd_cls_val_transform(c);
    PD_TRY(pd_ranks_share(&l.batch, s->t.comm, c->train.batch_size, "train.batch_size", err));
    l.shuffle = train && c->data.shuffle;
    l.drop_last = train && c->train.drop_last;
    l.seed = (uint64_t)c->train.seed;
    l.threads = c->data.workers;
    l.bad_images = c->data.bad_images == PD_POLICY_ERROR ? PD_BAD_ERROR : train ? PD_BAD_REPLACE : PD_BAD_DROP;
    return pd_loader_open(out, &l, err);
}

static pd_status open_data(session *s, pd_err *err)
{
    const pd_cls_config *c = &s->cfg;
    char *train, *val;
    if (!c->data.root) return PD_FAIL(err, PD_EINVAL, "data.root is not set: give the folder with train/ and val/ by -d DIR");
    PD_TRY(pd_path_join(&train, c->data.root, c->data.train, s->t.arena, err));
    PD_TRY(pd_path_join(&val, c->data.root, c->data.val, s->t.arena, err));
    PD_TRY(pd_imagenet_open(&s->train_set, train, NULL, 0, s->t.arena, err));
    if (pd_file_exists(val))
        PD_TRY(pd_imagenet_open(&s->val_set, val, s->train_set.classes, s->train_set.n_classes, s->t.arena, err));
    const int classes = c->model.num_classes ? c->model.num_classes : s->train_set.n_classes;
    if (classes < s->train_set.n_classes)
        return PD_FAIL(err, PD_EINVAL, "model.num_classes is %d, but %s holds %d class folders", classes, train,
                       s->train_set.n_classes);
    if (s->val_set.n) PD_TRY(open_loader(s, &s->t.val_loader, &s->val_set, false, err));
    if (s->opt->evaluate) return PD_OK;
    PD_TRY(open_loader(s, &s->t.train_loader, &s->train_set, true, err));
    if (pd_loader_steps(s->t.train_loader) == 0)
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
    const pd_status status = pd_load_params(pd_classifier_params(s->net), file, &how, &report, s->t.arena, err);
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
    PD_TRY(pd_classifier_new(&s->net, s->t.device, &set, err));
    PD_TRY(pd_params_init(pd_classifier_params(s->net), (uint64_t)c->train.seed, err));
    if (c->model.zero_init_residual) PD_TRY(pd_classifier_zero_residuals(s->net, err));
    if (s->opt->init) PD_TRY(load_init(s, s->opt->init, err));
    s->t.meta = (pd_model_meta){.type = "classifier", .arch = set.arch, .classes = set.classes, .config = s->t.config_text,
                              .names = set.classes == s->train_set.n_classes ? (const char *const *)s->train_set.classes : NULL};
    for (int i = 0; i < 3; i++) {
        s->t.meta.mean[i] = c->data.mean[i] * 255;
        s->t.meta.std[i] = c->data.std[i] * 255;
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

static pd_status score_all(session *s, score *out, pd_err *err)
{
    score sum = {0};
    const int classes = pd_classifier_get(s->net)->classes;
    PD_TRY(pd_loader_start(s->t.val_loader, 0, 0, err));
    for (;;) {
        const pd_batch *b;
        pd_classified y;
        PD_TRY(pd_loader_next(s->t.val_loader, &b, err));
        if (!b) break;
        PD_TRY(pd_classifier_run(s->net, PD_FORM_FUSED, b->pixels, b->n, b->h, b->w, &y, err));
        for (int i = 0; i < b->n; i++) judge(&sum, y.logits + (size_t)i * (size_t)classes, classes, b->labels[i]);
        pd_loader_done(s->t.val_loader, b);
        if (pd_cli_stop_asked()) return PD_FAIL(err, PD_ESTOP, "stopped");
    }
    double all[] = {sum.loss, sum.top1, sum.top5, (double)sum.images};
    PD_TRY(pd_comm_sum(s->t.comm, all, 4, PD_COMM_F64, err));
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

static pd_status validate(pd_trainer *t, double *result, char text[160], pd_err *err)
{
    session *s = (session *)t;
    score v;
    pd_classifier_changed(s->net);
    PD_TRY(score_all(s, &v, err));
    const pd_log_value line[] = {{"epoch", (double)t->run.at.epoch}, {"loss", v.loss}, {"top1", v.top1}, {"top5", v.top5}};
    PD_TRY(pd_log_write(t->run.log, "val", t->run.at.step, pd_wall_time(), line, 4, err));
    snprintf(text, 160, "val loss %.4f, top-1 %.2f %%, top-5 %.2f %%", v.loss, v.top1, v.top5);
    *result = v.top1;
    return PD_OK;
}

/* ---- training ---- */

static pd_status late(pd_trainer *t, pd_err *err)
{
    float loss;
    int correct, images;
    PD_TRY(pd_classifier_late(((session *)t)->net, &loss, &correct, err));
    PD_TRY(pd_train_loss(&t->run, (double)loss, &images, err));
    t->sums[LOSS] += (double)loss * images;
    t->sums[CORRECT] += correct;
    return PD_OK;
}

static int log_line(const pd_trainer *t, double images, pd_log_value line[PD_TRAINER_VALUES], char note[96])
{
    const double loss = t->sums[LOSS] / images, top1 = 100 * t->sums[CORRECT] / images;
    line[0] = (pd_log_value){"loss", loss};
    line[1] = (pd_log_value){"top1", top1};
    snprintf(note, 96, "loss %.4f  top-1 %.1f %%", loss, top1);
    return 2;
}

/* The forward pass of a batch, whose images are mixed where the configuration says so. */
static pd_status forward(pd_trainer *t, const pd_batch *b, pd_err *err)
{
    session *s = (session *)t;
    const pd_mix_cfg cfg = {s->cfg.train.mixup, s->cfg.train.cutmix};
    if (cfg.mixup <= 0 && cfg.cutmix <= 0)
        return pd_classifier_loss(s->net, b->pixels, b->labels, b->n, b->h, b->w, NULL, NULL, err);
    PD_TRY(pd_grow(&s->mixed_labels, &s->label_room, (size_t)b->n, sizeof *s->mixed_labels, err));
    PD_TRY(pd_grow(&s->mix_work, &s->work_room, (size_t)b->h * (size_t)b->w * 3, sizeof *s->mix_work, err));
    pd_rng rng = pd_rng_make((uint64_t)s->cfg.train.seed ^ MIX_STREAM, (uint32_t)t->run.at.images,
                             (uint32_t)(t->run.at.images >> 32) << 16 | (uint32_t)pd_comm_rank(t->comm));
    const pd_mix mix = pd_mix_draw(&cfg, b->h, b->w, &rng);
    pd_mix_apply(&mix, b->pixels, b->labels, s->mixed_labels, b->n, b->h, b->w, s->mix_work);
    return pd_classifier_loss_mixed(s->net, b->pixels, b->labels, s->mixed_labels, mix.share, b->n, b->h, b->w, NULL,
                                    NULL, err);
}

static pd_status backward(pd_trainer *t, bool add, pd_err *err)
{
    return pd_classifier_backward(((session *)t)->net, add, err);
}

static pd_status report(session *s, pd_err *err)
{
    char name[32], title[64], best[32], count[32];
    const pd_train_position *at = &s->t.run.at;
    snprintf(title, sizeof title, "%s on %s", pd_arch_name(name, s->t.meta.arch), s->cfg.data.root);
    snprintf(best, sizeof best, "%.2f %%", at->best);
    snprintf(count, sizeof count, "%lld", (long long)at->epoch);
    const pd_report_fact facts[] = {{"epochs", count}, {"best top-1", best}};
    const pd_report r = {.title = title, .facts = facts, .n_facts = isnan(at->best) ? 1 : 2};
    return pd_report_run(s->cfg.work_dir, &r, err);
}

static pd_status train(session *s, pd_err *err)
{
    const pd_cls_config *c = &s->cfg;
    pd_trainer *t = &s->t;
    pd_params *params = pd_classifier_params(s->net);
    const int64_t per_epoch = (int64_t)pd_loader_steps(t->train_loader) / c->train.accumulate;
    if (!per_epoch)
        return PD_FAIL(err, PD_EINVAL, "%s: %zu images are less than one step of %d batches of %d (train.accumulate)",
                       c->data.root, s->train_set.n, c->train.accumulate, c->train.batch_size);
    PD_TRY(pd_trainer_begin(t, params, per_epoch, c->train.accumulate, err));
    pd_progress_line(&t->progress, "%zu training and %zu validation images, %d classes, %.2f M parameters, %lld steps per epoch",
                     s->train_set.n, s->val_set.n, pd_classifier_get(s->net)->classes,
                     (double)pd_params_elements(params, false) / 1e6, (long long)per_epoch);
    PD_TRY(pd_trainer_loop(t, err));
    return pd_comm_rank(t->comm) ? PD_OK : report(s, err);
}

static pd_status evaluate(session *s, pd_err *err)
{
    score v;
    if (!s->t.val_loader) return PD_FAIL(err, PD_EINVAL, "%s: there is no folder \"%s\"", s->cfg.data.root, s->cfg.data.val);
    if (s->opt->common.resume) PD_TRY(load_init(s, s->opt->common.resume, err));
    PD_TRY(score_all(s, &v, err));
    if (pd_comm_rank(s->t.comm)) return PD_OK;
    printf("%zu images: loss %.4f, top-1 %.4f %%, top-5 %.4f %%\n", v.images, v.loss, v.top1, v.top5);
    return PD_OK;
}

static pd_status run(pd_trainer *t, pd_err *err)
{
    session *s = (session *)t;
    PD_TRY(open_data(s, err));
    PD_TRY(open_net(s, err));
    return s->opt->evaluate ? evaluate(s, err) : train(s, err);
}

static void close_all(pd_trainer *t)
{
    session *s = (session *)t;
    pd_classifier_free(s->net);
    free(s->mixed_labels);
    free(s->mix_work);
}

static const pd_trainer_kind kind = {.table = &pd_cls_table,
                                     .configure = configure,
                                     .run = run,
                                     .close = close_all,
                                     .forward = forward,
                                     .backward = backward,
                                     .late = late,
                                     .log = log_line,
                                     .validate = validate};

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
        PD_OPT_STRING(0, "init", "FILE", &o.init, "weights to start from"),
        PD_OPT_FLAG(0, "lenient", &o.lenient, "--init may miss tensors or have others (they are listed)"),
        PD_OPT_FLAG('e', "evaluate", &o.evaluate, "only validate (weights by --resume or --init)"),
        PD_OPT_INT64(0, "seed", "N", &o.seed, 0, 9e15, "of weights, order and augmentation"),
        PD_TRAINER_OPTIONS(o.common),
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
    if (!args.n_args && !o.arch && !o.common.help_config) {
        pd_cli_free(&args);
        return pd_cli_wrong(&cli, "a configuration, or -a ARCH and -d DIR, is needed");
    }
    session s = {.t = {.kind = &kind, .args = &args, .opt = &o.common}, .opt = &o};
    const int result = pd_trainer_main(&s.t, &cli);
    pd_cli_free(&args);
    return result;
}
