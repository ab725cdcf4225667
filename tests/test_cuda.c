/* The CUDA device against the CPU: operations on odd shapes, forward and backward, in every precision; whole networks
 * in training and inference; recorded graphs against plain loops, bit for bit.
 *
 * Built twice: as test_cuda, for a machine with a GPU (skipped elsewhere), and as test_cuda_emulated, where the same
 * host code and kernels run on the CPU (tests/emulate) and device memory is closed to the host. Arguments:
 * --operations or --networks for one half, any other word: only the cases whose names contain it; behind it, a
 * precision: only this one. ctest: slow */
#include "backbones/classifier.h"
#include "backbones/layer.h"
#include "engine/plugin.h"
#include "engine/rng.h"
#include "kernels/conv.h"
#include "kernels/gate.h"
#include "kernels/pool.h"
#include "kernels/sgd.h"
#include "kernels/softmax_ce.h"
#include "kernels/subsample.h"
#include "kernels/upsample_add.h"
#include "tests/pd_test.h"
#include "tests/scene.h"
#include "tests/scene_detectors.h"

static const char *only = "";

static bool chosen(const char *name)
{
    return strstr(name, only) != NULL;
}

#ifdef PD_EMULATED
#define EMULATED true
const pd_plugin *pd_plugin_cuda(void);
static pd_status open_gpu(pd_device **out, pd_err *err)
{
    return pd_device_open_plugin(out, pd_plugin_cuda(), 0, 1, err);
}
#else
#define EMULATED false
static pd_status open_gpu(pd_device **out, pd_err *err)
{
    return pd_device_open(out, "cuda", 1, err);
}
#endif

/* ---- operations: small networks that end in a loss
 * ------------------------------------------------------------------- */

static pd_value *kernel(pd_tape *t, const char *name, int k, int c, int r, int s)
{
    const pd_param spec = {.rank = 4,
                           .dim = {k, c, r, s},
                           .kind = PD_WEIGHT,
                           .layout = PD_LAYOUT_CONV,
                           .init = {PD_INIT_NORMAL, sqrt(1.0 / (c * r * s))}};
    return pd_tape_param(t, name, &spec);
}

static pd_value *vector(pd_tape *t, const char *name, int n)
{
    const pd_param spec = {.rank = 1, .dim = {n}, .kind = PD_WEIGHT, .init = {PD_INIT_NORMAL, 0.5}};
    return pd_tape_param(t, name, &spec);
}

static pd_value *conv_case(pd_tape *t, int n, int h, int w, int c, int k, int size, int stride, int groups, bool bias,
                           bool residual, bool relu)
{
    const pd_conv_args args = {.stride = stride, .pad_h = size / 2, .pad_w = size / 2, .groups = groups, .relu = relu};
    pd_value *x = scene_map(t, "x", n, h, w, c);
    pd_value *r = residual ? scene_map(t, "r", n, pd_conv_out(h, size, stride, size / 2),
                                       pd_conv_out(w, size, stride, size / 2), k)
                           : NULL;
    return pd_conv(t, "conv", x, kernel(t, "w", k, c / groups, size, size), bias ? vector(t, "b", k) : NULL, r, args);
}

static pd_value *layer_case(pd_tape *t, pd_form form, pd_mixture mixture, unsigned branches, int n, int h, int c, int k,
                            int stride, bool residual)
{
    const pd_layer l = {.out = k, .kernel = 3, .stride = stride, .groups = 1, .mixture = mixture, .branches = branches};
    pd_value *r = residual ? scene_map(t, "r", n, (h - 1) / stride + 1, (h - 1) / stride + 1, k) : NULL;
    return pd_record_layer(t, form, "layer", "bn", scene_map(t, "x", n, h, h, c), &l, r, true);
}

static pd_value *squeeze_case(pd_tape *t, int n, int h, int w, int c)
{
    pd_value *x = scene_map(t, "x", n, h, w, c);
    return pd_excite(t, x, pd_record_linear(t, "fc", pd_channel_means(t, x), c, false), scene_map(t, "r", n, h, w, c),
                     true);
}

static pd_value *two_readers_case(pd_tape *t)
{
    pd_value *x = scene_map(t, "x", 2, 6, 6, 16), *y = pd_max_pool(t, x, 3, 1, 1);
    const pd_conv_args args = {.stride = 1, .pad_h = 1, .pad_w = 1, .groups = 1};
    return pd_conv(t, "conv", x, kernel(t, "w", 16, 16, 3, 3), NULL, y, args);
}

