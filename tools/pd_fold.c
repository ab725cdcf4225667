/* pd_fold: folds branches and batch norms away, proves the fold, writes the deployable model. */
#include "backbones/fold.h"
#include "datasets/loader.h"
#include "detectors/fpn.h"
#include "detectors/retina_head.h"
#include "engine/checkpoint.h"
#include "engine/file.h"
#include "engine/half.h"
#include "engine/rng.h"
#include "tools/cli.h"
#include "tools/fold_proof.h"
#include "tools/load_model.h"
#include "tools/onnx.h"
#include "tools/progress.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* How weights may be stored, and the largest difference of an output, relative to its largest magnitude, that is allowed:
 * to the unfolded network, all in float32. Half a unit in the last place of a weight is 2^-12 (f16) or 2^-9 (bf16) of it; an
 * output sums thousands of such errors of either sign, layer behind layer. mixed_bound: where kernels are mixed for every
 * image. These run from 16-bit numbers (kernels/panel_taps.h): a weight is off by up to 2^-16 of the largest of its 32 or
 * 64, which is 2e-5 of a usual weight in the mean square. That is the relative error of a layer; of 25 layers one behind
 * another it is five times as much, 1e-4, and a network may lie on either side of it. */
static const struct {
    const char *name;
    pd_st_type type;
    double bound, mixed_bound;
} dtypes[] = {{"f32", PD_ST_F32, 1e-4, 3e-4}, {"f16", PD_ST_F16, 1e-2, 1e-2}, {"bf16", PD_ST_BF16, 5e-2, 5e-2}};

typedef struct options {
    const char *output, *images, *onnx, *dtype_name;
    int dtype; /* row of dtypes */
    int verify, size[2], onnx_batch;
    pd_model_hints hints;
} options;

/* One forward run, its outputs by name. */
static pd_status run(pd_raw *out, pd_model *m, pd_form form, const float *x, int n, int h, int w, pd_err *err)
{
    static const char *const names[4] = {"c2", "c3", "c4", "c5"};
    if (m->detector) return pd_detector_raw(m->detector, form, x, NULL, n, h, w, out, err);
    pd_classified y;
    pd_stage_maps stages;
    PD_TRY(pd_classifier_run(m->classifier, form, x, n, h, w, &y, err));
    PD_TRY(pd_classifier_stages(m->classifier, &stages, err));
    *out = (pd_raw){.count = 5, .name[4] = "logits", .data[4] = y.logits, .shape[4] = PD_SHAPE(n, m->meta.classes)};
    for (int i = 0; i < 4; i++) {
        snprintf(out->name[i], sizeof out->name[i], "%s", names[i]);
        out->data[i] = stages.map[i];
        out->shape[i] = stages.shape[i];
    }
    return PD_OK;
}

/* Proposals of rounded weights are other proposals: what hangs on them is left out. */
static void cut_at_proposals(pd_raw *raw)
{
    for (int i = 0; i < raw->count; i++)
        if (!strcmp(raw->name[i], "proposals")) raw->count = i;
}

/* Runs both nets on one input. The first net's outputs are copied, as the second one's run may reuse memory. */
static pd_status compare(pd_fold_proof *p, pd_model *whole, pd_model *folded, const float *x, int n, int h, int w, bool rounded,
                         pd_err *err)
{
    pd_raw out, copy;
    pd_status status = PD_OK;
    pd_arena *arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "out of memory for a comparison");
    PD_TRY_DONE(run(&out, whole, PD_FORM_EVAL, x, n, h, w, err));
    if (rounded) cut_at_proposals(&out);
    PD_TRY_DONE(pd_raw_copy(&copy, &out, arena, err));
    PD_TRY_DONE(run(&out, folded, PD_FORM_FOLDED, x, n, h, w, err));
    if (rounded) cut_at_proposals(&out);
    status = pd_proof_add(p, &copy, &out, arena, err);
done:
    pd_arena_free(arena);
    return status;
}

