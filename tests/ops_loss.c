/* check_ops rows: losses and the top-down step. */
#include "kernels/bce_loss.h"
#include "kernels/box_loss.h"
#include "kernels/pick_deltas.h"
#include "kernels/focal_loss.h"
#include "kernels/softmax_ce.h"
#include "kernels/subsample.h"
#include "kernels/upsample_add.h"
#include "tests/check_ops.h"

#include <math.h>
#include <stdio.h>

/* Positive, so that losses do not cancel. */
static check_tensor *draw_weights(check_case *c, int n)
{
    check_tensor *t = check_fixed(c, "weight", PD_SHAPE(n), 1);
    for (int i = 0; i < n; i++) t->f[i] = fabsf(t->f[i]) + 0.1f;
    return t;
}

/* ---- focal_loss, bce_loss: the same inputs ---- */

typedef struct dense_case {
    int n, k, levels, first[4];
    pd_focal_cfg cfg;
    bool bce;
} dense_case;

enum { LABEL, WEIGHT, LOGITS };

static void build_dense(check_case *c, bool bce)
{
    dense_case *s = c->own = check_memory(c, sizeof *s);
    static const double scales[] = {3, 0.5, 20, 60};
    const double scale = scales[check_draw(c, 0, 3)];
    pd_value *logits[3];
    int h[3], w[3], a = check_draw(c, 1, 3);
    s->bce = bce;
    s->n = check_draw(c, 1, 3);
    s->k = c->variant == 1 ? 1 : check_draw(c, 1, 6);
    s->levels = check_draw(c, 1, 3);
    s->cfg = (pd_focal_cfg){0.25f, c->variant == 2 ? 1.5f : c->variant == 3 ? 0.f : 2.f};
    if (c->bench) {
        s->n = 1;
        s->k = bce ? 1 : 80;
        s->levels = 3;
        a = 9;
    }
    for (int l = 0; l < s->levels; l++) {
        h[l] = c->bench ? 100 >> l : check_draw(c, l ? 0 : 1, 5);
        w[l] = c->bench ? 168 >> l : check_draw(c, l ? 0 : 1, 5);
    }
    for (int l = 0; l < s->levels; l++) s->first[l + 1] = s->first[l] + h[l] * w[l] * a;
    const int boxes = s->first[s->levels];
    check_tensor *label = check_int(c, "label", PD_SHAPE(s->n, boxes), -1, s->k), *weight;
    for (size_t i = 0; i < label->count && c->bench; i++) label->i[i] = i % 3000 ? s->k : (int)i / 3000 % s->k;
    weight = draw_weights(c, s->n);
    for (int l = 0; l < s->levels; l++) {
        const char *name = pd_tape_name(c->tape, "logits%d", l);
        logits[l] = check_float(c, name, PD_SHAPE(s->n, h[l], w[l], a * s->k), scale)->value;
    }
    snprintf(c->text, sizeof c->text, "n %d, k %d, %d boxes on %d levels, logits to %g", s->n, s->k, boxes, s->levels,
             scale);
    check_result(c,
                 bce ? pd_bce_loss(c->tape, logits, s->levels, label->value, weight->value, s->k)
                     : pd_focal_loss(c->tape, logits, s->levels, label->value, weight->value, s->k, &s->cfg),
                 true);
}

static void build_focal(check_case *c)
{
    build_dense(c, false);
}

static void build_bce(check_case *c)
{
    build_dense(c, true);
}

static double softplus(double x)
{
    return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
}

static double focal(double x, bool y, const pd_focal_cfg *cfg)
{
    const double p = 1 / (1 + exp(-x)), alpha = (double)cfg->alpha, gamma = (double)cfg->gamma;
    return y ? alpha * pow(1 - p, gamma) * softplus(-x) : (1 - alpha) * pow(p, gamma) * softplus(x);
}

