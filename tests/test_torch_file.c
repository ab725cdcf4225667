/* Files of torch.save: what PyTorch wrote is read to the last bit, what would do harm is refused, what is written is
 * read again; out of memory at every allocation. ctest: fault
 *
 * golden/torch/ was written by PyTorch 1.13 (new, old: torch.save in both forms; _p4: with pickle protocol 4; deflated,
 * zip64: new.pth packed again by Python's zipfile; object: with an argparse.Namespace), but for python2.pth, put
 * together by hand as PyTorch 0.2 under Python 2 wrote files, and held against torch.load. */
#include "engine/file.h"
#include "engine/half.h"
#include "engine/pickle.h"
#include "engine/torch_file.h"
#include "engine/zip_store.h"
#include "tests/fault.h"
#include "tests/pd_test.h"

#include <unistd.h>

static const pd_torch_options plain = {0};

/* ---- real files ---- */

static const pd_torch_tensor *find(const pd_torch *f, const char *name)
{
    for (size_t i = 0; i < pd_torch_count(f); i++)
        if (!strcmp(pd_torch_at(f, i)->name, name)) return pd_torch_at(f, i);
    return NULL;
}

typedef struct sink {
    unsigned char bytes[256];
    size_t size;
} sink;

static void collect(void *arg, const void *data, size_t bytes)
{
    sink *s = arg;
    if (s->size + bytes <= sizeof s->bytes) memcpy(s->bytes + s->size, data, bytes);
    s->size += bytes;
}

/* The tensor's elements, as text. */
static const char *elements(char out[256], const pd_torch *f, const char *name)
{
    const pd_torch_tensor *t = find(f, name);
    sink s = {.size = 0};
    size_t n = 0;
    if (!t) return "(missing)";
    n += (size_t)snprintf(out, 256, "%s", pd_st_type_name(t->view.type));
    for (int i = 0; i < t->view.ndim; i++)
        n += (size_t)snprintf(out + n, 256 - n, "%s%d", i ? "x" : " ", (int)t->view.shape[i]);
    n += (size_t)snprintf(out + n, 256 - n, ":");
    pd_view_walk(&t->view, collect, &s);
    if (s.size != t->view.bytes) return "(another number of bytes)";
    const size_t size = pd_st_type_size(t->view.type);
    for (size_t i = 0; i < t->view.elements && n < 240; i++) {
        const unsigned char *p = s.bytes + i * size;
        float f32;
        double v = 0;
        int64_t i64;
        int32_t i32;
        uint16_t half;
        memcpy(&half, p, 2);
        switch (t->view.type) {
        case PD_ST_F32: memcpy(&f32, p, 4), v = (double)f32; break;
        case PD_ST_F64: memcpy(&v, p, 8); break;
        case PD_ST_F16: v = (double)pd_float_from_f16(half); break;
        case PD_ST_BF16: v = (double)pd_float_from_bf16(half); break;
        case PD_ST_I64: memcpy(&i64, p, 8), v = (double)i64; break;
        case PD_ST_I32: memcpy(&i32, p, 4), v = i32; break;
        case PD_ST_I8: v = (int8_t)*p; break;
        case PD_ST_U8:
        case PD_ST_BOOL: v = *p; break;
        }
        n += (size_t)snprintf(out + n, 256 - n, " %.17g", v);
    }
    return out;
}

static const char *other(const pd_torch *f, const char *name)
{
    for (size_t i = 0; i < pd_torch_other_count(f); i++)
        if (!strcmp(pd_torch_other_at(f, i)->name, name)) return pd_torch_other_at(f, i)->value;
    return NULL;
}

static const struct {
    const char *name, *elements;
} want[] = {
    {"module.f32", "F32 2x3: 0 0.5 1 1.5 2 2.5"},
    {"module.f64", "F64 3: 0 0.33333333333333331 0.66666666666666663"},
    {"module.f16", "F16 3: 1.5 -2 65504"},
    {"module.bf16", "BF16 3: 1.5 -2 3.0040552704739099e+38"},
    {"module.i64", "I64 2: -1 1099511627776"},
    {"module.i32", "I32 2: -7 7"},
    {"module.u8", "U8 2: 0 255"},
    {"module.i8", "I8 2: -128 127"},
    {"module.bool", "BOOL 3: 1 0 1"},
    {"module.scalar", "I64: 42"},
    {"module.empty", "F32 0x4:"},
    {"module.transposed", "F32 4x3: 0 4 8 1 5 9 2 6 10 3 7 11"},
    {"module.strided", "F32 2x2x2: 1 2 9 10 13 14 21 22"},
    {"module.shared_a", "F32 4: 0 1 2 3"},
    {"module.shared_b", "F32 6: 2 3 4 5 6 7"},
    {"module.expanded", "F32 2x3: 5 5 5 5 5 5"},
    {"module.param", "F32 2: 1 2"},
    {"module.inner.w", "F32 1: 9"},
};

