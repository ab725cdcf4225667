/* Tensor files: what Python's safetensors wrote is read, what we write reads back, malformed headers are refused. */
#include "engine/file.h"
#include "engine/half.h"
#include "engine/safetensors.h"
#include "tests/pd_test.h"

#include <stdint.h>
#include <unistd.h>

static void test_half(void)
{
    for (uint32_t h = 0; h < 65536; h++) {
        const float f = pd_float_from_f16((uint16_t)h), b = pd_float_from_bf16((uint16_t)h);
        if (f == f) PD_CHECK(pd_f16_from_float(f) == h);
        if (b == b) PD_CHECK(pd_bf16_from_float(b) == h);
        if (f != f) PD_CHECK((pd_f16_from_float(f) & 0x7c00) == 0x7c00 && (pd_f16_from_float(f) & 0x3ff));
        if (b != b) PD_CHECK((pd_bf16_from_float(b) & 0x7f80) == 0x7f80 && (pd_bf16_from_float(b) & 0x7f));
    }
    static const struct {
        float from;
        float f16, bf16; /* what remains */
    } rows[] = {
        {1.0f / 3, 0.333251953125f, 0.333984375f},
        {65519.0f, 65504.0f, 65536.0f},
        {65520.0f, INFINITY, 65536.0f},
        {0x1p-24f, 0x1p-24f, 0x1p-24f},
        {0x1p-25f, 0, 0x1p-25f},            /* half of the smallest: to even, 0 */
        {0x1.8p-24f, 0x1p-23f, 0x1.8p-24f}, /* one and a half of it: to even, 2 */
        {0x1.002p0f, 1.0f, 1.0f},           /* exactly between two float16 */
        {0x1.006p0f, 0x1.008p0f, 1.0f},
        {0x1.01p0f, 0x1.01p0f, 1.0f}, /* exactly between two bfloat16 */
        {0x1.03p0f, 0x1.03p0f, 0x1.04p0f},
        {0x1.fffp127f, INFINITY, INFINITY},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int sign = -1; sign <= 1; sign += 2) {
            const float s = (float)sign, x = s * rows[i].from;
            PD_CHECK(pd_float_from_f16(pd_f16_from_float(x)) == s * rows[i].f16);
            PD_CHECK(pd_float_from_bf16(pd_bf16_from_float(x)) == s * rows[i].bf16);
        }
}

/* tests/golden/safetensors_python.safetensors: the names say how; values i * 0.5 - 3 (integers: i - 3, BOOL: i % 2,
 * U8: 250 + i) of six elements, made with `safetensors.serialize` (0.5.3) of Python. */
