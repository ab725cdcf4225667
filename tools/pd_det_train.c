/* pd_det_train: trains a detector on COCO-format data. The story is in tools/trainer.h. */
#include "datasets/draw.h"
#include "engine/file.h"
#include "tools/det_config.h"
#include "tools/detect_all.h"
#include "tools/ranks.h"
#include "tools/report.h"
#include "tools/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DRAWN_SCORE 0.3f /* detections below are not drawn */

typedef struct options {
    pd_trainer_options common;
    const char *init, *backbone;
    bool lenient, auto_scale_lr;
} options;

/* One validation image to draw, with what was found on it. */
typedef struct picture {
    int64_t id;
    pd_detection *found;
    int count;
    char *path; /* the drawn file */
} picture;

typedef struct session {
    pd_trainer t;
    const options *opt;
    pd_det_config cfg;
    pd_coco train_set, val_set;
    uint32_t *images; /* training images that are used */
    size_t n_images, n_without, n_background; /* n_without: of the whole set, without a box; n_background: those that are used */
    pd_coco_gt *truth;
    pd_detector *net;
    const char *loss_names[PD_MAX_LOSSES]; /* of the parts, from the first pass on */
    picture *pictures;
    int n_pictures;
    pd_coco_dt *dt; /* of the validation under way */
    double last_stats[PD_COCO_STATS];
    bool validated; /* last_stats and the pictures are there */
} session;

/* Of t->sums: the loss, how many anchors or boxes were positive, and the parts of the loss. */
enum { LOSS, POSITIVES, PARTS };
_Static_assert(PARTS + PD_MAX_LOSSES <= PD_TRAINER_SUMS && PARTS + PD_MAX_LOSSES <= PD_TRAINER_VALUES, "room for all losses");

/* ---- setting up ---- */

static pd_status read_config(session *s, pd_err *err)
{
    pd_config *c = NULL;
    pd_status status = PD_OK;
    PD_TRY(pd_config_load(&c, s->t.args->args[0], err));
    if (s->opt->common.work_dir) PD_TRY_DONE(pd_config_set_string(c, "work_dir", s->opt->common.work_dir, err));
    if (s->opt->backbone) PD_TRY_DONE(pd_config_set_string(c, "backbone_file", s->opt->backbone, err));
    for (size_t i = 0; i < s->t.args->set.count; i++) PD_TRY_DONE(pd_config_set(c, s->t.args->set.items[i], err));
    PD_TRY_DONE(pd_config_read(&s->cfg, c, &pd_det_table, s->t.arena, err));
    if (!s->cfg.work_dir) PD_TRY_DONE(pd_trainer_work_dir(&s->cfg.work_dir, &s->t, s->t.args->args[0], err));
    if (s->opt->auto_scale_lr) { /* said so that the printed configuration, run again, is the same run */
        s->cfg.optimizer.lr *= (double)s->cfg.train.images_per_step / s->cfg.train.lr_images;
        s->cfg.train.lr_images = s->cfg.train.images_per_step;
    }
    PD_TRY_DONE(pd_config_print(&s->t.config_text, &s->cfg, &pd_det_table, s->t.arena, err));
done:
    pd_config_free(c);
    return status;
}

static pd_status configure(pd_trainer *t, pd_err *err)
{
    session *s = (session *)t;
    const pd_det_config *c = &s->cfg;
    pd_detector_settings checked;
    PD_TRY(read_config(s, err));
    PD_TRY(pd_det_settings(&checked, c, 1, err));
    t->plan = (pd_trainer_plan){.work_dir = c->work_dir,
                                .precision = c->train.precision,
                                .rank_timeout = c->train.rank_timeout,
                                .ema = c->train.ema,
                                .epochs = c->train.epochs,
                                .log_interval = c->train.log_interval,
                                .save_interval = c->train.save_interval,
                                .val_interval = c->train.val_interval,
                                .patience = c->train.early_stop,
                                .max_steps = c->train.max_steps,
                                .optimizer = &c->optimizer,
                                .schedule = &c->schedule};
    return PD_OK;
}