static void reference_dense(check_case *c)
{
    const dense_case *s = c->own;
    const int boxes = s->first[s->levels];
    double sum = 0;
    for (int i = 0; i < s->n; i++)
        for (int l = 0; l < s->levels; l++)
            for (int b = s->first[l]; b < s->first[l + 1]; b++)
                for (int k = 0; k < s->k; k++) {
                    const int label = c->in[LABEL].i[i * boxes + b], in_level = s->first[l + 1] - s->first[l];
                    const double x = c->in[LOGITS + l].d[(i * in_level + b - s->first[l]) * s->k + k];
                    if (label < 0) continue;
                    const double loss = !s->bce ? focal(x, label == k, &s->cfg) : softplus(label == k ? -x : x);
                    sum += c->in[WEIGHT].d[i] * loss;
                }
    c->out[0].want[0] = sum;
}

/* ---- box_loss ---- */

typedef struct box_case {
    int n, levels, boxes, g, first[4];
    bool shared;
    pd_box_loss_cfg cfg;
} box_case;

enum { BOXES, MATCH, GT, BOX_WEIGHT, DELTAS };

/* Values of boxes with area, somewhere in a 100 x 100 image. */
static void draw_boxes(check_case *c, check_tensor *t)
{
    for (size_t i = 0; i + 4 <= t->count; i += 4) {
        t->f[i] = (float)(80 * pd_rng_double(&c->rng));
        t->f[i + 1] = (float)(80 * pd_rng_double(&c->rng));
        t->f[i + 2] = t->f[i] + (float)(1 + 60 * pd_rng_double(&c->rng));
        t->f[i + 3] = t->f[i + 1] + (float)(1 + 60 * pd_rng_double(&c->rng));
    }
}

static void build_box(check_case *c)
{
    box_case *s = c->own = check_memory(c, sizeof *s);
    pd_value *deltas[3];
    int h[3], w[3], a = c->bench ? 9 : check_draw(c, 1, 3);
    s->n = check_draw(c, 1, 3);
    s->g = check_draw(c, 1, 4);
    s->levels = c->bench ? 3 : check_draw(c, 1, 3);
    s->shared = c->variant % 2 == 0;
    s->cfg = (pd_box_loss_cfg){{{0.1f, 0.1f, 0.2f, 0.2f}, c->variant == 2}, c->variant / 2 ? 1.f / 9 : 0};
    for (int l = 0; l < s->levels; l++) {
        h[l] = c->bench ? 100 >> l : check_draw(c, l ? 0 : 1, 5);
        w[l] = c->bench ? 168 >> l : check_draw(c, l ? 0 : 1, 5);
        s->first[l + 1] = s->first[l] + h[l] * w[l] * a;
    }
    s->boxes = s->first[s->levels];
    check_tensor *boxes = check_fixed(c, "boxes", s->shared ? PD_SHAPE(s->boxes, 4) : PD_SHAPE(s->n, s->boxes, 4), 1);
    check_tensor *match = check_int(c, "match", PD_SHAPE(s->n, s->boxes), -2, s->g - 1);
    for (size_t i = 0; i < match->count && c->bench; i++) match->i[i] = i % 2000 ? -1 : 0;
    check_tensor *gt = check_fixed(c, "gt", PD_SHAPE(s->n, s->g, 4), 1);
    check_tensor *weight = draw_weights(c, s->n);
    draw_boxes(c, boxes);
    draw_boxes(c, gt);
    for (int l = 0; l < s->levels; l++) {
        const char *name = pd_tape_name(c->tape, "deltas%d", l);
        const bool rows = s->levels == 1 && !s->shared; /* as a linear layer gives them */
        deltas[l] = check_float(c, name, rows ? PD_SHAPE(s->n * s->boxes, 4) : PD_SHAPE(s->n, h[l], w[l], a * 4), 3)->value;
    }
    snprintf(c->text, sizeof c->text, "n %d, %d boxes on %d levels, beta %g", s->n, s->boxes, s->levels,
             (double)s->cfg.beta);
    check_result(c,
                 pd_box_loss(c->tape, deltas, s->levels, boxes->value, match->value, gt->value, weight->value, &s->cfg),
                 true);
}

