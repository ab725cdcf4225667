/* Every file in configs/: read, merged, checked; planned at its full size, which is measured and not allocated; and
 * trained for two steps on small images. The published tables' rows are all there and say what the tables say. */
#include "backbones/classifier.h"
#include "engine/file.h"
#include "tests/pd_test.h"
#include "tools/det_config.h"

#include <math.h>

static pd_err err;
static pd_device *device;

/* Networks that have been through two steps: schedules alone make no other network. */
static pd_detector_settings stepped[32];
static int n_stepped;

/* What a row of the tables must be. Drops: epochs after which the learning rate falls to a tenth. */
static const struct row {
    const char *name, *arch, *branches;
    int epochs, drop[3];
    double lr;
} rows[] = {
    /* ImageNet */
    {"cls_r18", "resnet18", "", 100, {30, 60, 90}, 0.1},
    {"cls_se_r18", "se_resnet18", "", 100, {30, 60, 90}, 0.1},
    {"cls_ge_r18", "ge_resnet18", "", 100, {30, 60, 90}, 0.1},
    {"cls_ac_r18", "ac_resnet18", "s1,skeleton", 100, {30, 60, 90}, 0.1},
    {"cls_pd_a_r18", "pd_a_resnet18", "s1,s2,skeleton,group", 100, {30, 60, 90}, 0.1},
    {"cls_pd_b_r18", "pd_b_resnet18", "s1,s2,skeleton,group", 100, {30, 60, 90}, 0.1},
    {"cls_r50", "resnet50", "", 100, {30, 60, 90}, 0.1},
    {"cls_se_r50", "se_resnet50", "", 100, {30, 60, 90}, 0.1},
    {"cls_ge_r50", "ge_resnet50", "", 100, {30, 60, 90}, 0.1},
    {"cls_ac_r50", "ac_resnet50", "s1,skeleton", 100, {30, 60, 90}, 0.1},
    {"cls_pd_a_r50", "pd_a_resnet50", "s1,s2,skeleton,group", 100, {30, 60, 90}, 0.1},
    {"cls_pd_b_r50", "pd_b_resnet50", "s1,s2,skeleton,group", 100, {30, 60, 90}, 0.1},
    /* the ablation; its rows with all branches stand above */
    {"cls_pd_a_r18_s1", "pd_a_resnet18", "s1", 100, {30, 60, 90}, 0.1},
    {"cls_pd_a_r18_s1_s2", "pd_a_resnet18", "s1,s2", 100, {30, 60, 90}, 0.1},
    {"cls_pd_a_r18_s1_group", "pd_a_resnet18", "s1,group", 100, {30, 60, 90}, 0.1},
    {"cls_pd_a_r18_s1_skeleton", "pd_a_resnet18", "s1,skeleton", 100, {30, 60, 90}, 0.1},
    {"cls_pd_a_r18_s1_group_skeleton", "pd_a_resnet18", "s1,skeleton,group", 100, {30, 60, 90}, 0.1},
    {"cls_pd_b_r18_s1_s2", "pd_b_resnet18", "s1,s2", 100, {30, 60, 90}, 0.1},
    {"cls_pd_b_r18_s1_group", "pd_b_resnet18", "s1,group", 100, {30, 60, 90}, 0.1},
    {"cls_pd_b_r18_s1_skeleton", "pd_b_resnet18", "s1,skeleton", 100, {30, 60, 90}, 0.1},
    {"cls_pd_b_r18_s1_group_skeleton", "pd_b_resnet18", "s1,skeleton,group", 100, {30, 60, 90}, 0.1},
    /* detection */
    {"retina_r50", "resnet50", "", 12, {8, 11}, 0.01},
    {"retina_pd_a_r50", "pd_a_resnet50", "s1,s2,skeleton,group", 12, {8, 11}, 0.01},
    {"retina_pd_b_r50", "pd_b_resnet50", "s1,s2,skeleton,group", 12, {8, 11}, 0.01},
    {"cascade_r50", "resnet50", "", 12, {8, 11}, 0.02},
    {"cascade_pd_a_r50", "pd_a_resnet50", "s1,s2,skeleton,group", 12, {8, 11}, 0.02},
    {"cascade_pd_b_r50", "pd_b_resnet50", "s1,s2,skeleton,group", 12, {8, 11}, 0.02},
    {"retina_r50_2x", "resnet50", "", 24, {16, 22}, 0.01},
    {"retina_pd_b_r50_2x", "pd_b_resnet50", "s1,s2,skeleton,group", 24, {16, 22}, 0.01},
    {"cascade_r50_20e", "resnet50", "", 20, {16, 19}, 0.02},
    {"cascade_pd_b_r50_20e", "pd_b_resnet50", "s1,s2,skeleton,group", 20, {16, 19}, 0.02},
    {"retina_pd_b_r50_heads", "pd_b_resnet50", "s1,s2,skeleton,group", 12, {8, 11}, 0.01},
    {"cascade_pd_b_r50_heads", "pd_b_resnet50", "s1,s2,skeleton,group", 12, {8, 11}, 0.02},
    {"retina_pd_a_r50_fold_first", "pd_a_resnet50", "s1,s2,skeleton,group", 12, {8, 11}, 0.01},
    {"faster_r50", "resnet50", "", 12, {8, 11}, 0.02},
};
enum { ROWS = sizeof rows / sizeof *rows };
static bool seen[ROWS];