static pd_status compare_random(pd_fold_proof *p, pd_model *whole, pd_model *folded, const options *o, bool rounded, pd_err *err)
{
    const int w = o->size[0], h = o->size[1];
    const size_t count = (size_t)h * (size_t)w * 3;
    float *x = malloc(count * 2 * sizeof *x);
    if (!x) return PD_FAIL(err, PD_ENOMEM, "out of memory for a test image");
    pd_status status = PD_OK;
    for (int i = 0; i < o->verify && status == PD_OK; i++) {
        pd_rng rng = pd_rng_make(1, (uint32_t)i, 0);
        for (size_t k = 0; k < 2 * count; k++) x[k] = (float)pd_rng_normal(&rng);
        status = compare(p, whole, folded, x, i % 2 + 1, h, w, rounded, err); /* batches of one and of two */
    }
    free(x);
    return status;
}

static pd_status compare_images(pd_fold_proof *p, pd_model *whole, pd_model *folded, const options *o, bool rounded, int *seen,
                                pd_err *err)
{
    pd_loader *loader = NULL;
    char **names, **paths;
    size_t count;
    pd_status status = PD_OK;
    PD_TRY(pd_list_dir(&names, &count, o->images, 'f', whole->arena, err));
    if (!count) return PD_FAIL(err, PD_EINVAL, "%s: no images in this folder", o->images);
    PD_TRY(PD_ALLOC(&paths, whole->arena, count, err));
    for (size_t i = 0; i < count; i++) PD_TRY(pd_path_join(&paths[i], o->images, names[i], whole->arena, err));
    pd_loader_config l = pd_loader_defaults();
    l.paths = (const char *const *)paths;
    l.n_paths = count < (size_t)o->verify ? count : (size_t)o->verify;
    l.transform = whole->detector ? pd_det_transform(&whole->det, false) : pd_cls_val_transform(&whole->cls);
    PD_TRY_DONE(pd_loader_open(&loader, &l, err));
    PD_TRY_DONE(pd_loader_start(loader, 0, 0, err));
    for (;;) {
        const pd_batch *b;
        PD_TRY_DONE(pd_loader_next(loader, &b, err));
        if (!b) break;
        PD_TRY_DONE(compare(p, whole, folded, b->pixels, b->n, b->h, b->w, rounded, err));
        *seen += b->n;
        pd_loader_done(loader, b);
    }
done:
    pd_loader_close(loader);
    return status;
}

/* Median milliseconds of one image. */
static pd_status latency(double *ms, pd_model *m, pd_form form, int h, int w, pd_err *err)
{
    enum { RUNS = 9 };
    double t[RUNS];
    pd_raw y;
    float *x = calloc((size_t)h * (size_t)w * 3, sizeof *x);
    if (!x) return PD_FAIL(err, PD_ENOMEM, "out of memory for a test image");
    pd_status status = run(&y, m, form, x, 1, h, w, err);
    for (int i = 0; i < RUNS && status == PD_OK; i++) {
        const double start = pd_seconds();
        status = run(&y, m, form, x, 1, h, w, err);
        t[i] = 1e3 * (pd_seconds() - start);
        for (int k = i; k > 0 && t[k] < t[k - 1]; k--) {
            const double swap = t[k];
            t[k] = t[k - 1];
            t[k - 1] = swap;
        }
    }
    free(x);
    if (status == PD_OK) *ms = t[RUNS / 2];
    return status;
}

static pd_params *params_of(const pd_model *m)
{
    return m->detector ? pd_detector_params(m->detector) : pd_classifier_params(m->classifier);
}

static pd_tape *tape_of(const pd_model *m)
{
    return m->detector ? pd_detector_tape(m->detector) : pd_classifier_tape(m->classifier);
}

/* The folded twin of a model, its parameters filled. */
static pd_status make_folded(pd_model *folded, pd_model *whole, pd_device *device, const options *o, pd_err *err)
{
    pd_raw y;
    float *x = calloc((size_t)o->size[0] * (size_t)o->size[1] * 3, sizeof *x);
    if (!x) return PD_FAIL(err, PD_ENOMEM, "out of memory for a test image");
    const pd_status status = run(&y, whole, PD_FORM_FUSED, x, 1, o->size[1], o->size[0], err);
    free(x);
    PD_TRY(status);
    pd_tape *fused = tape_of(whole);
    *folded = (pd_model){.meta = whole->meta};
    folded->meta.folded = true;
    if (whole->detector) {
        pd_detector_settings set = *pd_detector_get(whole->detector);
        set.folded = true;
        PD_TRY(pd_detector_new(&folded->detector, device, &set, err));
    } else {
        pd_classifier_settings set = *pd_classifier_get(whole->classifier);
        set.folded = true;
        PD_TRY(pd_classifier_new(&folded->classifier, device, &set, err));
    }
    return pd_fold_params(params_of(folded), params_of(whole), fused, err);
}

