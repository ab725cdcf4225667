/* pd_info: what a network is made of: layers, parameters, multiply-accumulates, latency. */
#include "backbones/fold.h"
#include "datasets/loader.h"
#include "engine/json.h"
#include "tools/cli.h"
#include "tools/detector_figures.h"
#include "tools/load_model.h"
#include "tools/progress.h"

#include <stdlib.h>
#include <string.h>

typedef struct options {
    int size[2], classes; /* 0: not given */
    const char *branches;
    bool table, layers, latency, json;
    const pd_strings *sets; /* --set, for configurations */
    pd_device *device;      /* for the latency */
} options;

/* Figures of a classifier in one form. */
typedef struct figures {
    double macs, params;
} figures;

static pd_status count(figures *out, pd_form form, pd_arch arch, int classes, int h, int w, bool layers, pd_err *err)
{
    pd_params *params = NULL;
    pd_tape *t = NULL;
    char shape[64];
    pd_status status = PD_OK;
    PD_TRY(pd_params_new(&params, err));
    PD_TRY_DONE(pd_tape_new(&t, params, false, err));
    pd_record_classifier(t, form, arch, classes, pd_tape_input(t, "image", PD_F32, PD_SHAPE(1, h, w, 3)), NULL);
    PD_TRY_DONE(pd_tape_status(t, err));
    out->macs = pd_tape_macs(t, NULL);
    out->params = (double)pd_params_elements(params, false);
    for (const pd_node *n = pd_tape_nodes(t); layers && n; n = n->next)
        printf("%-16s %-34s %-22s %12.3f\n", n->op->name, n->name, pd_shape_text(shape, n->out[0]->shape),
               n->op->macs ? n->op->macs(n) / 1e6 : 0.0);
done:
    pd_tape_free(t);
    pd_params_free(params);
    return status;
}

/* The networks of the published tables, in their order. */
static const char *const table_rows[] = {
    "resnet18", "se_resnet18", "ge_resnet18", "ac_resnet18",   "pd_a_resnet18",  "pd_b_resnet18",
    "resnet50", "se_resnet50", "ge_resnet50", "ac_resnet50",   "pd_a_resnet50",  "pd_b_resnet50",
    "resnet34", "resnet101",   "resnet152",   "pd_b_resnet34", "pd_b_resnet101", "pd_b_resnet152"};

static pd_status print_table(bool json, pd_err *err)
{
    pd_json_writer *w = json ? pd_json_array() : NULL;
    if (!json) printf("%-16s %8s %10s\n", "network", "GMAC", "M params");
    for (size_t i = 0; i < sizeof table_rows / sizeof *table_rows; i++) {
        pd_arch arch;
        figures f;
        pd_status status = pd_arch_parse(&arch, table_rows[i], NULL, err);
        if (status == PD_OK) status = count(&f, PD_FORM_COUNT, arch, 1000, 224, 224, false, err);
        if (status != PD_OK) {
            pd_json_free(w);
            return status;
        }
        if (!json) {
            printf("%-16s %8.4f %10.4f\n", table_rows[i], f.macs / 1e9, f.params / 1e6);
            continue;
        }
        pd_json_begin_object(w, NULL);
        pd_json_put_string(w, "network", table_rows[i]);
        pd_json_put_double(w, "gmac", f.macs / 1e9);
        pd_json_put_double(w, "params", f.params);
        pd_json_end(w);
    }
    if (!json) return PD_OK;
    char *text;
    pd_arena *arena = pd_arena_new();
    const pd_status status =
        arena ? pd_json_finish(&text, w, true, arena, err) : PD_FAIL(err, PD_ENOMEM, "out of memory");
    if (status == PD_OK) puts(text);
    pd_arena_free(arena);
    return status;
}

/* Puts v into the n sorted numbers. */
static void insert(double *sorted, int n, double v)
{
    for (; n > 0 && v < sorted[n - 1]; n--) sorted[n] = sorted[n - 1];
    sorted[n] = v;
}