/* x has two readers: a gradient is added to */
static pd_value *conv_1x1_twice_case(pd_tape *t)
{
    pd_value *x = scene_map(t, "x", 2, 7, 5, 16);
    const pd_conv_args args = {.stride = 1, .groups = 1};
    pd_value *y = pd_conv(t, "a", x, kernel(t, "wa", 24, 16, 1, 1), NULL, NULL, args);
    return pd_conv(t, "b", x, kernel(t, "wb", 24, 16, 1, 1), vector(t, "bias", 24), y, args);
}

/* Records case i, the one whose turn it is; its name in *name, NULL behind the last. Without a tape: the name alone. */
static pd_value *record_case(const char **name, pd_tape *t, int i)
{
    int turn = 0;
#define CASE(text, value)                                                                                              \
    if (turn++ == i) return *name = text, t ? (value) : NULL
    CASE("conv 3x3", conv_case(t, 2, 7, 9, 16, 24, 3, 1, 1, false, false, false));
    CASE("conv 3x3 bias relu", conv_case(t, 2, 8, 8, 16, 8, 3, 1, 1, true, false, true));
    CASE("conv 3x3 residual relu", conv_case(t, 2, 6, 5, 8, 16, 3, 1, 1, false, true, true));
    CASE("conv bias residual relu", conv_case(t, 3, 6, 5, 8, 16, 3, 2, 1, true, true, true));
    CASE("conv 1x1 stride 2", conv_case(t, 2, 7, 7, 16, 32, 1, 2, 1, false, false, false));
    CASE("conv 27 outputs", conv_case(t, 2, 5, 7, 16, 27, 3, 1, 1, true, false, false));
    CASE("conv 5 inputs", conv_case(t, 2, 5, 7, 5, 16, 3, 1, 1, false, false, true));
    CASE("conv 5x5", conv_case(t, 1, 9, 9, 8, 8, 5, 1, 1, true, false, false));
    CASE("grouped 1", conv_case(t, 2, 6, 7, 64, 64, 3, 1, 64, false, false, false));
    CASE("grouped 2 to 4 stride 2", conv_case(t, 2, 7, 6, 32, 64, 3, 2, 16, false, false, false));
    CASE("grouped 4", conv_case(t, 1, 5, 5, 80, 80, 3, 1, 20, true, true, true));
    CASE("grouped 3 channels", conv_case(t, 2, 5, 5, 12, 12, 3, 1, 4, true, false, false));
    CASE("grouped 1 of 19 rows", conv_case(t, 2, 19, 33, 72, 72, 3, 1, 72, false, false, false));
    CASE("grouped 2 of 17 rows", conv_case(t, 1, 17, 9, 128, 128, 3, 1, 64, false, false, false));
    CASE("grouped 4 to 8 stride 2", conv_case(t, 2, 9, 7, 64, 128, 3, 2, 16, false, false, false));
    CASE("depthwise stride 2", conv_case(t, 2, 9, 8, 24, 24, 3, 2, 24, false, false, false));
    CASE("one pixel", conv_case(t, 1, 1, 1, 8, 8, 3, 1, 1, true, false, true));
    CASE("plain layer", layer_case(t, PD_FORM_TRAIN, PD_PLAIN_CONV, 0, 3, 9, 16, 24, 1, true));
    CASE("plain layer 12 channels", layer_case(t, PD_FORM_TRAIN, PD_PLAIN_CONV, 0, 2, 5, 12, 12, 1, false));
    CASE("PD-A", layer_case(t, PD_FORM_TRAIN, PD_SUM, PD_ALL_BRANCHES, 2, 7, 64, 64, 1, true));
    CASE("PD-A stride 2", layer_case(t, PD_FORM_TRAIN, PD_SUM, PD_ALL_BRANCHES, 2, 7, 64, 128, 2, false));
    CASE("PD-A s1,group", layer_case(t, PD_FORM_TRAIN, PD_SUM, PD_S1 | PD_GROUP, 2, 6, 24, 48, 1, true));
    CASE("PD-B", layer_case(t, PD_FORM_TRAIN, PD_GATED, PD_ALL_BRANCHES, 3, 6, 32, 32, 1, true));
    CASE("PD-B stride 2", layer_case(t, PD_FORM_TRAIN, PD_GATED, PD_ALL_BRANCHES, 2, 7, 64, 128, 2, false));
    CASE("PD-A fixed", layer_case(t, PD_FORM_EVAL, PD_SUM, PD_ALL_BRANCHES, 2, 6, 32, 32, 1, false));
    CASE("PD-B fixed", layer_case(t, PD_FORM_EVAL, PD_GATED, PD_ALL_BRANCHES, 2, 6, 32, 32, 1, true));
    CASE("PD-A folded training", layer_case(t, PD_FORM_FUSED, PD_SUM, PD_ALL_BRANCHES, 2, 6, 32, 16, 1, true));
    CASE("PD-B folded training", layer_case(t, PD_FORM_FUSED, PD_GATED, PD_ALL_BRANCHES, 3, 6, 32, 16, 2, true));
    CASE("max pool", pd_max_pool(t, scene_map(t, "x", 2, 9, 8, 12), 3, 2, 1));
    CASE("subsample", pd_subsample(t, scene_map(t, "x", 2, 7, 5, 16), 2));
    CASE("upsample", pd_upsample_add(t, scene_map(t, "x", 2, 4, 3, 16), scene_map(t, "y", 2, 7, 6, 16)));
    CASE("squeeze", squeeze_case(t, 2, 5, 6, 32));
    CASE("excite map", pd_excite(t, scene_map(t, "x", 2, 7, 6, 16), scene_map(t, "m", 2, 3, 2, 16), NULL, false));
    CASE("two readers", two_readers_case(t));
    CASE("conv 21 inputs", conv_case(t, 2, 5, 4, 21, 16, 3, 1, 1, false, false, false));
    CASE("conv many rows, bias", conv_case(t, 1, 130, 129, 8, 8, 1, 1, 1, true, false, false));
    CASE("conv bias of 72", conv_case(t, 2, 24, 23, 8, 72, 1, 1, 1, true, false, true));
    CASE("conv bias of 27", conv_case(t, 2, 24, 23, 8, 27, 1, 1, 1, true, false, false));
    CASE("max pool of eights", pd_max_pool(t, scene_map(t, "x", 3, 9, 8, 24), 3, 2, 1));
    CASE("max pool of 2, odd sides", pd_max_pool(t, scene_map(t, "x", 2, 7, 9, 16), 2, 2, 0));
    CASE("max pool 5 stride 1", pd_max_pool(t, scene_map(t, "x", 3, 7, 6, 16), 5, 1, 2));
    CASE("max pool of 2 stride 3", pd_max_pool(t, scene_map(t, "x", 2, 9, 7, 8), 2, 3, 1));
    CASE("subsample 12 channels", pd_subsample(t, scene_map(t, "x", 2, 8, 7, 12), 3));
    CASE("upsample 12 channels", pd_upsample_add(t, scene_map(t, "x", 3, 3, 2, 12), scene_map(t, "y", 3, 8, 5, 12)));
    CASE("upsample by 2", pd_upsample_add(t, scene_map(t, "x", 2, 3, 4, 8), scene_map(t, "y", 2, 6, 8, 8)));
    CASE("squeeze large", squeeze_case(t, 2, 19, 17, 72));
    CASE("squeeze 12 channels", squeeze_case(t, 3, 7, 9, 12));
    CASE("excite map 12 channels",
         pd_excite(t, scene_map(t, "x", 2, 7, 9, 12), scene_map(t, "m", 2, 2, 3, 12), NULL, false));
    CASE("excite cells of a pixel", pd_excite(t, scene_map(t, "x", 2, 5, 5, 72), scene_map(t, "m", 2, 5, 5, 72),
                                              scene_map(t, "r", 2, 5, 5, 72), true));
    CASE("excite map, empty cells",
         pd_excite(t, scene_map(t, "x", 3, 3, 2, 8), scene_map(t, "m", 3, 5, 3, 8), NULL, true));
    CASE("excite 65792 cells",
         pd_excite(t, scene_map(t, "x", 1, 256, 257, 8), scene_map(t, "m", 1, 256, 257, 8), NULL, false));
    CASE("conv 1x1 twice", conv_1x1_twice_case(t));
    CASE("conv 1x1 of 2 groups", conv_case(t, 2, 5, 7, 24, 24, 1, 1, 2, false, false, false));
    CASE("conv 1x1 of 4 groups", conv_case(t, 2, 5, 7, 16, 64, 1, 1, 4, true, false, true));
    CASE("conv 1x1 bias relu", conv_case(t, 2, 7, 5, 24, 16, 1, 1, 1, true, false, true));
#undef CASE
    *name = NULL;
    return NULL;
}

