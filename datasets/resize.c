/* The two resizers of transform.h. */
#include "datasets/transform.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The loops over pixels exist twice, for any x86-64 and for AVX2; the sums are the same bit for bit. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__)
#define FOR_ANY_CPU __attribute__((target_clones("avx2", "default")))
#else
#define FOR_ANY_CPU
#endif

void pd_transform_work_free(pd_transform_work *work)
{
    free(work->memory);
    *work = (pd_transform_work){NULL, 0};
}

/* Cuts `count` arrays out of the working memory, each on a multiple of 64 bytes. */
static pd_status carve(pd_transform_work *work, void **arrays[], const size_t bytes[], int count, pd_err *err)
{
    size_t total = 0;
    for (int i = 0; i < count; i++) total += (bytes[i] + 63) & ~(size_t)63;
    if (total > work->room) {
        void *grown = aligned_alloc(64, total);
        if (!grown) return PD_FAIL(err, PD_ENOMEM, "out of memory: %zu bytes to resize an image", total);
        free(work->memory);
        work->memory = grown;
        work->room = total;
    }
    unsigned char *at = work->memory;
    for (int i = 0; i < count; i++) {
        *arrays[i] = at;
        at += (bytes[i] + 63) & ~(size_t)63;
    }
    return PD_OK;
}

/* ---- triangle filter ---- */

/* One axis: output i is the sum over k < count[i] of weight[i * most + k] * pixel[first[i] + k]. */
typedef struct taps {
    int n, most; /* outputs; room per output */
    int *first, *count;
    float *weight;
} taps;

static int taps_most(double size, int n)
{
    const double scale = size / n;
    return 2 * (int)ceil(scale > 1 ? scale : 1) + 2;
}

static double triangle(double x)
{
    x = 1 - fabs(x);
    return x > 0 ? x : 0;
}

/* [begin, begin + size) to n outputs; only pixels in [low, high) count. Pillow's precompute_coeffs. */
static void taps_fill(taps *t, double begin, double size, int low, int high)
{
    const double scale = size / t->n, support = scale > 1 ? scale : 1;
    for (int i = 0; i < t->n; i++) {
        const double center = begin + (i + 0.5) * scale;
        double from = floor(center - support + 0.5), to = floor(center + support + 0.5);
        if (from < low) from = low;
        if (to > high) to = high;
        if (to <= from) { /* a box outside of its bounds: the nearest pixel */
            from = from >= high ? high - 1 : low;
            to = from + 1;
        }
        const int first = (int)from, count = (int)(to - from);
        float *weight = t->weight + (size_t)i * (size_t)t->most;
        double sum = 0;
        for (int k = 0; k < count; k++) sum += triangle((first + k + 0.5 - center) / support);
        for (int k = 0; k < count; k++)
            weight[k] = sum > 0 ? (float)(triangle((first + k + 0.5 - center) / support) / sum) : 1.f / (float)count;
        t->first[i] = first;
        t->count[i] = count;
    }
}

/* row[i] = sum over k of weight[k] * top[k * stride + i], in blocks that stay in registers. */
FOR_ANY_CPU static void sum_rows(float *restrict row, const unsigned char *restrict top, size_t stride, size_t n,
                                 const float *restrict weight, int count)
{
    enum { BLOCK = 32 };
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        float sum[BLOCK] = {0};
        const unsigned char *from = top + i;
        for (int k = 0; k < count; k++, from += stride)
            for (int j = 0; j < BLOCK; j++) sum[j] += weight[k] * (float)from[j];
        for (int j = 0; j < BLOCK; j++) row[i + (size_t)j] = sum[j];
    }
    for (; i < n; i++) {
        float sum = 0;
        for (int k = 0; k < count; k++) sum += weight[k] * (float)top[(size_t)k * stride + i];
        row[i] = sum;
    }
}

typedef float float4 __attribute__((vector_size(16)));