static void test_golden(void)
{
    static const char *const files[] = {"new", "old", "new_p4", "old_p4", "deflated", "zip64"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[300], text[256];
        pd_err err = PD_ERR_INIT;
        pd_torch *f = NULL;
        PD_ROW(files[i]);
        snprintf(path, sizeof path, "%s/torch/%s.pth", PD_GOLDEN, files[i]);
        PD_CHECK(pd_torch_looks_like(path));
        PD_CHECK_OK(pd_torch_open(&f, path, &plain, &err));
        if (!f) continue;
        PD_CHECK_STR(pd_torch_key(f), "state_dict");
        PD_CHECK_INT(pd_torch_count(f), sizeof want / sizeof *want);
        for (size_t k = 0; k < sizeof want / sizeof *want; k++) {
            PD_CHECK_STR(pd_torch_at(f, k)->name, want[k].name); /* the order of the dict is kept */
            PD_CHECK_STR(elements(text, f, want[k].name), want[k].elements);
        }
        PD_CHECK_STR(other(f, "epoch"), "7");
        PD_CHECK_STR(other(f, "arch"), "\"resnet18\"");
        PD_CHECK_STR(other(f, "best_acc1"), "71.5");
        PD_CHECK_STR(other(f, "flag"), "True");
        PD_CHECK_STR(other(f, "nothing"), "None");
        PD_CHECK_STR(other(f, "negative"), "-300");
        PD_CHECK_STR(other(f, "big"), "a whole number of 11 bytes");
        PD_CHECK_STR(other(f, "dtype"), "torch.float16");
        PD_CHECK_STR(other(f, "list"), "a list of 2");
        PD_CHECK_STR(other(f, "module.inner.note"), "\"text in a dict\"");
        PD_CHECK_STR(other(f, "optimizer.state.0.momentum_buffer"), "a tensor");
        PD_CHECK(!other(f, "state_dict"));
        pd_torch_close(f);
        f = NULL;
        const pd_torch_options key = {.key = "optimizer.state"}, wrong = {.key = "optimizer.nothing"};
        PD_CHECK_OK(pd_torch_open(&f, path, &key, &err));
        if (f) PD_CHECK_STR(elements(text, f, "0.momentum_buffer"), "F32 1x2: 1 1");
        pd_torch_close(f);
        PD_CHECK_FAILS(pd_torch_open(&f, path, &wrong, &err), PD_EFORMAT,
                       "has no dict at \"optimizer.nothing\"; it holds \"epoch\", \"arch\"");
    }
    PD_ROW("");
}

static void test_python2(void)
{
    char text[256];
    pd_err err = PD_ERR_INIT;
    pd_torch *f = NULL;
    PD_CHECK_OK(pd_torch_open(&f, PD_GOLDEN "/torch/python2.pth", &plain, &err));
    if (!f) return;
    PD_CHECK_STR(pd_torch_key(f), "");
    PD_CHECK_STR(elements(text, f, "conv.weight"), "F32 2x3: 0 1 2 3 4 5");
    PD_CHECK_STR(elements(text, f, "conv.bias"), "F32 2: 3 4");
    pd_torch_close(f);
}

static void test_objects(void)
{
    const pd_torch_options skip = {.skip_objects = true};
    pd_err err = PD_ERR_INIT;
    pd_torch *f = NULL;
    PD_CHECK_FAILS(pd_torch_open(&f, PD_GOLDEN "/torch/object.pth", &plain, &err), PD_EFORMAT,
                   "names argparse.Namespace, which is no tensor");
    PD_CHECK_OK(pd_torch_open(&f, PD_GOLDEN "/torch/object.pth", &skip, &err));
    if (!f) return;
    PD_CHECK_INT(pd_torch_count(f), 1);
    PD_CHECK_STR(other(f, "args"), "an object of argparse.Namespace");
    pd_torch_close(f);
}