typedef struct outcome {
    float loss;
    float *y, *grads, *buffers; /* the map under test; all gradients; running statistics */
    size_t y_count, grad_count, buffer_count;
    size_t part[64]; /* where each parameter's gradient begins; parts of them */
    int parts;
} outcome;

static void outcome_free(outcome *o)
{
    free(o->y);
    free(o->grads);
    free(o->buffers);
}

/* Forward and two accumulating backward runs. */
static pd_status run_case(outcome *o, int i, pd_device *d, pd_err *err)
{
    pd_params *params = NULL;
    pd_tape *t = NULL;
    pd_plan *plan = NULL;
    const int labels[3] = {1, 0, 2};
    pd_status status = PD_OK;
    *o = (outcome){0};
    PD_TRY_DONE(pd_params_new(&params, err));
    PD_TRY_DONE(pd_tape_new(&t, params, true, err));
    const char *name;
    pd_value *y = pd_tape_keep(t, record_case(&name, t, i));
    pd_value *logits = pd_record_linear(t, "head", pd_global_avg_pool(t, y), 3, false);
    pd_value *label = pd_tape_input(t, "label", PD_I32, PD_SHAPE(logits->shape.dim[0]));
    pd_value *loss = pd_softmax_ce(t, logits, label, NULL, 0.1f, NULL);
    pd_tape_minimise(t, loss, 3);
    PD_TRY_DONE(pd_tape_status(t, err));
    PD_TRY_DONE(pd_params_allocate(params, d, true, err));
    PD_TRY_DONE(pd_params_init(params, 7, err));
    PD_TRY_DONE(pd_plan_new(&plan, t, d, PD_PLAN_TRAIN, NULL, err));
    PD_TRY_DONE(pd_plan_give(plan, label, labels, err));
    for (int run = 0; run < 2; run++) {
        PD_TRY_DONE(pd_plan_forward(plan, err));
        PD_TRY_DONE(pd_plan_fetch(plan, NULL, err));
        if (run == 0) { /* of the first run: batch norms move their statistics */
            o->y_count = pd_shape_size(y->shape);
            o->y = malloc(o->y_count * sizeof(float) + 1);
            memcpy(o->y, y->host, o->y_count * sizeof(float));
            o->loss = *(const float *)loss->host;
        }
        PD_TRY_DONE(pd_plan_backward(plan, run > 0, err));
    }
    pd_params_weights(params, &o->grad_count);
    for (size_t k = 0; k < pd_params_count(params); k++)
        if (pd_params_at(params, k)->kind == PD_WEIGHT) o->part[o->parts++] = pd_params_at(params, k)->offset;
    o->part[o->parts] = o->grad_count;
    const float *buffers = pd_params_buffers(params, &o->buffer_count);
    o->grads = malloc(o->grad_count * sizeof(float) + 1);
    o->buffers = malloc(o->buffer_count * sizeof(float) + 1);
    PD_TRY_DONE(d->download(d, o->grads, pd_params_grads(params), o->grad_count * sizeof(float), err));
    PD_TRY_DONE(d->download(d, o->buffers, buffers, o->buffer_count * sizeof(float), err));
done:
    pd_plan_free(plan);
    pd_tape_free(t);
    pd_params_free(params);
    return status;
}

