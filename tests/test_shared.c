/* engine/shared.h: plans of one model for several input shapes keep folded kernels and packed weights once. Bytes of
 * the device are counted; results are those of a model that has seen one shape only. */
#include "backbones/classifier.h"
#include "engine/poison.h"
#include "engine/rng.h"
#include "engine/shared.h"
#include "kernels/subsample.h"
#include "tests/pd_test.h"

#define MOST 4096
#define CLASSES 10

static pd_err err;

/* ---- a device that counts ---- */

static struct {
    void *at[MOST];
    size_t bytes[MOST], total, most; /* most: of total so far */
    int count;
    size_t refuse; /* an allocation of so many bytes or more fails; 0: none */
    pd_status (*alloc)(pd_device *, void **, size_t, pd_err *);
    void (*release)(pd_device *, void *);
} counted;

static pd_status count_alloc(pd_device *device, void **out, size_t bytes, pd_err *e)
{
    if (counted.refuse && bytes >= counted.refuse) return PD_FAIL(e, PD_ENOMEM, "refused");
    PD_TRY(counted.alloc(device, out, bytes, e));
    PD_CHECK(counted.count < MOST);
    counted.at[counted.count] = *out;
    counted.bytes[counted.count++] = bytes;
    counted.total += bytes;
    if (counted.total > counted.most) counted.most = counted.total;
    return PD_OK;
}

static void count_release(pd_device *device, void *memory)
{
    for (int i = 0; i < counted.count; i++) {
        if (counted.at[i] != memory) continue;
        counted.total -= counted.bytes[i];
        counted.count--;
        counted.at[i] = counted.at[counted.count];
        counted.bytes[i] = counted.bytes[counted.count];
        break;
    }
    counted.release(device, memory);
}

static pd_device *open_counted(void)
{
    pd_device *device = NULL;
    PD_CHECK_OK(pd_device_open(&device, "cpu", 1, &err));
    counted.alloc = device->alloc;
    counted.release = device->release;
    device->alloc = count_alloc;
    device->release = count_release;
    return device;
}

/* ---- models ---- */

static float pixels[3 * 128 * 128];

static pd_classifier *new_model(pd_device *device, const char *arch, uint64_t seed)
{
    pd_classifier *c = NULL;
    pd_classifier_settings set = {.classes = CLASSES};
    PD_CHECK_OK(pd_arch_parse(&set.arch, arch, NULL, &err));
    PD_CHECK_OK(pd_classifier_new(&c, device, &set, &err));
    PD_CHECK_OK(pd_params_init(pd_classifier_params(c), seed, &err));
    return c;
}

static void run(pd_classifier *c, int h, int w, float *logits)
{
    pd_classified out;
    PD_CHECK_OK(pd_classifier_run(c, PD_FORM_FUSED, pixels, 1, h, w, &out, &err));
    memcpy(logits, out.logits, CLASSES * sizeof *logits);
}

static bool same(const float *a, const float *b)
{
    return !memcmp(a, b, CLASSES * sizeof *a);
}

static const int sizes[][2] = {{96, 96},  {96, 128}, {128, 96}, {64, 64},  {64, 96}, {96, 64},
                               {32, 128}, {128, 32}, {64, 128}, {128, 64}, {32, 96}};
#define SIZES (sizeof sizes / sizeof *sizes)

