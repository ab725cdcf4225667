/* Losses, the top-down step and RoIAlign against a PyTorch program's figures; worked examples; the fast exp and log. */
#include "engine/plan.h"
#include "kernels/bce_loss.h"
#include "kernels/box_loss.h"
#include "kernels/box_loss_math.h"
#include "kernels/focal_loss.h"
#include "kernels/roi_align.h"
#include "kernels/softmax_ce.h"
#include "kernels/upsample_add.h"
#include "kernels/vecmath.h"
#include "tests/golden_ops.h"

static pd_device *device;
static pd_err err;

/* A tape with named parameters as inputs; made, run once forward and backward, and freed by each test. */
typedef struct net {
    pd_params *params;
    pd_tape *tape;
    pd_plan *plan;
} net;

static net net_new(void)
{
    net n = {0};
    PD_CHECK_OK(pd_params_new(&n.params, &err));
    PD_CHECK_OK(pd_tape_new(&n.tape, n.params, true, &err));
    return n;
}

static pd_value *net_param(net *n, const char *name, pd_shape shape)
{
    pd_param spec = {.rank = shape.rank, .trainable = true};
    memcpy(spec.dim, shape.dim, sizeof spec.dim);
    return pd_tape_param(n->tape, name, &spec);
}

static pd_value *net_data(net *n, const char *name, pd_dtype dtype, pd_shape shape, void *data)
{
    pd_value *v = pd_tape_input(n->tape, name, dtype, shape);
    pd_plan_bind(v, data);
    return v;
}

static void net_make(net *n)
{
    PD_CHECK_OK(pd_params_allocate(n->params, device, true, &err));
    PD_CHECK_OK(pd_plan_new(&n->plan, n->tape, device, PD_PLAN_TRAIN, NULL, &err));
    if (!n->plan) exit(1);
}

static void net_set(net *n, const char *name, const float *values)
{
    pd_param *p = pd_params_find(n->params, name);
    memcpy(p->data, values, p->count * sizeof *values);
}

static const float *net_grad(const net *n, const char *name)
{
    return pd_params_find(n->params, name)->grad;
}

static void net_run(net *n)
{
    PD_CHECK_OK(pd_plan_forward(n->plan, &err));
    PD_CHECK_OK(pd_plan_backward(n->plan, false, &err));
}

static void net_free(net *n)
{
    pd_plan_free(n->plan);
    pd_tape_free(n->tape);
    pd_params_free(n->params);
}

/* Within tol of the tensor's largest magnitude. */
static void check_close(const float *got, const float *want, int n, double tol, const char *what)
{
    double most = 0, worst = 0;
    for (int i = 0; i < n; i++) {
        most = fmax(most, fabs((double)want[i]));
        const double d = fabs((double)got[i] - (double)want[i]);
        if (!(d <= worst)) worst = d;
    }
    PD_CHECK_MSG(worst <= tol * most, "%s: off by %g of %g", what, worst, most);
}

/* ---- element by element: every element is an image of its own, whose weight is the gradient sent into it ---- */

enum { SIGMOID_FOCAL, SIGMOID_BCE };

