/* Resizing against OpenCV, Pillow and torchvision (golden/transform/README.md), geometry, normalisation, also as an
 * operation of a network. */
#include "datasets/transform.h"
#include "engine/plan.h"
#include "kernels/normalize.h"
#include "tests/md5.h"
#include "tests/pd_test.h"

static void make_picture(pd_image *image, int h, int w)
{
    pd_err err = PD_ERR_INIT;
    PD_CHECK_OK(pd_image_size(image, h, w, &err));
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            for (int c = 0; c < 3; c++)
                image->rgb[(y * w + x) * 3 + c] =
                    (unsigned char)((x * 37 + y * 91 + c * 53 + x * y % 29 * 7 + (x / 7) * (y / 5) * 11) % 256);
}

/* The worked examples of the detection specification, and whole pictures by OpenCV. */
static void test_opencv(void)
{
    static const struct {
        int n, m;
        unsigned char in[5], out[7];
    } rows[] = {{4, 7, {10, 20, 40, 80}, {10, 14, 19, 30, 43, 66, 80}},
                {2, 5, {0, 255}, {0, 26, 128, 229, 255}},
                {5, 3, {10, 20, 40, 80, 160}, {13, 40, 133}}};
    pd_err err = PD_ERR_INIT;
    pd_image image = PD_IMAGE_INIT, out = PD_IMAGE_INIT;
    pd_transform_work work = {NULL, 0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        PD_CHECK_OK(pd_image_size(&image, 1, rows[i].n, &err));
        for (int k = 0; k < 3 * rows[i].n; k++) image.rgb[k] = rows[i].in[k / 3];
        PD_CHECK_OK(pd_resize_opencv(&out, 1, rows[i].m, &image, &work, &err));
        for (int k = 0; k < 3 * rows[i].m; k++) PD_CHECK_INT(out.rgb[k], rows[i].out[k / 3]);
    }
    FILE *list = fopen(PD_GOLDEN "/transform/opencv.txt", "r");
    char line[256], md5[40], hex[33];
    int h, w, oh, ow, cases = 0;
    while (list && fgets(line, sizeof line, list)) {
        if (sscanf(line, "%d %d %d %d %39s", &h, &w, &oh, &ow, md5) != 5) continue;
        PD_ROW(line);
        make_picture(&image, h, w);
        PD_CHECK_OK(pd_resize_opencv(&out, oh, ow, &image, &work, &err));
        md5_hex(hex, out.rgb, (size_t)oh * (size_t)ow * 3);
        PD_CHECK_STR(hex, md5);
        cases++;
    }
    PD_ROW("");
    PD_CHECK(cases > 15);
    if (list) fclose(list);
    pd_image_free(&image);
    pd_image_free(&out);
    pd_transform_work_free(&work);
}

static void compare(FILE *golden, const float *got, int n)
{
    double worst = 0;
    for (int i = 0; i < n; i++) {
        double want = NAN;
        if (fscanf(golden, "%lf", &want) != 1) want = NAN;
        const double gap = fabs(want - (double)got[i]);
        if (!(gap <= worst)) worst = gap;
    }
    PD_CHECK_NEAR(worst, 0, 2e-3); /* three decimals in the file */
}

/* A part with a margin holds the same: the loader resizes from parts. */
static void cut(pd_image *part, const pd_image *image, pd_rect r)
{
    pd_err err = PD_ERR_INIT;
    PD_CHECK_OK(pd_image_size(part, r.h, r.w, &err));
    for (int y = 0; y < r.h; y++)
        memcpy(part->rgb + y * r.w * 3, image->rgb + ((r.y + y) * image->w + r.x) * 3, (size_t)r.w * 3);
}

