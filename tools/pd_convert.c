/* pd_convert: weights of PyTorch files in, and back out. */
#include "backbones/import.h"
#include "detectors/detector.h"
#include "engine/file.h"
#include "engine/torch_file.h"
#include "tools/cli.h"
#include "tools/model_file.h"

#include <stdlib.h>
#include <string.h>

typedef struct options {
    const char *map, *arch, *branches, *key;
    int classes;
    bool to_pth, list, skip_objects, lenient;
} options;

/* One tensor on its way. */
typedef struct item {
    const char *from;
    pd_torch_item to; /* name NULL: left over */
} item;

typedef struct job {
    const options *o;
    const char *in, *out;
    bool to_pth;
    pd_arena *arena;
    pd_torch *torch; /* one of the two */
    pd_st *st;
    item *items;
    size_t count;
    item **sorted; /* those that are taken, by their new name */
    size_t taken, renamed;
    pd_map map;
    bool has_meta;
    pd_model_meta meta;
} job;

/* ---- reading ------------------------------------------------------------------------------------------------------
 */

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

static pd_status open_input(job *j, pd_err *err)
{
    const pd_torch_options how = {.key = j->o->key, .skip_objects = j->o->skip_objects};
    if (pd_torch_looks_like(j->in) || !ends_with(j->in, ".safetensors"))
        PD_TRY(pd_torch_open(&j->torch, j->in, &how, err));
    else
        PD_TRY(pd_st_open(&j->st, j->in, err));
    j->count = j->torch ? pd_torch_count(j->torch) : pd_st_count(j->st);
    return PD_OK;
}

static pd_view source(const job *j, size_t i, const char **name)
{
    if (j->torch) {
        *name = pd_torch_at(j->torch, i)->name;
        return pd_torch_at(j->torch, i)->view;
    }
    *name = pd_st_at(j->st, i)->name;
    return pd_view_of(pd_st_at(j->st, i));
}

static pd_status choose_map(job *j, pd_err *err)
{
    if (strcmp(j->o->map, "auto") != 0) return pd_map_parse(&j->map, j->o->map, err);
    const char **names;
    PD_TRY(pd_alloc((void *)&names, j->arena, j->count, sizeof *names, err));
    for (size_t i = 0; i < j->count; i++) (void)source(j, i, &names[i]);
    j->map = pd_map_guess(names, j->count);
    if (j->to_pth && j->map == PD_MAP_MMDET1) j->map = PD_MAP_MMDET;
    return PD_OK;
}

/* ---- names and values
 * ------------------------------------------------------------------------------------------------ */

/* The tensor's new shape, and the parts of the old one that it is made of. */
static pd_status change_values(const job *j, item *it, const pd_view *v, pd_map_change change, pd_err *err)
{
    pd_torch_item *to = &it->to;
    pd_view view = *v;
    const int64_t rows = v->ndim ? v->shape[0] : 0;
    switch (change) {
    case PD_MAP_KEEP: break;
    case PD_MAP_FLATTEN:
        if (j->to_pth && v->ndim == 2) {
            view.ndim = 4;
            view.shape[2] = view.shape[3] = view.stride[2] = view.stride[3] = 1;
        } else if (!j->to_pth && v->ndim == 4) {
            if (v->shape[2] != 1 || v->shape[3] != 1)
                return PD_FAIL(err, PD_EFORMAT, "%s: %s: is no 1x1 convolution, as the map %s has there", j->in,
                               it->from, pd_map_name(j->map));
            view.ndim = 2;
        }
        break;
    case PD_MAP_BACK_LAST:
        if (rows < 2) return PD_FAIL(err, PD_EFORMAT, "%s: %s: has no class beside the background", j->in, it->from);
        to->parts[1] = pd_view_rows(v, 0, 1);
        to->n_parts = 2;
        view = pd_view_rows(v, 1, rows - 1);
        break;
    case PD_MAP_DROP_BACK:
        if (rows > 4) view = pd_view_rows(v, 4, rows - 4);
        break;
    }
    to->parts[0] = view;
    if (!to->n_parts) to->n_parts = 1;
    to->ndim = view.ndim;
    memcpy(to->shape, view.shape, sizeof to->shape);
    if (to->n_parts == 2) to->shape[0] = rows;
    return PD_OK;
}

static int by_new_name(const void *a, const void *b)
{
    return strcmp((*(const item *const *)a)->to.name, (*(const item *const *)b)->to.name);
}

