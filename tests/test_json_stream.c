/* The pull reader: numbers to the last bit, strings, structure, skipping, error positions, guessed record starts. */
#include "engine/json_stream.h"
#include "engine/rng.h"
#include "tests/pd_test.h"

#include <ctype.h>

static double bits_to_double(uint64_t bits)
{
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

static uint64_t double_to_bits(double d)
{
    uint64_t bits;
    memcpy(&bits, &d, sizeof bits);
    return bits;
}

/* The number in an exactly sized heap block, so that AddressSanitizer sees a read past the end. */
static size_t read_tight(pd_js_num *out, const char *text)
{
    const size_t n = strlen(text);
    unsigned char *copy = malloc(n ? n : 1);
    memcpy(copy, text, n);
    const size_t used = pd_js_read_number(out, copy, copy + n);
    free(copy);
    return used;
}

static void check_number(const char *text)
{
    pd_js_num got = {0};
    PD_CHECK_MSG(read_tight(&got, text) == strlen(text), "'%s' is not read in full", text);
    const double want = strtod(text, NULL);
    PD_CHECK_MSG(double_to_bits(got.value) == double_to_bits(want) || (got.value == 0 && want == 0 && got.is_integer),
                 "'%s' is %a, expected %a", text, got.value, want);
}

static void test_number_rows(void)
{
    static const char *const rows[] = {
        "0",
        "-0.0",
        "7",
        "-12",
        "0.1",
        "0.3",
        "1e23",
        "9007199254740993",
        "9007199254740992.5",
        "9007199254740993.0",
        "9007199254740995e0",
        "1.7976931348623157e308",
        "1.7976931348623159e308",
        "4.9e-324",
        "2.4703282292062327e-324",
        "2.4703282292062328e-324",
        "2.2250738585072011e-308",
        "2.2250738585072014e-308",
        "1e-400",
        "1e400",
        "-1e999999999999",
        "0e5",
        "0.000000000000000000000000123456789012345678",
        "123456789012345678901234567890",
        "1e-65",
        "1e38",
        "1e39",
        "8.5e-66",
        "18446744073709551615",
        "18446744073709551616",
        "9223372036854775807",
        "-9223372036854775808",
        "0.500000000000000166533453693773481063544750213623046875",
        "3.5E+2",
        "1e5",
        "100000000000000000000000e-23",
        "1.00000000000000011102230246251565404236316680908203125", /* a tie: to even, 1 */
        "1.00000000000000011102230246251565404236316680908203124", /* below it */
        "1.00000000000000011102230246251565404236316680908203126", /* above it */
        "0.69314718055994530941723212145817656",
        "6.02214076e23",
        "5e-1"};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) check_number(rows[i]);
    char longest[1200];
    memset(longest, '0', sizeof longest);
    memcpy(longest, "1.00000000000000011102230246251565404236316680908203125", 55);
    longest[1100] = '1'; /* the tie, decided by a digit far out of reach */
    longest[1101] = 0;
    check_number(longest);

    static const char *const bad[] = {"", "-", "+1", ".5", "nan", "inf", "e5", "-e", "Inf", "-NaN"};
    pd_js_num n = {5, 6, true};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        PD_CHECK_MSG(read_tight(&n, bad[i]) == 0, "'%s' is read as a number", bad[i]);
    static const char *const broken[] = {"01", "-00", "1.", "1.e5", "1e", "1e+", "00.5"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
        PD_CHECK_MSG(read_tight(&n, broken[i]) == 0, "'%s' is read as a number", broken[i]);
    PD_CHECK(n.value == 5 && n.integer == 6);

    PD_CHECK(read_tight(&n, "NaN") == 3 && isnan(n.value) && !n.is_integer);
    PD_CHECK(read_tight(&n, "-Infinity") == 9 && n.value == -INFINITY);
    PD_CHECK(read_tight(&n, "9223372036854775807") && n.is_integer && n.integer == INT64_MAX);
    PD_CHECK(read_tight(&n, "-9223372036854775808") && n.is_integer && n.integer == INT64_MIN);
    PD_CHECK(read_tight(&n, "9223372036854775808") && !n.is_integer);
    PD_CHECK(read_tight(&n, "5.0") && !n.is_integer && n.value == 5);
    PD_CHECK(read_tight(&n, "-17") && n.is_integer && n.integer == -17 && n.value == -17);
}

static void test_number_random(void)
{
    pd_rng r = pd_rng_make(20260101, 0, 0);
    for (int i = 0; i < 200000; i++) {
        const uint64_t bits = (uint64_t)pd_rng_u32(&r) << 32 | pd_rng_u32(&r);
        double d = bits_to_double(bits);
        if (isnan(d) || isinf(d)) continue;
        if (i % 4 == 0) d = (double)(float)pd_rng_double(&r) * 640; /* what detectors print */
        char text[64];
        snprintf(text, sizeof text, "%.*g", 1 + (int)pd_rng_below(&r, 20), d);
        check_number(text);
        snprintf(text, sizeof text, "%s%u.%0*u", i & 1 ? "-" : "", pd_rng_below(&r, 1000), 1 + i % 12, pd_rng_u32(&r));
        check_number(text);
    }
    /* Halfway points between neighbours, written out in full. */
    for (int i = 0; i < 2000; i++) {
        const double d = pd_rng_double(&r) + 0.5;
        char text[128];
        snprintf(text, sizeof text, "%.70Lf", (long double)d + ldexpl(1, -54));
        check_number(text);
    }
}

static pd_js start(const char *text)
{
    pd_js j;
    pd_js_begin(&j, text, strlen(text), "f.json");
    return j;
}

static void test_walk(void)
{
    pd_err err = PD_ERR_INIT;
    pd_js j = start(
        "\xef\xbb\xbf { \"a\" : [1, 2.5 ,\t[ ] , {}],\n\"b\\u0063\\\"\": \"x\\ny\\ud83d\\ude00\\u00e9\", \"c\": true,"
        " \"d\": null, \"big\": {\"k\": [\"]}\\\"\", {\"q\": \"{[\"}]}, \"e\": -3} \n");
    int seen = 0;
    PD_CHECK(pd_js_object(&j));
    for (pd_js_text key; pd_js_key(&j, &key);) {
        seen++;
        if (pd_js_is(key, "a")) {
            double v = 0;
            PD_CHECK(pd_js_array(&j) && pd_js_item(&j) && pd_js_double(&j, &v) && v == 1);
            PD_CHECK(pd_js_item(&j) && pd_js_double(&j, &v) && v == 2.5);
            PD_CHECK(pd_js_item(&j) && pd_js_array(&j) && !pd_js_item(&j));
            PD_CHECK(pd_js_item(&j) && pd_js_peek(&j) == PD_JS_OBJECT && pd_js_object(&j) && !pd_js_key(&j, &key));
            PD_CHECK(!pd_js_item(&j));
        } else if (pd_js_is(key, "bc\"")) {
            pd_js_text s;
            char out[64];
            PD_CHECK(pd_js_string(&j, &s) && s.escaped && s.size < sizeof out);
            out[pd_js_decode(s, out)] = 0;
            PD_CHECK_STR(out, "x\ny\xf0\x9f\x98\x80\xc3\xa9");
        } else if (pd_js_is(key, "c")) {
            bool b = false;
            PD_CHECK(pd_js_bool(&j, &b) && b);
        } else if (pd_js_is(key, "d")) {
            PD_CHECK(pd_js_null(&j));
        } else if (pd_js_is(key, "e")) {
            pd_js_num n;
            PD_CHECK(pd_js_number(&j, &n) && n.is_integer && n.integer == -3);
        } else {
            PD_CHECK(pd_js_is(key, "big") && pd_js_skip(&j));
        }
    }
    PD_CHECK_INT(seen, 6);
    PD_CHECK_OK(pd_js_end(&j, &err));
}

static void test_errors(void)
{
    static const struct {
        const char *text, *message;
    } rows[] = {
        {"", "f.json: line 1, byte 0: expected a value, found the end of the file"},
        {"{\"a\": 1", "byte 7: expected ',' or '}', found the end of the file"},
        {"[1, 2] x", "byte 7: expected the end of the file, found 'x'"},
        {"[1,\n2,\n]", "line 3, byte 7: expected a value, found ']'"},
        {"{\"a\": 1,}", "byte 8: expected a key, found '}'"},
        {"{\"a\" 1}", "byte 5: expected ':', found '1'"},
        {"{a: 1}", "byte 1: expected a key in quotes, found 'a'"},
        {"[1 2]", "byte 3: expected ',' or ']', found '2'"},
        {"[tru]", "byte 1: expected true or false, found 't'"},
        {"[01]", "byte 1: expected a number, found '0'"},
        {"[\"a", "byte 1: this string has no closing quote"},
        {"[\"a\nb\"]", "byte 3: control character 0x0a inside a string"},
        {"[\"\\x\"]", "byte 2: not an escape"},
        {"[\"\\u12g4\"]", "byte 2: not an escape"},
        {"[\"\xc3(\"]", "byte 2: byte 0xc3: the string is not UTF-8"},
        {"[\"\xed\xa0\x80\"]", "not UTF-8"},
        {"[\"\xf5\x80\x80\x80\"]", "not UTF-8"},
        {"[\"\xc0\x80\"]", "not UTF-8"},
        {"[\xff]", "expected a value, found byte 0xff"},
        {"[1}", "expected ',' or ']', found '}'"},
        {"nul", "expected null, found 'n'"},
    };
    pd_err err = PD_ERR_INIT;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        PD_ROW(rows[i].text);
        const size_t n = strlen(rows[i].text);
        char *copy = malloc(n ? n : 1);
        memcpy(copy, rows[i].text, n);
        pd_js j;
        pd_js_begin(&j, copy, n, "f.json");
        pd_js_strict(&j);
        pd_js_skip(&j);
        PD_CHECK_FAILS(pd_js_end(&j, &err), PD_EFORMAT, rows[i].message);
        free(copy);
    }
    PD_ROW("");
    /* Skipping without reading still matches brackets and quotes. */
    static const struct {
        const char *text, *message;
    } loose[] = {
        {"[[1, {\"a\": 2]]", "byte 12: expected '}', found ']'"},
        {"[[1, 2", "byte 0: this '[' is never closed"},
        {"{\"a\": \"b\\", "this string has no closing quote"},
    };
    for (size_t i = 0; i < sizeof loose / sizeof *loose; i++) {
        PD_ROW(loose[i].text);
        pd_js j = start(loose[i].text);
        PD_CHECK(!pd_js_skip(&j));
        PD_CHECK_FAILS(pd_js_end(&j, &err), PD_EFORMAT, loose[i].message);
    }
    PD_ROW("");
    /* Depth. */
    for (int strict = 0; strict < 2; strict++)
        for (int extra = 0; extra < 2; extra++) {
            char deep[2 * PD_JS_DEPTH + 3];
            const int n = PD_JS_DEPTH + extra;
            memset(deep, '[', (size_t)n);
            memset(deep + n, ']', (size_t)n);
            deep[2 * n] = 0;
            pd_js j = start(deep);
            if (strict) pd_js_strict(&j);
            PD_CHECK(pd_js_skip(&j) == !extra);
            PD_CHECK((pd_js_end(&j, &err) == PD_OK) == !extra);
            if (extra) PD_CHECK(strstr(err.text, "nested deeper than 256 levels"));
        }
    /* Sticky: after an error nothing moves, the first message stays. */
    pd_js j = start("[1, x, 3]");
    double v = 9;
    PD_CHECK(pd_js_array(&j) && pd_js_item(&j) && pd_js_double(&j, &v) && pd_js_item(&j));
    PD_CHECK(!pd_js_double(&j, &v) && v == 1 && !pd_js_item(&j) && !pd_js_skip(&j) && !pd_js_object(&j));
    pd_js_fail(&j, 0, "later");
    PD_CHECK_FAILS(pd_js_end(&j, &err), PD_EFORMAT, "f.json: line 1, byte 4: expected a number, found 'x'");
    /* Every prefix of a valid text is an error, and none reads past its end. */
    const char *const whole = "{\"a\":[1.5e3,-2,true,null,\"q\\u00e9\\\\\xc3\xa9\",{\"b\":{}}],\"c\":false}";
    for (size_t n = 0; n <= strlen(whole); n++)
        for (int strict = 0; strict < 2; strict++) {
            char *copy = malloc(n ? n : 1);
            memcpy(copy, whole, n);
            pd_js k;
            pd_js_begin(&k, copy, n, "f.json");
            if (strict) pd_js_strict(&k);
            pd_js_skip(&k);
            PD_CHECK((pd_js_end(&k, &err) == PD_OK) == (n == strlen(whole)));
            free(copy);
        }
}