static pd_status open_loader(session *s, pd_loader **out, const pd_coco *set, const char *dir, bool train, pd_err *err)
{
    const pd_det_config *c = &s->cfg;
    pd_loader_config l = pd_trainer_loader(&s->t, train);
    l.coco = set;
    l.image_dir = dir;
    l.images = train ? s->images : NULL;
    l.n_images = train ? s->n_images : 0;
    l.transform = pd_det_transform(c, train);
    l.image.exif = true;
    l.bytes = s->t.device->kind != PD_CPU; /* normalised there: a quarter of the transfer */
    l.batch = train ? c->train.micro_batch : 1;
    l.shuffle = train && c->data.shuffle;
    l.group_aspect = train && c->data.shuffle && c->data.group_aspect;
    l.drop_last = train && !l.group_aspect && s->n_images >= (size_t)c->train.images_per_step; /* a step is whole */
    l.seed = (uint64_t)c->train.seed;
    l.threads = c->data.workers;
    l.bad_images = c->data.bad_images == PD_POLICY_ERROR ? PD_BAD_ERROR : train ? PD_BAD_REPLACE : PD_BAD_DROP;
    return pd_loader_open(out, &l, err);
}

static pd_status need(const char *key, const char *value, pd_err *err)
{
    return value ? PD_OK : PD_FAIL(err, PD_EINVAL, "%s is not set: give it in the configuration or by --set %s=PATH", key, key);
}

/* Images without a box teach background; that there are such is told, whether they are used or not. */
static void count_background(session *s)
{
    const pd_coco_photo *images = s->train_set.images;
    size_t without = 0;
    for (size_t i = 0; i < s->train_set.n_images; i++) without += images[i].n_gt == 0;
    for (size_t i = 0; i < s->n_images; i++) s->n_background += images[s->images[i]].n_gt == 0;
    s->n_without = without;
}

static pd_status open_data(session *s, pd_err *err)
{
    const struct pd_det_data_cfg *d = &s->cfg.data;
    PD_TRY(need("data.train.images", d->train.images, err));
    PD_TRY(need("data.train.annotations", d->train.annotations, err));
    char **classes = NULL;
    if (d->n_classes) {
        PD_TRY(PD_ALLOC(&classes, s->t.arena, (size_t)d->n_classes, err));
        for (int i = 0; i < d->n_classes; i++) PD_TRY(pd_strdup(&classes[i], s->t.arena, d->classes[i], err));
    }
    PD_TRY(pd_coco_open(&s->train_set, d->train.annotations, classes, d->n_classes, s->t.arena, err));
    PD_TRY(pd_coco_train_images(&s->images, &s->n_images, &s->train_set, d->min_side, d->keep_empty, s->t.arena, err));
    count_background(s);
    if (!s->n_images) return PD_FAIL(err, PD_EFORMAT, "%s: no image to train on", d->train.annotations);
    PD_TRY(open_loader(s, &s->t.train_loader, &s->train_set, d->train.images, true, err));
    if (!d->val.annotations) return PD_OK;
    PD_TRY(need("data.val.images", d->val.images, err));
    PD_TRY(pd_coco_open(&s->val_set, d->val.annotations, s->train_set.classes, s->train_set.n_classes, s->t.arena, err));
    PD_TRY(pd_coco_gt_open(&s->truth, d->val.annotations, NULL, NULL, err));
    return open_loader(s, &s->t.val_loader, &s->val_set, d->val.images, false, err);
}

