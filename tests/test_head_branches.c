/* ParaDise convolutions in neck and heads, and backbones that are folded first: the fold changes nothing, shared towers
 * fold once and get every level's gradient, the linear form begins as large as a plain convolution. */
#include "backbones/classifier.h"
#include "backbones/fold.h"
#include "kernels/sgd.h"
#include "tests/oracle.h"
#include "tests/pd_test.h"
#include "tools/fold_proof.h"

#include <math.h>

enum { N = 2, SIDE = 128, ROOM = 2 };

static pd_err err;
static pd_device *device;
static float pixels[N * SIDE * SIDE * 3];
static pd_image_info info[N];
static pd_box boxes[N * ROOM] = {{10, 20, 70, 90}, {60, 40, 120, 110}, {30, 30, 100, 80}};
static int labels[N * ROOM] = {0, 2, 1, 0}, counts[N] = {2, 1};
static const pd_batch batch = {.n = N,
                               .h = SIDE,
                               .w = SIDE,
                               .pixels = pixels,
                               .info = info,
                               .max_boxes = ROOM,
                               .n_boxes = counts,
                               .boxes = boxes,
                               .box_labels = labels};

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

/* The oracle's values; batch norms outside of the backbone, which it does not know, near those of a training. */
static void fill(pd_params *params)
{
    pd_oracle_fill(params, 7, true, 4);
    for (size_t i = 0; i < pd_params_count(params); i++) {
        const pd_param *p = pd_params_at(params, i);
        const bool norm = strstr(p->name, "_bn.") && strncmp(p->name, "backbone.", 9) != 0;
        if (!norm || p->kind == PD_COUNTER) continue;
        pd_oracle_uniform(p->data, p->name, p->count, 7);
        const bool around_one = ends_with(p->name, "_var") || ends_with(p->name, "weight");
        for (size_t k = 0; k < p->count; k++) p->data[k] = around_one ? 1 + 0.3f * p->data[k] : 0.1f * p->data[k];
    }
}

static pd_detector_settings settings(pd_detector_type type, const char *arch, pd_mixture mixture, bool batch_norm)
{
    pd_detector_settings set = pd_detector_defaults(type);
    PD_CHECK_OK(pd_arch_parse(&set.arch, arch, NULL, &err));
    set.classes = 3;
    set.train = true;
    set.neck = (pd_head_conv){.mixture = mixture, .branches = PD_S1 | PD_SKELETON, .batch_norm = batch_norm};
    set.head = (pd_head_conv){.mixture = mixture, .branches = PD_ALL_BRANCHES, .batch_norm = batch_norm};
    return set;
}

static pd_detector *detector(const pd_detector_settings *set)
{
    pd_detector *d = NULL;
    PD_CHECK_OK(pd_detector_new(&d, device, set, &err));
    if (!d) exit(pd_test_end());
    fill(pd_detector_params(d));
    return d;
}

static float loss_of(pd_detector *d)
{
    pd_losses losses = {.loss = NAN};
    PD_CHECK_OK(pd_detector_loss(d, &batch, 0, &losses, &err));
    return losses.loss;
}

static void train_step(pd_detector *d, double lr)
{
    size_t count;
    pd_params *params = pd_detector_params(d);
    pd_params_weights(params, &count);
    float *velocity = calloc(count, sizeof *velocity);
    const pd_sgd sgd = {.lr = lr, .momentum = 0.9, .scale = 1};
    const float loss = loss_of(d);
    PD_CHECK_MSG(loss > 0 && loss < 1000, "loss is %g", (double)loss);
    PD_CHECK_OK(pd_detector_backward(d, false, &err));
    PD_CHECK_OK(pd_sgd_step(device, params, velocity, &sgd, &err));
    pd_detector_changed(d);
    free(velocity);
}

/* How often the fold of a layer stands on the last run's tape. */
static int folds_of(pd_detector *d, const char *name)
{
    int count = 0;
    for (const pd_node *n = pd_tape_nodes(pd_detector_tape(d)); n; n = n->next)
        count += !strcmp(n->op->name, "fold_bn") && !strcmp(n->name, name);
    return count;
}