static void test_python_file(void)
{
    pd_err err = PD_ERR_INIT;
    pd_st *st = NULL;
    PD_CHECK_OK(pd_st_open(&st, PD_GOLDEN "/safetensors_python.safetensors", &err));
    if (!st) return;
    PD_CHECK_INT(pd_st_count(st), 11);
    PD_CHECK_STR(pd_st_meta(st, "format"), "pt");
    PD_CHECK_STR(pd_st_meta(st, "quote"), "a \"b\" \\ \xc3\xa9");
    PD_CHECK(!pd_st_meta(st, "Format"));
    PD_CHECK_INT(pd_st_meta_count(st), 2);
    for (size_t i = 0; i < pd_st_count(st); i++) {
        const pd_st_tensor *t = pd_st_at(st, i);
        PD_ROW(t->name);
        PD_CHECK(pd_st_find(st, t->name) == t);
        if (i) PD_CHECK(strcmp(pd_st_at(st, i - 1)->name, t->name) < 0);
        if (!strcmp(t->name, "scalar")) {
            float v = 0;
            PD_CHECK(t->ndim == 0 && t->elements == 1);
            pd_st_read_f32(&v, t);
            PD_CHECK(v == 7.5f);
            continue;
        }
        if (!strcmp(t->name, "empty")) {
            PD_CHECK(t->ndim == 2 && t->shape[0] == 0 && t->shape[1] == 4 && t->elements == 0);
            pd_st_read_f32(NULL, t);
            continue;
        }
        float v[6];
        int64_t n[6];
        PD_CHECK(t->ndim == 2 && t->shape[0] == 2 && t->shape[1] == 3 && t->elements == 6);
        PD_CHECK(!strncmp(t->name, pd_st_type_name(t->type), strlen(pd_st_type_name(t->type))));
        pd_st_read_f32(v, t);
        const bool floats = t->name[0] == 'F' || !strcmp(t->name, "BF16");
        for (int k = 0; k < 6; k++) {
            const double want = floats                  ? k * 0.5 - 3
                                : t->type == PD_ST_BOOL ? k % 2
                                : t->type == PD_ST_U8   ? 250 + k
                                                        : k - 3;
            PD_CHECK_NEAR(v[k], want, 0);
        }
        if (floats) {
            PD_CHECK_FAILS(pd_st_read_i64(n, st, t, &err), PD_EFORMAT, "expected whole numbers");
        } else {
            PD_CHECK_OK(pd_st_read_i64(n, st, t, &err));
            for (int k = 0; k < 6; k++) PD_CHECK_INT(n[k], (int64_t)v[k]);
        }
    }
    PD_ROW("");
    PD_CHECK(!pd_st_find(st, "F3") && !pd_st_find(st, "zzz"));
    const pd_st_tensor *t = NULL;
    PD_CHECK_OK(pd_st_need(&t, st, "F32", 2, (const int64_t[]){2, 3}, &err));
    PD_CHECK_FAILS(pd_st_need(&t, st, "F32", 2, (const int64_t[]){3, 2}, &err), PD_EFORMAT,
                   "safetensors_python.safetensors: F32: file has (2, 3), expected (3, 2)");
    PD_CHECK_FAILS(pd_st_need(&t, st, "F32", 1, (const int64_t[]){6}, &err), PD_EFORMAT, "expected (6)");
    PD_CHECK_FAILS(pd_st_need(&t, st, "gone", -1, NULL, &err), PD_EFORMAT, "tensor \"gone\" is missing");
    PD_CHECK_STR(t->name, "F32");
    pd_st_close(st);
}

/* Files of the PyTorch oracle, where they are at hand. */
static void test_oracle_file(void)
{
    const char *shared = getenv("PD_SHARED");
    char path[512];
    snprintf(path, sizeof path, "%s/golden/paradise/layer_a_all_stride1.safetensors",
             shared ? shared : PD_SOURCE_DIR "/../shared");
    if (!pd_file_exists(path)) {
        PD_SKIP("%s is not there", path);
        return;
    }
    pd_err err = PD_ERR_INIT;
    pd_st *st = NULL;
    PD_CHECK_OK(pd_st_open(&st, path, &err));
    if (!st) return;
    const pd_st_tensor *x = NULL;
    PD_CHECK_OK(pd_st_need(&x, st, "x", -1, NULL, &err));
    PD_CHECK(x->ndim == 4 && x->type == PD_ST_F32);
    pd_st_close(st);
}

typedef struct {
    const float *values;
    size_t count, pieces;
} floats;

static pd_status fill_floats(void *arg, pd_st_writer *w, pd_err *err)
{
    (void)err;
    const floats *f = arg;
    for (size_t i = 0; i < f->count; i += f->pieces)
        pd_st_put_f32(w, f->values + i, f->pieces < f->count - i ? f->pieces : f->count - i);
    return PD_OK;
}

static pd_status fill_fails(void *arg, pd_st_writer *w, pd_err *err)
{
    (void)arg;
    pd_st_put(w, "abc", 3);
    return PD_FAIL(err, PD_EDEVICE, "the device is gone");
}

