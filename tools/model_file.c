#include "tools/model_file.h"
#include "engine/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const double pd_imagenet_mean[3] = {123.675, 116.28, 103.53}, pd_imagenet_std[3] = {58.395, 57.12, 57.375};

static pd_status add_json(pd_st_writer *w, const char *key, pd_json_writer *json, pd_arena *arena, pd_err *err)
{
    char *text;
    PD_TRY(pd_json_finish(&text, json, false, arena, err));
    return pd_st_add_meta(w, key, text, err);
}

pd_status pd_model_meta_write(pd_st_writer *w, const pd_model_meta *m, pd_err *err)
{
    char name[32], count[16];
    pd_arena *arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "out of memory for metadata");
    pd_status status = PD_OK;
    snprintf(count, sizeof count, "%d", m->classes);
    PD_TRY_DONE(pd_st_add_meta(w, "format", "pt", err));
    PD_TRY_DONE(pd_st_add_meta(w, "type", m->type, err));
    PD_TRY_DONE(pd_st_add_meta(w, "arch", pd_arch_name(name, m->arch), err));
    PD_TRY_DONE(pd_st_add_meta(w, "branches", pd_branches_text(m->arch.branches), err));
    PD_TRY_DONE(pd_st_add_meta(w, "num_classes", count, err));
    PD_TRY_DONE(pd_st_add_meta(w, "folded", m->folded ? "true" : "false", err));
    if (m->config) PD_TRY_DONE(pd_st_add_meta(w, "config", m->config, err));
    if (m->names) {
        pd_json_writer *json = pd_json_array();
        for (int i = 0; i < m->classes; i++) pd_json_put_string(json, NULL, m->names[i]);
        PD_TRY_DONE(add_json(w, "classes", json, arena, err));
    }
    if (m->ids) {
        pd_json_writer *json = pd_json_array();
        for (int i = 0; i < m->classes; i++) pd_json_put_int(json, NULL, m->ids[i]);
        PD_TRY_DONE(add_json(w, "category_ids", json, arena, err));
    }
    const struct {
        const char *key;
        const double *v;
    } norm[] = {{"mean", m->mean}, {"std", m->std}};
    for (int k = 0; k < 2; k++) {
        pd_json_writer *json = pd_json_array();
        for (int i = 0; i < 3; i++) pd_json_put_double(json, NULL, norm[k].v[i]);
        PD_TRY_DONE(add_json(w, norm[k].key, json, arena, err));
    }
done:
    pd_arena_free(arena);
    return status;
}

/* A metadata entry that is a JSON array of `count` elements; *doc NULL where there is none. */
static pd_status read_array(pd_json_doc **doc, const pd_st *file, const char *key, size_t count, pd_err *err)
{
    const char *text = pd_st_meta(file, key);
    *doc = NULL;
    if (!text) return PD_OK;
    PD_TRY(pd_json_parse(doc, pd_st_path(file), text, strlen(text), err));
    if (pd_json_type(pd_json_root(*doc)) == PD_JSON_ARRAY && pd_json_count(pd_json_root(*doc)) == count) return PD_OK;
    pd_json_close(*doc);
    *doc = NULL;
    return PD_FAIL(err, PD_EFORMAT, "%s: metadata \"%s\" is not a list of %zu values", pd_st_path(file), key, count);
}

static pd_status read_names(pd_model_meta *m, const pd_st *file, pd_arena *arena, pd_err *err)
{
    pd_json_doc *doc;
    pd_status status = PD_OK;
    PD_TRY(read_array(&doc, file, "classes", (size_t)m->classes, err));
    if (!doc) return PD_OK;
    char **names;
    PD_TRY_DONE(PD_ALLOC(&names, arena, (size_t)m->classes, err));
    const pd_json *v = pd_json_first(pd_json_root(doc));
    for (int i = 0; i < m->classes; i++, v = pd_json_next(v)) {
        if (pd_json_type(v) != PD_JSON_STRING) {
            status = PD_FAIL(err, PD_EFORMAT, "%s: metadata \"classes\": entry %d is not text", pd_st_path(file), i);
            goto done;
        }
        PD_TRY_DONE(pd_strdup(&names[i], arena, pd_json_string(v), err));
    }
    m->names = (const char *const *)names;
done:
    pd_json_close(doc);
    return status;
}

