/* Anchors, box coder, IoU, assignment, top-k and suppression: against a PyTorch program's figures and worked examples.
 */
#include "engine/rng.h"
#include "kernels/anchors.h"
#include "kernels/assign.h"
#include "kernels/box_coder.h"
#include "kernels/nms.h"
#include "kernels/topk.h"
#include "tests/golden_ops.h"

#include <limits.h>

static const char *name_of(char text[96], const char *a, const char *b)
{
    snprintf(text, 96, "%s%s", a, b);
    return text;
}

/* ---- anchors ---- */

static const int strides_retina[] = {8, 16, 32, 64, 128}, strides_rpn[] = {4, 8, 16, 32, 64};

static void anchors_against_golden(golden *g, const char *kind, const pd_anchor_cfg *cfg, const int *stride, int border)
{
    char text[96];
    pd_err err = PD_ERR_INIT;
    int total = 0;
    PD_ROW(kind);
    const float *want = golden_f32(g, name_of(text, "anchors.", kind), &total);
    strcat(text, ".sizes");
    const int *sizes = golden_int(g, text, NULL);
    int h[5], w[5];
    for (int l = 0; l < 5; l++) {
        h[l] = sizes[2 * l];
        w[l] = sizes[2 * l + 1];
    }
    pd_anchor_grid grid;
    PD_CHECK_OK(pd_anchor_grid_init(&grid, cfg, 5, h, w, stride, &err));
    PD_CHECK_INT(pd_anchor_count(&grid), total);
    pd_box *got = NULL;
    unsigned char *flags = NULL;
    PD_CHECK_OK(PD_ALLOC(&got, g->arena, (size_t)total, &err));
    PD_CHECK_OK(PD_ALLOC(&flags, g->arena, (size_t)total, &err));
    const int *img = golden_int(g, "anchors.img_shape", NULL), *pad = golden_int(g, "anchors.pad_shape", NULL);
    const int size[4] = {img[0], img[1], pad[0], pad[1]};
    for (int step = 1; step < 5000; step = step * 7 + 1) { /* any cut into ranges gives the same */
        memset(got, 0, (size_t)total * sizeof *got);
        for (int at = 0; at < total; at += step)
            pd_anchor_fill(got + at, &grid, at, at + step < total ? at + step : total);
        PD_CHECK_SAME_FLOATS(got, want, 4 * total);
        for (int which = 0; which < 2; which++) {
            snprintf(text, sizeof text, "anchors.%s.%s", kind, which ? "used" : "valid");
            const int *expected = golden_int(g, text, NULL);
            for (int at = 0; at < total; at += step)
                pd_anchor_flags(flags + at, &grid, size, which ? border : -1, at,
                                at + step < total ? at + step : total);
            int wrong = 0;
            for (int i = 0; i < total; i++) wrong += flags[i] != expected[i];
            PD_CHECK_INT(wrong, 0);
        }
    }
    PD_ROW("");
}

static void test_anchors(golden *g)
{
    pd_anchor_cfg retina = pd_anchor_cfg_retina(), rpn = pd_anchor_cfg_rpn();
    anchors_against_golden(g, "retina", &retina, strides_retina, -1);
    anchors_against_golden(g, "rpn", &rpn, strides_rpn, 0);
    static const pd_box rounded[] = {{-19, -7, 26, 14},  {-25, -10, 32, 17}, {-32, -14, 39, 21},
                                     {-12, -12, 19, 19}, {-16, -16, 23, 23}, {-21, -21, 28, 28},
                                     {-7, -19, 14, 26},  {-10, -25, 17, 32}, {-14, -32, 21, 39}};
    static const pd_box rounded_rpn[] = {{-21, -9, 24, 12}, {-14, -14, 17, 17}, {-9, -21, 12, 24}};
    pd_box base[PD_MAX_CELL_ANCHORS];
    retina.rounded = rpn.rounded = true;
    pd_anchor_base(base, &retina, 8);
    PD_CHECK_SAME_FLOATS(base, rounded, 36);
    pd_anchor_base(base, &rpn, 4);
    PD_CHECK_SAME_FLOATS(base, rounded_rpn, 12);
}