static void test_shapes(const char *arch)
{
    PD_ROW(arch);
    pd_device *device = open_counted();
    pd_classifier *c = new_model(device, arch, 7);
    float got[SIZES][CLASSES], want[CLASSES];
    run(c, 128, 128, got[0]); /* the largest: the workspace does not grow any more */
    const size_t first = counted.total;
    for (size_t i = 0; i < SIZES; i++) run(c, sizes[i][0], sizes[i][1], got[i]);
    const size_t more = counted.total - first;
    /* What is new: weights of a few layers that another shape computes in another way. */
    PD_CHECK_MSG(more < first / 4, "%zu shapes took %zu KiB more than the first one's %zu", SIZES, more >> 10,
                 first >> 10);
    for (size_t i = 0; i < SIZES; i += 5) {
        pd_classifier *alone = new_model(device, arch, 7);
        run(alone, sizes[i][0], sizes[i][1], want);
        PD_CHECK_MSG(same(got[i], want), "%dx%d: other numbers than alone", sizes[i][0], sizes[i][1]);
        pd_classifier_free(alone);
    }
    pd_classifier_free(c);
    printf("%s: first shape %zu KiB, %zu more shapes %zu KiB\n", arch, first >> 10, SIZES, more >> 10);
    PD_CHECK_MSG(counted.total == 0 && !device->shared, "%zu bytes are left", counted.total);
    pd_device_close(device);
}

/* New parameters reach every plan, whichever runs first; another model on the device is not touched. */
static void test_changed(void)
{
    PD_ROW("changed");
    pd_device *device = open_counted();
    pd_classifier *c = new_model(device, "pd_b_resnet18", 1), *other = new_model(device, "pd_b_resnet18", 2);
    float a[CLASSES], b[CLASSES], o[CLASSES], now[CLASSES], want[CLASSES];
    run(c, 128, 128, a);
    run(c, 96, 96, b);
    run(other, 96, 96, o);
    PD_CHECK_OK(pd_params_init(pd_classifier_params(c), 3, &err));
    pd_classifier_changed(c);
    pd_classifier *alone = new_model(device, "pd_b_resnet18", 3);
    run(c, 96, 96, now);
    run(alone, 96, 96, want);
    PD_CHECK(same(now, want) && !same(now, b));
    run(c, 128, 128, now);
    run(alone, 128, 128, want);
    PD_CHECK(same(now, want) && !same(now, a));
    run(c, 64, 64, now); /* a plan that is new */
    run(alone, 64, 64, want);
    PD_CHECK(same(now, want));
    run(other, 96, 96, now);
    PD_CHECK(same(now, o));
    pd_classifier_free(alone);
    pd_classifier_free(c);
    run(other, 96, 96, now);
    PD_CHECK(same(now, o));
    pd_classifier_free(other);
    PD_CHECK(counted.total == 0 && !device->shared);
    pd_device_close(device);
}

/* A larger shape takes the place of a smaller one's memory: at no time there are both. */
static void test_growth(void)
{
    PD_ROW("growth");
    pd_device *device = open_counted();
    pd_params *params = NULL;
    pd_workspace *workspace = NULL;
    pd_plan *plan[2] = {NULL, NULL};
    pd_tape *tape[2] = {NULL, NULL};
    counted.most = 0;
    PD_CHECK_OK(pd_params_new(&params, &err));
    PD_CHECK_OK(pd_workspace_new(&workspace, device, &err));
    for (int i = 0; i < 2; i++) {
        const int side = 64 << i;
        PD_CHECK_OK(pd_tape_new(&tape[i], params, false, &err));
        pd_value *x = pd_tape_input(tape[i], "x", PD_F32, PD_SHAPE(1, side, side, 16));
        pd_tape_keep(tape[i], pd_subsample(tape[i], x, 2));
        PD_CHECK_OK(pd_plan_new(&plan[i], tape[i], device, PD_PLAN_INFER, workspace, &err));
        PD_CHECK_INT(counted.total, pd_plan_bytes(plan[i]));
        PD_CHECK_INT(counted.most, counted.total);
    }
    for (int i = 0; i < 2; i++) {
        pd_plan_free(plan[i]);
        pd_tape_free(tape[i]);
    }
    pd_workspace_free(workspace);
    pd_params_free(params);
    PD_CHECK(counted.total == 0);
    pd_device_close(device);
}