static void reference_box(check_case *c)
{
    const box_case *s = c->own;
    double sum = 0;
    for (int i = 0; i < s->n; i++)
        for (int l = 0; l < s->levels; l++)
            for (int b = s->first[l]; b < s->first[l + 1]; b++) {
                const int m = c->in[MATCH].i[i * s->boxes + b], in_level = s->first[l + 1] - s->first[l];
                if (m < 0) continue;
                const double *p = c->in[BOXES].d + 4 * ((s->shared ? 0 : i * s->boxes) + b);
                const double *g = c->in[GT].d + 4 * (i * s->g + m), o = s->cfg.coder.o;
                const double *t = c->in[DELTAS + l].d + 4 * (i * in_level + b - s->first[l]);
                const double beta = (double)s->cfg.beta;
                for (int k = 0; k < 4; k++) {
                    const double pw = p[2 + k % 2] - p[k % 2] + o, gw = g[2 + k % 2] - g[k % 2] + o;
                    const double centre = (g[2 + k % 2] + g[k % 2] - p[2 + k % 2] - p[k % 2]) / 2;
                    const double d = fabs(t[k] - (k < 2 ? centre / pw : log(gw / pw)) / (double)s->cfg.coder.std[k]);
                    sum += c->in[BOX_WEIGHT].d[i] * (d < beta ? d * d / (2 * beta) : d - beta / 2);
                }
            }
    c->out[0].want[0] = sum;
}

/* ---- softmax_ce ---- */

typedef struct ce_case {
    int rows, k, weights;
    double smoothing;
} ce_case;

static void build_ce(check_case *c)
{
    ce_case *s = c->own = check_memory(c, sizeof *s);
    static const double scales[] = {3, 0, 100};
    const double scale = scales[check_draw(c, 0, 2)];
    s->rows = c->bench ? 1024 : check_draw(c, 0, 12);
    s->k = c->bench ? 1000 : check_draw(c, 1, 40);
    s->smoothing = c->variant == 1 ? (double)0.1f : 0;
    s->weights = c->variant == 2 ? s->rows : c->variant == 3 ? 1 : 0;
    check_tensor *logits = check_float(c, "logits", PD_SHAPE(s->rows, s->k), scale);
    check_tensor *label = check_int(c, "label", PD_SHAPE(s->rows), -1, s->k - 1);
    pd_value *weight = s->weights ? draw_weights(c, s->weights)->value : NULL, *correct;
    snprintf(c->text, sizeof c->text, "%d rows, k %d, smoothing %g, %d weights, logits to %g", s->rows, s->k,
             s->smoothing, s->weights, scale);
    check_result(c, pd_softmax_ce(c->tape, logits->value, label->value, weight, (float)s->smoothing, &correct), true);
    check_result(c, correct, false);
}

static void reference_ce(check_case *c)
{
    const ce_case *s = c->own;
    double loss = 0, correct = 0, used = 0;
    for (int r = 0; r < s->rows; r++) used += c->in[1].i[r] >= 0;
    for (int r = 0; r < s->rows; r++) {
        const double *x = c->in[0].d + r * s->k;
        const int y = c->in[1].i[r];
        int top = 0;
        double sum = 0, l = 0;
        if (y < 0) continue;
        for (int k = 1; k < s->k; k++)
            if (x[k] > x[top]) top = k;
        for (int k = 0; k < s->k; k++) sum += exp(x[k] - x[top]);
        for (int k = 0; k < s->k; k++)
            l -= (s->smoothing / s->k + (k == y ? 1 - s->smoothing : 0)) * (x[k] - x[top] - log(sum));
        loss += l * (s->weights ? c->in[2].d[r / (s->rows / s->weights)] : 1 / used);
        correct += top == y;
    }
    c->out[0].want[0] = loss;
    c->out[1].want[0] = correct;
}

/* ---- upsample_add ---- */

static void build_up(check_case *c)
{
    const int n = check_draw(c, 1, 2), k = c->bench ? 256 : check_draw(c, 1, 20);
    const int h = c->bench ? 100 : check_draw(c, 1, 9), w = c->bench ? 168 : check_draw(c, 1, 9);
    int hc = (h + 1) / 2, wc = (w + 1) / 2;
    if (c->variant == 1) { /* any sizes, also larger than the lateral */
        hc = check_draw(c, 1, 11);
        wc = check_draw(c, 1, 11);
    }
    check_tensor *coarse = check_float(c, "coarse", PD_SHAPE(n, hc, wc, k), 1);
    check_tensor *lateral = check_float(c, "lateral", PD_SHAPE(n, h, w, k), 1);
    snprintf(c->text, sizeof c->text, "n %d, %d x %d onto %d x %d, c %d", n, hc, wc, h, w, k);
    check_result(c, pd_upsample_add(c->tape, coarse->value, lateral->value), true);
}