static void test_triangle(void)
{
    pd_err err = PD_ERR_INIT;
    pd_image image = PD_IMAGE_INIT, part = PD_IMAGE_INIT;
    pd_transform_work work = {NULL, 0};
    pd_transform plain = pd_transform_none();
    plain.divide = 1;
    for (int c = 0; c < 3; c++) plain.mean[c] = 0, plain.std[c] = 1;
    pd_normalizer norm;
    pd_normalizer_init(&norm, &plain);
    FILE *golden = fopen(PD_GOLDEN "/transform/triangle.txt", "r");
    PD_CHECK(golden);
    char line[256];
    float out[400 * 3];
    int cases = 0;
    while (golden && fgets(line, sizeof line, golden)) {
        int h, w, x, y, bw, bh, oh, ow, flip, resize;
        pd_area box;
        pd_rect bounds;
        if (sscanf(line, "crop %d %d %d %d %d %d %d %d %d", &h, &w, &x, &y, &bw, &bh, &oh, &ow, &flip) == 9) {
            box = (pd_area){x, y, bw, bh};
            bounds = (pd_rect){x, y, bw, bh};
        } else if (sscanf(line, "val %d %d %d %d", &h, &w, &resize, &oh) == 4) {
            box = pd_center_crop(h, w, resize, oh);
            bounds = (pd_rect){0, 0, w, h};
            ow = oh;
            flip = 0;
        } else {
            continue;
        }
        PD_ROW(line);
        make_picture(&image, h, w);
        memset(out, 0xff, sizeof out);
        PD_CHECK_OK(pd_resize_triangle(out, oh, ow, &image, 0, 0, box, bounds, flip, &norm, &work, &err));
        compare(golden, out, oh * ow * 3);
        PD_CHECK(isnan(out[oh * ow * 3]));
        const pd_rect reach = pd_filter_reach(box, bounds, oh, ow);
        float again[400 * 3];
        cut(&part, &image, reach);
        PD_CHECK_OK(pd_resize_triangle(again, oh, ow, &part, reach.x, reach.y, box, bounds, flip, &norm, &work, &err));
        PD_CHECK(!memcmp(out, again, sizeof *out * (size_t)(oh * ow * 3)));
        cases++;
    }
    PD_ROW("");
    PD_CHECK(cases >= 14);
    make_picture(&image, 8, 8);
    PD_CHECK_FAILS(pd_resize_triangle(out, 4, 4, &image, 1, 0, (pd_area){0, 0, 8, 8}, (pd_rect){0, 0, 8, 8}, 0, &norm,
                                      &work, &err),
                   PD_EINVAL, "8x8 pixels at (0, 0)");
    if (golden) fclose(golden);
    pd_image_free(&image);
    pd_image_free(&part);
    pd_transform_work_free(&work);
}

/* Table 14.1 of the detection specification. */
static void test_keep_ratio(void)
{
    static const struct {
        int w, h, nw, nh, pw, ph;
        double sx, sy;
    } rows[] = {
        {640, 480, 1067, 800, 1088, 800, 1.6671875, 1.6666667},  {640, 427, 1199, 800, 1216, 800, 1.8734375, 1.8735363},
        {427, 640, 800, 1199, 800, 1216, 1.8735363, 1.8734375},  {640, 426, 1202, 800, 1216, 800, 1.8781250, 1.8779343},
        {1000, 400, 1333, 533, 1344, 544, 1.3330, 1.3325},       {333, 500, 800, 1201, 800, 1216, 2.4024024, 2.4020000},
        {2048, 1365, 1200, 800, 1216, 800, 0.5859375, 0.5860806}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int nh, nw;
        pd_keep_ratio(&nh, &nw, rows[i].h, rows[i].w, 1333, 800);
        PD_CHECK_INT(nw, rows[i].nw);
        PD_CHECK_INT(nh, rows[i].nh);
        PD_CHECK_INT(pd_round_up(nw, 32), rows[i].pw);
        PD_CHECK_INT(pd_round_up(nh, 32), rows[i].ph);
        PD_CHECK_NEAR((float)nw / (float)rows[i].w, rows[i].sx, 1.5e-7);
        PD_CHECK_NEAR((float)nh / (float)rows[i].h, rows[i].sy, 1.5e-7);
    }
    int nh, nw;
    pd_keep_ratio(&nh, &nw, 1, 5000, 1333, 800); /* 0.27 of a row */
    PD_CHECK(nh == 1 && nw == 1333);
}

