#include "engine/json_stream.h"

#include <stdarg.h>
#include <stdio.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

void pd_js_begin(pd_js *j, const void *data, size_t size, const char *name)
{
    memset(j, 0, sizeof *j);
    j->begin = j->at = size ? data : (const unsigned char *)"";
    j->end = j->begin + size;
    j->name = name;
    if (size >= 3 && !memcmp(j->at, "\xef\xbb\xbf", 3)) j->at += 3;
}

void pd_js_begin_at(pd_js *j, const void *data, size_t size, const char *name, size_t offset)
{
    pd_js_begin(j, data, size, name);
    j->at = j->begin + offset;
}

void pd_js_begin_item(pd_js *j, const pd_js *array, size_t offset)
{
    *j = *array;
    j->at = j->begin + offset;
    j->fresh = true;
}

void pd_js_strict(pd_js *j)
{
    j->strict = true;
}

/* ---- errors ---- */

bool pd_js_fail(pd_js *j, size_t offset, const char *fmt, ...)
{
    if (j->err.code != PD_OK) return false;
    size_t line = 1;
    for (const unsigned char *p = j->begin, *stop = j->begin + offset;
         p < stop && (p = memchr(p, '\n', (size_t)(stop - p))); p++)
        line++;
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    pd_fail(&j->err, PD_EFORMAT, "%s: line %zu, byte %zu: %s", j->name, line, offset, text);
    j->at = j->end;
    return false;
}

bool pd_js_fail_with(pd_js *j, const pd_err *cause)
{
    if (j->err.code == PD_OK) j->err = *cause;
    j->at = j->end;
    return false;
}

static bool expected(pd_js *j, const char *what)
{
    if (j->err.code != PD_OK) return false;
    const size_t offset = pd_js_offset(j);
    if (j->at >= j->end) return pd_js_fail(j, offset, "expected %s, found the end of the file", what);
    const unsigned char c = *j->at;
    if (c >= 0x20 && c < 0x7f) return pd_js_fail(j, offset, "expected %s, found '%c'", what, c);
    return pd_js_fail(j, offset, "expected %s, found byte 0x%02x", what, c);
}

pd_status pd_js_error(const pd_js *j, pd_err *err)
{
    if (j->err.code != PD_OK && err) *err = j->err;
    return j->err.code;
}

/* ---- scanning ---- */

static inline bool is_space(unsigned char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static inline void skip_space(pd_js *j)
{
    const unsigned char *p = j->at;
    while (p < j->end && is_space(*p)) p++;
    j->at = p;
}

pd_status pd_js_end(pd_js *j, pd_err *err)
{
    skip_space(j);
    if (j->err.code == PD_OK && j->depth > 0) expected(j, "a closing bracket");
    if (j->err.code == PD_OK && j->at < j->end) expected(j, "the end of the file");
    return pd_js_error(j, err);
}

/* First byte at or after p that ends a plain run of a string: a quote, a backslash, a control character or anything
 * that is not ASCII. */
static const unsigned char *plain_run(const unsigned char *p, const unsigned char *end)
{
#if defined(__SSE2__)
    const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\'), space = _mm_set1_epi8(0x20);
    for (; end - p >= 16; p += 16) {
        const __m128i v = _mm_loadu_si128((const __m128i *)p);
        /* A signed comparison: bytes over 0x7f are negative and count as below 0x20 too. */
        const __m128i hit =
            _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, slash)), _mm_cmplt_epi8(v, space));
        const int mask = _mm_movemask_epi8(hit);
        if (mask) return p + __builtin_ctz((unsigned)mask);
    }
#endif
    while (p < end && *p != '"' && *p != '\\' && *p >= 0x20 && *p < 0x80) p++;
    return p;
}

/* Length of the UTF-8 character at p, 0 if it is none (overlong, surrogate, cut off, over U+10FFFF). */
static size_t utf8_length(const unsigned char *p, const unsigned char *end)
{
    const size_t left = (size_t)(end - p);
#define TAIL(i) ((p[i] & 0xc0) == 0x80)
    if (p[0] < 0x80) return 1;
    if (p[0] >= 0xc2 && p[0] <= 0xdf) return left >= 2 && TAIL(1) ? 2 : 0;
    if (p[0] >= 0xe0 && p[0] <= 0xef) {
        if (left < 3 || !TAIL(1) || !TAIL(2)) return 0;
        if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f)) return 0;
        return 3;
    }
    if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        if (left < 4 || !TAIL(1) || !TAIL(2) || !TAIL(3)) return 0;
        if ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)) return 0;
        return 4;
    }
