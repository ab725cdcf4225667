/* Training on the CUDA device as programs do it (tools/train_run.h): runs that stop and go on in fp16; steps that the
 * host does not wait for; losses that it sees a pass late; images that arrive as bytes.
 *
 * Built twice: as test_cuda_train, for a machine with a GPU (skipped elsewhere), and as test_cuda_train_emulated, where
 * the same host code and kernels run on the CPU (tests/emulate). */
#include "backbones/layer.h"
#include "datasets/transform.h"
#include "engine/file.h"
#include "engine/plan.h"
#include "engine/plugin.h"
#include "engine/rng.h"
#include "kernels/conv.h"
#include "kernels/normalize.h"
#include "kernels/pool.h"
#include "kernels/softmax_ce.h"
#include "tests/pd_test.h"
#include "tests/programs.h"
#include "tools/train_run.h"

static pd_err err;
static char dir[256];

#ifdef PD_EMULATED
long emulate_waits(void);
const pd_plugin *pd_plugin_cuda(void);
static pd_status open_gpu(pd_device **out)
{
    return pd_device_open_plugin(out, pd_plugin_cuda(), 0, 1, &err);
}
#else
static long emulate_waits(void)
{
    return 0;
}
static pd_status open_gpu(pd_device **out)
{
    return pd_device_open(out, "cuda", 1, &err);
}
#endif

/* ---- a small network and its run ---- */

enum { IMAGES = 4, SIDE = 8, CHANNELS = 8, WIDTH = 16, CLASSES = 3 };
#define LOUD 4096 /* the loss is multiplied by it: the first scales of fp16 are too large */

typedef struct trainee {
    pd_device *device;
    pd_params *params;
    pd_tape *tape;
    pd_plan *plan;
    pd_value *image, *label, *loss;
    pd_train_run run;
    double last_loss;
    float images[IMAGES * SIDE * SIDE * CHANNELS]; /* of the step under way */
    int labels[IMAGES];
} trainee;

static pd_value *weight(pd_tape *t, const char *name, int k, int c)
{
    const pd_param spec = {.rank = 4,
                           .dim = {k, c, 3, 3},
                           .kind = PD_WEIGHT,
                           .layout = PD_LAYOUT_CONV,
                           .init = {PD_INIT_NORMAL, sqrt(1.0 / (c * 9))}};
    return pd_tape_param(t, name, &spec);
}

static void record(trainee *t)
{
    const pd_conv_args args = {.stride = 1, .pad_h = 1, .pad_w = 1, .groups = 1, .relu = true};
    t->image = pd_tape_input(t->tape, "image", PD_F32, PD_SHAPE(IMAGES, SIDE, SIDE, CHANNELS));
    t->label = pd_tape_input(t->tape, "label", PD_I32, PD_SHAPE(IMAGES));
    pd_value *y = pd_conv(t->tape, "1", t->image, weight(t->tape, "1.weight", WIDTH, CHANNELS), NULL, NULL, args);
    y = pd_conv(t->tape, "2", y, weight(t->tape, "2.weight", WIDTH, WIDTH), NULL, NULL, args);
    pd_value *logits = pd_record_linear(t->tape, "fc", pd_global_avg_pool(t->tape, y), CLASSES, false);
    t->loss = pd_softmax_ce(t->tape, logits, t->label, NULL, 0, NULL);
    pd_tape_minimise(t->tape, t->loss, LOUD);
}

