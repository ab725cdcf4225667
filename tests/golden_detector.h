/* golden_detector.h: what the tests of whole detectors against the PyTorch reference share: the reference's weights and
 * batches, and the comparison of detections and gradients. Files of tests/golden/detection, float64 inside. */
#ifndef PD_GOLDEN_DETECTOR_H
#define PD_GOLDEN_DETECTOR_H

#include "detectors/detector.h"
#include "engine/json.h"
#include "tests/oracle.h"
#include "tests/pd_test.h"

enum { GOLDEN_IMAGES = 4, GOLDEN_BOXES = 8, GOLDEN_DETS = 100 };

static pd_device *device;
static pd_err err;
static double worst_tensor, worst_loss, worst_norm, worst_probe; /* shown at the end */
static char worst_name[64];

static inline pd_detector *golden_detector(pd_detector_settings set, const char *arch, uint64_t seed)
{
    pd_detector *d = NULL;
    PD_CHECK_OK(pd_arch_parse(&set.arch, arch, NULL, &err));
    PD_CHECK_OK(pd_detector_new(&d, device, &set, &err));
    const double variance = set.arch.family == PD_RESNET_PD_A ? 6 : set.arch.family == PD_RESNET_PD_B ? 1.5 : 2;
    if (d) pd_oracle_fill(pd_detector_params(d), seed, true, variance);
    return d;
}

/* A detector with the weights that a forward file was made with. */
static inline pd_detector *golden_forward_detector(pd_detector_settings set, const pd_st *golden)
{
    set.classes = atoi(pd_st_meta(golden, "classes"));
    return golden_detector(set, pd_st_meta(golden, "arch"), (uint64_t)atoi(pd_st_meta(golden, "seed")));
}

static inline pd_st *golden_open(const char *file)
{
    pd_st *golden = NULL;
    char path[512];
    snprintf(path, sizeof path, "%s/detection/%s.safetensors", PD_GOLDEN, file);
    PD_CHECK_OK(pd_st_open(&golden, path, &err));
    return golden;
}

static inline void check_tensor(const pd_st *golden, const char *name, const float *got)
{
    const double off = pd_oracle_difference(golden, name, got);
    if (off > worst_tensor) snprintf(worst_name, sizeof worst_name, "%s", name);
    worst_tensor = fmax(worst_tensor, off);
    PD_CHECK_MSG(off <= 1e-4, "%s off by %g", name, off);
}

/* A box of the reference and one of ours are the same: IoU > 0.99, or all corners within 0.05 (boxes without area). */
static inline bool same_box(const float *want, pd_box got)
{
    const pd_box w = {want[0], want[1], want[2], want[3]};
    return pd_box_iou(w, got) > 0.99f || (fabsf(w.x1 - got.x1) < 0.05f && fabsf(w.y1 - got.y1) < 0.05f &&
                                          fabsf(w.x2 - got.x2) < 0.05f && fabsf(w.y2 - got.y2) < 0.05f);
}

/* Detections as sets, one to one: same label, same box, score within 1e-3. */
static inline void check_detections(const pd_st *golden, int n, const pd_detection *found, const int *count)
{
    pd_arena *arena = pd_arena_new();
    int d[4];
    const float *boxes = pd_oracle_tensor(golden, "det.boxes", d, arena);
    const float *scores = pd_oracle_tensor(golden, "det.scores", d, arena);
    const float *labels = pd_oracle_tensor(golden, "det.labels", d, arena);
    const float *counts = pd_oracle_tensor(golden, "num_dets", d, arena);
    for (int i = 0; i < n; i++) {
        PD_CHECK_INT(count[i], counts[i]);
        bool taken[GOLDEN_DETS] = {false};
        int lost = 0;
        for (int k = 0; k < (int)counts[i]; k++) {
            const int row = i * GOLDEN_DETS + k;
            bool partner = false;
            for (int j = 0; j < count[i] && !partner; j++) {
                const pd_detection *f = &found[i * GOLDEN_DETS + j];
                partner = !taken[j] && f->label == (int)labels[row] && fabsf(f->score - scores[row]) < 1e-3f &&
                          same_box(boxes + 4 * row, f->box);
                if (partner) taken[j] = true;
            }
            lost += !partner;
        }
        PD_CHECK_MSG(lost == 0, "image %d: %d of %d detections without partner", i, lost, (int)counts[i]);
    }
    pd_arena_free(arena);
}

/* Detections of the last forward run, on images that fill their places. */
static inline void check_decoded(pd_detector *d, const pd_st *golden, int n, int h, int w)
{
    pd_image_info info[GOLDEN_IMAGES];
    pd_detection found[GOLDEN_IMAGES * GOLDEN_DETS];
    int count[GOLDEN_IMAGES];
    for (int i = 0; i < n; i++)
        info[i] =
            (pd_image_info){.h = h, .w = w, .pad_h = h, .pad_w = w, .ori_h = h, .ori_w = w, .scale_x = 1, .scale_y = 1};
    PD_CHECK_OK(pd_detector_decode(d, info, found, count, &err));
    check_detections(golden, n, found, count);
}

