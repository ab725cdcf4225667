#include "eval/boundary.h"

#include <math.h>
#include <stdlib.h>

void pd_boundary_work_free(pd_boundary_work *work)
{
    free(work->pixels);
    free(work->inner);
    free(work->streak);
}

/* The mask's box as bytes, column by column. */
static void draw(unsigned char *pixels, const pd_mask *mask)
{
    const uint32_t x0 = mask->box[0], y0 = mask->box[1], w = mask->box[2], h = mask->box[3];
    memset(pixels, 0, (size_t)w * h);
    for (uint32_t j = 1; j < mask->n; j += 2) {
        for (uint32_t at = mask->ends[j - 1]; at < mask->ends[j];) {
            const uint32_t x = at / mask->h, y = at % mask->h, left = mask->ends[j] - at;
            const uint32_t length = left < mask->h - y ? left : mask->h - y;
            memset(pixels + (size_t)(x - x0) * h + (y - y0), 1, length);
            at += length;
        }
    }
}

/* inner: pixels whose whole column neighbourhood y - d .. y + d is set. */
static void erode_columns(unsigned char *inner, const unsigned char *pixels, uint32_t w, uint32_t h, uint32_t d)
{
    memset(inner, 0, (size_t)w * h);
    for (size_t x = 0; x < w; x++) {
        const unsigned char *const column = pixels + x * h;
        for (uint32_t y = 0, begin = 0; y <= h; y++) {
            if (y < h && column[y]) continue;
            if (y - begin > 2 * d) memset(inner + x * h + begin + d, 1, y - begin - 2 * d);
            begin = y + 1;
        }
    }
}

/* Takes out of pixels what is set in inner for all of x - d .. x + d. */
static void subtract_rows(unsigned char *pixels, const unsigned char *inner, uint32_t *streak, uint32_t w, uint32_t h,
                          uint32_t d)
{
    memset(streak, 0, h * sizeof *streak);
    for (size_t x = 0; x < w; x++)
        for (size_t y = 0; y < h; y++) {
            streak[y] = inner[x * h + y] ? streak[y] + 1 : 0;
            if (streak[y] > 2 * d) pixels[(x - d) * h + y] = 0;
        }
}

/* Pixels of the box -> runs of the whole image. */
static pd_status read_runs(pd_mask *out, size_t *capacity, const unsigned char *pixels, const uint32_t box[4],
                           pd_err *err)
{
    uint32_t n = 0, area = 0;
    bool before = false;
    for (uint32_t x = 0; x < box[2]; x++) {
        for (uint32_t y = 0; y <= box[3]; y++) {
            /* Behind the column's end nothing is set, unless the column is the whole height of the image. */
            if (y == box[3] && box[3] == out->h) break;
            const bool now = y < box[3] && pixels[(size_t)x * box[3] + y];
            area += now;
            if (now == before) continue;
            PD_TRY(pd_grow(&out->ends, capacity, (size_t)n + 2, sizeof *out->ends, err));
            out->ends[n++] = (box[0] + x) * out->h + box[1] + y;
            before = now;
        }
    }
    PD_TRY(pd_grow(&out->ends, capacity, (size_t)n + 1, sizeof *out->ends, err));
    out->ends[n++] = before ? (box[0] + box[2]) * out->h : out->w * out->h;
    out->n = n;
    out->area = area;
    return PD_OK;
}

pd_status pd_mask_boundary(pd_mask *out, size_t *capacity, const pd_mask *mask, double ratio, pd_boundary_work *work,
                           pd_err *err)
{
    const uint32_t w = mask->box[2], h = mask->box[3];
    const double diagonal = sqrt((double)mask->h * mask->h + (double)mask->w * mask->w);
    const double distance = fmin(fmax(rint(ratio * diagonal), 1), 1e6); /* Python rounds half to even too */
    const uint32_t d = (uint32_t)distance;
    PD_TRY(pd_grow(&work->pixels, &work->pixels_capacity, (size_t)w * h + 1, 1, err));
    PD_TRY(pd_grow(&work->inner, &work->inner_capacity, (size_t)w * h + 1, 1, err));
    PD_TRY(pd_grow(&work->streak, &work->streak_capacity, (size_t)h + 1, sizeof *work->streak, err));
    draw(work->pixels, mask);
    erode_columns(work->inner, work->pixels, w, h, d);
    subtract_rows(work->pixels, work->inner, work->streak, w, h, d);
    out->h = mask->h;
    out->w = mask->w;
    memcpy(out->box, mask->box, sizeof out->box); /* the outline is always part of it */
    out->empty_runs = false;
    return read_runs(out, capacity, work->pixels, mask->box, err);
}