/* Long strings and gaps, so that the vector loops meet their marks at every position. */
static void test_alignment(void)
{
    pd_err err = PD_ERR_INIT;
    for (size_t pad = 0; pad < 70; pad++)
        for (size_t shift = 0; shift < 17; shift++) {
            char text[256] = "";
            memset(text, ' ', shift);
            snprintf(text + shift, sizeof text - shift, "[[%*s1, \"%.*s\\\"]\"], \"%.*s\xc3\xa9%.*s\"]", (int)pad, "",
                     (int)pad, "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz",
                     (int)pad, "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQRSTUVWXYZ",
                     (int)pad % 20, "01234567890123456789");
            for (int strict = 0; strict < 2; strict++) {
                pd_js j = start(text);
                if (strict) pd_js_strict(&j);
                pd_js_text s = {0};
                PD_CHECK(pd_js_array(&j) && pd_js_item(&j) && pd_js_skip(&j) && pd_js_item(&j));
                PD_CHECK(pd_js_string(&j, &s) && s.size == pad + 2 + pad % 20 && !s.escaped);
                PD_CHECK(!pd_js_item(&j));
                PD_CHECK_OK(pd_js_end(&j, &err));
            }
        }
}

static void test_keys(void)
{
    char text[1024] = "{\"";
    for (int i = 0; i < 64; i++) strcat(text, "\\u0061");
    strcat(text, "\": 1, \"");
    for (int i = 0; i < 65; i++) strcat(text, "\\u0061");
    strcat(text, "\": 2}");
    pd_js j = start(text);
    pd_js_text key = {0};
    double v = 0;
    pd_err err = PD_ERR_INIT;
    PD_CHECK(pd_js_object(&j) && pd_js_key(&j, &key) && key.size == 64 && key.data[63] == 'a' && pd_js_double(&j, &v));
    PD_CHECK(pd_js_key(&j, &key) && key.size == 0 && pd_js_double(&j, &v) && v == 2 && !pd_js_key(&j, &key));
    PD_CHECK_OK(pd_js_end(&j, &err));
}