/* Multi-scale training: each value of the list about equally often; with a range everything between the ends. */
static void test_short_sides(void)
{
    pd_transform t = pd_transform_detect(true);
    pd_rng rng = pd_rng_make(3, 0, 0), before = rng;
    pd_err err = PD_ERR_INIT;
    int seen[16] = {0};
    PD_CHECK_INT(pd_draw_short_side(&t, &rng), 800);
    PD_CHECK(!memcmp(&rng, &before, sizeof rng)); /* nothing was drawn */
    t.short_sides[0] = 72, t.short_sides[1] = 64, t.short_sides[2] = 70;
    t.n_short_sides = 3;
    for (int i = 0; i < 3000; i++) seen[pd_draw_short_side(&t, &rng) - 64]++;
    for (int i = 0; i < 16; i++) PD_CHECK(i == 0 || i == 6 || i == 8 ? seen[i] > 900 && seen[i] < 1100 : seen[i] == 0);
    memset(seen, 0, sizeof seen);
    t.short_range = true;
    for (int i = 0; i < 9000; i++) seen[pd_draw_short_side(&t, &rng) - 64]++;
    for (int i = 0; i < 16; i++) PD_CHECK(i <= 8 ? seen[i] > 900 && seen[i] < 1100 : seen[i] == 0);
    PD_CHECK_OK(pd_transform_check(&t, &err));
    t.short_sides[1] = 0;
    PD_CHECK_FAILS(pd_transform_check(&t, &err), PD_EINVAL, "short side 0");
    t.n_short_sides = PD_MAX_SHORT_SIDES + 1;
    PD_CHECK_FAILS(pd_transform_check(&t, &err), PD_EINVAL, "at most 32");
}

static void test_boxes(void)
{
    const pd_box b = {10, 20, 300, 40};
    pd_box r = pd_box_resize(b, 2, 0.5f, 19, 500, false);
    PD_CHECK(r.x1 == 20 && r.y1 == 10 && r.x2 == 500 && r.y2 == 19);
    r = pd_box_resize(b, 2, 0.5f, 19, 500, true);
    PD_CHECK(r.x1 == 0 && r.y1 == 10 && r.x2 == 480 && r.y2 == 19);
    r = pd_box_resize((pd_box){-5, -5, 3, 3}, 1, 1, 10, 10, true);
    PD_CHECK(r.x1 == 7 && r.y1 == 0 && r.x2 == 10 && r.y2 == 3);
}

static void test_random_crop(void)
{
    static const double area[2] = {0.1, 1}, aspect[2] = {0.8, 1.25}, odd[2] = {0.1, 0.2};
    enum { N = 20000, W = 500, H = 375 };
    pd_rng rng = pd_rng_make(1, 2, 3);
    double sum_area = 0, sum_log = 0, low_area = 1, high_area = 0;
    int at_left = 0, at_right = 0;
    for (int i = 0; i < N; i++) {
        const pd_rect r = pd_random_crop(H, W, area, aspect, 100, &rng);
        PD_CHECK_MSG(r.x >= 0 && r.y >= 0 && r.w >= 1 && r.h >= 1 && r.x + r.w <= W && r.y + r.h <= H, "inside");
        const double share = (double)r.w * r.h / (W * H), ratio = (double)r.w / r.h;
        PD_CHECK_MSG(ratio > 0.79 && ratio < 1.26 && share > 0.099 && share <= 1, "share %g, ratio %g", share, ratio);
        low_area = fmin(low_area, share);
        high_area = fmax(high_area, share);
        sum_area += share;
        sum_log += log(ratio);
        at_left += r.x == 0;
        at_right += r.x + r.w == W;
    }
    PD_CHECK(low_area < 0.11 && high_area > 0.85);
    /* torchvision's get_params on the same settings, 20,000 draws: mean share 0.4368, mean log ratio 0.0191. */
    PD_CHECK_NEAR(sum_area / N, 0.4368, 0.006);
    PD_CHECK_NEAR(sum_log / N, 0.0191, 0.004);
    PD_CHECK(at_left > 50 && at_right > 50); /* both ends are reached */
    /* Nothing fits: the central fallback of allowed aspect. */
    pd_rect r = pd_random_crop(10, 1000, area, aspect, 100, &rng);
    if (r.h == 10) PD_CHECK(r.w == 12 && r.x == 494 && r.y == 0);
    r = pd_random_crop(1000, 10, area, aspect, 0, &rng);
    PD_CHECK(r.w == 10 && r.h == 12 && r.y == 494 && r.x == 0);
    r = pd_random_crop(100, 110, odd, aspect, 0, &rng);
    PD_CHECK(r.w == 110 && r.h == 100);
    const pd_rect one = pd_random_crop(1, 1, area, aspect, 100, &rng);
    PD_CHECK(one.w == 1 && one.h == 1 && one.x == 0 && one.y == 0);
}

