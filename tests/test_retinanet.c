/* RetinaNet against the PyTorch reference: pyramid, head, detections; losses, decisions and gradients.
 * tests/golden/detection: outputs of the reference, float64 inside. */
#include "detectors/detector.h"
#include "engine/json.h"
#include "tests/oracle.h"
#include "tests/pd_test.h"

static pd_device *device;
static pd_err err;

static double variance_scale(pd_arch arch)
{
    return arch.family == PD_RESNET_PD_A ? 6 : arch.family == PD_RESNET_PD_B ? 1.5 : 2;
}

static pd_detector *make(const char *arch, int classes, uint64_t seed, bool train)
{
    pd_detector_settings set = {.classes = classes, .frozen_stages = 1, .train = train,
                                .retinanet = pd_retinanet_cfg_default(), .test = pd_postprocess_cfg_default()};
    pd_detector *d = NULL;
    PD_CHECK_OK(pd_arch_parse(&set.arch, arch, NULL, &err));
    PD_CHECK_OK(pd_detector_new(&d, device, &set, &err));
    if (d) pd_oracle_fill(pd_detector_params(d), seed, true, variance_scale(set.arch));
    return d;
}

/* Detections as sets, one to one: same label, IoU > 0.99, score within 1e-3. */
static void compare_detections(const pd_st *golden, int n, int room, const pd_detection *found, const int *count)
{
    pd_arena *arena = pd_arena_new();
    int d[4];
    const float *boxes = pd_oracle_tensor(golden, "det.boxes", d, arena), *scores = pd_oracle_tensor(golden, "det.scores", d, arena);
    const float *labels = pd_oracle_tensor(golden, "det.labels", d, arena), *counts = pd_oracle_tensor(golden, "num_dets", d, arena);
    for (int i = 0; i < n; i++) {
        PD_CHECK_INT(count[i], counts[i]);
        bool taken[100] = {false};
        int lost = 0;
        for (int k = 0; k < (int)counts[i]; k++) {
            const float *b = boxes + 4 * (i * 100 + k);
            const pd_box want = {b[0], b[1], b[2], b[3]};
            bool partner = false;
            for (int j = 0; j < count[i] && !partner; j++) {
                const pd_detection *f = &found[i * room + j];
                const bool same_box = pd_box_iou(want, f->box) > 0.99f ||
                                      (fabsf(want.x1 - f->box.x1) < 0.05f && fabsf(want.y1 - f->box.y1) < 0.05f &&
                                       fabsf(want.x2 - f->box.x2) < 0.05f && fabsf(want.y2 - f->box.y2) < 0.05f);
                partner = !taken[j] && f->label == (int)labels[i * 100 + k] && fabsf(f->score - scores[i * 100 + k]) < 1e-3f && same_box;
                if (partner) taken[j] = true;
            }
            lost += !partner;
        }
        PD_CHECK_MSG(lost == 0, "image %d: %d of %d detections without partner", i, lost, (int)counts[i]);
    }
    pd_arena_free(arena);
}

static void test_forward(const char *file, pd_form form)
{
    pd_st *golden = NULL;
    char path[512];
    snprintf(path, sizeof path, "%s/detection/%s.safetensors", PD_GOLDEN, file);
    PD_ROW(file);
    PD_CHECK_OK(pd_st_open(&golden, path, &err));
    if (!golden) return;
    pd_arena *arena = pd_arena_new();
    int xd[4];
    float *x = pd_oracle_tensor(golden, "x", xd, arena);
    pd_detector *d = make(pd_st_meta(golden, "arch"), atoi(pd_st_meta(golden, "classes")), (uint64_t)atoi(pd_st_meta(golden, "seed")), false);
    pd_raw raw;
    const pd_status ran = pd_detector_raw(d, form, x, xd[0], xd[2], xd[3], &raw, &err);
    PD_CHECK_OK(ran);
    for (int i = 0; ran == PD_OK && i < raw.count; i++) {
        if (!pd_st_find(golden, raw.name[i])) continue;
        const double off = pd_oracle_difference(golden, raw.name[i], raw.data[i]);
        PD_CHECK_MSG(off <= 1e-4, "%s off by %g", raw.name[i], off);
    }
    pd_image_info info[4];
    pd_detection found[400];
    int count[4];
    for (int i = 0; i < xd[0]; i++)
        info[i] = (pd_image_info){.h = xd[2], .w = xd[3], .pad_h = xd[2], .pad_w = xd[3], .ori_h = xd[2], .ori_w = xd[3], .scale_x = 1, .scale_y = 1};
    PD_CHECK_OK(pd_detector_decode(d, info, found, count, &err));
    compare_detections(golden, xd[0], 100, found, count);
    pd_detector_free(d);
    pd_arena_free(arena);
    pd_st_close(golden);
}

static double number(const pd_json *object, const char *key)
{
    const pd_json *v = pd_json_member(object, key);
    return v ? pd_json_number(v) : NAN;
}