/* Two readers meet only at true record starts. */
static void test_split(void)
{
    const char *const text = "[{\"s\": \"} , {\", \"v\": 1}, {\"v\": [{\"v\": 7}, {\"v\": 8}]},\n {\"v\": 3}]";
    const size_t size = strlen(text);
    int proven = 0, refuted = 0;
    for (size_t from = 0; from <= size; from++) {
        const size_t guess = pd_js_guess_record(text, size, from);
        PD_CHECK(guess == size || (text[guess] == '{' && guess >= from));
        bool met = false;
        pd_js j = start(text);
        PD_CHECK(pd_js_array(&j));
        size_t records = 0, after = 0;
        while (pd_js_item(&j)) {
            if (pd_js_offset(&j) == guess) met = true;
            records++;
            if (met) after++;
            pd_js_skip(&j);
        }
        PD_CHECK_INT(records, 3);
        if (met) {
            proven++;
            pd_js k;
            pd_js whole = start(text);
            PD_CHECK(pd_js_array(&whole));
            pd_js_begin_item(&k, &whole, guess);
            size_t rest = 0;
            while (pd_js_item(&k)) {
                rest++;
                pd_js_skip(&k);
            }
            pd_err err = PD_ERR_INIT;
            PD_CHECK_OK(pd_js_end(&k, &err));
            PD_CHECK_INT(rest, after);
        } else if (guess < size) {
            refuted++;
        }
    }
    PD_CHECK(proven > 0 && refuted > 0);
}

int main(void)
{
    test_number_rows();
    test_number_random();
    test_walk();
    test_errors();
    test_alignment();
    test_keys();
    test_split();
    return pd_test_end();
}