/* Every cut of a file, and every byte of it changed: an error or the same tensors, never harm. */
static void test_damage(const char *name)
{
    char path[300];
    pd_err err = PD_ERR_INIT;
    pd_bytes whole;
    pd_arena *arena = pd_arena_new();
    snprintf(path, sizeof path, "%s/torch/%s.pth", PD_GOLDEN, name);
    PD_ROW(name);
    PD_CHECK_OK(pd_file_read(&whole, path, 0, arena, &err));
    int survived = 0;
    for (size_t n = 0; n < whole.size; n++) {
        pd_torch *f = NULL;
        unsigned char *copy = malloc(n + 1); /* cut where the sanitizer sees reads behind the end */
        memcpy(copy, whole.data, n);
        const pd_status status = pd_torch_parse(&f, "cut", copy, n, &plain, &err);
        survived += status != PD_EFORMAT || strncmp(err.text, "cut:", 4) != 0;
        pd_torch_close(f);
        free(copy);
    }
    PD_CHECK_INT(survived, 0);
    unsigned char *copy = malloc(whole.size);
    for (size_t n = 0; n < whole.size; n++) {
        pd_torch *f = NULL;
        memcpy(copy, whole.data, whole.size);
        copy[n] ^= (unsigned char)(1u << n % 8);
        const pd_status status = pd_torch_parse(&f, "changed", copy, whole.size, &plain, &err);
        if (status != PD_OK) PD_CHECK(status == PD_EFORMAT && !strncmp(err.text, "changed:", 8));
        pd_torch_close(f);
    }
    free(copy);
    pd_arena_free(arena);
    PD_ROW("");
}

/* ---- pickles that mean harm ---- */

