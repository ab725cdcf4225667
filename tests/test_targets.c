/* What the losses are trained on: RPN decisions of a PyTorch program, the normaliser rule, the sampler's chances. */
#include "engine/json.h"
#include "engine/plan.h"
#include "kernels/anchors.h"
#include "kernels/assign.h"
#include "kernels/sample.h"
#include "kernels/targets.h"
#include "tests/pd_test.h"

static pd_device *device;
static pd_err err;

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

static pd_value *net_data(net *n, const char *name, pd_dtype dtype, pd_shape shape, void *data)
{
    pd_value *v = pd_tape_input(n->tape, name, dtype, shape);
    pd_plan_bind(v, data);
    return v;
}

static void net_make(net *n)
{
    PD_CHECK_OK(pd_params_allocate(n->params, device, true, &err));
    PD_CHECK_OK(pd_plan_new(&n->plan, n->tape, device, PD_PLAN_INFER, NULL, &err));
    if (!n->plan) exit(1);
}

static void net_free(net *n)
{
    pd_plan_free(n->plan);
    pd_tape_free(n->tape);
    pd_params_free(n->params);
}

/* ---- the RPN's decisions in the golden training steps ---- */

/* Numbers of an array (of arrays), flat. */
static int numbers(double *out, int room, const pd_json *array)
{
    int n = 0;
    for (const pd_json *v = pd_json_first(array); v; v = pd_json_next(v)) {
        if (pd_json_type(v) == PD_JSON_NUMBER && n < room)
            out[n++] = pd_json_number(v);
        else
            n += numbers(out + n, room - n, v);
    }
    return n;
}

static void check_rpn(const char *file)
{
    char path[256];
    pd_json_doc *doc = NULL;
    double v[1024];
    PD_ROW(file);
    snprintf(path, sizeof path, PD_GOLDEN "/detection/%s.json", file);
    PD_CHECK_OK(pd_json_read(&doc, path, 0, &err));
    if (!doc) return;
    enum { G = 8 };
    pd_box gt[2][G];
    int n_gt[2] = {0}, sizes[2][4], draw[2] = {0, 1}, images = 0;
    numbers(v, 2, pd_json_member(pd_json_root(doc), "size"));
    const int h = (int)v[0], w = (int)v[1];
    for (const pd_json *image = pd_json_first(pd_json_member(pd_json_root(doc), "images")); image;
         image = pd_json_next(image)) {
        n_gt[images] = numbers(v, 1024, pd_json_member(image, "gt_boxes")) / 4;
        for (int i = 0; i < n_gt[images]; i++)
            gt[images][i] = (pd_box){(float)v[4 * i], (float)v[4 * i + 1], (float)v[4 * i + 2], (float)v[4 * i + 3]};
        numbers(v, 2, pd_json_member(image, "img_shape"));
        numbers(v + 2, 2, pd_json_member(image, "pad_shape"));
        for (int i = 0; i < 4; i++) sizes[images][i] = (int)v[i];
        images++;
    }
    int lh[5], lw[5];
    static const int stride[5] = {4, 8, 16, 32, 64};
    for (int l = 0; l < 5; l++) {
        lh[l] = l ? (lh[l - 1] + 1) / 2 : (h + 3) / 4;
        lw[l] = l ? (lw[l - 1] + 1) / 2 : (w + 3) / 4;
    }
    const pd_anchor_cfg anchors = pd_anchor_cfg_rpn();
    const pd_assign_cfg assign = pd_assign_cfg_rpn();
    const pd_sample_cfg sample = {.num = 256, .fraction = 0.5f, .first = true};
    pd_anchor_grid grid;
    PD_CHECK_OK(pd_anchor_grid_init(&grid, &anchors, 5, lh, lw, stride, &err));
    net t = net_new();
    pd_value *gts = net_data(&t, "gt", PD_F32, PD_SHAPE(images, G, 4), gt);
    pd_value *count = net_data(&t, "n_gt", PD_I32, PD_SHAPE(images), n_gt);
    pd_value *size = net_data(&t, "sizes", PD_I32, PD_SHAPE(images, 4), sizes);
    pd_value *draws = net_data(&t, "draw", PD_I32, PD_SHAPE(images), draw);
    pd_value *match = pd_assign(t.tape, pd_anchors(t.tape, &grid), &grid, NULL, gts, count, size, &assign);
    pd_value *chosen = pd_tape_keep(t.tape, pd_sample(t.tape, match, draws, &sample));
    const pd_targets all = pd_match_targets(t.tape, match, NULL, 1, PD_NORM_SAMPLES, 2);
    const pd_targets some = pd_match_targets(t.tape, chosen, NULL, 1, PD_NORM_SAMPLES, 2);
    pd_tape_keep(t.tape, all.count);
    pd_tape_keep(t.tape, some.count);
    pd_tape_keep(t.tape, some.weight);
    net_make(&t);
    PD_CHECK_OK(pd_plan_forward(t.plan, &err));
    const pd_json *image = pd_json_first(pd_json_member(pd_json_root(doc), "images"));
    int norm = 0;
    for (int i = 0; i < images; i++, image = pd_json_next(image)) {
        numbers(v, 2, pd_json_member(image, "rpn_candidates"));
        PD_CHECK_INT(((int *)all.count->data)[2 * i], v[0]);
        PD_CHECK_INT(((int *)all.count->data)[2 * i + 1], v[1]);
        numbers(v, 2, pd_json_member(image, "rpn_sampled"));
        PD_CHECK_INT(((int *)some.count->data)[2 * i], v[0]);
        PD_CHECK_INT(((int *)some.count->data)[2 * i + 1], v[1]);
        norm += (int)fmax(v[0], 1) + (int)fmax(v[1], 1);
        const int pairs = numbers(v, 1024, pd_json_member(image, "rpn_positives")) / 2;
        const int *m = (const int *)chosen->data + i * pd_anchor_count(&grid);
        int seen = 0, wrong = 0;
        for (int a = 0; a < pd_anchor_count(&grid); a++) {
            if (m[a] < 0) continue;
            wrong += seen >= pairs || v[2 * seen] != a || v[2 * seen + 1] != m[a];
            seen++;
        }
        PD_CHECK_INT(seen, pairs);
        PD_CHECK_INT(wrong, 0);
    }
    for (int i = 0; i < images; i++) PD_CHECK_NEAR(((float *)some.weight->data)[i], 1.0 / norm, 1e-9);
    net_free(&t);
    pd_json_close(doc);
    PD_ROW("");
}

