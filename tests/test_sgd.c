/* SGD against PyTorch: the update rule alone, and pd_cls_train from the outside: five optimiser steps from made weights
 * on a folder of pictures give the reference's losses and the norms of every tensor behind the last step.
 * tests/golden/sgd/README.md says how the files were made and how far float32 itself is off. */
#include "backbones/classifier.h"
#include "engine/json.h"
#include "engine/log.h"
#include "kernels/sgd.h"
#include "tests/oracle.h"
#include "tests/pd_test.h"
#include "tests/programs.h"

#include <unistd.h>

static pd_err err;
static char dir[256];

/* Weights of the reference's rule as a file without metadata. */
static void write_weights(const char *path, const char *arch, int classes, uint64_t seed)
{
    pd_device *device = NULL;
    pd_classifier *net = NULL;
    pd_classifier_settings set = {.classes = classes};
    PD_CHECK_OK(pd_device_open(&device, "cpu", 2, &err));
    PD_CHECK_OK(pd_arch_parse(&set.arch, arch, NULL, &err));
    PD_CHECK_OK(pd_classifier_new(&net, device, &set, &err));
    pd_oracle_fill(pd_classifier_params(net), seed, false, 1);
    PD_CHECK_OK(pd_oracle_save(path, pd_classifier_params(net), &err));
    pd_classifier_free(net);
    pd_device_close(device);
}

/* ---- the rule ---- */

/* torch.optim.SGD, float64: w = [1, -2, 0.5], three steps with the gradients below, lr 0.1, 0.1, 0.01. */
static const struct {
    const char *name;
    double momentum, decay;
    bool nesterov;
    double w[3][3]; /* behind each step */
} rules[] = {
    {"plain", 0, 0, false, {{0.95, -1.9, 0.3}, {0.925, -1.9, 0.7}, {0.935, -1.93, 0.69875}}},
    {"momentum", 0.9, 0, false, {{0.95, -1.9, 0.3}, {0.88, -1.81, 0.52}, {0.8837, -1.8319, 0.53855}}},
    {"momentum and decay", 0.9, 0.1, false, {{0.94, -1.88, 0.295}, {0.8516, -1.7532, 0.50755}, {0.8527924, -1.7700348, 0.52492195}}},
    {"Nesterov", 0.9, 0.1, true, {{0.886, -1.772, 0.1105}, {0.773066, -1.641132, 0.7023505}, {0.7834805146, -1.684830529, 0.7160070291}}},
};

static void test_rule(void)
{
    static const float grads[3][3] = {{0.5f, -1, 2}, {0.25f, 0, -4}, {-1, 3, 0.125f}};
    static const double lr[3] = {0.1, 0.1, 0.01};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        pd_device *device = NULL;
        pd_params *params = NULL;
        pd_param *w = NULL, *frozen = NULL;
        float velocity[64] = {0};
        size_t count;
        const pd_param spec = {.rank = 1, .dim = {3}, .kind = PD_WEIGHT, .trainable = true};
        PD_ROW(rules[i].name);
        PD_CHECK_OK(pd_device_open(&device, "cpu", 2, &err));
        PD_CHECK_OK(pd_params_new(&params, &err));
        PD_CHECK_OK(pd_params_get(&w, params, "w", &spec, &err));
        PD_CHECK_OK(pd_params_get(&frozen, params, "still", &spec, &err));
        pd_params_freeze(params, "still");
        PD_CHECK_OK(pd_params_allocate(params, device, true, &err));
        pd_params_weights(params, &count);
        PD_CHECK(count <= 64);
        memcpy(w->data, (const float[]){1, -2, 0.5f}, 3 * sizeof(float));
        memcpy(frozen->data, w->data, 3 * sizeof(float));
        for (int step = 0; step < 3; step++) {
            const pd_sgd how = {.lr = lr[step], .momentum = rules[i].momentum, .weight_decay = rules[i].decay, .scale = 0.5,
                                .nesterov = rules[i].nesterov};
            for (int k = 0; k < 3; k++) w->grad[k] = frozen->grad[k] = 2 * grads[step][k]; /* a sum over two groups */
            PD_CHECK_OK(pd_sgd_step(device, params, velocity, &how, &err));
            for (int k = 0; k < 3; k++) PD_CHECK_NEAR(w->data[k], rules[i].w[step][k], 2e-7);
        }
        PD_CHECK(frozen->data[0] == 1 && frozen->data[1] == -2 && frozen->data[2] == 0.5f);
        pd_params_free(params);
        pd_device_close(device);
    }
}

/* ---- the program ---- */

