/* The writing half of json.h. */
#include "engine/file.h"
#include "engine/json.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct pd_json_writer {
    cJSON *open[PD_JSON_DEPTH]; /* open[0] is the document, open[depth] takes the next value */
    int depth;
    bool no_memory, too_deep;
    char bad_text[64]; /* the key of a string that is not UTF-8; "" while there is none */
};

static pd_json_writer *writer(cJSON *root)
{
    pd_json_writer *w = root ? calloc(1, sizeof *w) : NULL;
    if (!w) {
        cJSON_Delete(root);
        return NULL;
    }
    w->open[0] = root;
    return w;
}

pd_json_writer *pd_json_object(void)
{
    return writer(cJSON_CreateObject());
}

pd_json_writer *pd_json_array(void)
{
    return writer(cJSON_CreateArray());
}

void pd_json_free(pd_json_writer *w)
{
    if (!w) return;
    cJSON_Delete(w->open[0]);
    free(w);
}

static bool failed(const pd_json_writer *w)
{
    return !w || w->no_memory || w->too_deep || *w->bad_text;
}

/* Hands `item` to the open container; false (and item freed) when that was not possible. */
static bool add(pd_json_writer *w, const char *key, cJSON *item)
{
    cJSON *parent = w->open[w->depth];
    assert(cJSON_IsObject(parent) == (key != NULL));
    const bool ok = item && (key ? cJSON_AddItemToObject(parent, key, item) : cJSON_AddItemToArray(parent, item));
    if (!ok) {
        cJSON_Delete(item);
        w->no_memory = true;
    }
    return ok;
}

void pd_json_put_null(pd_json_writer *w, const char *key)
{
    if (!failed(w)) add(w, key, cJSON_CreateNull());
}

void pd_json_put_bool(pd_json_writer *w, const char *key, bool value)
{
    if (!failed(w)) add(w, key, cJSON_CreateBool(value));
}

/* cJSON prints numbers with as many digits as it finds enough, which is not always all: ours go in as text. */
void pd_json_put_int(pd_json_writer *w, const char *key, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    if (!failed(w)) add(w, key, cJSON_CreateRaw(text));
}

void pd_json_put_double(pd_json_writer *w, const char *key, double value)
{
    char text[32];
    pd_json_format_double(text, value);
    if (!failed(w)) add(w, key, cJSON_CreateRaw(text));
}

void pd_json_put_float(pd_json_writer *w, const char *key, float value)
{
    char text[32];
    pd_json_format_float(text, value);
    if (!failed(w)) add(w, key, cJSON_CreateRaw(text));
}

static bool is_utf8(const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    for (size_t left = strlen(text), n; left; p += n, left -= n)
        if ((n = pd_utf8_length(p, left)) == 0) return false;
    return true;
}

void pd_json_put_string(pd_json_writer *w, const char *key, const char *value)
{
    if (failed(w)) return;
    if (value && !is_utf8(value))
        snprintf(w->bad_text, sizeof w->bad_text, "%s", key && *key ? key : "an element");
    else
        add(w, key, value ? cJSON_CreateString(value) : cJSON_CreateNull());
}

void pd_json_put_doubles(pd_json_writer *w, const char *key, const double *values, size_t count)
{
    pd_json_begin_array(w, key);
    for (size_t i = 0; i < count; i++) pd_json_put_double(w, NULL, values[i]);
    pd_json_end(w);
}

void pd_json_put_ints(pd_json_writer *w, const char *key, const int64_t *values, size_t count)
{
    pd_json_begin_array(w, key);
    for (size_t i = 0; i < count; i++) pd_json_put_int(w, NULL, values[i]);
    pd_json_end(w);
}

static void begin(pd_json_writer *w, const char *key, cJSON *container)
{
    if (!add(w, key, container)) return;
    if (w->depth + 1 == PD_JSON_DEPTH)
        w->too_deep = true;
    else
        w->open[++w->depth] = container;
}

void pd_json_begin_object(pd_json_writer *w, const char *key)
{
    if (!failed(w)) begin(w, key, cJSON_CreateObject());
}

void pd_json_begin_array(pd_json_writer *w, const char *key)
{
    if (!failed(w)) begin(w, key, cJSON_CreateArray());
}

void pd_json_end(pd_json_writer *w)
{
    if (failed(w)) return;
    assert(w->depth > 0);
    w->depth--;
}