static void test_write(void)
{
    pd_err err = PD_ERR_INIT;
    char dir[256], path[300];
    PD_CHECK(pd_test_dir(dir, "st"));
    snprintf(path, sizeof path, "%s/w.safetensors", dir);
    static float many[10001];
    for (int i = 0; i < 10001; i++) many[i] = (float)(i - 5000) * 0.25f;
    const uint8_t bytes[3] = {1, 2, 255};
    const int64_t count = 1234567890123;
    pd_st_writer *w = NULL;
    floats f = {many, 10001, 333};
    for (int order = PD_ST_SORTED; order <= PD_ST_GIVEN; order++) {
        PD_CHECK_OK(pd_st_create(&w, path, (pd_st_order)order, &err));
        PD_CHECK_OK(pd_st_add(w, "u8", PD_ST_U8, 1, (const int64_t[]){3}, bytes, &err));
        PD_CHECK_OK(pd_st_add(w, "f32", PD_ST_F32, 2, (const int64_t[]){73, 137}, many, &err));
        PD_CHECK_OK(pd_st_add(w, "count", PD_ST_I64, 0, NULL, &count, &err));
        PD_CHECK_OK(pd_st_add_meta(w, "config", "{\n\t\"a\": \"\xc3\xa9\"}", &err));
        PD_CHECK_OK(pd_st_add_meta(w, "empty", "", &err));
        PD_CHECK_FAILS(pd_st_add_meta(w, "empty", "x", &err), PD_EINVAL, "metadata \"empty\" given twice");
        static const struct {
            const char *name;
            pd_st_type type;
        } streams[] = {{"s.f32", PD_ST_F32}, {"s.f64", PD_ST_F64}, {"s.f16", PD_ST_F16}, {"s.bf16", PD_ST_BF16}};
        for (size_t i = 0; i < 4; i++)
            PD_CHECK_OK(pd_st_add_stream(w, streams[i].name, streams[i].type, 1, (const int64_t[]){10001}, fill_floats,
                                         &f, &err));
        PD_CHECK_OK(pd_st_add(w, "none", PD_ST_F32, 1, (const int64_t[]){0}, NULL, &err));
        PD_CHECK_OK(pd_st_commit(w, &err));

        pd_st *st = NULL;
        PD_CHECK_OK(pd_st_open(&st, path, &err));
        PD_CHECK_INT(pd_st_count(st), 8);
        PD_CHECK_STR(pd_st_meta(st, "config"), "{\n\t\"a\": \"\xc3\xa9\"}");
        PD_CHECK_STR(pd_st_meta(st, "empty"), "");
        const pd_st_tensor *t = NULL;
        static float back[10001];
        PD_CHECK_OK(pd_st_need(&t, st, "f32", 2, (const int64_t[]){73, 137}, &err));
        pd_st_read_f32(back, t);
        PD_CHECK(!memcmp(back, many, sizeof many));
        if (order == PD_ST_SORTED) PD_CHECK((uintptr_t)t->data % 4 == 0);
        for (size_t i = 0; i < 4; i++) {
            PD_ROW(streams[i].name);
            PD_CHECK_OK(pd_st_need(&t, st, streams[i].name, 1, (const int64_t[]){10001}, &err));
            PD_CHECK_INT(t->type, streams[i].type);
            pd_st_read_f32(back, t);
            /* -1250..1250 by quarters: float16 has steps of 1 above 1024, bfloat16 keeps 8 bits */
            for (int k = 0; k < 10001; k++)
                if (fabsf(back[k] - many[k]) > (i < 2 ? 0.0f : i == 2 ? 0.5f : 4.0f))
                    PD_CHECK_NEAR(back[k], many[k], 0);
        }
        PD_ROW("");
        int64_t n = 0;
        PD_CHECK_OK(pd_st_need(&t, st, "count", 0, NULL, &err));
        PD_CHECK_OK(pd_st_read_i64(&n, st, t, &err));
        PD_CHECK(n == count);
        pd_st_close(st);
    }
    unlink(path);

    /* what cannot be written leaves no file */
    const int64_t two = 2;
    PD_CHECK_OK(pd_st_create(&w, path, PD_ST_SORTED, &err));
    PD_CHECK_OK(pd_st_add(w, "a", PD_ST_F32, 1, &two, many, &err));
    PD_CHECK_OK(pd_st_add(w, "a", PD_ST_F32, 1, &two, many, &err));
    PD_CHECK_FAILS(pd_st_commit(w, &err), PD_EINVAL, "w.safetensors: tensor \"a\" given twice");
    PD_CHECK_OK(pd_st_create(&w, path, PD_ST_SORTED, &err));
    PD_CHECK_OK(pd_st_add(w, "__metadata__", PD_ST_F32, 1, &two, many, &err));
    PD_CHECK_FAILS(pd_st_commit(w, &err), PD_EINVAL, "__metadata__");
    static const struct {
        pd_st_type type;
        size_t count;
        pd_st_fill fill;
        pd_status status;
        const char *message;
    } bad[] = {
        {PD_ST_F16, 4999, fill_floats, PD_EINVAL, "s: fewer than the tensor's 10000 bytes"},
        {PD_ST_F16, 5001, fill_floats, PD_EINVAL, "s: more than the tensor's 10000 bytes"},
        {PD_ST_F32, 10001, fill_floats, PD_EINVAL, "s: more than the tensor's 20000 bytes"},
        {PD_ST_I32, 5000, fill_floats, PD_EINVAL, "s: floats were given for a tensor of I32"},
        {PD_ST_F32, 0, fill_fails, PD_EDEVICE, "the device is gone"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        f.count = bad[i].count;
        PD_CHECK_OK(pd_st_create(&w, path, PD_ST_SORTED, &err));
        PD_CHECK_OK(pd_st_add_stream(w, "s", bad[i].type, 1, (const int64_t[]){5000}, bad[i].fill, &f, &err));
        PD_CHECK_FAILS(pd_st_commit(w, &err), bad[i].status, bad[i].message);
    }
    PD_CHECK_OK(pd_st_create(&w, path, PD_ST_SORTED, &err));
    PD_CHECK_FAILS(pd_st_add(w, "n", PD_ST_F32, 9, (const int64_t[9]){0}, many, &err), PD_EINVAL, "9 dimensions");
    PD_CHECK_FAILS(pd_st_add(w, "n", PD_ST_F32, 1, (const int64_t[]){-1}, many, &err), PD_EINVAL,
                   "impossible shape (-1)");
    PD_CHECK_FAILS(pd_st_add(w, "n", PD_ST_F32, 2, (const int64_t[]){1ll << 40, 1ll << 40}, many, &err), PD_EINVAL,
                   "impossible shape");
    pd_st_cancel(w);
    pd_st_cancel(NULL);
    pd_st_close(NULL);
    PD_CHECK(rmdir(dir) == 0); /* empty: no file, no temporary file */
}

#define E(dtype, shape, offsets) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static const struct {
    const char *name, *header;
    size_t data;         /* bytes behind the header */
    const char *message; /* "" where it is good */
} headers[] = {
    {"good", "{\"a\":" E("F32", "[2]", "[0,8]") ",\"b\":" E("U8", "[1]", "[8,9]") "}   ", 9, ""},
    {"nothing", "{}", 0, ""},
    {"zero sizes", "{\"a\":" E("F32", "[0]", "[0,0]") ",\"b\":" E("F32", "[1]", "[0,4]") "}", 4, ""},
    {"unknown key", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"note\":1}}", 1, ""},
    {"gap in front", "{\"a\":" E("F32", "[2]", "[4,12]") "}", 12, "f: 4 bytes in front of a belong to no tensor"},
    {"gap", "{\"a\":" E("U8", "[1]", "[0,1]") ",\"b\":" E("U8", "[1]", "[2,3]") "}", 3, "1 bytes in front of b belong"},
    {"overlap", "{\"a\":" E("U8", "[3]", "[0,3]") ",\"b\":" E("U8", "[2]", "[2,4]") "}", 4,
     "f: b: its bytes overlap those of a"},
    {"same bytes", "{\"a\":" E("U8", "[3]", "[0,3]") ",\"b\":" E("U8", "[3]", "[0,3]") "}", 3, "overlap"},
    {"bytes left over", "{\"a\":" E("F32", "[2]", "[0,8]") "}", 10, "f: 2 bytes at the end belong to no tensor"},
    {"bytes without tensor", "{}", 3, "3 bytes at the end belong to no tensor"},
    {"cut", "{\"a\":" E("F32", "[2]", "[0,8]") "}", 7, "a.data_offsets: bytes 0 to 8 do not lie within the file's 7"},
    {"backwards", "{\"a\":" E("F32", "[2]", "[8,0]") "}", 8, "bytes 8 to 0 do not lie"},
    {"size", "{\"a\":" E("F32", "[3]", "[0,8]") "}", 8, "a: (3) of F32 needs 12 bytes, its offsets give it 8"},
    {"overflow", "{\"a\":" E("F32", "[4294967296,4294967296]", "[0,0]") "}", 0, "more elements than memory can hold"},
    {"byte overflow", "{\"a\":" E("F64", "[2251799813685248,1024]", "[0,0]") "}", 0, "more bytes than memory can hold"},
    {"negative", "{\"a\":" E("F32", "[-1]", "[0,0]") "}", 0, "a.shape[0]: a dimension is a whole number"},
    {"fraction", "{\"a\":" E("F32", "[1.5]", "[0,6]") "}", 6, "a.shape[0]: a dimension is a whole number"},
    {"text dimension", "{\"a\":" E("F32", "[\"1\"]", "[0,4]") "}", 4, "a.shape[0]"},
    {"many dimensions", "{\"a\":" E("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") "}", 1, "9 dimensions"},
    {"dtype", "{\"a\":" E("F8_E4M3", "[1]", "[0,1]") "}", 1, "a: dtype \"F8_E4M3\" is not supported"},
    {"dtype case", "{\"a\":" E("f32", "[1]", "[0,4]") "}", 4, "dtype \"f32\" is not supported"},
    {"one offset", "{\"a\":" E("U8", "[1]", "[0]") "}", 1, "expected two whole numbers"},
    {"three offsets", "{\"a\":" E("U8", "[1]", "[0,1,2]") "}", 1, "expected two whole numbers"},
    {"negative offset", "{\"a\":" E("U8", "[1]", "[-1,0]") "}", 1, "expected two whole numbers"},
    {"no dtype", "{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "a: key \"dtype\" is missing"},
    {"no shape", "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "a: key \"shape\" is missing"},
    {"not an object", "{\"a\":[]}", 0, "a: a tensor's entry is an object"},
    {"header is a list", "[]", 0, "the header is no JSON object"},
    {"header is no JSON", "{\"a\":", 0, "f:1: the text ends where a value is expected"},
    {"twice", "{\"a\":" E("U8", "[1]", "[0,1]") ",\"a\":" E("U8", "[1]", "[1,2]") "}", 2, "a: this key appears twice"},
    {"metadata number", "{\"__metadata__\":{\"epoch\":3}}", 0, "__metadata__.epoch: metadata must be a string"},
    {"metadata list", "{\"__metadata__\":[]}", 0, "__metadata__: is no object of strings"},
};