/* A new run in `folder`, on a device as a new process finds it. precision NULL: the CPU's. */
static void begin(trainee *t, pd_device *device, const char *precision, const char *folder)
{
    const pd_optimizer_cfg optimizer = {.lr = 0.1 / LOUD, .momentum = 0.9, .weight_decay = 1e-4};
    const pd_schedule constant = {.type = PD_SCHEDULE_CONSTANT};
    *t = (trainee){.device = device};
    PD_CHECK_OK(pd_device_set_precision(device, precision, &err));
    PD_CHECK_OK(pd_params_new(&t->params, &err));
    PD_CHECK_OK(pd_tape_new(&t->tape, t->params, true, &err));
    record(t);
    PD_CHECK_OK(pd_params_allocate(t->params, device, true, &err));
    PD_CHECK_OK(pd_params_init(t->params, 7, &err));
    PD_CHECK_OK(pd_plan_new(&t->plan, t->tape, device, PD_PLAN_TRAIN, NULL, &err));
    PD_CHECK_OK(pd_train_run_init(&t->run, device, t->params, folder, &optimizer, &constant, 0.9, 1, 100, &err));
}

static void end(trainee *t)
{
    pd_train_run_free(&t->run);
    pd_plan_free(t->plan);
    pd_tape_free(t->tape);
    pd_params_free(t->params);
}

/* What comes in a step depends on its number alone. */
static void forward(trainee *t, bool spoiled)
{
    float *const image = t->images;
    int *const label = t->labels;
    pd_rng rng = pd_rng_make(11, (uint32_t)t->run.at.step, 0);
    for (size_t i = 0; i < sizeof t->images / sizeof *image; i++) image[i] = (float)pd_rng_normal(&rng);
    if (spoiled) {
        const pd_param *bias = pd_params_find(t->params, "fc.bias");
        PD_CHECK_OK(t->device->fill(t->device, bias->data, 0xff, bias->count * sizeof(float), &err)); /* NaN */
    }
    for (int i = 0; i < IMAGES; i++) label[i] = (int)pd_rng_below(&rng, CLASSES);
    PD_CHECK_OK(pd_plan_give(t->plan, t->image, image, &err));
    PD_CHECK_OK(pd_plan_give(t->plan, t->label, label, &err));
    PD_CHECK_OK(pd_plan_forward(t->plan, &err));
}

static void step_unread(trainee *t)
{
    forward(t, false);
    PD_CHECK_OK(pd_plan_backward(t->plan, false, &err));
    PD_CHECK_OK(pd_train_step(&t->run, &err));
}

static void step(trainee *t)
{
    step_unread(t);
    PD_CHECK_OK(pd_plan_fetch(t->plan, t->loss, &err)); /* the step is taken, the loss is still there */
    t->last_loss = (double)*(const float *)t->loss->host;
}

static void save(trainee *t)
{
    const pd_model_meta meta = {.type = "classifier", .classes = CLASSES};
    PD_CHECK_OK(pd_make_dirs(t->run.dir, &err));
    PD_CHECK_OK(pd_train_save(&t->run, "last.safetensors", &meta, false, &err));
}

static const char *file_of(char path[512], const char *folder)
{
    snprintf(path, 512, "%s/last.safetensors", folder);
    return path;
}

/* Steps of a run in `folder`, from its own beginning or from a file; then its checkpoint. */
static void train(pd_device *device, const char *precision, const char *folder, const char *from, int64_t until)
{
    trainee t;
    begin(&t, device, precision, folder);
    if (from) PD_CHECK_OK(pd_train_resume(&t.run, from, &err));
    while (t.run.at.step < until) step(&t);
    PD_CHECK(isfinite(t.last_loss));
    save(&t);
    end(&t);
}

/* ---- the scale of fp16 ---- */

/* What a file says of it; false: nothing. */
static bool scale_in(const char *path, float scale[2])
{
    pd_st *file = NULL;
    PD_CHECK_OK(pd_st_open(&file, path, &err));
    const pd_st_tensor *t = file ? pd_st_find(file, "train.scale") : NULL;
    if (t) pd_st_read_f32(scale, t);
    pd_st_close(file);
    return t != NULL;
}