static inline float4 load4(const float *p)
{
    float4 v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* One output row from one row of sums; row[0] is pixel `begin`. The fourth lane is the next pixel's red and is dropped.
 */
static void sum_columns(float *out, const float *row, int begin, const taps *x, bool flip, const pd_normalizer *norm)
{
    const float4 slope = {norm->slope[0], norm->slope[1], norm->slope[2], 0};
    const float4 offset = {norm->offset[0], norm->offset[1], norm->offset[2], 0};
    for (int i = 0; i < x->n; i++, out += 3) {
        const int source = flip ? x->n - 1 - i : i;
        const float *weight = x->weight + (size_t)source * (size_t)x->most;
        const float *from = row + (ptrdiff_t)(x->first[source] - begin) * 3;
        float4 sum = {0};
        for (int k = 0; k < x->count[source]; k++, from += 3) {
            const float w = weight[k];
            sum += (float4){w, w, w, w} * load4(from);
        }
        sum = sum * slope + offset;
        memcpy(out, &sum, 3 * sizeof *out);
    }
}

pd_rect pd_filter_reach(pd_area box, pd_rect bounds, int out_h, int out_w)
{
    const double sx = fmax(1, box.w / out_w) + 1, sy = fmax(1, box.h / out_h) + 1;
    const double x1 = fmax(bounds.x, fmin(bounds.x + bounds.w - 1, floor(box.x - sx)));
    const double y1 = fmax(bounds.y, fmin(bounds.y + bounds.h - 1, floor(box.y - sy)));
    const double x2 = fmax(x1 + 1, fmin(bounds.x + bounds.w, ceil(box.x + box.w + sx)));
    const double y2 = fmax(y1 + 1, fmin(bounds.y + bounds.h, ceil(box.y + box.h + sy)));
    return (pd_rect){(int)x1, (int)y1, (int)(x2 - x1), (int)(y2 - y1)};
}

pd_status pd_resize_triangle(float *out, int out_h, int out_w, const pd_image *image, int at_x, int at_y, pd_area box,
                             pd_rect bounds, bool flip, const pd_normalizer *norm, pd_transform_work *work, pd_err *err)
{
    const pd_rect reach = pd_filter_reach(box, bounds, out_h, out_w);
    if (reach.x < at_x || reach.y < at_y || reach.x + reach.w > at_x + image->w || reach.y + reach.h > at_y + image->h)
        return PD_FAIL(err, PD_EINVAL, "resize reads %dx%d pixels at (%d, %d) of a picture given as %dx%d at (%d, %d)",
                       reach.w, reach.h, reach.x, reach.y, image->w, image->h, at_x, at_y);
    taps x = {.n = out_w, .most = taps_most(box.w, out_w)}, y = {.n = out_h, .most = taps_most(box.h, out_h)};
    float *row = NULL;
    PD_TRY(carve(work,
                 (void **[]){(void **)&x.first, (void **)&x.count, (void **)&x.weight, (void **)&y.first,
                             (void **)&y.count, (void **)&y.weight, (void **)&row},
                 (size_t[]){(size_t)x.n * sizeof(int), (size_t)x.n * sizeof(int),
                            (size_t)x.n * (size_t)x.most * sizeof(float), (size_t)y.n * sizeof(int),
                            (size_t)y.n * sizeof(int), (size_t)y.n * (size_t)y.most * sizeof(float),
                            ((size_t)reach.w * 3 + 1) * sizeof(float)},
                 7, err));
    taps_fill(&x, box.x, box.w, bounds.x, bounds.x + bounds.w);
    taps_fill(&y, box.y, box.h, bounds.y, bounds.y + bounds.h);
    const size_t stride = (size_t)image->w * 3;
    row[(size_t)reach.w * 3] = 0;
    for (int i = 0; i < out_h; i++) {
        const unsigned char *top = image->rgb + (size_t)(y.first[i] - at_y) * stride + (size_t)(reach.x - at_x) * 3;
        sum_rows(row, top, stride, (size_t)reach.w * 3, y.weight + (size_t)i * (size_t)y.most, y.count[i]);
        sum_columns(out + (size_t)i * (size_t)out_w * 3, row, reach.x, &x, flip, norm);
    }
    return PD_OK;
}

/* ---- OpenCV's bilinear ---- */

/* Both scales are exactly 2: the mean of 2x2. */
static void halve(pd_image *out, const pd_image *image)
{
    const size_t stride = (size_t)image->w * 3;
    for (int y = 0; y < out->h; y++) {
        const unsigned char *a = image->rgb + (size_t)y * 2 * stride, *b = a + stride;
        unsigned char *to = out->rgb + (size_t)y * (size_t)out->w * 3;
        for (int x = 0; x < out->w; x++, a += 6, b += 6, to += 3)
            for (int c = 0; c < 3; c++) to[c] = (unsigned char)((a[c] + a[c + 3] + b[c] + b[c + 3] + 2) >> 2);
    }
}

/* Where output i of an axis falls: the pixel left of it and the fraction on the way to the next, in float32. */
static float source_position(int i, double scale, int *pixel)
{
    const float f = (float)((i + 0.5) * scale - 0.5);
    *pixel = (int)floorf(f);
    return f - (float)*pixel;
}

static void fixed_weights(float fraction, int16_t weight[2])
{
    weight[0] = (int16_t)lrintf((1.f - fraction) * 2048);
    weight[1] = (int16_t)lrintf(fraction * 2048);
}

typedef struct column {
    int32_t left, right; /* byte offsets of the two pixels */
    int16_t weight[2];
} column;

/* A source row stretched to the new width, in units of 1/128: fits 15 bits. */
static void stretch(int16_t *out, const unsigned char *row, const column *columns, int n)
{
    for (int x = 0; x < n; x++, out += 3) {
        const unsigned char *a = row + columns[x].left, *b = row + columns[x].right;
        const int u = columns[x].weight[0], v = columns[x].weight[1];
        for (int c = 0; c < 3; c++) out[c] = (int16_t)((a[c] * u + b[c] * v) >> 4);
    }
}

FOR_ANY_CPU static void blend(unsigned char *restrict out, const int16_t *restrict a, const int16_t *restrict b,
                              int16_t u, int16_t v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const int16_t p = (int16_t)((a[i] * u) >> 16), q = (int16_t)((b[i] * v) >> 16);
        out[i] = (unsigned char)((p + q + 2) >> 2);
    }
}