static pd_status load(session *s, const char *path, const pd_load_options *how, pd_err *err)
{
    pd_st *file = NULL;
    char *report;
    PD_TRY(pd_st_open(&file, path, err));
    const bool first = s->cfg.model.backbone.fold_first, folded = pd_st_meta(file, "folded") && !strcmp(pd_st_meta(file, "folded"), "true");
    if (how->only && pd_st_meta(file, "arch") && folded != first) { /* a classifier of ours */
        pd_st_close(file);
        return PD_FAIL(err, PD_EINVAL, "%s: is %sfolded, model.backbone.fold_first is %s: %s", path, folded ? "" : "not ",
                       first ? "true" : "false", first ? "fold it with pd_fold" : "give the file as it was before pd_fold");
    }
    const pd_status status = pd_load_params(pd_detector_params(s->net), file, how, &report, s->t.arena, err);
    pd_st_close(file);
    if (status == PD_OK || status == PD_EFORMAT) fputs(report, stderr);
    return status;
}

static pd_status open_net(session *s, pd_err *err)
{
    static const char *const skip[] = {"fc.", NULL};
    pd_detector_settings set;
    PD_TRY(pd_det_settings(&set, &s->cfg, s->train_set.n_classes, err));
    if (set.classes < s->train_set.n_classes)
        return PD_FAIL(err, PD_EINVAL, "model.num_classes is %d, but %s has %d categories", set.classes,
                       s->cfg.data.train.annotations, s->train_set.n_classes);
    set.train = true;
    PD_TRY(pd_detector_new(&s->net, s->t.device, &set, err));
    PD_TRY(pd_params_init(pd_detector_params(s->net), (uint64_t)s->cfg.train.seed, err));
    if (s->cfg.backbone_file) {
        const pd_load_options how = {.prefix = "backbone.", .only = "backbone.", .skip = skip, .lenient = s->opt->lenient};
        PD_TRY(load(s, s->cfg.backbone_file, &how, err));
    }
    if (s->opt->init) PD_TRY(load(s, s->opt->init, &(pd_load_options){.lenient = s->opt->lenient}, err));
    const bool same = set.classes == s->train_set.n_classes;
    s->t.meta = (pd_model_meta){.type = pd_detector_name(set.type), .arch = set.arch, .classes = set.classes, .config = s->t.config_text,
                              .names = same ? (const char *const *)s->train_set.classes : NULL,
                              .ids = same ? s->train_set.category_ids : NULL};
    memcpy(s->t.meta.mean, s->cfg.data.mean, sizeof s->t.meta.mean);
    memcpy(s->t.meta.std, s->cfg.data.std, sizeof s->t.meta.std);
    return PD_OK;
}

/* ---- validation ---- */

/* Collects detections for the evaluator, and those of the first images to draw. */
static pd_status found(void *arg, const pd_image_info *info, const pd_detection *list, int count, pd_err *err)
{
    session *s = arg;
    pd_collect collect = {s->dt, s->val_set.category_ids};
    if (s->n_pictures < s->cfg.train.pictures) {
        picture *p = &s->pictures[s->n_pictures];
        if (!p->found) PD_TRY(PD_ALLOC(&p->found, s->t.arena, (size_t)pd_detector_get(s->net)->test.max_per_image, err));
        memcpy(p->found, list, (size_t)count * sizeof *list);
        p->id = info->id;
        p->count = count;
        s->n_pictures++;
    }
    return pd_collect_found(&collect, info, list, count, err);
}