/* Trains two steps, folds as pd_fold does, compares branch by branch with folded. */
static void test_fold(const char *row, pd_detector_type type, const char *arch, pd_mixture mixture, bool batch_norm)
{
    const char *const shared = type == PD_RETINANET ? "bbox_head.cls_convs.1.conv" : "rpn_head.rpn_conv";
    PD_ROW(row);
    const pd_detector_settings set = settings(type, arch, mixture, batch_norm);
    pd_detector_settings folded_set = set, plain_set = set;
    pd_detector *d = detector(&set), *folded = NULL, *plain = NULL;
    pd_raw raw, copy;
    pd_fold_proof proof = {0};
    pd_arena *arena = pd_arena_new();
    for (int step = 0; step < 2; step++) train_step(d, 1e-4);
    PD_CHECK_INT(folds_of(d, shared), batch_norm ? 0 : 1); /* five levels, one fold */

    folded_set.folded = true;
    folded_set.train = false;
    PD_CHECK_OK(pd_detector_new(&folded, device, &folded_set, &err));
    PD_CHECK_OK(pd_detector_raw(d, PD_FORM_FUSED, pixels, NULL, 1, SIDE, SIDE, &raw, &err));
    PD_CHECK_INT(folds_of(d, shared), 1);
    PD_CHECK_OK(pd_fold_params(pd_detector_params(folded), pd_detector_params(d), pd_detector_tape(d), &err));
    PD_CHECK_OK(pd_detector_raw(d, PD_FORM_EVAL, pixels, NULL, N, SIDE, SIDE, &raw, &err));
    PD_CHECK_OK(pd_raw_copy(&copy, &raw, arena, &err));
    PD_CHECK_OK(pd_detector_raw(folded, PD_FORM_FOLDED, pixels, NULL, N, SIDE, SIDE, &raw, &err));
    PD_CHECK_OK(pd_proof_add(&proof, &copy, &raw, arena, &err));
    /* kernels to mix are kept in 16 bits when they are constant (kernels/panel_taps.h): five of them in a row here */
    const double bound = mixture == PD_GATED ? 3e-4 : 1e-4;
    PD_CHECK(pd_proof_holds(&proof, bound));
    if (!pd_proof_holds(&proof, bound)) pd_proof_print(&proof, stdout);

    if (mixture == PD_SUM) { /* what is left is a plain detector */
        plain_set.neck = plain_set.head = (pd_head_conv){.mixture = PD_PLAIN_CONV};
        plain_set.folded = true;
        plain_set.train = false;
        PD_CHECK_OK(pd_detector_new(&plain, device, &plain_set, &err));
        const pd_params *a = pd_detector_params(folded), *b = pd_detector_params(plain);
        PD_CHECK_INT(pd_params_count(a), pd_params_count(b));
        for (size_t i = 0; i < pd_params_count(b); i++) {
            const pd_param *q = pd_params_at(b, i), *p = pd_params_find(a, q->name);
            PD_CHECK_MSG(p && p->count == q->count && !memcmp(p->dim, q->dim, sizeof p->dim), "%s differs", q->name);
        }
    }
    pd_detector_free(plain);
    pd_detector_free(folded);
    pd_detector_free(d);
    pd_arena_free(arena);
    PD_ROW("");
}

/* The slope of the loss in a direction: by gradients, and by two losses. Shared towers get it from every level. */
static void test_slope(const char *row, pd_mixture mixture, bool batch_norm, const char *prefix)
{
    PD_ROW(row);
    const pd_detector_settings set = settings(PD_RETINANET, "resnet18", mixture, batch_norm);
    pd_detector *d = detector(&set);
    pd_params *params = pd_detector_params(d);
    double slope = 0, length = 0, loss[2];
    loss_of(d);
    PD_CHECK_OK(pd_detector_backward(d, false, &err));
    size_t count;
    float *weights = pd_params_weights(params, &count), *direction = calloc(count, sizeof *direction);
    for (size_t i = 0; i < pd_params_count(params); i++) { /* mostly uphill, and a little of anywhere */
        const pd_param *p = pd_params_at(params, i);
        if (p->kind != PD_WEIGHT || strncmp(p->name, prefix, strlen(prefix)) != 0) continue;
        float *to = direction + p->offset;
        double size = 0;
        pd_oracle_uniform(to, p->name, p->count, 1);
        for (size_t k = 0; k < p->count; k++) size += (double)p->grad[k] * (double)p->grad[k];
        const float rms = (float)sqrt(size / (double)p->count);
        for (size_t k = 0; k < p->count; k++) {
            to[k] = p->grad[k] + 0.3f * rms * to[k];
            slope += (double)to[k] * (double)p->grad[k];
            length += (double)to[k] * (double)to[k];
        }
    }
    PD_CHECK(slope > 0);
    const double change = 4e-3 * (double)loss_of(d),
                 step = change / slope; /* of the loss, about; far over its rounding */
    for (int side = 0; side < 2; side++) {
        for (size_t k = 0; k < count; k++) weights[k] += (float)((side ? -2 : 1) * step) * direction[k];
        loss[side] = (double)loss_of(d);
    }
    const double measured = (loss[0] - loss[1]) / (2 * step);
    PD_CHECK_MSG(fabs(measured - slope) < 0.02 * slope, "slope %g by gradients, %g by losses (length %g)", slope,
                 measured, sqrt(length));
    free(direction);
    pd_detector_free(d);
    PD_ROW("");
}