#undef TAIL
    return 0;
}

static int hex_digit(unsigned char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Length of the escape at the backslash p, 0 if it is none. */
static size_t escape_length(const unsigned char *p, const unsigned char *end)
{
    if (end - p < 2) return 0;
    if (p[1] == 'u') {
        if (end - p < 6) return 0;
        for (int i = 2; i < 6; i++)
            if (hex_digit(p[i]) < 0) return 0;
        return 6;
    }
    return p[1] && strchr("\"\\/bfnrt", p[1]) ? 2 : 0;
}

/* The string at the opening quote j->at; the reader moves behind the closing one. */
static bool scan_string(pd_js *j, pd_js_text *out)
{
    const unsigned char *const start = j->at + 1, *const end = j->end;
    const unsigned char *p = start;
    bool escaped = false;
    for (;;) {
        p = plain_run(p, end);
        if (p < end && *p == '"') break;
        const unsigned char *const odd = p;
        if (p >= end) return pd_js_fail(j, (size_t)(start - 1 - j->begin), "this string has no closing quote");
        if (*p == '\\') {
            p += escape_length(p, end);
            escaped = true;
        } else if (*p >= 0x80) {
            p += utf8_length(p, end);
        }
        if (p == odd) {
            j->at = p;
            if (*p == '\\') return pd_js_fail(j, pd_js_offset(j), "not an escape that JSON knows");
            if (*p >= 0x80) return pd_js_fail(j, pd_js_offset(j), "byte 0x%02x: the string is not UTF-8", *p);
            return pd_js_fail(j, pd_js_offset(j), "control character 0x%02x inside a string", *p);
        }
    }
    *out = (pd_js_text){(const char *)start, (size_t)(p - start), escaped};
    j->at = p + 1;
    return true;
}

/* ---- structure ---- */

static inline bool in_array(const pd_js *j)
{
    const int d = j->depth - 1;
    return d >= 0 && (j->array[d / 64] >> (d % 64) & 1);
}

static bool enter(pd_js *j, unsigned char bracket, const char *what)
{
    skip_space(j);
    if (j->at >= j->end || *j->at != bracket) return expected(j, what);
    if (j->depth >= PD_JS_DEPTH) return pd_js_fail(j, pd_js_offset(j), "nested deeper than %d levels", PD_JS_DEPTH);
    const int d = j->depth++;
    const uint64_t bit = 1ull << (d % 64);
    if (bracket == '[')
        j->array[d / 64] |= bit;
    else
        j->array[d / 64] &= ~bit;
    j->fresh = true;
    j->at++;
    return true;
}

bool pd_js_object(pd_js *j)
{
    return enter(j, '{', "an object");
}

bool pd_js_array(pd_js *j)
{
    return enter(j, '[', "a list");
}

/* After a value: true before the next one, false at the end of the object or array, or on an error. */
static inline bool next(pd_js *j, unsigned char closing, const char *wanted)
{
    skip_space(j);
    if (j->at < j->end && *j->at == closing) {
        j->at++;
        j->depth--;
        j->fresh = false;
        return false;
    }
    if (!j->fresh) {
        if (j->at >= j->end || *j->at != ',') return expected(j, wanted);
        j->at++;
        skip_space(j);
        if (j->at < j->end && *j->at == closing) return expected(j, closing == '}' ? "a key" : "a value");
    }
    j->fresh = false;
    return true;
}

bool pd_js_key(pd_js *j, pd_js_text *key)
{
    if (!next(j, '}', "',' or '}'")) return false;
    if (j->at >= j->end || *j->at != '"') return expected(j, "a key in quotes");
    pd_js_text text;
    if (!scan_string(j, &text)) return false;
    if (text.escaped) {
        /* Decoding never makes text longer, so a key of up to 6 * PD_JS_KEY bytes may fit; longer ones equal nothing.
         */
        char decoded[6 * PD_JS_KEY];
        size_t n = text.size <= sizeof decoded ? pd_js_decode(text, decoded) : PD_JS_KEY + 1;
        if (n > PD_JS_KEY) n = 0;
        memcpy(j->key, decoded, n);
        text = (pd_js_text){j->key, n, false};
    }
    skip_space(j);
    if (j->at >= j->end || *j->at != ':') return expected(j, "':'");
    j->at++;
    *key = text;
    return true;
}

bool pd_js_item(pd_js *j)
{
    return next(j, ']', "',' or ']'");
}

pd_js_kind pd_js_peek(pd_js *j)
{
    skip_space(j);
    if (j->at >= j->end) return PD_JS_NOTHING;
    switch (*j->at) {
    case '{': return PD_JS_OBJECT;
    case '[': return PD_JS_ARRAY;
    case '"': return PD_JS_STRING;
    case 't':
    case 'f': return PD_JS_BOOL;
    case 'n': return PD_JS_NULL;
    default:
        return *j->at == '-' || *j->at == 'N' || *j->at == 'I' || (*j->at >= '0' && *j->at <= '9') ? PD_JS_NUMBER
                                                                                                   : PD_JS_NOTHING;
    }
}

/* ---- values ---- */

bool pd_js_number(pd_js *j, pd_js_num *out)
{
    skip_space(j);
    const size_t n = pd_js_read_number(out, j->at, j->end);
    if (!n) return expected(j, "a number");
    j->at += n;
    return true;
}

bool pd_js_double(pd_js *j, double *out)
{
    pd_js_num number;
    if (!pd_js_number(j, &number)) return false;
    *out = number.value;
    return true;
}

static bool word(pd_js *j, const char *text)
{
    const size_t n = strlen(text);
    if ((size_t)(j->end - j->at) < n || memcmp(j->at, text, n)) return false;
    j->at += n;
    return true;
}

bool pd_js_bool(pd_js *j, bool *out)
{
    skip_space(j);
    if (word(j, "true"))
        *out = true;
    else if (word(j, "false"))
        *out = false;
    else
        return expected(j, "true or false");
    return true;
}

bool pd_js_null(pd_js *j)
{
    skip_space(j);
    return word(j, "null") || expected(j, "null");
}

bool pd_js_string(pd_js *j, pd_js_text *out)
{
    skip_space(j);
    if (j->at >= j->end || *j->at != '"') return expected(j, "a string");
    return scan_string(j, out);
}

static char *put_utf8(char *out, unsigned c)
{
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
        *out++ = (char)(0x80 | (c & 63));
    } else if (c < 0x10000) {
        *out++ = (char)(0xe0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 63));
        *out++ = (char)(0x80 | (c & 63));
    } else {
        *out++ = (char)(0xf0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 63));
        *out++ = (char)(0x80 | (c >> 6 & 63));
        *out++ = (char)(0x80 | (c & 63));
    }
    return out;
}

