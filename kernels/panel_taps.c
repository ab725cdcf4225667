#include "kernels/panel_taps.h"
#include "engine/arena.h"
#include "kernels/simd.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static size_t chunks_of(const pd_panel_taps *t)
{
    return ((size_t)t->c + PD_TAPS_CHUNK - 1) / PD_TAPS_CHUNK;
}

static size_t channel_floats(const pd_panel_taps *t)
{
    return (size_t)t->taps * PD_PANEL;
}

static void free_part(pd_device *device, pd_part *p)
{
    free(p->present);
    free(p->start);
    if (p->scale) device->release(device, p->scale);
    if (p->value) device->release(device, p->value);
    *p = (pd_part){0};
}

void pd_panel_taps_free(pd_panel_taps *t)
{
    for (int i = 0; i < PD_MIX_MAX; i++) free_part(t->device, &t->part[i]);
    if (t->single) t->device->release(t->device, t->single);
    *t = (pd_panel_taps){0};
}

static size_t turned_bytes(const pd_panel_taps *t)
{
    return pd_panels(t->k) * (size_t)t->c * channel_floats(t) * sizeof(float);
}

pd_status pd_panel_taps_init(pd_panel_taps *t, pd_device *device, int g, int k, int c, int taps, pd_err *err)
{
    *t = (pd_panel_taps){.device = device, .g = g, .k = k, .c = c, .taps = taps};
    return g == 1 ? device->alloc(device, (void **)&t->single, turned_bytes(t), err) : PD_OK;
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
    p->start = calloc(panels * chunks_of(t) + 1, sizeof *p->start);
    if (!p->present || !p->start) return PD_FAIL(err, PD_ENOMEM, "out of memory for kernels to mix");
    PD_TRY(t->device->alloc(t->device, (void **)&p->scale, (used + 1) * sizeof *p->scale, err));
    PD_TRY(t->device->alloc(t->device, (void **)&p->value, (used + 1) * PD_PANEL * sizeof *p->value, err));
    for (size_t i = 0; i < rows; i++) {
        const size_t channel = i / taps % c, panel = i / taps / c;
        const float *from = turned + i * PD_PANEL;
        if (i % taps == 0 && channel % PD_TAPS_CHUNK == 0)
            p->start[panel * chunks_of(t) + channel / PD_TAPS_CHUNK] = (uint32_t)n;
        if (all_zero(from)) continue;
        p->present[panel * c + channel] |= (uint16_t)(1u << i % taps);
        float top = 0;
        for (int o = 0; o < PD_PANEL; o++) top = fmaxf(top, fabsf(from[o]));
        p->scale[n] = top / 32767;
        for (size_t o = 0; o < PD_PANEL; o++) p->value[n * PD_PANEL + o] = (int16_t)lrintf(from[o] / top * 32767);
        n++;
    }
    p->start[panels * chunks_of(t)] = (uint32_t)n;
    return PD_OK;
}

pd_status pd_panel_taps_set(pd_panel_taps *t, const float *w, pd_err *err)
{
    const size_t count = (size_t)t->k * (size_t)t->taps * (size_t)t->c;
    turning a = {t, w, t->single};
    pd_status status = PD_OK;
    if (t->g > 1) PD_TRY(t->device->alloc(t->device, (void **)&a.to, turned_bytes(t), err));
    for (int i = 0; i < t->g && status == PD_OK; i++) {
        a.w = w + (size_t)i * count;
        pd_parallel(t->device->pool, pd_panels(t->k), turn_panels, &a);
        if (t->g == 1) break;
        free_part(t->device, &t->part[i]);
        status = make_part(&t->part[i], t, a.to, err);
    }
    if (t->g > 1) t->device->release(t->device, a.to);
    return status;
}

/* Adds (or sets) a * part to the taps of one channel; returns how many rows of values were used. */
PD_INLINE size_t add_part(float *restrict to, const float *restrict scale, const int16_t *restrict value,
                          unsigned present, float a, const bool set)
{
    size_t n = 0;
    for (; present; present &= present - 1, n++) {
        float *restrict v = to + (size_t)__builtin_ctz(present) * PD_PANEL;
        const float s = a * scale[n];
        const int16_t *restrict from = value + n * PD_PANEL;
        for (int o = 0; o < PD_PANEL; o++) v[o] = s * (float)from[o] + (set ? 0.f : v[o]);
    }
    return n;
}

PD_CLONES static void mix_channels(pd_taps_walk *w, size_t count, float *room)
{
    const pd_panel_taps *t = w->t;
    const size_t width = channel_floats(t), c = (size_t)t->c;
    const unsigned all = (1u << t->taps) - 1;
    for (const size_t end = w->channel + count; w->channel < end; w->channel++, room += width)
        for (int i = 0; i < t->g; i++) {
            const pd_part *p = &t->part[i];
            const float *scale = p->scale + w->at[i];
            const int16_t *value = p->value + w->at[i] * PD_PANEL;
            const unsigned present = p->present[w->panel * c + w->channel];
            if (i == 0 && present != all) memset(room, 0, width * sizeof *room);
            if (i == 0)
                w->at[i] += add_part(room, scale, value, present, w->mix[i], true);
            else
                w->at[i] += add_part(room, scale, value, present, w->mix[i], false);
        }
}

pd_taps_walk pd_panel_taps_begin(const pd_panel_taps *t, const float *mix, size_t panel, int first)
{
    pd_taps_walk w = {.t = t, .mix = mix, .panel = panel, .channel = (size_t)first};
    for (int i = 0; i < t->g && !t->single; i++)
        w.at[i] = t->part[i].start[panel * chunks_of(t) + (size_t)first / PD_TAPS_CHUNK];
    return w;
}

const float *pd_panel_taps_next(pd_taps_walk *w, int count, float *room)
{
    if (w->t->single) {
        const float *taps = w->t->single + (w->panel * (size_t)w->t->c + w->channel) * channel_floats(w->t);
        w->channel += (size_t)count;
        return taps;
    }
    mix_channels(w, (size_t)count, room);
    return room;
}

/* Share `step` of `steps` of the cache lines of a range of bytes. */
static void fetch_bytes(const void *from, size_t bytes, size_t step, size_t steps)
{
    const char *p = from;
    const size_t lines = (bytes + 63) / 64, end = lines * (step + 1) / steps;
    for (size_t i = lines * step / steps; i < end; i++) __builtin_prefetch(p + 64 * i, 0, 2);
}

void pd_panel_taps_fetch(const pd_panel_taps *t, size_t panel, int first, int count, size_t step, size_t steps)
{
    const size_t chunk = panel * chunks_of(t) + (size_t)first / PD_TAPS_CHUNK;
    if (t->single) {
        fetch_bytes(t->single + (panel * (size_t)t->c + (size_t)first) * channel_floats(t),
                    (size_t)count * channel_floats(t) * sizeof(float), step, steps);
        return;
    }
    for (int i = 0; i < t->g; i++) {
        const pd_part *p = &t->part[i];
        const size_t begin = p->start[chunk], n = p->start[chunk + 1] - begin;
        fetch_bytes(p->value + begin * PD_PANEL, n * PD_PANEL * sizeof *p->value, step, steps);
        fetch_bytes(p->scale + begin, n * sizeof *p->scale, step, steps);
    }
}
