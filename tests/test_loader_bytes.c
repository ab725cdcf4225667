/* Batches of bytes beside batches of floats: the same pixels once mirrored and normalised, and, in a whole detector,
 * the same losses, gradients and detections, bit for bit. */
#include "detectors/detector.h"
#include "tests/loader_set.h"
#include "tests/programs.h"

/* What the floats of a batch of bytes are, pixel by pixel, by batch.h; behind the images there must be zeros. */
static float *normalised(const pd_batch *b)
{
    float *to = calloc((size_t)b->n * (size_t)b->h * (size_t)b->w * 3 + 1, sizeof *to);
    for (int i = 0; i < b->n; i++)
        for (int y = 0; y < b->h; y++)
            for (int x = 0; x < b->w; x++) {
                const pd_image_info *info = &b->info[i];
                const size_t row = (size_t)(i * b->h + y) * (size_t)b->w;
                const bool inside = y < info->h && x < info->w;
                const size_t from = 3 * (row + (size_t)(inside && info->flipped ? info->w - 1 - x : x));
                for (size_t c = 0; c < 3; c++) {
                    const unsigned char byte = b->bytes[from + c];
                    if (inside) to[3 * (row + (size_t)x) + c] = pd_pixel_value(byte, &b->norm, (int)c);
                    if (!inside) PD_CHECK_INT(byte, 0);
                }
            }
    return to;
}

/* What a detector makes of a batch. */
typedef struct outcome {
    pd_losses losses;
    float *grads;
    size_t grad_count;
    pd_detection found[2][10], other[2][10];
    int count[2], other_count[2];
} outcome;

/* other: another batch, detected afterwards. */
static void run_detector(outcome *o, pd_device *device, const pd_batch *b, const pd_batch *other)
{
    pd_err err = PD_ERR_INIT;
    pd_detector *d = NULL;
    pd_detector_settings set = pd_detector_defaults(PD_RETINANET);
    set.classes = 2;
    set.train = true;
    set.frozen_stages = -1;
    set.test.max_per_image = 10;
    set.test.score_thresh = 0;
    PD_CHECK_OK(pd_arch_parse(&set.arch, "resnet18", NULL, &err));
    PD_CHECK_OK(pd_detector_new(&d, device, &set, &err));
    PD_CHECK_OK(pd_params_init(pd_detector_params(d), 3, &err));
    PD_CHECK_OK(pd_detector_loss(d, b, 0, &o->losses, &err));
    PD_CHECK_OK(pd_detector_backward(d, false, &err));
    pd_params_weights(pd_detector_params(d), &o->grad_count);
    o->grads = malloc(o->grad_count * sizeof *o->grads);
    memcpy(o->grads, pd_params_grads(pd_detector_params(d)), o->grad_count * sizeof *o->grads);
    PD_CHECK_OK(pd_detector_detect(d, PD_FORM_FUSED, b, o->found[0], o->count, &err));
    PD_CHECK_OK(pd_detector_detect(d, PD_FORM_FUSED, other, o->other[0], o->other_count, &err));
    pd_detector_free(d);
}

static bool same_found(const pd_detection *a, int a_count, const pd_detection *b, int b_count)
{
    return a_count == b_count && !memcmp(a, b, (size_t)a_count * sizeof *a);
}

/* A detector that mirrors and normalises by itself has the same losses, gradients and detections, bit for bit; also
 * where it gets both kinds of batches, or such that are normalised in two ways. */
