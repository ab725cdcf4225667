/* pd_det_train: trains a detector on COCO-format data. The story is in train(). */
#include "datasets/draw.h"
#include "engine/file.h"
#include "tools/cli.h"
#include "tools/det_config.h"
#include "tools/detect_all.h"
#include "tools/ranks.h"
#include "tools/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DRAWN_SCORE 0.3f /* detections below are not drawn */

typedef struct options {
    const char *resume, *work_dir, *init, *backbone;
    bool check, print_config, help_config, lenient, auto_scale_lr;
} options;

/* One validation image to draw, with what was found on it. */
typedef struct picture {
    int64_t id;
    pd_detection *found;
    int count;
    char *path; /* the drawn file */
} picture;

typedef struct session {
    const pd_cli_args *args;
    const options *opt;
    pd_det_config cfg;
    char *config_text;
    pd_arena *arena;
    pd_comm *comm; /* the processes that train together; NULL: alone */
    pd_device *device;
    char device_line[512];
    pd_coco train_set, val_set;
    uint32_t *images; /* training images that are used */
    size_t n_images, n_without, n_background; /* n_without: of the whole set, without a box; n_background: those that are used */
    pd_coco_gt *truth;
    pd_detector *net;
    pd_loader *train_loader, *val_loader;
    pd_model_meta meta;
    pd_train_run run;
    pd_progress progress;
    picture *pictures;
    int n_pictures;
    pd_coco_dt *dt; /* of the validation under way */
    double last_stats[PD_COCO_STATS];
    bool validated; /* last_stats and the pictures are there */
} session;

/* ---- setting up ---- */

