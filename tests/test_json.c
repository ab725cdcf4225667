/* JSON in and out: what is refused and how it is said, numbers that read back, lifetimes. */
#include "engine/file.h"
#include "engine/json.h"
#include "tests/pd_test.h"

#include <float.h>
#include <stdint.h>
#include <unistd.h>

/* text, part of the message ("" where it is good JSON) */
static const struct {
    const char *name, *text, *message;
} syntax[] = {
    {"object", "{\"a\": [1, 2.5, -3e2, true, false, null, \"x\\u00e9\\n\"]}", ""},
    {"scalar", " 3 ", ""},
    {"mark", "\xef\xbb\xbf{}", ""},
    {"empty object and array", "[{}, [], [[]], {\"a\": {}}]", ""},
    {"pair", "\"\\ud83d\\ude00\"", ""},
    {"nothing", "", "t:1: the text ends where a value is expected"},
    {"blank", "  \n ", "t:2: the text ends where"},
    {"open object", "{\"a\": 1", "t:1: ',' or '}' is expected here"},
    {"open array", "[1,\n2", "t:2: ',' or ']' is expected here"},
    {"trailing comma", "{\"a\": 1,\n}", "t:2: a ',' behind the last element"},
    {"trailing comma in array", "[1,]", "a ',' behind the last element"},
    {"missing comma", "{\"a\": 1\n \"b\": 2}", "t:2: ',' or '}' is expected here"},
    {"missing colon", "{\"a\" 1}", "':' is expected"},
    {"bare key", "{a: 1}", "a key in double quotes"},
    {"comment", "{} // x", "t:1: more text behind the end"},
    {"two values", "1 2", "more text behind the end"},
    {"closes too often", "[]]", "more text behind the end"},
    {"wrong bracket", "[1}", "',' or ']' is expected here"},
    {"leading zero", "[01]", "begins with 0"},
    {"no digits behind the point", "[1.]", "without digits behind its point"},
    {"no digits in the exponent", "[1e+]", "without digits in its exponent"},
    {"plus", "[+1]", "not a JSON value"},
    {"nan", "[NaN]", "not a JSON value"},
    {"minus alone", "[-]", "not a JSON value"},
    {"infinite", "{\"a\": {\"b\": [0,\n 1e999]}}", "t:2: a.b[1]: a number too large"},
    {"long number", "[0.1234567890123456789012345678901234567890123456789012345678901234567890]", "63 characters"},
    {"raw line break", "[\"a\nb\"]", "control character inside a string"},
    {"open string", "[\n\"ab", "t:2: a string without an end"},
    {"escape", "[\"\\x\"]", "unknown escape"},
    {"short unicode", "[\"\\u12\"]", "four hexadecimal digits"},
    {"zero character", "[\"a\\u0000b\"]", "\\u0000"},
    {"low surrogate", "[\"\\udc00\"]", "surrogate"},
    {"high surrogate alone", "[\"\\ud800x\"]", "surrogate"},
    {"two high surrogates", "[\"\\ud800\\ud800\"]", "surrogate"},
    {"latin 1", "[\"caf\xe9\"]", "not UTF-8"},
    {"overlong", "[\"\xc0\x80\"]", "not UTF-8"},
    {"utf-8 surrogate", "[\"\xed\xa0\x80\"]", "not UTF-8"},
    {"duplicate", "{\"a\": 1,\n\"b\": 2,\n\"a\": 3}", "t:3: a: this key appears twice"},
    {"duplicate inside", "{\"a\": [{}, {\"k\": 1, \"k\": 1}]}", "t:1: a[1].k: this key appears twice"},
    {"keys differ in case", "{\"a\": 1, \"A\": 2}", ""},
};