static unsigned hex4(const unsigned char *p)
{
    unsigned v = 0;
    for (int i = 0; i < 4; i++) v = v << 4 | (unsigned)hex_digit(p[i]);
    return v;
}

size_t pd_js_decode(pd_js_text text, char *out)
{
    if (!text.escaped) {
        memcpy(out, text.data, text.size);
        return text.size;
    }
    const unsigned char *p = (const unsigned char *)text.data, *const end = p + text.size;
    char *const start = out;
    while (p < end) {
        if (*p != '\\') {
            *out++ = (char)*p++;
            continue;
        }
        static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
        if (p[1] != 'u') {
            *out++ = to[strchr(from, p[1]) - from];
            p += 2;
            continue;
        }
        unsigned c = hex4(p + 2);
        p += 6;
        if (c >= 0xd800 && c < 0xdc00 && end - p >= 6 && p[0] == '\\' && p[1] == 'u') {
            const unsigned low = hex4(p + 2);
            if (low >= 0xdc00 && low < 0xe000) {
                c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
                p += 6;
            }
        }
        out = put_utf8(out, c);
    }
    return (size_t)(out - start);
}

/* ---- skipping ---- */

/* First quote or bracket at or after p. */
static const unsigned char *next_mark(const unsigned char *p, const unsigned char *end)
{
#if defined(__SSE2__)
    const __m128i quote = _mm_set1_epi8('"'), bit = _mm_set1_epi8(0x20);
    const __m128i open = _mm_set1_epi8('{'), shut = _mm_set1_epi8('}');
    for (; end - p >= 16; p += 16) {
        const __m128i v = _mm_loadu_si128((const __m128i *)p), low = _mm_or_si128(v, bit); /* '[' -> '{', ']' -> '}' */
        const __m128i hit =
            _mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_or_si128(_mm_cmpeq_epi8(low, open), _mm_cmpeq_epi8(low, shut)));
        const int mask = _mm_movemask_epi8(hit);
        if (mask) return p + __builtin_ctz((unsigned)mask);
    }
