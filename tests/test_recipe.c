/* What modern training recipes add: AdamW and LAMB against torch.optim.AdamW and timm 0.6's Lamb, weight decay that
 * spares some, the loss of mixtures against PyTorch, mixup and CutMix, augmented batches whatever the number of
 * threads. golden/sgd/adam.safetensors: four tensors w0.NAME, gradients g.NAME of four steps, and what is behind them;
 * lr 0.02, betas 0.9 and 0.98, eps 1e-6, decay 0.05 but for b.bias. golden/sgd/mixed_loss.safetensors: logits x,
 * classes a and b; N.settings is sigmoid, smoothing, threshold, share; N.loss and N.dx by torch 1.13 with timm's
 * targets. */
#include "datasets/loader.h"
#include "datasets/mix.h"
#include "engine/plan.h"
#include "engine/safetensors.h"
#include "kernels/adam.h"
#include "kernels/mixed_loss.h"
#include "kernels/sgd.h"
#include "tests/pd_test.h"

#include <math.h>

static pd_err err;
static pd_device *device;

static const float *tensor(const pd_st *file, const char *name, float *room)
{
    const pd_st_tensor *t = pd_st_find(file, name);
    PD_CHECK_MSG(t && t->elements <= 256, "%s is missing", name);
    if (t && t->elements <= 256) pd_st_read_f32(room, t);
    return room;
}

static void test_adam(bool lamb)
{
    static const char *const names[] = {"a.weight", "b.bias", "c.weight", "z.weight"};
    static const int dims[][2] = {{6, 4}, {7, 0}, {3, 2}, {2, 2}};
    pd_st *golden = NULL;
    pd_params *params = NULL;
    pd_param *p[4] = {NULL};
    float room[256], mean[256] = {0}, square[256] = {0};
    char name[64];
    PD_ROW(lamb ? "LAMB" : "AdamW");
    PD_CHECK_OK(pd_st_open(&golden, PD_GOLDEN "/sgd/adam.safetensors", &err));
    PD_CHECK_OK(pd_params_new(&params, &err));
    if (!golden || !params) return;
    for (int i = 0; i < 4; i++) {
        const pd_param spec = {.rank = dims[i][1] ? 2 : 1, .dim = {dims[i][0], dims[i][1]}, .kind = PD_WEIGHT};
        PD_CHECK_OK(pd_params_get(&p[i], params, names[i], &spec, &err));
    }
    pd_params_decay(params, PD_DECAY_KERNELS);
    PD_CHECK_OK(pd_params_allocate(params, device, true, &err));
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "w0.%s", names[i]);
        memcpy(p[i]->data, tensor(golden, name, room), p[i]->count * sizeof(float));
        PD_CHECK(p[i]->no_decay == (i == 1));
    }
    for (int step = 1; step <= 4; step++) {
        for (int i = 0; i < 4; i++) {
            snprintf(name, sizeof name, "g.%s", names[i]);
            const float *g = tensor(golden, name, room) + (size_t)(step - 1) * p[i]->count;
            for (size_t k = 0; k < p[i]->count; k++) p[i]->grad[k] = 4 * g[k];
        }
        const pd_adam set = {.lr = 0.02,
                             .beta1 = 0.9,
                             .beta2 = 0.98,
                             .eps = 1e-6,
                             .weight_decay = 0.05,
                             .scale = 0.25,
                             .step = step,
                             .lamb = lamb};
        PD_CHECK_OK(pd_adam_step(device, params, mean, square, &set, &err));
    }
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%s.%s", lamb ? "lamb" : "adamw", names[i]);
        const float *want = tensor(golden, name, room);
        for (size_t k = 0; k < p[i]->count; k++) PD_CHECK_NEAR(p[i]->data[k], want[k], 2e-6);
    }
    pd_params_free(params);
    pd_st_close(golden);
    PD_ROW("");
}

