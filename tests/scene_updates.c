/* Optimisers: steps on the CPU and on another device. */
#include "kernels/adam.h"
#include "kernels/sgd.h"
#include "tests/pd_test.h"
#include "tests/scene.h"

enum { TENSORS = 150, UPDATES = 6, UPDATE_STEPS = 3 };
static const char *const update_names[UPDATES] = {"update sgd",  "update sgd sparing some", "update adamw",
                                                  "update lamb", "update sgd clipped",      "update lamb clipped"};

static bool uses_sgd(int kind)
{
    return kind < 2 || kind == 4;
}

/* Weights after some steps from drawn weights and gradients, and the gradients' norms where they are clipped; with fp16
 * the gradients carry the scale, and those of the second step are infinite in one place. */
static pd_status run_update(float **weights, double norms[UPDATE_STEPS], size_t *count, int kind, pd_device *d,
                            pd_err *err)
{
    pd_params *params = NULL;
    float *state[2] = {NULL, NULL}, *g = NULL;
    pd_status status = PD_OK;
    PD_TRY_DONE(pd_params_new(&params, err));
    for (int i = 0; i < TENSORS; i++) { /* one weight, one more than a block has, an odd number */
        char name[32];
        const int n = i == 70 ? 4097 : i == 71 ? 9000 : i % 7 == 0 ? 1 : 3 * i + 5;
        const pd_param spec = {
            .rank = 1 + i % 2, .dim = {n, 1}, .kind = i % 10 == 3 ? PD_BUFFER : PD_WEIGHT, .init = {PD_INIT_NORMAL, 1}};
        pd_param *p;
        snprintf(name, sizeof name, "%d.weight", i);
        PD_TRY_DONE(pd_params_get(&p, params, name, &spec, err));
    }
    PD_TRY_DONE(pd_params_allocate(params, d, true, err));
    PD_TRY_DONE(pd_params_init(params, 3, err));
    pd_params_decay(params, kind == 0 ? PD_DECAY_ALL : PD_DECAY_KERNELS);
    pd_params_freeze(params, "5.");
    float *w = pd_params_weights(params, count);
    g = malloc(*count * sizeof *g);
    for (int i = 0; i < 2; i++) {
        PD_TRY_DONE(d->alloc(d, (void **)&state[i], *count * sizeof(float), err));
        PD_TRY_DONE(d->fill(d, state[i], 0, *count * sizeof(float), err));
    }
    float scale = d->precision == PD_FP16 ? 65536.f : 1.f;
    int t = 0;
    for (int step = 0; step < UPDATE_STEPS + (d->precision == PD_FP16); step++) {
        const bool bad = d->precision == PD_FP16 && step == 1;
        t += !bad;
        pd_rng rng = pd_rng_make(5, (uint32_t)t, 0);
        memset(g, 0, *count * sizeof *g);
        for (size_t i = 0; i < pd_params_count(params); i++) { /* not what pads them */
            const pd_param *p = pd_params_at(params, i);
            for (size_t k = 0; k < p->count && p->kind == PD_WEIGHT; k++)
                g[p->offset + k] = scale * (float)pd_rng_normal(&rng);
        }
        if (bad) g[*count / 2] = INFINITY;
        PD_TRY_DONE(d->upload(d, pd_params_grads(params), g, *count * sizeof *g, err));
        pd_clip clip = {.max_norm = t == 2 ? 1e9 : 5, .passes = 3}; /* the second step needs none */
        const pd_sgd sgd = {.lr = 0.1,
                            .momentum = 0.9,
                            .weight_decay = 0.01,
                            .scale = 0.5,
                            .nesterov = kind == 1,
                            .clip = kind >= 4 ? &clip : NULL};
        const pd_adam adam = {.lr = 0.1,
                              .beta1 = 0.9,
                              .beta2 = 0.98,
                              .eps = 1e-6,
                              .weight_decay = 0.1,
                              .scale = 0.5,
                              .step = t,
                              .lamb = kind == 3 || kind == 5,
                              .clip = kind >= 4 ? &clip : NULL};
        if (uses_sgd(kind))
            PD_TRY_DONE(pd_sgd_step(d, params, state[0], &sgd, err));
        else
            PD_TRY_DONE(pd_adam_step(d, params, state[0], state[1], &adam, err));
        if (bad) scale /= 2;
        PD_TRY_DONE(pd_clip_read(&clip, d, err));
        if (!bad) norms[t - 1] = clip.norm;
    }
    *weights = malloc(*count * sizeof **weights);
    PD_TRY_DONE(d->download(d, *weights, w, *count * sizeof **weights, err));
done:
    for (int i = 0; i < 2; i++)
        if (state[i]) d->release(d, state[i]);
    free(g);
    pd_params_free(params);
    return status;
}

static void check_update(int kind, pd_device *cpu, pd_device *gpu)
{
    pd_err err = PD_ERR_INIT;
    float *want = NULL;
    double want_norms[UPDATE_STEPS] = {0};
    size_t count = 0;
    PD_CHECK_OK(run_update(&want, want_norms, &count, kind, cpu, &err));
    if (kind >= 4) PD_CHECK(want_norms[0] > 5); /* clipped */
    for (int p = 0; p < PRECISIONS; p++) {
        float *got = NULL;
        double norms[UPDATE_STEPS] = {0};
        if (!precision_wanted(p)) continue;
        PD_ROW(update_names[kind]);
        PD_CHECK_OK(pd_device_set_precision(gpu, precisions[p].name, &err));
        const pd_status status = run_update(&got, norms, &count, kind, gpu, &err);
        PD_CHECK_MSG(status == PD_OK, "%s", err.text);
        if (status == PD_OK) {
            const double d = distance(want, got, count);
            PD_CHECK_MSG(d < 1e-6, "%s: weights differ by %.3g of their size", precisions[p].name, d);
            for (int i = 0; i < UPDATE_STEPS && kind >= 4; i++)
                PD_CHECK_NEAR(norms[i], want_norms[i], 1e-6 * want_norms[i]);
        }
        free(got);
        PD_ROW("");
    }
    free(want);
}

scene_tally check_updates(const char *only, pd_device *cpu, pd_device *gpu)
{
    for (int i = 0; i < UPDATES; i++)
        if (strstr(update_names[i], only)) check_update(i, cpu, gpu);
    return (scene_tally){pd_test_checks, pd_test_failures};
}
