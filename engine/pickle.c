#include "engine/pickle.h"
#include "engine/json.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 256 /* values allocated together */

/* Every opcode there is, by the names of Python's pickletools. */
// clang-format off
static const char *const opcode_names[256] = {
    ['('] = "MARK", ['.'] = "STOP", ['0'] = "POP", ['1'] = "POP_MARK", ['2'] = "DUP", ['F'] = "FLOAT", ['I'] = "INT",
    ['J'] = "BININT", ['K'] = "BININT1", ['L'] = "LONG", ['M'] = "BININT2", ['N'] = "NONE", ['P'] = "PERSID",
    ['Q'] = "BINPERSID", ['R'] = "REDUCE", ['S'] = "STRING", ['T'] = "BINSTRING", ['U'] = "SHORT_BINSTRING",
    ['V'] = "UNICODE", ['X'] = "BINUNICODE", ['a'] = "APPEND", ['b'] = "BUILD", ['c'] = "GLOBAL", ['d'] = "DICT",
    ['}'] = "EMPTY_DICT", ['e'] = "APPENDS", ['g'] = "GET", ['h'] = "BINGET", ['i'] = "INST", ['j'] = "LONG_BINGET",
    ['l'] = "LIST", [']'] = "EMPTY_LIST", ['o'] = "OBJ", ['p'] = "PUT", ['q'] = "BINPUT", ['r'] = "LONG_BINPUT",
    ['s'] = "SETITEM", ['t'] = "TUPLE", [')'] = "EMPTY_TUPLE", ['u'] = "SETITEMS", ['G'] = "BINFLOAT",
    [0x80] = "PROTO", [0x81] = "NEWOBJ", [0x82] = "EXT1", [0x83] = "EXT2", [0x84] = "EXT4", [0x85] = "TUPLE1",
    [0x86] = "TUPLE2", [0x87] = "TUPLE3", [0x88] = "NEWTRUE", [0x89] = "NEWFALSE", [0x8a] = "LONG1", [0x8b] = "LONG4",
    ['B'] = "BINBYTES", ['C'] = "SHORT_BINBYTES", [0x8c] = "SHORT_BINUNICODE", [0x8d] = "BINUNICODE8",
    [0x8e] = "BINBYTES8", [0x8f] = "EMPTY_SET", [0x90] = "ADDITEMS", [0x91] = "FROZENSET", [0x92] = "NEWOBJ_EX",
    [0x93] = "STACK_GLOBAL", [0x94] = "MEMOIZE", [0x95] = "FRAME", [0x96] = "BYTEARRAY8", [0x97] = "NEXT_BUFFER",
    [0x98] = "READONLY_BUFFER",
};
// clang-format on

static const char ordered_dict[] = "collections.OrderedDict";

/* A value with the room of its list behind it. */
typedef struct cell {
    pd_pickle v; /* first: a cell is its value */
    size_t room;
} cell;

typedef struct machine {
    const char *name;
    const unsigned char *data;
    size_t size, at, op; /* op: where the opcode being run stands */
    const pd_pickle_options *options;
    size_t max_values, values;
    pd_arena *arena;
    cell *free; /* of the last chunk */
    size_t n_free;
    pd_pickle **stack; /* NULL: a mark */
    size_t n_stack, stack_room;
    pd_pickle **memo; /* NULL: nothing kept under this number */
    size_t n_memo, memo_room, kept;
    const pd_pickle **persistents;
    size_t n_persistents, persistents_room;
} machine;

/* ---- helpers ---- */

#define BAD(m, ...) (bad((m), err, __VA_ARGS__), pd_status_same(PD_EFORMAT))

