#include "engine/json_number.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POW_MIN (-65)
#define POW_MAX 38
#define MAX_DIGITS 800 /* more decide nothing but a tie: 767 digits write the longest halfway point */

/* The top 128 bits of 10^e / 2^e = 5^e, highest bit set; exact up to 5^55, for negative e rounded up. */
static const struct {
    uint64_t hi, lo;
} powers[POW_MAX - POW_MIN + 1] = {
    // clang-format off
    {0x86ccbb52ea94baeau, 0x98e947129fc2b4e9u}, {0xa87fea27a539e9a5u, 0x3f2398d747b36224u},
    {0xd29fe4b18e88640eu, 0x8eec7f0d19a03aadu}, {0x83a3eeeef9153e89u, 0x1953cf68300424acu},
    {0xa48ceaaab75a8e2bu, 0x5fa8c3423c052dd7u}, {0xcdb02555653131b6u, 0x3792f412cb06794du},
    {0x808e17555f3ebf11u, 0xe2bbd88bbee40bd0u}, {0xa0b19d2ab70e6ed6u, 0x5b6aceaeae9d0ec4u},
    {0xc8de047564d20a8bu, 0xf245825a5a445275u}, {0xfb158592be068d2eu, 0xeed6e2f0f0d56712u},
    {0x9ced737bb6c4183du, 0x55464dd69685606bu}, {0xc428d05aa4751e4cu, 0xaa97e14c3c26b886u},
    {0xf53304714d9265dfu, 0xd53dd99f4b3066a8u}, {0x993fe2c6d07b7fabu, 0xe546a8038efe4029u},
    {0xbf8fdb78849a5f96u, 0xde98520472bdd033u}, {0xef73d256a5c0f77cu, 0x963e66858f6d4440u},
    {0x95a8637627989aadu, 0xdde7001379a44aa8u}, {0xbb127c53b17ec159u, 0x5560c018580d5d52u},
    {0xe9d71b689dde71afu, 0xaab8f01e6e10b4a6u}, {0x9226712162ab070du, 0xcab3961304ca70e8u},
    {0xb6b00d69bb55c8d1u, 0x3d607b97c5fd0d22u}, {0xe45c10c42a2b3b05u, 0x8cb89a7db77c506au},
    {0x8eb98a7a9a5b04e3u, 0x77f3608e92adb242u}, {0xb267ed1940f1c61cu, 0x55f038b237591ed3u},
    {0xdf01e85f912e37a3u, 0x6b6c46dec52f6688u}, {0x8b61313bbabce2c6u, 0x2323ac4b3b3da015u},
    {0xae397d8aa96c1b77u, 0xabec975e0a0d081au}, {0xd9c7dced53c72255u, 0x96e7bd358c904a21u},
    {0x881cea14545c7575u, 0x7e50d64177da2e54u}, {0xaa242499697392d2u, 0xdde50bd1d5d0b9e9u},
    {0xd4ad2dbfc3d07787u, 0x955e4ec64b44e864u}, {0x84ec3c97da624ab4u, 0xbd5af13bef0b113eu},
    {0xa6274bbdd0fadd61u, 0xecb1ad8aeacdd58eu}, {0xcfb11ead453994bau, 0x67de18eda5814af2u},
    {0x81ceb32c4b43fcf4u, 0x80eacf948770ced7u}, {0xa2425ff75e14fc31u, 0xa1258379a94d028du},
    {0xcad2f7f5359a3b3eu, 0x096ee45813a04330u}, {0xfd87b5f28300ca0du, 0x8bca9d6e188853fcu},
    {0x9e74d1b791e07e48u, 0x775ea264cf55347eu}, {0xc612062576589ddau, 0x95364afe032a819eu},
    {0xf79687aed3eec551u, 0x3a83ddbd83f52205u}, {0x9abe14cd44753b52u, 0xc4926a9672793543u},
    {0xc16d9a0095928a27u, 0x75b7053c0f178294u}, {0xf1c90080baf72cb1u, 0x5324c68b12dd6339u},
    {0x971da05074da7beeu, 0xd3f6fc16ebca5e04u}, {0xbce5086492111aeau, 0x88f4bb1ca6bcf585u},
    {0xec1e4a7db69561a5u, 0x2b31e9e3d06c32e6u}, {0x9392ee8e921d5d07u, 0x3aff322e62439fd0u},
    {0xb877aa3236a4b449u, 0x09befeb9fad487c3u}, {0xe69594bec44de15bu, 0x4c2ebe687989a9b4u},
    {0x901d7cf73ab0acd9u, 0x0f9d37014bf60a11u}, {0xb424dc35095cd80fu, 0x538484c19ef38c95u},
    {0xe12e13424bb40e13u, 0x2865a5f206b06fbau}, {0x8cbccc096f5088cbu, 0xf93f87b7442e45d4u},
    {0xafebff0bcb24aafeu, 0xf78f69a51539d749u}, {0xdbe6fecebdedd5beu, 0xb573440e5a884d1cu},
    {0x89705f4136b4a597u, 0x31680a88f8953031u}, {0xabcc77118461cefcu, 0xfdc20d2b36ba7c3eu},
    {0xd6bf94d5e57a42bcu, 0x3d32907604691b4du}, {0x8637bd05af6c69b5u, 0xa63f9a49c2c1b110u},
    {0xa7c5ac471b478423u, 0x0fcf80dc33721d54u}, {0xd1b71758e219652bu, 0xd3c36113404ea4a9u},
    {0x83126e978d4fdf3bu, 0x645a1cac083126eau}, {0xa3d70a3d70a3d70au, 0x3d70a3d70a3d70a4u},
    {0xccccccccccccccccu, 0xcccccccccccccccdu}, {0x8000000000000000u, 0x0000000000000000u},
    {0xa000000000000000u, 0x0000000000000000u}, {0xc800000000000000u, 0x0000000000000000u},
    {0xfa00000000000000u, 0x0000000000000000u}, {0x9c40000000000000u, 0x0000000000000000u},
    {0xc350000000000000u, 0x0000000000000000u}, {0xf424000000000000u, 0x0000000000000000u},
    {0x9896800000000000u, 0x0000000000000000u}, {0xbebc200000000000u, 0x0000000000000000u},
    {0xee6b280000000000u, 0x0000000000000000u}, {0x9502f90000000000u, 0x0000000000000000u},
    {0xba43b74000000000u, 0x0000000000000000u}, {0xe8d4a51000000000u, 0x0000000000000000u},
    {0x9184e72a00000000u, 0x0000000000000000u}, {0xb5e620f480000000u, 0x0000000000000000u},
    {0xe35fa931a0000000u, 0x0000000000000000u}, {0x8e1bc9bf04000000u, 0x0000000000000000u},
    {0xb1a2bc2ec5000000u, 0x0000000000000000u}, {0xde0b6b3a76400000u, 0x0000000000000000u},
    {0x8ac7230489e80000u, 0x0000000000000000u}, {0xad78ebc5ac620000u, 0x0000000000000000u},
    {0xd8d726b7177a8000u, 0x0000000000000000u}, {0x878678326eac9000u, 0x0000000000000000u},
    {0xa968163f0a57b400u, 0x0000000000000000u}, {0xd3c21bcecceda100u, 0x0000000000000000u},
    {0x84595161401484a0u, 0x0000000000000000u}, {0xa56fa5b99019a5c8u, 0x0000000000000000u},
    {0xcecb8f27f4200f3au, 0x0000000000000000u}, {0x813f3978f8940984u, 0x4000000000000000u},
    {0xa18f07d736b90be5u, 0x5000000000000000u}, {0xc9f2c9cd04674edeu, 0xa400000000000000u},
    {0xfc6f7c4045812296u, 0x4d00000000000000u}, {0x9dc5ada82b70b59du, 0xf020000000000000u},
    {0xc5371912364ce305u, 0x6c28000000000000u}, {0xf684df56c3e01bc6u, 0xc732000000000000u},
    {0x9a130b963a6c115cu, 0x3c7f400000000000u}, {0xc097ce7bc90715b3u, 0x4b9f100000000000u},
    {0xf0bdc21abb48db20u, 0x1e86d40000000000u}, {0x96769950b50d88f4u, 0x1314448000000000u},
    // clang-format on
};