static void reference_up(check_case *c)
{
    const int *b = c->in[0].shape.dim, *s = c->in[1].shape.dim;
    for (int i = 0; i < s[0]; i++)
        for (int y = 0; y < s[1]; y++)
            for (int x = 0; x < s[2]; x++)
                for (int k = 0; k < s[3]; k++) {
                    const int at = ((i * s[1] + y) * s[2] + x) * s[3] + k;
                    const int from = ((i * b[1] + y * b[1] / s[1]) * b[2] + x * b[2] / s[2]) * b[3] + k;
                    c->out[0].want[at] = c->in[1].d[at] + c->in[0].d[from];
                }
}

/* ---- subsample ---- */

static void build_sub(check_case *c)
{
    const int n = check_draw(c, 1, 2), k = c->bench ? 256 : check_draw(c, 1, 20), stride = c->variant + 1;
    const int h = c->bench ? 25 : check_draw(c, 1, 9), w = c->bench ? 42 : check_draw(c, 1, 9);
    check_tensor *x = check_float(c, "x", PD_SHAPE(n, h, w, k), 1);
    snprintf(c->text, sizeof c->text, "n %d, %d x %d, c %d, stride %d", n, h, w, k, stride);
    check_result(c, pd_subsample(c->tape, x->value, stride), true);
}

static void reference_sub(check_case *c)
{
    const int *s = c->in[0].shape.dim, *o = c->out[0].value->shape.dim, stride = c->variant + 1;
    for (int i = 0; i < o[0]; i++)
        for (int y = 0; y < o[1]; y++)
            for (int x = 0; x < o[2]; x++)
                for (int k = 0; k < o[3]; k++)
                    c->out[0].want[((i * o[1] + y) * o[2] + x) * o[3] + k] =
                        c->in[0].d[((i * s[1] + y * stride) * s[2] + x * stride) * s[3] + k];
}

/* ---- pick_deltas ---- */

static void build_pick(check_case *c)
{
    const int rows = c->bench ? 1024 : check_draw(c, 0, 9), k = c->bench ? 80 : check_draw(c, 1, 5);
    check_tensor *deltas = check_float(c, "deltas", PD_SHAPE(rows, 4 * k), 1);
    check_tensor *label = check_int(c, "label", PD_SHAPE(1, rows), -1, k); /* -1 and k: of no class */
    snprintf(c->text, sizeof c->text, "%d rows, %d classes", rows, k);
    check_result(c, pd_pick_deltas(c->tape, deltas->value, label->value), true);
}

static void reference_pick(check_case *c)
{
    const int rows = c->in[0].shape.dim[0], k = c->in[0].shape.dim[1] / 4;
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < 4; i++) {
            const int label = c->in[1].i[r];
            c->out[0].want[4 * r + i] = label >= 0 && label < k ? c->in[0].d[4 * (r * k + label) + i] : 0;
        }
}

static const check_op ops[] = {
    {"focal_loss", 4, build_focal, reference_dense, 2e-6, 1e-5, true}, /* gamma 2; one class; gamma 1.5; gamma 0 */
    {"bce_loss", 2, build_bce, reference_dense, 2e-6, 1e-5, true},     /* several classes; one */
    /* boxes per image or shared; L1 or smooth; inclusive corners in variant 2 */
    {"box_loss", 4, build_box, reference_box, 1e-5, 1e-4, true}, /* its slope has a bend */
    {"softmax_ce", 4, build_ce, reference_ce, 2e-6, 1e-5, true}, /* plain; smoothing; weight per row; one weight */
    {"upsample_add", 2, build_up, reference_up, 1e-6, 1e-6, true},
    {"subsample", 3, build_sub, reference_sub, 0, 1e-6, true}, /* the stride */
    {"pick_deltas", 1, build_pick, reference_pick, 0, 1e-6, true},
};

const check_family check_losses = {ops, sizeof ops / sizeof *ops};
