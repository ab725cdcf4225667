#include "engine/json.h"

#include "engine/file.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_LENGTH 63 /* what cJSON reads of a number */
#define FEW_KEYS 32      /* sorted without the heap */

struct pd_json_doc {
    char *name, *text; /* text: a copy, for line numbers; 0-terminated */
    size_t size;
    cJSON *root;
};

size_t pd_utf8_length(const unsigned char *p, size_t left)
{
    if (p[0] < 0x80) return 1;
    const size_t n = p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : p[0] >= 0xe0 ? 3 : p[0] >= 0xc2 ? 2 : 0;
    if (n == 0 || p[0] >= 0xf5 || n > left) return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

/* ---- the scanner ----
 * cJSON accepts some things that are not JSON (01, raw line breaks in strings), cannot tell a syntax error from a lack
 * of memory and forgets where values stood. So a scanner goes over the text first: it checks all of the grammar, and
 * the same scanner finds the n-th value's place when an error needs its line. */

typedef struct scan {
    const char *text;
    size_t size, at;
    size_t values;     /* values begun so far, in document order */
    const char *fault; /* what is wrong at `at` */
} scan;

static bool fault(scan *s, size_t at, const char *text)
{
    s->at = at;
    s->fault = text;
    return false;
}

static int peek(const scan *s)
{
    return s->at < s->size ? (unsigned char)s->text[s->at] : -1;
}

static void skip_blanks(scan *s)
{
    while (s->at < s->size && strchr(" \t\r\n", s->text[s->at]) && s->text[s->at]) s->at++;
}

/* Four hexadecimal digits at `at`; -1 if they are not there. */
static int hex4(const scan *s, size_t at)
{
    int value = 0;
    if (s->size - at < 4) return -1;
    for (size_t i = at; i < at + 4; i++) {
        const char c = s->text[i];
        const int digit = c >= '0' && c <= '9'                 ? c - '0'
                          : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                               : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* \uXXXX, with its second half where the first is a surrogate; s->at stands on the 'u'. */
static bool scan_unicode(scan *s)
{
    const int first = hex4(s, s->at + 1);
    if (first < 0) return fault(s, s->at, "\\u needs four hexadecimal digits");
    if (first == 0) return fault(s, s->at, "the character \\u0000 is not allowed");
    s->at += 5;
    if (first < 0xd800 || first > 0xdfff) return true;
    const bool pair = first < 0xdc00 && s->size - s->at >= 6 && s->text[s->at] == '\\' && s->text[s->at + 1] == 'u';
    const int second = pair ? hex4(s, s->at + 2) : -1;
    if (second < 0xdc00 || second > 0xdfff) return fault(s, s->at - 5, "half of a surrogate pair");
    s->at += 6;
    return true;
}

static bool scan_string(scan *s)
{
    const size_t begin = s->at++;
    for (;;) {
        const int c = peek(s);
        if (c < 0) return fault(s, begin, "a string without an end");
        if (c == '"') break;
        if (c < 0x20) return fault(s, s->at, "a line break or control character inside a string (write \\n)");
        if (c != '\\') {
            const size_t n = pd_utf8_length((const unsigned char *)s->text + s->at, s->size - s->at);
            if (n == 0) return fault(s, s->at, "text that is not UTF-8");
            s->at += n;
            continue;
        }
        s->at++;
        const int e = peek(s);
        if (e == 'u') {
            if (!scan_unicode(s)) return false;
        } else if (e > 0 && strchr("\"\\/bfnrt", e)) {
            s->at++;
        } else {
            return fault(s, s->at, "an unknown escape after \\ (write \\\\ for a backslash)");
        }
    }
    s->at++;
    return true;
}

static size_t digits(scan *s)
{
    const size_t begin = s->at;
    while (peek(s) >= '0' && peek(s) <= '9') s->at++;
    return s->at - begin;
}

static bool scan_number(scan *s)
{
    const size_t begin = s->at;
    if (peek(s) == '-') s->at++;
    const bool zero = peek(s) == '0';
    const size_t whole = digits(s);
    if (whole == 0) return fault(s, begin, "not a JSON value");
    if (zero && whole > 1) return fault(s, begin, "a number that begins with 0");
    if (peek(s) == '.') {
        s->at++;
        if (digits(s) == 0) return fault(s, begin, "a number without digits behind its point");
    }
    if (peek(s) == 'e' || peek(s) == 'E') {
        s->at++;
        if (peek(s) == '+' || peek(s) == '-') s->at++;
        if (digits(s) == 0) return fault(s, begin, "a number without digits in its exponent");
    }
    if (s->at - begin > NUMBER_LENGTH) return fault(s, begin, "a number of more than 63 characters");
    return true;
}

static bool scan_word(scan *s)
{
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < 3; i++) {
        const size_t n = strlen(words[i]);
        if (s->size - s->at >= n && !memcmp(s->text + s->at, words[i], n)) {
            s->at += n;
            return true;
        }
    }
    return fault(s, s->at, s->at == s->size ? "the text ends where a value is expected" : "not a JSON value");
}

static bool scan_key(scan *s)
{
    skip_blanks(s);
    if (peek(s) != '"') return fault(s, s->at, "a key in double quotes is expected here");
    if (!scan_string(s)) return false;
    skip_blanks(s);
    if (peek(s) != ':') return fault(s, s->at, "':' is expected between a key and its value");
    s->at++;
    return true;
}

/* Closes what ends here and steps over the ',' in front of the next value. False at the end of the text's value
 * (depth is 0 then) or at a fault. */
static bool scan_behind_value(scan *s, const char *open, int *depth)
{
    while (*depth > 0) {
        const char closing = open[*depth - 1] == '{' ? '}' : ']';
        skip_blanks(s);
        if (peek(s) == closing) {
            s->at++;
            (*depth)--;
            continue;
        }
        if (peek(s) != ',')
            return fault(s, s->at, closing == '}' ? "',' or '}' is expected here" : "',' or ']' is expected here");
        s->at++;
        skip_blanks(s);
        if (peek(s) == closing) return fault(s, s->at, "a ',' behind the last element");
        return closing == '}' ? scan_key(s) : true;
    }
    return false;
}

/* Goes over one value with all that is in it and the blanks around it; stops with true at the start of value number
 * `stop`. */
static bool scan_value(scan *s, size_t stop)
{
    char open[PD_JSON_DEPTH];
    int depth = 0;
    do {
        skip_blanks(s);
        if (s->values++ == stop) return true;
        const int c = peek(s);
        if (c == '{' || c == '[') {
            if (depth == PD_JSON_DEPTH) return fault(s, s->at, "more than 64 objects and arrays inside each other");
            open[depth++] = (char)c;
            s->at++;
            skip_blanks(s);
            if (peek(s) == (c == '{' ? '}' : ']')) {
                s->at++;
                depth--;
            } else {
                if (c == '{' && !scan_key(s)) return false;
                continue;
            }
        } else if (c == '"' ? !scan_string(s) : c == '-' || (c >= '0' && c <= '9') ? !scan_number(s) : !scan_word(s)) {
            return false;
        }
        if (!scan_behind_value(s, open, &depth)) break;
    } while (true);
    if (s->fault) return false;
    skip_blanks(s);
    return s->at == s->size || fault(s, s->at, "more text behind the end of the document");
}

static size_t line_of(const char *text, size_t at)
{
    size_t line = 1;
    for (size_t i = 0; i < at; i++) line += text[i] == '\n';
    return line;
}

/* ---- walking the tree in document order ---- */

typedef struct walk {
    const cJSON *at[PD_JSON_DEPTH + 1]; /* the current value is at[depth] */
    size_t index[PD_JSON_DEPTH + 1];    /* its place among its siblings */
    int depth;
} walk;

/* The next value in document order, NULL at the end. */
static const cJSON *step(walk *w)
{
    const cJSON *v = w->at[w->depth];
    if (v->child && w->depth < PD_JSON_DEPTH) {
        w->at[++w->depth] = v->child;
        w->index[w->depth] = 0;
        return v->child;
    }
    for (; w->depth > 0; w->depth--) {
        if (w->at[w->depth]->next) {
            w->index[w->depth]++;
            return w->at[w->depth] = w->at[w->depth]->next;
        }
    }
    return NULL;
}

/* Walks to `value`: its number in document order. */
static size_t walk_to(walk *w, const pd_json_doc *doc, const cJSON *value)
{
    size_t n = 0;
    *w = (walk){.at = {doc->root}};
    for (const cJSON *v = doc->root; v && v != value; v = step(w)) n++;
    return n;
}

size_t pd_json_line(const pd_json_doc *doc, const pd_json *value)
{
    walk w;
    scan s = {.text = doc->text, .size = doc->size};
    scan_value(&s, walk_to(&w, doc, value));
    return line_of(doc->text, s.at);
}

void pd_json_path(char *out, size_t size, const pd_json_doc *doc, const pd_json *value)
{
    walk w;
    walk_to(&w, doc, value);
    size_t used = 0;
    out[0] = '\0';
    for (int i = 1; i <= w.depth && used < size; i++) {
        const int n = w.at[i]->string ? snprintf(out + used, size - used, "%s%s", i > 1 ? "." : "", w.at[i]->string)
                                      : snprintf(out + used, size - used, "[%zu]", w.index[i]);
        if (n < 0) break;
        used += (size_t)n;
    }
}

pd_status pd_json_fail(const pd_json_doc *doc, const pd_json *value, pd_err *err, const char *fmt, ...)
{
    char path[256], text[600];
    pd_json_path(path, sizeof path, doc, value);
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return PD_FAIL(err, PD_EFORMAT, "%s:%zu: %s%s%s", doc->name, pd_json_line(doc, value), path, *path ? ": " : "",
                   text);
}

/* ---- documents ---- */

static int by_key(const void *a, const void *b)
{
    return strcmp((*(const cJSON *const *)a)->string, (*(const cJSON *const *)b)->string);
}

/* Sorts the object's keys and looks at neighbours. */
static pd_status check_keys(const pd_json_doc *doc, const cJSON *object, pd_err *err)
{
    const cJSON *few[FEW_KEYS], **keys = few;
    const size_t n = pd_json_count(object);
    if (n > FEW_KEYS && !(keys = malloc(n * sizeof(const cJSON *))))
        return PD_FAIL(err, PD_ENOMEM, "%s: out of memory", doc->name);
    size_t i = 0;
    for (const cJSON *v = object->child; v; v = v->next) keys[i++] = v;
    qsort((void *)keys, n, sizeof(const cJSON *), by_key);
    pd_status status = PD_OK;
    for (i = 1; i < n && status == PD_OK; i++) {
        if (by_key(&keys[i - 1], &keys[i]) != 0) continue;
        const cJSON *last = NULL;
        for (const cJSON *v = object->child; v; v = v->next)
            if (!strcmp(v->string, keys[i]->string)) last = v;
        status = pd_json_fail(doc, last, err, "this key appears twice in its object");
    }
    if (keys != few) free((void *)keys);
    return status;
}

static pd_status check_tree(const pd_json_doc *doc, pd_err *err)
{
    walk w = {.at = {doc->root}};
    for (const cJSON *v = doc->root; v; v = step(&w)) {
        if (cJSON_IsObject(v)) PD_TRY(check_keys(doc, v, err));
        if (cJSON_IsNumber(v) && !isfinite(v->valuedouble))
            return pd_json_fail(doc, v, err, "a number too large for a double");
    }
    return PD_OK;
}

/* Makes the document from text that it takes over: freed with it, and here on failure. */
static pd_status parse(pd_json_doc **out, const char *name, char *text, size_t size, pd_err *err)
{
    pd_json_doc *doc = calloc(1, sizeof *doc);
    if (!doc) {
        free(text);
        return PD_FAIL(err, PD_ENOMEM, "%s: out of memory", name);
    }
    pd_status status = PD_OK;
    doc->text = text;
    doc->size = size;
    if (!(doc->name = strdup(name))) {
        status = PD_FAIL(err, PD_ENOMEM, "%s: out of memory", name);
        goto done;
    }
    if (size >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) memset(text, ' ', 3); /* a byte order mark */
    scan s = {.text = text, .size = size};
    if (!scan_value(&s, SIZE_MAX)) {
        status = PD_FAIL(err, PD_EFORMAT, "%s:%zu: %s", name, line_of(text, s.at), s.fault);
        goto done;
    }
    if (!(doc->root = cJSON_ParseWithLengthOpts(text, size + 1, NULL, 1))) { /* the grammar was checked */
        status = PD_FAIL(err, PD_ENOMEM, "%s: out of memory", name);
        goto done;
    }
    PD_TRY_DONE(check_tree(doc, err));
    *out = doc;
    doc = NULL;
done:
    pd_json_close(doc);
    return status;
}

pd_status pd_json_parse(pd_json_doc **out, const char *name, const void *text, size_t size, pd_err *err)
{
    char *copy = size < SIZE_MAX ? malloc(size + 1) : NULL;
    if (!copy) return PD_FAIL(err, PD_ENOMEM, "%s: out of memory", name);
    if (size) memcpy(copy, text, size);
    copy[size] = '\0';
    return parse(out, name, copy, size, err);
}

pd_status pd_json_read(pd_json_doc **out, const char *path, size_t limit, pd_err *err)
{
    pd_arena *arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "%s: out of memory", path);
    pd_bytes bytes;
    pd_status status = pd_file_read(&bytes, path, limit ? limit : PD_JSON_LIMIT, arena, err);
    if (status == PD_OK) status = pd_json_parse(out, path, bytes.data, bytes.size, err);
    pd_arena_free(arena);
    return status;
}

void pd_json_close(pd_json_doc *doc)
{
    if (!doc) return;
    cJSON_Delete(doc->root);
    free(doc->name);
    free(doc->text);
    free(doc);
}

const pd_json *pd_json_root(const pd_json_doc *doc)
{
    return doc->root;
}

const char *pd_json_name(const pd_json_doc *doc)
{
    return doc->name;
}

/* ---- values ---- */

pd_json_kind pd_json_type(const pd_json *value)
{
    switch (value->type & 0xff) {
    case cJSON_False:
    case cJSON_True: return PD_JSON_BOOL;
    case cJSON_Number: return PD_JSON_NUMBER;
    case cJSON_String: return PD_JSON_STRING;
    case cJSON_Array: return PD_JSON_ARRAY;
    case cJSON_Object: return PD_JSON_OBJECT;
    default: return PD_JSON_NULL;
    }
}

const pd_json *pd_json_member(const pd_json *object, const char *key)
{
    if (!cJSON_IsObject(object)) return NULL;
    for (const cJSON *v = object->child; v; v = v->next)
        if (!strcmp(v->string, key)) return v;
    return NULL;
}

const pd_json *pd_json_first(const pd_json *container)
{
    return container->child;
}

const pd_json *pd_json_next(const pd_json *value)
{
    return value->next;
}

size_t pd_json_count(const pd_json *container)
{
    size_t n = 0;
    for (const cJSON *v = container->child; v; v = v->next) n++;
    return n;
}

const char *pd_json_key(const pd_json *value)
{
    return value->string;
}

bool pd_json_bool(const pd_json *value)
{
    assert(cJSON_IsBool(value));
    return cJSON_IsTrue(value);
}

double pd_json_number(const pd_json *value)
{
    assert(cJSON_IsNumber(value));
    return value->valuedouble;
}

const char *pd_json_string(const pd_json *value)
{
    assert(cJSON_IsString(value));
    return value->valuestring;
}

void pd_json_describe(char *out, size_t size, const pd_json *value)
{
    char number[32];
    switch (pd_json_type(value)) {
    case PD_JSON_NULL: snprintf(out, size, "null"); break;
    case PD_JSON_BOOL: snprintf(out, size, "%s", pd_json_bool(value) ? "true" : "false"); break;
    case PD_JSON_NUMBER:
        pd_json_format_double(number, value->valuedouble);
        snprintf(out, size, "%s (a number)", number);
        break;
    case PD_JSON_STRING: {
        const size_t n = strlen(value->valuestring);
        snprintf(out, size, "\"%.60s%s\" (a string)", value->valuestring, n > 60 ? "..." : "");
        break;
    }
    case PD_JSON_ARRAY: snprintf(out, size, "an array of %zu", pd_json_count(value)); break;
    case PD_JSON_OBJECT: snprintf(out, size, "an object"); break;
    }
}

/* The member of that kind, or an error. */
static pd_status need(const cJSON **out, const pd_json_doc *doc, const pd_json *object, const char *key,
                      pd_json_kind kind, const char *wanted, pd_err *err)
{
    const cJSON *v = pd_json_member(object, key);
    if (!v) {
        pd_json_fail(doc, object, err, "key \"%s\" is missing (%s)", key, wanted);
        return PD_EFORMAT;
    }
    if (pd_json_type(v) != kind) {
        char what[128];
        pd_json_describe(what, sizeof what, v);
        pd_json_fail(doc, v, err, "is %s, expected %s", what, wanted);
        return PD_EFORMAT;
    }
    *out = v;
    return PD_OK;
}

pd_status pd_json_get_bool(bool *out, const pd_json_doc *doc, const pd_json *object, const char *key, pd_err *err)
{
    const cJSON *v;
    PD_TRY(need(&v, doc, object, key, PD_JSON_BOOL, "true or false", err));
    *out = cJSON_IsTrue(v);
    return PD_OK;
}

pd_status pd_json_get_number(double *out, const pd_json_doc *doc, const pd_json *object, const char *key, pd_err *err)
{
    const cJSON *v;
    PD_TRY(need(&v, doc, object, key, PD_JSON_NUMBER, "a number", err));
    *out = v->valuedouble;
    return PD_OK;
}

pd_status pd_json_get_int(int64_t *out, const pd_json_doc *doc, const pd_json *object, const char *key, int64_t min,
                          int64_t max, pd_err *err)
{
    const cJSON *v;
    PD_TRY(need(&v, doc, object, key, PD_JSON_NUMBER, "a whole number", err));
    const double d = v->valuedouble;
    if (d != floor(d) || fabs(d) >= 0x1p53 || (int64_t)d < min || (int64_t)d > max) {
        char what[128];
        pd_json_describe(what, sizeof what, v);
        return pd_json_fail(doc, v, err, "is %s, expected a whole number from %lld to %lld", what, (long long)min,
                            (long long)max);
    }
    *out = (int64_t)d;
    return PD_OK;
}

pd_status pd_json_get_string(const char **out, const pd_json_doc *doc, const pd_json *object, const char *key,
                             pd_err *err)
{
    const cJSON *v;
    PD_TRY(need(&v, doc, object, key, PD_JSON_STRING, "a string", err));
    *out = v->valuestring;
    return PD_OK;
}

pd_status pd_json_get_array(const pd_json **out, const pd_json_doc *doc, const pd_json *object, const char *key,
                            pd_err *err)
{
    return need(out, doc, object, key, PD_JSON_ARRAY, "an array", err);
}

pd_status pd_json_get_object(const pd_json **out, const pd_json_doc *doc, const pd_json *object, const char *key,
                             pd_err *err)
{
    return need(out, doc, object, key, PD_JSON_OBJECT, "an object", err);
}