static void test_scale_goes_on(pd_device *gpu)
{
    char whole[400], half[400], path[512], other[512];
    float scale[2] = {0, 0};
    PD_ROW("fp16");
    snprintf(whole, sizeof whole, "%s/whole", dir);
    snprintf(half, sizeof half, "%s/half", dir);
    train(gpu, "fp16", whole, NULL, 14);
    train(gpu, "fp16", half, NULL, 9);
    PD_CHECK(scale_in(file_of(path, half), scale));
    PD_CHECK_MSG(scale[0] < 65536 && scale[1] > 0, "scale %g after %g good steps: the test shows nothing",
                 (double)scale[0], (double)scale[1]);
    train(gpu, "fp16", half, path, 14);
    PD_CHECK(scale_in(file_of(other, whole), scale));
    PD_CHECK(scale[1] > 5);
    PD_CHECK_MSG(pd_same_files(path, other), "the run that went on ended otherwise than the undisturbed one");
    PD_ROW("");
}

static void test_scale_and_others(pd_device *cpu, pd_device *gpu)
{
    char a[400], b[400], path[512];
    float scale[2] = {0, 0};
    snprintf(a, sizeof a, "%s/others", dir);
    snprintf(b, sizeof b, "%s/after", dir);
    train(gpu, "fp16", a, NULL, 8); /* a scale that nobody else asks for */
    train(gpu, "fp32", b, file_of(path, a), 10);
    PD_CHECK(!scale_in(file_of(path, b), scale));
    train(cpu, NULL, b, file_of(path, a), 10);
    PD_CHECK(!scale_in(file_of(path, b), scale));
    trainee t; /* a file without one */
    begin(&t, gpu, "fp16", a);
    PD_CHECK_OK(pd_train_resume(&t.run, file_of(path, b), &err));
    save(&t);
    end(&t);
    PD_CHECK(scale_in(file_of(path, a), scale));
    PD_CHECK(scale[0] == 65536 && scale[1] == 0);
}

/* Overwrites the numbers of a file's scale. */
static void spoil(const char *path, const float scale[2])
{
    float was[2] = {0, 0};
    static char text[1 << 20];
    PD_CHECK(scale_in(path, was));
    FILE *f = fopen(path, "r+b");
    const size_t bytes = fread(text, 1, sizeof text, f);
    const char *at = memmem(text, bytes, was, sizeof was);
    PD_CHECK(at != NULL);
    if (at) fseek(f, (long)(at - text), SEEK_SET);
    if (at) fwrite(scale, sizeof was, 1, f);
    fclose(f);
}

static void test_bad_scale(pd_device *gpu)
{
    static const struct {
        float scale[2];
        const char *says;
    } rows[] = {{{3, 1}, "train.scale[0] is 3, expected a power of two"},
                {{NAN, 1}, "train.scale[0] is nan"},
                {{0.5f, 1}, "train.scale[0] is 0.5"},
                {{1024, -1}, "train.scale[1] is -1, expected a number of steps"},
                {{1024, 2.5f}, "train.scale[1] is 2.5"}};
    char folder[400], path[512];
    snprintf(folder, sizeof folder, "%s/bad", dir);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        trainee t;
        train(gpu, "fp16", folder, NULL, 6);
        spoil(file_of(path, folder), rows[i].scale);
        begin(&t, gpu, "fp16", folder);
        PD_CHECK_FAILS(pd_train_resume(&t.run, path, &err), PD_EFORMAT, rows[i].says);
        end(&t);
    }
}

/* ---- waiting ---- */