static void check_row(const char *name, pd_arch arch, int epochs, const pd_optimizer_cfg *o, const pd_schedule *s)
{
    char text[32];
    for (size_t i = 0; i < ROWS; i++) {
        const struct row *r = &rows[i];
        if (strcmp(name, r->name) != 0) continue;
        seen[i] = true;
        PD_CHECK_STR(pd_arch_name(text, arch), r->arch);
        PD_CHECK_STR(pd_branches_text(arch.branches), r->branches);
        PD_CHECK_INT(epochs, r->epochs);
        PD_CHECK(o->momentum == 0.9 && o->weight_decay == 1e-4 && !o->nesterov && o->clip_norm == 0);
        for (int e = 0, drops = 0; e < epochs; e++) {
            if (drops < 3 && r->drop[drops] == e) drops++;
            const double want = r->lr * pow(0.1, drops); /* 1000 steps an epoch: behind every warm-up */
            PD_CHECK_NEAR(pd_schedule_lr(s, o->lr, e, 1000 * (e + 1), epochs, 1000 * epochs), want, 1e-9 * want);
        }
    }
}

/* What two steps change: every weight that is trained, nothing else; nothing becomes infinite. */
typedef struct watch {
    pd_train_run run;
    float *before;
    pd_params *params;
} watch;

/* Values of the right size, made faster than pd_params_init makes them; and statistics of an untrained backbone that
 * keep its maps in bounds. */
static void fill(pd_params *params)
{
    for (size_t i = 0; i < pd_params_count(params); i++) {
        const pd_param *p = pd_params_at(params, i);
        const bool var = !strncmp(p->name, "backbone.", 9) && strstr(p->name, ".running_var");
        const float size = (float)(p->init.kind == PD_INIT_NORMAL ? 1.7 * p->init.a : p->init.a);
        uint32_t x = (uint32_t)pd_hash_text(p->name) | 1;
        for (size_t k = 0; k < p->count; k++) {
            x = x * 1664525u + 1013904223u;
            p->data[k] = var ? 8 : p->init.kind == PD_INIT_CONST ? size : size * ((float)(x >> 8) * 0x1p-23f - 1);
        }
    }
}

static void watch_begin(watch *w, pd_params *params, const pd_optimizer_cfg *o, const pd_schedule *s, double ema)
{
    size_t count;
    w->params = params;
    fill(params);
    const float *weights = pd_params_weights(params, &count);
    w->before = malloc(count * sizeof *w->before);
    if (!w->before) abort();
    memcpy(w->before, weights, count * sizeof *w->before);
    PD_CHECK_OK(pd_train_run_init(&w->run, device, params, "none", o, s, ema, 10, 1000, &err));
    w->run.at.step = s->warmup_steps; /* a learning rate that moves something */
}

static void watch_end(watch *w)
{
    size_t count;
    const float *weights = pd_params_weights(w->params, &count);
    for (size_t i = 0; i < pd_params_count(w->params); i++) {
        const pd_param *p = pd_params_at(w->params, i);
        if (p->kind != PD_WEIGHT) continue;
        const float *now = weights + p->offset, *old = w->before + p->offset;
        bool finite = true;
        for (size_t k = 0; k < p->count; k++) finite = finite && isfinite(now[k]);
        PD_CHECK_MSG(finite, "%s: not finite", p->name);
        const bool same = !memcmp(now, old, p->count * sizeof *now);
        if (!p->trainable) PD_CHECK_MSG(same, "%s: frozen, but changed", p->name);
        const size_t dot = strlen(p->name) > 5 ? strlen(p->name) - 5 : 0;
        const bool bias = !strcmp(p->name + dot, ".bias"); /* 0 at first, of a dead ReLU: may keep still */
        if (p->trainable && !bias) PD_CHECK_MSG(!same, "%s: trained, but unchanged", p->name);
    }
    pd_train_run_free(&w->run);
    free(w->before);
}