#define P "\x80\x02"
// clang-format off
static const struct {
    const char *row, *pickle;
    size_t size;
    const char *error;
} bad_pickles[] = {
#define ROW(row, pickle, error) {row, pickle, sizeof(pickle) - 1, error}
    ROW("a function", P "cos\nsystem\nX\x04\0\0\0echo\x85R.", "names os.system, which is no tensor"),
    ROW("a function by its new opcode", "\x80\x04\x8c\x05posix\x8c\x06system\x93)R.", "names posix.system"),
    ROW("a name with a line feed in it", "\x80\x04\x8c\x03os\n\x8c\x06system\x93.", "names os?.system"),
    ROW("a name that begins like a known one", P "ctorch\nFloatStorageX\n.", "names torch.FloatStorageX"),
    ROW("a known name parted elsewhere", P "cto\nrch.Size\n.", "names to.rch.Size"),
    ROW("a class of protocol 0", P "(ios\nsystem\n.", "opcode INST (0x69)"),
    ROW("an object of protocol 1", P "(cos\nsystem\no.", "names os.system"),
    ROW("a call of what is no function", P "K\x01)R.", "REDUCE of something that is no function"),
    ROW("a call without a tuple", P "ctorch\nSize\nK\x01R.", "REDUCE without a tuple"),
    ROW("a registered extension", P "\x82\x01.", "opcode EXT1 (0x82)"),
    ROW("a text id", P "Pname\n.", "opcode PERSID (0x50)"),
    ROW("text numbers", P "I1\n.", "opcode INT (0x49)"),
    ROW("a buffer from outside", "\x80\x05\x97.", "opcode NEXT_BUFFER (0x97)"),
    ROW("no opcode", P "\xff.", "unknown opcode 0xff"),
    ROW("protocol 0", "\x80\x01.", "protocol 1"),
    ROW("protocol 6", "\x80\x06.", "protocol 6"),
    ROW("a list in itself", P "]q\0h\0a.", "contains itself"),
    ROW("a dict in itself", P "}q\0(K\1h\0u.", "contains itself"),
    ROW("a tuple in itself", P "]q\0h\0\x85q\1a.", "contains itself"),
    ROW("a long text", P "X\xff\xff\xff\xff.", "BINUNICODE wants"),
    ROW("a longer text", "\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "BINUNICODE8 wants"),
    ROW("long bytes", "\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "BINBYTES8 wants"),
    ROW("a number of negative length", P "\x8b\xff\xff\xff\xff.", "negative length"),
    ROW("a long number", P "\x8b\xff\xff\xff\x7f.", "LONG4 wants"),
    ROW("a long frame", "\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff.", "a frame of 18446744073709551615 bytes"),
    ROW("a far memo", P "Nr\xff\xff\xff\x7f.", "memo number 2147483647"),
    ROW("an empty memo", P "h\x05.", "memo number 5 holds nothing"),
    ROW("no value for a memo", P "q\0.", "BINPUT finds no value"),
    ROW("a mark for a memo", P "(q\0.", "BINPUT finds no value"),
    ROW("no mark", P "NNt.", "TUPLE finds no mark"),
    ROW("too few", P "N\x86.", "TUPLE2 finds no value"),
    ROW("a mark between", P "N(\x85.", "TUPLE1 finds no value"),
    ROW("nothing to take", P "0.", "POP finds nothing"),
    ROW("an append to a number", P "K\1K\2a.", "APPEND on something that is no list"),
    ROW("an item of a list", P "]K\1K\2s.", "SETITEM on something that is no dict"),
    ROW("an odd dict", P "}(K\1u.", "SETITEMS with a key that has no value"),
    ROW("state on a number", P "K\1}b.", "BUILD on something that has no attributes"),
    ROW("an ordered dict of a number", P "ccollections\nOrderedDict\nK\1\x85R.", "not made of a list of pairs"),
    ROW("an ordered dict of single values", P "ccollections\nOrderedDict\n]K\1a\x85R.", "not made of a list of pairs"),
    ROW("a name without an end", P "cos", "GLOBAL: a name that does not end"),
    ROW("a name of numbers", "\x80\x04K\1K\1\x93.", "STACK_GLOBAL without two names"),
    ROW("two values", P "NN.", "STOP with 2 values"),
    ROW("no value", P ".", "STOP with 0 values"),
    ROW("only a mark", P "(.", "STOP with 1 values"),
    ROW("no end", P "N", "ends without STOP"),
    ROW("nothing", "", "ends without STOP"),
#undef ROW
};
// clang-format on

static pd_status parse(const char *data, size_t size, size_t max_values, char shown[128], pd_err *err)
{
    static const char *const known[] = {"torch.Size", "torch.FloatStorage", NULL};
    const pd_pickle_options options = {.globals = known, .max_values = max_values};
    pd_arena *arena = pd_arena_new();
    pd_pickle_file file;
    void *copy = malloc(size + 1);
    if (size) memcpy(copy, data, size);
    const pd_status status = pd_pickle_parse(&file, "evil", copy, size, &options, arena, err);
    if (status == PD_OK && shown) pd_pickle_describe(shown, 128, file.root);
    free(copy);
    pd_arena_free(arena);
    return status;
}

static void test_pickles(void)
{
    char text[1000], shown[128];
    pd_err err = PD_ERR_INIT;
    for (size_t i = 0; i < sizeof bad_pickles / sizeof *bad_pickles; i++) {
        PD_ROW(bad_pickles[i].row);
        PD_CHECK_FAILS(parse(bad_pickles[i].pickle, bad_pickles[i].size, 0, NULL, &err), PD_EFORMAT,
                       bad_pickles[i].error);
    }
    PD_ROW("depth");
    for (int depth = PD_PICKLE_DEPTH; depth <= PD_PICKLE_DEPTH + 1; depth++) { /* [[[...]]] */
        int n = snprintf(text, sizeof text, P);
        for (int i = 0; i < depth; i++) text[n++] = ']';
        for (int i = 1; i < depth; i++) text[n++] = 'a';
        text[n++] = '.';
        if (depth == PD_PICKLE_DEPTH)
            PD_CHECK_OK(parse(text, (size_t)n, 0, NULL, &err));
        else
            PD_CHECK_FAILS(parse(text, (size_t)n, 0, NULL, &err), PD_EFORMAT, "more than 100 deep");
    }
    PD_ROW("depth by parts that were seen before"); /* a = [[..60..]]; ([..60..[a]], a) is 120 deep either way round */
    for (int order = 0; order < 2; order++) {
        int n = snprintf(text, sizeof text, P);
        for (int i = 0; i < 60; i++) text[n++] = ']';
        for (int i = 1; i < 60; i++) text[n++] = 'a';
        text[n++] = 'q', text[n++] = 1;
        for (int i = 0; i < 60; i++) text[n++] = ']';
        text[n++] = 'h', text[n++] = 1;
        for (int i = 0; i < 60; i++) text[n++] = 'a';
        n += snprintf(text + n, 20,
                      order ? "\x86."
                            : "q\2"
                              "0q\3"
                              "0h\2h\3\x86.");
        PD_CHECK_FAILS(parse(text, (size_t)n, 0, NULL, &err), PD_EFORMAT, "more than 100 deep");
    }
    PD_ROW("values");
    PD_CHECK_OK(parse(P "(NNNt.", 8, 4, shown, &err));
    PD_CHECK_STR(shown, "a tuple of 3");
    PD_CHECK_FAILS(parse(P "(NNNt.", 8, 3, NULL, &err), PD_EFORMAT, "more than 3 values");
    PD_CHECK_FAILS(parse(P "N22222.", 9, 3, NULL, &err), PD_EFORMAT, "more than 3 values on the stack");
    // clang-format off
    static const struct {
        const char *pickle, *shown;
        size_t size;
    } good[] = {
        {P "J\xff\xff\xff\xff.", "-1", 8},
        {P "\x8a\x02\xd4\xfe.", "-300", 7},
        {P "\x8a\x00.", "0", 5},
        {P "G\x3f\xf8\0\0\0\0\0\0.", "1.5", 12},
        {P "N0K\x07.", "7", 7},
        {P "(NN1K\x07.", "7", 9},
        {P "K\x07q\0" "0]h\0a.", "a list of 1", 12},
        {P "\x8f(K\1K\2\x90.", "a list of 2", 10},
        {P "(K\1K\2d.", "a dict of 1", 9},
    };
    // clang-format on
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        PD_ROW(good[i].shown);
        PD_CHECK_OK(parse(good[i].pickle, good[i].size, 0, shown, &err));
        PD_CHECK_STR(shown, good[i].shown);
    }
    PD_ROW("escapes");
    PD_CHECK_OK(parse(P "U\x04"
                        "\x1b[2J.",
                      9, 0, shown, &err));
    PD_CHECK_STR(shown, "\"?[2J\"");
    PD_ROW("");
}

/* ---- tensors that mean harm ---- */

static void put_number(unsigned char **at, int64_t v)
{
    *(*at)++ = 0x8a;
    *(*at)++ = 8;
    for (int i = 0; i < 8; i++) *(*at)++ = (unsigned char)((uint64_t)v >> 8 * i);
}

static void put_string(unsigned char **at, const char *text)
{
    const size_t n = strlen(text);
    memcpy(*at, text, n);
    *at += n;
}

/* A file of the old form with one tensor "w" of a storage of 6 floats. */
typedef struct made {
    int64_t claimed, offset, shape[2], stride[2], stored;
    const char *class, *keys;
    size_t cut;
} made;

static size_t make_file(unsigned char *to, const made *m)
{
    unsigned char *at = to;
    static const char magic[] = P "\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19." P "M\xe9\x03.";
    memcpy(at, magic, sizeof magic - 1);
    at += sizeof magic - 1;
    put_string(&at, P "}U\x0dlittle_endian\x88s." P "}U\x01wctorch._utils\n_rebuild_tensor\n((U\x07storage"
                      "ctorch\n");
    put_string(&at, m->class);
    put_string(&at, "Storage\nU\x01"
                    "0U\x03"
                    "cpu");
    put_number(&at, m->claimed);
    put_string(&at, "NtQ");
    put_number(&at, m->offset);
    put_number(&at, m->shape[0]);
    put_number(&at, m->shape[1]);
    put_string(&at, "\x86");
    put_number(&at, m->stride[0]);
    put_number(&at, m->stride[1]);
    put_string(&at, "\x86tRs.");
    put_string(&at, m->keys);
    memcpy(at, &m->stored, 8);
    at += 8;
    for (int i = 0; i < 6; i++, at += 4) {
        const float v = (float)i;
        memcpy(at, &v, 4);
    }
    return (size_t)(at - to) - m->cut;
}

static void test_tensors(void)
{
    // clang-format off
    static const struct {
        const char *row, *error;
        made m;
    } rows[] = {
        {"sane", NULL, {6, 0, {2, 3}, {3, 1}, 6, "Float", P "]U\x01" "0a.", 0}},
        {"a column", NULL, {6, 4, {1, 2}, {9, 1}, 6, "Float", P "]U\x01" "0a.", 0}},
        {"repeated", NULL, {6, 5, {1000, 16777}, {0, 0}, 6, "Float", P "]U\x01" "0a.", 0}},
        {"nothing", NULL, {6, 1000, {0, 1000}, {1000, 1000}, 6, "Float", P "]U\x01" "0a.", 0}},
        {"repeated too often", "repeats a storage", {6, 5, {1000, 16778}, {0, 0}, 6, "Float", P "]U\x01" "0a.", 0}},
        {"one too many", "reaches beyond", {6, 0, {2, 3}, {4, 1}, 6, "Float", P "]U\x01" "0a.", 0}},
        {"one too far", "reaches beyond", {6, 1, {2, 3}, {3, 1}, 6, "Float", P "]U\x01" "0a.", 0}},
        {"behind", "reaches beyond", {6, 6, {1, 1}, {1, 1}, 6, "Float", P "]U\x01" "0a.", 0}},
        {"huge offset", "reaches beyond", {6, INT64_MAX, {1, 1}, {1, 1}, 6, "Float", P "]U\x01" "0a.", 0}},
        {"huge stride", "reaches beyond", {6, 0, {3, 1}, {INT64_MAX, 1}, 6, "Float", P "]U\x01" "0a.", 0}},
        {"strides that overflow together", "reaches beyond", {6, 0, {3, 3}, {INT64_MAX, INT64_MAX}, 6, "Float", P "]U\x01" "0a.", 0}},
        {"huge shape", "reaches beyond", {6, 0, {INT64_MAX, INT64_MAX}, {0, 0}, 6, "Float", P "]U\x01" "0a.", 0}},
        {"negative stride", "not tuples", {6, 5, {2, 3}, {-3, 1}, 6, "Float", P "]U\x01" "0a.", 0}},
        {"negative shape", "not tuples", {6, 0, {-1, 3}, {3, 1}, 6, "Float", P "]U\x01" "0a.", 0}},
        {"negative offset", "without a storage", {6, -1, {1, 1}, {3, 1}, 6, "Float", P "]U\x01" "0a.", 0}},
        {"negative storage", "does not write", {-6, 0, {2, 3}, {3, 1}, 6, "Float", P "]U\x01" "0a.", 0}},
        {"huge storage", "cut: storage 0", {INT64_MAX, 0, {2, 3}, {3, 1}, INT64_MAX, "Float", P "]U\x01" "0a.", 0}},
        {"storage of another size", "has 5 elements, 6", {6, 0, {2, 3}, {3, 1}, 5, "Float", P "]U\x01" "0a.", 0}},
        {"one element less in the file", "cut: storage 0", {6, 0, {2, 3}, {3, 1}, 6, "Float", P "]U\x01" "0a.", 1}},
        {"wider elements", "cut: storage 0", {6, 0, {2, 3}, {3, 1}, 6, "Double", P "]U\x01" "0a.", 0}},
        {"a type of no tensor", "torch.ShortStorage", {6, 0, {2, 3}, {3, 1}, 6, "Short", P "]U\x01" "0a.", 0}},
        {"an unknown type", "torch.QInt8Storage", {6, 0, {2, 3}, {3, 1}, 6, "QInt8", P "]U\x01" "0a.", 0}},
        {"no storages", "is not in the file", {6, 0, {2, 3}, {3, 1}, 6, "Float", P "].", 0}},
        {"a storage of nobody", "belongs to no tensor", {6, 0, {2, 3}, {3, 1}, 6, "Float", P "]U\x01" "1a.", 0}},
        {"storages that are no list", "is no list", {6, 0, {2, 3}, {3, 1}, 6, "Float", P "}.", 0}},
    };
    // clang-format on
    unsigned char file[1024];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pd_torch *f = NULL;
        pd_err err = PD_ERR_INIT;
        PD_ROW(rows[i].row);
        const size_t size = make_file(file, &rows[i].m);
        unsigned char *copy = malloc(size);
        memcpy(copy, file, size);
        if (rows[i].error)
            PD_CHECK_FAILS(pd_torch_parse(&f, "file", copy, size, &plain, &err), PD_EFORMAT, rows[i].error);
        else
            PD_CHECK_OK(pd_torch_parse(&f, "file", copy, size, &plain, &err));
        if (f) {
            size_t walked = 0;
            sink s = {.size = 0};
            pd_view_walk(&pd_torch_at(f, 0)->view, collect, &s);
            walked = s.size;
            PD_CHECK_INT(walked, pd_torch_at(f, 0)->view.bytes);
        }
        pd_torch_close(f);
        free(copy);
    }
    PD_ROW("");
}

