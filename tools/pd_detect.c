/* pd_detect: objects in images, folders or COCO sets: a results file, a list, pictures; or tensors in, tensors out. */
#include "datasets/draw.h"
#include "engine/file.h"
#include "tools/cli.h"
#include "tools/detect_views.h"
#include "tools/load_model.h"
#include "tools/tensor_io.h"

#include <stdlib.h>
#include <string.h>

typedef struct options {
    const char *output, *draw, *images, *input, *raw, *tta;
    double score_thr;
    bool score_given;
    int max_dets, batch;
    pd_model_hints hints;
} options;

typedef struct session {
    const options *opt;
    const pd_cli_args *args;
    pd_device *device;
    pd_model model;
    pd_arena *arena;
    const char **paths; /* images given as files and folders */
    size_t n_paths, room;
    pd_coco set; /* or a COCO file's */
    bool coco;
    pd_results *results;
    int sides[PD_MAX_VIEWS], n_sides; /* of the views: shorter sides; 0: the configuration's */
    bool flip;                        /* and each mirrored */
    pd_progress progress;
    size_t images, objects, bad;
} session;

/* ---- what to look at ---- */

static bool ends_with(const char *text, const char *end)
{
    return strlen(text) >= strlen(end) && !strcasecmp(text + strlen(text) - strlen(end), end);
}

static pd_status add_path(session *s, const char *path, pd_err *err)
{
    char *copy;
    PD_TRY(pd_grow(&s->paths, &s->room, s->n_paths + 1, sizeof *s->paths, err));
    PD_TRY(pd_strdup(&copy, s->arena, path, err));
    s->paths[s->n_paths++] = copy;
    return PD_OK;
}

/* The pictures of a folder, by their names' ends (folders hold other things too). */
static pd_status add_folder(session *s, const char *dir, pd_err *err)
{
    char **names;
    size_t count;
    const size_t before = s->n_paths;
    PD_TRY(pd_list_dir(&names, &count, dir, 'f', s->arena, err));
    for (size_t i = 0; i < count; i++) {
        char *path;
        if (!ends_with(names[i], ".jpg") && !ends_with(names[i], ".jpeg") && !ends_with(names[i], ".png")) continue;
        PD_TRY(pd_path_join(&path, dir, names[i], s->arena, err));
        PD_TRY(add_path(s, path, err));
    }
    return s->n_paths > before ? PD_OK : PD_FAIL(err, PD_EINVAL, "%s: no .jpg, .jpeg or .png in this folder", dir);
}

static pd_status find_inputs(session *s, pd_err *err)
{
    for (size_t i = 1; i < s->args->n_args; i++) {
        const char *path = s->args->args[i];
        if (ends_with(path, ".json")) {
            PD_TRY(pd_coco_open(&s->set, path, NULL, 0, s->arena, err));
            s->coco = true;
        } else if (pd_is_dir(path)) {
            PD_TRY(add_folder(s, path, err));
        } else {
            PD_TRY(add_path(s, path, err));
        }
    }
    return PD_OK;
}

/* ---- what comes out ---- */

static const char *class_name(const session *s, int label, char text[32])
{
    if (s->model.meta.names) return s->model.meta.names[label];
    snprintf(text, 32, "class %d", label);
    return text;
}

static const char *image_path(const session *s, int64_t id, char text[4096])
{
    if (!s->coco) return s->paths[id];
    const ptrdiff_t at = pd_coco_find(&s->set, id);
    snprintf(text, 4096, "%s/%s", s->opt->images, at < 0 ? "?" : s->set.images[at].file);
    return text;
}