static pd_status read_config(session *s, pd_err *err)
{
    pd_config *c = NULL;
    pd_status status = PD_OK;
    PD_TRY(pd_config_load(&c, s->args->args[0], err));
    if (s->opt->work_dir) PD_TRY_DONE(pd_config_set_string(c, "work_dir", s->opt->work_dir, err));
    if (s->opt->backbone) PD_TRY_DONE(pd_config_set_string(c, "backbone_file", s->opt->backbone, err));
    for (size_t i = 0; i < s->args->set.count; i++) PD_TRY_DONE(pd_config_set(c, s->args->set.items[i], err));
    PD_TRY_DONE(pd_config_read(&s->cfg, c, &pd_det_table, s->arena, err));
    if (!s->cfg.work_dir) {
        char *dir;
        const char *slash = strrchr(s->args->args[0], '/'), *base = slash ? slash + 1 : s->args->args[0];
        const char *end = strstr(base, ".json");
        PD_TRY_DONE(pd_format(&dir, s->arena, err, "runs/%.*s", (int)(end ? (size_t)(end - base) : strlen(base)), base));
        s->cfg.work_dir = dir;
    }
    if (s->opt->auto_scale_lr) { /* said so that the printed configuration, run again, is the same run */
        s->cfg.optimizer.lr *= (double)s->cfg.train.images_per_step / s->cfg.train.lr_images;
        s->cfg.train.lr_images = s->cfg.train.images_per_step;
    }
    PD_TRY_DONE(pd_config_print(&s->config_text, &s->cfg, &pd_det_table, s->arena, err));
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

static pd_status open_loader(session *s, pd_loader **out, const pd_coco *set, const char *dir, bool train, pd_err *err)
{
    const pd_det_config *c = &s->cfg;
    pd_loader_config l = pd_loader_defaults();
    l.coco = set;
    l.image_dir = dir;
    l.images = train ? s->images : NULL;
    l.n_images = train ? s->n_images : 0;
    l.transform = pd_det_transform(c, train);
    l.image.exif = true;
    l.bytes = s->device->kind != PD_CPU; /* normalised there: a quarter of the transfer */
    l.batch = train ? c->train.micro_batch : 1;
    l.rank = pd_comm_rank(s->comm);
    l.world = pd_comm_world(s->comm);
    l.exact = !train;
    l.shuffle = train && c->data.shuffle;
    l.group_aspect = train && c->data.shuffle && c->data.group_aspect;
    l.drop_last = train && !l.group_aspect && s->n_images >= (size_t)c->train.images_per_step; /* a step is whole */
    l.seed = (uint64_t)c->train.seed;
    l.threads = c->data.workers;
    l.bad_images = c->data.bad_images == PD_POLICY_ERROR ? PD_BAD_ERROR : train ? PD_BAD_REPLACE : PD_BAD_DROP;
    l.warn = warn;
    l.warn_arg = s;
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
        PD_TRY(PD_ALLOC(&classes, s->arena, (size_t)d->n_classes, err));
        for (int i = 0; i < d->n_classes; i++) PD_TRY(pd_strdup(&classes[i], s->arena, d->classes[i], err));
    }
    PD_TRY(pd_coco_open(&s->train_set, d->train.annotations, classes, d->n_classes, s->arena, err));
    PD_TRY(pd_coco_train_images(&s->images, &s->n_images, &s->train_set, d->min_side, d->keep_empty, s->arena, err));
    count_background(s);
    if (!s->n_images) return PD_FAIL(err, PD_EFORMAT, "%s: no image to train on", d->train.annotations);
    PD_TRY(open_loader(s, &s->train_loader, &s->train_set, d->train.images, true, err));
    if (!d->val.annotations) return PD_OK;
    PD_TRY(need("data.val.images", d->val.images, err));
    PD_TRY(pd_coco_open(&s->val_set, d->val.annotations, s->train_set.classes, s->train_set.n_classes, s->arena, err));
    PD_TRY(pd_coco_gt_open(&s->truth, d->val.annotations, NULL, NULL, err));
    return open_loader(s, &s->val_loader, &s->val_set, d->val.images, false, err);
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
    const pd_status status = pd_load_params(pd_detector_params(s->net), file, how, &report, s->arena, err);
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
    PD_TRY(pd_detector_new(&s->net, s->device, &set, err));
    PD_TRY(pd_params_init(pd_detector_params(s->net), (uint64_t)s->cfg.train.seed, err));
    if (s->cfg.backbone_file) {
        const pd_load_options how = {.prefix = "backbone.", .only = "backbone.", .skip = skip, .lenient = s->opt->lenient};
        PD_TRY(load(s, s->cfg.backbone_file, &how, err));
    }
    if (s->opt->init) PD_TRY(load(s, s->opt->init, &(pd_load_options){.lenient = s->opt->lenient}, err));
    const bool same = set.classes == s->train_set.n_classes;
    s->meta = (pd_model_meta){.type = pd_detector_name(set.type), .arch = set.arch, .classes = set.classes, .config = s->config_text,
                              .names = same ? (const char *const *)s->train_set.classes : NULL,
                              .ids = same ? s->train_set.category_ids : NULL};
    memcpy(s->meta.mean, s->cfg.data.mean, sizeof s->meta.mean);
    memcpy(s->meta.std, s->cfg.data.std, sizeof s->meta.std);
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
        if (!p->found) PD_TRY(PD_ALLOC(&p->found, s->arena, (size_t)pd_detector_get(s->net)->test.max_per_image, err));
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
    if (!p->path) PD_TRY_DONE(pd_format(&p->path, s->arena, err, "%s/%lld.jpg", folder, (long long)p->id));
    status = pd_image_save(p->path, &image, err);
done:
    pd_image_free(&image);
    pd_file_unmap(&file);
    pd_arena_free(arena);
    return status;
}