/* ---- writing ---- */

/* A file written and read again: strides laid out, rows put together, all types, text around it. */
static pd_status write_and_read(const char *path, pd_err *err)
{
    pd_torch *in = NULL, *out = NULL;
    pd_torch_item items[sizeof want / sizeof *want];
    const char *const texts[] = {"arch", "resnet18", NULL};
    pd_status status = pd_torch_open(&in, PD_GOLDEN "/torch/new.pth", &plain, err);
    if (status != PD_OK) return status;
    const size_t n = pd_torch_count(in);
    for (size_t i = 0; i < n; i++) {
        const pd_view *v = &pd_torch_at(in, i)->view;
        items[i] = (pd_torch_item){.name = pd_torch_at(in, i)->name, .ndim = v->ndim, .parts = {*v}, .n_parts = 1};
        memcpy(items[i].shape, v->shape, sizeof v->shape);
    }
    items[11].parts[0] = pd_view_rows(&items[11].parts[0], 1, 3); /* transposed: its first row put last */
    items[11].parts[1] = pd_view_rows(&pd_torch_at(in, 11)->view, 0, 1);
    items[11].n_parts = 2;
    PD_TRY_DONE(pd_torch_save(path, items, n, "state_dict", texts, err));
    PD_TRY_DONE(pd_torch_open(&out, path, &plain, err));
    char text[256];
    PD_CHECK_STR(pd_torch_key(out), "state_dict");
    PD_CHECK_STR(other(out, "arch"), "\"resnet18\"");
    PD_CHECK_INT(pd_torch_count(out), n);
    for (size_t i = 0; i < n && n == pd_torch_count(out); i++) {
        PD_ROW(want[i].name);
        const char *expected = i == 11 ? "F32 4x3: 1 5 9 2 6 10 3 7 11 0 4 8" : want[i].elements;
        PD_CHECK_STR(elements(text, out, want[i].name), expected);
        const uintptr_t at = (uintptr_t)pd_torch_at(out, i)->view.data; /* a mapped file begins with a page */
        if (pd_torch_at(out, i)->view.elements) PD_CHECK_INT(at % PD_ALIGN, 0);
    }
    PD_ROW("");
done:
    pd_torch_close(out);
    pd_torch_close(in);
    return status;
}