static void compare_detectors(pd_device *device, const pd_batch *floats, const pd_batch *bytes)
{
    outcome o[2] = {{.count = {0}}, {.count = {0}}};
    pd_batch darker = *bytes;
    darker.norm.mean[0] += 40;
    run_detector(&o[0], device, floats, bytes);
    run_detector(&o[1], device, bytes, &darker);
    PD_CHECK(o[0].losses.loss > 0 && o[0].losses.loss == o[1].losses.loss);
    PD_CHECK_INT(o[0].grad_count, o[1].grad_count);
    PD_CHECK(!memcmp(o[0].grads, o[1].grads, o[0].grad_count * sizeof *o[0].grads));
    for (int i = 0; i < floats->n; i++) {
        PD_CHECK(o[0].count[i] > 0);
        PD_CHECK(same_found(o[0].found[i], o[0].count[i], o[1].found[i], o[1].count[i]));
        PD_CHECK(same_found(o[0].found[i], o[0].count[i], o[0].other[i], o[0].other_count[i]));
        PD_CHECK(!same_found(o[0].found[i], o[0].count[i], o[1].other[i], o[1].other_count[i]));
    }
    for (int i = 0; i < 2; i++) free(o[i].grads);
}

/* An epoch of floats beside one of bytes: the same batches but for what is left to be done. Returns the mirrored
 * images, *smaller: those that do not fill their place. device NULL: no detector. */
static int compare_epoch(pd_loader_config c, pd_device *device, int *smaller)
{
    pd_err err = PD_ERR_INIT;
    pd_loader *l[2] = {NULL, NULL};
    int mirrored = 0;
    *smaller = 0;
    for (int i = 0; i < 2; i++, c.bytes = true) {
        PD_CHECK_OK(pd_loader_open(&l[i], &c, &err));
        PD_CHECK_OK(pd_loader_start(l[i], 0, 0, &err));
    }
    for (;;) {
        const pd_batch *b[2] = {NULL, NULL};
        for (int i = 0; i < 2; i++) PD_CHECK_OK(pd_loader_next(l[i], &b[i], &err));
        if (!b[0] || !b[1]) {
            PD_CHECK(!b[0] && !b[1]);
            break;
        }
        PD_CHECK(b[0]->pixels && !b[0]->bytes && !b[1]->pixels && b[1]->bytes);
        PD_CHECK(b[0]->h == b[1]->h && b[0]->w == b[1]->w);
        pd_batch done = *b[1];
        done.pixels = normalised(b[1]);
        PD_CHECK_INT(hash_batch(&done), hash_batch(b[0]));
        free(done.pixels);
        if (device) compare_detectors(device, b[0], b[1]);
        for (int i = 0; i < b[1]->n; i++) {
            mirrored += b[1]->info[i].flipped;
            *smaller += b[1]->info[i].h < b[1]->h && b[1]->info[i].w < b[1]->w;
        }
        for (int i = 0; i < 2; i++) pd_loader_done(l[i], b[i]);
    }
    for (int i = 0; i < 2; i++) pd_loader_close(l[i]);
    return mirrored;
}

static void test_bytes(void)
{
    pd_err err = PD_ERR_INIT;
    const pd_coco set = open_coco(set_json);
    pd_device *device = NULL;
    pd_loader_config c = pd_loader_defaults();
    int smaller, mirrored;
    c.coco = &set;
    c.image_dir = in_dir("det");
    c.transform = pd_transform_detect(true);
    c.transform.long_side = 100;
    c.transform.short_side = 60;
    c.transform.mean[1] = 0.3;
    c.batch = 2;
    c.seed = 4;
    PD_CHECK_OK(pd_device_open(&device, "cpu", 1, &err));
    mirrored = compare_epoch(c, device, &smaller);
    PD_CHECK(mirrored > 0 && mirrored < 5 && smaller > 1);
    pd_device_close(device);

    const char *const paths[] = {in_dir("det/w0.png"), in_dir("det/w0.png"), in_dir("det/w0.png")};
    c = pd_loader_defaults();
    c.paths = paths;
    c.n_paths = 3;
    c.batch = 2;
    c.transform.flip = 0.5;
    c.seed = 4;
    mirrored = compare_epoch(c, NULL, &smaller);
    PD_CHECK(mirrored > 0 && mirrored < 3 && smaller == 0);
}

int main(void)
{
    arena = pd_arena_new();
    PD_CHECK(pd_test_dir(dir, "loader_bytes"));
    draw_set();
    test_bytes();
    pd_remove_tree(dir);
    pd_arena_free(arena);
    return pd_test_end();
}
