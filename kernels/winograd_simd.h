/* winograd_simd.h: the inner loops of winograd.c for one instruction set. Private to winograd*.c.
 *
 * winograd_avx512.c and winograd_avx2.c define the vector operations (VEC, LANES, LOAD, ...) and include this file with
 * PD_WINO_BODY; winograd.c chooses a table at run time. All channel counts are multiples of 16. A "plane" is the
 * distance in floats between two of the 36 places. */
#ifndef PD_WINOGRAD_SIMD_H
#define PD_WINOGRAD_SIMD_H

#include "kernels/panel_taps.h"

#include <stdbool.h>
#include <stddef.h>

#define PANEL PD_PANEL /* output channels that are computed together */
#define ROWS 8         /* tiles (or channels) that are computed together */

/* Which of the 36 places of a transformed kernel can be non-zero: a 1-wide kernel has none in columns 0 and 5. */
typedef struct wino_form {
    bool tall, wide; /* 3 taps high, 3 taps wide */
} wino_form;

typedef struct wino_isa {
    /* V: 36 pixels (rows of c channels) -> v[place * plane + channel]. */
    void (*input)(const float *const *pixel, size_t c, float *v, size_t plane);
    /* The same for the gradient of 16 outputs. */
    void (*gradient)(const float *const *pixel, size_t c, float *d, size_t plane);
    /* 4 x 4 outputs (rows x cols of them exist) of `lanes` channels from m[place * plane + channel]. bias, residual
     * may be NULL; residual has y's strides. */
    void (*output)(const float *m, size_t plane, wino_form form, float *y, size_t row, size_t pixel, int rows, int cols,
                   int lanes, const float *bias, const float *residual, bool relu);
    /* U of kernels w[k * kstride + tap * tstride + c], k < lanes (16 or 32), c < depth:
     * u[place * plane + c * PANEL + k]. */
    void (*kernel)(const float *w, size_t kstride, size_t tstride, wino_form form, int lanes, size_t depth, float *u,
                   size_t plane);
    /* The same from w[(c * taps + tap) * PANEL + k], k < PANEL: kernels that were turned beforehand. */
    void (*turned)(const float *w, wino_form form, size_t depth, float *u, size_t plane);
    /* U of the flipped kernels with k and c exchanged: w[k * kstride + tap * tstride + c], c < lanes, k < depth:
     * u[place * plane + k * PANEL + c]. */
    void (*flipped)(const float *w, size_t kstride, size_t tstride, wino_form form, int lanes, size_t depth, float *u,
                    size_t plane);
    /* G' u G for `rows` kernels k and `lanes` channels: from u[place * plane + k * PANEL + c]. */
    void (*taps)(const float *u, size_t plane, wino_form form, float *dw, size_t kstride, size_t tstride, size_t rows,
                 int lanes, bool add);
    /* out[r * PANEL + i] = (add ? out : 0) + sum_t a(r, t) b[t * bstride + i], i < PANEL.
     * by_rows: a(r, t) = a[r * astride + t], r < rows = 4 or 8; by_columns: a[t * astride + r], r < ROWS. b may be read
     * up to PANEL floats behind its last row's beginning. */
    void (*by_rows)(const float *a, size_t astride, const float *b, size_t bstride, size_t depth, int rows, float *out,
                    bool add);
    void (*by_columns)(const float *a, size_t astride, const float *b, size_t bstride, size_t depth, float *out,
                       bool add);
    /* out[r * PANEL + i] = (add ? out : 0) + the sum over taps and c < depth of
     * pixel[r][offset[tap] + c] * w[(c * taps + tap) * PANEL + i], for r < rows <= ROWS. */
    void (*by_pixels)(const float *const *pixel, int rows, const size_t *offset, size_t taps, const float *w,
                      size_t depth, float *out, bool add);
    /* Mixes the taps of the walk's next `count` channels: to[(c * taps + tap) * PANEL + k]. */
    void (*mix)(pd_taps_walk *walk, size_t count, float *to);
    /* `mix` and `turned` of the next `count` channels at once. room: for the taps of one channel. */
    void (*mix_turned)(pd_taps_walk *walk, wino_form form, size_t count, float *room, float *u, size_t plane);
} wino_isa;