static void noise(float *out, size_t n, uint32_t key)
{
    pd_rng rng = pd_rng_make(9, key, 0);
    for (size_t i = 0; i < n; i++) out[i] = (float)pd_rng_normal(&rng);
}

/* ---- classifiers ---- */

static void try_classifier(const char *name, const pd_cls_config *c)
{
    enum { N = 2, SIDE = 64 };
    static float x[N * SIDE * SIDE * 3];
    const int labels[N] = {3, 1};
    pd_classifier_settings set = {.classes = c->model.num_classes ? c->model.num_classes : 1000, .train = true};
    pd_classifier *net = NULL;
    watch w = {0};
    size_t bytes = 0;
    pd_cls_loss_settings(&set, c);
    PD_CHECK_OK(pd_arch_parse(&set.arch, c->model.arch, c->model.branches, &err));
    check_row(name, set.arch, c->train.epochs, &c->optimizer, &c->schedule);
    const pd_transform train = pd_cls_train_transform(c), val = pd_cls_val_transform(c);
    PD_CHECK_OK(pd_transform_check(&train, &err));
    PD_CHECK_OK(pd_transform_check(&val, &err));
    PD_CHECK_OK(pd_classifier_training_bytes(&bytes, device, &set, c->train.batch_size, train.crop, train.crop, &err));
    set.classes = 10;
    PD_CHECK_OK(pd_classifier_new(&net, device, &set, &err));
    if (!net) return;
    const double least = 4.0 * c->train.batch_size * (train.crop / 2.0) * (train.crop / 2.0) * 64; /* behind the stem */
    PD_CHECK_MSG((double)bytes > least, "planned in %zu bytes, less than the stem's output of %.0f", bytes, least);
    watch_begin(&w, pd_classifier_params(net), &c->optimizer, &c->schedule, c->train.ema);
    for (uint32_t step = 0; step < 2; step++) {
        float loss = NAN;
        int correct = -1;
        noise(x, sizeof x / sizeof *x, step);
        PD_CHECK_OK(pd_classifier_loss(net, x, labels, N, SIDE, SIDE, &loss, &correct, &err));
        PD_CHECK_MSG(loss > 0 && loss < (step ? INFINITY : 50), "loss is %g", (double)loss);
        PD_CHECK_OK(pd_classifier_backward(net, false, &err));
        PD_CHECK_OK(pd_train_step(&w.run, &err));
    }
    watch_end(&w);
    pd_classifier_free(net);
}

/* ---- detectors ---- */

