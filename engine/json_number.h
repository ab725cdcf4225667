/* json_number.h: decimal text to double, exactly.
 *
 * Reading: the JSON number at the start of [at, end) becomes the double nearest to it (ties to even), as in C's strtod
 * and Python's float, whatever the locale. Method: up to 19 digits as an integer times a 128-bit power of ten (after
 * Lemire 2021, "Number Parsing at a Gigabyte per Second"); where the product does not decide, the C library does.
 * Thread rule: pure functions. */
#ifndef PD_JSON_NUMBER_H
#define PD_JSON_NUMBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pd_js_num {
    double value;
    int64_t integer; /* the value where is_integer */
    bool is_integer; /* written without '.' and exponent, and within int64_t */
} pd_js_num;

/* Reads the number at `at` (JSON's grammar; also NaN, Infinity and -Infinity as Python writes them). Returns its length
 * in bytes, or 0 where there is none; *out is then untouched. What follows the number is not looked at. */
size_t pd_js_read_number(pd_js_num *out, const unsigned char *at, const unsigned char *end);

#endif