static pd_status draw(const session *s, const char *path, const pd_detection *found, int count, pd_err *err)
{
    pd_image image = PD_IMAGE_INIT;
    pd_bytes file = {NULL, 0};
    char *to, name[32];
    const pd_image_options upright = {.exif = true};
    const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    pd_arena *arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "out of memory for a picture");
    pd_status status = PD_OK;
    PD_TRY_DONE(pd_file_map(&file, path, err));
    PD_TRY_DONE(pd_image_decode(&image, file, &upright, err));
    for (int i = count - 1; i >= 0; i--) /* the surest on top */
        if ((double)found[i].score >= s->opt->score_thr)
            pd_draw_labelled(&image, found[i].box, found[i].label, class_name(s, found[i].label, name), found[i].score);
    PD_TRY_DONE(pd_path_join(&to, s->opt->draw, base, arena, err));
    if (!ends_with(to, ".jpg") && !ends_with(to, ".jpeg") && !ends_with(to, ".png"))
        PD_TRY_DONE(pd_format(&to, arena, err, "%s/%s.jpg", s->opt->draw, base));
    if (pd_is_same_file(to, path)) {
        status = PD_FAIL(err, PD_EINVAL, "%s: the drawn picture would replace it; give another --draw folder", to);
        goto done;
    }
    status = pd_image_save(to, &image, err);
done:
    pd_image_free(&image);
    pd_file_unmap(&file);
    pd_arena_free(arena);
    if (status != PD_OK) pd_err_context(err, "%s", path);
    return status;
}

static pd_status on_image(void *arg, const pd_image_info *info, const pd_detection *found, int count, pd_err *err)
{
    session *s = arg;
    const options *o = s->opt;
    char text[4096], name[32];
    const char *path = image_path(s, info->id, text);
    if (s->results) {
        pd_coco_det *dets;
        pd_coco_id id = pd_coco_int_id(info->id);
        if (!s->coco) id = (pd_coco_id){.kind = PD_COCO_ID_TEXT, .text = path};
        int kept = 0;
        dets = malloc(((size_t)count + 1) * sizeof *dets);
        if (!dets) return PD_FAIL(err, PD_ENOMEM, "out of memory for %d detections", count);
        for (int i = 0; i < count; i++) {
            if (o->score_given && (double)found[i].score < o->score_thr) continue;
            const int64_t category = s->model.meta.ids ? s->model.meta.ids[found[i].label] : found[i].label;
            dets[kept++] = pd_coco_det_box(found[i].box, found[i].score, category);
        }
        pd_results_add(s->results, id, dets, (size_t)kept);
        free(dets);
    }
    for (int i = 0; i < count; i++) {
        if ((double)found[i].score < o->score_thr) continue;
        s->objects++;
        if (!o->output && !o->draw)
            printf("%s\t%s\t%.3f\t%.1f\t%.1f\t%.1f\t%.1f\n", path, class_name(s, found[i].label, name), (double)found[i].score,
                   (double)found[i].box.x1, (double)found[i].box.y1, (double)found[i].box.x2, (double)found[i].box.y2);
    }
    s->images++;
    return o->draw ? draw(s, path, found, count, err) : PD_OK;
}

/* --tta: "flip,640,800" */
static pd_status parse_tta(session *s, pd_err *err)
{
    const char *p = s->opt->tta;
    while (*p) {
        const size_t n = strcspn(p, ",");
        char *end;
        const long side = strtol(p, &end, 10);
        if (n == 4 && !strncmp(p, "flip", 4)) {
            s->flip = true;
        } else if (end == p + n && side >= 32 && side <= 16384 && s->n_sides < PD_MAX_VIEWS / 2) {
            s->sides[s->n_sides++] = (int)side;
        } else {
            return PD_FAIL(err, PD_EINVAL, "--tta %s: \"%.*s\" is neither flip nor a shorter side in 32..16384 (at most %d)",
                           s->opt->tta, (int)n, p, PD_MAX_VIEWS / 2);
        }
        p += n + (p[n] == ',');
    }
    return PD_OK;
}

/* A loader for each view: sizes outer, mirrored inner. */
static pd_status open_views(session *s, pd_loader **loaders, int *n, pd_loader_config l, pd_err *err)
{
    const int sides = s->n_sides ? s->n_sides : 1, configured = l.transform.short_side, bound = l.transform.long_side;
    if (sides > 1 || s->flip) l.batch = l.threads = 1;
    for (int i = 0; i < sides; i++)
        for (int flip = 0; flip <= (int)s->flip; flip++) {
            if (s->n_sides) { /* the longer side's bound in proportion */
                l.transform.short_side = s->sides[i];
                l.transform.long_side = (int)((double)bound * s->sides[i] / configured + 0.5);
            }
            l.transform.flip = flip;
            PD_TRY(pd_loader_open(&loaders[*n], &l, err));
            (*n)++;
            l.warn = NULL; /* once for each image is enough */
        }
    return PD_OK;
}