/* Backward, norm, clipping, update, moving average: the host hands them over and goes on. */
static void test_steps_do_not_wait(pd_device *cpu, pd_device *gpu)
{
    static const char *const names[] = {"fp32", "fp16", "bf16"};
    double norm = 0;
    for (int p = -1; p < 3; p++) {
        trainee t;
        begin(&t, p < 0 ? cpu : gpu, p < 0 ? NULL : names[p], dir);
        PD_ROW(p < 0 ? "cpu" : names[p]);
        t.run.optimizer.clip_norm = 1e-3 * LOUD;
        for (int i = 0; i < 12; i++) step_unread(&t); /* graphs are recorded, the scale of fp16 has settled */
        const long before = emulate_waits();
        step_unread(&t);
        step_unread(&t);
        PD_CHECK_INT(emulate_waits() - before, 0);
        PD_CHECK_OK(pd_train_read_norm(&t.run, &err));
        if (p < 0) norm = t.run.grad_norm;
        PD_CHECK(norm > t.run.optimizer.clip_norm);
        PD_CHECK_NEAR(t.run.grad_norm, norm, (p == 0 ? 1e-3 : 0.1) * norm);
        end(&t);
        PD_ROW("");
    }
}

/* A detector's step gives its images, of bytes, and six short lists. Two steps of them, and longer ones than any
 * before, are handed over at once; however many follow, what arrives is what was given. */
static void test_uploads_do_not_wait(pd_device *gpu)
{
    enum { SHORT = 6, STEPS = 12, IMAGE = 300000 };
    unsigned char *image = NULL, *got = malloc(IMAGE), *sent = malloc(IMAGE);
    int *list[SHORT] = {NULL}, value;
    PD_CHECK_OK(gpu->alloc(gpu, (void **)&image, IMAGE, &err));
    for (int k = 0; k < SHORT; k++) PD_CHECK_OK(gpu->alloc(gpu, (void **)&list[k], sizeof value, &err));
    PD_CHECK_OK(gpu->sync(gpu, &err));
    const long before = emulate_waits();
    for (int i = 0; i < STEPS; i++) {
        memset(sent, i + 1, IMAGE);
        PD_CHECK_OK(gpu->upload(gpu, image, sent, i == 0 ? IMAGE / 2 : IMAGE, &err));
        for (int k = 0; k < SHORT; k++) {
            value = 100 * i + k;
            PD_CHECK_OK(gpu->upload(gpu, list[k], &value, sizeof value, &err));
        }
        if (i == 1) PD_CHECK_INT(emulate_waits() - before, 0);
    }
    PD_CHECK_OK(gpu->download(gpu, got, image, IMAGE, &err));
    PD_CHECK(!memcmp(got, sent, IMAGE));
    for (int k = 0; k < SHORT; k++) {
        PD_CHECK_OK(gpu->download(gpu, &value, list[k], sizeof value, &err));
        PD_CHECK_INT(value, 100 * (STEPS - 1) + k);
        gpu->release(gpu, list[k]);
    }
    gpu->release(gpu, image);
    free(got);
    free(sent);
}

/* ---- losses that come late ---- */

enum { LATE_STEPS = 8 };

/* The losses that are there, behind those that were seen. */
static pd_status read_losses(trainee *t, bool all, double *losses, int *seen)
{
    while (pd_train_unread(&t->run, all)) {
        int images = 0;
        PD_CHECK_OK(pd_plan_fetched(t->plan, &err));
        const double loss = (double)*(const float *)t->loss->host;
        const pd_status status = pd_train_loss(&t->run, loss, &images, &err);
        if (status != PD_OK) return status;
        PD_CHECK_INT(images, IMAGES + *seen);
        losses[(*seen)++] = loss;
    }
    return PD_OK;
}

/* Steps as programs take them; the weights are spoiled before step `bad`. *steps: those that were taken. */
static pd_status train_late(trainee *t, int bad, double *losses, int *seen, int *steps)
{
    for (*steps = 0; *steps < LATE_STEPS; ++*steps) {
        forward(t, *steps + 1 == bad);
        PD_CHECK_OK(pd_plan_fetch_later(t->plan, &err));
        pd_train_passed(&t->run, IMAGES + *steps);
        const pd_status status = read_losses(t, false, losses, seen);
        if (status != PD_OK) return status;
        PD_CHECK_OK(pd_plan_backward(t->plan, false, &err));
        PD_CHECK_OK(pd_train_step(&t->run, &err));
    }
    return read_losses(t, true, losses, seen);
}