static pd_status draw(session *s, picture *p, pd_err *err)
{
    const ptrdiff_t at = pd_coco_find(&s->val_set, p->id);
    if (at < 0) return PD_OK;
    const pd_coco_photo *photo = &s->val_set.images[at];
    pd_image image = PD_IMAGE_INIT;
    pd_bytes file = {NULL, 0};
    char *path, *folder;
    const pd_image_options upright = {.exif = true};
    pd_arena *arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "out of memory for a picture");
    pd_status status = PD_OK;
    PD_TRY_DONE(pd_path_join(&path, s->cfg.data.val.images, photo->file, arena, err));
    PD_TRY_DONE(pd_file_map(&file, path, err));
    PD_TRY_DONE(pd_image_decode(&image, file, &upright, err));
    for (uint32_t i = 0; i < photo->n; i++) {
        const pd_coco_ann *a = &s->val_set.anns[photo->first + i];
        if (a->use == PD_COCO_GT) pd_draw_box(&image, a->box, (pd_color){255, 255, 255}, 1);
    }
    for (int i = p->count - 1; i >= 0; i--) /* the surest on top */
        if (p->found[i].score >= DRAWN_SCORE)
            pd_draw_labelled(&image, p->found[i].box, p->found[i].label, s->train_set.classes[p->found[i].label], p->found[i].score);
    PD_TRY_DONE(pd_path_join(&folder, s->cfg.work_dir, "pictures", arena, err));
    PD_TRY_DONE(pd_make_dirs(folder, err));
    if (!p->path) PD_TRY_DONE(pd_format(&p->path, s->t.arena, err, "%s/%lld.jpg", folder, (long long)p->id));
    status = pd_image_save(p->path, &image, err);
done:
    pd_image_free(&image);
    pd_file_unmap(&file);
    pd_arena_free(arena);
    return status;
}

/* What rank 0 makes of the detections. */
static pd_status evaluate(session *s, pd_err *err)
{
    pd_coco_result *result = NULL;
    char *path;
    pd_log_value line[PD_COCO_STATS + 1] = {{"epoch", (double)s->t.run.at.epoch}};
    pd_status status = PD_OK;
    PD_TRY_DONE(pd_coco_evaluate(&result, s->truth, s->dt, NULL, NULL, err));
    PD_TRY_DONE(pd_path_join(&path, s->cfg.work_dir, "val_results.json", s->t.arena, err));
    PD_TRY_DONE(pd_coco_dt_save(s->dt, path, err));
    for (int i = 0; i < result->n_stats; i++) line[i + 1] = (pd_log_value){result->names[i], result->stats[i]};
    memcpy(s->last_stats, result->stats, sizeof s->last_stats);
    s->validated = true;
    PD_TRY_DONE(pd_log_write(s->t.run.log, "val", s->t.run.at.step, pd_wall_time(), line, (size_t)result->n_stats + 1, err));
    for (int i = 0; i < s->n_pictures; i++) PD_TRY_DONE(draw(s, &s->pictures[i], err));
done:
    pd_coco_result_free(result);
    return status;
}

static pd_status validate(pd_trainer *t, double *result, char text[160], pd_err *err)
{
    session *s = (session *)t;
    s->n_pictures = 0;
    PD_TRY(pd_coco_dt_new(&s->dt, s->truth, err));
    pd_detector_changed(s->net);
    pd_status status = pd_detect_shared(s->net, PD_FORM_FUSED, s->t.val_loader, s->t.comm, found, s, err);
    if (status == PD_OK && pd_comm_rank(s->t.comm) == 0) status = evaluate(s, err);
    pd_coco_dt_close(s->dt);
    s->dt = NULL;
    PD_TRY(status);
    const double *v = s->last_stats;
    double ap = v[0];
    PD_TRY(pd_comm_broadcast(s->t.comm, &ap, sizeof ap, 0, err));
    snprintf(text, 160, "AP %.3f  AP50 %.3f  AP75 %.3f  APs %.3f  APm %.3f  APl %.3f", v[0], v[1], v[2], v[3], v[4], v[5]);
    *result = ap;
    return PD_OK;
}

/* ---- training ---- */

static pd_status forward(pd_trainer *t, const pd_batch *b, pd_err *err)
{
    return pd_detector_loss(((session *)t)->net, b, t->run.at.images + pd_comm_rank(t->comm) * b->n, NULL, err);
}

static pd_status backward(pd_trainer *t, bool add, pd_err *err)
{
    return pd_detector_backward(((session *)t)->net, add, err);
}

