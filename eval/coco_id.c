#include "eval/coco_id.h"

#include <math.h>
#include <stdio.h>

#define MAX_TEXT 4096 /* bytes of an id */

/* A fraction that is a whole number within int64_t is that number: 2 and 2.0 are one id. */
static pd_coco_raw_id from_double(double value)
{
    if (value == floor(value) && value >= -0x1p63 && value < 0x1p63)
        return (pd_coco_raw_id){.kind = PD_COCO_ID_WHOLE, .whole = (int64_t)value};
    pd_coco_raw_id id = {.kind = PD_COCO_ID_REAL};
    memcpy(&id.whole, &value, sizeof value);
    return id;
}

static double real_of(int64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

bool pd_coco_read_id(pd_js *j, pd_coco_raw_id *out)
{
    pd_js_num number;
    pd_js_text text;
    bool truth = false;
    switch (pd_js_peek(j)) {
    case PD_JS_NUMBER: {
        const size_t at = pd_js_offset(j);
        if (!pd_js_number(j, &number)) return false;
        if (number.value != number.value) return pd_js_fail(j, at, "an id cannot be NaN");
        if (number.is_integer)
            *out = (pd_coco_raw_id){.kind = PD_COCO_ID_WHOLE, .whole = number.integer};
        else
            *out = from_double(number.value);
        return true;
    }
    case PD_JS_STRING:
        if (!pd_js_string(j, &text)) return false;
        if (text.size > MAX_TEXT)
            return pd_js_fail(j, pd_js_offset(j), "an id of %zu bytes; at most %d", text.size, MAX_TEXT);
        *out = (pd_coco_raw_id){.kind = PD_COCO_ID_TEXT,
                                .whole = (const unsigned char *)text.data - j->begin,
                                .size = (uint32_t)text.size,
                                .escaped = text.escaped};
        return true;
    case PD_JS_BOOL:
        if (!pd_js_bool(j, &truth)) return false;
        *out = (pd_coco_raw_id){.kind = PD_COCO_ID_WHOLE, .whole = truth};
        return true;
    case PD_JS_NULL: *out = (pd_coco_raw_id){.kind = PD_COCO_ID_NULL}; return pd_js_null(j);
    default: return pd_js_fail(j, pd_js_offset(j), "expected an id: a number or text");
    }
}

static pd_js_text raw_text(pd_coco_raw_id raw, const unsigned char *text)
{
    return (pd_js_text){(const char *)text + raw.whole, raw.size, raw.escaped};
}

pd_status pd_coco_id_keep(pd_coco_id *out, pd_coco_raw_id raw, const unsigned char *text, pd_arena *arena, pd_err *err)
{
    pd_coco_id id = {.kind = (pd_coco_id_kind)raw.kind};
    if (raw.kind == PD_COCO_ID_TEXT) {
        char *copy;
        PD_TRY(PD_ALLOC(&copy, arena, (size_t)raw.size + 1, err));
        copy[pd_js_decode(raw_text(raw, text), copy)] = '\0';
        id.text = copy;
    } else if (raw.kind == PD_COCO_ID_REAL) {
        id.real = real_of(raw.whole);
    } else {
        id.whole = raw.whole;
    }
    *out = id;
    return PD_OK;
}

const char *pd_coco_id_format(char out[PD_COCO_ID_ROOM], pd_coco_id id)
{
    if (id.kind == PD_COCO_ID_WHOLE)
        snprintf(out, PD_COCO_ID_ROOM, "%lld", (long long)id.whole);
    else if (id.kind == PD_COCO_ID_REAL)
        snprintf(out, PD_COCO_ID_ROOM, "%.17g", id.real);
    else
        snprintf(out, PD_COCO_ID_ROOM, "\"%.60s\"", id.text ? id.text : "");
    return out;
}

const char *pd_coco_raw_format(char out[PD_COCO_ID_ROOM], pd_coco_raw_id raw, const unsigned char *text)
{
    if (raw.kind == PD_COCO_ID_TEXT)
        snprintf(out, PD_COCO_ID_ROOM, "\"%.*s\"", raw.size < 60 ? (int)raw.size : 60, (const char *)text + raw.whole);
    else if (raw.kind == PD_COCO_ID_NULL)
        snprintf(out, PD_COCO_ID_ROOM, "null");
    else
        pd_coco_id_format(out, (pd_coco_id){(pd_coco_id_kind)raw.kind, raw.whole, real_of(raw.whole), NULL});
    return out;
}

/* Whole and fraction, exactly: no whole number equals a fraction, so the floor decides. */
static int compare_mixed(int64_t whole, double real)
{
    if (real >= 0x1p63) return -1;
    if (real < -0x1p63) return 1;
    return whole <= (int64_t)floor(real) ? -1 : 1;
}

int pd_coco_id_compare(pd_coco_id a, pd_coco_id b)
{
    if (a.kind == PD_COCO_ID_TEXT || b.kind == PD_COCO_ID_TEXT) {
        if (a.kind != b.kind) return a.kind == PD_COCO_ID_TEXT ? 1 : -1;
        return strcmp(a.text, b.text);
    }
    if (a.kind == PD_COCO_ID_WHOLE && b.kind == PD_COCO_ID_WHOLE) return (a.whole > b.whole) - (a.whole < b.whole);
    if (a.kind == PD_COCO_ID_REAL && b.kind == PD_COCO_ID_REAL) return (a.real > b.real) - (a.real < b.real);
    return a.kind == PD_COCO_ID_WHOLE ? compare_mixed(a.whole, b.real) : -compare_mixed(b.whole, a.real);
}

/* ---- the table ---- */

static uint64_t mix(uint64_t x)
{
    x ^= x >> 32;
    x *= 0x9e3779b97f4a7c15u;
    return x ^ x >> 29;
}

/* FNV-1a. */
static uint64_t hash_bytes(const char *text, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)text[i]) * 0x100000001b3u;
    return mix(h);
}