/* Ways (engine/device.h): the fastest, and each by itself: of a bank's branches, of 1x1 convolutions. */
static int ways_of(const char *name)
{
    return !strncmp(name, "PD-", 3) ? 5 : strstr(name, "1x1") ? 3 : 1;
}

static void check_case(int i, const char *name, pd_device *cpu, pd_device *gpu)
{
    pd_err err = PD_ERR_INIT;
    outcome want;
    if (!chosen(name)) return;
    PD_CHECK_OK(run_case(&want, i, cpu, &err));
    for (int round = 0; round < 4 * ways_of(name); round++) {
        const int p = round % 4;
        char row[96];
        outcome got;
        if (!precision_wanted(p)) continue;
        gpu->way = round / 4;
        snprintf(row, sizeof row, "%s, way %d, %s", name, gpu->way, precisions[p].name);
        PD_ROW(row);
        PD_CHECK_OK(pd_device_set_precision(gpu, precisions[p].name, &err));
        const pd_status status = run_case(&got, i, gpu, &err);
        PD_CHECK_MSG(status == PD_OK, "%s", err.text);
        if (status == PD_OK) {
            /* fp16 gradients carry the scale */
            for (size_t k = 0; p == 2 && k < got.grad_count; k++) got.grads[k] /= 65536.f;
            /* each parameter by itself; what is small beside the others may be off by a share of those */
            const double floor = 0.02 * norm(want.grads, want.grad_count), y = distance(want.y, got.y, want.y_count);
            double g = 0;
            for (int k = 0; k < want.parts; k++)
                g = fmax(g, distance_above(want.grads + want.part[k], got.grads + want.part[k],
                                           want.part[k + 1] - want.part[k], floor));
            const double b = distance(want.buffers, got.buffers, want.buffer_count);
            /* a maximum among nearly equal values is another one after rounding */
            const double allowed = precisions[p].gradient * (strstr(name, "max pool") ? 3 : 1);
            PD_CHECK_MSG(y <= precisions[p].forward, "output differs by %.3g of its size (allowed %.3g)", y,
                         precisions[p].forward);
            PD_CHECK_MSG(g <= allowed, "gradients differ by %.3g of their size (allowed %.3g)", g, allowed);
            PD_CHECK_MSG(b <= precisions[p].forward, "running statistics differ by %.3g", b);
            PD_CHECK_MSG(fabs((double)(got.loss - want.loss)) <= precisions[p].forward * (1 + fabs((double)want.loss)),
                         "loss %g, expected %g", (double)got.loss, (double)want.loss);
        }
        outcome_free(&got);
        PD_ROW("");
    }
    gpu->way = 0;
    outcome_free(&want);
}