static pd_status map_items(job *j, pd_err *err)
{
    PD_TRY(PD_ALLOC(&j->items, j->arena, j->count, err));
    PD_TRY(pd_alloc((void *)&j->sorted, j->arena, j->count, sizeof(item *), err));
    for (size_t i = 0; i < j->count; i++) {
        item *it = &j->items[i];
        pd_map_change change = PD_MAP_KEEP;
        char *name = NULL;
        const pd_view view = source(j, i, &it->from);
        const bool training = j->st && !strncmp(it->from, "train.", 6);
        if (!training)
            PD_TRY((j->to_pth ? pd_map_write : pd_map_read)(&name, &change, j->map, it->from, j->arena, err));
        if (!name) continue;
        PD_TRY(change_values(j, it, &view, change, err));
        it->to.name = name;
        j->sorted[j->taken++] = it;
        j->renamed += strcmp(it->from, name) != 0;
    }
    if (!j->taken)
        return PD_FAIL(err, PD_EFORMAT,
                       "%s: none of its %zu tensors has a name that the map %s knows; --list shows them, --map none "
                       "takes them as they are",
                       j->in, j->count, pd_map_name(j->map));
    qsort((void *)j->sorted, j->taken, sizeof(item *), by_new_name);
    for (size_t i = 1; i < j->taken; i++)
        if (!strcmp(j->sorted[i - 1]->to.name, j->sorted[i]->to.name))
            return PD_FAIL(err, PD_EFORMAT, "%s: %s and %s both become %s", j->in, j->sorted[i - 1]->from,
                           j->sorted[i]->from, j->sorted[i]->to.name);
    return PD_OK;
}

/* ---- what network it is
 * ------------------------------------------------------------------------------------------------ */

static const item *find(const job *j, const char *name)
{
    const item key = {.to = {.name = name}}, *want = &key;
    item **at = bsearch((const void *)&want, (void *)j->sorted, j->taken, sizeof(item *), by_new_name);
    return at ? *at : NULL;
}

static int64_t rows_of(const job *j, const char *name)
{
    const item *it = find(j, name);
    return it && it->to.ndim && it->to.shape[0] < INT32_MAX ? it->to.shape[0] : 0;
}

/* What shows a kind of model: the layer whose rows are classes, times something, plus something. */
static const struct kind {
    const char *layer, *prefix;
    int detector; /* pd_detector_type; -1: a classifier */
    int64_t times, plus;
} kinds[] = {
    {"bbox_head.retina_cls.weight", "backbone.", PD_RETINANET, 9, 0},
    {"roi_head.bbox_head.0.fc_cls.weight", "backbone.", PD_CASCADE_RCNN, 1, 1},
    {"roi_head.bbox_head.fc_cls.weight", "backbone.", PD_FASTER_RCNN, 1, 1},
    {"fc.weight", "", -1, 1, 0},
};

static const struct kind *find_kind(const job *j)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (find(j, kinds[i].layer)) return &kinds[i];
    return NULL;
}

/* Registers the network's parameters. */
static pd_status describe_network(pd_params *params, const struct kind *kind, const pd_model_meta *m, bool class_boxes,
                                  pd_err *err)
{
    pd_tape *t = NULL;
    PD_TRY(pd_tape_new(&t, params, false, err));
    pd_status status = PD_OK;
    if (kind->detector < 0) {
        pd_record_classifier(t, PD_FORM_EVAL, m->arch, m->classes,
                             pd_tape_input(t, "image", PD_F32, PD_SHAPE(1, 224, 224, 3)), NULL);
    } else {
        pd_detector_settings set = pd_detector_defaults((pd_detector_type)kind->detector);
        set.arch = m->arch;
        set.classes = m->classes;
        set.cascade.class_boxes = class_boxes;
        status = pd_record_detector(t, PD_FORM_EVAL, &set, 256, 256, err);
    }
    if (status == PD_OK) status = pd_tape_status(t, err);
    pd_tape_free(t);
    return status;
}

static bool same_shape(const pd_param *p, const pd_torch_item *t)
{
    bool same = p->rank == t->ndim;
    for (int i = 0; same && i < p->rank; i++) same = p->dim[i] == t->shape[i];
    return same;
}