static void test_late_losses(pd_device *device, bool late)
{
    trainee t;
    double at_once[LATE_STEPS], losses[LATE_STEPS] = {0};
    int seen = 0, steps = 0;
    PD_ROW(device->name);
    begin(&t, device, "fp32", dir);
    for (int i = 0; i < LATE_STEPS; i++) {
        step(&t);
        at_once[i] = t.last_loss;
    }
    end(&t);
    begin(&t, device, "fp32", dir);
    PD_CHECK_OK(train_late(&t, 0, losses, &seen, &steps));
    PD_CHECK_INT(seen, LATE_STEPS);
    PD_CHECK(!memcmp(losses, at_once, sizeof losses));
    PD_CHECK_FAILS(pd_plan_fetched(t.plan, &err), PD_EINVAL, "no results are unread");
    const long before = emulate_waits(); /* plans are recorded by now */
    for (int i = 0; i < PD_PLAN_LATE; i++) PD_CHECK_OK(pd_plan_fetch_later(t.plan, &err));
    PD_CHECK_FAILS(pd_plan_fetch_later(t.plan, &err), PD_EINVAL, "unread");
    for (int i = 0; i < PD_PLAN_LATE; i++) PD_CHECK_OK(pd_plan_fetched(t.plan, &err));
    t.run.at.step = seen = 0;
    PD_CHECK_OK(train_late(&t, 0, losses, &seen, &steps));
    PD_CHECK_INT(emulate_waits() - before, 0);
    end(&t);
    begin(&t, device, "fp32", dir);
    seen = 0;
    PD_CHECK_FAILS(train_late(&t, 5, losses, &seen, &steps), PD_EINVAL, "at step 5: lower optimizer.lr");
    PD_CHECK_INT(seen, 4);
    PD_CHECK_INT(steps, late ? 5 : 4); /* the CPU has not stepped with it */
    end(&t);
    begin(&t, device, "fp32", dir);
    seen = 0;
    PD_CHECK_FAILS(train_late(&t, LATE_STEPS, losses, &seen, &steps), PD_EINVAL, "at step 8");
    end(&t);
    PD_ROW("");
}

/* ---- images as bytes ---- */

enum { PICTURES = 3, HIGH = 6, WIDE = 7, VALUES = PICTURES * HIGH * WIDE * 3, OUT = 16, GROUPED = 6 };
static const int picture_sizes[PICTURES][4] = {
    {6, 7, 6, 7}, {4, 5, 6, 7}, {6, 1, 6, 7}}; /* those of pads do not count */
static const int picture_mirrors[PICTURES] = {1, 0, 1};

typedef struct pictures {
    unsigned char bytes[VALUES]; /* with noise in the padding: it must not be looked at */
    float floats[VALUES];        /* as the loader makes them */
} pictures;

static void draw_pictures(pictures *p, const pd_transform *transform)
{
    pd_normalizer norm;
    pd_rng rng = pd_rng_make(17, 0, 0);
    pd_normalizer_init(&norm, transform);
    for (int i = 0; i < VALUES; i++) p->bytes[i] = (unsigned char)pd_rng_below(&rng, 256);
    for (int i = 0; i < PICTURES; i++) {
        const int h = picture_sizes[i][0], w = picture_sizes[i][1];
        unsigned char rgb[HIGH * WIDE * 3];
        const pd_image image = {h, w, rgb, 0};
        for (int y = 0; y < h; y++) memcpy(rgb + y * w * 3, p->bytes + (i * HIGH + y) * WIDE * 3, (size_t)w * 3);
        pd_normalize_pad(p->floats + i * HIGH * WIDE * 3, HIGH, WIDE, &image, picture_mirrors[i] != 0, &norm);
    }
}