/* ---- made inputs ---- */

/* Adds scale * u(name) in [n, 3, ceil(h / step), ceil(w / step)], blown up, to x (n, h, w, 3). */
static inline void golden_layer(double *x, const char *name, int n, int h, int w, int step, double scale, uint64_t seed)
{
    const int hs = (h + step - 1) / step, ws = (w + step - 1) / step;
    float *u = malloc((size_t)(n * 3 * hs * ws) * sizeof *u);
    if (!u) abort();
    pd_oracle_uniform(u, name, (size_t)(n * 3 * hs * ws), seed);
    for (int i = 0; i < n * h * w * 3; i++) {
        const int c = i % 3, px = i / 3 % w, py = i / 3 / w % h, image = i / 3 / w / h;
        x[i] += scale * (double)u[((image * 3 + c) * hs + py / step) * ws + px / step];
    }
    free(u);
}

/* The reference's rule for images: x = u("x") + 2 u("x8") + 2 u("x32"), the last two 8 and 32 times blown up. (n, h, w, 3),
 * to be freed. */
static inline float *golden_input(int n, int h, int w, uint64_t seed)
{
    const size_t values = (size_t)(n * h * w * 3);
    double *x = calloc(values, sizeof *x);
    float *pixels = malloc(values * sizeof *pixels);
    if (!x || !pixels) abort();
    golden_layer(x, "x", n, h, w, 1, 1, seed);
    golden_layer(x, "x8", n, h, w, 8, 2, seed);
    golden_layer(x, "x32", n, h, w, 32, 2, seed);
    for (size_t i = 0; i < values; i++) pixels[i] = (float)x[i];
    free(x);
    return pixels;
}

/* ---- losses ---- */

typedef struct golden_loss {
    pd_st *in;
    pd_json_doc *doc;
    const pd_json *root;
    pd_arena *arena;
    pd_batch batch;
    pd_image_info info[GOLDEN_IMAGES];
    int counts[GOLDEN_IMAGES], labels[GOLDEN_IMAGES * GOLDEN_BOXES];
    pd_box boxes[GOLDEN_IMAGES * GOLDEN_BOXES];
    uint64_t seed;
} golden_loss;

static inline double golden_number(const pd_json *object, const char *key)
{
    const pd_json *v = pd_json_member(object, key);
    return v ? pd_json_number(v) : NAN;
}

/* A loss file and the batch of `batch`. g stays where it is: the batch points into it. */
static inline bool golden_loss_open_on(golden_loss *g, const char *file, const char *batch)
{
    char path[512], name[64];
    int xd[4], d[4];
    *g = (golden_loss){.arena = pd_arena_new()};
    snprintf(name, sizeof name, "%s.inputs", batch);
    g->in = golden_open(name);
    snprintf(path, sizeof path, "%s/detection/%s.json", PD_GOLDEN, file);
    PD_CHECK_OK(pd_json_read(&g->doc, path, 0, &err));
    if (!g->in || !g->doc) return false;
    g->root = pd_json_root(g->doc);
    g->seed = (uint64_t)golden_number(g->root, "seed");
    g->batch = (pd_batch){.pixels = pd_oracle_tensor(g->in, "x", xd, g->arena),
                          .max_boxes = GOLDEN_BOXES,
                          .info = g->info,
                          .n_boxes = g->counts,
                          .boxes = g->boxes,
                          .box_labels = g->labels};
    g->batch.n = xd[0], g->batch.h = xd[2], g->batch.w = xd[3];
    const float *img = pd_oracle_tensor(g->in, "img_shape", d, g->arena),
                *pad = pd_oracle_tensor(g->in, "pad_shape", d, g->arena);
    for (int i = 0; i < xd[0]; i++) {
        g->info[i] = (pd_image_info){.h = (int)img[2 * i],
                                     .w = (int)img[2 * i + 1],
                                     .pad_h = (int)pad[2 * i],
                                     .pad_w = (int)pad[2 * i + 1],
                                     .scale_x = 1,
                                     .scale_y = 1};
        snprintf(name, sizeof name, "gt_boxes.%d", i);
        const float *gt = pd_oracle_tensor(g->in, name, d, g->arena);
        g->counts[i] = d[0];
        memcpy(&g->boxes[i * GOLDEN_BOXES], gt, (size_t)d[0] * sizeof(pd_box));
        snprintf(name, sizeof name, "gt_labels.%d", i);
        const float *l = pd_oracle_tensor(g->in, name, d, g->arena);
        for (int k = 0; k < g->counts[i]; k++) g->labels[i * GOLDEN_BOXES + k] = (int)l[k];
    }
    return true;
}

/* A loss file that has a batch of its own. */
static inline bool golden_loss_open(golden_loss *g, const char *file)
{
    return golden_loss_open_on(g, file, file);
}

