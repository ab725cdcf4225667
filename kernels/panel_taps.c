#include "kernels/panel_taps.h"
#include "engine/arena.h"
#include "kernels/simd.h"
#include "kernels/winograd_simd.h"

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

#define TILE 16 /* weights of one kernel that are read together: a cache line */

/* Rows i0 .. i0 + n - 1 (tap and channel) of a panel whose first kernel is w; kernels behind the last are zeros. */
static void turn_rows(const turning *a, const float *w, size_t kernels, size_t i0, size_t n, float *to)
{
    const size_t c = (size_t)a->t->c, taps = (size_t)a->t->taps;
    float tile[PD_PANEL][TILE] = {{0}};
    for (size_t o = 0; o < kernels; o++) memcpy(tile[o], w + o * taps * c + i0, n * sizeof(float));
    for (size_t j = 0; j < n; j++) {
        float *row = to + ((i0 + j) % c * taps + (i0 + j) / c) * PD_PANEL;
        for (size_t o = 0; o < PD_PANEL; o++) row[o] = tile[o][j];
    }
}

static void turn_panels(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const turning *a = arg;
    const size_t row = (size_t)a->t->c * (size_t)a->t->taps, k = (size_t)a->t->k;
    for (size_t p = begin; p < end; p++) {
        const size_t first = p * PD_PANEL, kernels = k - first < PD_PANEL ? k - first : PD_PANEL;
        float *to = a->to + p * (size_t)a->t->c * channel_floats(a->t);
        for (size_t i = 0; i < row; i += TILE)
            turn_rows(a, a->w + first * row, kernels, i, row - i < TILE ? row - i : TILE, to);
    }
}

static bool all_zero(const float *v)
{
    for (int i = 0; i < PD_PANEL; i++)
        if (v[i] != 0) return false;
    return true;
}

/* One part being made: its kernels, turned. */
typedef struct making {
    pd_part *p;
    const pd_panel_taps *t;
    const float *from[2];
    size_t width; /* kernels: 1 or 2 */
} making;

static bool row_is_zero(const making *m, size_t row)
{
    return all_zero(m->from[0] + row * PD_PANEL) && (m->width == 1 || all_zero(m->from[1] + row * PD_PANEL));
}

static void find_rows(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const making *m = arg;
    const size_t taps = (size_t)m->t->taps;
    for (size_t channel = begin; channel < end; channel++) /* of all panels */
        for (size_t tap = 0; tap < taps; tap++)
            if (!row_is_zero(m, channel * taps + tap)) m->p->present[channel] |= (uint16_t)(1u << tap);
}

/* Row n of the part: `width` kernels weight beside weight. */
PD_CLONES static void make_row(const making *m, size_t n, size_t row)
{
    const float *a = m->from[0] + row * PD_PANEL, *b = m->width == 2 ? m->from[1] + row * PD_PANEL : NULL;
    float top = 0;
    for (int o = 0; o < PD_PANEL; o++) top = fabsf(a[o]) > top ? fabsf(a[o]) : top;
    for (int o = 0; b && o < PD_PANEL; o++) top = fabsf(b[o]) > top ? fabsf(b[o]) : top;
    const float steps = 32767 / top;
    int16_t *to = m->p->value + n * PD_PANEL * m->width;
    m->p->scale[n] = top / 32767;
    if (b)
        for (size_t o = 0; o < PD_PANEL; o++) {
            to[2 * o] = (int16_t)rintf(a[o] * steps);
            to[2 * o + 1] = (int16_t)rintf(b[o] * steps);
        }
    else
        for (size_t o = 0; o < PD_PANEL; o++) to[o] = (int16_t)rintf(a[o] * steps);
}

static void make_rows(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const making *m = arg;
    const size_t c = (size_t)m->t->c, taps = (size_t)m->t->taps;
    for (size_t panel = begin; panel < end; panel++) {
        size_t n = m->p->start[panel * chunks_of(m->t)];
        for (size_t channel = panel * c; channel < (panel + 1) * c; channel++)
            for (unsigned left = m->p->present[channel]; left; left &= left - 1)
                make_row(m, n++, channel * taps + (size_t)__builtin_ctz(left));
    }
}

/* turned: the kernels of this part. */
static pd_status make_part(pd_part *p, const pd_panel_taps *t, const float *const *turned, pd_err *err)
{
    const size_t panels = pd_panels(t->k), c = (size_t)t->c;
    making m = {p, t, {turned[0], turned[1]}, p->second < 0 ? 1 : 2};
    size_t n = 0;
    p->present = calloc(panels * c, sizeof *p->present);
    p->start = calloc(panels * chunks_of(t) + 1, sizeof *p->start);
    if (!p->present || !p->start) return PD_FAIL(err, PD_ENOMEM, "out of memory for kernels to mix");
    pd_parallel(t->device->pool, panels * c, find_rows, &m);
    for (size_t i = 0; i < panels * c; i++) {
        if (i % c % PD_TAPS_CHUNK == 0) p->start[i / c * chunks_of(t) + i % c / PD_TAPS_CHUNK] = (uint32_t)n;
        n += (size_t)__builtin_popcount(p->present[i]);
    }
    p->start[panels * chunks_of(t)] = (uint32_t)n;
    PD_TRY(t->device->alloc(t->device, (void **)&p->scale, (n + 1) * sizeof *p->scale, err));
    PD_TRY(t->device->alloc(t->device, (void **)&p->value, (n + 1) * PD_PANEL * m.width * sizeof *p->value, err));
    pd_parallel(t->device->pool, panels, make_rows, &m);
    return PD_OK;
}