extern const wino_isa pd_wino_avx512, pd_wino_avx2;

/* The best table for this processor, NULL if there is none. */
const wino_isa *pd_wino_isa(void);

#endif

#ifdef PD_WINO_BODY

/* Interpolation points 0, +-P, +-Q, infinity. */
#define P 0.75f
#define Q 1.5f
#define PP (P * P)
#define QQ (Q * Q)
#define F0 (PP * QQ)            /* product of the other points, at 0 */
#define FP (2 * PP * (PP - QQ)) /* at +-P */
#define FQ (2 * QQ * (QQ - PP)) /* at +-Q */

/* One dimension of B': six values, with the scales of G (1 / F0, 1 / FP, 1 / FQ) as well: a tile is transformed once, a
 * kernel for every few tiles. */
FN void points_in(const VEC d0, const VEC d1, const VEC d2, const VEC d3, const VEC d4, const VEC d5, VEC o[6])
{
    const VEC ev = FMA(SET1(-QQ / FP), d2, MUL(SET1(1 / FP), d4)), od = MUL(SET1(P / FP), FMA(SET1(-QQ), d1, d3));
    const VEC fv = FMA(SET1(-PP / FQ), d2, MUL(SET1(1 / FQ), d4)), pd = MUL(SET1(Q / FQ), FMA(SET1(-PP), d1, d3));
    o[0] = FMA(SET1(1 / F0), d4, FMA(SET1(-(PP + QQ) / F0), d2, d0));
    o[1] = ADD(ev, od);
    o[2] = SUB(ev, od);
    o[3] = ADD(fv, pd);
    o[4] = SUB(fv, pd);
    o[5] = FMA(SET1(F0), d1, FMA(SET1(-(PP + QQ)), d3, d5));
}

/* One dimension of A: four values at six points. */
FN void points_of_four(const VEC z0, const VEC z1, const VEC z2, const VEC z3, VEC o[6])
{
    const VEC ev = FMA(SET1(PP), z2, z0), od = MUL(SET1(P), FMA(SET1(PP), z3, z1));
    const VEC fv = FMA(SET1(QQ), z2, z0), pd = MUL(SET1(Q), FMA(SET1(QQ), z3, z1));
    o[0] = z0;
    o[1] = ADD(ev, od);
    o[2] = SUB(ev, od);
    o[3] = ADD(fv, pd);
    o[4] = SUB(fv, pd);
    o[5] = z3;
}

/* One dimension of A': six products to four values; ends: m0 and m5 are not zero. */
FN void values_out(const VEC m0, const VEC m1, const VEC m2, const VEC m3, const VEC m4, const VEC m5, const bool ends,
                   VEC o[4])
{
    const VEC s = ADD(m1, m2), d = SUB(m1, m2), t = ADD(m3, m4), e = SUB(m3, m4);
    o[0] = ADD(s, t);
    o[1] = FMA(SET1(P), d, MUL(SET1(Q), e));
    o[2] = FMA(SET1(PP), s, MUL(SET1(QQ), t));
    o[3] = FMA(SET1(PP * P), d, MUL(SET1(QQ * Q), e));
    if (ends) {
        o[0] = ADD(o[0], m0);
        o[3] = ADD(o[3], m5);
    }
}

/* One dimension of G without its scales. */
FN void points_of_kernel(const VEC g0, const VEC g1, const VEC g2, VEC o[6])
{
    const VEC ev = FMA(SET1(PP), g2, g0), fv = FMA(SET1(QQ), g2, g0);
    o[0] = g0;
    o[1] = FMA(SET1(P), g1, ev);
    o[2] = FMA(SET1(-P), g1, ev);
    o[3] = FMA(SET1(Q), g1, fv);
    o[4] = FMA(SET1(-Q), g1, fv);
    o[5] = g2;
}