/* Where a larger shape finds no room, the smaller one goes on. */
static void test_no_room(void)
{
    PD_ROW("no room");
    pd_device *device = open_counted();
    pd_classifier *c = new_model(device, "resnet18", 1);
    float small[CLASSES], again[CLASSES], large[CLASSES];
    pd_classified out;
    run(c, 96, 96, small);
    run(c, 128, 128, large);
    run(c, 96, 96, again);
    PD_CHECK(same(small, again));
    pd_classifier_free(c);

    c = new_model(device, "resnet18", 1);
    run(c, 96, 96, again);
    counted.refuse = 1 << 20; /* room for packed weights, not for a workspace */
    PD_CHECK_FAILS(pd_classifier_run(c, PD_FORM_FUSED, pixels, 1, 128, 128, &out, &err), PD_ENOMEM, "refused");
    PD_CHECK_FAILS(pd_classifier_run(c, PD_FORM_FUSED, pixels, 1, 96, 96, &out, &err), PD_ENOMEM, "refused");
    counted.refuse = 0;
    run(c, 96, 96, again);
    PD_CHECK(same(small, again));
    run(c, 128, 128, again);
    PD_CHECK(same(large, again));
    pd_classifier_free(c);
    PD_CHECK(counted.total == 0 && !device->shared);
    pd_device_close(device);
}

/* What a sanitizer is told of the workspace: kept values can be read, to their last byte; nothing else can. */
static void test_guard(void)
{
#ifdef PD_POISONS
    PD_ROW("guard");
    static float in[8 * 8 * 3];
    pd_device *device = open_counted();
    pd_params *params = NULL;
    pd_plan *plan = NULL;
    pd_tape *tape = NULL;
    PD_CHECK_OK(pd_params_new(&params, &err));
    PD_CHECK_OK(pd_tape_new(&tape, params, false, &err));
    pd_value *x = pd_tape_input(tape, "x", PD_F32, PD_SHAPE(1, 8, 8, 3)), *y = pd_subsample(tape, x, 2);
    pd_value *kept = pd_subsample(tape, y, 2);
    pd_tape_keep(tape, kept);
    PD_CHECK_OK(pd_plan_new(&plan, tape, device, PD_PLAN_INFER, NULL, &err));
    pd_plan_bind(x, in);
    PD_CHECK_OK(pd_plan_forward(plan, &err));
    const size_t bytes = pd_shape_size(kept->shape) * sizeof(float);
    PD_CHECK(!__asan_region_is_poisoned(kept->data, bytes));
    PD_CHECK(__asan_address_is_poisoned((char *)kept->data + bytes));
    PD_CHECK(__asan_address_is_poisoned(y->data));
    pd_plan_free(plan);
    pd_tape_free(tape);
    pd_params_free(params);
    pd_device_close(device);
#endif
}

static void test_keys(void)
{
    PD_ROW("keys");
    pd_device *device = open_counted();
    pd_shared *a = NULL, *b = NULL, *c = NULL;
    PD_CHECK_OK(pd_share(&a, device, "one", 3, &err));
    PD_CHECK_OK(pd_share(&b, device, "one", 3, &err));
    PD_CHECK_OK(pd_share(&c, device, "ones", 4, &err));
    PD_CHECK(a == b && a != c && !pd_shared_current(a));
    PD_CHECK_OK(device->alloc(device, &a->thing, 100, &err));
    pd_shared_done(a);
    PD_CHECK(pd_shared_current(b) && !pd_shared_current(c));
    pd_shared_changed(device);
    PD_CHECK(!pd_shared_current(b));
    pd_unshare(a);
    PD_CHECK(counted.total == 100);
    pd_unshare(b);
    pd_unshare(c);
    pd_unshare(NULL);
    PD_CHECK(counted.total == 0 && !device->shared);
    pd_device_close(device);
}

int main(void)
{
    pd_rng rng = pd_rng_make(1, 2, 3);
    for (size_t i = 0; i < sizeof pixels / sizeof *pixels; i++) pixels[i] = 2 * pd_rng_float(&rng) - 1;
    test_keys();
    test_shapes("pd_a_resnet18");
    test_shapes("pd_b_resnet18");
    test_changed();
    test_growth();
    test_no_room();
    test_guard();
    return pd_test_end();
}