/* Type and configuration: a detector without a configuration would need one at every use. */
static pd_status describe_type(job *j, pd_model_meta *m, const struct kind *kind, bool class_boxes, pd_err *err)
{
    static const char faster[] =
        ", \"rcnn\": {\"rpn\": {\"border\": -1, \"smooth_l1_beta\": 0, \"train_proposals\": 1000}, "
        "\"stages\": {\"ious\": [0.5], \"weights\": [1], \"stds\": [0.1, 0.1, 0.2, 0.2], \"smooth_l1_beta\": 0, "
        "\"reg_class_agnostic\": ";
    const bool one = kind->detector == PD_FASTER_RCNN;
    char *text, name[32];
    m->type = kind->detector < 0 ? "classifier" : pd_detector_name((pd_detector_type)kind->detector);
    if (kind->detector < 0) return PD_OK;
    PD_TRY(pd_format(
        &text, j->arena, err,
        "{\"model\": {\"type\": \"%s\", \"num_classes\": %d, "
        "\"backbone\": {\"arch\": \"%s\", \"branches\": \"%s\"}%s%s%s}}",
        m->type, m->classes, pd_arch_name(name, m->arch), pd_branches_text(m->arch.branches), one ? faster : "",
        !one ? "" : class_boxes ? "false" : "true", one ? "}}" : ""));
    m->config = text;
    return PD_OK;
}

/* Counts what differs between tensors and network; each is named on `to`, where there is one, the first in `first`. */
static size_t differences(const job *j, const pd_params *params, FILE *to, char first[256])
{
    char line[600], have[128], want[128];
    size_t count = 0;
    for (size_t i = 0; i < pd_params_count(params) + j->taken; i++) {
        const size_t n = pd_params_count(params);
        line[0] = '\0';
        if (i < n) {
            const pd_param *p = pd_params_at(params, i);
            const item *it = find(j, p->name);
            if (!it && p->kind != PD_COUNTER) snprintf(line, sizeof line, "missing: %s", p->name);
            if (it && !same_shape(p, &it->to) && p->kind != PD_COUNTER) {
                const int64_t dim[4] = {p->dim[0], p->dim[1], p->dim[2], p->dim[3]};
                pd_st_shape_text(have, it->to.ndim, it->to.shape);
                pd_st_shape_text(want, p->rank, dim);
                snprintf(line, sizeof line, "another shape: %s: file has %s, model wants %s", it->to.name, have, want);
            }
        } else if (!pd_params_find(params, j->sorted[i - n]->to.name)) {
            snprintf(line, sizeof line, "unexpected: %s", j->sorted[i - n]->to.name);
        }
        if (!line[0]) continue;
        if (!count++) snprintf(first, 256, "%.255s", line);
        if (to) fprintf(to, "%s\n", line);
    }
    return count;
}

/* Finds out what network the tensors are, or holds them against what the command line says. */
static pd_status recognise(job *j, bool quiet, pd_err *err)
{
    const options *o = j->o;
    const char **names;
    char first[256] = "";
    pd_params *params = NULL;
    pd_model_meta m = {0};
    if (j->st && pd_st_meta(j->st, "arch")) return PD_OK; /* it says so itself */
    PD_TRY(pd_alloc((void *)&names, j->arena, j->taken, sizeof *names, err));
    for (size_t i = 0; i < j->taken; i++) names[i] = j->sorted[i]->to.name;
    const struct kind *kind = find_kind(j);
    const bool guessed = kind && pd_arch_guess(&m.arch, kind->prefix, names, j->taken);
    if (o->arch) PD_TRY(pd_arch_parse(&m.arch, o->arch, o->branches, err));
    if (!kind && o->arch)
        return PD_FAIL(err, PD_EFORMAT, "%s: has no layer of classes (%s or a detector's): --arch cannot be written",
                       j->in, "fc.weight");
    if (!kind || (!o->arch && !guessed)) {
        if (!quiet) fprintf(stderr, "note: no whole network of this program: written without saying which\n");
        return PD_OK;
    }
    m.classes = o->classes ? o->classes : (int)((rows_of(j, kind->layer) - kind->plus) / kind->times);
    if (m.classes < 1) return PD_FAIL(err, PD_EFORMAT, "%s: %s has no class", j->in, kind->layer);
    const bool class_boxes = rows_of(j, "roi_head.bbox_head.fc_reg.weight") == 4 * (int64_t)m.classes;
    PD_TRY(describe_type(j, &m, kind, class_boxes, err));
    PD_TRY(pd_params_new(&params, err));
    pd_status status = describe_network(params, kind, &m, class_boxes, err);
    char name[32];
    pd_arch_name(name, m.arch);
    if (status == PD_OK) {
        const size_t count = differences(j, params, o->arch ? stderr : NULL, first);
        j->has_meta = !count || (o->arch && o->lenient);
        if (count && o->arch && !o->lenient)
            status = PD_FAIL(err, PD_EFORMAT, "%s: is not %s with %d classes: %zu of its tensors differ, the first: %s",
                             j->in, name, m.classes, count, first);
        else if (count && !o->arch && !quiet)
            fprintf(stderr,
                    "note: looks like %s with %d classes, but %zu of its tensors differ (the first: %s): written "
                    "without saying which\n",
                    name, m.classes, count, first);
    }
    pd_params_free(params);
    memcpy(m.mean, pd_imagenet_mean, sizeof m.mean);
    memcpy(m.std, pd_imagenet_std, sizeof m.std);
    j->meta = m;
    return status;
}