static int clamp_row(int y, int h)
{
    return y < 0 ? 0 : y > h - 1 ? h - 1 : y;
}

pd_status pd_resize_opencv(pd_image *out, int out_h, int out_w, const pd_image *image, pd_transform_work *work,
                           pd_err *err)
{
    PD_TRY(pd_image_size(out, out_h, out_w, err));
    const size_t n = (size_t)out_w * 3, stride = (size_t)image->w * 3;
    if (out_h == image->h && out_w == image->w) {
        memcpy(out->rgb, image->rgb, n * (size_t)out_h);
        return PD_OK;
    }
    if (image->h == 2 * out_h && image->w == 2 * out_w) {
        halve(out, image);
        return PD_OK;
    }
    column *columns = NULL;
    int16_t *rows[2] = {NULL, NULL};
    PD_TRY(carve(work, (void **[]){(void **)&columns, (void **)&rows[0], (void **)&rows[1]},
                 (size_t[]){(size_t)out_w * sizeof *columns, n * sizeof(int16_t), n * sizeof(int16_t)}, 3, err));
    const double scale_x = 1.0 / ((double)out_w / image->w), scale_y = 1.0 / ((double)out_h / image->h);
    for (int x = 0; x < out_w; x++) {
        int left;
        float fraction = source_position(x, scale_x, &left);
        if (left < 0) left = 0, fraction = 0;
        if (left >= image->w - 1) left = image->w - 1, fraction = 0;
        fixed_weights(fraction, columns[x].weight);
        columns[x].left = left * 3;
        columns[x].right = left < image->w - 1 ? left * 3 + 3 : left * 3;
    }
    int held[2] = {-1, -1}; /* which source rows the two stretched rows are */
    for (int y = 0; y < out_h; y++) {
        int top;
        int16_t weight[2];
        fixed_weights(source_position(y, scale_y, &top), weight);
        const int want[2] = {clamp_row(top, image->h), clamp_row(top + 1, image->h)};
        if (held[1] == want[0] && held[0] != want[0]) { /* one row down: the lower becomes the upper */
            int16_t *t = rows[0];
            rows[0] = rows[1];
            rows[1] = t;
            held[1] = held[0];
            held[0] = want[0];
        }
        for (int i = 0; i < 2; i++)
            if (held[i] != want[i]) {
                stretch(rows[i], image->rgb + (size_t)want[i] * stride, columns, out_w);
                held[i] = want[i];
            }
        blend(out->rgb + (size_t)y * n, rows[0], rows[1], weight[0], weight[1], n);
    }
    return PD_OK;
}