static void add_tally(scene_tally t)
{
    pd_test_checks += t.checks;
    pd_test_failures += t.failures;
}

static void check_family(const scene_family *family, pd_device *cpu, pd_device *gpu)
{
    add_tally(check_scenes(family, only, cpu, gpu));
}

/* ---- networks
 * -------------------------------------------------------------------------------------------------------------- */

#define STEPS 3 /* the third run of a plan is recorded */

#define MOST_STEPS 20
#define MOST_IMAGES 32

/* What is trained, and how. */
typedef struct trial {
    const char *arch;
    int images, side, steps;
    double lr;
    bool gentle; /* residual blocks add little at first: small differences hardly grow */
    bool no_graphs;
    double moved; /* every pixel by about this share of it */
} trial;

typedef struct training {
    double loss[MOST_STEPS];
    float *first, *second, *last; /* weights before the first step, behind the second one, at the end */
    float *logits;                /* before training */
    size_t count;
} training;

static void draw(float *x, size_t n, uint32_t stream, double moved)
{
    pd_rng rng = pd_rng_make(5, stream, 0), other = pd_rng_make(6, stream, 0);
    for (size_t i = 0; i < n; i++) {
        const double pixel = pd_rng_normal(&rng);
        x[i] = (float)(moved > 0 ? pixel * (1 + moved * pd_rng_normal(&other)) : pixel);
    }
}

static void training_free(training *r)
{
    free(r->first);
    free(r->second);
    free(r->last);
    free(r->logits);
}

static pd_status copy_weights(float **out, pd_device *d, const float *weights, size_t count, pd_err *err)
{
    *out = malloc(count * sizeof **out);
    return *out ? d->download(d, *out, weights, count * sizeof **out, err) : PD_FAIL(err, PD_ENOMEM, "out of memory");
}

/* The scale of every residual block's last norm becomes a tenth of what it is. */
static pd_status quiet_residuals(pd_classifier *net, pd_err *err)
{
    const pd_params *params = pd_classifier_params(net);
    PD_TRY(pd_classifier_zero_residuals(net, err));
    for (size_t i = 0; i < pd_params_count(params); i++) {
        const pd_param *p = pd_params_at(params, i);
        if (p->kind != PD_WEIGHT || p->rank != 1 || !strstr(p->name, ".weight")) continue;
        float *scale = malloc(p->count * sizeof *scale);
        pd_status status = scale ? pd_param_read(scale, params, p, pd_param_block(params, p), err)
                                 : PD_FAIL(err, PD_ENOMEM, "out of memory");
        const bool last = status == PD_OK && scale[0] == 0;
        for (size_t k = 0; last && k < p->count; k++) scale[k] = 0.1f;
        if (last) status = pd_param_write(params, p, pd_param_block(params, p), scale, err);
        free(scale);
        PD_TRY(status);
    }
    return PD_OK;
}

