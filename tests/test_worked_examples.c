/* The worked examples of the detection specification, section 14, by their numbers.
 *
 *   14.1 resize and pad        test_transform: test_keep_ratio, test_opencv
 *   14.2 anchors               here
 *   14.3 box coder             test_boxes: test_coder_examples
 *   14.4 IoU and assignment    here (and bit for bit, as case "spec" of ops.safetensors, in test_boxes)
 *   14.5 focal loss            test_losses: test_sigmoid_examples; its normaliser: test_targets: test_normaliser
 *   14.6 other losses          test_losses: test_smooth_l1_examples, test_sigmoid_examples
 *   14.7 level of a box        here
 *   14.8 suppression           here
 *   14.9 RoIAlign              here
 *   14.10 learning rate        test_schedule: test_mmdetection
 * Columns of the older profile are not offered and not tested. */
#include "engine/plan.h"
#include "kernels/anchors.h"
#include "kernels/assign.h"
#include "kernels/nms.h"
#include "kernels/roi_align.h"
#include "tests/pd_test.h"

static pd_err err;

static void check_box(pd_box got, float x1, float y1, float x2, float y2, double tolerance)
{
    PD_CHECK_NEAR(got.x1, x1, tolerance);
    PD_CHECK_NEAR(got.y1, y1, tolerance);
    PD_CHECK_NEAR(got.x2, x2, tolerance);
    PD_CHECK_NEAR(got.y2, y2, tolerance);
}

static void test_anchors(void)
{
    static const float sizes[9][2] = {
        {45.2548f, 22.6274f}, {57.0175f, 28.5088f}, {71.8376f, 35.9188f}, {32, 32},
        {40.3175f, 40.3175f}, {50.7968f, 50.7968f}, {22.6274f, 45.2548f}, {28.5088f, 57.0175f},
        {35.9188f, 71.8376f}};
    static const struct {
        int at;
        float box[4];
    } rows[] = {{0, {-22.6274f, -11.3137f, 22.6274f, 11.3137f}},
                {1, {-16, -16, 16, 16}},
                {2, {-11.3137f, -22.6274f, 11.3137f, 22.6274f}},
                {3, {-18.6274f, -11.3137f, 26.6274f, 11.3137f}},
                {8, {-3.3137f, -22.6274f, 19.3137f, 22.6274f}},
                {9, {-22.6274f, -7.3137f, 22.6274f, 15.3137f}},
                {13, {-12, -12, 20, 20}},
                {17, {-3.3137f, -18.6274f, 19.3137f, 26.6274f}}};
    const pd_anchor_cfg retina = pd_anchor_cfg_retina(), rpn = pd_anchor_cfg_rpn();
    pd_box base[9], all[18];
    PD_ROW("14.2 anchors");
    pd_anchor_base(base, &retina, 8);
    for (int a = 0; a < 9; a++)
        check_box(base[a], -sizes[a][0] / 2, -sizes[a][1] / 2, sizes[a][0] / 2, sizes[a][1] / 2, 6e-5);
    pd_anchor_grid grid;
    PD_CHECK_OK(pd_anchor_grid_init(&grid, &rpn, 1, (int[]){2}, (int[]){3}, (int[]){4}, &err));
    PD_CHECK_INT(pd_anchor_count(&grid), 18);
    pd_anchor_fill(all, &grid, 0, 18);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        check_box(all[rows[i].at], rows[i].box[0], rows[i].box[1], rows[i].box[2], rows[i].box[3], 6e-5);
}

static pd_assign_cfg low_quality(float thresh)
{
    pd_assign_cfg cfg = pd_assign_cfg_roi(thresh);
    cfg.low_quality = true;
    return cfg;
}

static void test_assignment(void)
{
    static const pd_box gt[4] = {{0, 0, 10, 10}, {22, 18, 42, 40}, {20, 20, 40, 40}, {60, 0, 70, 30}};
    static const pd_box boxes[10] = {{0, 0, 10, 9},    {0, 0, 10, 20},   {0, 4, 10, 14},  {21, 19, 41, 41},
                                     {18, 18, 36, 38}, {60, 20, 80, 40}, {55, 0, 65, 20}, {100, 100, 120, 120},
                                     {60, -10, 80, 5}, {26, 24, 42, 40}};
    static const double iou[4][10] = {{.9, .5, .4286, 0, 0, 0, 0, 0, 0, 0},
                                      {0, 0, 0, .8295, .5385, 0, 0, 0, 0, .5818},
                                      {0, 0, 0, .8261, .6102, 0, 0, 0, 0, .5185},
                                      {0, 0, 0, 0, 0, .1667, .25, 0, .0909, 0}};
    const struct {
        pd_assign_cfg cfg;
        int want[10]; /* 0 background, -1 ignored, k: G_k */
    } rows[] = {{pd_assign_cfg_retina(), {1, 1, -1, 3, 3, 0, 4, 0, 0, 2}},
                {pd_assign_cfg_rpn(), {1, -1, -1, 3, -1, 0, 0, 0, 0, -1}},
                {pd_assign_cfg_roi(0.5f), {1, 1, 0, 2, 3, 0, 0, 0, 0, 2}},
                {pd_assign_cfg_roi(0.6f), {1, 0, 0, 2, 3, 0, 0, 0, 0, 0}},
                {pd_assign_cfg_roi(0.7f), {1, 0, 0, 2, 0, 0, 0, 0, 0, 0}},
                /* as mmdetection 1.x assigns in its stages: G3 takes its best box */
                {low_quality(0.5f), {1, 1, 0, 3, 3, 0, 0, 0, 0, 2}},
                {low_quality(0.6f), {1, 0, 0, 3, 3, 0, 0, 0, 0, 0}},
                {low_quality(0.7f), {1, 0, 0, 3, 0, 0, 0, 0, 0, 0}}};
    PD_ROW("14.4 IoU and assignment");
    for (int g = 0; g < 4; g++)
        for (int b = 0; b < 10; b++) PD_CHECK_NEAR(pd_box_iou(gt[g], boxes[b]), iou[g][b], 5.1e-5);
    PD_CHECK(pd_box_iou(gt[0], boxes[1]) == 0.5f);
    void *work = malloc(pd_assign_work(10, 4));
    for (size_t r = 0; r < sizeof rows / sizeof *rows && work; r++) {
        int match[10];
        pd_assign_boxes(match, boxes, 10, NULL, NULL, gt, 4, &rows[r].cfg, work, NULL);
        for (int b = 0; b < 10; b++) {
            const int got = match[b] >= 0 ? match[b] + 1 : match[b] == PD_MATCH_BACKGROUND ? 0 : -1;
            PD_CHECK_MSG(got == rows[r].want[b], "setting %zu, b%d: %d, expected %d", r, b, got, rows[r].want[b]);
        }
    }
    free(work);
}