/* The folded kernel of a new linear layer is as large as a plain one's. */
static void test_start(void)
{
    const pd_detector_settings set = settings(PD_RETINANET, "resnet18", PD_SUM, false);
    pd_detector *d = NULL;
    PD_CHECK_OK(pd_detector_new(&d, device, &set, &err));
    PD_CHECK_OK(pd_params_init(pd_detector_params(d), 1, &err));
    for (size_t i = 0; i < pd_params_count(pd_detector_params(d)); i++) {
        const pd_param *p = pd_params_at(pd_detector_params(d), i);
        for (size_t k = 0; ends_with(p->name, "running_var") && k < p->count; k++) p->data[k] = 1;
    }
    PD_CHECK_OK(pd_detector_raw(d, PD_FORM_FUSED, pixels, NULL, 1, SIDE, SIDE, NULL, &err));
    int seen = 0;
    for (const pd_node *n = pd_tape_nodes(pd_detector_tape(d)); n; n = n->next) {
        if (strcmp(n->op->name, "fold_bn") != 0 || strncmp(n->name, "bbox_head.", 10) != 0) continue;
        const float *k = n->out[0]->data;
        const size_t size = pd_shape_size(n->out[0]->shape);
        double sum = 0;
        for (size_t i = 0; i < size; i++) sum += (double)k[i] * (double)k[i];
        PD_CHECK_NEAR(sqrt(sum / (double)size), 0.01, 2e-4);
        seen++;
    }
    PD_CHECK_INT(seen, 8);
    pd_detector_free(d);
}

/* A backbone that is folded first gives the same loss, and is trained where it is not frozen. */
static void test_fold_first(const char *arch, double variance)
{
    static const char *const names[] = {"backbone.conv1.weight", "backbone.layer1.0.conv1.bias",
                                        "backbone.layer2.0.conv1.weight", "backbone.layer4.1.conv2.bias",
                                        "neck.fpn_convs.0.conv.weight"};
    PD_ROW(arch);
    const pd_detector_settings set = settings(PD_RETINANET, arch, PD_PLAIN_CONV, false);
    pd_detector_settings first_set = set;
    pd_detector *d = detector(&set), *first = NULL;
    first_set.fold_first = true;
    pd_oracle_fill(pd_detector_params(d), 7, true, variance);
    PD_CHECK_OK(pd_detector_new(&first, device, &first_set, &err));
    PD_CHECK_OK(pd_detector_raw(d, PD_FORM_FUSED, pixels, NULL, 1, SIDE, SIDE, NULL, &err));
    PD_CHECK_OK(pd_fold_params(pd_detector_params(first), pd_detector_params(d), pd_detector_tape(d), &err));
    const double want = (double)loss_of(d);
    PD_CHECK_NEAR((double)loss_of(first), want, 1e-4 * want);
    size_t count;
    const float *weights = pd_params_weights(pd_detector_params(first), &count);
    float *before = malloc(count * sizeof *before);
    if (!before) abort();
    memcpy(before, weights, count * sizeof *before);
    train_step(first, 1e-2 / want);
    for (int i = 0; i < 5; i++) {
        const pd_param *p = pd_params_find(pd_detector_params(first), names[i]);
        PD_CHECK_MSG(p != NULL, "%s is missing", names[i]);
        const bool moved = p && memcmp(before + p->offset, weights + p->offset, p->count * sizeof *before) != 0;
        PD_CHECK_MSG(moved == (i > 1), "%s %s", names[i], moved ? "moved" : "did not move");
    }
    PD_CHECK(!pd_params_find(pd_detector_params(first), "backbone.bn1.weight"));
    free(before);
    pd_detector_free(first);
    pd_detector_free(d);
    PD_ROW("");
}

static void test_settings(void)
{
    pd_detector *d = NULL;
    pd_detector_settings set = settings(PD_RETINANET, "resnet18", PD_SUM, false);
    set.neck.branches = PD_S2;
    PD_CHECK_FAILS(pd_detector_new(&d, device, &set, &err), PD_EINVAL,
                   "neck's ParaDise convolutions have branches \"s2\"");
    set.neck.branches = PD_S1 | PD_GROUP;
    set.neck.groups = 48;
    PD_CHECK_FAILS(pd_detector_new(&d, device, &set, &err), PD_EINVAL, "neck.fpn_convs.0.conv: a ParaDise layer wants");
}

int main(void)
{
    PD_CHECK_OK(pd_device_open(&device, "cpu", 1, &err));
    pd_oracle_uniform(pixels, "pixels", sizeof pixels / sizeof *pixels, 3);
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
    test_fold("RetinaNet, PD-A, batch norms", PD_RETINANET, "resnet18", PD_SUM, true);
    test_fold("RetinaNet, PD-B, linear", PD_RETINANET, "pd_a_resnet18", PD_GATED, false);
    test_fold("Cascade R-CNN, PD-A, linear", PD_CASCADE_RCNN, "resnet18", PD_SUM, false);
    test_fold("Cascade R-CNN, PD-B, batch norms", PD_CASCADE_RCNN, "resnet18", PD_GATED, true);
    test_slope("PD-A, batch norms: towers", PD_SUM, true, "bbox_head.cls_convs.");
    test_slope("PD-A, linear: towers", PD_SUM, false, "bbox_head.cls_convs.");
    test_slope("PD-B, linear: neck", PD_GATED, false, "neck.fpn_convs.");
    test_start();
    test_fold_first("pd_a_resnet18", 6);
    test_fold_first("pd_b_resnet18", 1.5);
    test_settings();
    pd_device_close(device);
    return pd_test_end();
}