static uint64_t hash_id(pd_coco_id id)
{
    if (id.kind == PD_COCO_ID_TEXT) return hash_bytes(id.text, strlen(id.text));
    if (id.kind == PD_COCO_ID_WHOLE) return mix((uint64_t)id.whole);
    uint64_t bits;
    memcpy(&bits, &id.real, sizeof bits);
    return mix(bits);
}

pd_status pd_coco_id_table_make(pd_coco_id_table *out, const pd_coco_id *ids, size_t n, pd_arena *arena, pd_err *err)
{
    if (n >= PD_COCO_NONE / 4)
        return PD_FAIL(err, PD_EFORMAT, "%zu ids: at most %u can be told apart", n, PD_COCO_NONE / 4);
    size_t size = 16;
    while (size < 2 * n) size *= 2;
    pd_coco_id_table table = {.ids = ids, .mask = size - 1};
    PD_TRY(PD_ALLOC(&table.slots, arena, size, err));
    memset(table.slots, 0xff, size * sizeof *table.slots);
    for (size_t i = 0; i < n; i++) {
        size_t at = hash_id(ids[i]) & table.mask;
        while (table.slots[at] != PD_COCO_NONE) at = (at + 1) & table.mask;
        table.slots[at] = (uint32_t)i;
    }
    table.n_small = 4 * n + 64;
    PD_TRY(PD_ALLOC(&table.small, arena, table.n_small, err));
    memset(table.small, 0xff, table.n_small * sizeof *table.small);
    for (size_t i = 0; i < n; i++)
        if (ids[i].kind == PD_COCO_ID_WHOLE && (uint64_t)ids[i].whole < table.n_small)
            table.small[ids[i].whole] = (uint32_t)i;
    *out = table;
    return PD_OK;
}

uint32_t pd_coco_id_find(const pd_coco_id_table *table, pd_coco_id id)
{
    for (size_t at = hash_id(id) & table->mask;; at = (at + 1) & table->mask) {
        const uint32_t i = table->slots[at];
        if (i == PD_COCO_NONE || (table->ids[i].kind == id.kind && !pd_coco_id_compare(table->ids[i], id))) return i;
    }
}

/* Text is compared decoded. */
static uint32_t find_text(const pd_coco_id_table *table, pd_js_text text)
{
    char buffer[MAX_TEXT];
    size_t n = text.size;
    if (text.escaped)
        n = pd_js_decode(text, buffer);
    else
        memcpy(buffer, text.data, n);
    for (size_t at = hash_bytes(buffer, n) & table->mask;; at = (at + 1) & table->mask) {
        const uint32_t i = table->slots[at];
        if (i == PD_COCO_NONE) return i;
        const pd_coco_id *id = &table->ids[i];
        if (id->kind == PD_COCO_ID_TEXT && strlen(id->text) == n && !memcmp(id->text, buffer, n)) return i;
    }
}

uint32_t pd_coco_id_find_raw(const pd_coco_id_table *table, pd_coco_raw_id raw, const unsigned char *text)
{
    if (raw.kind == PD_COCO_ID_WHOLE && (uint64_t)raw.whole < table->n_small) return table->small[raw.whole];
    switch (raw.kind) {
    case PD_COCO_ID_TEXT: return find_text(table, raw_text(raw, text));
    case PD_COCO_ID_WHOLE: return pd_coco_id_find(table, pd_coco_int_id(raw.whole));
    case PD_COCO_ID_REAL: return pd_coco_id_find(table, (pd_coco_id){PD_COCO_ID_REAL, 0, real_of(raw.whole), NULL});
    default: return PD_COCO_NONE;
    }
}