/* One dimension of G' without its scales. */
FN void taps_of_points(const VEC u0, const VEC u1, const VEC u2, const VEC u3, const VEC u4, const VEC u5, VEC o[3])
{
    const VEC s = ADD(u1, u2), t = ADD(u3, u4);
    o[0] = ADD(u0, ADD(s, t));
    o[1] = FMA(SET1(P), SUB(u1, u2), MUL(SET1(Q), SUB(u3, u4)));
    o[2] = ADD(FMA(SET1(PP), s, MUL(SET1(QQ), t)), u5);
}

FN VEC middle_tap(const VEC u1, const VEC u2, const VEC u3, const VEC u4)
{
    return FMA(SET1(P), SUB(u1, u2), MUL(SET1(Q), SUB(u3, u4)));
}

TARGET static void input(const float *const *pixel, size_t c, float *v, size_t plane)
{
    for (size_t i = 0; i < c; i += LANES) {
        VEC t[6][6], o[6];
        UNROLL for (int x = 0; x < 6; x++)
        {
            points_in(LOAD(pixel[x] + i), LOAD(pixel[6 + x] + i), LOAD(pixel[12 + x] + i), LOAD(pixel[18 + x] + i),
                      LOAD(pixel[24 + x] + i), LOAD(pixel[30 + x] + i), o);
            UNROLL for (int y = 0; y < 6; y++) t[y][x] = o[y];
        }
        UNROLL for (int y = 0; y < 6; y++)
        {
            points_in(t[y][0], t[y][1], t[y][2], t[y][3], t[y][4], t[y][5], o);
            UNROLL for (int x = 0; x < 6; x++) STORE(v + (size_t)(6 * y + x) * plane + i, o[x]);
        }
    }
}

TARGET static void gradient(const float *const *pixel, size_t c, float *v, size_t plane)
{
    for (size_t i = 0; i < c; i += LANES) {
        VEC t[6][4], o[6];
        UNROLL for (int x = 0; x < 4; x++)
        {
            points_of_four(LOAD(pixel[x] + i), LOAD(pixel[4 + x] + i), LOAD(pixel[8 + x] + i), LOAD(pixel[12 + x] + i),
                           o);
            UNROLL for (int y = 0; y < 6; y++) t[y][x] = o[y];
        }
        UNROLL for (int y = 0; y < 6; y++)
        {
            points_of_four(t[y][0], t[y][1], t[y][2], t[y][3], o);
            UNROLL for (int x = 0; x < 6; x++) STORE(v + (size_t)(6 * y + x) * plane + i, o[x]);
        }
    }
}

/* The 4 x 4 values of one vector of channels. */
FN void output_values(const float *m, size_t plane, const bool tall, const bool wide, VEC o[4][4])
{
    VEC t[4][6], a[4];
    UNROLL for (int x = 0; x < 6; x++)
    {
        if (!wide && (x == 0 || x == 5)) {
            UNROLL for (int y = 0; y < 4; y++) t[y][x] = SET1(0.f);
            continue;
        }
        const float *at = m + (size_t)x * plane;
        values_out(tall ? LOAD(at) : SET1(0.f), LOAD(at + 6 * plane), LOAD(at + 12 * plane), LOAD(at + 18 * plane),
                   LOAD(at + 24 * plane), tall ? LOAD(at + 30 * plane) : SET1(0.f), tall, a);
        UNROLL for (int y = 0; y < 4; y++) t[y][x] = a[y];
    }
    UNROLL for (int y = 0; y < 4; y++) values_out(t[y][0], t[y][1], t[y][2], t[y][3], t[y][4], t[y][5], wide, o[y]);
}

