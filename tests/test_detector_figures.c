/* Parameters and multiply-accumulates of detectors: the figures of mmdetection's counting tool, with ResNet-50 and 80
 * classes; and the memory that training takes, against a plan that trains. */
#include "tests/golden_detector.h"
#include "tests/programs.h"
#include "tools/detector_figures.h"

static const struct {
    pd_detector_type type;
    int h, w;
    double params, trainable, macs, part_params[PD_PARTS], part_gmac[PD_PARTS]; /* macs in G where below 1e6 */
} rows[] = {
    {PD_RETINANET,
     1280,
     800,
     37968692,
     37743348,
     239316500520.,
     {23508032, 7997440, 6463220, 0, 0},
     {84.077, 17.335, 137.904, 0, 0}},
    {PD_RETINANET, 800, 1344, 37968692, 37743348, 251.31, {0}, {0}},
    {PD_RETINANET, 224, 224, 37968692, 37743348, 11.77, {0}, {0}},
    {PD_CASCADE_RCNN,
     1280,
     800,
     69394766,
     69169422,
     234706994100.,
     {23508032, 3344384, 0, 593935, 41948415},
     {84.077, 58.043, 0, 50.639, 41.948}},
    {PD_CASCADE_RCNN, 800, 1344, 69394766, 69169422, 244.34, {0}, {0}},
    {PD_CASCADE_RCNN, 224, 224, 69394766, 69169422, 51.40, {0}, {0}},
};

static void test_counts(void)
{
    char row[64];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pd_detector_settings set = pd_detector_defaults(rows[i].type);
        pd_detector_figures f = {.total.macs = 0};
        set.classes = 80;
        snprintf(row, sizeof row, "%s %dx%d", pd_detector_name(set.type), rows[i].h, rows[i].w);
        PD_ROW(row);
        PD_CHECK_OK(pd_arch_parse(&set.arch, "resnet50", NULL, &err));
        PD_CHECK_OK(pd_count_detector(&f, PD_FORM_COUNT, &set, rows[i].h, rows[i].w, &err));
        PD_CHECK_NEAR(f.total.params, rows[i].params, 0);
        PD_CHECK_NEAR(f.total.trainable, rows[i].trainable, 0);
        if (rows[i].macs > 1e6)
            PD_CHECK_NEAR(f.total.macs, rows[i].macs, 0);
        else
            PD_CHECK_NEAR(f.total.macs / 1e9, rows[i].macs, 0.005);
        for (int k = 0; k < PD_PARTS && rows[i].part_gmac[0] > 0; k++) {
            PD_CHECK_NEAR(f.part[k].params, rows[i].part_params[k], 0);
            PD_CHECK_NEAR(f.part[k].macs / 1e9, rows[i].part_gmac[k], 0.0005);
        }
    }
    PD_ROW("");
}

/* What is said before is what a training plan takes, and writing its largest tensor. */
static void test_memory(pd_detector_type type)
{
    enum { ROOM = 64, SIDE = 64 };
    pd_detector_settings set = pd_detector_defaults(type);
    pd_detector *d = NULL;
    pd_losses losses;
    size_t said = 0, floats = 0, largest = 0;
    static float pixels[2 * SIDE * SIDE * 3];
    static pd_box boxes[2 * ROOM] = {{4, 4, 40, 40}};
    static int labels[2 * ROOM], counts[2] = {1, 0};
    pd_image_info info[2];
    for (int i = 0; i < 2; i++) info[i] = (pd_image_info){.h = SIDE, .w = SIDE, .pad_h = SIDE, .pad_w = SIDE};
    const pd_batch b = {.n = 2,
                        .h = SIDE,
                        .w = SIDE,
                        .pixels = pixels,
                        .info = info,
                        .max_boxes = ROOM,
                        .n_boxes = counts,
                        .boxes = boxes,
                        .box_labels = labels};
    PD_ROW(pd_detector_name(type));
    set.classes = 3;
    set.train = true;
    PD_CHECK_OK(pd_arch_parse(&set.arch, "resnet18", NULL, &err));
    PD_CHECK_OK(pd_detector_training_bytes(&said, device, &set, 2, SIDE, SIDE, &err));
    PD_CHECK_OK(pd_detector_new(&d, device, &set, &err));
    PD_CHECK_OK(pd_params_init(pd_detector_params(d), 1, &err));
    PD_CHECK_OK(pd_detector_loss(d, &b, 0, &losses, &err));
    PD_CHECK(isfinite(losses.loss));
    const pd_params *p = pd_detector_params(d);
    for (size_t i = 0; i < pd_params_count(p); i++) {
        floats += pd_params_at(p, i)->count * (pd_params_at(p, i)->kind == PD_WEIGHT ? 3 : 1);
        if (pd_params_at(p, i)->count > largest) largest = pd_params_at(p, i)->count;
    }
    PD_CHECK_INT(said, pd_plan_bytes(pd_detector_plan(d)) + 4 * (floats + 2 * largest));
    pd_detector_free(d);
}

/* What pd_info prints of the reference's two detectors, and the time of a small one. */
static void test_program(void)
{
    static const struct {
        const char *config, *parts[3];
    } said[] = {
        {"retina_r50", {"RetinaNet, resnet50, 80 classes, one image of 1280x800", "239.317", "37.743"}},
        {"cascade_r50", {"Cascade R-CNN, resnet50, 80 classes, one image of 1280x800", "234.707", "69.169"}},
    };
    pd_child c = {0};
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        PD_ROW(said[i].config);
        pd_child_run(&c, NULL, PD_BIN_DIR, "pd_info %s/configs/%s.json", PD_SOURCE_DIR, said[i].config);
        PD_CHECK_INT(c.code, 0);
        for (int k = 0; k < 3; k++) PD_CHECK_MSG(strstr(c.out, said[i].parts[k]), "no %s in: %s", said[i].parts[k], c.out);
    }
    for (int i = 0; i < 2; i++) {
        pd_json_doc *doc = NULL;
        PD_ROW(i ? "latency of demo_cascade" : "latency of demo_retina");
        pd_child_run(&c, NULL, PD_BIN_DIR, "pd_info %s/configs/%s.json --input 64x64 --latency --json", PD_SOURCE_DIR,
                     i ? "demo_cascade_pd_b_r18" : "demo_retina_pd_a_r18");
        PD_CHECK_INT(c.code, 0);
        PD_CHECK_OK(pd_json_parse(&doc, "pd_info", c.out, strlen(c.out), &err));
        const double ms = doc ? golden_number(pd_json_root(doc), "latency_ms") : NAN;
        PD_CHECK_MSG(ms > 0.1 && ms < 1e5, "%g ms", ms);
        pd_json_close(doc);
    }
    pd_child_free(&c);
}

int main(void)
{
    PD_CHECK_OK(pd_device_open(&device, "cpu", 1, &err));
    test_counts();
    test_program();
    test_memory(PD_RETINANET);
    test_memory(PD_CASCADE_RCNN);
    test_memory(PD_FASTER_RCNN);
    pd_device_close(device);
    return pd_test_end();
}