static void try_detector(const char *name, const pd_det_config *c)
{
    enum { N = 2, SIDE = 64, ROOM = 2 };
    static float x[N * SIDE * SIDE * 3];
    pd_image_info info[N];
    pd_box boxes[N * ROOM] = {{5, 10, 35, 45}, {30, 20, 60, 55}, {15, 15, 50, 40}};
    int labels[N * ROOM] = {0, 2, 1, 0}, counts[N] = {2, 1};
    pd_detector_settings set;
    pd_detector *d = NULL;
    watch w = {0};
    size_t bytes = 0;
    PD_CHECK_OK(pd_det_settings(&set, c, 80, &err));
    set.train = true;
    check_row(name, set.arch, c->train.epochs, &c->optimizer, &c->schedule);
    const pd_transform t = pd_det_transform(c, true);
    PD_CHECK_OK(pd_transform_check(&t, &err));
    const int tall = pd_round_up(t.short_side, t.divisor), wide = pd_round_up(t.long_side, t.divisor);
    PD_CHECK_OK(pd_detector_training_bytes(&bytes, device, &set, c->train.micro_batch, tall, wide, &err));
    const double least = 4.0 * c->train.micro_batch * (tall / 4.0) * (wide / 4.0) * 64;
    PD_CHECK_MSG((double)bytes > least, "planned in %zu bytes, less than a map of %.0f", bytes, least);
    if (!strcmp(name, "cascade_pd_b_r50")) { /* one full-size image must be possible on a common machine */
        PD_CHECK_OK(pd_detector_training_bytes(&bytes, device, &set, 1, tall, wide, &err));
        PD_CHECK_MSG(bytes < (size_t)20 << 30, "one image of %dx%d needs %zu bytes", wide, tall, bytes);
    }
    set.classes = 3;
    for (int i = 0; i < n_stepped; i++)
        if (!memcmp(&stepped[i], &set, sizeof set)) return;
    if (n_stepped < 32) stepped[n_stepped++] = set;
    PD_CHECK_OK(pd_detector_new(&d, device, &set, &err));
    if (!d) return;
    for (int i = 0; i < N; i++)
        info[i] = (pd_image_info){.id = i,
                                  .h = SIDE,
                                  .w = SIDE,
                                  .pad_h = SIDE,
                                  .pad_w = SIDE,
                                  .ori_h = SIDE,
                                  .ori_w = SIDE,
                                  .scale_x = 1,
                                  .scale_y = 1};
    const pd_batch b = {.n = N,
                        .h = SIDE,
                        .w = SIDE,
                        .pixels = x,
                        .info = info,
                        .max_boxes = ROOM,
                        .n_boxes = counts,
                        .boxes = boxes,
                        .box_labels = labels};
    watch_begin(&w, pd_detector_params(d), &c->optimizer, &c->schedule, c->train.ema);
    for (uint32_t step = 0; step < 2; step++) {
        pd_losses losses = {.loss = NAN};
        noise(x, sizeof x / sizeof *x, step);
        PD_CHECK_OK(pd_detector_loss(d, &b, 2 * step, &losses, &err));
        PD_CHECK_MSG(losses.loss > 0 && losses.loss < 100 && losses.positives > 0, "loss %g, %d positives",
                     (double)losses.loss, losses.positives);
        PD_CHECK_OK(pd_detector_backward(d, false, &err));
        PD_CHECK_OK(pd_train_step(&w.run, &err));
    }
    watch_end(&w);
    pd_detector_free(d);
}

/* ---- files ---- */

/* A file is a detector's or a classifier's configuration; the other table does not take it. */
static void try_file(const char *path, const char *name)
{
    pd_config *c = NULL;
    pd_det_config det;
    pd_cls_config cls;
    pd_err no_det = PD_ERR_INIT, no_cls = PD_ERR_INIT;
    char *text = NULL;
    pd_arena *arena = pd_arena_new();
    PD_CHECK_OK(pd_config_load(&c, path, &err));
    if (c && arena) {
        const bool is_det = pd_config_read(&det, c, &pd_det_table, arena, &no_det) == PD_OK;
        const bool is_cls = pd_config_read(&cls, c, &pd_cls_table, arena, &no_cls) == PD_OK;
        PD_CHECK_MSG(is_det || is_cls, "as a detector: %s; as a classifier: %s", no_det.text, no_cls.text);
        PD_CHECK(!(is_det && is_cls));
        if (is_det) {
            PD_CHECK_OK(pd_config_print(&text, &det, &pd_det_table, arena, &err));
            try_detector(name, &det);
        } else if (is_cls) {
            PD_CHECK_OK(pd_config_print(&text, &cls, &pd_cls_table, arena, &err));
            try_classifier(name, &cls);
        }
    }
    pd_config_free(c);
    pd_arena_free(arena);
}

int main(void)
{
    char **names = NULL, path[600], name[300];
    size_t count = 0;
    pd_arena *arena = pd_arena_new();
    PD_CHECK_OK(pd_device_open(&device, "cpu", 1, &err));
    PD_CHECK_OK(pd_list_dir(&names, &count, PD_SOURCE_DIR "/configs", 'f', arena, &err));
    for (size_t i = 0; device && i < count; i++) {
        const char *end = strstr(names[i], ".json");
        PD_CHECK_MSG(end && !end[5], "configs/%s is no .json file", names[i]);
        if (!end) continue;
        snprintf(path, sizeof path, "%s/configs/%s", PD_SOURCE_DIR, names[i]);
        snprintf(name, sizeof name, "%.*s", (int)(end - names[i]), names[i]);
        PD_ROW(name);
        try_file(path, name);
    }
    for (size_t i = 0; i < ROWS; i++) {
        PD_ROW(rows[i].name);
        PD_CHECK_MSG(seen[i], "configs/%s.json is missing", rows[i].name);
    }
    PD_ROW("");
    pd_device_close(device);
    pd_arena_free(arena);
    return pd_test_end();
}
