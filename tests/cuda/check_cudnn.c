/* Does cuDNN accept every convolution that our networks ask it for on an H100? Plans every configuration of configs/, in
 * training and inference, on a device that is only described (tests/golden/cuda/h100.json): no GPU and no driver needed.
 *
 *   check_cudnn [PART OF A NAME]
 *   check_cudnn --dump FILE         no check: describes the GPU that is here to FILE, in the words of h100.json */
#include "engine/plan.h"
#include "engine/plugin.h"
#include "backbones/resnet.h"
#include "kernels/softmax_ce.h"
#include "tests/cuda/describe.h"
#include "tests/pd_test.h"
#include "tools/cls_config.h"
#include "tools/det_config.h"

#include <dirent.h>
#include <dlfcn.h>
#include <sys/stat.h>
#include <unistd.h>

typedef pd_status open_fn(pd_device **out, const char *json, pd_err *err);

static pd_status measure_classifier(size_t *bytes, pd_device *d, pd_form form, pd_arch arch, int n, int side, pd_err *err)
{
    pd_params *params = NULL;
    pd_tape *t = NULL;
    pd_status status = PD_OK;
    const bool train = form == PD_FORM_TRAIN;
    PD_TRY_DONE(pd_params_new(&params, err));
    PD_TRY_DONE(pd_tape_new(&t, params, train, err));
    pd_value *image = pd_tape_input(t, "image", PD_F32, PD_SHAPE(n, side, side, 3));
    pd_value *logits = pd_record_classifier(t, form, arch, 1000, image, NULL);
    if (train) {
        pd_value *label = pd_tape_input(t, "label", PD_I32, PD_SHAPE(n));
        pd_tape_minimise(t, pd_softmax_ce(t, logits, label, NULL, 0, NULL), 1);
    } else {
        pd_tape_keep(t, logits);
    }
    PD_TRY_DONE(pd_tape_status(t, err));
    PD_TRY_DONE(pd_plan_measure(bytes, t, d, train ? PD_PLAN_TRAIN : PD_PLAN_INFER, err));
done:
    pd_tape_free(t);
    pd_params_free(params);
    return status;
}

static void check_classifier(const char *name, pd_config *c, pd_device *d, pd_arena *arena)
{
    pd_err err = PD_ERR_INIT;
    pd_cls_config cfg;
    pd_arch arch;
    size_t bytes = 0;
    PD_CHECK_OK(pd_config_read(&cfg, c, &pd_cls_table, arena, &err));
    PD_CHECK_OK(pd_arch_parse(&arch, cfg.model.arch, cfg.model.branches, &err));
    const int side = cfg.data.has_train_transform ? cfg.data.train_transform.crop : 224;
    PD_CHECK_OK(measure_classifier(&bytes, d, PD_FORM_TRAIN, arch, cfg.train.batch_size, side, &err));
    printf("%-36s %s  batch %d: %.0f MiB\n", name, pd_precision_text(d->precision), cfg.train.batch_size, (double)bytes / 1048576);
    for (int n = 1; n <= 32; n *= 32) PD_CHECK_OK(measure_classifier(&bytes, d, PD_FORM_FOLDED, arch, n, side, &err));
}

static pd_status measure_detector(size_t *bytes, pd_device *d, const pd_detector_settings *set, int h, int w, pd_err *err)
{
    pd_params *params = NULL;
    pd_tape *t = NULL;
    pd_status status = PD_OK;
    PD_TRY_DONE(pd_params_new(&params, err));
    PD_TRY_DONE(pd_tape_new(&t, params, false, err));
    PD_TRY_DONE(pd_record_detector(t, PD_FORM_FOLDED, set, h, w, err));
    PD_TRY_DONE(pd_plan_measure(bytes, t, d, PD_PLAN_INFER, err));
done:
    pd_tape_free(t);
    pd_params_free(params);
    return status;
}

static void check_detector(const char *name, pd_config *c, pd_device *d, pd_arena *arena)
{
    pd_err err = PD_ERR_INIT;
    pd_det_config cfg;
    pd_detector_settings set;
    size_t bytes = 0;
    PD_CHECK_OK(pd_config_read(&cfg, c, &pd_det_table, arena, &err));
    PD_CHECK_OK(pd_det_settings(&set, &cfg, 80, &err));
    const int w = (cfg.data.resize[0] + 31) / 32 * 32, h = (cfg.data.resize[1] + 31) / 32 * 32;
    PD_CHECK_OK(pd_detector_training_bytes(&bytes, d, &set, 2, h, w, &err));
    printf("%-36s %s  2 images of %dx%d: %.0f MiB\n", name, pd_precision_text(d->precision), w, h, (double)bytes / 1048576);
    PD_CHECK_OK(pd_detector_training_bytes(&bytes, d, &set, 2, w, h, &err));
    set.folded = true;
    PD_CHECK_OK(measure_detector(&bytes, d, &set, h, w, &err));
}