/* The weights as they will be read from a file of this type. */
static pd_status round_weights(pd_model *m, pd_st_type type, pd_err *err)
{
    pd_params *params = params_of(m);
    for (size_t i = 0; i < pd_params_count(params); i++) {
        const pd_param *p = pd_params_at(params, i);
        float *block = pd_param_block(params, p), *w = malloc((p->count + 1) * sizeof *w);
        if (!w) return PD_FAIL(err, PD_ENOMEM, "out of memory for %s", p->name);
        pd_status status = pd_param_read(w, params, p, block, err);
        for (size_t k = 0; status == PD_OK && k < p->count; k++)
            w[k] = type == PD_ST_F16 ? pd_float_from_f16(pd_f16_from_float(w[k])) : pd_float_from_bf16(pd_bf16_from_float(w[k]));
        if (status == PD_OK) status = pd_param_write(params, p, block, w, err);
        free(w);
        PD_TRY(status);
    }
    if (m->detector)
        pd_detector_changed(m->detector);
    else
        pd_classifier_changed(m->classifier);
    return PD_OK;
}

/* The folded network as ONNX; a RetinaNet up to its head's raw outputs. */
static pd_status export_onnx(pd_model *m, const options *o, pd_err *err)
{
    enum { LEVELS = 5 };
    pd_tape *t = NULL;
    char names[2 * LEVELS][24], classes[16], arch[32];
    pd_onnx_output outputs[2 * LEVELS];
    pd_value *p[LEVELS];
    pd_stages stages;
    PD_TRY(pd_tape_new(&t, params_of(m), false, err));
    const int n = o->onnx_batch ? o->onnx_batch : 1;
    pd_value *image = pd_tape_input(t, "x", PD_F32, PD_SHAPE(n, o->size[1], o->size[0], 3));
    int count = 0;
    if (m->classifier) {
        outputs[count++] = (pd_onnx_output){
            "logits", pd_record_classifier(t, PD_FORM_FOLDED, m->meta.arch, m->meta.classes, image, &stages)};
    } else {
        const pd_anchor_cfg anchors = pd_anchor_cfg_retina();
        const pd_detector_settings *set = pd_detector_get(m->detector);
        stages = pd_record_resnet(t, PD_FORM_FOLDED, "backbone.", m->meta.arch, image);
        pd_record_fpn_retina(t, PD_FORM_FOLDED, &set->neck, &stages, p);
        for (int l = 0; l < LEVELS; l++, count++) {
            pd_value *cls, *reg;
            pd_record_retina_head(t, PD_FORM_FOLDED, &set->head, p[l], m->meta.classes, anchors.n_ratios * anchors.n_scales,
                                  &cls, &reg);
            snprintf(names[l], sizeof *names, "cls_score.%d", l);
            snprintf(names[LEVELS + l], sizeof *names, "bbox_pred.%d", l);
            outputs[l] = (pd_onnx_output){names[l], cls};
            outputs[LEVELS + l] = (pd_onnx_output){names[LEVELS + l], reg};
        }
        count = 2 * LEVELS;
    }
    char mean[96], std[96];
    snprintf(mean, sizeof mean, "[%.9g, %.9g, %.9g]", m->meta.mean[0], m->meta.mean[1], m->meta.mean[2]);
    snprintf(std, sizeof std, "[%.9g, %.9g, %.9g]", m->meta.std[0], m->meta.std[1], m->meta.std[2]);
    snprintf(classes, sizeof classes, "%d", m->meta.classes);
    const pd_onnx_fact facts[] = {{"type", m->meta.type}, {"arch", pd_arch_name(arch, m->meta.arch)}, {"num_classes", classes},
                                  {"mean", mean},         {"std", std},                               {"config", m->meta.config}};
    const pd_onnx model = {t, image, outputs, count, o->onnx_batch, facts, sizeof facts / sizeof *facts};
    const pd_status status = pd_onnx_write(o->onnx, &model, err);
    char batch[16] = "n";
    if (o->onnx_batch) snprintf(batch, sizeof batch, "%d", o->onnx_batch);
    pd_tape_free(t);
    if (status == PD_OK) printf("%s: ONNX, operator set 17, x (%s, 3, %d, %d)\n", o->onnx, batch, o->size[1], o->size[0]);
    return status;
}