static bool is_dense(const pd_panel_taps *t, const float *turned)
{
    const size_t rows = pd_panels(t->k) * (size_t)t->c * (size_t)t->taps;
    size_t used = 0;
    for (size_t i = 0; i < rows; i++) used += !all_zero(turned + i * PD_PANEL);
    return 4 * used >= 3 * rows;
}

/* Two dense kernels at a time become one part; the others are parts of their own. */
static pd_status make_parts(pd_panel_taps *t, const float *turned, pd_err *err)
{
    const size_t floats = turned_bytes(t) / sizeof *turned;
    int waiting = -1; /* a dense kernel without a partner */
    for (int i = 0; i < PD_MIX_MAX; i++) free_part(t->device, &t->part[i]);
    t->parts = 0;
    for (int i = 0; i < t->g; i++) {
        const bool dense = is_dense(t, turned + (size_t)i * floats);
        if (dense && waiting >= 0) {
            t->part[waiting].second = i;
            waiting = -1;
            continue;
        }
        if (dense) waiting = t->parts;
        t->part[t->parts++] = (pd_part){.kernel = i, .second = -1};
    }
    for (int i = 0; i < t->parts; i++) {
        pd_part *p = &t->part[i];
        const float *const from[2] = {turned + (size_t)p->kernel * floats,
                                      p->second < 0 ? NULL : turned + (size_t)p->second * floats};
        PD_TRY(make_part(p, t, from, err));
    }
    return PD_OK;
}

pd_status pd_panel_taps_set(pd_panel_taps *t, const float *w, pd_err *err)
{
    const size_t count = (size_t)t->k * (size_t)t->taps * (size_t)t->c, floats = turned_bytes(t) / sizeof *w;
    turning a = {t, w, t->single};
    float *all = NULL;
    if (t->single) {
        pd_parallel(t->device->pool, pd_panels(t->k), turn_panels, &a);
        return PD_OK;
    }
    PD_TRY(t->device->alloc(t->device, (void **)&all, (size_t)t->g * turned_bytes(t), err));
    for (int i = 0; i < t->g; i++) {
        a.w = w + (size_t)i * count;
        a.to = all + (size_t)i * floats;
        pd_parallel(t->device->pool, pd_panels(t->k), turn_panels, &a);
    }
    const pd_status status = make_parts(t, all, err);
    t->device->release(t->device, all);
    return status;
}

static void free_shared(pd_device *device, void *thing)
{
    (void)device;
    pd_panel_taps_free(thing);
    free(thing);
}

pd_status pd_panel_taps_share(pd_shared **keep, pd_device *device, int g, int k, int c, int taps, const float *w,
                              bool changed, pd_err *err)
{
    const struct {
        char what[8];
        const float *w;
        int64_t size[4];
    } key = {"taps", w, {g, k, c, taps}};
    if (!*keep) PD_TRY(pd_share(keep, device, &key, sizeof key, err));
    pd_shared *s = *keep;
    if (!s->thing) {
        pd_panel_taps *t = calloc(1, sizeof *t);
        if (!t) return PD_FAIL(err, PD_ENOMEM, "out of memory for turned kernels");
        s->thing = t;
        s->free_thing = free_shared;
        t->device = device;
    }
    if (!changed || pd_shared_current(s)) return PD_OK;
    pd_panel_taps *t = s->thing;
    if (!t->taps) PD_TRY(pd_panel_taps_init(t, device, g, k, c, taps, err));
    PD_TRY(pd_panel_taps_set(t, w, err));
    pd_shared_done(s);
    return PD_OK;
}

/* Both gates as 16-bit numbers whose larger one is 32767; returns what one of them is worth. */
static float pair_gates(float a, float b, int *gates)
{
    const float top = fmaxf(fabsf(a), fabsf(b));
    if (top == 0) return 0;
    const uint16_t low = (uint16_t)(int16_t)lrintf(a / top * 32767), high = (uint16_t)(int16_t)lrintf(b / top * 32767);
    *gates = (int)((uint32_t)high << 16 | low);
    return top / 32767;
}

pd_taps_walk pd_panel_taps_begin(const pd_panel_taps *t, const float *mix, size_t panel, int first)
{
    pd_taps_walk w = {.t = t, .panel = panel, .channel = (size_t)first};
    for (int i = 0; i < t->parts; i++) {
        const pd_part *p = &t->part[i];
        w.at[i] = p->start[panel * chunks_of(t) + (size_t)first / PD_TAPS_CHUNK];
        w.factor[i] = p->second < 0 ? mix[p->kernel] : pair_gates(mix[p->kernel], mix[p->second], &w.gates[i]);
    }
    return w;
}

const float *pd_panel_taps_next(pd_taps_walk *w, int count, float *room)
{
    if (w->t->single) {
        const float *taps = w->t->single + (w->panel * (size_t)w->t->c + w->channel) * channel_floats(w->t);
        w->channel += (size_t)count;
        return taps;
    }
    pd_wino_isa()->mix(w, (size_t)count, room);
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
    for (int i = 0; i < t->parts; i++) {
        const pd_part *p = &t->part[i];
        const size_t begin = p->start[chunk], n = p->start[chunk + 1] - begin,
                     row = p->second < 0 ? PD_PANEL : 2 * PD_PANEL;
        fetch_bytes(p->value + begin * row, n * row * sizeof *p->value, step, steps);
        fetch_bytes(p->scale + begin, n * sizeof *p->scale, step, steps);
    }
}