/* The logits of some images in the fast form, then a few steps on four batches in turn. */
static pd_status train(training *r, const trial *how, pd_device *d, pd_err *err)
{
    const int images = how->images, side = how->side;
    pd_classifier *net = NULL;
    pd_classified y;
    const size_t count = (size_t)images * (size_t)(side * side) * 3;
    float *velocity = NULL, *pixels = malloc(count * sizeof *pixels);
    pd_classifier_settings set = {.classes = 10, .train = true, .label_smoothing = 0.1f};
    pd_status status = PD_OK;
    *r = (training){.loss = {0}};
    PD_TRY_DONE(pd_arch_parse(&set.arch, how->arch, NULL, err));
    PD_TRY_DONE(pd_classifier_new(&net, d, &set, err));
    pd_params *params = pd_classifier_params(net);
    PD_TRY_DONE(pd_params_init(params, 3, err));
    if (how->gentle) PD_TRY_DONE(quiet_residuals(net, err));
    float *weights = pd_params_weights(params, &r->count);
    PD_TRY_DONE(copy_weights(&r->first, d, weights, r->count, err));
    PD_TRY_DONE(d->alloc(d, (void **)&velocity, r->count * sizeof *velocity, err));
    PD_TRY_DONE(d->fill(d, velocity, 0, r->count * sizeof *velocity, err));
    draw(pixels, count, 99, how->moved);
    for (int run = 0; run < 3; run++) /* the last one is recorded: the first made the constants */
        PD_TRY_DONE(pd_classifier_run(net, PD_FORM_FUSED, pixels, images, side, side, &y, err));
    r->logits = malloc((size_t)images * 10 * sizeof(float));
    memcpy(r->logits, y.logits, (size_t)images * 10 * sizeof(float));
    const pd_sgd sgd = {.lr = how->lr, .momentum = 0.9, .weight_decay = 1e-4, .scale = 1};
    for (int step = 0; step < how->steps; step++) {
        int labels[MOST_IMAGES], correct;
        float loss;
        for (int i = 0; i < images; i++) labels[i] = (i * 3 + step % 4) % 10;
        draw(pixels, count, (uint32_t)(step % 4), how->moved);
        PD_TRY_DONE(pd_classifier_loss(net, pixels, labels, images, side, side, &loss, &correct, err));
        if (how->no_graphs && step == 0) pd_plan_no_graphs(pd_classifier_plan(net));
        PD_TRY_DONE(pd_classifier_backward(net, false, err));
        PD_TRY_DONE(pd_sgd_step(d, params, velocity, &sgd, err));
        r->loss[step] = (double)loss;
        if (step == 1) PD_TRY_DONE(copy_weights(&r->second, d, weights, r->count, err));
    }
    PD_TRY_DONE(copy_weights(&r->last, d, weights, r->count, err));
done:
    if (velocity) d->release(d, velocity);
    pd_classifier_free(net);
    free(pixels);
    return status;
}

/* What is allowed between the CPU and a precision: of the first loss and the second, of what two steps change in the
 * weights, of logits. Batch norms over a handful of pixels make small differences grow from step to step. */
static const struct {
    double loss[2], change, logits;
} network_bounds[] = {{{1e-4, 5e-3}, 0.1, 1e-3},
                      {{5e-3, 0.1}, 0.5, 1e-2},
                      {{0.01, 0.2}, 1.01, 0.02}, /* a first step may be left out: the scale was too large */
                      {{0.2, 0.5}, 1.2, 0.1}};   /* eight bits, and norms over four pixels */

static void compare_networks(const training *want, const training *got, int p, int images)
{
    for (int s = 0; s < 2; s++)
        PD_CHECK_MSG(fabs(got->loss[s] - want->loss[s]) <= network_bounds[p].loss[s] * want->loss[s],
                     "loss of step %d is %.6f, expected %.6f", s, got->loss[s], want->loss[s]);
    PD_CHECK(isfinite(got->loss[STEPS - 1]));
    double d = 0, size = 0;
    for (size_t i = 0; i < want->count; i++) {
        const double a = (double)want->second[i] - (double)want->first[i],
                     b = (double)got->second[i] - (double)got->first[i];
        d += (a - b) * (a - b);
        size += a * a;
    }
    const double y = distance(want->logits, got->logits, (size_t)images * 10);
    PD_CHECK_MSG(sqrt(d) <= network_bounds[p].change * sqrt(size),
                 "what two steps change differs by %.3g of its size (allowed %.3g)", sqrt(d / size),
                 network_bounds[p].change);
    PD_CHECK_MSG(y <= network_bounds[p].logits, "logits differ by %.3g of their size (allowed %.3g)", y,
                 network_bounds[p].logits);
}