static const double exact_powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                      1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/* digits * 10^exponent by the C library, in the "C" locale. */
static double by_library(const char *digits, size_t n, long long exponent)
{
    char text[MAX_DIGITS + 32];
    memcpy(text, digits, n);
    snprintf(text + n, sizeof text - n, "e%lld", exponent);
    const locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0); /* glibc hands out a constant: nothing is allocated */
    const double value = c ? strtod_l(text, NULL, c) : strtod(text, NULL);
    if (c) freelocale(c);
    return value;
}

/* mantissa * 10^exponent where 64 by 128 bits decide the rounding; false where they do not. mantissa > 0. */
static bool by_product(double *out, uint64_t mantissa, int exponent)
{
    if (exponent < POW_MIN || exponent > POW_MAX) return false;
    const int shift = __builtin_clzll(mantissa);
    const uint64_t w = mantissa << shift;
    const unsigned __int128 top = (unsigned __int128)w * powers[exponent - POW_MIN].hi;
    const unsigned __int128 low = (unsigned __int128)w * powers[exponent - POW_MIN].lo;
    unsigned __int128 product = top + (low >> 64); /* the upper 128 of 192 bits; the truth is less than 2 away */
    const int zeros = (product >> 127) ? 0 : 1;
    product <<= zeros;
    const uint64_t hi = (uint64_t)(product >> 64), lo = (uint64_t)product;
    const uint64_t rest = hi & 0x7ff;
    /* Not decided: within a few units of a halfway point. */
    if ((rest == 0x400 && lo < 16) || (rest == 0x3ff && lo > UINT64_MAX - 16)) return false;
    uint64_t bits = (hi >> 11) + (rest >> 10);
    int binary = (217706 * exponent >> 16) + 64 - shift - zeros; /* floor(e * log2(10)), and where the top bit stands */
    if (bits >> 53) {
        bits >>= 1;
        binary++;
    }
    const uint64_t word = (bits & ((1ull << 52) - 1)) | ((uint64_t)(binary + 1023) << 52);
    memcpy(out, &word, sizeof word);
    return true;
}