/* ---- the normaliser ---- */

static void test_normaliser(void)
{
    static const struct {
        const char *name;
        pd_norm norm;
        int group;
        int pos[5], neg[5];
        double weight[5];
    } rows[] = {
        {"two images with 0 and 37 positives: 38", PD_NORM_POSITIVES, 2, {0, 37}, {9, 9}, {1. / 38, 1. / 38}},
        {"the same, each its own group", PD_NORM_POSITIVES, 1, {0, 37}, {9, 9}, {1. / 2, 1. / 74}},
        {"five images, groups of two: the last has one",
         PD_NORM_POSITIVES,
         2,
         {1, 2, 0, 0, 7},
         {9, 9, 9, 9, 9},
         {1. / 9, 1. / 9, 1. / 6, 1. / 6, 1. / 21}},
        {"samples, some images without", PD_NORM_SAMPLES, 2, {0, 3}, {5, 0}, {1. / 10, 1. / 10}},
        {"rows of a box head", PD_NORM_ALL, 2, {0, 3, 0}, {5, 0, 0}, {1. / 16, 1. / 16, 1. / 2}},
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        enum { BOXES = 50 };
        int match[5][BOXES], gt_label[5][2], n = 5;
        while (n > 0 && rows[r].weight[n - 1] == 0) n--;
        for (int i = 0; i < 5; i++) {
            gt_label[i][0] = 3;
            gt_label[i][1] = 1;
            for (int b = 0; b < BOXES; b++)
                match[i][b] = b < rows[r].pos[i]                    ? b % 2
                              : b < rows[r].pos[i] + rows[r].neg[i] ? PD_MATCH_BACKGROUND
                                                                    : PD_MATCH_IGNORED;
        }
        PD_ROW(rows[r].name);
        net t = net_new();
        pd_value *m = net_data(&t, "match", PD_I32, PD_SHAPE(n, BOXES), match);
        pd_value *l = net_data(&t, "label", PD_I32, PD_SHAPE(n, 2), gt_label);
        const pd_targets got = pd_match_targets(t.tape, m, l, 4, rows[r].norm, rows[r].group);
        pd_tape_keep(t.tape, got.weight);
        pd_tape_keep(t.tape, got.label);
        net_make(&t);
        PD_CHECK_OK(pd_plan_forward(t.plan, &err));
        for (int i = 0; i < n; i++) {
            PD_CHECK_NEAR(((float *)got.weight->data)[i], rows[r].weight[i], 1e-8);
            for (int b = 0; b < BOXES; b++) {
                const int want = match[i][b] >= 0 ? gt_label[i][match[i][b]] : match[i][b] == -1 ? 4 : -1;
                if (((int *)got.label->data)[i * BOXES + b] != want) PD_CHECK(!"label");
            }
        }
        match[0][0] = 0;
        gt_label[0][0] = 4;
        PD_CHECK_FAILS(pd_plan_forward(t.plan, &err), PD_EINVAL, "ground truth 0 is of class 4, expected 0..3");
        match[0][0] = 2;
        PD_CHECK_FAILS(pd_plan_forward(t.plan, &err), PD_EINVAL, "match 2, but there is room for 2");
        net_free(&t);
    }
    PD_ROW("");
}