static void test_anchor_errors(void)
{
    pd_err err = PD_ERR_INIT;
    pd_anchor_grid grid = {.levels = 77};
    pd_anchor_cfg cfg = pd_anchor_cfg_retina();
    const int one[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1}, none[1] = {0}, huge[1] = {50000};
    PD_CHECK_FAILS(pd_anchor_grid_init(&grid, &cfg, 9, one, one, one, &err), PD_EINVAL, "9 levels");
    PD_CHECK_FAILS(pd_anchor_grid_init(&grid, &cfg, 1, one, one, none, &err), PD_EINVAL, "stride 0");
    PD_CHECK_FAILS(pd_anchor_grid_init(&grid, &cfg, 1, huge, huge, one, &err), PD_EINVAL, "too many");
    cfg.ratios[1] = NAN;
    PD_CHECK_FAILS(pd_anchor_grid_init(&grid, &cfg, 1, one, one, one, &err), PD_EINVAL, "ratio nan");
    cfg.n_scales = 0;
    PD_CHECK_FAILS(pd_anchor_grid_init(&grid, &cfg, 1, one, one, one, &err), PD_EINVAL, "0 scales");
    PD_CHECK_INT(grid.levels, 77);
    cfg = pd_anchor_cfg_retina();
    const int h[4] = {0, 2, 0, 1}, w[4] = {5, 3, 0, 1}, stride[4] = {8, 16, 32, 64};
    PD_CHECK_OK(pd_anchor_grid_init(&grid, &cfg, 4, h, w, stride, &err)); /* levels without cells are skipped */
    pd_box all[63];
    pd_anchor_fill(all, &grid, 0, pd_anchor_count(&grid));
    PD_CHECK_INT(pd_anchor_count(&grid), 63);
    PD_CHECK_NEAR(all[54].x1, 8 * (double)all[0].x1 / 2, 1e-3);
}