static pd_status save(pd_model *folded, const char *path, pd_st_type type, pd_err *err)
{
    pd_st_writer *w;
    pd_arena *arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "out of memory for a file");
    pd_status status = pd_st_create(&w, path, PD_ST_SORTED, err);
    if (status == PD_OK) {
        status = pd_model_meta_write(w, &folded->meta, err);
        if (status == PD_OK) status = pd_save_params_as(w, params_of(folded), type, arena, err);
        if (status == PD_OK)
            status = pd_st_commit(w, err);
        else
            pd_st_cancel(w);
    }
    pd_arena_free(arena);
    return status;
}

/* Does any layer mix its kernel for every image? */
static bool mixes_kernels(const pd_model *m)
{
    if (m->meta.arch.family == PD_RESNET_PD_B) return true;
    const pd_detector_settings *set = m->detector ? pd_detector_get(m->detector) : NULL;
    return set && (set->neck.mixture == PD_GATED || set->head.mixture == PD_GATED);
}

/* Compares both networks on random and real inputs, prints the differences and holds them to the bound. */
static pd_status prove(pd_model *whole, pd_model *folded, const options *o, int dtype, int *photos, const char *path, pd_err *err)
{
    pd_fold_proof p = {0};
    const bool rounded = dtype > 0;
    const double bound = mixes_kernels(whole) ? dtypes[dtype].mixed_bound : dtypes[dtype].bound;
    PD_TRY(compare_random(&p, whole, folded, o, rounded, err));
    if (o->images) PD_TRY(compare_images(&p, whole, folded, o, rounded, photos, err));
    if (rounded) printf("\nstored as %s; the bound is %g of an output's largest magnitude\n", dtypes[dtype].name, bound);
    pd_proof_print(&p, stdout);
    if (pd_proof_holds(&p, bound)) return PD_OK;
    return PD_FAIL(err, PD_EINVAL, "%s: the folded network%s%s differs by more than %g from the unfolded one; nothing is written",
                   path, rounded ? " stored as " : "", rounded ? dtypes[dtype].name : "", bound);
}

static pd_status fold(pd_model *whole, pd_model *folded, pd_device *device, const options *o, const char *path, pd_err *err)
{
    int photos = 0, again = 0;
    double before, after;
    PD_TRY(make_folded(folded, whole, device, o, err));
    PD_TRY(prove(whole, folded, o, 0, &photos, path, err));
    if (o->dtype) {
        PD_TRY(round_weights(folded, dtypes[o->dtype].type, err));
        PD_TRY(prove(whole, folded, o, o->dtype, &again, path, err));
    }
    PD_TRY(latency(&before, whole, PD_FORM_EVAL, o->size[1], o->size[0], err));
    const double macs_before = pd_tape_macs(tape_of(whole), NULL);
    PD_TRY(latency(&after, folded, PD_FORM_FOLDED, o->size[1], o->size[0], err));
    const double macs_after = pd_tape_macs(tape_of(folded), NULL);
    printf("\n%-12s %14s %14s\n", "", "before", "after");
    printf("%-12s %12.3f M %12.3f M\n", "parameters", (double)pd_params_elements(params_of(whole), false) / 1e6,
           (double)pd_params_elements(params_of(folded), false) / 1e6);
    printf("%-12s %12.3f G %12.3f G\n", "MAC", macs_before / 1e9, macs_after / 1e9);
    printf("%-12s %11.2f ms %11.2f ms   (one image of %dx%d)\n", "latency", before, after, o->size[0], o->size[1]);
    if (o->onnx) PD_TRY(export_onnx(folded, o, err));
    PD_TRY(save(folded, o->output, dtypes[o->dtype].type, err));
    printf("\n%s: proved on %d random inputs", o->output, o->verify);
    if (o->images) printf(" and %d images", photos);
    printf("\n");
    return PD_OK;
}

