#include "kernels/panel_taps.h"
#include "engine/arena.h"
#include "kernels/simd.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define HALF (PD_PANEL / 2) /* weights that share a scale */

static size_t chunks_of(const pd_panel_taps *t)
{
    return ((size_t)t->c + PD_TAPS_CHUNK - 1) / PD_TAPS_CHUNK;
}

static size_t channel_floats(const pd_panel_taps *t)
{
    return (size_t)t->taps * PD_PANEL;
}

static void free_part(pd_part *p)
{
    free(p->present);
    free(p->start);
    free(p->scale);
    free(p->value);
    *p = (pd_part){0};
}

void pd_panel_taps_free(pd_panel_taps *t)
{
    for (int i = 0; i < PD_MIX_MAX - 1; i++) free_part(&t->more[i]);
    if (t->first) t->device->release(t->device, t->first);
    *t = (pd_panel_taps){0};
}

pd_status pd_panel_taps_init(pd_panel_taps *t, pd_device *device, int g, int k, int c, int taps, pd_err *err)
{
    *t = (pd_panel_taps){.device = device, .g = g, .k = k, .c = c, .taps = taps};
    const size_t bytes = pd_panels(k) * (size_t)c * channel_floats(t) * sizeof(float);
    return device->alloc(device, (void **)&t->first, bytes, err);
}

/* One kernel (k, taps, c) into the order of panels. */
typedef struct turning {
    const pd_panel_taps *t;
    const float *w;
    float *to;
} turning;

static void turn_panels(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const turning *a = arg;
    const size_t c = (size_t)a->t->c, taps = (size_t)a->t->taps;
    for (size_t p = begin; p < end; p++) {
        float *to = a->to + p * c * channel_floats(a->t);
        for (size_t o = 0; o < PD_PANEL; o++) {
            const size_t k = p * PD_PANEL + o;
            for (size_t i = 0; i < c * taps; i++) {
                const size_t channel = i % c, tap = i / c;
                to[(channel * taps + tap) * PD_PANEL + o] = k < (size_t)a->t->k ? a->w[k * taps * c + i] : 0;
            }
        }
    }
}

static bool all_zero(const float *v)
{
    for (int i = 0; i < PD_PANEL; i++)
        if (v[i] != 0) return false;
    return true;
}

static pd_status make_part(pd_part *p, const pd_panel_taps *t, const float *turned, pd_err *err)
{
    const size_t panels = pd_panels(t->k), c = (size_t)t->c, taps = (size_t)t->taps, rows = panels * c * taps;
    size_t used = 0, n = 0;
    for (size_t i = 0; i < rows; i++) used += !all_zero(turned + i * PD_PANEL);
    p->present = calloc(panels * c, sizeof *p->present);
    p->start = calloc(panels * chunks_of(t), sizeof *p->start);
    p->scale = malloc((used + 1) * 2 * sizeof *p->scale);
    p->value = aligned_alloc(PD_ALIGN, (used + 1) * PD_PANEL * sizeof *p->value);
    if (!p->present || !p->start || !p->scale || !p->value)
        return PD_FAIL(err, PD_ENOMEM, "out of memory for kernels to mix");
    for (size_t i = 0; i < rows; i++) {
        const size_t channel = i / taps % c, panel = i / taps / c;
        const float *from = turned + i * PD_PANEL;
        if (i % taps == 0 && channel % PD_TAPS_CHUNK == 0)
            p->start[panel * chunks_of(t) + channel / PD_TAPS_CHUNK] = (uint32_t)n;
        if (all_zero(from)) continue;
        p->present[panel * c + channel] |= (uint16_t)(1u << i % taps);
        for (int h = 0; h < 2; h++) {
            float top = 0;
            for (int o = h * HALF; o < (h + 1) * HALF; o++) top = fmaxf(top, fabsf(from[o]));
            p->scale[2 * n + (size_t)h] = top / 32767;
            for (int o = h * HALF; o < (h + 1) * HALF; o++)
                p->value[n * PD_PANEL + (size_t)o] = (int16_t)(top > 0 ? lrintf(from[o] / top * 32767) : 0);
        }
        n++;
    }
    return PD_OK;
}

pd_status pd_panel_taps_set(pd_panel_taps *t, const float *w, pd_err *err)
{
    const size_t count = (size_t)t->k * (size_t)t->taps * (size_t)t->c;
    turning a = {t, w, t->first};
    pd_status status = PD_OK;
    pd_parallel(t->device->pool, pd_panels(t->k), turn_panels, &a);
    if (t->g == 1) return PD_OK;
    PD_TRY(t->device->alloc(t->device, (void **)&a.to,
                            pd_panels(t->k) * (size_t)t->c * channel_floats(t) * sizeof(float), err));
    for (int i = 1; i < t->g && status == PD_OK; i++) {
        a.w = w + (size_t)i * count;
        pd_parallel(t->device->pool, pd_panels(t->k), turn_panels, &a);
        free_part(&t->more[i - 1]);
        status = make_part(&t->more[i - 1], t, a.to, err);
    }
    t->device->release(t->device, a.to);
    return status;
}

/* Adds a * part to the taps of one channel; returns how many rows of values were used. */
PD_INLINE size_t add_part(float *restrict to, const float *restrict scale, const int16_t *restrict value,
                          unsigned present, float a)
{
    size_t n = 0;
    for (; present; present &= present - 1, n++) {
        float *restrict v = to + (size_t)__builtin_ctz(present) * PD_PANEL;
        const float low = a * scale[2 * n], high = a * scale[2 * n + 1];
        const int16_t *restrict from = value + n * PD_PANEL;
        for (int o = 0; o < HALF; o++) v[o] += low * (float)from[o];
        for (int o = HALF; o < PD_PANEL; o++) v[o] += high * (float)from[o];
    }
    return n;
}

PD_CLONES static void mix_channels(const pd_panel_taps *t, const float *mix, size_t panel, size_t first, size_t count,
                                   float *room)
{
    const size_t width = channel_floats(t), c = (size_t)t->c;
    const float *from = t->first + (panel * c + first) * width, a = mix[0];
    size_t at[PD_MIX_MAX - 1];
    for (int i = 0; i + 1 < t->g; i++) at[i] = t->more[i].start[panel * chunks_of(t) + first / PD_TAPS_CHUNK];
    for (size_t k = 0; k < count; k++, room += width, from += width) {
        for (size_t i = 0; i < width; i++) room[i] = a * from[i];
        for (int i = 0; i + 1 < t->g; i++) {
            const pd_part *p = &t->more[i];
            at[i] += add_part(room, p->scale + 2 * at[i], p->value + at[i] * PD_PANEL,
                              p->present[panel * c + first + k], mix[i + 1]);
        }
    }
}

const float *pd_panel_taps_get(const pd_panel_taps *t, const float *mix, size_t panel, int first, int count,
                               float *room)
{
    if (!mix) return t->first + (panel * (size_t)t->c + (size_t)first) * channel_floats(t);
    mix_channels(t, mix, panel, (size_t)first, (size_t)count, room);
    return room;
}