static void warn(void *arg, const char *text)
{
    session *s = arg;
    s->bad++;
    pd_progress_line(&s->progress, "skipped: %s", text);
}

static pd_status detect_images(session *s, pd_err *err)
{
    pd_loader *loaders[PD_MAX_VIEWS] = {NULL};
    int n = 0;
    const options *o = s->opt;
    const pd_form form = pd_detector_form(s->model.detector);
    pd_status status = PD_OK;
    if (o->tta) PD_TRY(parse_tta(s, err));
    PD_TRY(find_inputs(s, err));
    pd_loader_config l = pd_loader_defaults();
    if (s->coco) {
        l.coco = &s->set;
        l.image_dir = o->images;
    } else {
        l.paths = s->paths;
        l.n_paths = s->n_paths;
    }
    l.transform = pd_det_transform(&s->model.det, false);
    memcpy(l.transform.mean, s->model.meta.mean, sizeof l.transform.mean);
    memcpy(l.transform.std, s->model.meta.std, sizeof l.transform.std);
    l.image.exif = true;
    l.bytes = s->device->kind != PD_CPU; /* normalised there: a quarter of the transfer */
    l.batch = o->batch;
    l.threads = s->args->threads;
    l.warn = warn;
    l.warn_arg = s;
    if (o->draw) PD_TRY(pd_make_dirs(o->draw, err));
    pd_progress_begin(&s->progress, "detecting", "images", (int64_t)(s->coco ? s->set.n_images : s->n_paths), s->args->quiet);
    PD_TRY_DONE(open_views(s, loaders, &n, l, err));
    if (o->output) PD_TRY_DONE(pd_results_open(&s->results, o->output, err));
    pd_cli_catch_stop();
    if (n == 1)
        status = pd_detect_all(s->model.detector, form, loaders[0], on_image, s, &s->progress, err);
    else
        status = pd_detect_views_all(s->model.detector, form, loaders, n, on_image, s, &s->progress, err);
    if (status != PD_OK) goto done;
    if (s->results) {
        pd_results *results = s->results;
        s->results = NULL;
        PD_TRY_DONE(pd_results_commit(results, err));
    }
    pd_progress_end(&s->progress, (int64_t)s->images);
    if (s->bad) status = PD_FAIL(err, PD_EFORMAT, "%zu images could not be read (%zu were)", s->bad, s->images);
done:
    pd_results_cancel(s->results);
    for (int v = 0; v < n; v++) pd_loader_close(loaders[v]);
    return status;
}

/* ---- tensors ---- */

/* Adds det.boxes [n, room, 4], det.scores, det.labels, num_dets. */
static pd_status add_detections(pd_st_writer *w, const pd_detection *found, const int *count, int n, int room, pd_arena *arena,
                                pd_err *err)
{
    float *boxes, *scores;
    int64_t *labels, *counts;
    const size_t all = (size_t)n * (size_t)room;
    PD_TRY(PD_ALLOC(&boxes, arena, 4 * all, err));
    PD_TRY(PD_ALLOC(&scores, arena, all, err));
    PD_TRY(PD_ALLOC(&labels, arena, all, err));
    PD_TRY(PD_ALLOC(&counts, arena, (size_t)n, err));
    for (int i = 0; i < n; i++) {
        counts[i] = count[i];
        for (int k = 0; k < count[i]; k++) {
            const size_t at = (size_t)i * (size_t)room + (size_t)k;
            memcpy(boxes + 4 * at, &found[at].box, sizeof found[at].box);
            scores[at] = found[at].score;
            labels[at] = found[at].label;
        }
    }
    const int64_t shape[3] = {n, room, 4};
    PD_TRY(pd_st_add(w, "det.boxes", PD_ST_F32, 3, shape, boxes, err));
    PD_TRY(pd_st_add(w, "det.scores", PD_ST_F32, 2, shape, scores, err));
    PD_TRY(pd_st_add(w, "det.labels", PD_ST_I64, 2, shape, labels, err));
    return pd_st_add(w, "num_dets", PD_ST_I64, 1, shape, counts, err);
}