/* Inside is >= on the left and above, < on the right and below. */
static void test_border(void)
{
    const pd_anchor_cfg cfg = pd_anchor_cfg_rpn();
    const int one = 1, stride = 4;
    pd_err err = PD_ERR_INIT;
    pd_anchor_grid grid;
    PD_CHECK_OK(pd_anchor_grid_init(&grid, &cfg, 1, &one, &one, &stride, &err));
    unsigned char flag[3]; /* the second anchor is (-16, -16, 16, 16) */
    static const struct {
        int h, w, border, inside;
    } rows[] = {{9, 9, 16, 1}, {9, 9, 15, 0}, {16, 17, 0, 0}, {0, 1, 16, 0}, {1, 0, 16, 0}, {1, 1, 16, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const int size[4] = {rows[i].h, rows[i].w, 32, 32};
        pd_anchor_flags(flag, &grid, size, rows[i].border, 0, 3);
        PD_CHECK_INT(flag[1], rows[i].inside);
    }
}

/* ---- box coder ---- */

static const struct {
    const char *name;
    pd_box_coder coder;
} coders[] = {
    {"unit", {{1, 1, 1, 1}, 0}},
    {"stage0", {{0.1f, 0.1f, 0.2f, 0.2f}, 0}},
    {"stage1", {{0.05f, 0.05f, 0.1f, 0.1f}, 0}},
    {"stage2", {{0.033f, 0.033f, 0.067f, 0.067f}, 0}},
};

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

static void test_coder(golden *g)
{
    int n = 0;
    const pd_box *p = golden_boxes(g, "delta.p", &n), *box = golden_boxes(g, "delta.g", NULL);
    const pd_delta *t = (const pd_delta *)(const void *)golden_f32(g, "delta.t", NULL);
    const int *hw = golden_int(g, "delta.clip_hw", NULL);
    pd_delta encoded[64];
    pd_box decoded[64], clipped[64];
    for (size_t c = 0; c < sizeof coders / sizeof *coders; c++) {
        const pd_box_coder *coder = &coders[c].coder;
        char text[96];
        PD_ROW(coders[c].name);
        for (int i = 0; i < n; i++) {
            encoded[i] = pd_box_encode(coder, p[i], box[i]);
            decoded[i] = pd_box_decode(coder, p[i], t[i]);
            clipped[i] = pd_box_clip(coder, decoded[i], hw[0], hw[1]);
        }
        snprintf(text, sizeof text, "delta.%s.encoded", coders[c].name);
        check_close(&encoded[0].dx, golden_f32(g, text, NULL), 4 * n, 1e-6, text);
        snprintf(text, sizeof text, "delta.%s.decoded", coders[c].name);
        check_close(&decoded[0].x1, golden_f32(g, text, NULL), 4 * n, 1e-6, text);
        snprintf(text, sizeof text, "delta.%s.clipped", coders[c].name);
        check_close(&clipped[0].x1, golden_f32(g, text, NULL), 4 * n, 1e-6, text);
        for (int i = 0; i < n; i++) { /* there and back */
            const pd_box back = pd_box_decode(coder, p[i], pd_box_encode(coder, p[i], box[i]));
            check_close(&back.x1, &box[i].x1, 4, 1e-5, "decode(encode)");
        }
    }
    PD_ROW("");
}

static void test_coder_examples(void)
{
    static const struct {
        const char *name;
        pd_box_coder coder;
        float want[4];
    } encode[] =
        {
            {"unit", {{1, 1, 1, 1}, 0}, {0.1875f, 0, 0.117783f, -0.223144f}},
            {"inclusive corners", {{1, 1, 1, 1}, 1}, {0.185185f, 0, 0.116410f, -0.220671f}},
            {"stage 0", {{0.1f, 0.1f, 0.2f, 0.2f}, 0}, {1.875f, 0, 0.588915f, -1.115718f}},
            {"stage 1", {{0.05f, 0.05f, 0.1f, 0.1f}, 0}, {3.75f, 0, 1.177830f, -2.231436f}},
            {"stage 2", {{0.033f, 0.033f, 0.067f, 0.067f}, 0}, {5.681818f, 0, 1.757956f, -3.330501f}},
        },
      decode[] = {
          {"unit", {{1, 1, 1, 1}, 0}, {98.05115f, 46.48400f, 229.94885f, 113.51600f}},
          {"inclusive corners", {{1, 1, 1, 1}, 1}, {98.02679f, 46.44884f, 230.57321f, 113.15116f}},
          {"stage 0", {{0.1f, 0.1f, 0.2f, 0.2f}, 0}, {98.19316f, 51.84418f, 186.60684f, 144.15582f}},
      };
    const pd_box p = {100, 50, 180, 150}, g = {110, 60, 200, 140};
    for (size_t i = 0; i < sizeof encode / sizeof *encode; i++) {
        PD_ROW(encode[i].name);
        const pd_delta d = pd_box_encode(&encode[i].coder, p, g);
        PD_CHECK_NEAR(d.dx, encode[i].want[0], 2e-6);
        PD_CHECK_NEAR(d.dy, encode[i].want[1], 2e-6);
        PD_CHECK_NEAR(d.dw, encode[i].want[2], 2e-6);
        PD_CHECK_NEAR(d.dh, encode[i].want[3], 2e-6);
    }
    const pd_delta t = {0.3f, -0.2f, 0.5f, -0.4f};
    for (size_t i = 0; i < sizeof decode / sizeof *decode; i++) {
        PD_ROW(decode[i].name);
        const pd_box b = pd_box_decode(&decode[i].coder, p, t);
        check_close(&b.x1, decode[i].want, 4, 1e-7, "decode");
    }
    PD_ROW("clamp");
    const pd_box_coder unit = pd_box_coder_unit();
    const pd_box roi = {10, 10, 20, 30}, wide = pd_box_decode(&unit, roi, (pd_delta){0, 0, 6, -6});
    check_close(&wide.x1, (const float[]){-297.5f, 19.84f, 327.5f, 20.16f}, 4, 1e-6, "wide");
    const pd_box in = pd_box_clip(&unit, wide, 200, 240);
    check_close(&in.x1, (const float[]){0, 19.84f, 240, 20.16f}, 4, 1e-6, "clipped");
    const pd_box_coder legacy = {{1, 1, 1, 1}, 1};
    const pd_box old = pd_box_clip(&legacy, (pd_box){-5, -5, 500, 500}, 200, 240);
    PD_CHECK(old.x1 == 0 && old.y1 == 0 && old.x2 == 239 && old.y2 == 199);
    PD_ROW("");
}

/* ---- assignment ---- */

static const char *const rule_names[] = {"retina", "rpn", "stage0", "stage1", "stage2"};

static pd_assign_cfg rule(int i)
{
    static const float thresh[] = {0, 0, 0.5f, 0.6f, 0.7f};
    return i == 0 ? pd_assign_cfg_retina() : i == 1 ? pd_assign_cfg_rpn() : pd_assign_cfg_roi(thresh[i]);
}

/* The golden files count: 0 background, -1 ignored, k ground truth k - 1. */
static int as_golden(int match)
{
    return match >= 0 ? match + 1 : match == PD_MATCH_BACKGROUND ? 0 : -1;
}

static void test_assign(golden *g)
{
    static const char *const cases[] = {"spec", "random", "no_gt", "ignore"};
    pd_err err = PD_ERR_INIT;
    pd_pool *pool = NULL;
    PD_CHECK_OK(pd_pool_new(&pool, 3, &err));
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        char text[96];
        int n = 0, gts = 0, regions = 0;
        PD_ROW(cases[c]);
        snprintf(text, sizeof text, "assign.%s.boxes", cases[c]);
        const pd_box *boxes = golden_boxes(g, text, &n);
        snprintf(text, sizeof text, "assign.%s.gt", cases[c]);
        const pd_box *gt = golden_boxes(g, text, &gts);
        if (gts) {
            snprintf(text, sizeof text, "assign.%s.iou", cases[c]);
            const float *iou = golden_f32(g, text, NULL);
            float *got = NULL;
            PD_CHECK_OK(PD_ALLOC(&got, g->arena, (size_t)(n * gts), &err));
            for (int i = 0; i < n * gts; i++) got[i] = pd_box_iou(gt[i / n], boxes[i % n]);
            PD_CHECK_SAME_FLOATS(got, iou, n * gts);
        }
        unsigned char *ignore = NULL, *usable = NULL;
        PD_CHECK_OK(PD_ALLOC(&ignore, g->arena, (size_t)n, &err));
        PD_CHECK_OK(PD_ALLOC(&usable, g->arena, (size_t)n + 3, &err));
        if (!strcmp(cases[c], "ignore")) {
            const pd_box *region = golden_boxes(g, "assign.ignore.ignore", &regions);
            pd_assign_ignore(ignore, boxes, n, region, regions, 0.5f);
        }
        void *work = NULL;
        int *match = NULL;
        PD_CHECK_OK(pd_alloc(&work, g->arena, pd_assign_work(2 * n, gts), 1, &err));
        PD_CHECK_OK(PD_ALLOC(&match, g->arena, (size_t)(2 * n), &err));
        for (int r = 0; r < 5; r++) {
            const pd_assign_cfg cfg = rule(r);
            snprintf(text, sizeof text, "assign.%s.%s", cases[c], rule_names[r]);
            const int *want = golden_int(g, text, NULL);
            pd_assign_boxes(match, boxes, n, NULL, ignore, gt, gts, &cfg, work, pool);
            for (int i = 0; i < n; i++) match[i] = as_golden(match[i]);
            PD_ROW(text);
            PD_CHECK_SAME_INTS(match, want, n);
        }
        /* Boxes that are not usable decide nothing: every second one is a copy of the best boxes, marked unusable. */
        pd_box *twice = NULL;
        PD_CHECK_OK(PD_ALLOC(&twice, g->arena, (size_t)(2 * n), &err));
        PD_CHECK_OK(PD_ALLOC(&usable, g->arena, (size_t)(2 * n), &err));
        for (int i = 0; i < 2 * n; i++) {
            twice[i] = i % 2 && gts ? gt[i / 2 % gts] : boxes[i / 2];
            usable[i] = !(i % 2);
        }
        const pd_assign_cfg cfg = pd_assign_cfg_retina();
        snprintf(text, sizeof text, "assign.%s.retina", cases[c]);
        const int *want = golden_int(g, text, NULL);
        if (regions == 0) {
            pd_assign_boxes(match, twice, 2 * n, usable, NULL, gt, gts, &cfg, work, NULL);
            int wrong = 0;
            for (int i = 0; i < n; i++)
                wrong += as_golden(match[2 * i]) != want[i] || match[2 * i + 1] != PD_MATCH_IGNORED;
            PD_CHECK_INT(wrong, 0);
        }
    }
    PD_ROW("");
    pd_pool_free(pool);
}