static void test_syntax(void)
{
    for (size_t i = 0; i < sizeof syntax / sizeof *syntax; i++) {
        PD_ROW(syntax[i].name);
        pd_err err = PD_ERR_INIT;
        pd_json_doc *doc = NULL;
        const pd_status status = pd_json_parse(&doc, "t", syntax[i].text, strlen(syntax[i].text), &err);
        if (*syntax[i].message)
            PD_CHECK_MSG(status == PD_EFORMAT && !doc && strstr(err.text, syntax[i].message), "got \"%s\"", err.text);
        else
            PD_CHECK_MSG(status == PD_OK && doc, "got \"%s\"", err.text);
        pd_json_close(doc);
        /* Every beginning of it: an error or a document, never a crash. */
        for (size_t n = 0; n < strlen(syntax[i].text); n++) {
            doc = NULL;
            if (pd_json_parse(&doc, "t", syntax[i].text, n, &err) == PD_OK) pd_json_close(doc);
        }
    }
    PD_ROW("a zero byte");
    pd_err err = PD_ERR_INIT;
    pd_json_doc *doc = NULL;
    PD_CHECK_FAILS(pd_json_parse(&doc, "t", "[1\0]", 4, &err), PD_EFORMAT, "',' or ']'");
    PD_ROW("");
}

static void test_depth_and_many_keys(void)
{
    pd_err err = PD_ERR_INIT;
    char text[200];
    for (int depth = PD_JSON_DEPTH; depth <= PD_JSON_DEPTH + 1; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        pd_json_doc *doc = NULL;
        const pd_status status = pd_json_parse(&doc, "t", text, (size_t)depth * 2, &err);
        PD_CHECK_INT(status, depth == PD_JSON_DEPTH ? PD_OK : PD_EFORMAT);
        pd_json_close(doc);
    }
    PD_CHECK(strstr(err.text, "more than 64"));
    /* Enough keys for the sorted search; then one of them twice. */
    char *big = malloc(1 << 16);
    for (int twice = 0; twice < 2; twice++) {
        size_t n = 0;
        n += (size_t)sprintf(big + n, "{");
        for (int i = 0; i < 1000; i++) n += (size_t)sprintf(big + n, "\"k%d\": %d,\n", (i * 7919) % 1000, i);
        n += (size_t)sprintf(big + n, "\"%s\": 0}", twice ? "k500" : "other");
        pd_json_doc *doc = NULL;
        const pd_status status = pd_json_parse(&doc, "t", big, n, &err);
        PD_CHECK_INT(status, twice ? PD_EFORMAT : PD_OK);
        if (twice) PD_CHECK_STR(err.text, "t:1001: k500: this key appears twice in its object");
        pd_json_close(doc);
    }
    free(big);
}