/* x, y, dy, dx: (n) elements; positive[i]: 1 or 0. */
static void check_sigmoid_loss(int kind, int n, const float *x, const int *positive, const float *weights,
                               const float *y, const float *dy, const float *dx)
{
    net t = net_new();
    int label[128];
    float weight[128];
    pd_value *logits = net_param(&t, "x", PD_SHAPE(n, 1));
    pd_value *labels = net_data(&t, "label", PD_I32, PD_SHAPE(n, 1), label);
    pd_value *w = net_data(&t, "weight", PD_F32, PD_SHAPE(n), weight), *loss;
    const pd_focal_cfg cfg = {0.25f, 2};
    loss = kind == SIGMOID_FOCAL ? pd_focal_loss(t.tape, &logits, 1, labels, w, 1, &cfg)
                                 : pd_bce_loss(t.tape, &logits, 1, labels, w, 1);
    pd_tape_minimise(t.tape, loss, 1);
    net_make(&t);
    net_set(&t, "x", x);
    for (int i = 0; i < n; i++) label[i] = positive[i] ? 0 : 1;
    for (int i = 0; i < n; i++) weight[i] = dy[i] * (weights ? weights[i] : 1);
    net_run(&t);
    check_close(net_grad(&t, "x"), dx, n, 1e-6, "gradient");
    for (int i = 0; i < n; i++) { /* each element's own loss */
        memset(weight, 0, sizeof weight);
        weight[i] = weights ? weights[i] : 1;
        net_run(&t);
        PD_CHECK_NEAR(*(float *)loss->data, y[i], 1e-6 * fmax(1, fabs((double)y[i])));
    }
    net_free(&t);
}

static void test_sigmoid_losses(golden *g)
{
    int n = 0;
    PD_ROW("focal");
    const float *x = golden_f32(g, "focal.x", &n), *w = golden_f32(g, "focal.weights", NULL);
    const int *label = golden_int(g, "focal.labels", NULL);
    int positive[128];
    float weights[128];
    for (int i = 0; i < n * 5; i++) {
        positive[i] = label[i / 5] == i % 5;
        weights[i] = w[i / 5];
    }
    check_sigmoid_loss(SIGMOID_FOCAL, n * 5, x, positive, weights, golden_f32(g, "focal.y", NULL),
                       golden_f32(g, "focal.dy", NULL), golden_f32(g, "focal.dx", NULL));
    PD_ROW("bce");
    x = golden_f32(g, "bce.x", &n);
    check_sigmoid_loss(SIGMOID_BCE, n, x, golden_int(g, "bce.target", NULL), NULL, golden_f32(g, "bce.y", NULL),
                       golden_f32(g, "bce.dy", NULL), golden_f32(g, "bce.dx", NULL));
    PD_ROW("");
}