static void check_gradients(const pd_params *params, const pd_json *root, uint64_t seed)
{
    const pd_json *norms = pd_json_member(root, "grad_norm"), *probes = pd_json_member(root, "grad_probe");
    char name[300];
    double largest = 0;
    size_t seen = 0;
    for (const pd_json *v = pd_json_first(norms); v; v = pd_json_next(v)) largest = fmax(largest, pd_json_number(v));
    for (size_t i = 0; i < pd_params_count(params); i++) {
        const pd_param *p = pd_params_at(params, i);
        if (p->kind != PD_WEIGHT || !p->trainable) continue;
        float *g = malloc(p->count * sizeof *g), *u = malloc(p->count * sizeof *u);
        pd_param_to_file_order(p, g, p->grad);
        snprintf(name, sizeof name, "probe.%s", p->name);
        pd_oracle_uniform(u, name, p->count, seed);
        double square = 0, probe = 0;
        for (size_t k = 0; k < p->count; k++) {
            square += (double)g[k] * (double)g[k];
            probe += (double)g[k] * (double)u[k];
        }
        const double norm = number(norms, p->name), want = number(probes, p->name);
        PD_CHECK_MSG(fabs(sqrt(square) - norm) <= 1e-3 * norm + 1e-6 * largest, "%s: gradient norm %g, expected %g", p->name,
                     sqrt(square), norm);
        PD_CHECK_MSG(fabs(probe - want) <= 1e-2 * norm + 1e-6 * largest, "%s: gradient probe %g, expected %g", p->name, probe, want);
        seen++;
        free(g);
        free(u);
    }
    PD_CHECK_INT(seen, pd_json_count(norms));
}

static void test_loss(const char *file)
{
    pd_st *in = NULL;
    pd_json_doc *doc = NULL;
    char path[512];
    PD_ROW(file);
    snprintf(path, sizeof path, "%s/detection/%s.inputs.safetensors", PD_GOLDEN, file);
    PD_CHECK_OK(pd_st_open(&in, path, &err));
    snprintf(path, sizeof path, "%s/detection/%s.json", PD_GOLDEN, file);
    PD_CHECK_OK(pd_json_read(&doc, path, 0, &err));
    if (!in || !doc) return;
    const pd_json *root = pd_json_root(doc);
    pd_arena *arena = pd_arena_new();
    int xd[4], d[4];
    enum { ROOM = 8 };
    pd_batch b = {.pixels = pd_oracle_tensor(in, "x", xd, arena), .max_boxes = ROOM};
    b.n = xd[0], b.h = xd[2], b.w = xd[3];
    pd_image_info info[4];
    int counts[4], labels[4 * ROOM] = {0};
    pd_box boxes[4 * ROOM] = {{0, 0, 0, 0}};
    const float *img = pd_oracle_tensor(in, "img_shape", d, arena), *pad = pd_oracle_tensor(in, "pad_shape", d, arena);
    for (int i = 0; i < b.n; i++) {
        char name[32];
        info[i] = (pd_image_info){.h = (int)img[2 * i], .w = (int)img[2 * i + 1], .pad_h = (int)pad[2 * i], .pad_w = (int)pad[2 * i + 1],
                                  .scale_x = 1, .scale_y = 1};
        snprintf(name, sizeof name, "gt_boxes.%d", i);
        const float *gt = pd_oracle_tensor(in, name, d, arena);
        counts[i] = d[0];
        memcpy(&boxes[i * ROOM], gt, (size_t)d[0] * sizeof(pd_box));
        snprintf(name, sizeof name, "gt_labels.%d", i);
        const float *l = pd_oracle_tensor(in, name, d, arena);
        for (int k = 0; k < counts[i]; k++) labels[i * ROOM + k] = (int)l[k];
    }
    b.info = info, b.n_boxes = counts, b.boxes = boxes, b.box_labels = labels;
    const uint64_t seed = (uint64_t)number(root, "seed");
    pd_detector *net = make(pd_json_string(pd_json_member(root, "arch")), (int)number(root, "classes"), seed, true);
    pd_losses losses;
    const pd_status ran = pd_detector_loss(net, &b, &losses, &err);
    PD_CHECK_OK(ran);
    if (ran == PD_OK) {
        const pd_json *want = pd_json_member(root, "losses");
        for (int i = 0; i < losses.count; i++)
            PD_CHECK_NEAR(losses.value[i], number(want, losses.name[i]), 1e-4 * number(want, losses.name[i]));
        PD_CHECK_NEAR(losses.loss, number(want, "loss"), 1e-4 * number(want, "loss"));
        size_t positives = 0;
        for (const pd_json *v = pd_json_first(pd_json_member(root, "images")); v; v = pd_json_next(v))
            positives += pd_json_count(pd_json_member(v, "positives"));
        PD_CHECK_INT(losses.positives, positives);
        PD_CHECK_OK(pd_detector_backward(net, false, &err));
        check_gradients(pd_detector_params(net), root, seed);
    }
    pd_detector_free(net);
    pd_arena_free(arena);
    pd_json_close(doc);
    pd_st_close(in);
}

int main(void)
{
    PD_CHECK_OK(pd_device_open(&device, "cpu", 2, &err));
    test_forward("retina_resnet18", PD_FORM_EVAL);
    test_forward("retina_resnet18", PD_FORM_FUSED);
    test_forward("retina_pd_a_resnet18", PD_FORM_EVAL);
    test_forward("retina_pd_a_resnet18", PD_FORM_FUSED);
    test_loss("retina_loss_resnet18");
    test_loss("retina_loss_ragged_resnet18");
    pd_device_close(device);
    return pd_test_end();
}
