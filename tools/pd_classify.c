/* pd_classify: the most likely classes of images; or tensors in, tensors out. */
#include "datasets/loader.h"
#include "engine/json.h"
#include "tools/cli.h"
#include "tools/load_model.h"
#include "tools/tensor_io.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct options {
    const char *input, *output, *mode;
    int top, batch;
    bool json, stages;
    pd_model_hints hints;
} options;

/* ---- tensors ---- */

static pd_status run_tensors(pd_model *m, const options *o, pd_form form, pd_err *err)
{
    static const char *const names[4] = {"c2", "c3", "c4", "c5"};
    pd_st *file = NULL;
    pd_st_writer *w = NULL;
    float *x;
    int dim[4];
    pd_classified y;
    pd_stage_maps stages;
    pd_status status = PD_OK;
    PD_TRY(pd_st_open(&file, o->input, err));
    PD_TRY_DONE(pd_tensor_read(&x, dim, file, "x", m->arena, err));
    if (dim[1] != 3) {
        status = PD_FAIL(err, PD_EFORMAT, "%s: x has %d channels, expected 3", o->input, dim[1]);
        goto done;
    }
    PD_TRY_DONE(pd_classifier_run(m->classifier, form, x, dim[0], dim[2], dim[3], &y, err));
    PD_TRY_DONE(pd_classifier_stages(m->classifier, &stages, err));
    PD_TRY_DONE(pd_st_create(&w, o->output, PD_ST_SORTED, err));
    PD_TRY_DONE(pd_tensor_add(w, "logits", y.logits, PD_SHAPE(dim[0], m->meta.classes), m->arena, err));
    for (int i = 0; o->stages && i < 4; i++)
        PD_TRY_DONE(pd_tensor_add(w, names[i], stages.map[i], stages.shape[i], m->arena, err));
    status = pd_st_commit(w, err);
    w = NULL;
done:
    pd_st_cancel(w);
    pd_st_close(file);
    return status;
}

/* ---- images ---- */

typedef struct choice {
    int label;
    double share;
} choice;

/* The `top` largest of a softmax over logits, best first; equal ones by class. */
static void best_classes(choice *out, int top, const float *logits, int classes)
{
    double largest = -INFINITY, total = 0;
    for (int k = 0; k < classes; k++) largest = fmax(largest, (double)logits[k]);
    for (int k = 0; k < classes; k++) total += exp((double)logits[k] - largest);
    int used = 0;
    for (int k = 0; k < classes; k++) {
        const choice c = {k, exp((double)logits[k] - largest) / total};
        if (used == top && out[top - 1].share >= c.share) continue;
        int at = used < top ? used++ : top - 1;
        for (; at > 0 && out[at - 1].share < c.share; at--) out[at] = out[at - 1];
        out[at] = c;
    }
}

static const char *class_name(const pd_model *m, int label, char text[32])
{
    if (m->meta.names) return m->meta.names[label];
    snprintf(text, 32, "class %d", label);
    return text;
}

static void show(const pd_model *m, const char *path, const choice *best, int top, pd_json_writer *json)
{
    char text[32];
    if (json) {
        pd_json_begin_object(json, NULL);
        pd_json_put_string(json, "file", path);
        pd_json_begin_array(json, "classes");
        for (int i = 0; i < top; i++) {
            pd_json_begin_object(json, NULL);
            pd_json_put_int(json, "label", best[i].label);
            pd_json_put_string(json, "name", class_name(m, best[i].label, text));
            pd_json_put_double(json, "probability", best[i].share);
            pd_json_end(json);
        }
        pd_json_end(json);
        pd_json_end(json);
        return;
    }
    printf("%s\n", path);
    for (int i = 0; i < top; i++)
        printf("  %6.2f %%  %s\n", 100 * best[i].share, class_name(m, best[i].label, text));
}

static void warn(void *arg, const char *text)
{
    *(int *)arg += 1;
    fprintf(stderr, "skipped: %s\n", text);
}

