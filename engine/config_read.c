/* The tables' half of config.h: tree to struct. */
#include "engine/config.h"
#include "engine/config_tree.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PATH_LENGTH 256
#define NAME_LENGTH 64 /* of words whose distance is measured */

/* ---- words ---- */

/* Edits that make b of a: insert, delete, replace, swap neighbours. */
static size_t distance(const char *a, const char *b)
{
    size_t rows[3][NAME_LENGTH + 1];
    const size_t n = strlen(a), m = strlen(b);
    if (n > NAME_LENGTH || m > NAME_LENGTH) return SIZE_MAX;
    size_t *before = rows[0], *last = rows[1], *now = rows[2];
    for (size_t j = 0; j <= m; j++) last[j] = j;
    for (size_t i = 1; i <= n; i++) {
        now[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t d = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < d) d = last[j] + 1;
            if (now[j - 1] + 1 < d) d = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < d)
                d = before[j - 2] + 1;
            now[j] = d;
        }
        size_t *t = before;
        before = last;
        last = now;
        now = t;
    }
    return last[m];
}

static const char *nearer(const char *wrong, const char *word, const char *best, size_t *edits)
{
    const size_t d = distance(wrong, word);
    if (d >= *edits) return best;
    *edits = d;
    return word;
}

/* One edit for short words, a third of a long one. */
static size_t edits_allowed(const char *wrong)
{
    const size_t n = strlen(wrong);
    return (n < 6 ? 1 : n / 3) + 1;
}

const char *pd_nearest_word(const char *wrong, const char *const *words)
{
    const char *best = NULL;
    size_t edits = edits_allowed(wrong);
    for (; *words; words++) best = nearer(wrong, *words, best, &edits);
    return best;
}

/* ---- where and what, for messages ---- */

typedef struct reader {
    const pd_config *config; /* NULL: only defaults */
    pd_arena *arena;
    pd_err *err;
    char path[PATH_LENGTH]; /* of the key being read */
} reader;

/* Appends ".key" or "[i]"; returns the length to cut back to. */
static size_t enter(reader *r, const char *key, size_t index)
{
    const size_t used = strlen(r->path), room = sizeof r->path - used;
    if (key)
        snprintf(r->path + used, room, "%s%s", used ? "." : "", key);
    else
        snprintf(r->path + used, room, "[%zu]", index);
    return used;
}