/* (value, gradient) for y = 1 and y = 0. */
static void test_sigmoid_examples(void)
{
    static const struct {
        float x, value[2], slope[2]; /* [0]: background, [1]: positive */
    } focal[] =
        {
            {-4.59511985f, {7.5378e-07f, 1.12838182f}, {2.2425e-06f, -0.26514239f}},
            {-2, {0.00135267f, 0.41251954f}, {0.00365321f, -0.26917843f}},
            {0, {0.12996510f, 0.04332170f}, {0.22371510f, -0.07457170f}},
            {0.5f, {0.28305870f, 0.01689337f}, {0.39461387f, -0.03448425f}},
            {2, {1.23755863f, 0.00045089f}, {0.80753530f, -0.00121774f}},
            {6, {4.47962150f, 3.8e-09f}, {0.76660317f, -1.1e-08f}},
        },
      bce[] = {
          {-3, {0.04858735f, 3.04858735f}, {0.04742587f, -0.95257413f}},
          {2, {2.12692801f, 0.12692801f}, {0.88079708f, -0.11920292f}},
      };
    for (size_t i = 0; i < 16; i++) {
        const bool is_focal = i < 12;
        const int y = (int)i % 2;
        const float x = is_focal ? focal[i / 2].x : bce[i / 2 - 6].x, one = 1;
        const float *value = is_focal ? focal[i / 2].value : bce[i / 2 - 6].value;
        const float *slope = is_focal ? focal[i / 2].slope : bce[i / 2 - 6].slope;
        net t = net_new();
        int label = !y;
        float weight = one;
        pd_value *logits = net_param(&t, "x", PD_SHAPE(1, 1)), *w = net_data(&t, "w", PD_F32, PD_SHAPE(1), &weight);
        pd_value *labels = net_data(&t, "label", PD_I32, PD_SHAPE(1, 1), &label);
        const pd_focal_cfg cfg = {0.25f, 2};
        pd_value *loss = is_focal ? pd_focal_loss(t.tape, &logits, 1, labels, w, 1, &cfg)
                                  : pd_bce_loss(t.tape, &logits, 1, labels, w, 1);
        pd_tape_minimise(t.tape, loss, 1);
        net_make(&t);
        net_set(&t, "x", &x);
        net_run(&t);
        const double digits = value[y] < 1e-4f ? 0.05 * (double)value[y] : 1e-7 + 1e-6 * (double)value[y];
        PD_CHECK_NEAR(*(float *)loss->data, value[y], digits);
        PD_CHECK_NEAR(*net_grad(&t, "x"), slope[y],
                      fabsf(slope[y]) < 1e-4f ? 0.05 * fabs((double)slope[y]) : 1e-7 + 1e-6 * fabs((double)slope[y]));
        net_free(&t);
    }
    /* Far out nothing overflows: a sure mistake costs |x|, a sure hit nothing. */
    const float far[2] = {200, -200};
    int label[2] = {1, 0};
    float weight[2] = {1, 1};
    net t = net_new();
    const pd_focal_cfg cfg = {0.25f, 2};
    pd_value *logits = net_param(&t, "x", PD_SHAPE(2, 1)), *w = net_data(&t, "w", PD_F32, PD_SHAPE(2), weight);
    pd_value *labels = net_data(&t, "label", PD_I32, PD_SHAPE(2, 1), label);
    pd_value *loss = pd_focal_loss(t.tape, &logits, 1, labels, w, 1, &cfg);
    pd_tape_minimise(t.tape, loss, 1);
    net_make(&t);
    net_set(&t, "x", far);
    net_run(&t);
    PD_CHECK_NEAR(*(float *)loss->data, 200, 1e-4);
    label[0] = 0;
    label[1] = 1;
    net_run(&t);
    PD_CHECK_NEAR(*(float *)loss->data, 0, 1e-30);
    net_free(&t);
}

/* ---- box loss: coordinate j of an image's only box is under test, the others are predicted exactly ---- */

static void check_box_loss(golden *g, const char *name, float beta)
{
    char text[64];
    int n = 0;
    PD_ROW(name);
    snprintf(text, sizeof text, "%s.x", name);
    const float *x = golden_f32(g, text, &n);
    snprintf(text, sizeof text, "%s.target", name);
    const float *target = golden_f32(g, text, NULL);
    snprintf(text, sizeof text, "%s.y", name);
    const float *y = golden_f32(g, text, NULL);
    snprintf(text, sizeof text, "%s.dy", name);
    const float *dy = golden_f32(g, text, NULL);
    snprintf(text, sizeof text, "%s.dx", name);
    const float *dx = golden_f32(g, text, NULL);
    n *= 4;
    float deltas[64][4], weight[64], gt[64][4], got[64];
    float anchor[4] = {-0.5f, -0.5f, 0.5f, 0.5f};
    int match[64] = {0};
    for (int i = 0; i < n; i++) {
        const float *t = target + i / 4 * 4;
        const float w = expf(t[2]), h = expf(t[3]);
        memcpy(gt[i], (const float[]){t[0] - w / 2, t[1] - h / 2, t[0] + w / 2, t[1] + h / 2}, sizeof gt[i]);
        memcpy(deltas[i], t, sizeof deltas[i]);
        deltas[i][i % 4] = x[i];
    }
    net t = net_new();
    pd_value *d = net_param(&t, "d", PD_SHAPE(n, 1, 1, 4)), *w = net_data(&t, "w", PD_F32, PD_SHAPE(n), weight);
    pd_value *boxes = net_data(&t, "boxes", PD_F32, PD_SHAPE(1, 4), anchor);
    pd_value *m = net_data(&t, "match", PD_I32, PD_SHAPE(n, 1), match);
    pd_value *gts = net_data(&t, "gt", PD_F32, PD_SHAPE(n, 1, 4), gt);
    const pd_box_loss_cfg cfg = {pd_box_coder_unit(), beta};
    pd_value *loss = pd_box_loss(t.tape, &d, 1, boxes, m, gts, w, &cfg);
    pd_tape_minimise(t.tape, loss, 1);
    net_make(&t);
    net_set(&t, "d", &deltas[0][0]);
    memcpy(weight, dy, (size_t)n * sizeof *weight);
    net_run(&t);
    for (int i = 0; i < n; i++) got[i] = net_grad(&t, "d")[4 * i + i % 4];
    check_close(got, dx, n, 3e-6, "gradient");
    for (int i = 0; i < n; i++) {
        memset(weight, 0, sizeof weight);
        weight[i] = 1;
        net_run(&t);
        PD_CHECK_NEAR(*(float *)loss->data, y[i], 2e-6);
    }
    net_free(&t);
    PD_ROW("");
}