static void test_normalize(void)
{
    pd_image image = PD_IMAGE_INIT;
    make_picture(&image, 2, 3);
    pd_transform t = pd_transform_detect(true);
    pd_normalizer norm;
    pd_normalizer_init(&norm, &t);
    PD_CHECK_NEAR(norm.byte[0][0], -2.11790395, 1e-6);
    PD_CHECK_NEAR(norm.byte[2][255], (255 - 103.53) / 57.375, 1e-6);
    float out[4 * 5 * 3];
    for (int flip = 0; flip < 2; flip++) {
        memset(out, 0xff, sizeof out);
        pd_normalize_pad(out, 4, 5, &image, flip, &norm);
        for (int y = 0; y < 4; y++)
            for (int x = 0; x < 5; x++)
                for (int c = 0; c < 3; c++) {
                    const int from = (y * 3 + (flip ? 2 - x : x)) * 3 + c;
                    const double want = y < 2 && x < 3 ? (image.rgb[from] - t.mean[c]) / t.std[c] : 0;
                    PD_CHECK_NEAR(out[(y * 5 + x) * 3 + c], want, 1e-6);
                }
    }
    t = pd_transform_train();
    pd_normalizer_init(&norm, &t);
    /* torch: ((tensor(200.) / 255) - 0.485) / 0.229 and so on, in float32 */
    PD_CHECK(norm.byte[0][200] == ((200.f / 255.f) - 0.485f) / 0.229f);
    PD_CHECK_NEAR(norm.byte[1][7] - (7 * norm.slope[1] + norm.offset[1]), 0, 1e-6);
    pd_image_free(&image);
}

/* pd_normalize, the operation, leaves the bits of pd_normalize_pad; what lies behind an image in the batch is not
 * looked at. */
enum { PICTURES = 4, HIGH = 6, WIDE = 7, VALUES = HIGH * WIDE * 3 };

static pd_status run_normalize(float *out, const unsigned char *bytes, const int *sizes, const int *mirrors,
                               const pd_pixel_norm *norm, pd_err *err)
{
    pd_device *cpu = NULL;
    pd_params *params = NULL;
    pd_tape *t = NULL;
    pd_plan *plan = NULL;
    pd_status status = PD_OK;
    PD_TRY_DONE(pd_device_open(&cpu, "cpu", 2, err));
    PD_TRY_DONE(pd_params_new(&params, err));
    PD_TRY_DONE(pd_tape_new(&t, params, false, err));
    pd_value *image = pd_tape_input(t, "image", PD_U8, PD_SHAPE(PICTURES, HIGH, WIDE, 3));
    pd_value *size = pd_tape_input(t, "sizes", PD_I32, PD_SHAPE(PICTURES, 4));
    pd_value *mirror = pd_tape_input(t, "mirror", PD_I32, PD_SHAPE(PICTURES));
    pd_value *y = pd_tape_keep(t, pd_normalize(t, image, size, mirror, norm));
    PD_TRY_DONE(pd_plan_new(&plan, t, cpu, PD_PLAN_INFER, NULL, err));
    PD_TRY_DONE(pd_plan_give(plan, image, bytes, err));
    PD_TRY_DONE(pd_plan_give(plan, size, sizes, err));
    PD_TRY_DONE(pd_plan_give(plan, mirror, mirrors, err));
    PD_TRY_DONE(pd_plan_forward(plan, err));
    memcpy(out, y->data, (size_t)PICTURES * VALUES * sizeof *out);
done:
    pd_plan_free(plan);
    pd_tape_free(t);
    pd_params_free(params);
    pd_device_close(cpu);
    return status;
}