static void check_config(const char *name, pd_device *d)
{
    pd_err err = PD_ERR_INIT;
    pd_config *c = NULL;
    char path[512];
    pd_arena *arena = pd_arena_new();
    snprintf(path, sizeof path, "%s/configs/%s", PD_SOURCE_DIR, name);
    PD_ROW(name);
    PD_CHECK_OK(pd_config_load(&c, path, &err));
    if (c && (strstr(name, "retina") || strstr(name, "cascade") || strstr(name, "faster")))
        check_detector(name, c, d, arena);
    else if (c)
        check_classifier(name, c, d, arena);
    pd_config_free(c);
    pd_arena_free(arena);
    PD_ROW("");
}

/* Of the only file in the folder's "paradise"; and_remove: with the folders. */
static long stored_bytes(const char *cache, bool and_remove)
{
    char folder[64], path[400];
    struct dirent **names = NULL;
    struct stat file = {0};
    snprintf(folder, sizeof folder, "%s/paradise", cache);
    const int count = scandir(folder, &names, NULL, NULL);
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
        if (names[i]->d_name[0] != '.' && stat(path, &file) == 0 && and_remove) remove(path);
        free(names[i]);
    }
    free(names);
    if (and_remove) rmdir(folder);
    if (and_remove) rmdir(cache);
    return (long)file.st_size;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

int main(int argc, char **argv)
{
    static const char *const precisions[] = {"bf16", "fp16", "tf32", "fp32", "bf16"};
    const char *only = argc > 1 ? argv[1] : "";
    char json[4096] = "";
    pd_err err = PD_ERR_INIT;
    if (argc == 3 && !strcmp(argv[1], "--dump")) {
        const pd_status status = describe_gpu(argv[2], &err);
        if (status != PD_OK) fprintf(stderr, "%s\n", err.text);
        return status != PD_OK;
    }
    void *plugin = dlopen(PD_PLUGIN_FILE, RTLD_NOW | RTLD_LOCAL);
    if (!plugin) {
        PD_SKIP("%s", dlerror());
        return pd_test_end();
    }
    open_fn *open_offline = NULL;
    pd_plugin_fn *table = NULL;
    void *symbol = dlsym(plugin, "pd_plugin_cuda_offline"), *entry = dlsym(plugin, "pd_plugin_cuda");
    static const unsigned sizes[] = PD_PLUGIN_SIZES;
    memcpy(&open_offline, &symbol, sizeof open_offline);
    memcpy(&table, &entry, sizeof table);
    if (!table || memcmp(table()->sizes, sizes, sizeof sizes) != 0) {
        PD_CHECK_MSG(false, "%s belongs to another build", PD_PLUGIN_FILE);
        return pd_test_end();
    }
    FILE *f = fopen(PD_GOLDEN "/cuda/h100.json", "rb");
    PD_CHECK(open_offline && f);
    if (f) json[fread(json, 1, sizeof json - 1, f)] = '\0';
    json[strcspn(json, "\n")] = '\0';
    if (f) fclose(f);
    struct dirent **names = NULL;
    const int count = scandir(PD_SOURCE_DIR "/configs", &names, NULL, by_name);
    PD_CHECK(count > 2);
    char cache[] = "/tmp/pd_check_cudnn.XXXXXX";
    PD_CHECK(mkdtemp(cache) != NULL);
    setenv("XDG_CACHE_HOME", cache, 1);
    long stored = 0;
    for (int p = 0; p < 5 && open_offline; p++) {
        pd_device *d = NULL;
        PD_CHECK_OK(open_offline(&d, json, &err));
        if (!d) break;
        PD_CHECK_OK(pd_device_set_precision(d, precisions[p], &err));
        if (p == 4) stored = stored_bytes(cache, false);
        for (int i = 0; i < count; i++) {
            const char *name = names[i]->d_name;
            /* float32, and from the store: the networks that differ in shape */
            const bool few = p < 2 || !strcmp(name, "cls_pd_b_r50.json") || !strcmp(name, "retina_pd_a_r50.json") ||
                             !strcmp(name, "cls_ge_r18.json");
            if (strstr(name, ".json") && strstr(name, only) && few) check_config(name, d);
        }
        pd_device_close(d);
    }
    /* plans that were found in the store and could be made again are not stored again */
    const long now = stored_bytes(cache, true);
    PD_CHECK_MSG(now == stored && now > 0, "%ld bytes of plans are stored, %ld before they were read", now, stored);
    for (int i = 0; i < count; i++) free(names[i]);
    free(names);
    return pd_test_end();
}