/* Median milliseconds of one image, folded, with made-up weights. */
static pd_status time_folded(double *ms, pd_arch arch, const options *o, pd_err *err)
{
    enum { RUNS = 21 };
    double t[RUNS];
    pd_classifier *c = NULL;
    pd_classified y;
    float *x = NULL;
    pd_status status = PD_OK;
    const pd_classifier_settings set = {.arch = arch, .classes = o->classes, .folded = true};
    PD_TRY_DONE(pd_classifier_new(&c, o->device, &set, err));
    PD_TRY_DONE(pd_params_init(pd_classifier_params(c), 1, err));
    x = calloc((size_t)o->size[0] * (size_t)o->size[1] * 3, sizeof *x);
    if (!x) {
        status = PD_FAIL(err, PD_ENOMEM, "out of memory for an image");
        goto done;
    }
    for (int i = -3; i < RUNS; i++) {
        const double start = pd_seconds();
        PD_TRY_DONE(pd_classifier_run(c, PD_FORM_FOLDED, x, 1, o->size[1], o->size[0], &y, err));
        if (i >= 0) insert(t, i, 1e3 * (pd_seconds() - start));
    }
    *ms = t[RUNS / 2];
done:
    free(x);
    pd_classifier_free(c);
    return status;
}

static pd_status describe(pd_arch arch, options *o, pd_err *err)
{
    if (!o->size[0]) o->size[0] = o->size[1] = 224;
    if (!o->classes) o->classes = 1000;
    char name[32];
    figures deployed, whole, folded;
    double ms = 0;
    if (o->layers) printf("%-16s %-34s %-22s %12s\n", "operation", "name", "output", "MMAC");
    PD_TRY(count(&deployed, PD_FORM_COUNT, arch, o->classes, o->size[1], o->size[0], false, err));
    PD_TRY(count(&whole, PD_FORM_EVAL, arch, o->classes, o->size[1], o->size[0], o->layers && !o->json, err));
    PD_TRY(count(&folded, PD_FORM_FOLDED, arch, o->classes, o->size[1], o->size[0], false, err));
    if (o->latency) PD_TRY(time_folded(&ms, arch, o, err));
    pd_arch_name(name, arch);
    if (o->json) {
        char *text;
        pd_json_writer *w = pd_json_object();
        pd_json_put_string(w, "arch", name);
        pd_json_put_string(w, "branches", pd_branches_text(arch.branches));
        pd_json_put_int(w, "num_classes", o->classes);
        pd_json_put_double(w, "gmac", deployed.macs / 1e9);
        pd_json_put_double(w, "params", deployed.params);
        pd_json_put_double(w, "training_gmac", whole.macs / 1e9);
        pd_json_put_double(w, "training_params", whole.params);
        pd_json_put_double(w, "stored_params", folded.params);
        if (o->latency) pd_json_put_double(w, "latency_ms", ms);
        pd_arena *arena = pd_arena_new();
        const pd_status status =
            arena ? pd_json_finish(&text, w, true, arena, err) : PD_FAIL(err, PD_ENOMEM, "out of memory");
        if (status == PD_OK) puts(text);
        pd_arena_free(arena);
        return status;
    }
    if (o->layers) putchar('\n');
    printf("%s%s%s%s, %d classes, one image of %dx%d\n", name, arch.branches ? " (" : "",
           pd_branches_text(arch.branches), arch.branches ? ")" : "", o->classes, o->size[0], o->size[1]);
    printf("  as papers count it     %9.4f GMAC  %9.4f M parameters\n", deployed.macs / 1e9, deployed.params / 1e6);
    printf("  in training form       %9.4f GMAC  %9.4f M parameters\n", whole.macs / 1e9, whole.params / 1e6);
    printf("  folded, as stored      %9.4f GMAC  %9.4f M parameters  %.1f MB\n", folded.macs / 1e9, folded.params / 1e6,
           folded.params * 4e-6);
    if (o->latency)
        printf("  folded latency         %9.2f ms   %s (%s), %s%s%s\n", ms, o->device->name, o->device->title,
               pd_precision_text(o->device->precision), *o->device->why ? "; " : "", o->device->why);
    return PD_OK;
}

/* ---- detectors ---- */