/* What a training pass leaves: the loss, and the gradients of the kernel and the bias that read the image. */
typedef struct left_by_pass {
    float loss, kernel[OUT * 3 * 3 * 3], bias[OUT];
    float image[VALUES]; /* seen: the normalised image, kept */
} left_by_pass;

/* Who reads the normalised image: the convolution, one in three groups, the host or a pooling as well. */
typedef enum readers { CONV, GROUPS, HOST, POOL } readers;

/* norm NULL: floats. */
static void pass(left_by_pass *out, pd_device *d, const char *precision, const pictures *p, const pd_pixel_norm *norm,
                 readers by)
{
    const int groups = by == GROUPS ? 3 : 1, outs = by == GROUPS ? GROUPED : OUT;
    pd_params *params = NULL;
    pd_tape *t = NULL;
    pd_plan *plan = NULL;
    const int labels[PICTURES] = {0, 2, 1};
    const pd_param kernel = {.rank = 4,
                             .dim = {outs, 3 / groups, 3, 3},
                             .kind = PD_WEIGHT,
                             .layout = PD_LAYOUT_CONV,
                             .init = {PD_INIT_NORMAL, 0.2}};
    const pd_param bias = {.rank = 1, .dim = {outs}, .kind = PD_WEIGHT, .init = {PD_INIT_NORMAL, 0.2}};
    const pd_conv_args args = {.stride = 2, .pad_h = 1, .pad_w = 1, .groups = groups, .relu = true};
    PD_CHECK_OK(pd_device_set_precision(d, precision, &err));
    PD_CHECK_OK(pd_params_new(&params, &err));
    PD_CHECK_OK(pd_tape_new(&t, params, true, &err));
    pd_value *image, *sizes = NULL, *mirror = NULL;
    pd_value *input = norm ? pd_tape_input(t, "image", PD_U8, PD_SHAPE(PICTURES, HIGH, WIDE, 3))
                           : pd_tape_input(t, "image", PD_F32, PD_SHAPE(PICTURES, HIGH, WIDE, 3));
    image = input;
    if (norm) {
        sizes = pd_tape_input(t, "sizes", PD_I32, PD_SHAPE(PICTURES, 4));
        mirror = pd_tape_input(t, "mirror", PD_I32, PD_SHAPE(PICTURES));
        image = pd_normalize(t, input, sizes, mirror, norm);
        if (by == HOST) pd_tape_keep(t, image);
        if (by == POOL) pd_max_pool(t, image, 3, 2, 1);
    }
    pd_value *label = pd_tape_input(t, "label", PD_I32, PD_SHAPE(PICTURES));
    pd_value *w = pd_tape_param(t, "w", &kernel), *b = pd_tape_param(t, "b", &bias);
    pd_value *y = pd_conv(t, "conv", image, w, b, NULL, args);
    pd_value *logits = pd_record_linear(t, "fc", pd_global_avg_pool(t, y), CLASSES, false);
    pd_value *loss = pd_softmax_ce(t, logits, label, NULL, 0, NULL);
    pd_tape_minimise(t, loss, 1);
    PD_CHECK_OK(pd_params_allocate(params, d, true, &err));
    PD_CHECK_OK(pd_params_init(params, 7, &err));
    PD_CHECK_OK(pd_plan_new(&plan, t, d, PD_PLAN_TRAIN, NULL, &err));
    PD_CHECK_OK(pd_plan_give(plan, input, norm ? (const void *)p->bytes : p->floats, &err));
    if (norm) PD_CHECK_OK(pd_plan_give(plan, sizes, picture_sizes, &err));
    if (norm) PD_CHECK_OK(pd_plan_give(plan, mirror, picture_mirrors, &err));
    PD_CHECK_OK(pd_plan_give(plan, label, labels, &err));
    PD_CHECK_OK(pd_plan_forward(plan, &err));
    PD_CHECK_OK(pd_plan_fetch(plan, NULL, &err));
    /* the convolution reads the image where it lies, unless somebody else does, too */
    const bool half = d->precision == PD_FP16 || d->precision == PD_BF16;
    const bool padded = norm && by <= GROUPS && d->kind != PD_CPU;
    PD_CHECK_INT(image->pitch, !padded ? 3 : half ? 8 : 4);
    out->loss = *(const float *)loss->host;
    if (norm && by == HOST) memcpy(out->image, image->host, sizeof out->image);
    PD_CHECK_OK(pd_plan_backward(plan, false, &err));
    PD_CHECK_OK(d->download(d, out->kernel, w->param->grad, w->param->count * sizeof *out->kernel, &err));
    PD_CHECK_OK(d->download(d, out->bias, b->param->grad, b->param->count * sizeof *out->bias, &err));
    pd_plan_free(plan);
    pd_tape_free(t);
    pd_params_free(params);
}