/* ---- the sampler ---- */

static void count_matches(const int *match, int n, int *pos, int *neg)
{
    *pos = *neg = 0;
    for (int i = 0; i < n; i++) {
        *pos += match[i] >= 0;
        *neg += match[i] == PD_MATCH_BACKGROUND;
    }
}

static void test_sampler(void)
{
    enum { N = 100, ROUNDS = 4000 };
    int start[N], match[N], work[N], hits[N] = {0}, pos, neg;
    for (int i = 0; i < N; i++) start[i] = i < 30 ? i : i < 90 ? PD_MATCH_BACKGROUND : PD_MATCH_IGNORED;
    pd_sample_cfg cfg = {.num = 40, .fraction = 0.25f, .seed = 7, .stream = 1};
    for (uint32_t round = 0; round < ROUNDS; round++) {
        memcpy(match, start, sizeof match);
        pd_sample_matches(match, N, &cfg, round, work);
        count_matches(match, N, &pos, &neg);
        if (pos != 10 || neg != 30) PD_CHECK(!"10 positives and 30 background boxes");
        for (int i = 0; i < N; i++) {
            hits[i] += match[i] != PD_MATCH_IGNORED;
            if (match[i] != start[i] && match[i] != PD_MATCH_IGNORED) PD_CHECK(!"a choice changes no match");
        }
    }
    for (int i = 0; i < 90; i++) { /* 10 of 30 and 30 of 60; six standard deviations */
        const double p = i < 30 ? 1. / 3 : 0.5;
        PD_CHECK_NEAR(hits[i], p * ROUNDS, 6 * sqrt(ROUNDS * p * (1 - p)));
    }
    /* the same draw: the same choice; another draw, seed or stream: another one */
    int again[4][N];
    for (int i = 0; i < 4; i++) {
        pd_sample_cfg c = cfg;
        if (i == 2) c.seed = 8;
        if (i == 3) c.stream = 2;
        memcpy(again[i], start, sizeof start);
        pd_sample_matches(again[i], N, &c, i == 1 ? 5 : 4, work);
    }
    memcpy(match, start, sizeof match);
    pd_sample_matches(match, N, &cfg, 4, work);
    PD_CHECK(!memcmp(match, again[0], sizeof match));
    for (int i = 1; i < 4; i++) PD_CHECK(memcmp(match, again[i], sizeof match));
    /* `first`, and fewer positives than wanted: background fills up */
    cfg.first = true;
    memcpy(match, start, sizeof match);
    pd_sample_matches(match, N, &cfg, 0, work);
    for (int i = 0; i < N; i++) PD_CHECK_INT(match[i], i < 10 || (i >= 30 && i < 60) ? start[i] : PD_MATCH_IGNORED);
    for (int i = 3; i < 30; i++) start[i] = PD_MATCH_IGNORED;
    memcpy(match, start, sizeof match);
    pd_sample_matches(match, N, &cfg, 0, work);
    count_matches(match, N, &pos, &neg);
    PD_CHECK_INT(pos, 3);
    PD_CHECK_INT(neg, 37);
}

int main(void)
{
    PD_CHECK_OK(pd_device_open(&device, "cpu", 2, &err));
    check_rpn("cascade_loss_resnet18");
    check_rpn("cascade_loss_ragged_resnet18");
    test_normaliser();
    test_sampler();
    pd_device_close(device);
    return pd_test_end();
}