TARGET static void output(const float *m, size_t plane, wino_form form, float *y, size_t row, size_t pixel, int rows,
                          int cols, int lanes, const float *bias, const float *residual, bool relu)
{
    for (size_t i = 0; i < (size_t)lanes; i += LANES) {
        VEC o[4][4];
        if (form.tall && form.wide)
            output_values(m + i, plane, true, true, o);
        else if (form.tall)
            output_values(m + i, plane, true, false, o);
        else
            output_values(m + i, plane, false, form.wide, o);
        const VEC b = bias ? LOAD(bias + i) : SET1(0.f);
        for (int r = 0; r < rows; r++)
            for (int s = 0; s < cols; s++) {
                const size_t at = (size_t)r * row + (size_t)s * pixel + i;
                VEC v = ADD(o[r][s], b);
                if (residual) v = ADD(v, LOAD(residual + at));
                STORE(y + at, relu ? MAX(v, SET1(0.f)) : v);
            }
    }
}

/* U of one vector of kernels; g: their taps, 3 x 3, 3 x 1 or 1 x 3 in order; flip: turned by 180 degrees. */
FN void kernel_points(const VEC *g, const bool tall, const bool wide, const bool flip, float *u, size_t plane)
{
    VEC t[6][3], o[6];
    const int h = tall ? 3 : 1, w = wide ? 3 : 1, last = h * w - 1;
    const VEC zero = SET1(0.f);
    UNROLL for (int x = 0; x < 3; x++)
    {
        if (!wide && x != 1) continue;
        const int at = wide ? x : 0;
        const VEC up = tall ? g[flip ? last - at : at] : zero;
        const VEC mid = tall ? g[flip ? last - w - at : w + at] : g[flip ? last - at : at];
        const VEC low = tall ? g[flip ? last - 2 * w - at : 2 * w + at] : zero;
        points_of_kernel(up, mid, low, o);
        UNROLL for (int y = 0; y < 6; y++) t[y][x] = o[y];
    }
    UNROLL for (int y = 0; y < 6; y++)
    {
        if (!tall && (y == 0 || y == 5)) continue;
        points_of_kernel(wide ? t[y][0] : zero, t[y][1], wide ? t[y][2] : zero, o);
        UNROLL for (int x = 0; x < 6; x++)
        {
            if (!wide && (x == 0 || x == 5)) continue;
            STORE(u + (size_t)(6 * y + x) * plane, o[x]);
        }
    }
}

/* LANES kernels x LANES channels at a time: taps are transposed, so that a vector holds the kernels of one channel. */
FN void kernel_block(const float *w, size_t kstride, size_t tstride, const bool tall, const bool wide, float *u,
                     size_t plane)
{
    VEC g[LANES][9];
    const int taps = (tall ? 3 : 1) * (wide ? 3 : 1);
    for (int tap = 0; tap < taps; tap++) {
        VEC r[LANES];
        UNROLL for (int k = 0; k < LANES; k++)
        {
            const float *from = w + (size_t)k * kstride + (size_t)tap * tstride;
            __builtin_prefetch(from + 2 * LANES);
            r[k] = LOAD(from);
        }
        TRANSPOSE(r);
        UNROLL for (int c = 0; c < LANES; c++) g[c][tap] = r[c];
    }
    for (int c = 0; c < LANES; c++) kernel_points(g[c], tall, wide, false, u + (size_t)c * PANEL, plane);
}

TARGET static void kernel(const float *w, size_t kstride, size_t tstride, wino_form form, int lanes, size_t depth,
                          float *u, size_t plane)
{
    for (size_t k = 0; k < (size_t)lanes; k += LANES)
        for (size_t c = 0; c < depth; c += LANES) {
            const float *from = w + k * kstride + c;
            float *to = u + c * PANEL + k;
            if (form.tall && form.wide)
                kernel_block(from, kstride, tstride, true, true, to, plane);
            else if (form.tall)
                kernel_block(from, kstride, tstride, true, false, to, plane);
            else
                kernel_block(from, kstride, tstride, false, true, to, plane);
        }
}