static pd_status complain(const reader *r, const pd_config_source *source, const pd_json *value, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* "<where>: <path>: <text>"; source NULL: no value was given. */
static pd_status complain(const reader *r, const pd_config_source *source, const pd_json *value, const char *fmt, ...)
{
    char text[640];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    const char *colon = *r->path ? ": " : "";
    if (!source)
        return PD_FAIL(r->err, r->config ? PD_EFORMAT : PD_EINVAL, "%s: %s%s%s",
                       r->config ? r->config->name : "defaults", r->path, colon, text);
    if (source->command_line) return PD_FAIL(r->err, PD_EINVAL, "command line: %s%s%s", r->path, colon, text);
    return PD_FAIL(r->err, PD_EFORMAT, "%s:%zu: %s%s%s", pd_json_name(source->doc), pd_json_line(source->doc, value),
                   r->path, colon, text);
}

static bool is_number(pd_field_type type)
{
    return type == PD_FIELD_INT || type == PD_FIELD_INT64 || type == PD_FIELD_FLOAT || type == PD_FIELD_DOUBLE;
}

static bool has_range(const pd_field *f)
{
    return is_number(f->type) && (f->min != 0 || f->max != 0);
}

size_t pd_field_range_text(char *out, size_t size, const pd_field *f)
{
    char low[32], high[32];
    out[0] = '\0';
    if (!has_range(f)) return 0;
    pd_json_format_double(low, f->min);
    pd_json_format_double(high, f->max);
    const bool no_low = !isfinite(f->min), no_high = !isfinite(f->max);
    int n = 0;
    if (no_low)
        n = snprintf(out, size, "at most %s", high);
    else if (f->above_min)
        n = no_high ? snprintf(out, size, "above %s", low) : snprintf(out, size, "above %s, at most %s", low, high);
    else
        n = no_high ? snprintf(out, size, "%s or more", low) : snprintf(out, size, "from %s to %s", low, high);
    return n > 0 ? (size_t)n : 0;
}

void pd_field_wanted_text(char *out, size_t size, const pd_field *f)
{
    static const char *const one[] = {
        "true or false", "a whole number", "a whole number", "a number", "a number", "a string", "", "an object"};
    static const char *const many[] = {"booleans", "whole numbers", "whole numbers", "numbers",
                                       "numbers",  "strings",       "words",         "objects"};
    char range[96], words[320] = "";
    pd_field_range_text(range, sizeof range, f);
    if (f->type == PD_FIELD_ENUM) {
        for (size_t i = 0, used = 0; f->names[i] && used < sizeof words; i++)
            used += (size_t)snprintf(words + used, sizeof words - used, "%s\"%s\"", i ? ", " : "", f->names[i]);
    }
    if (!f->length && f->type == PD_FIELD_ENUM)
        snprintf(out, size, "one of %s", words);
    else if (!f->length)
        snprintf(out, size, "%s%s%s%s", one[f->type], *range ? " " : "", range,
                 f->present_offset != PD_FIELD_NONE                       ? " or \"none\""
                 : f->type == PD_FIELD_STRING && !f->text && !f->required ? " or null"
                                                                          : "");
    else
        snprintf(out, size, "a list of %s%zu %s%s%s%s%s", f->count_offset == PD_FIELD_NONE ? "" : "at most ", f->length,
                 many[f->type], *range ? " " : "", range, *words ? " of " : "", words);
}

/* "is X, expected Y", with what may help. */
static pd_status mismatch(const reader *r, const pd_config_source *source, const pd_json *value, const pd_field *f,
                          bool element)
{
    pd_field one = *f;
    if (element) one.length = 0;
    char wanted[480], what[128], hint[96] = "";
    pd_field_wanted_text(wanted, sizeof wanted, &one);
    pd_json_describe(what, sizeof what, value);
    const bool text = pd_json_type(value) == PD_JSON_STRING;
    const char *near = f->type == PD_FIELD_ENUM && text ? pd_nearest_word(pd_json_string(value), f->names) : NULL;
    if (near) snprintf(hint, sizeof hint, " (did you mean \"%s\"?)", near);
    if (f->type == PD_FIELD_STRING && !text && source->command_line)
        snprintf(hint, sizeof hint, " (quote it twice: '\"...\"')");
    return complain(r, source, value, "is %s, expected %s%s", what, wanted, hint);
}

/* ---- values ---- */

size_t pd_field_size(pd_field_type type)
{
    switch (type) {
    case PD_FIELD_BOOL: return sizeof(bool);
    case PD_FIELD_INT:
    case PD_FIELD_ENUM: return sizeof(int);
    case PD_FIELD_INT64: return sizeof(int64_t);
    case PD_FIELD_FLOAT: return sizeof(float);
    case PD_FIELD_DOUBLE: return sizeof(double);
    case PD_FIELD_STRING: return sizeof(const char *);
    case PD_FIELD_OBJECT: break;
    }
    return 0;
}

/* Stores a number whose range was checked. */
static void store_number(void *to, pd_field_type type, double v)
{
    const int i = type == PD_FIELD_INT ? (int)v : 0;
    const int64_t l = type == PD_FIELD_INT64 ? (int64_t)v : 0;
    const float f = (float)v;
    if (type == PD_FIELD_INT) memcpy(to, &i, sizeof i);
    if (type == PD_FIELD_INT64) memcpy(to, &l, sizeof l);
    if (type == PD_FIELD_FLOAT) memcpy(to, &f, sizeof f);
    if (type == PD_FIELD_DOUBLE) memcpy(to, &v, sizeof v);
}

static bool number_fits(const pd_field *f, double v)
{
    if (f->type == PD_FIELD_INT && (v != floor(v) || v < INT_MIN || v > INT_MAX)) return false;
    if (f->type == PD_FIELD_INT64 && (v != floor(v) || fabs(v) >= 0x1p53)) return false;
    if (f->type == PD_FIELD_FLOAT && fabs(v) > FLT_MAX) return false;
    if (!has_range(f)) return true;
    return v >= f->min && v <= f->max && !(f->above_min && v == f->min);
}

/* One number, bool, string or word. */
static pd_status read_one(reader *r, const pd_field *f, const pd_config_source *source, const pd_json *value, void *to,
                          bool element)
{
    const pd_json_kind kind = pd_json_type(value);
    if (is_number(f->type) && kind == PD_JSON_NUMBER && number_fits(f, pd_json_number(value))) {
        store_number(to, f->type, pd_json_number(value));
        return PD_OK;
    }
    if (f->type == PD_FIELD_BOOL && kind == PD_JSON_BOOL) {
        const bool b = pd_json_bool(value);
        memcpy(to, &b, sizeof b);
        return PD_OK;
    }
    if (f->type == PD_FIELD_STRING && kind == PD_JSON_STRING) {
        char *copy;
        PD_TRY(pd_strdup(&copy, r->arena, pd_json_string(value), r->err));
        memcpy(to, &copy, sizeof copy);
        return PD_OK;
    }
    if (f->type == PD_FIELD_STRING && kind == PD_JSON_NULL && !element && !f->text && !f->required) return PD_OK;
    if (f->type == PD_FIELD_ENUM && kind == PD_JSON_STRING) {
        for (int i = 0; f->names[i]; i++) {
            if (strcmp(f->names[i], pd_json_string(value)) != 0) continue;
            memcpy(to, &i, sizeof i);
            return PD_OK;
        }
    }
    return mismatch(r, source, value, f, element);
}

static pd_status read_value(reader *r, const pd_field *f, const pd_config_source *source, const pd_json *value,
                            char *cfg)
{
    if (!f->length) return read_one(r, f, source, value, cfg + f->offset, false);
    const size_t n = pd_json_type(value) == PD_JSON_ARRAY ? pd_json_count(value) : SIZE_MAX;
    if (n > f->length || (n < f->length && f->count_offset == PD_FIELD_NONE))
        return mismatch(r, source, value, f, false);
    size_t i = 0;
    for (const pd_json *v = pd_json_first(value); v; v = pd_json_next(v), i++) {
        const size_t cut = enter(r, NULL, i);
        PD_TRY(read_one(r, f, source, v, cfg + f->offset + i * pd_field_size(f->type), true));
        r->path[cut] = '\0';
    }
    const int count = (int)n;
    if (f->count_offset != PD_FIELD_NONE) memcpy(cfg + f->count_offset, &count, sizeof count);
    return PD_OK;
}

/* A default is read as if a file had given it, so that it must obey its own row. */
static pd_status read_default(reader *r, const pd_field *f, char *cfg)
{
    if (f->required) {
        char wanted[480];
        pd_field_wanted_text(wanted, sizeof wanted, f);
        return complain(r, NULL, NULL, "is missing; expected %s%s%s", wanted, f->doc ? ": " : "", f->doc ? f->doc : "");
    }
    const bool b = f->def != 0;
    if (!f->length && is_number(f->type)) {
        if (!number_fits(f, f->def)) return complain(r, NULL, NULL, "its default is not in its own range");
        store_number(cfg + f->offset, f->type, f->def);
        return PD_OK;
    }
    if (!f->length && f->type == PD_FIELD_BOOL) {
        memcpy(cfg + f->offset, &b, sizeof b);
        return PD_OK;
    }
    if (!f->text) {
        if (f->type == PD_FIELD_ENUM || (f->length && f->count_offset == PD_FIELD_NONE))
            return complain(r, NULL, NULL, "its row has no default and is not required");
        return PD_OK; /* an empty list, no string */
    }
    char *text;
    if (f->length)
        PD_TRY(pd_strdup(&text, r->arena, f->text, r->err));
    else
        PD_TRY(pd_format(&text, r->arena, r->err, "\"%s\"", f->text));
    pd_config_source source = {NULL, false, NULL};
    PD_TRY(pd_json_parse(&source.doc, "default", text, strlen(text), r->err));
    const pd_status status = read_value(r, f, &source, pd_json_root(source.doc), cfg);
    pd_json_close(source.doc);
    return status;
}

/* ---- objects ---- */

static pd_status unknown_key(reader *r, const pd_config_node *node, const pd_table *table)
{
    const char *best = NULL;
    size_t edits = edits_allowed(node->key);
    char all[400] = "";
    size_t used = 0;
    for (size_t i = 0; i < table->n_fields; i++) {
        best = nearer(node->key, table->fields[i].name, best, &edits);
        if (used < sizeof all)
            used += (size_t)snprintf(all + used, sizeof all - used, "%s%s", i ? ", " : "", table->fields[i].name);
    }
    enter(r, node->key, 0);
    if (best) return complain(r, node->source, node->value, "unknown key (did you mean \"%s\"?)", best);
    return complain(r, node->source, node->value, "unknown key (allowed: %s%s)", all, used >= sizeof all ? "..." : "");
}

static pd_status read_object(reader *r, const pd_config_node *node, const pd_table *table, char *cfg);

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the tables are inside each other */
static pd_status read_sub(reader *r, const pd_field *f, const pd_config_node *node, char *cfg)
{
    const bool optional = f->present_offset != PD_FIELD_NONE, given = node && node->value;
    const bool none = optional && given && !node->object && pd_json_type(node->value) == PD_JSON_STRING &&
                      !strcmp(pd_json_string(node->value), "none");
    if (given && !node->object && !none) return mismatch(r, node->source, node->value, f, false);
    if (!given && f->required) return read_default(r, f, cfg);
    const bool present = !optional || (given ? !none : f->def != 0);
    if (optional) memcpy(cfg + f->present_offset, &present, sizeof present);
    return present ? read_object(r, given ? node : NULL, f->table, cfg + f->offset) : PD_OK;
}

/* node NULL: defaults only.
 * NOLINTNEXTLINE(misc-no-recursion): as deep as the tables are inside each other */
static pd_status read_object(reader *r, const pd_config_node *node, const pd_table *table, char *cfg)
{
    for (const pd_config_node *n = node ? node->first : NULL; n; n = n->next) {
        size_t i = 0;
        while (i < table->n_fields && strcmp(table->fields[i].name, n->key) != 0) i++;
        if (i == table->n_fields) return unknown_key(r, n, table);
    }
    for (size_t i = 0; i < table->n_fields; i++) {
        const pd_field *f = &table->fields[i];
        const pd_config_node *n = node ? pd_config_child(node, f->name, strlen(f->name)) : NULL;
        const size_t cut = enter(r, f->name, 0);
        if (f->type == PD_FIELD_OBJECT) {
            PD_TRY(read_sub(r, f, n, cfg));
        } else if (!n) {
            PD_TRY(read_default(r, f, cfg));
        } else if (n->object) { /* its value may be one of its members: --set a.b=1 made an object of a */
            char wanted[480];
            pd_field_wanted_text(wanted, sizeof wanted, f);
            return complain(r, n->source, n->value, "is an object, expected %s", wanted);
        } else {
            PD_TRY(read_value(r, f, n->source, n->value, cfg));
        }
        r->path[cut] = '\0';
    }
    if (!table->check) return PD_OK;
    pd_err own = PD_ERR_INIT;
    const pd_status status = table->check(cfg, &own);
    if (status == PD_OK) return PD_OK;
    if (status == PD_EINVAL || status == PD_EFORMAT)
        return complain(r, node ? node->source : NULL, node ? node->value : NULL, "%s", own.text);
    return PD_FAIL(r->err, status, "%s", own.text);
}

static pd_status read_table(void *cfg, const pd_config *config, const pd_table *table, pd_arena *arena, pd_err *err)
{
    reader r = {.config = config, .arena = arena, .err = err};
    char *fresh;
    PD_TRY(pd_alloc(&fresh, arena, table->size, 1, err));
    PD_TRY(read_object(&r, config ? &config->root : NULL, table, fresh));
    memcpy(cfg, fresh, table->size);
    return PD_OK;
}

pd_status pd_config_read(void *cfg, const pd_config *config, const pd_table *table, pd_arena *arena, pd_err *err)
{
    return read_table(cfg, config, table, arena, err);
}

pd_status pd_config_defaults(void *cfg, const pd_table *table, pd_arena *arena, pd_err *err)
{
    return read_table(cfg, NULL, table, arena, err);
}