static pd_status run_images(pd_model *m, const options *o, const pd_cli_args *args, pd_form form, pd_err *err)
{
    pd_loader *loader = NULL;
    const int classes = m->meta.classes, top = o->top < classes ? o->top : classes;
    pd_json_writer *json = o->json ? pd_json_array() : NULL;
    choice *best = NULL;
    int bad = 0;
    pd_status status = PD_OK;
    pd_loader_config l = pd_loader_defaults();
    l.paths = args->args + 1;
    l.n_paths = args->n_args - 1;
    l.transform = pd_cls_val_transform(&m->cls);
    l.batch = m->cls.data.has_val_transform ? o->batch : 1;
    l.threads = args->threads;
    l.warn = warn;
    l.warn_arg = &bad;
    PD_TRY_DONE(PD_ALLOC(&best, m->arena, (size_t)top, err));
    PD_TRY_DONE(pd_loader_open(&loader, &l, err));
    PD_TRY_DONE(pd_loader_start(loader, 0, 0, err));
    for (;;) {
        const pd_batch *b;
        pd_classified y;
        PD_TRY_DONE(pd_loader_next(loader, &b, err));
        if (!b) break;
        PD_TRY_DONE(pd_classifier_run(m->classifier, form, b->pixels, b->n, b->h, b->w, &y, err));
        for (int i = 0; i < b->n; i++) {
            best_classes(best, top, y.logits + (size_t)i * (size_t)classes, classes);
            show(m, l.paths[b->info[i].id], best, top, json);
        }
        pd_loader_done(loader, b);
    }
    if (json) {
        char *text;
        status = pd_json_finish(&text, json, true, m->arena, err);
        json = NULL;
        if (status == PD_OK) puts(text);
    }
    if (status == PD_OK && bad) status = PD_FAIL(err, PD_EFORMAT, "%d of %zu images could not be read", bad, l.n_paths);
done:
    pd_json_free(json);
    pd_loader_close(loader);
    return status;
}

int main(int argc, char **argv)
{
    options o = {.mode = "eval", .top = 5, .batch = 16};
    const pd_opt opts[] = {
        PD_OPT_INT(0, "top", "N", &o.top, 1, 1000000, "classes shown per image (5)"),
        PD_OPT_FLAG(0, "json", &o.json, "print JSON"),
        PD_OPT_INT(0, "batch", "N", &o.batch, 1, 4096, "images per forward pass (16)"),
        PD_OPT_STRING(0, "input", "FILE", &o.input, "safetensors with x [N, 3, H, W], taken as it is"),
        PD_OPT_STRING(0, "output", "FILE", &o.output, "where logits [N, classes] go"),
        PD_OPT_FLAG(0, "stages", &o.stages, "with --output: also c2 to c5 [N, C, H, W]"),
        PD_OPT_STRING(0, "mode", "MODE", &o.mode, "eval: branches folded first; branches: each as defined"),
        PD_OPT_STRING(0, "arch", "NAME", &o.hints.arch, "architecture, for files that do not say"),
        PD_OPT_STRING(0, "branches", "LIST", &o.hints.branches, "s1,s2,skeleton,group or some of them"),
        PD_OPT_INT(0, "num-classes", "N", &o.hints.classes, 1, 1000000, "classes, for files that do not say"),
        PD_OPT_FLAG(0, "lenient", &o.hints.lenient, "the file may miss tensors or have others (they are listed)"),
    };
    const pd_cli cli = {.program = "pd_classify",
                        .usage = "MODEL [IMAGE...]",
                        .about = "Classifies images, or runs a classifier on tensors.",
                        .example = "pd_classify runs/cls_pd_a_r18/best.safetensors photo.jpg",
                        .opts = opts,
                        .n_opts = sizeof opts / sizeof *opts,
                        .common = PD_CLI_DEVICE | PD_CLI_THREADS,
                        .min_args = 1,
                        .max_args = -1};
    pd_cli_args args;
    const int code = pd_cli_parse(&args, &cli, argc, argv);
    if (code >= 0) return code;
    const bool branches = !strcmp(o.mode, "branches");
    int result = -1;
    if (!branches && strcmp(o.mode, "eval") != 0) result = pd_cli_wrong(&cli, "--mode is eval or branches, not \"%s\"", o.mode);
    else if (!o.input != !o.output) result = pd_cli_wrong(&cli, "--input and --output go together");
    else if (!o.input && args.n_args < 2) result = pd_cli_wrong(&cli, "no image is given");
    else if (o.input && args.n_args > 1) result = pd_cli_wrong(&cli, "%s: images and --input do not go together", args.args[1]);
    else if (o.stages && !o.input) result = pd_cli_wrong(&cli, "--stages goes with --input and --output");
    if (result >= 0) {
        pd_cli_free(&args);
        return result;
    }
    pd_device *device = NULL;
    pd_model m = {0};
    pd_err err = PD_ERR_INIT;
    pd_status status = pd_device_open(&device, args.device, args.threads, &err);
    if (status == PD_OK) status = pd_device_set_precision(device, args.precision, &err);
    if (status == PD_OK) status = pd_model_open(&m, args.args[0], "classifier", &o.hints, device, &err);
    if (status == PD_OK) {
        const pd_form form = branches && !m.meta.folded ? PD_FORM_EVAL : pd_classifier_form(m.classifier);
        status = o.input ? run_tensors(&m, &o, form, &err) : run_images(&m, &o, &args, form, &err);
    }
    pd_model_close(&m);
    pd_device_close(device);
    result = pd_cli_close_stdout(&cli, status == PD_OK ? 0 : pd_cli_fail(&cli, &err));
    pd_cli_free(&args);
    return result;
}