static void test_smooth_l1_examples(void)
{
    static const struct {
        float beta, d, value, slope;
    } rows[] = {{1, 0.5f, 0.125f, 0.5f},
                {1, -2, 1.5f, -1},
                {1.f / 9, 0.05f, 0.01125f, 0.45f},
                {1.f / 9, 0.1f, 0.045f, 0.9f},
                {1.f / 9, 0.5f, 0.44444444f, 1},
                {1.f / 9, -2, 1.94444444f, -1},
                {0.11f, 0.1f, 0.04545455f, 0.90909091f},
                {0.11f, 0.5f, 0.445f, 1},
                {0, -3, 3, -1},
                {0, 0, 0, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        PD_CHECK_NEAR(pd_smooth_l1(rows[i].d, rows[i].beta), rows[i].value, 1e-7);
        PD_CHECK_NEAR(pd_smooth_l1_slope(rows[i].d, rows[i].beta), rows[i].slope, 1e-6);
    }
    PD_CHECK(isnan(pd_smooth_l1_slope(NAN, 0)));
}

/* ---- softmax cross-entropy ---- */

static void test_softmax_ce(golden *g)
{
    int n = 0, used = 0;
    const float *x = golden_f32(g, "softmax_ce.x", &n), *w = golden_f32(g, "softmax_ce.weights", NULL);
    const float *y = golden_f32(g, "softmax_ce.y", NULL), *dy = golden_f32(g, "softmax_ce.dy", NULL);
    float weight[16];
    int *labels = golden_int(g, "softmax_ce.labels", NULL);
    for (int i = 0; i < n; i++) used += w[i] > 0;
    net t = net_new();
    pd_value *logits = net_param(&t, "x", PD_SHAPE(n, 6)), *correct;
    pd_value *label = net_data(&t, "label", PD_I32, PD_SHAPE(n), labels);
    pd_value *scale = net_data(&t, "w", PD_F32, PD_SHAPE(n), weight);
    pd_value *loss = pd_softmax_ce(t.tape, logits, label, scale, 0, &correct);
    pd_tape_keep(t.tape, correct);
    pd_tape_minimise(t.tape, loss, 1);
    net_make(&t);
    net_set(&t, "x", x);
    for (int i = 0; i < n; i++) weight[i] = dy[i] * w[i] / (float)used;
    net_run(&t);
    check_close(net_grad(&t, "x"), golden_f32(g, "softmax_ce.dx", NULL), n * 6, 1e-6, "softmax_ce gradient");
    for (int i = 0; i < n; i++) {
        memset(weight, 0, sizeof weight);
        weight[i] = w[i] / (float)used;
        net_run(&t);
        PD_CHECK_NEAR(*(float *)loss->data, y[i], 1e-6);
    }
    labels[3] = 6;
    PD_CHECK_FAILS(pd_plan_forward(t.plan, &err), PD_EINVAL, "row 3 has class 6, expected 0..5");
    net_free(&t);
}

/* ---- maps ---- */

/* Sends dy into y: loss = sum y * dy, as softmax has no part here. One box loss per element would be slow, so the check
 * uses an operation of its own. */
static pd_status send_fwd(pd_node *node, const pd_run *run, pd_err *e)
{
    (void)run;
    (void)e;
    *(float *)node->out[0]->data = 0;
    return PD_OK;
}

static pd_status send_bwd(pd_node *node, const pd_run *run, pd_err *e)
{
    (void)run;
    (void)e;
    memcpy(node->in[0]->grad, node->in[1]->data, pd_shape_size(node->in[0]->shape) * sizeof(float));
    return PD_OK;
}

static const pd_kernel send_cpu = {NULL, send_fwd, send_bwd, NULL};
static const pd_op send_op = {
    .name = "send", .bwd_reads_in = 2, .differentiable = true, .kernel = {[PD_CPU] = &send_cpu}};

static void send(net *n, pd_value *y, float *dy)
{
    pd_value *in[] = {pd_tape_keep(n->tape, y), net_data(n, "dy", PD_F32, y->shape, dy)};
    pd_tape_minimise(n->tape, pd_tape_add1(n->tape, &send_op, "", 2, in, PD_SHAPE(1), NULL, 0), 1);
}

static void check_upsample(golden *g, const char *name)
{
    char text[64];
    int dim[4], cdim[4];
    net t = net_new();
    PD_ROW(name);
    snprintf(text, sizeof text, "%s.fine", name);
    const float *fine = golden_nhwc(g, text, dim);
    snprintf(text, sizeof text, "%s.coarse", name);
    const float *coarse = golden_nhwc(g, text, cdim);
    snprintf(text, sizeof text, "%s.dy", name);
    float *dy = golden_nhwc(g, text, NULL);
    pd_value *lateral = net_param(&t, "fine", PD_SHAPE(dim[0], dim[1], dim[2], dim[3]));
    pd_value *top = net_param(&t, "coarse", PD_SHAPE(cdim[0], cdim[1], cdim[2], cdim[3]));
    pd_value *y = pd_upsample_add(t.tape, top, lateral);
    send(&t, y, dy);
    net_make(&t);
    net_set(&t, "fine", fine);
    net_set(&t, "coarse", coarse);
    net_run(&t);
    snprintf(text, sizeof text, "%s.y", name);
    check_close(y->data, golden_nhwc(g, text, NULL), dim[0] * dim[1] * dim[2] * dim[3], 1e-6, "y");
    snprintf(text, sizeof text, "%s.dfine", name);
    check_close(net_grad(&t, "fine"), golden_nhwc(g, text, NULL), dim[0] * dim[1] * dim[2] * dim[3], 1e-6, "dfine");
    snprintf(text, sizeof text, "%s.dcoarse", name);
    check_close(net_grad(&t, "coarse"), golden_nhwc(g, text, NULL), cdim[0] * cdim[1] * cdim[2] * cdim[3], 1e-6,
                "dcoarse");
    net_free(&t);
    PD_ROW("");
}

/* RoIs of the golden file are (image, box) in any order; ours are rows of their image. */
static void check_roi_align(golden *g, const char *name, int ratio, bool pyramid)
{
    char text[64];
    int n_rois = 0, dim[4], counts[2] = {0, 0}, row_of[64];
    snprintf(text, sizeof text, "%s.rois", name);
    const float *listed = golden_f32(g, text, &n_rois);
    pd_box rois[2][64];
    net t = net_new();
    PD_ROW(name);
    for (int r = 0; r < n_rois; r++) {
        const int image = (int)listed[5 * r];
        row_of[r] = image * n_rois + counts[image];
        memcpy(&rois[image][counts[image]++], listed + 5 * r + 1, sizeof(pd_box));
    }
    memmove(&rois[0][n_rois], rois[1], (size_t)counts[1] * sizeof(pd_box)); /* rows of (2, n_rois, 4) */
    static const char *const levels[] = {"p2", "p3", "p4", "p5"};
    static const int strides[] = {4, 8, 16, 32}, one_stride[] = {8};
    const int n_levels = pyramid ? 4 : 1;
    pd_value *level[4];
    const float *maps[4];
    for (int l = 0; l < n_levels; l++) {
        snprintf(text, sizeof text, "%s.%s", name, pyramid ? levels[l] : "x");
        maps[l] = golden_nhwc(g, text, dim);
        level[l] = net_param(&t, levels[l], PD_SHAPE(dim[0], dim[1], dim[2], dim[3]));
    }
    pd_value *boxes = net_data(&t, "rois", PD_F32, PD_SHAPE(2, n_rois, 4), &rois[0][0]);
    pd_value *count = net_data(&t, "count", PD_I32, PD_SHAPE(2), counts);
    pd_value *y = pd_roi_align(t.tape, level, pyramid ? strides : one_stride, n_levels, boxes, count, 7, ratio);
    const size_t per_roi = 49 * (size_t)dim[3];
    float *dy = NULL, *got = NULL;
    PD_CHECK_OK(PD_ALLOC(&dy, g->arena, 2 * (size_t)n_rois * per_roi, &err));
    PD_CHECK_OK(PD_ALLOC(&got, g->arena, (size_t)n_rois * per_roi, &err));
    snprintf(text, sizeof text, "%s.dy", name);
    const float *sent = golden_nhwc(g, text, NULL);
    for (int r = 0; r < n_rois; r++)
        memcpy(dy + (size_t)row_of[r] * per_roi, sent + (size_t)r * per_roi, per_roi * sizeof *dy);
    send(&t, y, dy);
    net_make(&t);
    for (int l = 0; l < n_levels; l++) net_set(&t, levels[l], maps[l]);
    net_run(&t);
    for (int r = 0; r < n_rois; r++)
        memcpy(got + (size_t)r * per_roi, (float *)y->data + (size_t)row_of[r] * per_roi, per_roi * sizeof *got);
    snprintf(text, sizeof text, "%s.y", name);
    check_close(got, golden_nhwc(g, text, NULL), n_rois * (int)per_roi, 2e-6, "y");
    for (int l = 0; l < n_levels; l++) {
        snprintf(text, sizeof text, "%s.d%s", name, pyramid ? levels[l] : "x");
        const float *want = golden_nhwc(g, text, dim);
        check_close(net_grad(&t, levels[l]), want, dim[0] * dim[1] * dim[2] * dim[3], 2e-6, text);
    }
    net_free(&t);
    PD_ROW("");
}

static void test_roi_levels(golden *g)
{
    int n = 0;
    const float *rois = golden_f32(g, "roi_level.rois", &n);
    const int *want = golden_int(g, "roi_level.level", NULL);
    for (int r = 0; r < n; r++) {
        pd_box b;
        memcpy(&b, rois + 5 * r + 1, sizeof b);
        PD_CHECK_INT(pd_roi_level(b, 4) + 2, want[r]);
    }
    PD_CHECK_INT(pd_roi_level((pd_box){5, 5, 3, 9}, 4), 0); /* inside out: the root is not a number */
    PD_CHECK_INT(pd_roi_level((pd_box){0, 0, 1e30f, 1e30f}, 4), 3);
}

/* ---- fast exponential and logarithm: worst errors over densely sampled floats ---- */

static void test_vecmath(void)
{
    double worst_exp = 0, worst_log = 0;
    for (double x = -87.2; x < 88.2; x += 1.7e-4) {
        const float v = (float)x;
        worst_exp = fmax(worst_exp, fabs((double)pd_vec_exp(v) / exp((double)v) - 1));
    }
    for (float e = 1; e > 1e-38f; e *= 0.99999f)
        worst_log = fmax(worst_log, fabs((double)pd_vec_log1p(e) / log1p((double)e) - 1));
    PD_CHECK_MSG(worst_exp < 2e-7, "exp is off by %g", worst_exp);
    PD_CHECK_MSG(worst_log < 3e-7, "log1p is off by %g", worst_log);
    PD_CHECK(pd_vec_exp(0) == 1 && pd_vec_log1p(0) == 0);
    PD_CHECK(isnan(pd_vec_exp(NAN)) && isnan(pd_vec_log1p(NAN)));
    PD_CHECK(pd_vec_exp(-1e30f) > 0 && pd_vec_exp(-1e30f) < 1e-37f && isfinite(pd_vec_exp(1e30f)));
}

/* ---- what an author sees who gives wrong shapes ---- */

static void test_errors(void)
{
    int one = 0;
    float w = 1;
    const pd_focal_cfg cfg = {0.25f, 2}, bad = {2, 2};
#define EXPECT(call, text)                                                                                             \
    do {                                                                                                               \
        net t = net_new();                                                                                             \
        pd_value *label = net_data(&t, "label", PD_I32, PD_SHAPE(1, 6), &one);                                         \
        pd_value *weight = net_data(&t, "w", PD_F32, PD_SHAPE(1), &w), *x = net_param(&t, "x", PD_SHAPE(1, 2, 2, 9));  \
        (void)label, (void)weight, (void)x, (void)cfg, (void)bad;                                                      \
        (void)(call);                                                                                                  \
        PD_CHECK_FAILS(pd_tape_status(t.tape, &err), PD_EINVAL, text);                                                 \
        net_free(&t);                                                                                                  \
    } while (0)
    EXPECT(pd_focal_loss(t.tape, &x, 1, label, weight, 3, &cfg), "logits (1, 2, 2, 9) of level 0");
    EXPECT(pd_focal_loss(t.tape, &x, 1, label, weight, 9, &cfg), "the levels hold 4 boxes, the labels 6");
    EXPECT(pd_focal_loss(t.tape, &x, 9, label, weight, 6, &cfg), "9 levels");
    EXPECT(pd_focal_loss(t.tape, &x, 1, label, label, 6, &cfg), "weights (1, 6)");
    EXPECT(pd_focal_loss(t.tape, &x, 1, weight, weight, 6, &cfg), "labels (1)");
    EXPECT(pd_focal_loss(t.tape, &x, 1, label, weight, 6, &bad), "alpha 2");
    EXPECT(pd_softmax_ce(t.tape, x, label, NULL, 0, NULL), "logits (1, 2, 2, 9): expected (rows, classes)");
    EXPECT(pd_softmax_ce(t.tape, net_param(&t, "y", PD_SHAPE(6, 3)), label, NULL, 2, NULL), "smoothing 2");
    EXPECT(pd_upsample_add(t.tape, x, net_param(&t, "y", PD_SHAPE(1, 4, 4, 8))), "onto lateral (1, 4, 4, 8)");
#undef EXPECT
}

int main(void)
{
    golden g = golden_open();
    PD_CHECK_OK(pd_device_open(&device, "cpu", 2, &err));
    test_vecmath();
    test_sigmoid_losses(&g);
    test_sigmoid_examples();
    check_box_loss(&g, "l1", 0);
    check_box_loss(&g, "smooth_l1.beta1", 1);
    check_box_loss(&g, "smooth_l1.beta1_9", 1.f / 9);
    test_smooth_l1_examples();
    test_softmax_ce(&g);
    check_upsample(&g, "upsample_add.even");
    check_upsample(&g, "upsample_add.odd");
    test_roi_levels(&g);
    check_roi_align(&g, "roi_align.adaptive", 0, false);
    check_roi_align(&g, "roi_align.fixed2", 2, false);
    check_roi_align(&g, "roi_extract", 0, true);
    test_errors();
    pd_device_close(device);
    golden_close(&g);
    return pd_test_end();
}