static double number(const pd_json *object, const char *key)
{
    const pd_json *v = pd_json_member(object, key);
    return v ? pd_json_number(v) : NAN;
}

static void check_losses(const char *run, const pd_json *want, double tolerance, pd_arena *arena)
{
    pd_log_series *series = NULL;
    size_t count = 0, i = 0;
    double worst = 0;
    char path[600];
    snprintf(path, sizeof path, "%s/log.jsonl", run);
    PD_CHECK_OK(pd_log_read(&series, &count, path, arena, &err));
    const pd_log_series *loss = pd_log_find(series, count, "train", "loss");
    PD_CHECK_INT(loss ? loss->count : 0, pd_json_count(want));
    for (const pd_json *v = pd_json_first(want); v && loss && i < loss->count; v = pd_json_next(v), i++) {
        const double l = pd_json_number(v), off = fabs(loss->points[i].value / l - 1);
        PD_CHECK_INT(loss->points[i].step, i + 1);
        PD_CHECK_MSG(off <= tolerance, "loss of step %zu is %.9g, expected %.9g: off by %.2g of it", i + 1, loss->points[i].value, l, off);
        worst = fmax(worst, off);
    }
    printf("%s: losses off by at most %.1e", pd_test_row, worst);
}

/* L2 norms of all weights and running statistics behind the last step. */
static void check_norms(const char *run, const pd_json *want, pd_arena *arena)
{
    pd_st *file = NULL;
    char path[600];
    double worst = 0;
    snprintf(path, sizeof path, "%s/last.safetensors", run);
    PD_CHECK_OK(pd_st_open(&file, path, &err));
    for (const pd_json *v = pd_json_first(want); v && file; v = pd_json_next(v)) {
        const pd_st_tensor *t = pd_st_find(file, pd_json_key(v));
        PD_CHECK_MSG(t != NULL, "%s is missing", pd_json_key(v));
        if (!t) continue;
        float *x;
        double sum = 0;
        PD_CHECK_OK(PD_ALLOC(&x, arena, t->elements, &err));
        pd_st_read_f32(x, t);
        for (size_t i = 0; i < t->elements; i++) sum += (double)x[i] * (double)x[i];
        const double off = fabs(sqrt(sum) / pd_json_number(v) - 1);
        PD_CHECK_MSG(off <= 1e-3, "norm of %s is %.9g, expected %.9g", t->name, sqrt(sum), pd_json_number(v));
        worst = fmax(worst, off);
    }
    pd_st_close(file);
    printf(", norms by %.1e\n", worst);
}

static void test(const char *name)
{
    pd_json_doc *doc = NULL;
    pd_arena *arena = pd_arena_new();
    pd_child c = {0};
    char path[512], run[512], weights[512];
    PD_ROW(name);
    snprintf(path, sizeof path, "%s/sgd/%s.json", PD_GOLDEN, name);
    snprintf(run, sizeof run, "%s/%s", dir, name);
    snprintf(weights, sizeof weights, "%s/%s.safetensors", dir, name);
    PD_CHECK_OK(pd_json_read(&doc, path, 0, &err));
    if (!doc) return;
    const pd_json *root = pd_json_root(doc);
    const char *arch = pd_json_string(pd_json_member(root, "arch"));
    const pd_json *losses = pd_json_member(root, "losses"), *norms = pd_json_member(root, "norms");
    write_weights(weights, arch, 8, (uint64_t)number(root, "seed"));
    pd_child_run(&c, NULL, PD_BIN_DIR,
                 "pd_cls_train -a %s -d %s/sgd -b %g --lr %.17g --momentum 0.9 --weight-decay 1e-4 --init %s --work-dir %s --quiet"
                 " --set data.train_transform=none --set data.shuffle=false --set schedule.type=constant"
                 " --set train.log_interval=1 --set train.max_steps=%zu --threads 2 -j 2 --device %s --precision fp32",
                 arch, PD_GOLDEN, number(root, "batch"), number(root, "lr"), weights, run, pd_json_count(losses),
                 pd_oracle_device_name());
    PD_CHECK_MSG(c.code == 0, "exit code %d: %s", c.code, c.err);
    if (c.code == 0) {
        check_losses(run, losses, 1e-4, arena);
        check_norms(run, norms, arena);
    }
    pd_child_free(&c);
    pd_arena_free(arena);
    pd_json_close(doc);
}

int main(void)
{
    if (!pd_test_dir(dir, "sgd")) return 1;
    test_rule();
    test("pd_a_resnet18");
    test("pd_b_resnet18");
    pd_remove_tree(dir);
    return pd_test_end();
}