static inline void golden_loss_close(golden_loss *g)
{
    pd_arena_free(g->arena);
    pd_json_close(g->doc);
    pd_st_close(g->in);
}

/* Makes the batch of two images one of four, its images twice: the losses stay, for normalisers are taken over groups of
 * two. */
static inline void golden_loss_twice(golden_loss *g)
{
    const size_t half = (size_t)(g->batch.n * g->batch.h * g->batch.w * 3);
    float *pixels = NULL;
    PD_CHECK_INT(g->batch.n, 2);
    PD_CHECK_OK(PD_ALLOC(&pixels, g->arena, 2 * half, &err));
    for (size_t i = 0; i < 2; i++) memcpy(pixels + i * half, g->batch.pixels, half * sizeof *pixels);
    for (int i = 0; i < 2; i++) {
        g->info[2 + i] = g->info[i];
        g->counts[2 + i] = g->counts[i];
    }
    memcpy(g->boxes + 2 * GOLDEN_BOXES, g->boxes, 2 * GOLDEN_BOXES * sizeof *g->boxes);
    memcpy(g->labels + 2 * GOLDEN_BOXES, g->labels, 2 * GOLDEN_BOXES * sizeof *g->labels);
    g->batch.pixels = pixels;
    g->batch.n = 4;
}

static inline pd_detector *golden_loss_detector(pd_detector_settings set, const golden_loss *g)
{
    set.classes = (int)golden_number(g->root, "classes");
    set.train = true;
    return golden_detector(set, pd_json_string(pd_json_member(g->root, "arch")), g->seed);
}

/* Every part within 1e-4 of itself, accuracies to float32; and none is missing. */
static inline void check_losses(const golden_loss *g, const pd_losses *losses)
{
    const pd_json *want = pd_json_member(g->root, "losses");
    for (int i = 0; i < losses->count; i++) {
        const double w = golden_number(want, losses->name[i]), off = fabs((double)losses->value[i] - w);
        const bool accuracy = strstr(losses->name[i], "acc") != NULL;
        PD_CHECK_MSG(off <= (accuracy ? 1e-5 : 1e-4 * w), "%s is %.9g, expected %.9g", losses->name[i],
                     (double)losses->value[i], w);
        if (!accuracy) worst_loss = fmax(worst_loss, off / w);
    }
    PD_CHECK_NEAR(losses->loss, golden_number(want, "loss"), 1e-4 * golden_number(want, "loss"));
    PD_CHECK_INT(losses->count + 1, pd_json_count(want));
}

/* Norm and probe of every parameter's gradient. */
static inline void check_gradients(const golden_loss *g, const pd_params *params)
{
    const pd_json *norms = pd_json_member(g->root, "grad_norm"), *probes = pd_json_member(g->root, "grad_probe");
    char name[300];
    double largest = 0;
    size_t seen = 0;
    for (const pd_json *v = pd_json_first(norms); v; v = pd_json_next(v)) largest = fmax(largest, pd_json_number(v));
    for (size_t i = 0; i < pd_params_count(params); i++) {
        const pd_param *p = pd_params_at(params, i);
        if (p->kind != PD_WEIGHT || !p->trainable) continue;
        float *slope = malloc(p->count * sizeof *slope), *u = malloc(p->count * sizeof *u);
        if (!slope || !u) abort();
        PD_CHECK_OK(pd_param_read(u, params, p, pd_params_grads(params), &err));
        pd_param_to_file_order(p, slope, u);
        snprintf(name, sizeof name, "probe.%s", p->name);
        pd_oracle_uniform(u, name, p->count, g->seed);
        double square = 0, probe = 0;
        for (size_t k = 0; k < p->count; k++) {
            square += (double)slope[k] * (double)slope[k];
            probe += (double)slope[k] * (double)u[k];
        }
        const double norm = golden_number(norms, p->name), want = golden_number(probes, p->name);
        PD_CHECK_MSG(fabs(sqrt(square) - norm) <= 1e-3 * norm + 1e-6 * largest, "%s: gradient norm %g, expected %g",
                     p->name, sqrt(square), norm);
        PD_CHECK_MSG(fabs(probe - want) <= 1e-2 * norm + 1e-6 * largest, "%s: gradient probe %g, expected %g", p->name,
                     probe, want);
        if (norm > 1e-3 * largest) {
            worst_norm = fmax(worst_norm, fabs(sqrt(square) - norm) / norm);
            worst_probe = fmax(worst_probe, fabs(probe - want) / norm);
        }
        seen++;
        free(slope);
        free(u);
    }
    PD_CHECK_INT(seen, pd_json_count(norms));
}

static inline int golden_end(void)
{
    printf("largest differences: tensors %.1e (%s), losses %.1e, gradient norms %.1e, probes %.1e\n", worst_tensor,
           worst_name, worst_loss, worst_norm, worst_probe);
    return pd_test_end();
}

#endif
