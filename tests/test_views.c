/* Several views of one image (test-time augmentation) against the PyTorch reference, and against plain detection.
 *
 * tests/golden/detection/views_*.safetensors: an original of 96 x 128 in three views: the made input of the seed; that
 * of seed + 1, said to be mirrored; that of seed + 2, of 128 x 160, scale factors 1.25 and 4/3. */
#include "tests/golden_detector.h"

enum { VIEWS = 3 };

typedef struct view {
    pd_batch b;
    pd_image_info info;
} view;

static void make_views(view *v, uint64_t seed)
{
    static const struct {
        int h, w, flipped;
    } rows[VIEWS] = {{96, 128, 0}, {96, 128, 1}, {128, 160, 0}};
    for (int i = 0; i < VIEWS; i++) {
        const int h = rows[i].h, w = rows[i].w;
        v[i].info = (pd_image_info){.h = h,
                                    .w = w,
                                    .pad_h = h,
                                    .pad_w = w,
                                    .ori_h = 96,
                                    .ori_w = 128,
                                    .scale_x = (float)w / 128,
                                    .scale_y = (float)h / 96,
                                    .flipped = rows[i].flipped};
        v[i].b =
            (pd_batch){.n = 1, .h = h, .w = w, .pixels = golden_input(1, h, w, seed + (uint64_t)i), .info = &v[i].info};
    }
}

static void free_views(view *v)
{
    for (int i = 0; i < VIEWS; i++) free(v[i].b.pixels);
}

static void test_golden(pd_detector_type type, const char *file)
{
    view v[VIEWS];
    pd_detection found[GOLDEN_DETS];
    int count = 0;
    PD_ROW(file);
    pd_st *golden = golden_open(file);
    if (!golden) return;
    make_views(v, (uint64_t)atoi(pd_st_meta(golden, "seed")));
    pd_detector *d = golden_forward_detector(pd_detector_defaults(type), golden);
    const pd_batch *const list[VIEWS] = {&v[0].b, &v[1].b, &v[2].b};
    PD_CHECK_OK(pd_detector_detect_views(d, pd_detector_form(d), list, VIEWS, found, &count, &err));
    PD_CHECK(count > 10);
    check_detections(golden, 1, found, &count);
    pd_detector_free(d);
    free_views(v);
    pd_st_close(golden);
}

/* One view is plain detection, as long as the proposals' second suppression has nothing to do. A view that is said to
 * be mirrored gives mirrored boxes. */
static void test_one_view(pd_detector_type type, bool class_boxes)
{
    view v[VIEWS];
    pd_detection plain[GOLDEN_DETS], one[GOLDEN_DETS];
    int count = 0, n = 0;
    pd_detector_settings set = pd_detector_defaults(type);
    PD_ROW(pd_detector_title(type));
    set.classes = 8;
    set.cascade.class_boxes = class_boxes;
    set.cascade.rpn.test.nms_iou = 1;
    set.cascade.rpn.test.pre_nms = 60;
    make_views(v, 1);
    pd_detector *d = golden_detector(set, "resnet18", 1);
    const pd_batch *list[1] = {&v[0].b};
    PD_CHECK_OK(pd_detector_detect(d, pd_detector_form(d), &v[0].b, plain, &count, &err));
    PD_CHECK_OK(pd_detector_detect_views(d, pd_detector_form(d), list, 1, one, &n, &err));
    PD_CHECK(count > 0);
    PD_CHECK_INT(n, count);
    for (int i = 0; i < count && i < n; i++)
        PD_CHECK(one[i].label == plain[i].label && fabsf(one[i].score - plain[i].score) < 1e-5f &&
                 pd_box_iou(one[i].box, plain[i].box) > 0.999f);
    v[0].info.flipped = 1;
    PD_CHECK_OK(pd_detector_detect_views(d, pd_detector_form(d), list, 1, one, &n, &err));
    PD_CHECK_INT(n, count);
    for (int i = 0; i < count && i < n; i++) {
        const pd_box b = {128 - plain[i].box.x2, plain[i].box.y1, 128 - plain[i].box.x1, plain[i].box.y2};
        PD_CHECK(one[i].label == plain[i].label && pd_box_iou(one[i].box, b) > 0.999f);
    }
    pd_batch two = v[0].b;
    two.n = 2;
    list[0] = &two;
    PD_CHECK_FAILS(pd_detector_detect_views(d, pd_detector_form(d), list, 1, one, &n, &err), PD_EINVAL, "2 images");
    PD_CHECK_FAILS(pd_detector_detect_views(d, pd_detector_form(d), list, 0, one, &n, &err), PD_EINVAL, "at least one");
    pd_detector_free(d);
    free_views(v);
}

int main(void)
{
    PD_CHECK_OK(pd_oracle_device(&device, &err));
    test_golden(PD_RETINANET, "views_retina_resnet18");
    test_golden(PD_CASCADE_RCNN, "views_cascade_resnet18");
    test_one_view(PD_RETINANET, false);
    test_one_view(PD_FASTER_RCNN, false);
    test_one_view(PD_FASTER_RCNN, true);
    pd_device_close(device);
    return pd_test_end();
}