#define PREFETCH 4 /* channels ahead */

TARGET static void turned(const float *w, wino_form form, size_t depth, float *u, size_t plane)
{
    const size_t taps = (size_t)((form.tall ? 3 : 1) * (form.wide ? 3 : 1));
    for (size_t c = 0; c < depth; c++)
        for (size_t k = 0; k < PANEL; k += LANES) {
            VEC g[9];
            for (size_t tap = 0; tap < taps; tap++) {
                const float *from = w + (c * taps + tap) * PANEL + k;
                __builtin_prefetch(from + PREFETCH * taps * PANEL); /* they come from memory once in every run */
                g[tap] = LOAD(from);
            }
            float *to = u + c * PANEL + k;
            if (form.tall && form.wide)
                kernel_points(g, true, true, false, to, plane);
            else if (form.tall)
                kernel_points(g, true, false, false, to, plane);
            else
                kernel_points(g, false, true, false, to, plane);
        }
}

TARGET static void flipped(const float *w, size_t kstride, size_t tstride, wino_form form, int lanes, size_t depth,
                           float *u, size_t plane)
{
    const int taps = (form.tall ? 3 : 1) * (form.wide ? 3 : 1);
    for (size_t k = 0; k < depth; k++)
        for (size_t c = 0; c < (size_t)lanes; c += LANES) {
            VEC g[9];
            for (int tap = 0; tap < taps; tap++) {
                const float *from = w + k * kstride + (size_t)tap * tstride + c;
                __builtin_prefetch(from + 3 * kstride);
                g[tap] = LOAD(from);
            }
            float *to = u + k * PANEL + c;
            if (form.tall && form.wide)
                kernel_points(g, true, true, true, to, plane);
            else if (form.tall)
                kernel_points(g, true, false, true, to, plane);
            else
                kernel_points(g, false, true, true, to, plane);
        }
}

FN void put_tap(float *to, VEC v, bool add)
{
    STORE(to, add ? ADD(v, LOAD(to)) : v);
}

FN void taps_vector(const float *u, size_t plane, const bool tall, const bool wide, float *dw, size_t tstride, bool add)
{
    VEC t[3][6], o[3];
    UNROLL for (int x = 0; x < 6; x++)
    {
        if (!wide && (x == 0 || x == 5)) continue;
        const float *at = u + (size_t)x * plane;
        const VEC u1 = LOAD(at + 6 * plane), u2 = LOAD(at + 12 * plane), u3 = LOAD(at + 18 * plane);
        const VEC u4 = LOAD(at + 24 * plane);
        if (tall)
            taps_of_points(LOAD(at), u1, u2, u3, u4, LOAD(at + 30 * plane), o);
        else
            o[0] = middle_tap(u1, u2, u3, u4);
        UNROLL for (int y = 0; y < 3; y++)
        {
            if (tall || y == 0) t[y][x] = o[y];
        }
    }
    UNROLL for (int y = 0; y < 3; y++)
    {
        if (!tall && y > 0) continue;
        if (!wide) {
            put_tap(dw + (size_t)y * tstride, middle_tap(t[y][1], t[y][2], t[y][3], t[y][4]), add);
            continue;
        }
        taps_of_points(t[y][0], t[y][1], t[y][2], t[y][3], t[y][4], t[y][5], o);
        UNROLL for (int x = 0; x < 3; x++) put_tap(dw + (size_t)(3 * y + x) * tstride, o[x], add);
    }
}

TARGET static void taps(const float *u, size_t plane, wino_form form, float *dw, size_t kstride, size_t tstride,
                        size_t rows, int lanes, bool add)
{
    for (size_t k = 0; k < rows; k++)
        for (size_t c = 0; c < (size_t)lanes; c += LANES) {
            const float *from = u + k * PANEL + c;
            float *to = dw + k * kstride + c;
            if (form.tall && form.wide)
                taps_vector(from, plane, true, true, to, tstride, add);
            else if (form.tall)
                taps_vector(from, plane, true, false, to, tstride, add);
            else
                taps_vector(from, plane, false, true, to, tstride, add);
        }
}

