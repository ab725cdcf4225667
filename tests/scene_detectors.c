#include "tests/scene_detectors.h"
#include "datasets/transform.h"
#include "detectors/detector.h"
#include "engine/half.h"
#include "kernels/sgd.h"
#include "tests/pd_test.h"

#define STEPS 3 /* the third run of a plan is recorded */
#define IMAGES 2
#define SIDE 32
#define ROOM 3 /* ground truths of an image */
#define FOUND 20
#define FIRST_SCALE 4096.f /* of fp16 gradients, so that no step is left out */

enum { IN_FP32 = 1, IN_TF32 = 2, IN_FP16 = 4, IN_BF16 = 8 }; /* as `precisions` has them */

typedef struct row {
    const char *name;
    pd_detector_type type;
    const char *arch;
    bool folded;       /* the parameters of a folded file: detection only */
    unsigned emulated; /* precisions that the emulation, which is slow, runs; a GPU runs all */
    unsigned bytes;    /* those of them that run again with images as bytes */
    pd_topk_mode topk;
    pd_nms_type nms;
} row;

#define BEST PD_TOPK_ANCHORS, PD_NMS_PLAIN
static const row rows[] = {
    {"retinanet", PD_RETINANET, "resnet18", false, IN_FP32 | IN_TF32 | IN_FP16 | IN_BF16, IN_TF32 | IN_BF16, BEST},
    {"retinanet, PD-A", PD_RETINANET, "pd_a_resnet18", false, IN_BF16, 0, PD_TOPK_PAIRS, PD_NMS_PLAIN},
    {"retinanet, PD-B", PD_RETINANET, "pd_b_resnet18", false, IN_FP16, 0, PD_TOPK_ANCHORS, PD_NMS_SOFT_GAUSSIAN},
    {"retinanet, PD-B folded", PD_RETINANET, "pd_b_resnet18", true, IN_FP32 | IN_BF16, IN_FP32, PD_TOPK_PAIRS,
     PD_NMS_SOFT_LINEAR},
    {"cascade_rcnn", PD_CASCADE_RCNN, "resnet18", false, IN_FP32 | IN_BF16, IN_FP32, BEST},
    {"cascade_rcnn, PD-A folded", PD_CASCADE_RCNN, "pd_a_resnet18", true, IN_FP16, IN_FP16, BEST},
    {"faster_rcnn, PD-B", PD_FASTER_RCNN, "pd_b_resnet18", false, IN_FP32 | IN_FP16, 0, PD_TOPK_ANCHORS,
     PD_NMS_SOFT_GAUSSIAN},
};

/* Where all runs of a row begin. */
typedef struct start {
    float *weights, *buffers;
    size_t weight_count, buffer_count;
} start;