static pd_status late(pd_trainer *t, pd_err *err)
{
    session *s = (session *)t;
    pd_losses l;
    int images;
    PD_TRY(pd_detector_late(s->net, &l, err));
    PD_TRY(pd_train_loss(&t->run, (double)l.loss, &images, err));
    t->n_sums = PARTS + l.count;
    t->sums[LOSS] += (double)l.loss * images;
    t->sums[POSITIVES] += l.positives;
    for (int i = 0; i < l.count; i++) {
        s->loss_names[i] = l.name[i];
        t->sums[PARTS + i] += (double)l.value[i] * images;
    }
    return PD_OK;
}

/* The parts of the loss whose names contain `part`. */
static double sum_parts(const session *s, const char *part)
{
    double sum = 0;
    for (int i = 0; PARTS + i < s->t.n_sums; i++)
        if (strstr(s->loss_names[i], "loss") && strstr(s->loss_names[i], part)) sum += s->t.sums[PARTS + i];
    return sum;
}

static int log_line(const pd_trainer *t, double images, pd_log_value line[PD_TRAINER_VALUES], char note[96])
{
    const session *s = (const session *)t;
    int n = 0;
    for (; PARTS + n < t->n_sums; n++) line[n] = (pd_log_value){s->loss_names[n], t->sums[PARTS + n] / images};
    line[n++] = (pd_log_value){"loss", t->sums[LOSS] / images};
    line[n++] = (pd_log_value){"positives", t->sums[POSITIVES] / images};
    snprintf(note, 96, "loss %.4f (cls %.4f, bbox %.4f)", t->sums[LOSS] / images, sum_parts(s, "cls") / images,
             sum_parts(s, "bbox") / images);
    return n;
}

static pd_status write_report(session *s, pd_err *err)
{
    char name[32], title[64], value[4][32];
    const double *v = s->last_stats;
    pd_report_image images[100];
    for (int i = 0; i < s->n_pictures; i++) images[i] = (pd_report_image){.path = s->pictures[i].path};
    snprintf(title, sizeof title, "%s, %s", pd_detector_title(pd_detector_get(s->net)->type), pd_arch_name(name, s->t.meta.arch));
    snprintf(value[0], 32, "%.3f", s->t.run.at.best);
    for (int i = 0; i < 3; i++) snprintf(value[i + 1], 32, "%.3f", v[i]);
    const pd_report_fact facts[] = {{"best AP", value[0]}, {"AP", value[1]}, {"AP50", value[2]}, {"AP75", value[3]}};
    const pd_report report = {.title = title, .facts = facts, .n_facts = s->validated ? 4u : isnan(s->t.run.at.best) ? 0u : 1u, .images = images,
                              .n_images = (size_t)s->n_pictures};
    return pd_report_run(s->cfg.work_dir, &report, err);
}

/* What is trained on, as a line of the log. */
static pd_status log_data(session *s, pd_err *err)
{
    const pd_coco *set = &s->train_set;
    const pd_log_value line[] = {
        {"images", (double)set->n_images},           {"images_used", (double)s->n_images},
        {"images_without_boxes", (double)s->n_without}, {"images_without_boxes_used", (double)s->n_background},
        {"boxes", (double)set->counts[PD_COCO_GT]},  {"crowds", (double)set->counts[PD_COCO_CROWD]},
        {"lr", s->cfg.optimizer.lr},
    };
    return pd_log_write(s->t.run.log, "data", 0, pd_wall_time(), line, sizeof line / sizeof *line, err);
}