#define VECS (PANEL / LANES)

/* `rows` rows of a panel. */
FN void multiply(const float *a, const size_t rstride, const size_t tstride, const float *b, size_t bstride,
                 size_t depth, float *out, bool add, const int rows)
{
    VEC acc[MAC_ROWS][VECS];
    UNROLL for (int r = 0; r < rows; r++)
    {
        UNROLL for (int v = 0; v < VECS; v++) acc[r][v] = add ? LOAD(out + r * PANEL + v * LANES) : SET1(0.f);
    }
    for (size_t t = 0; t < depth; t++) {
        VEC bt[VECS];
        UNROLL for (int v = 0; v < VECS; v++) bt[v] = LOAD(b + v * LANES);
        UNROLL for (int r = 0; r < rows; r++)
        {
            const VEC ar = SET1(a[(size_t)r * rstride]);
            UNROLL for (int v = 0; v < VECS; v++) acc[r][v] = FMA(ar, bt[v], acc[r][v]);
        }
        a += tstride;
        b += bstride;
    }
    UNROLL for (int r = 0; r < rows; r++)
    {
        UNROLL for (int v = 0; v < VECS; v++) STORE(out + r * PANEL + v * LANES, acc[r][v]);
    }
}

TARGET static void by_rows(const float *a, size_t astride, const float *b, size_t bstride, size_t depth, int rows,
                           float *out, bool add)
{
    int r = 0;
    for (; r + MAC_ROWS <= rows; r += MAC_ROWS)
        multiply(a + (size_t)r * astride, astride, 1, b, bstride, depth, out + r * PANEL, add, MAC_ROWS);
    if (MAC_ROWS > 4 && r < rows) /* four rows are just enough to keep the multipliers busy */
        multiply(a + (size_t)r * astride, astride, 1, b, bstride, depth, out + r * PANEL, add, 4);
}

TARGET static void by_columns(const float *a, size_t astride, const float *b, size_t bstride, size_t depth, float *out,
                              bool add)
{
    for (int r = 0; r < ROWS; r += MAC_ROWS)
        multiply(a + r, 1, astride, b, bstride, depth, out + r * PANEL, add, MAC_ROWS);
}

FN void multiply_pixels(const float *const *pixel, const size_t *offset, size_t taps, const float *w, size_t depth,
                        float *out, bool add, const int rows)
{
    const float *a[MAC_ROWS];
    VEC acc[MAC_ROWS][VECS];
    UNROLL for (int r = 0; r < rows; r++)
    {
        a[r] = pixel[r];
        UNROLL for (int v = 0; v < VECS; v++) acc[r][v] = add ? LOAD(out + r * PANEL + v * LANES) : SET1(0.f);
    }
    for (size_t c = 0; c < depth; c++)
        for (size_t tap = 0; tap < taps; tap++, w += PANEL) {
            const size_t at = offset[tap] + c;
            VEC bt[VECS];
            UNROLL for (int v = 0; v < VECS; v++) bt[v] = LOAD(w + v * LANES);
            UNROLL for (int r = 0; r < rows; r++)
            {
                const VEC ar = SET1(a[r][at]);
                UNROLL for (int v = 0; v < VECS; v++) acc[r][v] = FMA(ar, bt[v], acc[r][v]);
            }
        }
    UNROLL for (int r = 0; r < rows; r++)
    {
        UNROLL for (int v = 0; v < VECS; v++) STORE(out + r * PANEL + v * LANES, acc[r][v]);
    }
}

