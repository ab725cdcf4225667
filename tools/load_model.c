#include "tools/load_model.h"
#include "engine/checkpoint.h"

#include <stdio.h>
#include <string.h>

static pd_status read_cls_config(pd_model *m, const char *path, pd_err *err)
{
    pd_config *c = NULL;
    const char *text = m->meta.config ? m->meta.config : "{}";
    PD_TRY(pd_config_parse(&c, path, text, strlen(text), err));
    const pd_status status = pd_config_read(&m->cls, c, &pd_cls_table, m->arena, err);
    pd_config_free(c);
    return status;
}

static pd_status read_det_config(pd_model *m, const char *path, const pd_model_hints *h, pd_err *err)
{
    pd_config *c = NULL;
    pd_status status = PD_OK;
    const char *text = m->meta.config ? m->meta.config : "{}";
    if (h->config)
        PD_TRY(pd_config_load(&c, h->config, err));
    else
        PD_TRY(pd_config_parse(&c, path, text, strlen(text), err));
    for (size_t i = 0; h->sets && i < h->sets->count; i++) PD_TRY_DONE(pd_config_set(c, h->sets->items[i], err));
    PD_TRY_DONE(pd_config_read(&m->det, c, &pd_det_table, m->arena, err));
done:
    pd_config_free(c);
    return status;
}

static pd_status load(pd_model *m, pd_params *params, const pd_st *file, bool lenient, pd_err *err)
{
    static const char *const skip[] = {"fc.", NULL};
    char *report;
    const pd_load_options how = {.lenient = lenient, .skip = m->detector ? skip : NULL};
    const pd_status status = pd_load_params(params, file, &how, &report, m->arena, err);
    if (status == PD_EFORMAT || (status == PD_OK && lenient)) fputs(report, stderr);
    return status;
}

static pd_status open_classifier(pd_model *m, const pd_st *file, const pd_model_hints *h, pd_device *device, pd_err *err)
{
    PD_TRY(pd_model_meta_read(&m->meta, file, h->arch, h->branches, h->classes, "classifier", m->arena, err));
    PD_TRY(read_cls_config(m, pd_st_path(file), err));
    const pd_classifier_settings set = {.arch = m->meta.arch, .classes = m->meta.classes, .folded = m->meta.folded};
    PD_TRY(pd_classifier_new(&m->classifier, device, &set, err));
    return load(m, pd_classifier_params(m->classifier), file, h->lenient, err);
}

static pd_status open_detector(pd_model *m, const pd_st *file, const pd_model_hints *h, pd_device *device, pd_err *err)
{
    const char *path = pd_st_path(file), *arch = h->arch, *branches = h->branches;
    int classes = h->classes;
    m->meta.config = pd_st_meta(file, "config");
    if (!h->config && !m->meta.config)
        return PD_FAIL(err, PD_EFORMAT, "%s: holds no configuration: give --config CONFIG.json", path);
    PD_TRY(read_det_config(m, path, h, err));
    if (!pd_st_meta(file, "arch") || h->config) {
        arch = m->det.model.backbone.arch;
        branches = m->det.model.backbone.branches;
    }
    if (!classes && (h->config || !pd_st_meta(file, "num_classes"))) classes = m->det.model.num_classes;
    const char *kind = pd_detector_name((pd_detector_type)m->det.model.type);
    if (pd_st_meta(file, "type") && strcmp(kind, pd_st_meta(file, "type")) != 0)
        return PD_FAIL(err, PD_EFORMAT, "%s: holds a %s, the configuration describes a %s", path, pd_st_meta(file, "type"), kind);
    PD_TRY(pd_model_meta_read(&m->meta, file, arch, branches, classes, kind, m->arena, err));
    m->det.model.num_classes = m->meta.classes;
    if (h->config || (h->sets && h->sets->count)) { /* what is written of this model says what it was run as */
        char *text;
        PD_TRY(pd_config_print(&text, &m->det, &pd_det_table, m->arena, err));
        m->meta.config = text;
    }
    pd_detector_settings set;
    PD_TRY(pd_det_settings(&set, &m->det, m->meta.classes, err));
    set.arch = m->meta.arch;
    set.classes = m->meta.classes;
    set.folded = m->meta.folded;
    PD_TRY(pd_detector_new(&m->detector, device, &set, err));
    return load(m, pd_detector_params(m->detector), file, h->lenient, err);
}

static pd_status open_file(pd_model *m, const pd_st *file, const char *type, const pd_model_hints *h, pd_device *device,
                           pd_err *err)
{
    const char *said = pd_st_meta(file, "type");
    const bool says_detector = said ? strcmp(said, "classifier") != 0 : h->config != NULL;
    const bool detector = type ? strcmp(type, "classifier") != 0 : says_detector;
    if (said && detector != says_detector)
        return PD_FAIL(err, PD_EFORMAT, "%s: holds a %s, a %s is wanted", pd_st_path(file), said, detector ? "detector" : "classifier");
    return detector ? open_detector(m, file, h, device, err) : open_classifier(m, file, h, device, err);
}

pd_status pd_model_open(pd_model *out, const char *path, const char *type, const pd_model_hints *hints, pd_device *device,
                        pd_err *err)
{
    pd_st *file = NULL;
    pd_model m = {.arena = pd_arena_new()};
    if (!m.arena) return PD_FAIL(err, PD_ENOMEM, "out of memory for a model");
    pd_status status = pd_st_open(&file, path, err);
    if (status == PD_OK) status = open_file(&m, file, type, hints, device, err);
    pd_st_close(file);
    if (status != PD_OK) {
        pd_model_close(&m);
        return status;
    }
    *out = m;
    return PD_OK;
}

void pd_model_close(pd_model *m)
{
    pd_classifier_free(m->classifier);
    pd_detector_free(m->detector);
    pd_arena_free(m->arena);
    *m = (pd_model){0};
}
