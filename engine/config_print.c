/* The printing half of config.h: struct to JSON, tables to help. */
#include "engine/config.h"
#include "engine/config_tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put_one(pd_json_writer *w, const char *key, const pd_field *f, const char *from)
{
    bool b;
    int i;
    int64_t l;
    float x;
    double d;
    const char *s;
    switch (f->type) {
    case PD_FIELD_BOOL:
        memcpy(&b, from, sizeof b);
        pd_json_put_bool(w, key, b);
        break;
    case PD_FIELD_INT:
        memcpy(&i, from, sizeof i);
        pd_json_put_int(w, key, i);
        break;
    case PD_FIELD_ENUM:
        memcpy(&i, from, sizeof i);
        pd_json_put_string(w, key, f->names[i]);
        break;
    case PD_FIELD_INT64:
        memcpy(&l, from, sizeof l);
        pd_json_put_int(w, key, l);
        break;
    case PD_FIELD_FLOAT:
        memcpy(&x, from, sizeof x);
        pd_json_put_float(w, key, x);
        break;
    case PD_FIELD_DOUBLE:
        memcpy(&d, from, sizeof d);
        pd_json_put_double(w, key, d);
        break;
    case PD_FIELD_STRING:
        memcpy(&s, from, sizeof s);
        pd_json_put_string(w, key, s);
        break;
    case PD_FIELD_OBJECT: break;
    }
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the tables are inside each other */
static void put_fields(pd_json_writer *w, const pd_table *table, const char *cfg)
{
    for (size_t k = 0; k < table->n_fields; k++) {
        const pd_field *f = &table->fields[k];
        const char *from = cfg + f->offset;
        bool present = true;
        if (f->present_offset != PD_FIELD_NONE) memcpy(&present, cfg + f->present_offset, sizeof present);
        if (f->type == PD_FIELD_OBJECT && present) {
            pd_json_begin_object(w, f->name);
            put_fields(w, f->table, from);
            pd_json_end(w);
        } else if (f->type == PD_FIELD_OBJECT) {
            pd_json_put_string(w, f->name, "none");
        } else if (f->length) {
            int count = (int)f->length;
            if (f->count_offset != PD_FIELD_NONE) memcpy(&count, cfg + f->count_offset, sizeof count);
            pd_json_begin_array(w, f->name);
            for (int i = 0; i < count; i++) put_one(w, NULL, f, from + (size_t)i * pd_field_size(f->type));
            pd_json_end(w);
        } else {
            put_one(w, f->name, f, from);
        }
    }
}

pd_status pd_config_print(char **out, const void *cfg, const pd_table *table, pd_arena *arena, pd_err *err)
{
    pd_json_writer *w = pd_json_object();
    put_fields(w, table, cfg);
    return pd_json_finish(out, w, true, arena, err);
}

/* ---- help ---- */

static void default_text(char *out, size_t size, const pd_field *f)
{
    char number[32];
    pd_json_format_double(number, f->def);
    if (f->required)
        snprintf(out, size, "required");
    else if (f->type == PD_FIELD_OBJECT)
        snprintf(out, size, "%s", f->present_offset != PD_FIELD_NONE && f->def == 0 ? "\"none\"" : "{}");
    else if (f->length)
        snprintf(out, size, "%s", f->text ? f->text : "[]");
    else if (f->type == PD_FIELD_STRING || f->type == PD_FIELD_ENUM)
        snprintf(out, size, f->text ? "\"%s\"" : "%s", f->text ? f->text : "null");
    else if (f->type == PD_FIELD_BOOL)
        snprintf(out, size, "%s", f->def != 0 ? "true" : "false");
    else
        snprintf(out, size, "%s", number);
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the tables are inside each other */
static void help_fields(FILE *out, const pd_table *table, const char *prefix)
{
    for (size_t k = 0; k < table->n_fields; k++) {
        const pd_field *f = &table->fields[k];
        char path[256], wanted[480], def[160];
        snprintf(path, sizeof path, "%s%s", prefix, f->name);
        pd_field_wanted_text(wanted, sizeof wanted, f);
        default_text(def, sizeof def, f);
        const char *doc = f->doc ? f->doc : "";
        if (f->type == PD_FIELD_OBJECT && f->present_offset == PD_FIELD_NONE)
            fprintf(out, "\n%s: %s\n", path, doc);
        else
            fprintf(out, "  %s = %s\n      %s%s(%s)\n", path, def, doc, *doc ? " " : "", wanted);
        if (f->type != PD_FIELD_OBJECT) continue;
        snprintf(path, sizeof path, "%s%s.", prefix, f->name);
        help_fields(out, f->table, path);
    }
}

pd_status pd_config_help(char **out, const pd_table *table, pd_arena *arena, pd_err *err)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (!f) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    help_fields(f, table, "");
    pd_status status = fclose(f) == 0 ? PD_OK : PD_FAIL(err, PD_ENOMEM, "out of memory");
    if (status == PD_OK) status = pd_strndup(out, arena, text, size, err);
    free(text);
    return status;
}
