#include "tests/scene_detectors.h"
#include "detectors/detector.h"
#include "kernels/sgd.h"
#include "tests/pd_test.h"

#define STEPS 3 /* the third run of a plan is recorded */
#define IMAGES 2
#define SIDE 32
#define ROOM 3 /* ground truths of an image */
#define FOUND 20

/* What a detector did on a device. */
typedef struct outcome {
    float *maps; /* of the untrained detector: the pyramid and the heads on it, one behind the other */
    size_t count;
    pd_detection there[IMAGES][FOUND], host[IMAGES][FOUND]; /* found by the device, by the host from its heads */
    int there_count[IMAGES], host_count[IMAGES];
    pd_losses losses[STEPS];
    float *change; /* of all weights in the steps */
    size_t weights;
} outcome;

static void outcome_free(outcome *o)
{
    free(o->maps);
    free(o->change);
}

/* Two images of a batch; the second is smaller, mirrored and has one object less. */
typedef struct data {
    float pixels[IMAGES * SIDE * SIDE * 3];
    pd_image_info info[IMAGES];
    int n_boxes[IMAGES], labels[IMAGES * ROOM];
    pd_box boxes[IMAGES * ROOM];
    pd_batch batch;
} data;

static data *make_data(void)
{
    data *d = calloc(1, sizeof *d);
    pd_rng rng = pd_rng_make(9, 0, 0);
    if (!d) return NULL;
    for (size_t i = 0; i < IMAGES * SIDE * SIDE * 3; i++) d->pixels[i] = (float)pd_rng_normal(&rng);
    for (int i = 0; i < IMAGES; i++) {
        const int h = SIDE - 3 * i, w = SIDE - 5 * i;
        d->info[i] = (pd_image_info){
            .h = h, .w = w, .pad_h = SIDE, .pad_w = SIDE, .scale_x = 0.5f, .scale_y = 0.75f, .flipped = i};
        d->n_boxes[i] = ROOM - i;
        for (int k = 0; k < ROOM; k++) {
            const float x = (float)(3 + 5 * k), y = (float)(4 * k), side = (float)(9 + 5 * k);
            d->boxes[i * ROOM + k] = (pd_box){x, y, x + side, y + side};
            d->labels[i * ROOM + k] = (k + i) % 3;
        }
    }
    d->batch = (pd_batch){.n = IMAGES,
                          .h = SIDE,
                          .w = SIDE,
                          .pixels = d->pixels,
                          .info = d->info,
                          .max_boxes = ROOM,
                          .n_boxes = d->n_boxes,
                          .boxes = d->boxes,
                          .box_labels = d->labels};
    return d;
}

static pd_detector_settings settings(pd_detector_type type)
{
    pd_detector_settings set = pd_detector_defaults(type);
    pd_err err = PD_ERR_INIT;
    if (pd_arch_parse(&set.arch, "resnet18", NULL, &err) != PD_OK) abort();
    set.classes = 3;
    set.train = true;
    set.test.max_per_image = FOUND;
    set.test.score_thresh = 0;
    set.test.pre_nms = 100;
    set.cascade.rpn.sample.num = 32;
    set.cascade.stages = 2; /* of three: their first layers are large */
    set.cascade.sample.num = 4;
    set.cascade.rpn.train.pre_nms = set.cascade.rpn.test.pre_nms = 60;
    set.cascade.rpn.train.max_keep = 40;
    set.cascade.rpn.test.max_keep = 4;
    return set;
}

/* Heads that do not depend on which boxes were chosen. */
static pd_status copy_maps(outcome *o, const pd_raw *raw, pd_err *err)
{
    for (int pass = 0; pass < 2; pass++) {
        o->count = 0;
        for (int i = 0; i < raw->count; i++) {
            const size_t n = pd_shape_size(raw->shape[i]);
            if (raw->shape[i].rank != 4) continue;
            if (pass) memcpy(o->maps + o->count, raw->data[i], n * sizeof *o->maps);
            o->count += n;
        }
        if (!pass) o->maps = malloc(o->count * sizeof *o->maps + 1);
        if (!o->maps) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    }
    return PD_OK;
}

static pd_status detect(outcome *o, pd_detector *d, const pd_batch *b, pd_err *err)
{
    pd_raw raw;
    const pd_form form = pd_detector_form(d);
    PD_TRY(pd_detector_raw(d, form, b->pixels, b->info, b->n, b->h, b->w, &raw, err));
    PD_TRY(copy_maps(o, &raw, err));
    PD_TRY(pd_detector_decode(d, b->info, o->host[0], o->host_count, err));
    for (int run = 0; run < 3; run++) PD_TRY(pd_detector_detect(d, form, b, o->there[0], o->there_count, err));
    return PD_OK;
}

static pd_status train(outcome *o, pd_detector *d, pd_device *device, const pd_batch *b, float *velocity, pd_err *err)
{
    const pd_sgd sgd = {.lr = 0.002, .momentum = 0.9, .weight_decay = 1e-4, .scale = 1};
    pd_params *params = pd_detector_params(d);
    float *weights = pd_params_weights(params, &o->weights);
    const size_t bytes = o->weights * sizeof(float);
    float *before = malloc(bytes + 1);
    o->change = malloc(bytes + 1);
    pd_status status = before && o->change ? PD_OK : PD_FAIL(err, PD_ENOMEM, "out of memory");
    PD_TRY_DONE(status);
    PD_TRY_DONE(device->fill(device, velocity, 0, bytes, err));
    PD_TRY_DONE(device->fill(device, pd_params_grads(params), 0, bytes, err));
    PD_TRY_DONE(device->download(device, before, weights, bytes, err));
    for (int step = 0; step < STEPS; step++) {
        PD_TRY_DONE(pd_detector_loss(d, b, step * IMAGES, &o->losses[step], err));
        PD_TRY_DONE(pd_detector_backward(d, false, err));
        PD_TRY_DONE(pd_sgd_step(device, params, velocity, &sgd, err));
        pd_detector_changed(d);
    }
    PD_TRY_DONE(device->download(device, o->change, weights, bytes, err));
    for (size_t i = 0; i < o->weights; i++) o->change[i] -= before[i];
done:
    free(before);
    return status;
}