typedef struct {
    char digit[MAX_DIGITS + 1]; /* significant digits, the last one 1 if more that are not all 0 follow */
    size_t n;
} digit_list;

static void keep_digit(digit_list *list, char c, long long *exponent, bool fraction)
{
    if (list->n == 0 && c == '0') {
        if (fraction) --*exponent;
        return;
    }
    if (list->n < MAX_DIGITS) {
        list->digit[list->n++] = c;
        if (fraction) --*exponent;
        return;
    }
    if (c != '0' && list->digit[MAX_DIGITS - 1] == '0') list->digit[MAX_DIGITS - 1] = '1';
    if (!fraction) ++*exponent;
}

/* The careful way: any number of digits. [at, dot) whole part, [dot, stop) fraction without its point. */
static double by_digits(const unsigned char *whole, const unsigned char *whole_end, const unsigned char *fraction,
                        const unsigned char *fraction_end, long long exponent)
{
    digit_list list;
    list.n = 0;
    for (const unsigned char *p = whole; p < whole_end; p++) keep_digit(&list, (char)*p, &exponent, false);
    for (const unsigned char *p = fraction; p < fraction_end; p++) keep_digit(&list, (char)*p, &exponent, true);
    if (list.n == 0) return 0.0;
    return by_library(list.digit, list.n, exponent);
}

static inline bool is_digit(unsigned char c)
{
    return (unsigned)(c - '0') < 10;
}

/* Eight digits at once (after Lemire's "Quickly parsing eight digits"); false where they are not all digits. */
static inline bool eight_digits(uint64_t *m, const unsigned char *p)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    uint64_t v;
    memcpy(&v, p, 8);
    if (((v & 0xf0f0f0f0f0f0f0f0u) | ((v + 0x0606060606060606u) & 0xf0f0f0f0f0f0f0f0u) >> 4) != 0x3333333333333333u)
        return false;
    v = (v & 0x0f0f0f0f0f0f0f0fu) * 2561 >> 8;
    v = (v & 0x00ff00ff00ff00ffu) * 6553601 >> 16;
    v = (v & 0x0000ffff0000ffffu) * 42949672960001u >> 32;
    *m = *m * 100000000 + v;
    return true;
#else
    (void)m;
    (void)p;
    return false;