static pd_status validate(session *s, double *ap, pd_err *err)
{
    pd_coco_result *result = NULL;
    char *path;
    pd_log_value line[PD_COCO_STATS + 1] = {{"epoch", (double)s->run.at.epoch}};
    pd_status status = PD_OK;
    s->n_pictures = 0;
    PD_TRY(pd_coco_dt_new(&s->dt, s->truth, err));
    pd_detector_changed(s->net);
    PD_TRY_DONE(pd_detect_shared(s->net, PD_FORM_FUSED, s->val_loader, s->comm, found, s, err));
    if (pd_comm_rank(s->comm)) goto done; /* rank 0 has the detections and says how good they are */
    PD_TRY_DONE(pd_coco_evaluate(&result, s->truth, s->dt, NULL, NULL, err));
    PD_TRY_DONE(pd_path_join(&path, s->cfg.work_dir, "val_results.json", s->arena, err));
    PD_TRY_DONE(pd_coco_dt_save(s->dt, path, err));
    for (int i = 0; i < result->n_stats; i++) line[i + 1] = (pd_log_value){result->names[i], result->stats[i]};
    memcpy(s->last_stats, result->stats, sizeof s->last_stats);
    s->validated = true;
    PD_TRY_DONE(pd_log_write(s->run.log, "val", s->run.at.step, pd_wall_time(), line, (size_t)result->n_stats + 1, err));
    for (int i = 0; i < s->n_pictures; i++) PD_TRY_DONE(draw(s, &s->pictures[i], err));
    *ap = result->stats[0];
done:
    pd_coco_result_free(result);
    pd_coco_dt_close(s->dt);
    s->dt = NULL;
    return status;
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
    const bool last = s->run.at.step >= s->run.total_steps || s->run.at.epoch >= s->cfg.train.epochs;
    if (s->val_loader && (last || s->run.at.epoch % s->cfg.train.val_interval == 0)) {
        double ap = 0;
        PD_TRY(pd_train_swap_ema(&s->run, err));
        pd_status status = validate(s, &ap, err);
        if (status == PD_OK) status = pd_comm_broadcast(s->comm, &ap, sizeof ap, 0, err);
        PD_TRY(pd_train_swap_ema(&s->run, status == PD_OK ? err : NULL));
        if (status == PD_ESTOP) return pd_err_context(err, "during a validation (go on with --resume auto)"), status;
        PD_TRY(status);
        best = pd_train_judge(&s->run, ap);
        const double *v = s->last_stats;
        pd_progress_line(&s->progress, "epoch %lld: AP %.3f  AP50 %.3f  AP75 %.3f  APs %.3f  APm %.3f  APl %.3f%s",
                         (long long)s->run.at.epoch, v[0], v[1], v[2], v[3], v[4], v[5], best ? " (best)" : "");
    }
    if (best) PD_TRY(pd_train_save(&s->run, "best.safetensors", &s->meta, true, err));
    s->run.at.closed = s->run.at.step;
    return pd_train_save(&s->run, "last.safetensors", &s->meta, false, err);
}

/* ---- training ---- */

/* Sums since the last log line. */
typedef struct tally {
    pd_losses sum; /* values weighted by images */
    double images, positives, data_s, step_s, started;
    int steps;
} tally;

/* The parts of the loss whose names contain `part`. */
static double sum_parts(const pd_losses *l, const char *part)
{
    double sum = 0;
    for (int i = 0; i < l->count; i++)
        if (strstr(l->name[i], "loss") && strstr(l->name[i], part)) sum += (double)l->value[i];
    return sum;
}

/* The sums of all processes. */
static pd_status sum_tally(session *s, tally *t, pd_err *err)
{
    double sums[PD_MAX_LOSSES + 3] = {(double)t->sum.loss, t->images, t->positives};
    for (int i = 0; i < t->sum.count; i++) sums[3 + i] = (double)t->sum.value[i];
    PD_TRY(pd_comm_sum(s->comm, sums, 3 + (size_t)t->sum.count, PD_COMM_F64, err));
    t->sum.loss = (float)sums[0];
    t->images = sums[1];
    t->positives = sums[2];
    for (int i = 0; i < t->sum.count; i++) t->sum.value[i] = (float)sums[3 + i];
    return PD_OK;
}