static void bad(const machine *m, pd_err *err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void bad(const machine *m, pd_err *err, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    pd_fail(err, PD_EFORMAT, "%s: pickle, byte %zu: %s", m->name, m->op, text);
}

/* Part of the input as text for a message. */
static void clean(char *out, size_t size, const char *text, size_t length)
{
    size_t n = 0;
    for (size_t i = 0; i < length && n + 5 < size;) {
        const unsigned char *p = (const unsigned char *)text + i;
        const size_t step = *p < ' ' || *p == 127 ? 0 : pd_utf8_length(p, length - i);
        if (step) {
            memcpy(out + n, p, step);
            n += step;
        } else {
            out[n++] = '?';
        }
        i += step ? step : 1;
        if (n + 8 >= size && i < length) {
            memcpy(out + n, "...", 3);
            n += 3;
            break;
        }
    }
    out[n] = '\0';
}

static pd_status take(const unsigned char **out, machine *m, size_t n, pd_err *err)
{
    if (n > m->size - m->at)
        return BAD(m, "%s wants %zu bytes, the file ends after %zu", opcode_names[m->data[m->op]], n, m->size - m->at);
    *out = m->data + m->at;
    m->at += n;
    return PD_OK;
}

/* A number of n little-endian bytes. */
static pd_status take_number(uint64_t *out, machine *m, size_t n, pd_err *err)
{
    const unsigned char *p;
    uint64_t v = 0;
    PD_TRY(take(&p, m, n, err));
    for (size_t i = n; i-- > 0;) v = v << 8 | p[i];
    *out = v;
    return PD_OK;
}

static pd_status take_line(const char **out, size_t *length, machine *m, pd_err *err)
{
    const unsigned char *from = m->data + m->at, *end = m->at < m->size ? memchr(from, '\n', m->size - m->at) : NULL;
    if (!end) return BAD(m, "%s: a name that does not end", opcode_names[m->data[m->op]]);
    *out = (const char *)from;
    *length = (size_t)(end - from);
    m->at += *length + 1;
    return PD_OK;
}

static pd_status push(machine *m, pd_pickle *value, pd_err *err)
{
    if (m->n_stack >= m->max_values) return BAD(m, "more than %zu values on the stack", m->max_values);
    PD_TRY(pd_grow((void *)&m->stack, &m->stack_room, m->n_stack + 1, sizeof(pd_pickle *), err));
    m->stack[m->n_stack++] = value;
    return PD_OK;
}

static pd_status new_value(pd_pickle **out, machine *m, pd_pickle_kind kind, pd_err *err)
{
    if (m->values >= m->max_values) return BAD(m, "more than %zu values", m->max_values);
    if (!m->n_free) {
        PD_TRY(PD_ALLOC(&m->free, m->arena, CHUNK, err));
        m->n_free = CHUNK;
    }
    cell *c = m->free++;
    m->n_free--;
    m->values++;
    c->v.kind = kind;
    *out = &c->v;
    return PD_OK;
}

static pd_status push_new(pd_pickle **out, machine *m, pd_pickle_kind kind, pd_err *err)
{
    pd_pickle *v;
    PD_TRY(new_value(&v, m, kind, err));
    PD_TRY(push(m, v, err));
    *out = v;
    return PD_OK;
}

static pd_status push_text(machine *m, pd_pickle_kind kind, const void *data, size_t size, pd_err *err)
{
    pd_pickle *v;
    PD_TRY(push_new(&v, m, kind, err));
    v->as.text.data = data;
    v->as.text.size = size;
    return PD_OK;
}

static pd_status push_int(machine *m, int64_t value, pd_err *err)
{
    pd_pickle *v;
    PD_TRY(push_new(&v, m, PD_PICKLE_INT, err));
    v->as.integer = value;
    return PD_OK;
}

static pd_status pop(pd_pickle **out, machine *m, pd_err *err)
{
    if (!m->n_stack || !m->stack[m->n_stack - 1])
        return BAD(m, "%s finds no value on the stack", opcode_names[m->data[m->op]]);
    *out = m->stack[--m->n_stack];
    return PD_OK;
}

static pd_status top(pd_pickle **out, const machine *m, pd_err *err)
{
    if (!m->n_stack || !m->stack[m->n_stack - 1])
        return BAD(m, "%s finds no value on the stack", opcode_names[m->data[m->op]]);
    *out = m->stack[m->n_stack - 1];
    return PD_OK;
}

/* Takes the values above the topmost mark, and the mark, off the stack; they stay readable until the next push. */
static pd_status pop_mark(pd_pickle ***items, size_t *count, machine *m, pd_err *err)
{
    size_t i = m->n_stack;
    while (i > 0 && m->stack[i - 1]) i--;
    if (!i) return BAD(m, "%s finds no mark on the stack", opcode_names[m->data[m->op]]);
    *items = m->stack + i;
    *count = m->n_stack - i;
    m->n_stack = i - 1;
    return PD_OK;
}

static pd_status add_items(machine *m, pd_pickle *list, pd_pickle *const *items, size_t count, pd_err *err)
{
    cell *c = (cell *)list;
    const size_t have = list->as.list.count, need = have + count;
    if (need > c->room) {
        pd_pickle **wider;
        const size_t room = need > 2 * c->room ? need : 2 * c->room;
        PD_TRY(pd_alloc((void *)&wider, m->arena, room, sizeof(pd_pickle *), err));
        if (have) memcpy((void *)wider, (void *)list->as.list.items, have * sizeof(pd_pickle *));
        list->as.list.items = wider;
        c->room = room;
    }
    if (count) memcpy((void *)(list->as.list.items + have), (const void *)items, count * sizeof(pd_pickle *));
    list->as.list.count = need;
    return PD_OK;
}

static pd_status push_list(machine *m, pd_pickle_kind kind, pd_pickle *const *items, size_t count, pd_err *err)
{
    pd_pickle *v;
    PD_TRY(new_value(&v, m, kind, err)); /* items may lie where push writes: they are copied before it */
    PD_TRY(add_items(m, v, items, count, err));
    return push(m, v, err);
}

/* ---- names and calls ---- */

static pd_status push_global(machine *m, const char *module, size_t module_size, const char *name, size_t name_size,
                             pd_err *err)
{
    pd_pickle *v;
    for (size_t i = 0;; i++) {
        const char *known = i ? m->options->globals ? m->options->globals[i - 1] : NULL : ordered_dict;
        if (!known) break;
        if (strlen(known) == module_size + 1 + name_size && !memcmp(known, module, module_size) &&
            known[module_size] == '.' && !memcmp(known + module_size + 1, name, name_size))
            return push_text(m, PD_PICKLE_GLOBAL, known, module_size + 1 + name_size, err);
    }
    char text[256];
    char *copy;
    clean(text, 120, module, module_size);
    const size_t n = strlen(text);
    text[n] = '.';
    clean(text + n + 1, 120, name, name_size);
    if (!m->options->skip_objects)
        return BAD(m, "names %s, which is no tensor and no plain data; nothing was run (--skip-objects passes over it)",
                   text);
    PD_TRY(pd_strdup(&copy, m->arena, text, err));
    PD_TRY(push_new(&v, m, PD_PICKLE_OBJECT, err));
    v->as.text.data = copy;
    v->as.text.size = strlen(copy);
    return PD_OK;
}

/* OrderedDict(), or Python 2's OrderedDict([[key, value], ...]). */
static pd_status push_ordered_dict(machine *m, const pd_pickle *args, pd_err *err)
{
    pd_pickle *dict;
    PD_TRY(push_new(&dict, m, PD_PICKLE_DICT, err));
    if (!args->as.list.count) return PD_OK;
    const pd_pickle *pairs = args->as.list.items[0];
    if (pairs->kind != PD_PICKLE_LIST) return BAD(m, "an ordered dict is not made of a list of pairs");
    for (size_t i = 0; i < pairs->as.list.count; i++) {
        const pd_pickle *pair = pairs->as.list.items[i];
        if ((pair->kind != PD_PICKLE_LIST && pair->kind != PD_PICKLE_TUPLE) || pair->as.list.count != 2)
            return BAD(m, "an ordered dict is not made of a list of pairs");
        PD_TRY(add_items(m, dict, pair->as.list.items, 2, err));
    }
    return PD_OK;
}

/* function(args): recorded, not run. */
static pd_status call(machine *m, bool named, pd_err *err)
{
    pd_pickle *function, *args, *names;
    if (named) PD_TRY(pop(&names, m, err));
    PD_TRY(pop(&args, m, err));
    PD_TRY(pop(&function, m, err));
    if (function->kind == PD_PICKLE_OBJECT)
        return push_text(m, PD_PICKLE_OBJECT, function->as.text.data, function->as.text.size, err);
    if (function->kind != PD_PICKLE_GLOBAL)
        return BAD(m, "%s of something that is no function", opcode_names[m->data[m->op]]);
    if (args->kind != PD_PICKLE_TUPLE) return BAD(m, "%s without a tuple of arguments", opcode_names[m->data[m->op]]);
    if (function->as.text.data == ordered_dict) return push_ordered_dict(m, args, err);
    pd_pickle *const parts[2] = {function, args};
    return push_list(m, PD_PICKLE_CALL, parts, 2, err);
}

/* State that Python would hang onto the object: attributes of dicts (a state dict's versions) say nothing of tensors.
 */
static pd_status build(machine *m, pd_err *err)
{
    pd_pickle *state, *object;
    PD_TRY(pop(&state, m, err));
    PD_TRY(top(&object, m, err));
    if (object->kind != PD_PICKLE_DICT && object->kind != PD_PICKLE_CALL && object->kind != PD_PICKLE_OBJECT)
        return BAD(m, "BUILD on something that has no attributes");
    return PD_OK;
}

static pd_status extend(machine *m, pd_pickle_kind kind, pd_pickle *to, pd_pickle *const *items, size_t count,
                        pd_err *err)
{
    const char *op = opcode_names[m->data[m->op]];
    if (to->kind == PD_PICKLE_OBJECT) return PD_OK;
    if (to->kind != kind) return BAD(m, "%s on something that is no %s", op, kind == PD_PICKLE_DICT ? "dict" : "list");
    if (kind == PD_PICKLE_DICT && count % 2) return BAD(m, "%s with a key that has no value", op);
    return add_items(m, to, items, count, err);
}

/* APPEND, SETITEM: `count` values on top of the list or dict; APPENDS, SETITEMS, ADDITEMS: those above the mark. */
static pd_status extend_top(machine *m, pd_pickle_kind kind, size_t count, pd_err *err)
{
    pd_pickle *items[2], *to;
    for (size_t i = count; i-- > 0;) PD_TRY(pop(&items[i], m, err));
    PD_TRY(top(&to, m, err));
    return extend(m, kind, to, items, count, err);
}

static pd_status extend_marked(machine *m, pd_pickle_kind kind, pd_err *err)
{
    pd_pickle **items, *to;
    size_t count;
    PD_TRY(pop_mark(&items, &count, m, err));
    PD_TRY(top(&to, m, err));
    return extend(m, kind, to, items, count, err);
}

static pd_status list_of_marked(machine *m, pd_pickle_kind kind, pd_err *err)
{
    pd_pickle **items;
    size_t count;
    PD_TRY(pop_mark(&items, &count, m, err));
    if (kind == PD_PICKLE_DICT && count % 2) return BAD(m, "DICT with a key that has no value");
    return push_list(m, kind, items, count, err);
}

static pd_status tuple_of(machine *m, size_t count, pd_err *err)
{
    pd_pickle *items[3] = {NULL};
    for (size_t i = count; i-- > 0;) PD_TRY(pop(&items[i], m, err));
    return push_list(m, PD_PICKLE_TUPLE, items, count, err);
}

/* ---- memo ---- */

static pd_status keep(machine *m, uint64_t index, pd_err *err)
{
    pd_pickle *v;
    PD_TRY(top(&v, m, err));
    if (index >= m->max_values)
        return BAD(m, "memo number %llu, more than %zu", (unsigned long long)index, m->max_values);
    const size_t i = (size_t)index, before = m->n_memo;
    if (i >= before) {
        PD_TRY(pd_grow((void *)&m->memo, &m->memo_room, i + 1, sizeof(pd_pickle *), err));
        memset((void *)(m->memo + before), 0, (i + 1 - before) * sizeof(pd_pickle *));
        m->n_memo = i + 1;
    }
    m->kept += !m->memo[i];
    m->memo[i] = v;
    return PD_OK;
}

static pd_status recall(machine *m, uint64_t index, pd_err *err)
{
    if (index >= m->n_memo || !m->memo[index])
        return BAD(m, "memo number %llu holds nothing", (unsigned long long)index);
    return push(m, m->memo[index], err);
}

/* ---- single values ---- */

static pd_status push_long(machine *m, size_t prefix, pd_err *err)
{
    uint64_t size;
    const unsigned char *p;
    PD_TRY(take_number(&size, m, prefix, err));
    if (size > INT32_MAX) return BAD(m, "a whole number of negative length");
    PD_TRY(take(&p, m, (size_t)size, err));
    if (size > 8) return push_text(m, PD_PICKLE_BIG, p, (size_t)size, err);
    uint64_t v = size && p[size - 1] >= 128 ? UINT64_MAX : 0;
    for (size_t i = (size_t)size; i-- > 0;) v = v << 8 | p[i];
    return push_int(m, (int64_t)v, err);
}

static pd_status push_float(machine *m, pd_err *err)
{
    const unsigned char *p;
    pd_pickle *v;
    uint64_t bits = 0;
    PD_TRY(take(&p, m, 8, err));
    for (int i = 0; i < 8; i++) bits = bits << 8 | p[i];
    PD_TRY(push_new(&v, m, PD_PICKLE_FLOAT, err));
    memcpy(&v->as.number, &bits, sizeof bits);
    return PD_OK;
}

static pd_status push_sized(machine *m, pd_pickle_kind kind, size_t prefix, pd_err *err)
{
    uint64_t size;
    const unsigned char *p;
    PD_TRY(take_number(&size, m, prefix, err));
    if (size > m->size) size = m->size; /* more than there is; take says so */
    PD_TRY(take(&p, m, (size_t)size, err));
    return push_text(m, kind, p, (size_t)size, err);
}

static pd_status push_bool(machine *m, bool truth, pd_err *err)
{
    pd_pickle *v;
    PD_TRY(push_new(&v, m, PD_PICKLE_BOOL, err));
    v->as.truth = truth;
    return PD_OK;
}

static pd_status persistent(machine *m, pd_err *err)
{
    pd_pickle *id;
    PD_TRY(pop(&id, m, err));
    PD_TRY(pd_grow((void *)&m->persistents, &m->persistents_room, m->n_persistents + 1, sizeof(pd_pickle *), err));
    PD_TRY(push_list(m, PD_PICKLE_PERSISTENT, &id, 1, err));
    m->persistents[m->n_persistents++] = m->stack[m->n_stack - 1];
    return PD_OK;
}

static pd_status line_global(machine *m, pd_err *err)
{
    const char *module, *name;
    size_t module_size, name_size;
    PD_TRY(take_line(&module, &module_size, m, err));
    PD_TRY(take_line(&name, &name_size, m, err));
    return push_global(m, module, module_size, name, name_size, err);
}

static pd_status stack_global(machine *m, pd_err *err)
{
    pd_pickle *module, *name;
    PD_TRY(pop(&name, m, err));
    PD_TRY(pop(&module, m, err));
    if (module->kind != PD_PICKLE_TEXT || name->kind != PD_PICKLE_TEXT) return BAD(m, "STACK_GLOBAL without two names");
    return push_global(m, module->as.text.data, module->as.text.size, name->as.text.data, name->as.text.size, err);
}

/* ---- the machine ---- */

static pd_status step(machine *m, unsigned char op, pd_err *err)
{
    pd_pickle *v, **items;
    size_t count;
    uint64_t n;
    switch (op) {
    case 0x80: /* PROTO */
        PD_TRY(take_number(&n, m, 1, err));
        return n >= 2 && n <= 5 ? PD_OK : BAD(m, "protocol %llu; 2 to 5 are read", (unsigned long long)n);
    case 0x95: /* FRAME */
        PD_TRY(take_number(&n, m, 8, err));
        return n <= m->size - m->at
                   ? PD_OK
                   : BAD(m, "a frame of %llu bytes, the file ends after %zu", (unsigned long long)n, m->size - m->at);
    case 'N': return push_new(&v, m, PD_PICKLE_NONE, err);
    case 0x88: return push_bool(m, true, err);
    case 0x89: return push_bool(m, false, err);
    case 'J': PD_TRY(take_number(&n, m, 4, err)); return push_int(m, (int32_t)(uint32_t)n, err);
    case 'K': PD_TRY(take_number(&n, m, 1, err)); return push_int(m, (int64_t)n, err);
    case 'M': PD_TRY(take_number(&n, m, 2, err)); return push_int(m, (int64_t)n, err);
    case 0x8a: return push_long(m, 1, err);
    case 0x8b: return push_long(m, 4, err);
    case 'G': return push_float(m, err);
    case 'U':
    case 0x8c: return push_sized(m, PD_PICKLE_TEXT, 1, err);
    case 'T':
    case 'X': return push_sized(m, PD_PICKLE_TEXT, 4, err);
    case 0x8d: return push_sized(m, PD_PICKLE_TEXT, 8, err);
    case 'C': return push_sized(m, PD_PICKLE_BYTES, 1, err);
    case 'B': return push_sized(m, PD_PICKLE_BYTES, 4, err);
    case 0x8e:
    case 0x96: return push_sized(m, PD_PICKLE_BYTES, 8, err);
    case ')': return push_new(&v, m, PD_PICKLE_TUPLE, err);
    case ']':
    case 0x8f: return push_new(&v, m, PD_PICKLE_LIST, err);
    case '}': return push_new(&v, m, PD_PICKLE_DICT, err);
    case 0x85: return tuple_of(m, 1, err);
    case 0x86: return tuple_of(m, 2, err);
    case 0x87: return tuple_of(m, 3, err);
    case 't': return list_of_marked(m, PD_PICKLE_TUPLE, err);
    case 'l':
    case 0x91: return list_of_marked(m, PD_PICKLE_LIST, err);
    case 'd': return list_of_marked(m, PD_PICKLE_DICT, err);
    case 'a': return extend_top(m, PD_PICKLE_LIST, 1, err);
    case 's': return extend_top(m, PD_PICKLE_DICT, 2, err);
    case 'e':
    case 0x90: return extend_marked(m, PD_PICKLE_LIST, err);
    case 'u': return extend_marked(m, PD_PICKLE_DICT, err);
    case '(': return push(m, NULL, err);
    case '0': /* POP takes a mark too */
        if (!m->n_stack) return BAD(m, "POP finds nothing on the stack");
        m->n_stack--;
        return PD_OK;
    case '1': return pop_mark(&items, &count, m, err);
    case '2': PD_TRY(top(&v, m, err)); return push(m, v, err);
    case 'q': PD_TRY(take_number(&n, m, 1, err)); return keep(m, n, err);
    case 'r': PD_TRY(take_number(&n, m, 4, err)); return keep(m, n, err);
    case 0x94: return keep(m, m->kept, err);
    case 'h': PD_TRY(take_number(&n, m, 1, err)); return recall(m, n, err);
    case 'j': PD_TRY(take_number(&n, m, 4, err)); return recall(m, n, err);
    case 'c': return line_global(m, err);
    case 0x93: return stack_global(m, err);
    case 'R':
    case 0x81: return call(m, false, err);
    case 0x92: return call(m, true, err);
    case 'b': return build(m, err);
    case 'Q': return persistent(m, err);
    default:
        if (opcode_names[op])
            return BAD(m, "opcode %s (0x%02x), which files of PyTorch do not have", opcode_names[op], op);
        return BAD(m, "unknown opcode 0x%02x", op);
    }
}

static pd_status run(machine *m, pd_err *err)
{
    for (;;) {
        m->op = m->at;
        if (m->at == m->size) return BAD(m, "the file ends without STOP");
        const unsigned char op = m->data[m->at++];
        if (op == '.') break;
        PD_TRY(step(m, op, err));
    }
    if (m->n_stack != 1 || !m->stack[0]) return BAD(m, "STOP with %zu values on the stack, expected one", m->n_stack);
    return PD_OK;
}

/* ---- the tree ---- */

static bool has_items(const pd_pickle *v)
{
    return v->kind == PD_PICKLE_LIST || v->kind == PD_PICKLE_TUPLE || v->kind == PD_PICKLE_DICT ||
           v->kind == PD_PICKLE_CALL || v->kind == PD_PICKLE_PERSISTENT;
}

/* Walks every value once, with the path to it on a stack of its own; visit: 0 not met, 1 on the path, 2 + its height
 * done. No path from a value, as long as it is, may reach the value again or be longer than PD_PICKLE_DEPTH. */
static pd_status check_tree(const machine *m, pd_pickle *root, pd_err *err)
{
    struct {
        pd_pickle *v;
        size_t next;
        unsigned height;
    } path[PD_PICKLE_DEPTH + 1];
    size_t depth = 0;
    if (!has_items(root)) return PD_OK;
    root->visit = 1;
    path[depth].v = root;
    path[depth].next = 0;
    path[depth++].height = 1;
    while (depth) {
        pd_pickle *v = path[depth - 1].v;
        if (path[depth - 1].next == v->as.list.count) {
            const unsigned height = path[--depth].height;
            v->visit = 2 + height;
            if (depth && path[depth - 1].height < height + 1) path[depth - 1].height = height + 1;
            continue;
        }
        pd_pickle *child = v->as.list.items[path[depth - 1].next++];
        if (!has_items(child)) continue;
        if (child->visit == 1) return PD_FAIL(err, PD_EFORMAT, "%s: pickle: a value that contains itself", m->name);
        const unsigned height = child->visit ? child->visit - 2 : 1;
        if (depth + height > PD_PICKLE_DEPTH)
            return PD_FAIL(err, PD_EFORMAT, "%s: pickle: values more than %d deep inside each other", m->name,
                           PD_PICKLE_DEPTH);
        if (child->visit) {
            if (path[depth - 1].height < height + 1) path[depth - 1].height = height + 1;
            continue;
        }
        child->visit = 1;
        path[depth].v = child;
        path[depth].next = 0;
        path[depth++].height = 1;
    }
    return PD_OK;
}

pd_status pd_pickle_parse(pd_pickle_file *out, const char *name, const void *data, size_t size,
                          const pd_pickle_options *options, pd_arena *arena, pd_err *err)
{
    machine m = {.name = name,
                 .data = data,
                 .size = size,
                 .options = options,
                 .arena = arena,
                 .max_values = options->max_values ? options->max_values : PD_PICKLE_VALUES};
    pd_status status = run(&m, err);
    if (status == PD_OK) status = check_tree(&m, m.stack[0], err);
    const pd_pickle **persistents = NULL;
    if (status == PD_OK) status = pd_alloc((void *)&persistents, arena, m.n_persistents, sizeof(pd_pickle *), err);
    if (status == PD_OK) {
        if (m.n_persistents) memcpy((void *)persistents, (void *)m.persistents, m.n_persistents * sizeof(pd_pickle *));
        *out = (pd_pickle_file){m.stack[0], m.at, persistents, m.n_persistents};
    }
    free((void *)m.stack);
    free((void *)m.memo);
    free((void *)m.persistents);
    return status;
}

/* ---- looking ---- */

bool pd_pickle_is(const pd_pickle *v, pd_pickle_kind kind, const char *text)
{
    return v->kind == kind && v->as.text.size == strlen(text) && !memcmp(v->as.text.data, text, v->as.text.size);
}

const pd_pickle *pd_pickle_get(const pd_pickle *dict, const char *key)
{
    if (dict->kind != PD_PICKLE_DICT) return NULL;
    for (size_t i = dict->as.list.count; i > 0; i -= 2)
        if (pd_pickle_is(dict->as.list.items[i - 2], PD_PICKLE_TEXT, key)) return dict->as.list.items[i - 1];
    return NULL;
}

const pd_pickle *pd_pickle_arguments(const pd_pickle *v, const char *function, size_t least)
{
    if (v->kind != PD_PICKLE_CALL || !pd_pickle_is(v->as.list.items[0], PD_PICKLE_GLOBAL, function)) return NULL;
    const pd_pickle *args = v->as.list.items[1];
    return args->as.list.count >= least ? args : NULL;
}

void pd_pickle_describe(char *out, size_t size, const pd_pickle *v)
{
    char text[64];
    const size_t count = v->as.list.count;
    switch (v->kind) {
    case PD_PICKLE_NONE: snprintf(out, size, "None"); break;
    case PD_PICKLE_BOOL: snprintf(out, size, "%s", v->as.truth ? "True" : "False"); break;
    case PD_PICKLE_INT: snprintf(out, size, "%lld", (long long)v->as.integer); break;
    case PD_PICKLE_BIG: snprintf(out, size, "a whole number of %zu bytes", v->as.text.size); break;
    case PD_PICKLE_FLOAT: snprintf(out, size, "%g", v->as.number); break;
    case PD_PICKLE_TEXT:
        clean(text, sizeof text, v->as.text.data, v->as.text.size);
        snprintf(out, size, "\"%s\"", text);
        break;
    case PD_PICKLE_BYTES: snprintf(out, size, "%zu bytes", v->as.text.size); break;
    case PD_PICKLE_LIST: snprintf(out, size, "a list of %zu", count); break;
    case PD_PICKLE_TUPLE: snprintf(out, size, "a tuple of %zu", count); break;
    case PD_PICKLE_DICT: snprintf(out, size, "a dict of %zu", count / 2); break;
    case PD_PICKLE_GLOBAL: snprintf(out, size, "%s", v->as.text.data); break;
    case PD_PICKLE_CALL: snprintf(out, size, "%s(...)", v->as.list.items[0]->as.text.data); break;
    case PD_PICKLE_PERSISTENT: snprintf(out, size, "a storage"); break;
    case PD_PICKLE_OBJECT: snprintf(out, size, "an object of %s", v->as.text.data); break;
    }
}
