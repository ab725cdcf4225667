/* bench_detect: images a second of a detector's training step (forward, losses, backward, SGD with momentum) and of its
 * detection, on images of one size with random pixels: floats on the CPU, bytes elsewhere, as pd_det_train hands over.
 *
 *   bench_detect [DETECTOR...] [--arch resnet50] [--height 800] [--width 1344] [--batch 2] [--rounds 10] [--json FILE]
 *
 * On the CPU each training step is timed. Elsewhere steps follow each other as in training, with losses that are read a
 * step late, and several are timed as a whole. Images come from host memory in every step, detections go there.
 * DETECTORs: retinanet, cascade_rcnn, faster_rcnn (default: all). Detection is of the untrained network with no score
 * too small, so that suppression has as much to do as it can have. */
#include "bench/bench.h"
#include "datasets/transform.h"
#include "detectors/detector.h"
#include "engine/rng.h"
#include "kernels/sgd.h"
#include "tools/cli.h"

#define WARM 4     /* steps before the clock: from the third on a device may replay a recorded step */
#define TURN 5     /* training steps that are timed as a whole, elsewhere than on the CPU */
#define OBJECTS 12 /* of an image */
#define CLASSES 80

typedef struct settings {
    const char *arch, *json;
    int height, width, batch, rounds;
} settings;

typedef struct job {
    pd_device *device;
    pd_detector *d;
    float *velocity;
    pd_batch batch;
    pd_detection *found;
    int *count;
    int unread; /* losses */
} job;

static void job_free(job *j)
{
    if (j->velocity) j->device->release(j->device, j->velocity);
    pd_detector_free(j->d);
    free(j->batch.pixels);
    free(j->batch.bytes);
    free(j->batch.info);
    free(j->batch.n_boxes);
    free(j->batch.boxes);
    free(j->batch.box_labels);
    free(j->found);
    free(j->count);
}

/* Images as the loader of pd_det_train would give them for this device. */
static pd_status draw_images(job *j, size_t values, pd_err *err)
{
    const pd_transform transform = pd_transform_detect(true);
    pd_batch *b = &j->batch;
    pd_rng rng = pd_rng_make(1, 1, 0);
    b->norm = pd_transform_norm(&transform);
    if (j->device->kind == PD_CPU)
        b->pixels = malloc(values * sizeof *b->pixels);
    else
        b->bytes = malloc(values);
    if (!b->pixels && !b->bytes) return PD_FAIL(err, PD_ENOMEM, "out of memory for a batch");
    for (size_t i = 0; i < values; i++) {
        const unsigned char byte = (unsigned char)pd_rng_below(&rng, 256);
        if (b->bytes)
            b->bytes[i] = byte;
        else
            b->pixels[i] = pd_pixel_value(byte, &b->norm, (int)(i % 3));
    }
    return PD_OK;
}

static pd_status make_batch(job *j, const settings *set, int most, pd_err *err)
{
    const size_t n = (size_t)set->batch, pixels = n * (size_t)set->height * (size_t)set->width * 3;
    pd_rng rng = pd_rng_make(1, 0, 0);
    pd_batch *b = &j->batch;
    *b = (pd_batch){.n = set->batch, .h = set->height, .w = set->width, .max_boxes = OBJECTS};
    PD_TRY(draw_images(j, pixels, err));
    b->info = calloc(n, sizeof *b->info);
    b->n_boxes = calloc(n, sizeof *b->n_boxes);
    b->boxes = calloc(n * OBJECTS, sizeof *b->boxes);
    b->box_labels = calloc(n * OBJECTS, sizeof *b->box_labels);
    j->found = calloc(n * (size_t)most, sizeof *j->found);
    j->count = calloc(n, sizeof *j->count);
    if (!b->info || !b->n_boxes || !b->boxes || !b->box_labels || !j->found || !j->count)
        return PD_FAIL(err, PD_ENOMEM, "out of memory for a batch");
    for (size_t i = 0; i < n; i++) {
        b->info[i] = (pd_image_info){.h = b->h, .w = b->w, .pad_h = b->h, .pad_w = b->w, .scale_x = 1, .scale_y = 1};
        b->n_boxes[i] = OBJECTS;
        for (size_t k = i * OBJECTS; k < (i + 1) * OBJECTS; k++) {
            const float x = pd_rng_float(&rng) * (float)b->w * 0.7f, y = pd_rng_float(&rng) * (float)b->h * 0.7f;
            const float side = 16 + pd_rng_float(&rng) * 0.28f * (float)(b->h < b->w ? b->h : b->w);
            b->boxes[k] = (pd_box){x, y, x + side, y + side};
            b->box_labels[k] = (int)pd_rng_below(&rng, CLASSES);
        }
    }
    return PD_OK;
}

static pd_status job_init(job *j, pd_device *device, pd_detector_type type, const settings *set, pd_err *err)
{
    pd_detector_settings s = pd_detector_defaults(type);
    size_t weights;
    *j = (job){.device = device};
    PD_TRY(pd_arch_parse(&s.arch, set->arch, NULL, err));
    s.classes = CLASSES;
    s.train = true;
    s.test.score_thresh = 0;
    PD_TRY(make_batch(j, set, s.test.max_per_image, err));
    PD_TRY(pd_detector_new(&j->d, device, &s, err));
    PD_TRY(pd_params_init(pd_detector_params(j->d), 1, err));
    (void)pd_params_weights(pd_detector_params(j->d), &weights);
    PD_TRY(device->alloc(device, (void **)&j->velocity, weights * sizeof *j->velocity, err));
    PD_TRY(device->fill(device, j->velocity, 0, weights * sizeof *j->velocity, err));
    return device->fill(device, pd_params_grads(pd_detector_params(j->d)), 0, weights * sizeof(float), err);
}