#endif
}

static inline const unsigned char *read_digits(uint64_t *m, const unsigned char *p, const unsigned char *end)
{
    while (end - p >= 8 && eight_digits(m, p)) p += 8;
    uint64_t v = *m;
    while (p < end && is_digit(*p)) v = v * 10 + (uint64_t)(*p++ - '0');
    *m = v;
    return p;
}

static size_t read_name(pd_js_num *out, const unsigned char *at, const unsigned char *end)
{
    static const struct {
        const char *text;
        double value;
    } names[] = {{"NaN", NAN}, {"Infinity", INFINITY}, {"-Infinity", -INFINITY}};
    for (size_t i = 0; i < 3; i++) {
        const size_t n = strlen(names[i].text);
        if ((size_t)(end - at) < n || memcmp(at, names[i].text, n)) continue;
        *out = (pd_js_num){names[i].value, 0, false};
        return n;
    }
    return 0;
}

/* The exponent part at `at` ("e-7"); false where digits are missing. Beyond +-100000 the value no longer matters. */
static bool read_exponent(long long *exponent, const unsigned char **at, const unsigned char *end)
{
    const unsigned char *p = *at + 1;
    const bool negative = p < end && *p == '-';
    if (p < end && (*p == '-' || *p == '+')) p++;
    if (p >= end || !is_digit(*p)) return false;
    long long e = 0;
    for (; p < end && is_digit(*p); p++)
        if (e < 100000000000LL) e = e * 10 + (*p - '0');
    *exponent = negative ? -e : e;
    *at = p;
    return true;
}

size_t pd_js_read_number(pd_js_num *out, const unsigned char *at, const unsigned char *end)
{
    const unsigned char *p = at;
    if (p >= end) return 0;
    const bool negative = *p == '-';
    p += negative;
    if (p >= end || !is_digit(*p)) return read_name(out, at, end);
    const unsigned char *const whole = p;
    uint64_t m = 0;
    while (p < end && is_digit(*p)) m = m * 10 + (uint64_t)(*p++ - '0');
    const unsigned char *const whole_end = p;
    if (*whole == '0' && whole_end - whole > 1) return 0; /* 012 */
    const bool whole_only = p >= end || (*p != '.' && *p != 'e' && *p != 'E');
    if (whole_only && whole_end - whole <= 18) {
        const int64_t v = negative ? -(int64_t)m : (int64_t)m;
        *out = (pd_js_num){(double)v, v, true};
        return (size_t)(p - at);
    }
    const unsigned char *fraction = p, *fraction_end = p;
    if (p < end && *p == '.') {
        fraction = ++p;
        fraction_end = p = read_digits(&m, p, end);
        if (fraction == fraction_end) return 0; /* "1." */
    }
    long long exponent = 0;
    if (p < end && (*p == 'e' || *p == 'E'))
        if (!read_exponent(&exponent, &p, end)) return 0;

    const long long scale = exponent - (fraction_end - fraction);
    ptrdiff_t digits = (whole_end - whole) + (fraction_end - fraction);
    if (digits > 19) { /* leading zeros do not count: 0.000123 */
        const unsigned char *q = whole;
        while (q < whole_end && *q == '0') q++, digits--;
        if (q == whole_end)
            for (q = fraction; q < fraction_end && *q == '0'; q++) digits--;
    }
    double v;
    if (digits > 19)
        v = by_digits(whole, whole_end, fraction, fraction_end, exponent);
    else if (m == 0)
        v = 0.0;
    else if (m <= 1ull << 53 && scale >= -22 && scale <= 22)
        v = scale < 0 ? (double)m / exact_powers[-scale] : (double)m * exact_powers[scale];
    else if (scale < POW_MIN || scale > POW_MAX || !by_product(&v, m, (int)scale))
        v = by_digits(whole, whole_end, fraction, fraction_end, exponent);
    *out = (pd_js_num){negative ? -v : v, 0, false};
    /* 19 digits may still be an int64_t. */
    if (whole_only && digits <= 19 && m <= (uint64_t)INT64_MAX + negative) {
        out->is_integer = true;
        out->integer = negative ? (int64_t)(0 - m) : (int64_t)m;
    }
    return (size_t)(p - at);
}