static void test_assign_edges(void)
{
    /* A ground truth without area claims nothing, although its best IoU (0) is every box's. */
    const pd_box boxes[3] = {{0, 0, 10, 10}, {20, 20, 30, 30}, {5, 5, 5, 5}}, gt[2] = {{4, 4, 4, 9}, {0, 0, 10, 9}};
    const pd_assign_cfg cfg = pd_assign_cfg_retina();
    float work[8];
    int match[3];
    PD_CHECK(pd_assign_work(3, 2) <= sizeof work);
    pd_assign_boxes(match, boxes, 3, NULL, NULL, gt, 2, &cfg, work, NULL);
    PD_CHECK_SAME_INTS(match, ((const int[]){1, -1, -1}), 3);
    pd_assign_boxes(match, boxes, 0, NULL, NULL, gt, 2, &cfg, work, NULL);
    /* Of two equal ground truths the first is taken; with low-quality matching the second takes the box from it. */
    const pd_box twins[2] = {{0, 0, 10, 10}, {0, 0, 10, 10}};
    const pd_assign_cfg roi = pd_assign_cfg_roi(0.5f);
    pd_assign_boxes(match, boxes, 3, NULL, NULL, twins, 2, &roi, work, NULL);
    PD_CHECK_SAME_INTS(match, ((const int[]){0, -1, -1}), 3);
    pd_assign_boxes(match, boxes, 3, NULL, NULL, twins, 2, &cfg, work, NULL);
    PD_CHECK_SAME_INTS(match, ((const int[]){1, -1, -1}), 3);
    const unsigned char usable[3] = {1, 0, 1};
    pd_assign_boxes(match, boxes, 3, usable, NULL, gt, 0, &cfg, work, NULL);
    PD_CHECK_SAME_INTS(match, ((const int[]){-1, -2, -1}), 3);
}

