/* pd_classify and pd_detect from the outside, as somebody with weights of his own uses them: a file without metadata
 * holding the reference's weights, tensors in, tensors out: the numbers of the golden files. The same for what pd_fold
 * makes of it.
 * ctest: slow */
#include "backbones/classifier.h"
#include "tests/golden_output.h"
#include "tests/programs.h"

#include <stdarg.h>

static char dir[256], weights[400], folded[400], output[400];

static bool run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static bool run(const char *fmt, ...)
{
    char command[3000];
    pd_child c = {0};
    va_list args;
    va_start(args, fmt);
    vsnprintf(command, sizeof command, fmt, args);
    va_end(args);
    pd_child_run(&c, NULL, PD_BIN_DIR, "%s --threads 2", command);
    PD_CHECK_MSG(c.code == 0, "%s: exit code %d: %s", c.line, c.code, c.err);
    const bool done = c.code == 0;
    pd_child_free(&c);
    return done;
}

/* ---- classifiers ---- */

static void write_classifier(const pd_st *golden, const char *branches)
{
    pd_classifier *net = NULL;
    pd_classifier_settings set = {.classes = atoi(pd_st_meta(golden, "classes"))};
    PD_CHECK_OK(pd_arch_parse(&set.arch, pd_st_meta(golden, "arch"), branches, &err));
    PD_CHECK_OK(pd_classifier_new(&net, device, &set, &err));
    pd_oracle_fill(pd_classifier_params(net), (uint64_t)atoi(pd_st_meta(golden, "seed")), false, 1);
    PD_CHECK_OK(pd_oracle_save(weights, pd_classifier_params(net), &err));
    pd_classifier_free(net);
}

static void test_classifier(const char *file)
{
    pd_st *golden = NULL;
    char path[512], says[256];
    PD_ROW(file);
    snprintf(path, sizeof path, "%s/paradise/%s.safetensors", PD_GOLDEN, file);
    PD_CHECK_OK(pd_st_open(&golden, path, &err));
    if (!golden) return;
    const char *arch = pd_st_meta(golden, "arch"),
               *branches = strstr(arch, "pd_") ? pd_st_meta(golden, "branches") : NULL;
    snprintf(says, sizeof says, "--arch %s --num-classes %s%s%s", arch, pd_st_meta(golden, "classes"),
             branches ? " --branches " : "", branches ? branches : "");
    worst_tensor = 0;
    write_classifier(golden, branches);
    if (run("pd_classify %s --input %s --output %s --stages %s", weights, path, output, says))
        check_output(golden, output);
    if (run("pd_classify %s --input %s --output %s --stages --mode branches %s", weights, path, output, says))
        check_output(golden, output);
    if (run("pd_fold %s -o %s --verify 1 %s", weights, folded, says) &&
        run("pd_classify %s --input %s --output %s --stages", folded, path, output))
        check_output(golden, output);
    printf("%s: largest difference %.1e (%s)\n", file, worst_tensor, worst_name);
    pd_st_close(golden);
}

/* ---- detectors ---- */

static void test_detector(const char *file, pd_detector_type type, const char *config)
{
    char path[512];
    pd_arena *arena = pd_arena_new();
    PD_ROW(file);
    pd_st *golden = golden_open(file);
    if (!golden) return;
    snprintf(path, sizeof path, "%s/detection/%s.safetensors", PD_GOLDEN, file);
    pd_detector *d = golden_forward_detector(pd_detector_defaults(type), golden);
    PD_CHECK_OK(pd_oracle_save(weights, pd_detector_params(d), &err));
    pd_detector_free(d);
    worst_tensor = 0;
    char says[512];
    snprintf(says, sizeof says,
             "--config %s/configs/%s.json --set model.backbone.arch=\"%s\" --set model.num_classes=%s", PD_SOURCE_DIR,
             config, pd_st_meta(golden, "arch"), pd_st_meta(golden, "classes"));
    if (run("pd_detect %s --input %s --raw %s --quiet %s", weights, path, output, says)) check_output(golden, output);
    if (run("pd_fold %s -o %s --verify 1 %s", weights, folded, says) &&
        run("pd_detect %s --input %s --raw %s", folded, path, output))
        check_output(golden, output);
    printf("%s: largest difference %.1e (%s)\n", file, worst_tensor, worst_name);
    pd_st_close(golden);
    pd_arena_free(arena);
}

int main(void)
{
    if (!pd_test_dir(dir, "outside")) return 1;
    snprintf(weights, sizeof weights, "%s/weights.safetensors", dir);
    snprintf(folded, sizeof folded, "%s/folded.safetensors", dir);
    snprintf(output, sizeof output, "%s/output.safetensors", dir);
    PD_CHECK_OK(pd_device_open(&device, "cpu", 2, &err));
    static const char *const nets[] = {
        "net_resnet18",      "net_se_resnet18",   "net_ge_resnet18",   "net_ac_resnet18",
        "net_pd_a_resnet18", "net_pd_b_resnet18", "net_pd_b_resnet50", "net_pd_b_resnet18_s1_skeleton"};
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++) test_classifier(nets[i]);
    test_detector("retina_resnet18", PD_RETINANET, "retina_r50");
    test_detector("retina_pd_a_resnet18", PD_RETINANET, "retina_pd_a_r50");
    test_detector("cascade_resnet18", PD_CASCADE_RCNN, "cascade_r50");
    test_detector("cascade_pd_b_resnet18", PD_CASCADE_RCNN, "cascade_pd_b_r50");
    pd_device_close(device);
    pd_remove_tree(dir);
    return pd_test_end();
}