/* Median milliseconds from one image to its detections, folded, with made-up weights. */
static pd_status time_detector(double *ms, const pd_detector_settings *settings, const options *o, pd_err *err)
{
    enum { RUNS = 9 };
    const int w = o->size[0], h = o->size[1];
    const size_t values = (size_t)h * (size_t)w * 3;
    double t[RUNS];
    pd_detector *d = NULL;
    float *x = NULL;
    pd_detection *found = NULL;
    int count;
    pd_status status = PD_OK;
    pd_detector_settings set = *settings;
    pd_image_info info = {.h = h, .w = w, .pad_h = h, .pad_w = w, .ori_h = h, .ori_w = w, .scale_x = 1, .scale_y = 1};
    pd_batch image = {.n = 1, .h = h, .w = w, .info = &info};
    set.folded = true;
    set.train = false;
    PD_TRY_DONE(pd_detector_new(&d, o->device, &set, err));
    PD_TRY_DONE(pd_params_init(pd_detector_params(d), 1, err));
    image.pixels = x = malloc(values * sizeof *x);
    found = malloc((size_t)set.test.max_per_image * sizeof *found);
    if (!x || !found) {
        status = PD_FAIL(err, PD_ENOMEM, "out of memory for an image");
        goto done;
    }
    for (size_t i = 0; i < values; i++) x[i] = (float)(i % 251) / 60 - 2;
    for (int i = -2; i < RUNS; i++) {
        const double start = pd_seconds();
        PD_TRY_DONE(pd_detector_detect(d, PD_FORM_FOLDED, &image, found, &count, err));
        if (i >= 0) insert(t, i, 1e3 * (pd_seconds() - start));
    }
    *ms = t[RUNS / 2];
done:
    free(x);
    free(found);
    pd_detector_free(d);
    return status;
}

static void put_figures(pd_json_writer *w, const pd_figures *f, const char *params, const char *trainable, const char *gmac)
{
    pd_json_put_double(w, params, f->params);
    pd_json_put_double(w, trainable, f->trainable);
    pd_json_put_double(w, gmac, f->macs / 1e9);
}

static pd_status print_detector_json(const pd_detector_settings *set, const options *o, const pd_detector_figures *f,
                                     const pd_detector_figures *whole, int batch, size_t bytes, double ms, pd_err *err)
{
    char name[32], *text;
    pd_json_writer *w = pd_json_object();
    pd_json_put_string(w, "type", pd_detector_name(set->type));
    pd_json_put_string(w, "arch", pd_arch_name(name, set->arch));
    pd_json_put_string(w, "branches", pd_branches_text(set->arch.branches));
    pd_json_put_int(w, "num_classes", set->classes);
    pd_json_put_int(w, "width", o->size[0]);
    pd_json_put_int(w, "height", o->size[1]);
    put_figures(w, &f->total, "params_total", "params_trainable", "gmac");
    pd_json_begin_object(w, "parts");
    for (int k = 0; k < PD_PARTS; k++) {
        if (!(f->part[k].params > 0)) continue;
        pd_json_begin_object(w, pd_part_names[k]);
        put_figures(w, &f->part[k], "params_total", "params_trainable", "gmac");
        pd_json_end(w);
    }
    pd_json_end(w);
    put_figures(w, &whole->total, "training_params_total", "training_params_trainable", "training_gmac");
    pd_json_put_int(w, "training_batch", batch);
    pd_json_put_double(w, "training_bytes", (double)bytes);
    if (o->latency) pd_json_put_double(w, "latency_ms", ms);
    pd_arena *arena = pd_arena_new();
    const pd_status status =
        arena ? pd_json_finish(&text, w, true, arena, err) : PD_FAIL(err, PD_ENOMEM, "out of memory");
    if (status == PD_OK) puts(text);
    pd_arena_free(arena);
    return status;
}

static void print_row(const char *name, const pd_figures *f)
{
    printf("  %-18s %9.3f %15.3f %11.3f\n", name, f->macs / 1e9, f->params / 1e6, f->trainable / 1e6);
}

/* What a training on the CPU takes beside its tensors: code, libraries, kernels that oneDNN compiles (measured). */
#define PROCESS_BYTES ((size_t)32 << 20)