TARGET static void by_pixels(const float *const *pixel, int rows, const size_t *offset, size_t taps, const float *w,
                             size_t depth, float *out, bool add)
{
    for (; rows >= MAC_ROWS; rows -= MAC_ROWS, pixel += MAC_ROWS, out += MAC_ROWS * PANEL)
        multiply_pixels(pixel, offset, taps, w, depth, out, add, MAC_ROWS);
    switch (rows) {
#if MAC_ROWS > 2
    case 7: multiply_pixels(pixel, offset, taps, w, depth, out, add, 7); break;
    case 6: multiply_pixels(pixel, offset, taps, w, depth, out, add, 6); break;
    case 5: multiply_pixels(pixel, offset, taps, w, depth, out, add, 5); break;
    case 4: multiply_pixels(pixel, offset, taps, w, depth, out, add, 4); break;
    case 3: multiply_pixels(pixel, offset, taps, w, depth, out, add, 3); break;
    case 2: multiply_pixels(pixel, offset, taps, w, depth, out, add, 2); break;
#endif
    case 1: multiply_pixels(pixel, offset, taps, w, depth, out, add, 1); break;
    default: break;
    }
}

/* Row n of a part, times its scale and gates, added to sum. */
FN void mix_row(const pd_part *p, size_t n, const bool two, float factor, VECI gates, VEC sum[VECS])
{
    const VEC scale = SET1(p->scale[n] * factor);
    UNROLL for (int v = 0; v < VECS; v++)
    {
        const VECI whole = two ? PAIRS(LOADI(p->value + (n * PANEL + (size_t)v * LANES) * 2), gates)
                               : LOAD_WIDENED(p->value + n * PANEL + (size_t)v * LANES);
        sum[v] = FMA(TO_FLOAT(whole), scale, sum[v]);
    }
}

/* Adds a part's rows of one channel to the taps; returns the row behind them. */
FN size_t mix_rows(const pd_part *p, size_t n, unsigned present, const bool two, float factor, VECI gates, float *to)
{
    for (; present; present &= present - 1) {
        float *row = to + (size_t)__builtin_ctz(present) * PANEL;
        VEC sum[VECS];
        UNROLL for (int v = 0; v < VECS; v++) sum[v] = LOAD(row + v * LANES);
        mix_row(p, n++, two, factor, gates, sum);
        UNROLL for (int v = 0; v < VECS; v++) STORE(row + v * LANES, sum[v]);
    }
    return n;
}

#define CROSS 0xbau /* the taps of 3x1 and 1x3 in a 3x3 kernel */

/* The usual beginning of a channel: all nine taps of a part of two, and the cross of the next part. */
FN bool is_crossed(const pd_taps_walk *walk, size_t channel)
{
    const pd_panel_taps *t = walk->t;
    const pd_part *p = t->part;
    return t->taps == 9 && t->parts > 1 && p[0].second >= 0 && p[1].second < 0 && p[0].present[channel] == 0x1ff &&
           p[1].present[channel] == CROSS;
}

typedef struct crossed {
    const int16_t *pair, *cross;
    float scale[14]; /* with the gates: of the taps of the pair, then of the cross */
} crossed;

FN crossed begin_crossed(pd_taps_walk *walk)
{
    const pd_part *p = walk->t->part;
    crossed x = {p[0].value + walk->at[0] * PANEL * 2, p[1].value + walk->at[1] * PANEL, {0}};
    const float *pair = p[0].scale + walk->at[0], *cross = p[1].scale + walk->at[1];
    for (int i = 0; i < 9; i++) x.scale[i] = pair[i] * walk->factor[0];
    for (int i = 0; i < 5; i++) x.scale[9 + i] = cross[i] * walk->factor[1];
    walk->at[0] += 9;
    walk->at[1] += 5;
    return x;
}

/* Its taps of outputs v .. v + LANES - 1. */
FN void mix_crossed(const crossed *x, VECI gates, size_t v, VEC sum[9])
{
    int n = 0;
    UNROLL for (int tap = 0; tap < 9; tap++)
    {
        const VECI pair = PAIRS(LOADI(x->pair + ((size_t)tap * PANEL + v) * 2), gates);
        sum[tap] = MUL(TO_FLOAT(pair), SET1(x->scale[tap]));
        if (!(CROSS >> tap & 1u)) continue;
        const VECI cross = LOAD_WIDENED(x->cross + (size_t)n * PANEL + v);
        sum[tap] = FMA(TO_FLOAT(cross), SET1(x->scale[9 + n++]), sum[tap]);
    }
}