static void add_losses(tally *t, const pd_losses *l, int images)
{
    t->sum.count = l->count;
    for (int i = 0; i < l->count; i++) {
        t->sum.name[i] = l->name[i];
        t->sum.value[i] += l->value[i] * (float)images;
    }
    t->sum.loss += l->loss * (float)images;
    t->positives += l->positives;
}

/* Adds up the losses that are there. all: waits for those under way, too. */
static pd_status read_losses(session *s, tally *t, bool all, pd_err *err)
{
    while (pd_train_unread(&s->run, all)) {
        pd_losses losses;
        int images;
        PD_TRY(pd_detector_late(s->net, &losses, err));
        PD_TRY(pd_train_loss(&s->run, (double)losses.loss, &images, err));
        add_losses(t, &losses, images);
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
    PD_TRY(sum_tally(s, t, err));
    PD_TRY(pd_train_read_norm(&s->run, err));
    const double n = t->images > 0 ? t->images : 1, steps = t->steps ? t->steps : 1, seconds = pd_seconds() - t->started;
    pd_log_value line[PD_MAX_LOSSES + 8];
    size_t count = 0;
    line[count++] = (pd_log_value){"epoch", (double)s->run.at.epoch};
    for (int i = 0; i < t->sum.count; i++) line[count++] = (pd_log_value){t->sum.name[i], (double)t->sum.value[i] / n};
    line[count++] = (pd_log_value){"loss", (double)t->sum.loss / n};
    line[count++] = (pd_log_value){"positives", t->positives / n};
    line[count++] = (pd_log_value){"lr", s->run.lr};
    line[count++] = (pd_log_value){"images_per_s", t->images / seconds};
    line[count++] = (pd_log_value){"data_s", t->data_s / steps};
    line[count++] = (pd_log_value){"step_s", t->step_s / steps};
    if (!isnan(s->run.grad_norm)) line[count++] = (pd_log_value){"grad_norm", s->run.grad_norm};
    char note[128];
    snprintf(note, sizeof note, "loss %.4f (cls %.4f, bbox %.4f)  lr %.4g  %.2f images/s", (double)t->sum.loss / n,
             sum_parts(&t->sum, "cls") / n, sum_parts(&t->sum, "bbox") / n, s->run.lr, t->images / seconds);
    pd_progress_update(&s->progress, s->run.at.step, note);
    const pd_status status = pd_log_write(s->run.log, "train", s->run.at.step, pd_wall_time(), line, count, err);
    *t = (tally){.started = pd_seconds()};
    return status;
}

/* One optimiser step from images_per_step / micro_batch forward passes, of all processes together. *end: the epoch has no
 * whole step left. */
static pd_status one_step(session *s, tally *t, bool *end, pd_err *err)
{
    const int rank = pd_comm_rank(s->comm), world = pd_comm_world(s->comm);
    for (int p = 0; p < s->run.passes; p++) {
        const pd_batch *b;
        const double waiting = pd_seconds();
        PD_TRY(pd_loader_next(s->train_loader, &b, err));
        const double begun = pd_seconds();
        *end = !b;
        if (!b) return PD_OK;
        PD_TRY(pd_detector_loss(s->net, b, s->run.at.images + rank * b->n, NULL, err));
        pd_train_passed(&s->run, b->n);
        PD_TRY(read_losses(s, t, false, err));
        PD_TRY(pd_detector_backward(s->net, p > 0, err));
        t->images += b->n;
        s->run.at.images += world * b->n;
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

static pd_status write_report(session *s, pd_err *err)
{
    char name[32], title[64], value[4][32];
    const double *v = s->last_stats;
    pd_report_image images[100];
    for (int i = 0; i < s->n_pictures; i++) images[i] = (pd_report_image){.path = s->pictures[i].path};
    snprintf(title, sizeof title, "%s, %s", pd_detector_title(pd_detector_get(s->net)->type), pd_arch_name(name, s->meta.arch));
    snprintf(value[0], 32, "%.3f", s->run.at.best);
    for (int i = 0; i < 3; i++) snprintf(value[i + 1], 32, "%.3f", v[i]);
    const pd_report_fact facts[] = {{"best AP", value[0]}, {"AP", value[1]}, {"AP50", value[2]}, {"AP75", value[3]}};
    const pd_report report = {.title = title, .facts = facts, .n_facts = s->validated ? 4u : isnan(s->run.at.best) ? 0u : 1u, .images = images,
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
    return pd_log_write(s->run.log, "data", 0, pd_wall_time(), line, sizeof line / sizeof *line, err);
}

static pd_status train(session *s, pd_err *err)
{
    const pd_det_config *c = &s->cfg;
    pd_train_run *run = &s->run;
    int share;
    PD_TRY(pd_ranks_share(&share, s->comm, c->train.images_per_step / c->train.micro_batch,
                          "train.images_per_step / train.micro_batch", err));
    const int passes = share;
    const int64_t per_epoch = (int64_t)pd_loader_steps(s->train_loader) / passes;
    if (!per_epoch)
        return PD_FAIL(err, PD_EINVAL, "%s: %zu images are less than one step of %d (train.images_per_step)",
                       c->data.train.annotations, s->n_images, c->train.images_per_step);
    const int64_t planned = per_epoch * c->train.epochs;
    const int64_t total = c->train.max_steps && c->train.max_steps < planned ? c->train.max_steps : planned;
    char *resume, *summary;
    PD_TRY(pd_train_run_init(run, s->device, pd_detector_params(s->net), c->work_dir, &c->optimizer, &c->schedule, c->train.ema,
                             c->train.epochs, total, err));
    run->patience = c->train.early_stop;
    run->passes = passes;
    run->comm = s->comm;
    PD_TRY(pd_train_resume_path(&resume, run, s->opt->resume, s->arena, err));
    if (resume) PD_TRY(pd_train_resume(run, resume, err));
    PD_TRY(pd_train_run_open(run, s->config_text, resume != NULL, err));
    PD_TRY(PD_ALLOC(&s->pictures, s->arena, (size_t)c->train.pictures + 1, err));
    PD_TRY(pd_coco_summary(&summary, &s->train_set, s->arena, err));
    pd_progress_begin(&s->progress, "training", "steps", total, s->args->quiet || pd_comm_rank(s->comm));
    char ranks[96];
    if (s->comm) pd_progress_line(&s->progress, "%s", pd_ranks_text(ranks, s->comm, s->device));
    pd_progress_line(&s->progress, "%s", s->device_line);
    if (resume) pd_progress_line(&s->progress, "going on from %s, step %lld", resume, (long long)run->at.step);
    pd_progress_line(&s->progress, "%zu of %zu training images; %s", s->n_images, s->train_set.n_images, summary);
    if (s->n_without)
        pd_progress_line(&s->progress, "%zu images have no box: %zu are used as background, %zu are left out (data.keep_empty)",
                         s->n_without, s->n_background, s->n_without - s->n_background);
    if (s->opt->auto_scale_lr) pd_progress_line(&s->progress, "learning rate for %d images a step: %g", c->train.images_per_step, c->optimizer.lr);
    if (!resume) PD_TRY(log_data(s, err));
    pd_progress_line(&s->progress, "%zu validation images, %d classes, %.2f M parameters (%.2f M trained), %lld steps per epoch",
                     s->val_set.n_images, pd_detector_get(s->net)->classes, (double)pd_params_elements(run->params, false) / 1e6,
                     (double)pd_params_elements(run->params, true) / 1e6, (long long)per_epoch);
    const int64_t before = run->at.closed;
    pd_cli_catch_stop();
    while (pd_train_going(run)) {
        tally t = {.started = pd_seconds()};
        bool end = false;
        PD_TRY(pd_loader_start(s->train_loader, (uint32_t)run->at.epoch, (size_t)(run->at.step_in_epoch * passes), err));
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
    if (run->patience && run->at.stale >= run->patience && run->at.step < total)
        pd_progress_line(&s->progress, "stopped early: %lld validations without a better AP than %.3f", (long long)run->at.stale, run->at.best);
    pd_progress_end(&s->progress, run->at.step);
    int64_t bad = (int64_t)pd_loader_bad(s->train_loader);
    PD_TRY(pd_comm_sum(s->comm, &bad, 1, PD_COMM_I64, err));
    if (pd_comm_rank(s->comm)) return PD_OK;
    if (bad) fprintf(stderr, "%lld training images could not be read and were replaced\n", (long long)bad);
    PD_TRY(pd_log_close(run->log, err));
    run->log = NULL;
    char *report;
    PD_TRY(pd_path_join(&report, c->work_dir, "report.html", s->arena, err));
    if (resume && run->at.closed == before && pd_file_exists(report)) return PD_OK; /* nothing was left to do */
    return write_report(s, err);
}

static pd_status run_all(session *s, pd_err *err)
{
    s->arena = pd_arena_new();
    if (!s->arena) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    if (s->opt->help_config) {
        char *text;
        PD_TRY(pd_config_help(&text, &pd_det_table, s->arena, err));
        fputs(text, stdout);
        return PD_OK;
    }
    PD_TRY(pd_comm_open(&s->comm, err));
    PD_TRY(read_config(s, err));
    PD_TRY(pd_ranks_watch(s->comm, s->cfg.train.rank_timeout, err));
    PD_TRY(pd_ranks_device(&s->device, s->comm, s->args->device, s->args->threads, err));
    PD_TRY(pd_ranks_precision(s->device_line, s->device, s->args->precision, s->cfg.train.precision, err));
    pd_detector_settings checked;
    PD_TRY(pd_det_settings(&checked, &s->cfg, 1, err));
    if (s->opt->print_config && pd_comm_rank(s->comm) == 0) puts(s->config_text);
    if (s->opt->check || s->opt->print_config) return PD_OK;
    PD_TRY(open_data(s, err));
    PD_TRY(open_net(s, err));
    return train(s, err);
}

int main(int argc, char **argv)
{
    options o = {0};
    const pd_opt opts[] = {
        PD_OPT_STRING(0, "resume", "FILE", &o.resume, "go on from a checkpoint; auto: from the run's last"),
        PD_OPT_STRING(0, "init", "FILE", &o.init, "a detector's weights to start from"),
        PD_OPT_STRING(0, "backbone", "FILE", &o.backbone, "a classifier's weights (pd_cls_train) to start the backbone from"),
        PD_OPT_FLAG(0, "auto-scale-lr", &o.auto_scale_lr, "learning rate in proportion to the images per step (train.lr_images)"),
        PD_OPT_FLAG(0, "lenient", &o.lenient, "weights may miss tensors or have others (they are listed)"),
        PD_OPT_STRING(0, "work-dir", "DIR", &o.work_dir, "the run's folder"),
        PD_OPT_FLAG(0, "check", &o.check, "check the configuration and stop"),
        PD_OPT_FLAG(0, "print-config", &o.print_config, "print the merged configuration and stop"),
        PD_OPT_FLAG(0, "help-config", &o.help_config, "list every key of a configuration and stop"),
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
    if (!args.n_args && !o.help_config) {
        pd_cli_free(&args);
        return pd_cli_wrong(&cli, "a configuration is needed");
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
    pd_coco_gt_close(s.truth);
    pd_detector_free(s.net);
    pd_device_close(s.device);
    pd_arena_free(s.arena);
    if (!result) pd_comm_close(s.comm, 0);
    pd_cli_free(&args);
    return result;
}
