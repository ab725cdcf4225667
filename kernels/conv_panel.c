#include "kernels/conv_panel.h"
#include "engine/arena.h"
#include "kernels/simd.h"
#include "kernels/winograd_tiles.h"

#include <string.h>

typedef struct work {
    const wino_isa *isa;
    const pd_conv_shape *s;
    const float *x;
    const pd_panel_taps *taps;
    const float *mix;
    float *y;
    pd_wino_after after;
    size_t step;          /* channels whose taps are mixed at a time */
    float *padded;        /* (c / step, h + 2 pad, w + 2 pad, step) */
    size_t width, pixels; /* of a padded row, of all of them */
    size_t offset[16];    /* of a tap, in floats */
    char *local;
    size_t local_bytes;
} work;

bool pd_panel_conv_fits(const pd_conv_shape *s)
{
    return pd_wino_isa() && s->groups == 1 && s->c % 16 == 0 && s->k % 16 == 0 && s->kh * s->kw <= 16 && s->c > 0 &&
           s->k > 0;
}

static size_t align_up(size_t bytes)
{
    return (bytes + PD_ALIGN - 1) / PD_ALIGN * PD_ALIGN;
}

static size_t padded_bytes(const pd_conv_shape *s)
{
    const size_t width = (size_t)(s->w + 2 * s->pad_w), height = (size_t)(s->h + 2 * s->pad_h);
    return align_up(width * height * (size_t)s->c * sizeof(float));
}

/* With few outputs the taps of 16 channels stay in the first cache until they are used; with many, 64 channels at a
 * time let the sums be read and written more rarely. */
static size_t step_of(const pd_conv_shape *s)
{
    return s->oh * s->ow > 64 && s->c % PD_TAPS_CHUNK == 0 ? PD_TAPS_CHUNK : 16;
}

static size_t room_floats(const pd_conv_shape *s)
{
    return step_of(s) * (size_t)(s->kh * s->kw) * PANEL;
}

static size_t local_bytes_of(const pd_conv_shape *s)
{
    return align_up((room_floats(s) + (size_t)s->oh * (size_t)s->ow * PANEL) * sizeof(float)) + PD_ALIGN;
}

size_t pd_panel_conv_scratch(const pd_conv_shape *s, int threads)
{
    return padded_bytes(s) + (size_t)threads * local_bytes_of(s);
}

/* Rows of the input, cut into `step` channels: what is read together lies together. */
static void pad_rows(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const work *a = arg;
    const pd_conv_shape *s = a->s;
    const size_t c = (size_t)s->c, w = (size_t)s->w, left = (size_t)s->pad_w, step = a->step;
    for (size_t i = begin; i < end; i++) {
        const ptrdiff_t y = (ptrdiff_t)i - s->pad_h;
        const bool inside = y >= 0 && y < s->h;
        for (size_t first = 0; first < c; first += step) {
            float *to = a->padded + first * a->pixels + i * a->width * step;
            memset(to, 0, (inside ? left : a->width) * step * sizeof *to);
            if (!inside) continue;
            const float *from = a->x + (size_t)y * w * c + first;
            to += left * step;
            for (size_t x = 0; x < w; x++) memcpy(to + x * step, from + x * c, step * sizeof *to);
            memset(to + w * step, 0, left * step * sizeof *to);
        }
    }
}

/* Adds the products of channels first .. first + step - 1 with all taps, for all outputs: up to eight at a time, in
 * groups of equal size so that none is wasted. Meanwhile the kernels of the chunk that comes next are asked for. */
static void multiply_step(const work *a, const float *w, size_t panel, size_t first, float *m)
{
    const pd_conv_shape *s = a->s;
    const size_t c = (size_t)s->c, ow = (size_t)s->ow, outputs = (size_t)s->oh * ow;
    const size_t stride = (size_t)s->stride * a->step, groups = (outputs + ROWS - 1) / ROWS;
    const size_t chunk = first / PD_TAPS_CHUNK * PD_TAPS_CHUNK, count = wino_least(c - chunk, PD_TAPS_CHUNK);
    const size_t next = (chunk + count) % c, next_panel = panel + (next == 0);
    const float *input = a->padded + first * a->pixels;
    for (size_t g = 0; g < groups; g++) {
        const size_t begin = g * outputs / groups, rows = (g + 1) * outputs / groups - begin;
        const float *pixel[ROWS];
        for (size_t r = 0; r < rows; r++) pixel[r] = input + ((begin + r) / ow * a->width + (begin + r) % ow) * stride;
        if (next_panel < pd_panels(s->k))
            pd_panel_taps_fetch(a->taps, next_panel, (int)next, (int)wino_least(c - next, PD_TAPS_CHUNK),
                                (first - chunk) / a->step * groups + g, count / a->step * groups);
        a->isa->by_pixels(pixel, (int)rows, a->offset, (size_t)(s->kh * s->kw), w, a->step, m + begin * PANEL,
                          first > 0);
    }
}

PD_CLONES static void put_outputs(const work *a, size_t first, const float *m)
{
    const pd_conv_shape *s = a->s;
    const size_t k = (size_t)s->k, lanes = k - first < PANEL ? k - first : PANEL;
    for (size_t p = 0; p < (size_t)s->oh * (size_t)s->ow; p++) {
        const size_t at = p * k + first;
        const float *restrict from = m + p * PANEL;
        float v[PANEL];
        for (size_t i = 0; i < lanes; i++) v[i] = from[i];
        if (a->after.bias)
            for (size_t i = 0; i < lanes; i++) v[i] += a->after.bias[first + i];
        if (a->after.residual)
            for (size_t i = 0; i < lanes; i++) v[i] += a->after.residual[at + i];
        for (size_t i = 0; i < lanes; i++) a->y[at + i] = a->after.relu && !(v[i] > 0) ? 0 : v[i];
    }
}

static void compute_panels(void *arg, size_t begin, size_t end, int thread)
{
    const work *a = arg;
    float *room = (float *)(void *)(a->local + (size_t)thread * a->local_bytes), *m = room + room_floats(a->s);
    for (size_t panel = begin; panel < end; panel++) {
        pd_taps_walk walk = pd_panel_taps_begin(a->taps, a->mix, panel, 0);
        for (size_t c = 0; c < (size_t)a->s->c; c += a->step)
            multiply_step(a, pd_panel_taps_next(&walk, (int)a->step, room), panel, c, m);
        put_outputs(a, panel * PANEL, m);
    }
}

void pd_panel_conv(pd_pool *pool, const pd_conv_shape *s, const float *x, const pd_panel_taps *taps, const float *mix,
                   float *y, const pd_wino_after *after, void *scratch)
{
    work a = {.isa = pd_wino_isa(),
              .s = s,
              .x = x,
              .taps = taps,
              .mix = mix,
              .y = y,
              .after = *after,
              .step = step_of(s),
              .padded = scratch,
              .width = (size_t)(s->w + 2 * s->pad_w),
              .pixels = (size_t)(s->w + 2 * s->pad_w) * (size_t)(s->h + 2 * s->pad_h),
              .local = (char *)scratch + padded_bytes(s),
              .local_bytes = local_bytes_of(s)};
    for (size_t tap = 0; tap < (size_t)(s->kh * s->kw); tap++)
        a.offset[tap] = (tap / (size_t)s->kw * a.width + tap % (size_t)s->kw) * a.step;
    pd_parallel(pool, (size_t)(s->h + 2 * s->pad_h), pad_rows, &a);
    pd_parallel(pool, pd_panels(s->k), compute_panels, &a);
}