#endif
    while (p < end && *p != '"' && (*p | 0x20) != '{' && (*p | 0x20) != '}') p++;
    return p;
}

/* Behind the closing quote of the string whose first character is p; NULL where there is none. */
static const unsigned char *string_end(const unsigned char *p, const unsigned char *end)
{
    for (;;) {
        p = plain_run(p, end);
        if (p < end && *p == '"') return p + 1;
        const ptrdiff_t step = p < end && *p == '\\' ? 2 : 1;
        if (end - p <= step) return NULL;
        p += step;
    }
}

/* Over the object or array at j->at, matching its brackets. */
static bool skip_nested(pd_js *j)
{
    uint64_t square[PD_JS_DEPTH / 64] = {0};
    int depth = 0;
    const size_t start = pd_js_offset(j);
    const unsigned char *p = j->at;
    do {
        p = next_mark(p, j->end);
        if (p >= j->end) return pd_js_fail(j, start, "this '%c' is never closed", *(j->begin + start));
        const unsigned char c = *p++;
        if (c == '"') {
            const size_t quote = (size_t)(p - 1 - j->begin);
            p = string_end(p, j->end);
            if (!p) return pd_js_fail(j, quote, "this string has no closing quote");
        } else if (c == '[' || c == '{') {
            if (j->depth + depth >= PD_JS_DEPTH)
                return pd_js_fail(j, (size_t)(p - 1 - j->begin), "nested deeper than %d levels", PD_JS_DEPTH);
            const uint64_t bit = 1ull << (depth % 64);
            if (c == '[')
                square[depth / 64] |= bit;
            else
                square[depth / 64] &= ~bit;
            depth++;
        } else {
            depth--;
            const bool wants_square = square[depth / 64] >> (depth % 64) & 1;
            if (wants_square != (c == ']')) {
                j->at = p - 1;
                return expected(j, wants_square ? "']'" : "'}'");
            }
        }
    } while (depth);
    j->at = p;
    return true;
}

static bool skip_scalar(pd_js *j)
{
    pd_js_text text;
    pd_js_num number;
    switch (pd_js_peek(j)) {
    case PD_JS_STRING: return scan_string(j, &text);
    case PD_JS_NUMBER: return pd_js_number(j, &number);
    case PD_JS_NULL: return pd_js_null(j);
    case PD_JS_BOOL: {
        bool value;
        return pd_js_bool(j, &value);
    }
    default: return expected(j, "a value");
    }
}

/* Over any value, checking all of it, without recursion: the reader's own levels are the stack. */
static bool skip_checked(pd_js *j)
{
    const int floor = j->depth;
    pd_js_text key;
    bool before_value = true;
    for (;;) {
        if (before_value) {
            const pd_js_kind kind = pd_js_peek(j);
            const bool nested = kind == PD_JS_OBJECT || kind == PD_JS_ARRAY;
            if (!(kind == PD_JS_OBJECT ? pd_js_object(j) : nested ? pd_js_array(j) : skip_scalar(j))) return false;
        }
        if (j->depth == floor) return true;
        before_value = in_array(j) ? pd_js_item(j) : pd_js_key(j, &key);
        if (j->err.code != PD_OK) return false;
    }
}

bool pd_js_skip(pd_js *j)
{
    if (j->strict) return skip_checked(j);
    const pd_js_kind kind = pd_js_peek(j);
    return kind == PD_JS_OBJECT || kind == PD_JS_ARRAY ? skip_nested(j) : skip_scalar(j);
}

/* ---- splitting ---- */

size_t pd_js_guess_record(const void *data, size_t size, size_t from)
{
    const unsigned char *const begin = data, *const end = begin + size;
    for (const unsigned char *p = begin + (from < size ? from : size); p < end; p++) {
        p = memchr(p, '}', (size_t)(end - p));
        if (!p) break;
        const unsigned char *q = p + 1;
        while (q < end && is_space(*q)) q++;
        if (q >= end || *q != ',') continue;
        q++;
        while (q < end && is_space(*q)) q++;
        if (q < end && *q == '{') return (size_t)(q - begin);
    }
    return size;
}