static void check_network(const char *arch, int images, int side, pd_device *cpu, pd_device *gpu)
{
    pd_err err = PD_ERR_INIT;
    training want;
    if (!chosen(arch)) return;
    const trial how = {.arch = arch, .images = images, .side = side, .steps = STEPS, .lr = 0.002};
    PD_CHECK_OK(train(&want, &how, cpu, &err));
    for (int p = 0; p < 4; p++) {
        char row[96];
        training got;
        if (!precision_wanted(p) || p == 1 || (EMULATED && p == 2))
            continue; /* tf32 lies between; the emulation is slow */
        snprintf(row, sizeof row, "%s of %d images, %s", arch, images, precisions[p].name);
        PD_ROW(row);
        PD_CHECK_OK(pd_device_set_precision(gpu, precisions[p].name, &err));
        const pd_status status = train(&got, &how, gpu, &err);
        PD_CHECK_MSG(status == PD_OK, "%s", err.text);
        if (status == PD_OK) compare_networks(&want, &got, p, images);
        training_free(&got);
        PD_ROW("");
    }
    training_free(&want);
}

/* The largest difference of a step's losses, relative. */
static double losses_apart(const training *a, const training *b, int steps)
{
    double most = 0;
    for (int s = 0; s < steps; s++) {
        const double d = fabs(a->loss[s] - b->loss[s]) / a->loss[s];
        if (!(d <= most)) most = d; /* a NaN, too */
    }
    return most;
}

/* What is allowed in twenty steps, and how much pixels are moved on the CPU to see what rounding alone makes of them:
 * that must be well within it, or the comparison would say nothing. */
static const struct {
    const char *precision;
    double loss, moved;
} long_bounds[] = {{"fp32", 1e-3, 3e-7}, {"bf16", 0.03, 2e-3}};

/* Twenty steps on the CPU in float32 and on the device. */
static void check_steps(const char *arch, int images, int side, int count, pd_device *cpu, pd_device *gpu)
{
    pd_err err = PD_ERR_INIT;
    training want, near, got;
    trial how = {.arch = arch, .images = images, .side = side, .steps = MOST_STEPS, .lr = 0.0003, .gentle = true};
    if (!chosen("twenty steps")) return;
    PD_CHECK_OK(train(&want, &how, cpu, &err));
    PD_CHECK_MSG(want.loss[MOST_STEPS - 1] < 0.9 * want.loss[0], "%s learns nothing: loss %.4f, at first %.4f", arch,
                 want.loss[MOST_STEPS - 1], want.loss[0]);
    for (int p = 0; p < count; p++) {
        char row[96];
        const double allowed = long_bounds[p].loss;
        if (only_precision && strcmp(only_precision, long_bounds[p].precision) != 0) continue;
        snprintf(row, sizeof row, "twenty steps of %s, %d images of %d, %s", arch, images, side,
                 long_bounds[p].precision);
        PD_ROW(row);
        how.moved = long_bounds[p].moved;
        PD_CHECK_OK(train(&near, &how, cpu, &err));
        how.moved = 0;
        PD_CHECK_OK(pd_device_set_precision(gpu, long_bounds[p].precision, &err));
        const pd_status status = train(&got, &how, gpu, &err);
        PD_CHECK_MSG(status == PD_OK, "%s", err.text);
        const double rounding = losses_apart(&want, &near, MOST_STEPS);
        const double off = status == PD_OK ? losses_apart(&want, &got, MOST_STEPS) : (double)INFINITY;
        printf("%s: loss %.4f to %.4f, apart by at most %.2g (allowed %.2g; rounding alone %.2g)\n", row, want.loss[0],
               want.loss[MOST_STEPS - 1], off, allowed, rounding);
        PD_CHECK_MSG(rounding <= allowed / 4, "rounding alone makes %.3g", rounding);
        PD_CHECK_MSG(off <= allowed, "losses differ by %.3g (allowed %.3g)", off, allowed);
        training_free(&near);
        training_free(&got);
        PD_ROW("");
    }
    training_free(&want);
}

/* FNV-1a 64 of the bits: what two runs of this program are compared by. */
static unsigned long long fingerprint(const float *x, size_t n)
{
    unsigned long long hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n * sizeof *x; i++) hash = (hash ^ ((const unsigned char *)x)[i]) * 0x100000001b3u;
    return hash;
}