/* cJSON indents by tabs, writes a tab behind ':' and breaks the line inside {}. Writes the same with blanks; returns
 * the length. out NULL: only counts. */
static size_t tidy(char *out, const char *text)
{
    size_t n = 0;
    bool quoted = false, indent = false;
    for (const char *p = text; *p; p++) {
        const char *piece = p;
        size_t length = 1;
        if (quoted && *p == '\\') {
            length = 2;
        } else if (*p == '"') {
            quoted = !quoted;
        } else if (!quoted && *p == '\t') {
            piece = "    ";
            length = indent ? 4 : 1;
        } else if (!quoted && *p == '{' && p[1] == '\n' && p[2 + strspn(p + 2, "\t")] == '}') {
            p += 1 + strspn(p + 2, "\t");
        }
        indent = *p == '\n' || (indent && *p == '\t');
        if (out) memcpy(out + n, piece, length);
        n += length;
        if (length == 2) p++;
    }
    if (out) out[n] = '\0';
    return n;
}

static pd_status print(char **out, const pd_json_writer *w, bool pretty, pd_arena *arena, pd_err *err)
{
    if (!w || w->no_memory) return PD_FAIL(err, PD_ENOMEM, "out of memory while writing JSON");
    if (w->too_deep) return PD_FAIL(err, PD_EINVAL, "more than %d objects and arrays inside each other", PD_JSON_DEPTH);
    if (*w->bad_text) return PD_FAIL(err, PD_EINVAL, "\"%s\": a text that is not UTF-8 cannot be written", w->bad_text);
    if (w->depth) return PD_FAIL(err, PD_EINVAL, "%d objects or arrays of the document were not closed", w->depth);
    char *text = pretty ? cJSON_Print(w->open[0]) : cJSON_PrintUnformatted(w->open[0]);
    if (!text) return PD_FAIL(err, PD_ENOMEM, "out of memory while writing JSON");
    char *copy;
    const size_t length = pretty ? tidy(NULL, text) : strlen(text);
    const pd_status status = pd_alloc(&copy, arena, length + 1, 1, err);
    if (status == PD_OK) {
        if (pretty)
            tidy(copy, text);
        else
            memcpy(copy, text, length + 1);
        *out = copy;
    }
    cJSON_free(text);
    return status;
}

pd_status pd_json_finish(char **out, pd_json_writer *w, bool pretty, pd_arena *arena, pd_err *err)
{
    const pd_status status = print(out, w, pretty, arena, err);
    pd_json_free(w);
    return status;
}

pd_status pd_json_save(const char *path, pd_json_writer *w, bool pretty, pd_err *err)
{
    pd_status status = PD_OK;
    char *text = NULL;
    pd_out *file = NULL;
    pd_arena *arena = pd_arena_new();
    if (!arena) status = PD_FAIL(err, PD_ENOMEM, "out of memory");
    if (status == PD_OK) status = print(&text, w, pretty, arena, err);
    if (status == PD_OK)
        status = pd_out_open(&file, path, err);
    else
        pd_err_context(err, "%s", path);
    if (status == PD_OK) {
        pd_out_write(file, text, strlen(text));
        pd_out_write(file, "\n", 1);
        status = pd_out_commit(file, err);
    }
    pd_arena_free(arena);
    pd_json_free(w);
    return status;
}

/* The decimal point, where the locale has a comma. */
static void point(char *number)
{
    char *comma = strchr(number, ',');
    if (comma) *comma = '.';
}

/* A decimal of DBL_DIG (FLT_DIG) digits survives the way through a double (float), so if any text that short reads
 * back, the first one tried does. */
void pd_json_format_double(char out[32], double value)
{
    snprintf(out, 32, "null");
    if (!isfinite(value)) return;
    for (int n = 15; n <= 17; n++) {
        snprintf(out, 32, "%.*g", n, value);
        if (strtod(out, NULL) == value) break;
    }
    point(out);
}

void pd_json_format_float(char out[32], float value)
{
    snprintf(out, 32, "null");
    if (!isfinite(value)) return;
    for (int n = 6; n <= 9; n++) {
        snprintf(out, 32, "%.*g", n, (double)value);
        if ((float)strtod(out, NULL) == value) break;
    }
    point(out);
}