/* Which weights decay, and that SGD obeys. */
static void test_decay(void)
{
    static const char *const names[] = {"conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "fc.bias"};
    static const float left[3][5] = {{0.9f, 0.9f, 0.9f, 1, 0.9f}, {0.9f, 1, 1, 1, 0.9f}, {0.9f, 1, 1, 1, 1}};
    for (int which = 0; which < 3; which++) {
        pd_params *params = NULL;
        pd_param *p[5];
        float velocity[256] = {0};
        PD_CHECK_OK(pd_params_new(&params, &err));
        for (int i = 0; i < 5; i++) {
            const pd_param spec = {.rank = i ? 1 : 2,
                                   .dim = {2, i ? 0 : 2},
                                   .kind = i == 3 ? PD_BUFFER : PD_WEIGHT,
                                   .init = {PD_INIT_CONST, 1}};
            PD_CHECK_OK(pd_params_get(&p[i], params, names[i], &spec, &err));
        }
        PD_CHECK_OK(pd_params_allocate(params, device, true, &err));
        PD_CHECK_OK(pd_params_init(params, 1, &err));
        pd_params_decay(params, (pd_decay)which);
        const pd_sgd sgd = {.lr = 0.5, .weight_decay = 0.2, .scale = 1};
        PD_CHECK_OK(pd_sgd_step(device, params, velocity, &sgd, &err));
        for (int i = 0; i < 5; i++) {
            PD_ROW(names[i]);
            PD_CHECK_NEAR(p[i]->data[1], left[which][i], 1e-6);
        }
        pd_params_free(params);
    }
    PD_ROW("");
}

static void test_loss(void)
{
    enum { N = 5, K = 7 };
    pd_st *golden = NULL;
    float x[256], want[256], classes[256], s[256], loss[256];
    int a[N], b[N];
    char name[32];
    PD_CHECK_OK(pd_st_open(&golden, PD_GOLDEN "/sgd/mixed_loss.safetensors", &err));
    if (!golden) return;
    tensor(golden, "x", x);
    for (int i = 0; i < N; i++) a[i] = (int)tensor(golden, "a", classes)[i];
    for (int i = 0; i < N; i++) b[i] = (int)tensor(golden, "b", classes)[i];
    for (int row = 0; row < 6; row++) {
        pd_params *params = NULL;
        pd_tape *t = NULL;
        pd_plan *plan = NULL;
        pd_value *correct;
        snprintf(name, sizeof name, "%d.settings", row);
        PD_ROW(name);
        tensor(golden, name, s);
        const pd_mixed_cfg cfg = {s[0] > 0 ? PD_MIXED_SIGMOID : PD_MIXED_SOFTMAX, s[1], s[2]};
        const pd_param spec = {.rank = 2, .dim = {N, K}, .kind = PD_WEIGHT};
        PD_CHECK_OK(pd_params_new(&params, &err));
        PD_CHECK_OK(pd_tape_new(&t, params, true, &err));
        pd_value *logits = pd_tape_param(t, "x", &spec);
        pd_value *va = pd_tape_input(t, "a", PD_I32, PD_SHAPE(N)), *vb = pd_tape_input(t, "b", PD_I32, PD_SHAPE(N));
        pd_value *share = pd_tape_input(t, "share", PD_F32, PD_SHAPE(1));
        pd_value *out = pd_mixed_loss(t, logits, va, vb, share, &cfg, &correct);
        pd_tape_minimise(t, out, 1);
        pd_tape_keep(t, correct);
        PD_CHECK_OK(pd_params_allocate(params, device, true, &err));
        PD_CHECK_OK(pd_plan_new(&plan, t, device, PD_PLAN_TRAIN, NULL, &err));
        if (!plan) break;
        pd_param *p = pd_params_find(params, "x");
        memcpy(p->data, x, sizeof(float) * N * K);
        pd_plan_bind(va, a);
        pd_plan_bind(vb, b);
        pd_plan_bind(share, &s[3]);
        PD_CHECK_OK(pd_plan_forward(plan, &err));
        PD_CHECK_OK(pd_plan_backward(plan, false, &err));
        snprintf(name, sizeof name, "%d.loss", row);
        PD_CHECK_NEAR(*(const float *)out->data, tensor(golden, name, loss)[0], 2e-6 * (double)loss[0]);
        snprintf(name, sizeof name, "%d.dx", row);
        tensor(golden, name, want);
        for (int i = 0; i < N * K; i++) PD_CHECK_NEAR(p->grad[i], want[i], 1e-7);
        int right = 0;
        for (int i = 0; i < N; i++) {
            int top = 0;
            for (int k = 1; k < K; k++) top = x[i * K + k] > x[i * K + top] ? k : top;
            right += top == (s[3] >= 0.5f ? a[i] : b[i]);
        }
        PD_CHECK_NEAR(*(const float *)correct->data, right, 0);
        a[0] = K;
        PD_CHECK_FAILS(pd_plan_forward(plan, &err), PD_EINVAL, "row 0 has class 7, expected 0..6");
        a[0] = 0;
        pd_plan_free(plan);
        pd_tape_free(t);
        pd_params_free(params);
    }
    PD_ROW("");
    pd_st_close(golden);
}

static void test_beta(double alpha)
{
    enum { DRAWS = 40000 };
    double sum = 0, squares = 0;
    pd_rng rng = pd_rng_make(3, 1, 4);
    for (int i = 0; i < DRAWS; i++) {
        const double v = pd_rng_beta(&rng, alpha);
        PD_CHECK(v >= 0 && v <= 1);
        sum += v;
        squares += (v - 0.5) * (v - 0.5);
    }
    const double variance = 1 / (4 * (2 * alpha + 1));
    PD_CHECK_NEAR(sum / DRAWS, 0.5, 0.01);
    PD_CHECK_NEAR(squares / DRAWS, variance, 0.03 * variance);
}

/* Images of one value each: what is mixed can be read off. */
static void test_mix(void)
{
    enum { N = 3, H = 20, W = 30, SIZE = H * W * 3 };
    static float x[N * SIZE], work[SIZE];
    const int labels[N] = {10, 20, 30};
    int others[N], cuts = 0;
    pd_rng rng = pd_rng_make(7, 0, 0);
    const pd_mix_cfg both = {0.2, 1.0}, none = {0, 0}, only_cut = {0, 1};
    for (int round = 0; round < 400; round++) {
        const pd_mix m = pd_mix_draw(&both, H, W, &rng);
        cuts += m.cut;
        for (int i = 0; i < N; i++)
            for (int k = 0; k < SIZE; k++) x[i * SIZE + k] = (float)(i + 1);
        pd_mix_apply(&m, x, labels, others, N, H, W, work);
        for (int i = 0; i < N; i++) {
            const float own = (float)(i + 1), before = (float)(i ? i : N);
            double sum = 0;
            PD_CHECK_INT(others[i], labels[i ? i - 1 : N - 1]);
            for (int k = 0; k < SIZE; k++) {
                const float v = x[i * SIZE + k];
                sum += (double)v;
                if (m.cut) PD_CHECK(v == own || v == before);
            }
            PD_CHECK_NEAR(sum / SIZE, m.share * own + (1 - m.share) * before, 1e-5); /* the share is what is there */
        }
    }
    PD_CHECK(cuts > 150 && cuts < 250);
    PD_CHECK(pd_mix_draw(&none, H, W, &rng).share == 1);
    PD_CHECK(pd_mix_draw(&only_cut, H, W, &rng).cut);
}

/* Augmented batches are the same for any number of threads, and others in another epoch. */
static void test_threads(void)
{
    enum { N = 6, SIDE = 32, SIZE = N * SIDE * SIDE * 3 };
    static float got[3][SIZE];
    static const char *const paths[N] = {PD_GOLDEN "/images/b422.jpg", PD_GOLDEN "/images/b422.jpg",
                                         PD_GOLDEN "/images/b422.jpg", PD_GOLDEN "/images/b422.jpg",
                                         PD_GOLDEN "/images/b422.jpg", PD_GOLDEN "/images/b422.jpg"};
    for (int run = 0; run < 3; run++) {
        pd_loader *loader = NULL;
        const pd_batch *b = NULL;
        pd_loader_config l = pd_loader_defaults();
        l.paths = paths;
        l.n_paths = N;
        l.batch = N;
        l.seed = 5;
        l.threads = run == 1 ? 4 : 1;
        l.transform = pd_transform_train();
        l.transform.crop = SIDE;
        l.transform.erase = 0.5;
        l.transform.augment = (pd_augment){PD_AUGMENT_RAND, 2, 9, 0.5, 1};
        PD_CHECK_OK(pd_loader_open(&loader, &l, &err));
        if (!loader) return;
        PD_CHECK_OK(pd_loader_start(loader, run == 2, 0, &err));
        PD_CHECK_OK(pd_loader_next(loader, &b, &err));
        PD_CHECK(b && b->n == N);
        if (b && b->n == N) memcpy(got[run], b->pixels, sizeof got[run]);
        pd_loader_close(loader);
    }
    PD_CHECK(!memcmp(got[0], got[1], sizeof got[0]));
    PD_CHECK(memcmp(got[0], got[2], sizeof got[0]) != 0);
}

int main(void)
{
    PD_CHECK_OK(pd_device_open(&device, "cpu", 2, &err));
    test_adam(false);
    test_adam(true);
    test_decay();
    test_loss();
    test_beta(0.1);
    test_beta(1);
    test_beta(2.5);
    test_mix();
    test_threads();
    pd_device_close(device);
    return pd_test_end();
}