/* What a detector did on a device. */
typedef struct outcome {
    float *maps; /* of the untrained detector: the pyramid and the heads on it, one behind the other */
    size_t count;
    pd_detection there[IMAGES][FOUND], host[IMAGES][FOUND]; /* found by the device, by the host from its heads */
    int there_count[IMAGES], host_count[IMAGES];
    pd_detection merged[FOUND]; /* of the images as if they were views of one */
    int merged_count;
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
enum { PIXELS = SIDE * SIDE * 3 }; /* of an image, and their colours */
typedef struct data {
    unsigned char raw[IMAGES * PIXELS];
    float pixels[IMAGES * PIXELS]; /* made of them */
    pd_image_info info[IMAGES];
    int n_boxes[IMAGES], labels[IMAGES * ROOM];
    pd_box boxes[IMAGES * ROOM];
    pd_batch floats, bytes; /* the same images */
} data;

/* An image as the loader hands it over, both ways. */
static void draw_image(data *d, int i, const pd_transform *transform, pd_rng *rng)
{
    const pd_image_info *info = &d->info[i];
    unsigned char rgb[PIXELS], *raw = d->raw + i * PIXELS;
    pd_normalizer norm;
    pd_normalizer_init(&norm, transform);
    for (int y = 0; y < info->h; y++)
        for (int x = 0; x < 3 * info->w; x++)
            raw[3 * SIDE * y + x] = rgb[3 * info->w * y + x] = (unsigned char)pd_rng_below(rng, 256);
    const pd_image image = {info->h, info->w, rgb, 0};
    pd_normalize_pad(d->pixels + i * PIXELS, SIDE, SIDE, &image, info->flipped != 0, &norm);
}

static data *make_data(void)
{
    const pd_transform transform = pd_transform_detect(true);
    data *d = calloc(1, sizeof *d);
    pd_rng rng = pd_rng_make(9, 0, 0);
    if (!d) return NULL;
    for (int i = 0; i < IMAGES; i++) {
        const int h = SIDE - 3 * i, w = SIDE - 5 * i;
        d->info[i] = (pd_image_info){
            .h = h, .w = w, .pad_h = SIDE, .pad_w = SIDE, .scale_x = 0.5f, .scale_y = 0.75f, .flipped = i};
        draw_image(d, i, &transform, &rng);
        d->n_boxes[i] = ROOM - i;
        for (int k = 0; k < ROOM; k++) {
            const float x = (float)(3 + 5 * k), y = (float)(4 * k), side = (float)(9 + 5 * k);
            d->boxes[i * ROOM + k] = (pd_box){x, y, x + side, y + side};
            d->labels[i * ROOM + k] = (k + i) % 3;
        }
    }
    d->floats = (pd_batch){.n = IMAGES,
                           .h = SIDE,
                           .w = SIDE,
                           .pixels = d->pixels,
                           .info = d->info,
                           .max_boxes = ROOM,
                           .n_boxes = d->n_boxes,
                           .boxes = d->boxes,
                           .box_labels = d->labels};
    d->bytes = d->floats;
    d->bytes.pixels = NULL;
    d->bytes.bytes = d->raw;
    d->bytes.norm = pd_transform_norm(&transform);
    return d;
}

/* The boxes that a cascade trains on are chosen by scores. Few are proposed, each far better than the next one, and all
 * of them are used: so that rounding does not choose others. */
static pd_detector_settings settings(const row *r)
{
    pd_detector_settings set = pd_detector_defaults(r->type);
    pd_err err = PD_ERR_INIT;
    if (pd_arch_parse(&set.arch, r->arch, NULL, &err) != PD_OK) abort();
    set.classes = 3;
    set.train = !r->folded;
    set.folded = r->folded;
    set.test.max_per_image = FOUND;
    set.test.score_thresh = 0;
    set.test.pre_nms = 100;
    set.test.topk_mode = r->topk;
    set.test.nms_type = r->nms;
    set.test.soft_min_score = 0.001f;
    set.cascade.rpn.sample.num = 32;
    set.cascade.sample = (pd_sample_cfg){.num = ROOM + 2, .fraction = 1};
    set.cascade.rpn.train.pre_nms = 1; /* of a level */
    set.cascade.rpn.test.pre_nms = 60;
    set.cascade.rpn.train.max_keep = 2;
    set.cascade.rpn.test.max_keep = 4;
    return set;
}

/* ---- where runs begin ---- */

static bool ends_with(const char *text, const char *end)
{
    const size_t a = strlen(text), b = strlen(end);
    return a >= b && !strcmp(text + a - b, end);
}

/* Drawn weights; statistics that keep a sum of five branches as small as one. */
static pd_status make_start(start *from, const row *r, pd_device *cpu, pd_err *err)
{
    const pd_detector_settings set = settings(r);
    pd_detector *d = NULL;
    pd_status status = PD_OK;
    *from = (start){.weights = NULL};
    PD_TRY_DONE(pd_detector_new(&d, cpu, &set, err));
    const pd_params *params = pd_detector_params(d);
    PD_TRY_DONE(pd_params_init(pd_detector_params(d), 3, err));
    pd_rng rng = pd_rng_make(4, 0, 0);
    for (size_t i = 0; i < pd_params_count(params); i++) {
        const pd_param *p = pd_params_at(params, i);
        const bool mean = ends_with(p->name, "running_mean"), var = ends_with(p->name, "running_var");
        for (size_t k = 0; k < p->count; k++) {
            if (mean) p->data[k] = 0.2f * (float)pd_rng_normal(&rng);
            if (var) p->data[k] = 4 + 2 * pd_rng_float(&rng);
        }
    }
    const float *weights = pd_params_weights(params, &from->weight_count),
                *buffers = pd_params_buffers(params, &from->buffer_count);
    from->weights = malloc(from->weight_count * sizeof *weights + 1);
    from->buffers = malloc(from->buffer_count * sizeof *buffers + 1);
    if (!from->weights || !from->buffers) abort();
    memcpy(from->weights, weights, from->weight_count * sizeof *weights);
    if (from->buffer_count) memcpy(from->buffers, buffers, from->buffer_count * sizeof *buffers);
done:
    pd_detector_free(d);
    return status;
}

static float rounded(float x, int precision)
{
    if (precision == 1) return pd_bits_float((pd_float_bits(x) + 0xfffu + (pd_float_bits(x) >> 13 & 1)) & ~0x1fffu);
    if (precision == 2) return pd_float_from_f16(pd_f16_from_float(x));
    return precision == 3 ? pd_float_from_bf16(pd_bf16_from_float(x)) : x;
}

static float *all_rounded(const float *x, size_t n, int precision)
{
    float *y = malloc(n * sizeof *y + 1);
    if (!y) abort();
    for (size_t i = 0; i < n; i++) y[i] = rounded(x[i], precision);
    return y;
}

/* ---- runs ---- */

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

/* Each image of the batch is a view. */
static pd_status merge(outcome *o, pd_detector *d, const pd_batch *b, pd_err *err)
{
    pd_batch view[IMAGES];
    const pd_batch *views[IMAGES];
    for (int i = 0; i < IMAGES; i++) {
        view[i] = *b;
        view[i].n = 1;
        view[i].info += i;
        if (b->pixels) view[i].pixels += i * PIXELS;
        if (b->bytes) view[i].bytes += i * PIXELS;
        views[i] = &view[i];
    }
    return pd_detector_detect_views(d, pd_detector_form(d), views, IMAGES, o->merged, &o->merged_count, err);
}

/* Heads are read where pixels are floats. */
static pd_status detect(outcome *o, pd_detector *d, const pd_batch *b, pd_err *err)
{
    pd_raw raw;
    const pd_form form = pd_detector_form(d);
    if (b->pixels) {
        PD_TRY(pd_detector_raw(d, form, b->pixels, b->info, b->n, b->h, b->w, &raw, err));
        PD_TRY(copy_maps(o, &raw, err));
        PD_TRY(pd_detector_decode(d, b->info, o->host[0], o->host_count, err));
    }
    for (int run = 0; run < 3; run++) PD_TRY(pd_detector_detect(d, form, b, o->there[0], o->there_count, err));
    for (int run = 0; run < 2; run++) PD_TRY(merge(o, d, b, err)); /* a plan runs once a view */
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
    const float scale[2] = {FIRST_SCALE, 0};
    if (device->scale) PD_TRY_DONE(device->upload(device, device->scale, scale, sizeof scale, err));
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

/* rounding: of weights and pixels, to what a precision has; 0: none. */
static pd_status run(outcome *o, const row *r, pd_device *device, const start *from, const pd_batch *batch,
                     int rounding, pd_err *err)
{
    const pd_detector_settings set = settings(r);
    pd_batch b = *batch;
    pd_detector *d = NULL;
    float *velocity = NULL, *weights = all_rounded(from->weights, from->weight_count, rounding);
    float *pixels = b.pixels ? all_rounded(b.pixels, IMAGES * PIXELS, rounding) : NULL;
    pd_status status = PD_OK;
    *o = (outcome){.count = 0};
    b.pixels = pixels;
    PD_TRY_DONE(pd_detector_new(&d, device, &set, err));
    const pd_params *params = pd_detector_params(d);
    float *to = pd_params_weights(params, &o->weights);
    PD_TRY_DONE(device->upload(device, to, weights, o->weights * sizeof *to, err));
    if (from->buffer_count)
        PD_TRY_DONE(device->upload(device, pd_params_buffers(params, &(size_t){0}), from->buffers,
                                   from->buffer_count * sizeof(float), err));
    PD_TRY_DONE(detect(o, d, &b, err));
    if (!set.train) goto done;
    PD_TRY_DONE(device->alloc(device, (void **)&velocity, o->weights * sizeof *velocity, err));
    PD_TRY_DONE(train(o, d, device, &b, velocity, err));
done:
    if (velocity) device->release(device, velocity);
    pd_detector_free(d);
    free(weights);
    free(pixels);
    return status;
}

/* ---- comparing ---- */

/* How far a run is from another one: of maps, of the largest loss's difference, of what the steps change; each to its
 * size. */
typedef struct apart {
    double maps, loss, change;
} apart;

static apart how_far(const outcome *want, const outcome *got)
{
    apart far = {.maps = distance(want->maps, got->maps, want->count)};
    for (int s = 0; s < STEPS && want->change; s++)
        far.loss = fmax(far.loss, distance(&want->losses[s].loss, &got->losses[s].loss, 1));
    if (want->change) far.change = distance(want->change, got->change, want->weights);
    return far;
}

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

static bool same_found(const pd_detection *a, int a_count, const pd_detection *b, int b_count)
{
    return a_count == b_count && !memcmp(a, b, (size_t)a_count * sizeof *a);
}

/* A run whose images were bytes beside one whose images were floats: no bit differs. */
static void compare_bytes(const outcome *floats, const outcome *bytes)
{
    for (int i = 0; i < IMAGES; i++)
        PD_CHECK(same_found(floats->there[i], floats->there_count[i], bytes->there[i], bytes->there_count[i]));
    PD_CHECK(same_found(floats->merged, floats->merged_count, bytes->merged, bytes->merged_count));
    if (!floats->change) return;
    for (int s = 0; s < STEPS; s++) {
        const pd_losses *a = &floats->losses[s], *b = &bytes->losses[s];
        PD_CHECK_INT(a->count, b->count);
        PD_CHECK_MSG(!memcmp(a->value, b->value, (size_t)a->count * sizeof *a->value), "losses of step %d are others",
                     s);
    }
    PD_CHECK(!memcmp(floats->change, bytes->change, floats->weights * sizeof *floats->change));
}

/* The CPU's detections from several views, in any order: rounding swaps those of nearly equal scores. */
static void compare_merged(const outcome *want, const outcome *got)
{
    PD_CHECK(want->merged_count > 0);
    PD_CHECK_INT(got->merged_count, want->merged_count);
    for (int i = 0; i < want->merged_count; i++) {
        const pd_detection *a = &want->merged[i];
        bool found = false;
        for (int k = 0; k < got->merged_count; k++) {
            const pd_detection *b = &got->merged[k];
            found = found || (a->label == b->label && fabsf(a->score - b->score) < 1e-4f * (1 + a->score) &&
                              pd_box_iou(a->box, b->box) > 0.999f);
        }
        PD_CHECK_MSG(found, "detection %d of the views (class %d, score %g) is missing", i, a->label, (double)a->score);
    }
}

/* Every part of the losses, step by step. */
static void compare_parts(const outcome *want, const outcome *got, double allowed, bool accuracies)
{
    for (int s = 0; s < STEPS; s++) {
        for (int i = 0; i < want->losses[s].count; i++) {
            const double x = (double)want->losses[s].value[i], y = (double)got->losses[s].value[i];
            if (!accuracies && !strstr(want->losses[s].name[i], "loss")) continue; /* a row is right or wrong */
            PD_CHECK_MSG(fabs(x - y) <= allowed * (1 + x), "%s of step %d is %.6f, expected %.6f",
                         want->losses[s].name[i], s, y, x);
        }
        PD_CHECK_INT(got->losses[s].positives, want->losses[s].positives);
    }
}

static void compare(const outcome *want, const outcome *got, apart allowed, bool fp32)
{
    const apart far = how_far(want, got);
    printf("%s: heads %.2g of %.2g allowed, losses %.2g of %.2g, change %.2g of %.2g\n", pd_test_row, far.maps,
           allowed.maps, far.loss, allowed.loss, far.change, allowed.change);
    PD_CHECK_MSG(far.maps <= allowed.maps, "heads differ by %.3g of their size (allowed %.3g)", far.maps, allowed.maps);
    if (!want->change) return;
    PD_CHECK_MSG(far.loss <= allowed.loss, "losses differ by %.3g (allowed %.3g)", far.loss, allowed.loss);
    PD_CHECK_MSG(far.change <= allowed.change, "what %d steps change differs by %.3g of its size (allowed %.3g)", STEPS,
                 far.change, allowed.change);
    compare_parts(want, got, allowed.loss, fp32);
}

/* What is allowed: in fp32 as much as two orders of summation make of some hundred layers' results. Otherwise FACTOR
 * times what rounding makes of it on the CPU: a run in float32 whose weights and pixels are rounded once. The device
 * rounds maps and their gradients besides, twice a layer. */
#define FACTOR 4
static pd_status allow(apart *allowed, const row *r, const outcome *want, pd_device *cpu, const start *from,
                       const data *d, int p, pd_err *err)
{
    outcome near;
    *allowed = (apart){1e-4, 1e-3, 0.02};
    if (p == 0) return PD_OK;
    const pd_status status = run(&near, r, cpu, from, &d->floats, p, err);
    if (status == PD_OK) {
        const apart far = how_far(want, &near);
        *allowed = (apart){FACTOR * far.maps, FACTOR * fmax(far.loss, far.maps), FACTOR * far.change};
    }
    outcome_free(&near);
    return status;
}

/* The same once more with bytes. */
static void check_bytes(const row *r, const outcome *floats, pd_device *gpu, const start *from, const data *d)
{
    pd_err err = PD_ERR_INIT;
    outcome *bytes = calloc(1, sizeof *bytes);
    if (!bytes) abort();
    const pd_status status = run(bytes, r, gpu, from, &d->bytes, 0, &err);
    PD_CHECK_MSG(status == PD_OK, "%s", err.text);
    if (status == PD_OK) compare_bytes(floats, bytes);
    outcome_free(bytes);
    free(bytes);
}

static void check_precision(const row *r, const outcome *want, pd_device *cpu, pd_device *gpu, const start *from,
                            const data *d, int p, bool bytes)
{
    pd_err err = PD_ERR_INIT;
    outcome *got = calloc(1, sizeof *got);
    apart allowed;
    if (!got) abort();
    PD_CHECK_OK(allow(&allowed, r, want, cpu, from, d, p, &err));
    PD_CHECK_OK(pd_device_set_precision(gpu, precisions[p].name, &err));
    const pd_status status = run(got, r, gpu, from, &d->floats, 0, &err);
    PD_CHECK_MSG(status == PD_OK, "%s", err.text);
    if (status == PD_OK) {
        compare_found(got);
        compare(want, got, allowed, p == 0);
        if (p == 0) compare_merged(want, got);
        if (bytes) check_bytes(r, got, gpu, from, d);
    }
    outcome_free(got);
    free(got);
}

static void check(const row *r, pd_device *cpu, pd_device *gpu, bool emulated)
{
    pd_err err = PD_ERR_INIT;
    outcome *want = calloc(1, sizeof *want);
    data *d = make_data();
    start from;
    if (!want || !d) abort();
    PD_CHECK_OK(make_start(&from, r, cpu, &err));
    PD_CHECK_OK(run(want, r, cpu, &from, &d->floats, 0, &err));
    for (int p = 0; p < PRECISIONS; p++) {
        char text[96];
        if (!precision_wanted(p) || (emulated && !(r->emulated >> p & 1))) continue;
        snprintf(text, sizeof text, "%s, %s", r->name, precisions[p].name);
        PD_ROW(text);
        check_precision(r, want, cpu, gpu, &from, d, p, !emulated || r->bytes >> p & 1);
        PD_ROW("");
    }
    outcome_free(want);
    free(want);
    free(from.weights);
    free(from.buffers);
    free(d);
}

scene_tally check_detectors(const char *only, pd_device *cpu, pd_device *gpu, bool emulated)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strstr(rows[i].name, only)) check(&rows[i], cpu, gpu, emulated);
    return (scene_tally){pd_test_checks, pd_test_failures};
}