int main(int argc, char **argv)
{
    options o = {.verify = 4, .dtype_name = "f32"};
    const pd_opt opts[] = {
        PD_OPT_STRING('o', "output", "FILE", &o.output, "the folded model"),
        PD_OPT_STRING(0, "dtype", "TYPE", &o.dtype_name, "how weights are stored: f32, f16 or bf16"),
        PD_OPT_STRING(0, "onnx", "FILE", &o.onnx, "the folded network for ONNX runtimes too (classifiers, RetinaNet)"),
        PD_OPT_INT(0, "onnx-batch", "N", &o.onnx_batch, 0, 65536, "images of a run there (0: any; N: PD-B at its full speed)"),
        PD_OPT_INT(0, "verify", "N", &o.verify, 1, 10000, "inputs to prove the fold on (4)"),
        PD_OPT_STRING(0, "images", "DIR", &o.images, "prove it on images of this folder too"),
        PD_OPT_SIZE(0, "input", "WxH", o.size, "size of the random inputs (224; detectors 320x256)"),
        PD_OPT_STRING(0, "arch", "NAME", &o.hints.arch, "architecture, for files that do not say"),
        PD_OPT_STRING(0, "branches", "LIST", &o.hints.branches, "s1,s2,skeleton,group or some of them"),
        PD_OPT_INT(0, "num-classes", "N", &o.hints.classes, 1, 1000000, "classes, for files that do not say"),
        PD_OPT_STRING(0, "config", "FILE", &o.hints.config, "a detector's configuration, for files that do not say"),
        PD_OPT_FLAG(0, "lenient", &o.hints.lenient, "the file may miss tensors or have others (they are listed)"),
    };
    const pd_cli cli = {.program = "pd_fold",
                        .usage = "CHECKPOINT -o FOLDED",
                        .about = "Folds ParaDise branches and batch norms into single convolutions and proves that nothing changed.",
                        .example = "pd_fold runs/retina_pd_a_r50/best.safetensors -o retina_pd_a_r50.safetensors",
                        .opts = opts,
                        .n_opts = sizeof opts / sizeof *opts,
                        .common = PD_CLI_DEVICE | PD_CLI_THREADS | PD_CLI_SET,
                        .min_args = 1,
                        .max_args = 1};
    pd_cli_args args;
    const int code = pd_cli_parse(&args, &cli, argc, argv);
    if (code >= 0) return code;
    if (!o.output || pd_is_same_file(o.output, args.args[0])) {
        const int wrong = o.output ? pd_cli_wrong(&cli, "%s: would replace what it is made of; give another -o", o.output)
                                   : pd_cli_wrong(&cli, "-o FOLDED is needed");
        pd_cli_free(&args);
        return wrong;
    }
    while (o.dtype < (int)(sizeof dtypes / sizeof *dtypes) && strcmp(dtypes[o.dtype].name, o.dtype_name) != 0) o.dtype++;
    if (o.dtype == (int)(sizeof dtypes / sizeof *dtypes)) {
        pd_cli_free(&args);
        return pd_cli_wrong(&cli, "--dtype is f32, f16 or bf16, not \"%s\"", o.dtype_name);
    }
    o.hints.sets = &args.set;
    pd_device *device = NULL;
    pd_model whole = {0}, folded = {0};
    pd_err err = PD_ERR_INIT;
    pd_status status = pd_device_open(&device, args.device, args.threads, &err);
    /* the proof is one of float32, whatever the device would choose */
    if (status == PD_OK) status = pd_device_set_precision(device, args.precision ? args.precision : "fp32", &err);
    if (status == PD_OK) status = pd_model_open(&whole, args.args[0], NULL, &o.hints, device, &err);
    if (status == PD_OK && whole.meta.folded)
        status = PD_FAIL(&err, PD_EINVAL, "%s: is folded already", args.args[0]);
    if (status == PD_OK) {
        if (o.onnx && whole.detector && pd_detector_get(whole.detector)->type != PD_RETINANET)
            status = PD_FAIL(&err, PD_EINVAL, "%s: --onnx exports classifiers and RetinaNet; this is a %s", args.args[0], whole.meta.type);
        if (!o.size[0]) {
            o.size[0] = whole.detector ? 320 : 224;
            o.size[1] = whole.detector ? 256 : 224;
        }
        if (status == PD_OK) status = fold(&whole, &folded, device, &o, args.args[0], &err);
    }
    pd_model_close(&folded);
    pd_model_close(&whole);
    pd_device_close(device);
    const int result = pd_cli_close_stdout(&cli, status == PD_OK ? 0 : pd_cli_fail(&cli, &err));
    pd_cli_free(&args);
    return result;
}