/* Waits for losses until no more than `left` are unread. */
static pd_status read_losses(job *j, int left, pd_err *err)
{
    pd_losses losses;
    for (; j->unread > left; j->unread--) PD_TRY(pd_detector_late(j->d, &losses, err));
    return PD_OK;
}

static pd_status step(job *j, pd_err *err)
{
    const pd_sgd sgd = {.lr = 1e-5, .momentum = 0.9, .weight_decay = 1e-4, .scale = 1};
    const bool late = j->device->kind != PD_CPU;
    pd_losses losses;
    PD_TRY(pd_detector_loss(j->d, &j->batch, 0, late ? NULL : &losses, err));
    j->unread += late;
    PD_TRY(read_losses(j, PD_PLAN_LATE - 1, err));
    PD_TRY(pd_detector_backward(j->d, false, err));
    PD_TRY(pd_sgd_step(j->device, pd_detector_params(j->d), j->velocity, &sgd, err));
    if (!late) pd_detector_changed(j->d);
    return PD_OK;
}

/* Returns with all work done. */
static pd_status train(job *j, int steps, pd_err *err)
{
    for (int i = 0; i < steps; i++) PD_TRY(step(j, err));
    PD_TRY(read_losses(j, 0, err));
    return j->device->sync(j->device, err);
}

static pd_status detect(job *j, int runs, pd_err *err)
{
    for (int i = 0; i < runs; i++)
        PD_TRY(pd_detector_detect(j->d, pd_detector_form(j->d), &j->batch, j->found, j->count, err));
    return PD_OK;
}

/* Samples are times of one run; `turn` of them are taken together. */
static pd_status time_it(samples *s, pd_status (*work)(job *j, int runs, pd_err *err), int turn, job *j,
                         const settings *set, pd_err *err)
{
    PD_TRY(work(j, WARM, err));
    for (int i = 0; i < set->rounds; i += turn) {
        const double start = bench_now();
        PD_TRY(work(j, turn, err));
        add_sample(s, (bench_now() - start) / turn);
    }
    return PD_OK;
}

static void print(const char *name, const char *what, const samples *s, const job *j, const settings *set)
{
    const double ms = quantile(s, 0.5) * 1e3;
    printf("%s-%s %s, %d of %dx%d: %.1f ms (%.1f-%.1f) = %.2f images/s, %.0f MiB\n", name, set->arch, what, set->batch,
           set->height, set->width, ms, quantile(s, 0.1) * 1e3, quantile(s, 0.9) * 1e3, set->batch / ms * 1e3,
           (double)pd_plan_bytes(pd_detector_plan(j->d)) / 1048576);
    fflush(stdout);
    bench_json(set->json, j->device, name, what, set->batch, ms * 1e-3);
}

static pd_status one(pd_device *device, const char *name, const settings *set, pd_err *err)
{
    static samples training, detection;
    pd_detector_type type;
    job j;
    training.n = detection.n = 0;
    PD_TRY(pd_detector_parse(&type, name, err));
    pd_status status = job_init(&j, device, type, set, err);
    const int turn = device->kind == PD_CPU ? 1 : TURN;
    if (status == PD_OK) status = time_it(&training, train, turn, &j, set, err);
    if (status == PD_OK) print(name, "training", &training, &j, set);
    if (status == PD_OK) pd_detector_changed(j.d);
    if (status == PD_OK) status = time_it(&detection, detect, 1, &j, set, err);
    if (status == PD_OK) print(name, "detection", &detection, &j, set);
    job_free(&j);
    return status;
}

int main(int argc, char **argv)
{
    settings set = {.arch = "resnet50", .height = 800, .width = 1344, .batch = 2, .rounds = 10};
    const pd_opt opts[] = {
        PD_OPT_STRING(0, "arch", "NAME", &set.arch, "the backbone (resnet50)"),
        PD_OPT_INT(0, "height", "N", &set.height, 32, 4096, "of the images, a multiple of 32 (800)"),
        PD_OPT_INT(0, "width", "N", &set.width, 32, 4096, "of the images, a multiple of 32 (1344)"),
        PD_OPT_INT(0, "batch", "N", &set.batch, 1, 256, "images in a step (2)"),
        PD_OPT_INT(0, "rounds", "N", &set.rounds, 1, 1000, "steps that are timed (10)"),
        PD_OPT_STRING(0, "json", "FILE", &set.json, "append results as lines of JSON"),
    };
    const pd_cli cli = {.program = "bench_detect",
                        .usage = "[DETECTOR...]",
                        .about = "Speed of detectors, in training and detection.",
                        .example = "bench_detect retinanet --device cuda --batch 8",
                        .opts = opts,
                        .n_opts = sizeof opts / sizeof *opts,
                        .common = PD_CLI_DEVICE | PD_CLI_THREADS,
                        .max_args = -1};
    static const char *const all[] = {"retinanet", "cascade_rcnn", "faster_rcnn"};
    pd_cli_args args;
    pd_err err = PD_ERR_INIT;
    pd_device *device = NULL;
    const int code = pd_cli_parse(&args, &cli, argc, argv);
    if (code >= 0) return code;
    pd_status status = pd_device_open(&device, args.device, args.threads, &err);
    if (status == PD_OK) status = pd_device_set_precision(device, args.precision, &err);
    const char *const *names = args.n_args ? args.args : all;
    const size_t count = args.n_args ? args.n_args : 3;
    for (size_t i = 0; i < count && status == PD_OK; i++) status = one(device, names[i], &set, &err);
    pd_device_close(device);
    pd_cli_free(&args);
    return status == PD_OK ? 0 : pd_cli_fail(&cli, &err);
}