/* ---- top-k ---- */

static int plain_topk(int *index, const float *scores, int n, int k)
{
    char taken[3000] = {0};
    if (k > n) k = n;
    for (int i = 0; i < k; i++) {
        int best = -1;
        for (int j = 0; j < n; j++)
            if (!taken[j] &&
                (best < 0 || scores[j] > scores[best] || (scores[best] != scores[best] && scores[j] == scores[j])))
                best = j;
        index[i] = best;
        taken[best] = 1;
    }
    return k;
}

static void test_topk(void)
{
    float scores[3000];
    int got[3000], want[3000];
    unsigned long long work[6000];
    static const int sizes[] = {0, 1, 2, 3, 63, 64, 65, 500, 3000};
    for (uint32_t kind = 0; kind < 6; kind++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            const int n = sizes[s];
            pd_rng rng = pd_rng_make(5, kind, (uint32_t)n);
            for (int i = 0; i < n; i++) {
                const float u = pd_rng_float(&rng);
                const float rare = i % 2 ? INFINITY : i % 4 ? 0.f : -0.f;
                const float values[] = {
                    u - 0.5f,          floorf(u * 20) / 20,        1.f, ldexpf(u, (int)(u * 200) - 100),
                    i % 3 ? -u : rare, i % 5 ? 1 - u * 1e-6f : NAN};
                scores[i] = values[kind];
            }
            const int ks[] = {0, 1, n / 3, n - 1, n, n + 9};
            for (int i = 0; i < 6; i++) {
                char text[64];
                snprintf(text, sizeof text, "kind %u, %d of %d", kind, ks[i], n);
                PD_ROW(text);
                const int count = plain_topk(want, scores, n, ks[i]);
                PD_CHECK(pd_topk_work(ks[i] < n ? ks[i] : n) <= sizeof work);
                PD_CHECK_INT(pd_topk(got, scores, n, ks[i], work), count > 0 ? count : 0);
                PD_CHECK_SAME_INTS(got, want, count > 0 ? count : 0);
                PD_ROW("");
            }
        }
}

/* ---- suppression ---- */

static void check_nms(golden *g, const char *name, const pd_nms_cfg *cfg, const int *labels, const char *keep_name)
{
    char text[96];
    int n = 0, kept = 0;
    PD_ROW(keep_name);
    snprintf(text, sizeof text, "%s.boxes", name);
    const pd_box *boxes = golden_boxes(g, text, &n);
    snprintf(text, sizeof text, "%s.scores", name);
    const float *scores = golden_f32(g, text, NULL);
    const int *want = golden_int(g, keep_name, &kept);
    void *work = NULL;
    int *keep = NULL;
    pd_err err = PD_ERR_INIT;
    PD_CHECK_OK(pd_alloc(&work, g->arena, pd_nms_work(n, cfg), 1, &err));
    PD_CHECK_OK(PD_ALLOC(&keep, g->arena, (size_t)n, &err));
    const int most = cfg->max_keep < kept ? cfg->max_keep : kept;
    PD_CHECK_INT(pd_nms(keep, boxes, scores, labels, n, cfg, work), most);
    PD_CHECK_SAME_INTS(keep, want, most);
    PD_ROW("");
}