/* Bytes that the batches of one loader take. */
static size_t loader_bytes(int batch, int h, int w)
{
    return ((size_t)pd_loader_defaults().ahead + 1) * (size_t)batch * (size_t)h * (size_t)w * 3 * sizeof(float);
}

/* validates: between the epochs there is a validation. */
static pd_status describe_detector(const pd_detector_settings *set, int batch, bool validates, options *o, pd_err *err)
{
    pd_detector_figures f, whole;
    size_t bytes, more = 0;
    double ms = 0;
    char name[32];
    if (!o->size[0]) o->size[0] = 1280, o->size[1] = 800;
    const int w = o->size[0], h = o->size[1];
    PD_TRY(pd_count_detector(&f, PD_FORM_COUNT, set, h, w, err));
    PD_TRY(pd_count_detector(&whole, PD_FORM_EVAL, set, h, w, err));
    PD_TRY(pd_detector_training_bytes(&bytes, o->device, set, batch, h, w, err));
    if (validates) PD_TRY(pd_detector_validation_bytes(&more, o->device, set, h, w, err));
    bytes += loader_bytes(batch, h, w) + more + (validates ? loader_bytes(1, h, w) : 0);
    if (o->device->kind == PD_CPU) bytes += PROCESS_BYTES;
    if (o->latency) PD_TRY(time_detector(&ms, set, o, err));
    if (o->json) return print_detector_json(set, o, &f, &whole, batch, bytes, ms, err);
    printf("%s, %s%s%s%s, %d classes, one image of %dx%d\n", pd_detector_title(set->type), pd_arch_name(name, set->arch),
           set->arch.branches ? " (" : "", pd_branches_text(set->arch.branches), set->arch.branches ? ")" : "", set->classes, w, h);
    printf("  %-18s %9s %15s %11s\n", "", "GMAC", "M parameters", "trained");
    for (int k = 0; k < PD_PARTS; k++)
        if (f.part[k].params > 0) print_row(pd_part_names[k], &f.part[k]);
    print_row("total", &f.total);
    if (set->arch.branches) print_row("in training form", &whole.total);
    printf("  training takes %.2f GB for %d images at a time%s\n", (double)bytes / 1e9, batch,
           validates ? ", validation included" : "");
    if (o->latency) printf("  folded latency %.1f ms, from the image to its detections\n", ms);
    return PD_OK;
}

/* What a detector's configuration describes; classes: where it does not say. */
static pd_status describe_det_config(const pd_config *c, int classes, options *o, pd_err *err)
{
    pd_det_config cfg;
    pd_detector_settings set;
    pd_arena *arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "out of memory for a configuration");
    pd_status status = pd_config_read(&cfg, c, &pd_det_table, arena, err);
    if (status == PD_OK) status = pd_det_settings(&set, &cfg, o->classes ? o->classes : classes, err);
    if (status == PD_OK && o->classes) set.classes = o->classes;
    if (status == PD_OK) status = describe_detector(&set, cfg.train.micro_batch, cfg.data.val.annotations != NULL, o, err);
    pd_arena_free(arena);
    return status;
}

static pd_status describe_det_file(const char *path, const pd_model_meta *meta, options *o, pd_err *err)
{
    pd_config *c = NULL;
    if (!meta->config)
        return PD_FAIL(err, PD_EFORMAT, "%s: holds no configuration: give that to pd_info instead", path);
    PD_TRY(pd_config_parse(&c, path, meta->config, strlen(meta->config), err));
    o->classes = meta->classes;
    const pd_status status = describe_det_config(c, meta->classes, o, err);
    pd_config_free(c);
    return status;
}

/* ---- files ---- */

static bool ends_with(const char *text, const char *end)
{
    return strlen(text) >= strlen(end) && !strcmp(text + strlen(text) - strlen(end), end);
}

static pd_status describe_file(const char *path, options *o, pd_err *err)
{
    pd_st *file = NULL;
    pd_model_meta meta;
    pd_arena *arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    pd_status status = pd_st_open(&file, path, err);
    if (status == PD_OK) status = pd_model_meta_read(&meta, file, NULL, o->branches, 0, "classifier", arena, err);
    if (status == PD_OK) {
        if (!o->json)
            printf("%s: a %s%s, %zu tensors\n", path, meta.folded ? "folded " : "", meta.type, pd_st_count(file));
        o->classes = meta.classes;
        const bool classifier = !strcmp(meta.type, "classifier");
        status = classifier ? describe(meta.arch, o, err) : describe_det_file(path, &meta, o, err);
    }
    pd_st_close(file);
    pd_arena_free(arena);
    return status;
}