static pd_status work_write(void *arg, pd_err *err)
{
    return write_and_read(arg, err);
}

static pd_status work_read(void *arg, pd_err *err)
{
    const pd_torch_options skip = {.skip_objects = true};
    pd_torch *const mark = (pd_torch *)&pd_test_checks, *f = mark;
    const pd_status status = pd_torch_open(&f, arg, &skip, err);
    if (status == PD_OK)
        pd_torch_close(f);
    else
        PD_CHECK(f == mark);
    return status;
}

static void test_faults(const char *path)
{
    static const char *const files[] = {"new", "old", "deflated", "python2", "object"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char from[300];
        snprintf(from, sizeof from, "%s/torch/%s.pth", PD_GOLDEN, files[i]);
        PD_CHECK(pd_fault_sweep(files[i], work_read, from, false) > 3);
    }
    PD_CHECK(pd_fault_sweep("write", work_write, (void *)(uintptr_t)path, true) > 10);
}

static void test_zip(const char *path)
{
    pd_err err = PD_ERR_INIT;
    pd_zip_writer *w = NULL;
    PD_CHECK_OK(pd_zip_create(&w, path, &err));
    PD_CHECK_OK(pd_zip_begin(w, "a", 4, &err));
    pd_zip_put(w, "xyz", 3);
    PD_CHECK_FAILS(pd_zip_commit(w, &err), PD_EINVAL, "3 bytes were put, 4 announced");
    PD_CHECK_OK(pd_zip_create(&w, path, &err));
    PD_CHECK_OK(pd_zip_begin(w, "a", 2, &err));
    pd_zip_put(w, "xyz", 3);
    PD_CHECK_FAILS(pd_zip_commit(w, &err), PD_EINVAL, "announced");
    PD_CHECK(!pd_file_exists(path));
    PD_CHECK_OK(pd_zip_create(&w, path, &err)); /* more entries than 16 bits count */
    char name[16];
    for (int i = 0; i < 70000; i++) {
        snprintf(name, sizeof name, "%d", i);
        if (pd_zip_begin(w, name, strlen(name), &err) != PD_OK) break;
        pd_zip_put(w, name, strlen(name));
    }
    PD_CHECK_OK(pd_zip_commit(w, &err));
    pd_bytes file, data;
    pd_zip zip;
    pd_arena *arena = pd_arena_new();
    PD_CHECK_OK(pd_file_map(&file, path, &err));
    PD_CHECK_OK(pd_zip_open(&zip, path, file, arena, &err));
    PD_CHECK_INT(zip.count, 70000);
    const pd_zip_entry *e = pd_zip_find(&zip, "69999");
    PD_CHECK(e && pd_zip_read(&data, &zip, e, arena, &err) == PD_OK && data.size == 5 &&
             !memcmp(data.data, "69999", 5));
    PD_CHECK(!pd_zip_find(&zip, "70000"));
    pd_file_unmap(&file);
    pd_arena_free(arena);
    unlink(path);
}