static pd_status read_sizes(pd_image_info *info, int n, int h, int w, const pd_st *file, pd_arena *arena, pd_err *err)
{
    const pd_st_tensor *t = pd_st_find(file, "img_shape");
    int64_t *v;
    PD_TRY(PD_ALLOC(&v, arena, 2 * (size_t)n, err));
    if (t) {
        const int64_t shape[2] = {n, 2};
        PD_TRY(pd_st_need(&t, file, "img_shape", 2, shape, err));
        PD_TRY(pd_st_read_i64(v, file, t, err));
    }
    for (int i = 0; i < n; i++) {
        const int64_t ih = t ? v[2 * i] : h, iw = t ? v[2 * i + 1] : w;
        if (ih < 1 || iw < 1 || ih > h || iw > w)
            return PD_FAIL(err, PD_EFORMAT, "%s: img_shape of image %d is (%lld, %lld); x is %dx%d", pd_st_path(file), i,
                           (long long)ih, (long long)iw, h, w);
        info[i] = (pd_image_info){.h = (int)ih, .w = (int)iw, .pad_h = h, .pad_w = w, .ori_h = (int)ih, .ori_w = (int)iw,
                                  .scale_x = 1, .scale_y = 1};
    }
    return PD_OK;
}

static pd_status detect_tensors(session *s, pd_err *err)
{
    pd_st *file = NULL;
    pd_st_writer *w = NULL;
    float *x;
    int dim[4], *count;
    pd_raw raw;
    pd_image_info *info;
    pd_detection *found;
    pd_detector *d = s->model.detector;
    const int room = pd_detector_get(d)->test.max_per_image;
    pd_status status = PD_OK;
    PD_TRY(pd_st_open(&file, s->opt->input, err));
    PD_TRY_DONE(pd_tensor_read(&x, dim, file, "x", s->arena, err));
    if (dim[1] != 3) {
        status = PD_FAIL(err, PD_EFORMAT, "%s: x has %d channels, expected 3", s->opt->input, dim[1]);
        goto done;
    }
    const int n = dim[0];
    PD_TRY_DONE(PD_ALLOC(&info, s->arena, (size_t)n, err));
    PD_TRY_DONE(PD_ALLOC(&count, s->arena, (size_t)n, err));
    PD_TRY_DONE(PD_ALLOC(&found, s->arena, (size_t)n * (size_t)room, err));
    PD_TRY_DONE(read_sizes(info, n, dim[2], dim[3], file, s->arena, err));
    PD_TRY_DONE(pd_detector_raw(d, pd_detector_form(d), x, info, n, dim[2], dim[3], &raw, err));
    PD_TRY_DONE(pd_detector_decode(d, info, found, count, err));
    PD_TRY_DONE(pd_st_create(&w, s->opt->raw, PD_ST_SORTED, err));
    for (int i = 0; i < raw.count; i++)
        PD_TRY_DONE(raw.type[i] == PD_I32 ? pd_tensor_add_ints(w, raw.name[i], raw.data[i], raw.shape[i], s->arena, err)
                                          : pd_tensor_add(w, raw.name[i], raw.data[i], raw.shape[i], s->arena, err));
    PD_TRY_DONE(add_detections(w, found, count, n, room, s->arena, err));
    status = pd_st_commit(w, err);
    w = NULL;
done:
    pd_st_cancel(w);
    pd_st_close(file);
    return status;
}

/* What does not go together, or NULL; *about: the input that it is said of, or "". */
static const char *misuse(const options *o, const pd_cli_args *args, const char **about)
{
    const char *json = NULL;
    *about = "";
    if (!o->input != !o->raw) return "--input and --raw go together";
    if (!o->input && args->n_args < 2) return "no image is given";
    if (o->input && args->n_args > 1) return "images and --input do not go together";
    if (o->input && (o->output || o->draw)) return "-o and --draw go with images, --raw with --input";
    for (size_t i = 1; i < args->n_args && !json; i++)
        if (ends_with(args->args[i], ".json")) json = args->args[i];
    if (!json) return NULL;
    *about = json;
    if (args->n_args != 2) return "a COCO file must be the only input";
    return o->images ? NULL : "--images DIR must say where its images are";
}