/* ---- writing
 * ---------------------------------------------------------------------------------------------------------- */

static void put(void *writer, const void *data, size_t bytes)
{
    pd_st_put(writer, data, bytes);
}

static pd_status fill(void *arg, pd_st_writer *w, pd_err *err)
{
    const item *it = arg;
    (void)err;
    for (int i = 0; i < it->to.n_parts; i++) pd_view_walk(&it->to.parts[i], put, w);
    return PD_OK;
}

static pd_status write_safetensors(job *j, pd_err *err)
{
    pd_st_writer *w;
    PD_TRY(pd_st_create(&w, j->out, PD_ST_SORTED, err));
    pd_status status = PD_OK;
    if (j->has_meta) {
        PD_TRY_DONE(pd_model_meta_write(w, &j->meta, err));
    } else if (!j->st) {
        PD_TRY_DONE(pd_st_add_meta(w, "format", "pt", err));
    }
    for (size_t i = 0; j->st && !j->has_meta && i < pd_st_meta_count(j->st); i++) {
        const char *key, *value;
        pd_st_meta_at(j->st, i, &key, &value);
        PD_TRY_DONE(pd_st_add_meta(w, key, value, err));
    }
    for (size_t i = 0; i < j->taken; i++) {
        item *it = j->sorted[i];
        PD_TRY_DONE(pd_st_add_stream(w, it->to.name, it->to.parts[0].type, it->to.ndim, it->to.shape, fill, it, err));
    }
    status = pd_st_commit(w, err);
    w = NULL;
done:
    pd_st_cancel(w);
    return status;
}

/* A bare state dict, as torchvision and timm load it, or one under "state_dict", as the others do. */
static pd_status write_torch(job *j, pd_err *err)
{
    pd_torch_item *items;
    const char *arch = j->o->arch ? j->o->arch : j->st ? pd_st_meta(j->st, "arch") : NULL;
    const char *const texts[] = {arch ? "arch" : NULL, arch, NULL};
    const bool wrapped = j->map == PD_MAP_MMDET || j->map == PD_MAP_PARADISE;
    size_t n = 0;
    PD_TRY(PD_ALLOC(&items, j->arena, j->taken, err));
    for (size_t i = 0; i < j->count; i++)
        if (j->items[i].to.name) items[n++] = j->items[i].to;
    return pd_torch_save(j->out, items, n, wrapped ? "state_dict" : NULL, texts, err);
}

/* ---- the report
 * ---------------------------------------------------------------------------------------------------------- */

static void list(const job *j)
{
    char shape[128];
    for (size_t i = 0; i < j->count; i++) {
        const char *name;
        const pd_view v = source(j, i, &name);
        pd_st_shape_text(shape, v.ndim, v.shape);
        printf("%-50s %-5s %s\n", name, pd_st_type_name(v.type), shape);
    }
    for (size_t i = 0; j->torch && i < pd_torch_other_count(j->torch); i++)
        printf("%s: %s\n", pd_torch_other_at(j->torch, i)->name, pd_torch_other_at(j->torch, i)->value);
    for (size_t i = 0; j->st && i < pd_st_meta_count(j->st); i++) {
        const char *key, *value;
        pd_st_meta_at(j->st, i, &key, &value);
        printf("%s: %.120s\n", key, value);
    }
}

static void report(const job *j, bool quiet)
{
    size_t others = j->torch ? pd_torch_other_count(j->torch) : 0;
    for (size_t i = 0; !quiet && i < j->count; i++) {
        const item *it = &j->items[i];
        char shape[128];
        if (!it->to.name) {
            printf("left over  %s\n", it->from);
            continue;
        }
        pd_st_shape_text(shape, it->to.ndim, it->to.shape);
        if (!strcmp(it->from, it->to.name))
            printf("taken      %s %s\n", it->from, shape);
        else
            printf("renamed    %s -> %s %s\n", it->from, it->to.name, shape);
    }
    for (size_t i = 0; !quiet && i < others; i++)
        printf("left over  %s: %s\n", pd_torch_other_at(j->torch, i)->name, pd_torch_other_at(j->torch, i)->value);
    printf("%s: %zu tensors taken, %zu of them renamed (map %s), %zu left over", j->out, j->taken, j->renamed,
           pd_map_name(j->map), j->count - j->taken);
    if (others) printf(", and %zu other entr%s", others, others == 1 ? "y" : "ies");
    if (j->has_meta) {
        char name[32];
        printf("; a %s, %s, %d classes", j->meta.type, pd_arch_name(name, j->meta.arch), j->meta.classes);
        if (j->meta.arch.branches) printf(", branches %s", pd_branches_text(j->meta.arch.branches));
    }
    printf("\n");
}