static void test_headers(void)
{
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        PD_ROW(headers[i].name);
        pd_err err = PD_ERR_INIT;
        const uint64_t n = strlen(headers[i].header);
        const size_t size = 8 + n + headers[i].data;
        unsigned char *file = malloc(size);
        memcpy(file, &n, 8);
        memcpy(file + 8, headers[i].header, n);
        memset(file + 8 + n, 7, headers[i].data);
        pd_st *st = NULL;
        const pd_status status = pd_st_parse(&st, "f", file, size, &err);
        if (*headers[i].message)
            PD_CHECK_MSG(status == PD_EFORMAT && !st && strstr(err.text, headers[i].message), "got \"%s\"", err.text);
        else
            PD_CHECK_MSG(status == PD_OK && st, "got \"%s\"", err.text);
        pd_st_close(st);
        for (size_t cut = 0; cut < size && !*headers[i].message; cut++) { /* every cut of a good file is refused */
            unsigned char *part = malloc(cut ? cut : 1);
            memcpy(part, file, cut);
            st = NULL;
            PD_CHECK_INT(pd_st_parse(&st, "f", part, cut, &err), PD_EFORMAT);
            free(part);
        }
        free(file);
    }
    PD_ROW("");
    pd_err err = PD_ERR_INIT;
    pd_st *st = NULL;
    PD_CHECK_FAILS(pd_st_parse(&st, "f", "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10, &err), PD_EFORMAT,
                   "a header of 18446744073709551615 bytes in a file of 10");
    PD_CHECK_FAILS(pd_st_parse(&st, "f", "\x03\0\0\0\0\0\0\0{}", 10, &err), PD_EFORMAT, "a header of 3 bytes");
    PD_CHECK_FAILS(pd_st_open(&st, "/nonexistent.safetensors", &err), PD_EIO, "cannot open");
    PD_CHECK_FAILS(pd_st_open(&st, "/", &err), PD_EIO, "is a folder");
}

int main(void)
{
    test_half();
    test_python_file();
    test_oracle_file();
    test_write();
    test_headers();
    return pd_test_end();
}