static void test_getters(void)
{
    pd_err err = PD_ERR_INIT;
    static const char text[] = "{\"model\": {\n  \"name\": \"r50\",\n  \"width\": 64, \"scale\": 0.5, \"deep\": true,\n"
                               "  \"list\": [1, {\"x\": \"y\"}], \"big\": 9007199254740993,\n \"none\": null}}";
    pd_json_doc *doc = NULL;
    PD_CHECK_OK(pd_json_parse(&doc, "m.json", text, strlen(text), &err));
    const pd_json *model = pd_json_member(pd_json_root(doc), "model"), *list = NULL, *sub = model;
    const char *name = NULL;
    int64_t width = 0;
    double scale = 0;
    bool deep = false;
    PD_CHECK_OK(pd_json_get_string(&name, doc, model, "name", &err));
    PD_CHECK_STR(name, "r50");
    PD_CHECK_OK(pd_json_get_int(&width, doc, model, "width", 1, 64, &err));
    PD_CHECK_INT(width, 64);
    PD_CHECK_OK(pd_json_get_number(&scale, doc, model, "scale", &err));
    PD_CHECK(scale == 0.5);
    PD_CHECK_OK(pd_json_get_bool(&deep, doc, model, "deep", &err));
    PD_CHECK(deep);
    PD_CHECK_OK(pd_json_get_array(&list, doc, model, "list", &err));
    PD_CHECK_INT(pd_json_count(list), 2);

    PD_CHECK_FAILS(pd_json_get_int(&width, doc, model, "width", 1, 63, &err), PD_EFORMAT,
                   "m.json:3: model.width: is 64 (a number), expected a whole number from 1 to 63");
    PD_CHECK_FAILS(pd_json_get_int(&width, doc, model, "scale", 0, 9, &err), PD_EFORMAT, "is 0.5 (a number)");
    PD_CHECK_FAILS(pd_json_get_int(&width, doc, model, "big", 0, INT64_MAX, &err), PD_EFORMAT,
                   "model.big: is 90071992");
    PD_CHECK_FAILS(pd_json_get_int(&width, doc, model, "name", 0, 9, &err), PD_EFORMAT,
                   "m.json:2: model.name: is \"r50\" (a string), expected a whole number");
    PD_CHECK_FAILS(pd_json_get_string(&name, doc, model, "nam", &err), PD_EFORMAT,
                   "m.json:1: model: key \"nam\" is missing (a string)");
    PD_CHECK_FAILS(pd_json_get_string(&name, doc, model, "Name", &err), PD_EFORMAT, "is missing");
    PD_CHECK_FAILS(pd_json_get_object(&sub, doc, model, "none", &err), PD_EFORMAT,
                   "model.none: is null, expected an object");
    PD_CHECK_FAILS(pd_json_get_bool(&deep, doc, model, "list", &err), PD_EFORMAT, "is an array of 2, expected true or");
    PD_CHECK(sub == model && deep && width == 64);
    const pd_json *y = pd_json_first(pd_json_next(pd_json_first(list)));
    char path[64];
    pd_json_path(path, sizeof path, doc, y);
    PD_CHECK_STR(path, "model.list[1].x");
    PD_CHECK_INT(pd_json_line(doc, y), 4);
    PD_CHECK(pd_json_fail(doc, y, &err, "bad %d", 7) == PD_EFORMAT);
    PD_CHECK_STR(err.text, "m.json:4: model.list[1].x: bad 7");
    pd_json_close(doc);
    pd_json_close(NULL);
}