static pd_status read_numbers(double *out, const pd_st *file, const char *key, size_t count, bool *there, pd_err *err)
{
    pd_json_doc *doc;
    PD_TRY(read_array(&doc, file, key, count, err));
    *there = doc != NULL;
    if (!doc) return PD_OK;
    const pd_json *v = pd_json_first(pd_json_root(doc));
    pd_status status = PD_OK;
    for (size_t i = 0; i < count && status == PD_OK; i++, v = pd_json_next(v)) {
        if (pd_json_type(v) == PD_JSON_NUMBER)
            out[i] = pd_json_number(v);
        else
            status =
                PD_FAIL(err, PD_EFORMAT, "%s: metadata \"%s\": entry %zu is not a number", pd_st_path(file), key, i);
    }
    pd_json_close(doc);
    return status;
}

static pd_status read_ids(pd_model_meta *m, const pd_st *file, pd_arena *arena, pd_err *err)
{
    double *values;
    int64_t *ids;
    bool there;
    PD_TRY(PD_ALLOC(&values, arena, (size_t)m->classes, err));
    PD_TRY(read_numbers(values, file, "category_ids", (size_t)m->classes, &there, err));
    if (!there) return PD_OK;
    PD_TRY(PD_ALLOC(&ids, arena, (size_t)m->classes, err));
    for (int i = 0; i < m->classes; i++) ids[i] = (int64_t)values[i];
    m->ids = ids;
    return PD_OK;
}

pd_status pd_model_meta_read(pd_model_meta *out, const pd_st *file, const char *arch, const char *branches, int classes,
                             const char *type_default, pd_arena *arena, pd_err *err)
{
    pd_model_meta m = {0};
    const char *path = pd_st_path(file), *count = pd_st_meta(file, "num_classes"), *folded = pd_st_meta(file, "folded");
    if (!arch) arch = pd_st_meta(file, "arch");
    const bool given = branches != NULL;
    if (!given) branches = pd_st_meta(file, "branches");
    if (!arch)
        return PD_FAIL(err, PD_EFORMAT, "%s: does not say its architecture: give --arch (as pd_a_resnet18)", path);
    PD_TRY(pd_arch_parse(&m.arch, arch, NULL, err));
    if (given || m.arch.branches) PD_TRY(pd_arch_parse(&m.arch, arch, branches, err)); /* others may say it of any network */
    m.classes = classes ? classes : count ? atoi(count) : 0;
    if (m.classes < 1 || m.classes > 1000000)
        return PD_FAIL(err, PD_EFORMAT, "%s: does not say its number of classes: give --num-classes", path);
    m.folded = folded && !strcmp(folded, "true");
    m.type = pd_st_meta(file, "type") ? pd_st_meta(file, "type") : type_default;
    m.config = pd_st_meta(file, "config");
    memcpy(m.mean, pd_imagenet_mean, sizeof m.mean);
    memcpy(m.std, pd_imagenet_std, sizeof m.std);
    bool there;
    if (!classes || (count && classes == atoi(count))) {
        PD_TRY(read_names(&m, file, arena, err));
        PD_TRY(read_ids(&m, file, arena, err));
    }
    PD_TRY(read_numbers(m.mean, file, "mean", 3, &there, err));
    PD_TRY(read_numbers(m.std, file, "std", 3, &there, err));
    char *type = NULL, *config = NULL;
    PD_TRY(pd_strdup(&type, arena, m.type, err));
    if (m.config) PD_TRY(pd_strdup(&config, arena, m.config, err));
    m.type = type;
    m.config = config;
    *out = m;
    return PD_OK;
}