static pd_status train(session *s, pd_err *err)
{
    const pd_det_config *c = &s->cfg;
    pd_trainer *t = &s->t;
    pd_params *params = pd_detector_params(s->net);
    int passes;
    PD_TRY(pd_ranks_share(&passes, s->t.comm, c->train.images_per_step / c->train.micro_batch,
                          "train.images_per_step / train.micro_batch", err));
    const int64_t per_epoch = (int64_t)pd_loader_steps(s->t.train_loader) / passes;
    if (!per_epoch)
        return PD_FAIL(err, PD_EINVAL, "%s: %zu images are less than one step of %d (train.images_per_step)",
                       c->data.train.annotations, s->n_images, c->train.images_per_step);
    char *summary;
    PD_TRY(pd_trainer_begin(t, params, per_epoch, passes, err));
    PD_TRY(PD_ALLOC(&s->pictures, s->t.arena, (size_t)c->train.pictures + 1, err));
    PD_TRY(pd_coco_summary(&summary, &s->train_set, s->t.arena, err));
    pd_progress_line(&s->t.progress, "%zu of %zu training images; %s", s->n_images, s->train_set.n_images, summary);
    if (s->n_without)
        pd_progress_line(&s->t.progress, "%zu images have no box: %zu are used as background, %zu are left out (data.keep_empty)",
                         s->n_without, s->n_background, s->n_without - s->n_background);
    if (s->opt->auto_scale_lr) pd_progress_line(&s->t.progress, "learning rate for %d images a step: %g", c->train.images_per_step, c->optimizer.lr);
    if (!t->resumed) PD_TRY(log_data(s, err));
    pd_progress_line(&s->t.progress, "%zu validation images, %d classes, %.2f M parameters (%.2f M trained), %lld steps per epoch",
                     s->val_set.n_images, pd_detector_get(s->net)->classes, (double)pd_params_elements(params, false) / 1e6,
                     (double)pd_params_elements(params, true) / 1e6, (long long)per_epoch);
    PD_TRY(pd_trainer_loop(t, err));
    if (pd_comm_rank(t->comm)) return PD_OK;
    char *report;
    PD_TRY(pd_path_join(&report, c->work_dir, "report.html", t->arena, err));
    return t->idle && pd_file_exists(report) ? PD_OK : write_report(s, err);
}

static pd_status run(pd_trainer *t, pd_err *err)
{
    session *s = (session *)t;
    PD_TRY(open_data(s, err));
    PD_TRY(open_net(s, err));
    return train(s, err);
}

static void close_all(pd_trainer *t)
{
    session *s = (session *)t;
    pd_coco_gt_close(s->truth);
    pd_detector_free(s->net);
}

static const pd_trainer_kind kind = {.table = &pd_det_table,
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
    options o = {0};
    const pd_opt opts[] = {
        PD_OPT_STRING(0, "init", "FILE", &o.init, "a detector's weights to start from"),
        PD_OPT_STRING(0, "backbone", "FILE", &o.backbone, "a classifier's weights (pd_cls_train) to start the backbone from"),
        PD_OPT_FLAG(0, "auto-scale-lr", &o.auto_scale_lr, "learning rate in proportion to the images per step (train.lr_images)"),
        PD_OPT_FLAG(0, "lenient", &o.lenient, "weights may miss tensors or have others (they are listed)"),
        PD_TRAINER_OPTIONS(o.common),
    };
    const pd_cli cli = {.program = "pd_det_train",
                        .usage = "CONFIG.json",
                        .about = "Trains an object detector on COCO-format data and measures COCO AP after each epoch.",
                        .example = "pd_det_train configs/retina_pd_a_r50.json --backbone pd_a_resnet50.safetensors "
                                   "--set data.train.images=coco/train2017",
                        .opts = opts,
                        .n_opts = sizeof opts / sizeof *opts,
                        .common = PD_CLI_DEVICE | PD_CLI_THREADS | PD_CLI_QUIET | PD_CLI_SET,
                        .min_args = 0,
                        .max_args = 1};
    pd_cli_args args;
    const int code = pd_cli_parse(&args, &cli, argc, argv);
    if (code >= 0) return code;
    if (!args.n_args && !o.common.help_config) {
        pd_cli_free(&args);
        return pd_cli_wrong(&cli, "a configuration is needed");
    }
    session s = {.t = {.kind = &kind, .args = &args, .opt = &o.common}, .opt = &o};
    const int result = pd_trainer_main(&s.t, &cli);
    pd_cli_free(&args);
    return result;
}