int main(int argc, char **argv)
{
    options o = {.score_thr = 0.3, .batch = 1};
    const pd_opt opts[] = {
        PD_OPT_STRING('o', "output", "FILE", &o.output, "COCO results JSON of all detections"),
        PD_OPT_STRING(0, "draw", "DIR", &o.draw, "pictures with boxes, class names and scores"),
        {0, "score-thr", "X", PD_OPT_T_DOUBLE, &o.score_thr, 0, 1, &o.score_given,
         "least score that is listed and drawn (0.3); given, of --output too"},
        PD_OPT_INT(0, "max-dets", "N", &o.max_dets, 1, 100000, "detections kept per image (the model's: 100)"),
        PD_OPT_INT(0, "batch", "N", &o.batch, 1, 1024, "images per forward pass (1)"),
        PD_OPT_STRING(0, "tta", "LIST", &o.tta, "views merged for each image: flip, shorter sides: flip,640,800"),
        PD_OPT_STRING(0, "images", "DIR", &o.images, "where the images of a COCO JSON input are"),
        PD_OPT_STRING(0, "input", "FILE", &o.input, "safetensors with x [N, 3, H, W], normalised and padded"),
        PD_OPT_STRING(0, "raw", "FILE", &o.raw, "with --input: every level's outputs and the detections"),
        PD_OPT_STRING(0, "config", "FILE", &o.hints.config, "configuration, for weights that do not hold one"),
        PD_OPT_INT(0, "num-classes", "N", &o.hints.classes, 1, 100000, "classes, for weights that do not say"),
        PD_OPT_FLAG(0, "lenient", &o.hints.lenient, "the file may miss tensors or have others (they are listed)"),
    };
    const pd_cli cli = {.program = "pd_detect",
                        .usage = "MODEL [IMAGE|DIR|GT.json ...]",
                        .about = "Detects objects. Without -o or --draw it lists them: file, class, score, x1, y1, x2, y2.",
                        .example = "pd_detect model.safetensors photos/ --draw found -o results.json",
                        .opts = opts,
                        .n_opts = sizeof opts / sizeof *opts,
                        .common = PD_CLI_DEVICE | PD_CLI_THREADS | PD_CLI_QUIET | PD_CLI_SET,
                        .min_args = 1,
                        .max_args = -1};
    pd_cli_args args;
    const int code = pd_cli_parse(&args, &cli, argc, argv);
    if (code >= 0) return code;
    const char *about, *const wrong = misuse(&o, &args, &about);
    if (wrong) {
        const int result = pd_cli_wrong(&cli, "%s%s%s", about, *about ? ": " : "", wrong);
        pd_cli_free(&args);
        return result;
    }
    o.hints.sets = &args.set;
    session s = {.opt = &o, .args = &args, .arena = pd_arena_new()};
    pd_err err = PD_ERR_INIT;
    pd_status status = s.arena ? PD_OK : PD_FAIL(&err, PD_ENOMEM, "out of memory");
    if (status == PD_OK) status = pd_device_open(&s.device, args.device, args.threads, &err);
    if (status == PD_OK) status = pd_device_set_precision(s.device, args.precision, &err);
    if (status == PD_OK) status = pd_model_open(&s.model, args.args[0], "detector", &o.hints, s.device, &err);
    if (status == PD_OK && o.max_dets) status = pd_detector_limit(s.model.detector, o.max_dets, &err);
    if (status == PD_OK) status = o.input ? detect_tensors(&s, &err) : detect_images(&s, &err);
    pd_model_close(&s.model);
    pd_device_close(s.device);
    pd_arena_free(s.arena);
    free(s.paths);
    const int result = pd_cli_close_stdout(&cli, status == PD_OK ? 0 : pd_cli_fail(&cli, &err));
    pd_cli_free(&args);
    return result;
}