static void test_numbers_read_back(void)
{
    uint64_t x = 88172645463325252u;
    char text[32];
    for (int i = 0; i < 200000; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        double d;
        float f;
        const uint32_t low = (uint32_t)x;
        memcpy(&d, &x, 8);
        memcpy(&f, &low, 4);
        if (isfinite(d)) {
            pd_json_format_double(text, d);
            if (strtod(text, NULL) != d) PD_CHECK_MSG(0, "%s is not %.17g", text, d);
        }
        if (isfinite(f)) {
            pd_json_format_float(text, f);
            if ((float)strtod(text, NULL) != f) PD_CHECK_MSG(0, "%s is not %.9g", text, (double)f);
        }
    }
    static const struct {
        double value;
        const char *text;
    } rows[] = {{0.1, "0.1"},
                {1, "1"},
                {1e6, "1000000"},
                {-0.0, "-0"},
                {0.362, "0.362"},
                {1.0 / 3, "0.3333333333333333"},
                {DBL_MAX, "1.7976931348623157e+308"},
                {NAN, "null"},
                {INFINITY, "null"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pd_json_format_double(text, rows[i].value);
        PD_CHECK_STR(text, rows[i].text);
    }
    pd_json_format_float(text, 0.1f);
    PD_CHECK_STR(text, "0.1");
    pd_json_format_float(text, 0.02f);
    PD_CHECK_STR(text, "0.02");
}

static pd_json_writer *sample(void)
{
    pd_json_writer *w = pd_json_object();
    pd_json_put_string(w, "name", "tab\there \"quoted\" {\n}");
    pd_json_put_double(w, "third", 1.0 / 3);
    pd_json_put_float(w, "lr", 0.02f);
    pd_json_put_int(w, "big", INT64_MAX);
    pd_json_put_bool(w, "on", true);
    pd_json_put_double(w, "nan", NAN);
    pd_json_put_string(w, "missing", NULL);
    pd_json_begin_object(w, "empty");
    pd_json_end(w);
    pd_json_begin_array(w, "rows");
    pd_json_begin_object(w, NULL);
    pd_json_put_doubles(w, "v", (const double[]){1, 2.5}, 2);
    pd_json_end(w);
    pd_json_put_null(w, NULL);
    pd_json_end(w);
    return w;
}

static void test_writer(void)
{
    pd_err err = PD_ERR_INIT;
    pd_arena *arena = pd_arena_new();
    char *text = NULL;
    PD_CHECK_OK(pd_json_finish(&text, sample(), false, arena, &err));
    PD_CHECK_STR(text, "{\"name\":\"tab\\there \\\"quoted\\\" {\\n}\",\"third\":0.3333333333333333,\"lr\":0.02,"
                       "\"big\":9223372036854775807,\"on\":true,\"nan\":null,\"missing\":null,\"empty\":{},"
                       "\"rows\":[{\"v\":[1,2.5]},null]}");
    PD_CHECK_OK(pd_json_finish(&text, sample(), true, arena, &err));
    PD_CHECK_STR(text, "{\n    \"name\": \"tab\\there \\\"quoted\\\" {\\n}\",\n    \"third\": 0.3333333333333333,\n"
                       "    \"lr\": 0.02,\n    \"big\": 9223372036854775807,\n    \"on\": true,\n    \"nan\": null,\n"
                       "    \"missing\": null,\n    \"empty\": {},\n    \"rows\": [{\n            \"v\": [1, 2.5]\n"
                       "        }, null]\n}");
    pd_json_writer *w = pd_json_object();
    pd_json_put_string(w, "title", "caf\xe9");
    text = NULL;
    PD_CHECK_FAILS(pd_json_finish(&text, w, false, arena, &err), PD_EINVAL, "\"title\": a text that is not UTF-8");
    w = pd_json_array();
    for (int i = 0; i < PD_JSON_DEPTH + 3; i++) pd_json_begin_array(w, NULL);
    PD_CHECK_FAILS(pd_json_finish(&text, w, false, arena, &err), PD_EINVAL, "more than 64");
    w = pd_json_array();
    pd_json_begin_object(w, NULL);
    PD_CHECK_FAILS(pd_json_finish(&text, w, false, arena, &err), PD_EINVAL, "1 objects or arrays");
    pd_json_put_int(NULL, "a", 1);
    PD_CHECK_FAILS(pd_json_finish(&text, NULL, false, arena, &err), PD_ENOMEM, "out of memory");
    PD_CHECK(text == NULL);
    pd_arena_free(arena);
}

static void test_files(void)
{
    pd_err err = PD_ERR_INIT;
    char dir[256], path[300];
    PD_CHECK(pd_test_dir(dir, "json"));
    snprintf(path, sizeof path, "%s/a.json", dir);
    PD_CHECK_OK(pd_json_save(path, sample(), true, &err));
    pd_json_doc *doc = NULL;
    PD_CHECK_OK(pd_json_read(&doc, path, 0, &err));
    double third = 0;
    PD_CHECK_OK(pd_json_get_number(&third, doc, pd_json_root(doc), "third", &err));
    PD_CHECK(third == 1.0 / 3);
    PD_CHECK_STR(pd_json_name(doc), path);
    pd_json_close(doc);
    doc = NULL;
    PD_CHECK_FAILS(pd_json_read(&doc, path, 10, &err), PD_EFORMAT, "more than the 10 allowed");
    unlink(path);
    PD_CHECK_FAILS(pd_json_read(&doc, path, 0, &err), PD_EIO, "a.json: cannot open");
    PD_CHECK_FAILS(pd_json_save("/nonexistent/x.json", sample(), true, &err), PD_EIO, "cannot create");
    PD_CHECK(doc == NULL);
    rmdir(dir);
}

int main(void)
{
    test_syntax();
    test_depth_and_many_keys();
    test_getters();
    test_numbers_read_back();
    test_writer();
    test_files();
    return pd_test_end();
}