/* Bytes and the floats of the loader lead to the same bits, on the CPU and in every precision. */
static void test_bytes(pd_device *cpu, pd_device *gpu)
{
    static const char *const names[] = {"fp32", "tf32", "fp16", "bf16"};
    const pd_transform transforms[] = {pd_transform_detect(true), pd_transform_none()};
    for (int i = 0; i < 2; i++) {
        pictures p;
        const pd_pixel_norm norm = pd_transform_norm(&transforms[i]);
        draw_pictures(&p, &transforms[i]);
        for (int k = -1; k < 4; k++) {
            static left_by_pass floats, bytes, seen, shared;
            pd_device *d = k < 0 ? cpu : gpu;
            const char *precision = k < 0 ? NULL : names[k];
            PD_ROW(k < 0 ? "cpu" : names[k]);
            pass(&floats, d, precision, &p, NULL, CONV);
            pass(&bytes, d, precision, &p, &norm, CONV);
            pass(&seen, d, precision, &p, &norm, HOST);
            pass(&shared, d, precision, &p, &norm, POOL);
            PD_CHECK(floats.loss > 0 && floats.kernel[0] != 0);
            PD_CHECK(bytes.loss == floats.loss && seen.loss == floats.loss && shared.loss == floats.loss);
            PD_CHECK(!memcmp(bytes.kernel, floats.kernel, sizeof bytes.kernel));
            PD_CHECK(!memcmp(bytes.bias, floats.bias, sizeof bytes.bias));
            if (k < 2) PD_CHECK(!memcmp(seen.image, p.floats, sizeof seen.image));
            /* grouped: our own kernels, or the library's on padded channels, so not the same bits everywhere */
            pass(&floats, d, precision, &p, NULL, GROUPS);
            pass(&bytes, d, precision, &p, &norm, GROUPS);
            for (int j = 0; j < GROUPED * 9; j++)
                PD_CHECK_NEAR(bytes.kernel[j], floats.kernel[j], 1e-3 * (k == 2 ? 65536 : 1));
            PD_ROW("");
        }
    }
}

int main(void)
{
    pd_device *cpu = NULL, *gpu = NULL;
    PD_CHECK_OK(pd_device_open(&cpu, "cpu", 1, &err));
    if (!pd_test_dir(dir, "cuda_train")) return 1;
    if (open_gpu(&gpu) != PD_OK) {
        pd_test_checks = 0;
        PD_SKIP("%s", err.text);
    } else {
        test_scale_goes_on(gpu);
        test_scale_and_others(cpu, gpu);
        test_bad_scale(gpu);
        test_steps_do_not_wait(cpu, gpu);
        test_uploads_do_not_wait(gpu);
        test_late_losses(cpu, false);
        test_late_losses(gpu, true);
        test_bytes(cpu, gpu);
        pd_device_close(gpu);
    }
    pd_device_close(cpu);
    pd_remove_tree(dir);
    return pd_test_end();
}