/* Adds the parts from i on of the walk's channel. */
FN void mix_parts(pd_taps_walk *walk, size_t channel, int i, float *to)
{
    const pd_panel_taps *t = walk->t;
    for (; i < t->parts; i++) {
        const pd_part *p = &t->part[i];
        const VECI gates = SET1I(walk->gates[i]);
        if (p->second < 0)
            walk->at[i] = mix_rows(p, walk->at[i], p->present[channel], false, walk->factor[i], gates, to);
        else
            walk->at[i] = mix_rows(p, walk->at[i], p->present[channel], true, walk->factor[i], gates, to);
    }
}

TARGET static void mix(pd_taps_walk *walk, size_t count, float *to)
{
    const pd_panel_taps *t = walk->t;
    const size_t width = (size_t)t->taps * PANEL;
    for (const size_t end = walk->channel + count; walk->channel < end; walk->channel++, to += width) {
        const size_t channel = walk->panel * (size_t)t->c + walk->channel;
        const bool usual = is_crossed(walk, channel);
        if (usual) {
            const crossed x = begin_crossed(walk);
            for (size_t v = 0; v < PANEL; v += LANES) {
                VEC sum[9];
                mix_crossed(&x, SET1I(walk->gates[0]), v, sum);
                UNROLL for (size_t tap = 0; tap < 9; tap++) STORE(to + tap * PANEL + v, sum[tap]);
            }
        } else {
            for (size_t o = 0; o < width; o += LANES) STORE(to + o, SET1(0.f));
        }
        mix_parts(walk, channel, usual ? 2 : 0, to);
    }
}

/* Adds all nine taps of part 2, outputs v .. v + LANES - 1. */
FN void mix_third(const pd_taps_walk *walk, size_t v, VEC sum[9])
{
    const pd_part *p = &walk->t->part[2];
    const float *scale = p->scale + walk->at[2];
    const int16_t *value = p->value + walk->at[2] * PANEL + v;
    const VEC factor = SET1(walk->factor[2]);
    UNROLL for (size_t tap = 0; tap < 9; tap++)
    {
        const VEC whole = TO_FLOAT(LOAD_WIDENED(value + tap * PANEL));
        sum[tap] = FMA(whole, MUL(SET1(scale[tap]), factor), sum[tap]);
    }
}

TARGET static void mix_turned(pd_taps_walk *walk, wino_form form, size_t count, float *room, float *u, size_t plane)
{
    const pd_panel_taps *t = walk->t;
    const bool three = t->parts == 3 && t->part[2].second < 0;
    for (size_t c = 0; c < count; c++, u += PANEL) {
        const size_t channel = walk->panel * (size_t)t->c + walk->channel;
        const unsigned third = three ? t->part[2].present[channel] : 0;
        if (!is_crossed(walk, channel) || t->parts > 3 || (third && third != 0x1ff)) {
            mix(walk, 1, room);
            turned(room, form, 1, u, plane);
            continue;
        }
        const crossed x = begin_crossed(walk);
        for (size_t v = 0; v < PANEL; v += LANES) {
            VEC sum[9];
            mix_crossed(&x, SET1I(walk->gates[0]), v, sum);
            if (third) mix_third(walk, v, sum);
            kernel_points(sum, true, true, false, u + v, plane);
        }
        if (third) walk->at[2] += 9;
        walk->channel++;
    }
}

#define WINO_TABLE                                                                                                     \
    {                                                                                                                  \
        input, gradient, output, kernel, turned, flipped, taps, by_rows, by_columns, by_pixels, mix, mix_turned        \
    }

#endif
