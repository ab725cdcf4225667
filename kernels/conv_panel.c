#include "kernels/conv_panel.h"
#include "engine/arena.h"
#include "kernels/simd.h"
#include "kernels/winograd_simd.h"

#include <string.h>

typedef struct work {
    const wino_isa *isa;
    const pd_conv_shape *s;
    const float *x;
    const pd_panel_taps *taps;
    const float *mix;
    float *y;
    pd_wino_after after;
    float *padded; /* (h + 2 pad, w + 2 pad, c), and some more behind it: rows are computed four or eight at a time */
    size_t width, row_tiles; /* pixels of a padded row; outputs of a row, rounded up to what is computed */
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
    return align_up((width * height + (size_t)(ROWS * s->stride)) * (size_t)s->c * sizeof(float));
}

static size_t row_tiles_of(const pd_conv_shape *s)
{
    return ((size_t)s->ow + 3) / 4 * 4;
}

static size_t room_floats(const pd_conv_shape *s)
{
    return (size_t)(PD_TAPS_CHUNK * s->kh * s->kw * PANEL);
}

static size_t local_bytes_of(const pd_conv_shape *s)
{
    return align_up((room_floats(s) + ((size_t)s->oh * row_tiles_of(s) + ROWS) * PANEL) * sizeof(float)) + PD_ALIGN;
}

size_t pd_panel_conv_scratch(const pd_conv_shape *s, int threads)
{
    return padded_bytes(s) + (size_t)threads * local_bytes_of(s);
}

static void pad_rows(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const work *a = arg;
    const pd_conv_shape *s = a->s;
    const size_t c = (size_t)s->c, row = a->width * c, left = (size_t)s->pad_w * c, inner = (size_t)s->w * c;
    for (size_t i = begin; i < end; i++) {
        float *to = a->padded + i * row;
        const ptrdiff_t y = (ptrdiff_t)i - s->pad_h;
        memset(to, 0, row * sizeof *to);
        if (y >= 0 && y < s->h) memcpy(to + left, a->x + (size_t)y * inner, inner * sizeof *to);
    }
}

/* Products of one chunk of channels with all taps, for all outputs. Meanwhile the kernels of the chunk that comes next
 * are asked for. */
static void multiply_chunk(const work *a, const float *w, size_t panel, size_t first, size_t count, float *m)
{
    const pd_conv_shape *s = a->s;
    const size_t taps = (size_t)(s->kh * s->kw), c = (size_t)s->c, step = (size_t)s->stride * c;
    const bool last = first + count >= c;
    const size_t next = last ? 0 : first + count, steps = taps * (size_t)s->oh;
    const size_t rest_of_next = c - next < PD_TAPS_CHUNK ? c - next : PD_TAPS_CHUNK;
    for (size_t tap = 0; tap < taps; tap++) {
        const size_t r = tap / (size_t)s->kw, q = tap % (size_t)s->kw;
        for (size_t oy = 0; oy < (size_t)s->oh; oy++) {
            if (!last || panel + 1 < pd_panels(s->k))
                pd_panel_taps_fetch(a->taps, panel + last, (int)next, (int)rest_of_next, tap * (size_t)s->oh + oy,
                                    steps);
            for (size_t ox = 0; ox < a->row_tiles; ox += ROWS) {
                const size_t rest = a->row_tiles - ox, rows = rest < ROWS ? rest : ROWS;
                const float *from =
                    a->padded + ((oy * (size_t)s->stride + r) * a->width + ox * (size_t)s->stride + q) * c + first;
                a->isa->by_rows(from, step, w + tap * PANEL, taps * PANEL, count, (int)rows,
                                m + (oy * a->row_tiles + ox) * PANEL, first + tap > 0);
            }
        }
    }
}

PD_CLONES static void put_outputs(const work *a, size_t first, const float *m)
{
    const pd_conv_shape *s = a->s;
    const size_t k = (size_t)s->k, lanes = k - first < PANEL ? k - first : PANEL;
    for (size_t oy = 0; oy < (size_t)s->oh; oy++)
        for (size_t ox = 0; ox < (size_t)s->ow; ox++) {
            const size_t at = (oy * (size_t)s->ow + ox) * k + first;
            const float *restrict from = m + (oy * a->row_tiles + ox) * PANEL;
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
        for (int c = 0; c < a->s->c; c += PD_TAPS_CHUNK) {
            const int count = a->s->c - c < PD_TAPS_CHUNK ? a->s->c - c : PD_TAPS_CHUNK;
            multiply_chunk(a, pd_panel_taps_next(&walk, count, room), panel, (size_t)c, (size_t)count, m);
        }
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
              .padded = scratch,
              .width = (size_t)(s->w + 2 * s->pad_w),
              .row_tiles = row_tiles_of(s),
              .local = (char *)scratch + padded_bytes(s),
              .local_bytes = local_bytes_of(s)};
    const size_t height = (size_t)(s->h + 2 * s->pad_h), pixels = a.width * (size_t)s->c;
    memset(a.padded + height * pixels, 0, (size_t)(ROWS * s->stride * s->c) * sizeof *a.padded);
    pd_parallel(pool, height, pad_rows, &a);
    pd_parallel(pool, pd_panels(s->k), compute_panels, &a);
}