/* Archives that are whole, but no files of torch.save. */
static void test_archives(const char *path)
{
// clang-format off
#define W P "}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0" "0NK\x02tQK\0K\x02\x85K\1\x85\x89NtRs."
#define TEXT(text) text, sizeof(text) - 1
    static const struct {
        const char *row, *error;
        struct {
            const char *name, *data;
            size_t size;
        } entries[4];
    } rows[] = {
        {"sane", NULL, {{"a/data.pkl", TEXT(W)}, {"a/data/0", TEXT("12345678")}, {"a/byteorder", TEXT("little")}}},
        {"the other way round", "another byte order", {{"a/data.pkl", TEXT(W)}, {"a/data/0", TEXT("12345678")}, {"a/byteorder", TEXT("big")}}},
        {"no pickle", "without data.pkl", {{"word/document.xml", TEXT("<")}}},
        {"a pickle further down", "without data.pkl", {{"a/b/data.pkl", TEXT(W)}}},
        {"two", "holds both a/data.pkl and b/data.pkl", {{"a/data.pkl", TEXT(W)}, {"b/data.pkl", TEXT(W)}}},
        {"no storage", "a/data/0 is missing", {{"a/data.pkl", TEXT(W)}}},
        {"a storage elsewhere", "a/data/0 is missing", {{"a/data.pkl", TEXT(W)}, {"b/data/0", TEXT("12345678")}}},
        {"a short storage", "a/data/0 has 7 bytes, 2 elements of 4", {{"a/data.pkl", TEXT(W)}, {"a/data/0", TEXT("1234567")}}},
        {"a long storage", "a/data/0 has 9 bytes, 2 elements of 4", {{"a/data.pkl", TEXT(W)}, {"a/data/0", TEXT("123456789")}}},
        {"no tensor", "has no tensors where they were looked for (--key says where they are); it holds \"a\"", {{"a/data.pkl", TEXT(P "}U\x01" "aNs.")}}},
        {"no dict", "it holds a list of 0", {{"a/data.pkl", TEXT(P "].")}}},
        {"an empty dict", "it holds nothing", {{"a/data.pkl", TEXT(P "}.")}}},
        {"a key of bytes", "has a byte that is no text", {{"a/data.pkl", TEXT(P "}U\x01\xff" "Ns.")}}},
        {"a key with an escape", "has a byte that is no text", {{"a/data.pkl", TEXT(P "}U\x01\x1b" "Ns.")}}},
        {"a key of nothing", "a key that is None, expected text", {{"a/data.pkl", TEXT(P "}NNs.")}}},
        {"a key twice", "key w is there twice", {{"a/data.pkl", TEXT(P "}(U\x01wctorch._utils\n_rebuild_tensor_v2\n((U\7storagectorch\nFloatStorage\nU\x01" "0NK\0tQK\0K\0\x85K\1\x85tRq\0U\1wh\0u.")}}},
    };
    // clang-format on
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pd_err err = PD_ERR_INIT;
        pd_zip_writer *w = NULL;
        pd_torch *f = NULL;
        PD_ROW(rows[i].row);
        PD_CHECK_OK(pd_zip_create(&w, path, &err));
        for (int k = 0; rows[i].entries[k].name; k++) {
            PD_CHECK_OK(pd_zip_begin(w, rows[i].entries[k].name, rows[i].entries[k].size, &err));
            pd_zip_put(w, rows[i].entries[k].data, rows[i].entries[k].size);
        }
        PD_CHECK_OK(pd_zip_commit(w, &err));
        if (rows[i].error)
            PD_CHECK_FAILS(pd_torch_open(&f, path, &plain, &err), PD_EFORMAT, rows[i].error);
        else
            PD_CHECK_OK(pd_torch_open(&f, path, &plain, &err));
        pd_torch_close(f);
    }
    PD_ROW("");
    unlink(path);
}

int main(void)
{
    char dir[256], path[300];
    pd_err err = PD_ERR_INIT;
    snprintf(path, sizeof path, "%s/x.pth", pd_test_dir(dir, "torch_file"));
    test_golden();
    test_python2();
    test_objects();
    test_damage("new");
    test_damage("old");
    test_damage("deflated");
    test_damage("zip64");
    test_damage("python2");
    test_pickles();
    test_tensors();
    PD_CHECK_OK(write_and_read(path, &err));
    unlink(path);
    test_zip(path);
    test_archives(path);
    test_faults(path);
    unlink(path);
    rmdir(dir);
    return pd_test_end();
}