static pd_status describe_config(const char *path, options *o, pd_err *err)
{
    pd_config *c = NULL;
    pd_arch arch;
    pd_status status = PD_OK;
    pd_arena *arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    PD_TRY_DONE(pd_config_load(&c, path, err));
    for (size_t i = 0; o->sets && i < o->sets->count; i++) PD_TRY_DONE(pd_config_set(c, o->sets->items[i], err));
    if (pd_config_has(c, "model.type") || pd_config_has(c, "model.backbone")) {
        status = describe_det_config(c, 80, o, err);
        goto done;
    }
    pd_cls_config cls;
    PD_TRY_DONE(pd_config_read(&cls, c, &pd_cls_table, arena, err));
    if (!o->classes) o->classes = cls.model.num_classes;
    PD_TRY_DONE(pd_arch_parse(&arch, cls.model.arch, cls.model.branches, err));
    status = describe(arch, o, err);
done:
    pd_config_free(c);
    pd_arena_free(arena);
    return status;
}

int main(int argc, char **argv)
{
    options o = {.json = false};
    const pd_opt opts[] = {
        PD_OPT_FLAG(0, "table", &o.table, "the published table: GMAC and parameters of all networks"),
        PD_OPT_SIZE(0, "input", "WxH", o.size, "size of the image (224; detectors 1280x800)"),
        PD_OPT_INT(0, "num-classes", "N", &o.classes, 1, 1000000, "classes (1000; detectors 80)"),
        PD_OPT_STRING(0, "branches", "LIST", &o.branches, "s1,s2,skeleton,group or some of them"),
        PD_OPT_FLAG(0, "layers", &o.layers, "every operation of the training form"),
        PD_OPT_FLAG(0, "latency", &o.latency, "measure the folded network"),
        PD_OPT_FLAG(0, "json", &o.json, "print JSON"),
    };
    const pd_cli cli = {.program = "pd_info",
                        .usage = "ARCH|CONFIG.json|MODEL.safetensors",
                        .about = "Layers, parameters and multiply-accumulates of a network.",
                        .example = "pd_info pd_b_resnet50 --latency",
                        .opts = opts,
                        .n_opts = sizeof opts / sizeof *opts,
                        .common = PD_CLI_DEVICE | PD_CLI_THREADS | PD_CLI_SET,
                        .min_args = 0,
                        .max_args = 1};
    pd_cli_args args;
    const int code = pd_cli_parse(&args, &cli, argc, argv);
    if (code >= 0) return code;
    if (!o.table == !args.n_args) {
        pd_cli_free(&args);
        return pd_cli_wrong(&cli, o.table ? "--table shows all networks: no other is given with it"
                                          : "an architecture, a configuration or a model is needed (or --table)");
    }
    o.sets = &args.set;
    pd_err err = PD_ERR_INIT;
    pd_status status = pd_device_open(&o.device, args.device, args.threads, &err);
    if (status == PD_OK) status = pd_device_set_precision(o.device, args.precision, &err);
    if (status != PD_OK) {
        /* nothing of that device can be told */
    } else if (o.table) {
        status = print_table(o.json, &err);
    } else if (ends_with(args.args[0], ".json")) {
        status = describe_config(args.args[0], &o, &err);
    } else if (ends_with(args.args[0], ".safetensors")) {
        status = describe_file(args.args[0], &o, &err);
    } else {
        pd_arch arch;
        status = pd_arch_parse(&arch, args.args[0], o.branches, &err);
        if (status == PD_OK) status = describe(arch, &o, &err);
    }
    pd_device_close(o.device);
    const int result = pd_cli_close_stdout(&cli, status == PD_OK ? 0 : pd_cli_fail(&cli, &err));
    pd_cli_free(&args);
    return result;
}