static pd_status convert(job *j, bool quiet, pd_err *err)
{
    PD_TRY(open_input(j, err));
    if (j->o->list) {
        list(j);
        return PD_OK;
    }
    PD_TRY(choose_map(j, err));
    PD_TRY(map_items(j, err));
    if (!j->to_pth) PD_TRY(recognise(j, quiet, err));
    PD_TRY(j->to_pth ? write_torch(j, err) : write_safetensors(j, err));
    report(j, quiet);
    return PD_OK;
}

int main(int argc, char **argv)
{
    options o = {.map = "auto"};
    const pd_opt opts[] = {
        PD_OPT_STRING(0, "map", "NAME", &o.map,
                      "whose names PyTorch's side has: auto, torchvision, timm, mmdet, mmdet1, paradise, none"),
        PD_OPT_STRING(0, "key", "PATH", &o.key, "where the state dict is in the file, as model_ema (found by itself)"),
        PD_OPT_FLAG(0, "list", &o.list, "print what IN holds, convert nothing"),
        PD_OPT_FLAG(0, "to-pth", &o.to_pth, "write a file of torch.save, whatever OUT's name"),
        PD_OPT_STRING(0, "arch", "NAME", &o.arch, "architecture, held against the tensors (recognised by itself)"),
        PD_OPT_STRING(0, "branches", "LIST", &o.branches, "with --arch: s1,s2,skeleton,group or some of them"),
        PD_OPT_INT(0, "num-classes", "N", &o.classes, 1, 1000000, "classes (read from the last layer)"),
        PD_OPT_FLAG(0, "lenient", &o.lenient,
                    "with --arch: tensors may be missing or others be there (they are listed)"),
        PD_OPT_FLAG(0, "skip-objects", &o.skip_objects, "pass over objects that are no tensors and no plain data"),
    };
    const pd_cli cli = {
        .program = "pd_convert",
        .usage = "IN [OUT]",
        .about = "Converts weights: files of torch.save (or safetensors of others) to OUT.safetensors with this "
                 "program's names; or a model of this program to OUT.pth. Nothing in a file is ever run.",
        .example = "pd_convert resnet50-0676ba61.pth resnet50.safetensors",
        .opts = opts,
        .n_opts = sizeof opts / sizeof *opts,
        .common = PD_CLI_QUIET,
        .min_args = 1,
        .max_args = 2};
    pd_cli_args args;
    const int code = pd_cli_parse(&args, &cli, argc, argv);
    if (code >= 0) return code;
    static const char *const torch_ends[] = {".pth", ".pt", ".tar", ".th", ".bin"};
    job j = {.o = &o,
             .in = args.args[0],
             .out = args.n_args > 1 ? args.args[1] : "",
             .to_pth = o.to_pth,
             .arena = pd_arena_new()};
    for (size_t i = 0; i < sizeof torch_ends / sizeof *torch_ends; i++) j.to_pth |= ends_with(j.out, torch_ends[i]);
    pd_err err = PD_ERR_INIT;
    pd_map map;
    int result = -1;
    if (o.list != (args.n_args == 1))
        result = pd_cli_wrong(&cli, o.list ? "--list takes one file" : "OUT is missing");
    else if (strcmp(o.map, "auto") != 0 && pd_map_parse(&map, o.map, &err) != PD_OK)
        result = pd_cli_wrong(&cli, "%s", err.text);
    else if (pd_is_same_file(j.in, j.out))
        result = pd_cli_wrong(&cli, "%s: would replace what it is made of; give another OUT", j.out);
    else if (o.branches && !o.arch)
        result = pd_cli_wrong(&cli, "--branches goes with --arch");
    if (result < 0) {
        const pd_status status = j.arena ? convert(&j, args.quiet, &err) : PD_FAIL(&err, PD_ENOMEM, "out of memory");
        result = pd_cli_close_stdout(&cli, status == PD_OK ? 0 : pd_cli_fail(&cli, &err));
    }
    pd_torch_close(j.torch);
    pd_st_close(j.st);
    pd_arena_free(j.arena);
    pd_cli_free(&args);
    return result;
}