static void test_nms(golden *g)
{
    pd_nms_cfg half = {.iou = 0.5f, .max_keep = INT_MAX}, rpn = {.iou = 0.7f, .max_keep = INT_MAX};
    check_nms(g, "nms.spec", &half, NULL, "nms.spec.keep");
    check_nms(g, "nms.ties", &half, NULL, "nms.ties.keep");
    check_nms(g, "nms.rpn", &rpn, NULL, "nms.rpn.keep");
    half.max_keep = 17;
    check_nms(g, "nms.ties", &half, NULL, "nms.ties.keep");
    const int *labels = golden_int(g, "nms_offset.labels", NULL);
    half.max_keep = INT_MAX;
    check_nms(g, "nms_offset", &half, labels, "nms_offset.keep");
    half.exact = true; /* the scores fall with the index, so sorted by index is sorted by score */
    check_nms(g, "nms_offset", &half, labels, "nms_offset.keep_exact");
    for (int limit = 10; limit <= 100; limit += 90) {
        const char *name = limit == 10 ? "multiclass_top10" : "multiclass";
        char text[96];
        int n = 0, kept = 0, row[100], label[100];
        const pd_nms_cfg cfg = {.iou = 0.5f, .max_keep = limit};
        const pd_box *boxes = golden_boxes(g, name_of(text, name, ".boxes"), &n);
        const float *scores = golden_f32(g, name_of(text, name, ".scores"), NULL);
        const int *want_row = golden_int(g, name_of(text, name, ".row"), &kept);
        const int *want_label = golden_int(g, name_of(text, name, ".label"), NULL);
        void *work = NULL;
        pd_err err = PD_ERR_INIT;
        PD_CHECK_OK(pd_alloc(&work, g->arena, pd_multiclass_nms_work(n, 4, &cfg), 1, &err));
        PD_ROW(name);
        PD_CHECK_INT(pd_multiclass_nms(row, label, boxes, scores, n, 4, 4, 0.05f, &cfg, work), kept);
        PD_CHECK_SAME_INTS(row, want_row, kept);
        PD_CHECK_SAME_INTS(label, want_label, kept);
        PD_ROW("");
    }
    double none[4];
    PD_CHECK_INT(pd_nms(NULL, NULL, NULL, NULL, 0, &half, none), 0);
}

/* Two boxes without area at one place do not suppress each other; two equal boxes of two classes neither. */
static void test_nms_edges(void)
{
    const pd_box boxes[4] = {{3, 3, 3, 3}, {3, 3, 3, 3}, {0, 0, 9, 9}, {0, 0, 9, 9}};
    const float scores[4] = {.9f, .8f, .7f, .6f};
    const int labels[4] = {0, 0, 0, 1};
    double work[64];
    for (int exact = 0; exact < 2; exact++) {
        int keep[4];
        const pd_nms_cfg cfg = {.iou = 0.5f, .exact = exact, .max_keep = 100};
        PD_CHECK(pd_nms_work(4, &cfg) <= sizeof work);
        PD_CHECK_INT(pd_nms(keep, boxes, scores, labels, 4, &cfg, work), 4);
        PD_CHECK_INT(pd_nms(keep, boxes, scores, NULL, 4, &cfg, work), 3);
        /* The offset is the largest coordinate plus one: the second box, left of the image, comes to lie beside the
         * first, not on it. */
        const pd_box sides[2] = {{9, 0, 10, 1}, {-1, -10, 0, -9}};
        PD_CHECK_INT(pd_nms(keep, sides, scores, labels + 2, 2, &cfg, work), 2);
    }
}

int main(void)
{
    golden g = golden_open();
    test_anchors(&g);
    test_anchor_errors();
    test_border();
    test_coder(&g);
    test_coder_examples();
    test_assign(&g);
    test_assign_edges();
    test_topk();
    test_nms(&g);
    test_nms_edges();
    golden_close(&g);
    return pd_test_end();
}