static void test_normalize_there(void)
{
    pd_err err = PD_ERR_INIT;
    const pd_transform transforms[] = {pd_transform_detect(true), pd_transform_none()};
    const int mirrors[PICTURES] = {1, 0, 1, 1};
    int sizes[PICTURES][4] = {{6, 7, 6, 7}, {4, 5, 6, 7}, {6, 1, 6, 7}, {6, 0, 6, 7}}; /* those of pads do not count */
    unsigned char bytes[PICTURES * VALUES], rgb[VALUES];
    float want[PICTURES * VALUES], got[PICTURES * VALUES];
    pd_rng rng = pd_rng_make(17, 0, 0);
    for (int i = 0; i < PICTURES * VALUES; i++) bytes[i] = (unsigned char)pd_rng_below(&rng, 256);
    for (int k = 0; k < 2; k++) {
        const pd_pixel_norm norm = pd_transform_norm(&transforms[k]);
        pd_normalizer table;
        pd_normalizer_init(&table, &transforms[k]);
        for (int i = 0; i < PICTURES; i++) {
            const int h = sizes[i][0], w = sizes[i][1];
            const pd_image image = {h, w, rgb, 0};
            for (int y = 0; y < h; y++) memcpy(rgb + y * w * 3, bytes + (i * HIGH + y) * WIDE * 3, (size_t)w * 3);
            pd_normalize_pad(want + i * VALUES, HIGH, WIDE, &image, mirrors[i] != 0, &table);
        }
        memset(got, 0xff, sizeof got);
        PD_CHECK_OK(run_normalize(got, bytes, sizes[0], mirrors, &norm, &err));
        PD_CHECK(!memcmp(want, got, sizeof want));
    }
    const pd_pixel_norm norm = pd_transform_norm(&transforms[0]);
    sizes[1][1] = 8;
    PD_CHECK_FAILS(run_normalize(got, bytes, sizes[0], mirrors, &norm, &err), PD_EINVAL,
                   "image 1 of the batch is 8x4, the batch 7x6");
    PD_CHECK_FAILS(run_normalize(got, NULL, sizes[0], mirrors, &norm, &err), PD_EINVAL, "image: no data was given");
    pd_params *params = NULL;
    pd_tape *t = NULL;
    PD_CHECK_OK(pd_params_new(&params, &err));
    PD_CHECK_OK(pd_tape_new(&t, params, false, &err));
    pd_value *floats = pd_tape_input(t, "image", PD_F32, PD_SHAPE(2, 4, 4, 3));
    pd_normalize(t, floats, pd_tape_input(t, "sizes", PD_I32, PD_SHAPE(2, 4)),
                 pd_tape_input(t, "mirror", PD_I32, PD_SHAPE(2)), &norm);
    PD_CHECK_FAILS(pd_tape_status(t, &err), PD_EINVAL, "images (2, 4, 4, 3): expected bytes (n, h, w, 3)");
    pd_tape_free(t);
    pd_params_free(params);
}

static void test_settings(void)
{
    pd_err err = PD_ERR_INIT;
    pd_transform t = pd_transform_train();
    PD_CHECK_OK(pd_transform_check(&t, &err));
    t.area[0] = 0;
    PD_CHECK_FAILS(pd_transform_check(&t, &err), PD_EINVAL, "area [0, 1]");
    t = pd_transform_train();
    t.aspect[1] = 0.5;
    PD_CHECK_FAILS(pd_transform_check(&t, &err), PD_EINVAL, "aspect [0.8, 0.5]");
    t = pd_transform_train();
    t.flip = 1.5;
    PD_CHECK_FAILS(pd_transform_check(&t, &err), PD_EINVAL, "flip 1.5");
    t = pd_transform_val();
    PD_CHECK_OK(pd_transform_check(&t, &err));
    t.std[1] = 0;
    PD_CHECK_FAILS(pd_transform_check(&t, &err), PD_EINVAL, "std 0");
    t = pd_transform_detect(false);
    PD_CHECK_OK(pd_transform_check(&t, &err));
    t.short_side = 0;
    PD_CHECK_FAILS(pd_transform_check(&t, &err), PD_EINVAL, "[1333, 0]");
    t = pd_transform_val();
    t.crop = 0;
    PD_CHECK_FAILS(pd_transform_check(&t, &err), PD_EINVAL, "crop 0");
}

int main(void)
{
    test_opencv();
    test_triangle();
    test_keep_ratio();
    test_short_sides();
    test_boxes();
    test_random_crop();
    test_normalize();
    test_normalize_there();
    test_settings();
    return pd_test_end();
}