static void test_levels(void)
{
    static const struct {
        float w, h;
        int level;
    } rows[] = {{56, 56, 2},    {111, 111, 2}, {111.9f, 112, 2}, {111.9999f, 111.9999f, 2},
                {112, 112, 3},  {224, 224, 4}, {448, 448, 5},    {800, 300, 5},
                {1333, 800, 5}, {0, 4, 2}};
    PD_ROW("14.7 level of a box");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        PD_CHECK_MSG(pd_roi_level((pd_box){0, 0, rows[i].w, rows[i].h}, 4) + 2 == rows[i].level, "%g x %g",
                     (double)rows[i].w, (double)rows[i].h);
}

static void test_suppression(void)
{
    static const pd_box boxes[6] = {{0, 0, 10, 10},   {0, 0, 10, 20},   {0, 0, 10, 10},
                                    {30, 30, 50, 50}, {30, 32, 50, 52}, {0, 5, 10, 15}};
    static const float scores[6] = {.9f, .9f, .9f, .6f, .6f, .5f};
    static const int kept[4] = {0, 1, 3, 5};
    const pd_nms_cfg cfg = {.iou = 0.5f, .max_keep = 6};
    int keep[6];
    void *work = malloc(pd_nms_work(6, &cfg));
    PD_ROW("14.8 suppression");
    PD_CHECK_NEAR(pd_box_iou(boxes[3], boxes[4]), 0.8182, 5e-5);
    PD_CHECK_NEAR(pd_box_iou(boxes[0], boxes[5]), 0.3333, 5e-5);
    PD_CHECK(pd_box_iou(boxes[1], boxes[5]) == 0.5f);
    PD_CHECK_INT(pd_nms(keep, boxes, scores, NULL, 6, &cfg, work), 4);
    for (int i = 0; i < 4; i++) PD_CHECK_INT(keep[i], kept[i]);
    free(work);
    /* With M = 1333 and label 79 an offset coordinate of 12.3456 stands for 12.34375. */
    volatile float moved = 12.3456f + 79.f * 1334.f;
    PD_CHECK((float)(moved - 79.f * 1334.f) == 12.34375f);
}

/* F[y][x] = 10 y + x on 4 rows and 5 columns, stride 8, output 2 x 2. */
static void test_roi_align(void)
{
    static const struct {
        pd_box roi;
        int ratio;
        double want[4];
    } rows[] = {{{8, 8, 36, 24}, 0, {11.375, 13.125, 21.375, 23.125}},
                {{8, 8, 36, 24}, 2, {11.375, 13.125, 21.375, 23.125}},
                {{-16, 0, 8, 8}, 0, {0, 0.0625, 0, 2.5625}},
                {{0, 0, 48, 48}, 0, {11, 13.6666667, 20.6666667, 22.4444444}}};
    pd_device *device = NULL;
    PD_CHECK_OK(pd_device_open(&device, "cpu", 1, &err));
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        pd_params *params = NULL;
        pd_tape *t = NULL;
        pd_plan *plan = NULL;
        float map[20];
        pd_box roi = rows[r].roi;
        for (int i = 0; i < 20; i++) map[i] = (float)(i / 5 * 10 + i % 5);
        PD_ROW("14.9 RoIAlign");
        PD_CHECK_OK(pd_params_new(&params, &err));
        PD_CHECK_OK(pd_tape_new(&t, params, false, &err));
        pd_value *level = pd_tape_input(t, "map", PD_F32, PD_SHAPE(1, 4, 5, 1));
        pd_value *rois = pd_tape_input(t, "rois", PD_F32, PD_SHAPE(1, 1, 4));
        pd_value *y = pd_tape_keep(t, pd_roi_align(t, &level, (int[]){8}, 1, rois, NULL, 2, rows[r].ratio));
        PD_CHECK_OK(pd_plan_new(&plan, t, device, PD_PLAN_INFER, NULL, &err));
        if (plan) {
            pd_plan_bind(level, map);
            pd_plan_bind(rois, &roi);
            PD_CHECK_OK(pd_plan_forward(plan, &err));
            for (int i = 0; i < 4; i++) PD_CHECK_NEAR(((float *)y->data)[i], rows[r].want[i], 4e-6);
        }
        pd_plan_free(plan);
        pd_tape_free(t);
        pd_params_free(params);
    }
    pd_device_close(device);
}

int main(void)
{
    test_anchors();
    test_assignment();
    test_levels();
    test_suppression();
    test_roi_align();
    return pd_test_end();
}
