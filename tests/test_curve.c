/* Training follows the PyTorch reference's step by step: every part of the loss within 1e-3 of the total at each
 * of the first 20 steps, the total within 2 % later. Networks, images, boxes and the order are made from names and
 * seeds (tests/oracle.h); samplers take the lowest indices; steps are SGD with momentum, decay, clipping, warm-up and a
 * drop, through the trainers' own code.
 *
 * tests/golden/detection/curve_*.json: float64 PyTorch. Batch b of `batches`, taken in turn, holds two images of the
 * rule x = u("x") + 2 u("x8") + 2 u("x32"), the last two being 8 and 32 times blown up, with the seed `seed` + 100 (b +
 * 1); box k of image i, u = uniform("gt_boxes.i"), r = (u + 1) / 2: sides w 0.1 8^r0 and h 0.1 8^r1, corner r2 (w -
 * bw), r3 (h - bh); label floor((uniform("gt_labels.i") + 1) / 2 classes).
 *
 * ctest: slow */
#include "tests/golden_detector.h"
#include "tools/train_run.h"

enum { BATCHES = 4, IMAGES = 2 };

typedef struct made_batch {
    pd_batch b;
    pd_image_info info[IMAGES];
    int counts[IMAGES], labels[IMAGES * GOLDEN_BOXES];
    pd_box boxes[IMAGES * GOLDEN_BOXES];
} made_batch;

static void make_boxes(made_batch *m, int i, int h, int w, int classes, uint64_t seed)
{
    float u[4 * GOLDEN_BOXES], l[GOLDEN_BOXES];
    char name[32];
    snprintf(name, sizeof name, "gt_boxes.%d", i);
    pd_oracle_uniform(u, name, 4 * (size_t)m->counts[i], seed);
    snprintf(name, sizeof name, "gt_labels.%d", i);
    pd_oracle_uniform(l, name, (size_t)m->counts[i], seed);
    for (int k = 0; k < m->counts[i]; k++) {
        double r[4];
        for (int j = 0; j < 4; j++) r[j] = ((double)u[4 * k + j] + 1) / 2;
        const double bw = w * 0.1 * pow(8, r[0]), bh = h * 0.1 * pow(8, r[1]), x = r[2] * (w - bw), y = r[3] * (h - bh);
        m->boxes[i * GOLDEN_BOXES + k] = (pd_box){(float)x, (float)y, (float)(x + bw), (float)(y + bh)};
        m->labels[i * GOLDEN_BOXES + k] = (int)floor(((double)l[k] + 1) / 2 * classes);
    }
}

static void make_batch(made_batch *m, const pd_json *root, int index)
{
    const pd_json *size = pd_json_first(pd_json_member(root, "size")),
                  *gts = pd_json_first(pd_json_member(root, "gts"));
    const int h = (int)pd_json_number(size), w = (int)pd_json_number(pd_json_next(size));
    const uint64_t seed = (uint64_t)golden_number(root, "seed") + 100 * ((uint64_t)index + 1);
    float *pixels = golden_input(IMAGES, h, w, seed);
    for (int i = 0; i < IMAGES && gts; i++, gts = pd_json_next(gts)) {
        m->info[i] = (pd_image_info){.h = h, .w = w, .pad_h = h, .pad_w = w, .scale_x = 1, .scale_y = 1};
        m->counts[i] = (int)pd_json_number(gts);
        make_boxes(m, i, h, w, (int)golden_number(root, "classes"), seed);
    }
    m->b = (pd_batch){.n = IMAGES,
                      .h = h,
                      .w = w,
                      .pixels = pixels,
                      .info = m->info,
                      .max_boxes = GOLDEN_BOXES,
                      .n_boxes = m->counts,
                      .boxes = m->boxes,
                      .box_labels = m->labels};
}

static pd_detector_settings settings(pd_detector_type type, const pd_json *root)
{
    pd_detector_settings set = pd_detector_defaults(type);
    set.classes = (int)golden_number(root, "classes");
    set.train = true;
    set.cascade.rpn.sample.first = set.cascade.sample.first = true;
    if (type == PD_CASCADE_RCNN) {
        set.cascade.sample.num = (int)golden_number(root, "samples");
        set.cascade.rpn.train.pre_nms = set.cascade.rpn.train.max_keep = (int)golden_number(root, "proposals");
    }
    return set;
}