/* Replayed graphs, plain loops and a second run leave the same bits. */
static void check_graphs(const char *arch, pd_device *gpu)
{
    pd_err err = PD_ERR_INIT;
    training run[3];
    if (!chosen("graph")) return;
    for (int p = 0; p < 4; p++) {
        if (!precision_wanted(p) || p == 1 || (EMULATED && p != 3)) continue;
        PD_ROW(precisions[p].name);
        pd_status status = PD_OK;
        for (int i = 0; i < 3; i++) {
            PD_CHECK_OK(pd_device_set_precision(gpu, precisions[p].name, &err));
            const trial how = {.arch = arch, .images = 2, .side = 32, .steps = STEPS, .lr = 0.002, .no_graphs = i == 1};
            const pd_status one = train(&run[i], &how, gpu, &err);
            PD_CHECK_MSG(one == PD_OK, "%s", err.text);
            if (one != PD_OK) status = one;
        }
        for (int i = 1; i < 3 && status == PD_OK; i++) {
            PD_CHECK_MSG(!memcmp(run[0].last, run[i].last, run[0].count * sizeof(float)),
                         i == 1 ? "graphs and plain loops train other weights" : "a second run trains other weights");
            PD_CHECK(!memcmp(run[0].loss, run[i].loss, sizeof run[0].loss));
            PD_CHECK(!memcmp(run[0].logits, run[i].logits, 2 * 10 * sizeof(float)));
        }
        if (status == PD_OK)
            printf("%s, %s: weights %016llx\n", arch, precisions[p].name, fingerprint(run[0].last, run[0].count));
        for (int i = 0; i < 3; i++) training_free(&run[i]);
        PD_ROW("");
    }
}

static void check_operations(pd_device *cpu, pd_device *gpu)
{
    const char *name;
    for (int i = 0; record_case(&name, NULL, i), name; i++) check_case(i, name, cpu, gpu);
    check_family(&scenes_boxes, cpu, gpu);
    check_family(&scenes_heads, cpu, gpu);
    add_tally(check_refused(&scenes_wrong, only, cpu, gpu));
    add_tally(check_updates(only, cpu, gpu));
}

static void check_networks(pd_device *cpu, pd_device *gpu)
{
    check_network("resnet18", 4, 32, cpu, gpu);
    check_network("pd_a_resnet18", 4, 32, cpu, gpu);
    check_network("pd_b_resnet18", 5, 32, cpu, gpu);
    if (!EMULATED) check_network("pd_b_resnet18", 2, 32, cpu, gpu);
    check_network("se_resnet18", 3, 32, cpu, gpu);
    check_network("ge_resnet18", 8, 64, cpu,
                  gpu); /* norms over less: 1e-7 of the input changes a step by its own size */
    if (!EMULATED) check_network("pd_a_resnet50", 2, 32, cpu, gpu);
    check_steps("resnet18", 4, 32, 1, cpu, gpu);
    if (!EMULATED) {
        check_steps("resnet50", 16, 64, 2, cpu, gpu);
        check_steps("pd_a_resnet50", 16, 64, 2, cpu, gpu);
        check_steps("pd_b_resnet50", 16, 64, 2, cpu, gpu);
    }
    check_graphs("pd_b_resnet18", gpu);
    add_tally(check_detectors(only, cpu, gpu, EMULATED));
}

int main(int argc, char **argv)
{
    pd_err err = PD_ERR_INIT;
    pd_device *cpu = NULL, *gpu = NULL;
    const bool operations = argc < 2 || strcmp(argv[1], "--networks"),
               networks = argc < 2 || strcmp(argv[1], "--operations");
    if (argc > 1 && operations && networks) only = argv[1];
    if (argc > 2) only_precision = argv[2];
    PD_CHECK_OK(pd_device_open(&cpu, "cpu", EMULATED ? 1 : 0, &err));
    if (open_gpu(&gpu, &err) != PD_OK) {
        pd_test_checks = 0;
        PD_SKIP("%s", err.text);
        pd_device_close(cpu);
        return pd_test_end();
    }
    printf("%s: %s\n", gpu->name, gpu->title);
    if (operations) check_operations(cpu, gpu);
    if (networks) check_networks(cpu, gpu);
    pd_device_close(gpu);
    pd_device_close(cpu);
    return pd_test_end();
}