static pd_status run(outcome *o, pd_detector_type type, pd_device *device, const pd_batch *b, pd_err *err)
{
    const pd_detector_settings set = settings(type);
    pd_detector *d = NULL;
    float *velocity = NULL;
    pd_status status = PD_OK;
    *o = (outcome){.count = 0};
    PD_TRY_DONE(pd_detector_new(&d, device, &set, err));
    PD_TRY_DONE(pd_params_init(pd_detector_params(d), 3, err));
    pd_params_weights(pd_detector_params(d), &o->weights);
    PD_TRY_DONE(device->alloc(device, (void **)&velocity, o->weights * sizeof *velocity, err));
    PD_TRY_DONE(detect(o, d, b, err));
    PD_TRY_DONE(train(o, d, device, b, velocity, err));
done:
    if (velocity) device->release(device, velocity);
    pd_detector_free(d);
    return status;
}

/* What is allowed between the CPU and a precision: of maps, of the first loss and of those behind it, of what the steps
 * change. Later losses of a cascade hang on which boxes were chosen. */
static const struct {
    double maps, loss[2], change;
} bounds[PRECISIONS] = {
    {1e-4, {1e-4, 5e-3}, 0.02}, {1e-2, {1e-2, 0.1}, 0.5}, {1e-2, {1e-2, 0.1}, 0.5}, {0.1, {0.1, 0.3}, 1}};

/* The device's boxes beside those that the host finds in the device's heads. */
static void compare_found(const outcome *o)
{
    for (int i = 0; i < IMAGES; i++) {
        PD_CHECK_INT(o->there_count[i], o->host_count[i]);
        PD_CHECK(o->there_count[i] > 0);
        for (int r = 0; r < o->there_count[i] && r < o->host_count[i]; r++) {
            const pd_detection a = o->there[i][r], b = o->host[i][r];
            const float d[] = {a.box.x1 - b.box.x1, a.box.y1 - b.box.y1, a.box.x2 - b.box.x2, a.box.y2 - b.box.y2,
                               a.score - b.score};
            double most = 0;
            for (int k = 0; k < 5; k++) most = fmax(most, fabs((double)d[k]));
            PD_CHECK_MSG(a.label == b.label && most <= 1e-3, "detection %d of image %d is another one than the host's",
                         r, i);
        }
    }
}

static void compare(const outcome *want, const outcome *got, int p)
{
    const double maps = distance(want->maps, got->maps, want->count),
                 change = distance(want->change, got->change, want->weights);
    PD_CHECK_MSG(maps <= bounds[p].maps, "heads differ by %.3g of their size (allowed %.3g)", maps, bounds[p].maps);
    for (int s = 0; s < STEPS; s++) {
        const double a = (double)want->losses[s].loss, b = (double)got->losses[s].loss;
        PD_CHECK_MSG(fabs(a - b) <= bounds[p].loss[s > 0] * a, "loss of step %d is %.6f, expected %.6f", s, b, a);
        for (int i = 0; i < want->losses[s].count && p == 0; i++) {
            const double x = (double)want->losses[s].value[i], y = (double)got->losses[s].value[i];
            PD_CHECK_MSG(fabs(x - y) <= bounds[p].loss[s > 0] * (1 + x), "%s of step %d is %.6f, expected %.6f",
                         want->losses[s].name[i], s, y, x);
        }
        if (p == 0) PD_CHECK_INT(got->losses[s].positives, want->losses[s].positives);
    }
    PD_CHECK_MSG(change <= bounds[p].change, "what %d steps change differs by %.3g of its size (allowed %.3g)", STEPS,
                 change, bounds[p].change);
}

static void check(pd_detector_type type, pd_device *cpu, pd_device *gpu, bool only_fp32)
{
    pd_err err = PD_ERR_INIT;
    outcome *want = calloc(1, sizeof *want), *got = calloc(1, sizeof *got);
    data *d = make_data();
    if (!want || !got || !d) abort();
    PD_CHECK_OK(run(want, type, cpu, &d->batch, &err));
    for (int p = 0; p < (only_fp32 ? 1 : PRECISIONS); p++) {
        char text[96];
        snprintf(text, sizeof text, "%s, %s", pd_detector_name(type), precisions[p].name);
        PD_ROW(text);
        PD_CHECK_OK(pd_device_set_precision(gpu, precisions[p].name, &err));
        const pd_status status = run(got, type, gpu, &d->batch, &err);
        PD_CHECK_MSG(status == PD_OK, "%s", err.text);
        if (status == PD_OK) {
            compare_found(got);
            compare(want, got, p);
        }
        outcome_free(got);
        PD_ROW("");
    }
    outcome_free(want);
    free(want);
    free(got);
    free(d);
}

scene_tally check_detectors(const char *only, pd_device *cpu, pd_device *gpu, bool only_fp32)
{
    const pd_detector_type types[] = {PD_RETINANET, PD_CASCADE_RCNN};
    for (int i = 0; i < 2; i++)
        if (strstr(pd_detector_name(types[i]), only)) check(types[i], cpu, gpu, only_fp32);
    return (scene_tally){pd_test_checks, pd_test_failures};
}