static pd_status start(pd_train_run *run, pd_detector *d, const pd_json *root)
{
    const pd_optimizer_cfg optimizer = {.lr = golden_number(root, "lr"),
                                        .momentum = golden_number(root, "momentum"),
                                        .weight_decay = golden_number(root, "weight_decay"),
                                        .clip_norm = golden_number(root, "clip_norm")};
    const pd_schedule schedule = {.type = PD_SCHEDULE_MULTISTEP,
                                  .by = PD_SCHEDULE_BY_STEP,
                                  .milestones = {(int64_t)golden_number(root, "milestone")},
                                  .n_milestones = 1,
                                  .gamma = golden_number(root, "gamma"),
                                  .warmup_steps = (int64_t)golden_number(root, "warmup_steps"),
                                  .warmup_ratio = golden_number(root, "warmup_ratio")};
    return pd_train_run_init(run, device, pd_detector_params(d), "", &optimizer, &schedule, 0, 1, 1000, &err);
}

/* The parts of one step's loss. */
static void check_step(const pd_json *want, const pd_losses *got, int step, double *early, double *late)
{
    const double total = golden_number(want, "loss");
    for (int i = 0; i < got->count && step < 20; i++) {
        if (!strstr(got->name[i], "loss")) continue;
        const double w = golden_number(want, got->name[i]);
        PD_CHECK_MSG(fabs((double)got->value[i] - w) <= 1e-3 * total, "step %d: %s is %.6g, expected %.6g", step,
                     got->name[i], (double)got->value[i], w);
    }
    const double off = fabs((double)got->loss - total) / total;
    PD_CHECK_MSG(off <= (step < 20 ? 1e-3 : 2e-2), "step %d: loss %.6g, expected %.6g (%.1e)", step, (double)got->loss,
                 total, off);
    double *worst = step < 20 ? early : late;
    *worst = fmax(*worst, off);
}

static void test_curve(pd_detector_type type, const char *file)
{
    char path[512];
    pd_json_doc *doc = NULL;
    PD_ROW(file);
    snprintf(path, sizeof path, "%s/detection/%s.json", PD_GOLDEN, file);
    PD_CHECK_OK(pd_json_read(&doc, path, 0, &err));
    if (!doc) return;
    const pd_json *root = pd_json_root(doc);
    static made_batch batches[BATCHES];
    PD_CHECK_INT(golden_number(root, "batches"), BATCHES);
    for (int b = 0; b < BATCHES; b++) make_batch(&batches[b], root, b);
    pd_detector *d = golden_detector(settings(type, root), pd_json_string(pd_json_member(root, "arch")),
                                     (uint64_t)golden_number(root, "seed"));
    pd_train_run run = {0};
    double early = 0, late = 0, first = 0, last = 0;
    int step = 0;
    PD_CHECK_OK(start(&run, d, root));
    for (const pd_json *v = pd_json_first(pd_json_member(root, "steps")); v; v = pd_json_next(v), step++) {
        pd_losses losses = {0};
        const pd_status ran = pd_detector_loss(d, &batches[step % BATCHES].b, IMAGES * step, &losses, &err);
        PD_CHECK_OK(ran);
        if (ran != PD_OK) break;
        check_step(v, &losses, step, &early, &late);
        PD_CHECK_OK(pd_detector_backward(d, false, &err));
        PD_CHECK_OK(pd_train_step(&run, &err));
        PD_CHECK_OK(pd_train_read_norm(&run, &err));
        const double norm = golden_number(v, "grad_norm");
        if (step < 20) PD_CHECK_NEAR(run.grad_norm, norm, 1e-2 * norm);
        if (step == 0) first = (double)losses.loss;
        last = (double)losses.loss;
    }
    PD_CHECK(step >= 20);
    PD_CHECK(last < 0.5 * first); /* something was learned */
    printf("%s: %d steps, loss %.3f to %.3f; off by %.1e at most in the first 20 steps, %.1e later\n", file, step,
           first, last, early, late);
    for (int b = 0; b < BATCHES; b++) free(batches[b].b.pixels);
    pd_train_run_free(&run);
    pd_detector_free(d);
    pd_json_close(doc);
}

int main(void)
{
    PD_CHECK_OK(pd_oracle_device(&device, &err));
    test_curve(PD_RETINANET, "curve_retina_resnet18");
    test_curve(PD_CASCADE_RCNN, "curve_cascade_resnet18");
    pd_device_close(device);
    return pd_test_end();
}
