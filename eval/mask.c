#include "eval/mask.h"

#include <stdlib.h>

/* ---- boxes and areas ---- */

/* Collects area and tight box of a mask run by run. */
typedef struct {
    uint32_t h, w, x, y; /* of the next pixel */
    uint64_t area;
    bool started, empty_runs;
    uint32_t low_x, high_x, low_y, high_y;
} measure;

static void measure_begin(measure *m, uint32_t h, uint32_t w)
{
    *m = (measure){.h = h, .w = w, .low_x = UINT32_MAX, .low_y = UINT32_MAX};
}

static inline void measure_run(measure *m, uint32_t length, bool ones)
{
    if (!length) {
        m->empty_runs |= m->started;
        m->started = true;
        return;
    }
    m->started = true;
    if (ones) {
        const uint32_t room = m->h - m->y; /* left in this column */
        if (m->low_x == UINT32_MAX) m->low_x = m->x;
        if (length <= room) {
            const uint32_t last = m->y + length - 1;
            if (m->y < m->low_y) m->low_y = m->y;
            if (last > m->high_y) m->high_y = last;
            m->high_x = m->x;
        } else { /* over a column break: full height */
            m->low_y = 0;
            m->high_y = m->h - 1;
            m->high_x = m->x + 1 + (length - room - 1) / m->h;
        }
        m->area += length;
    }
    m->y += length;
    if (m->y >= m->h) {
        m->x += m->y / m->h;
        m->y %= m->h;
    }
}

static void measure_end(const measure *m, uint32_t *area, uint32_t box[4], bool *empty_runs)
{
    *area = (uint32_t)m->area;
    *empty_runs = m->empty_runs;
    memset(box, 0, 4 * sizeof *box);
    if (m->low_x == UINT32_MAX) return;
    box[0] = m->low_x;
    box[1] = m->low_y;
    box[2] = m->high_x - m->low_x + 1;
    box[3] = m->high_y - m->low_y + 1;
}

void pd_mask_finish(pd_mask *mask)
{
    measure m;
    measure_begin(&m, mask->h, mask->w);
    for (uint32_t j = 0, before = 0; j < mask->n; before = mask->ends[j++])
        measure_run(&m, mask->ends[j] - before, j & 1);
    measure_end(&m, &mask->area, mask->box, &mask->empty_runs);
}

/* ---- text ---- */

/* The next number; *at moves. False where the text is cut off, has a wrong character, or the number is out of range. */
static inline bool next_number(const unsigned char **at, const unsigned char *end, int64_t *out)
{
    const unsigned char *p = *at;
    int64_t value = 0;
    for (int shift = 0; shift <= 35; shift += 5) {
        if (p >= end) return false;
        const unsigned c = *p++ - 48u;
        if (c > 63) return false;
        value |= (int64_t)(c & 31) << shift;
        if (!(c & 32)) {
            if (c & 16) value -= (int64_t)32 << shift;
            *at = p;
            *out = value;
            return true;
        }
    }
    return false;
}

/* Walks the runs; ends may be NULL. Returns the number of runs, or SIZE_MAX with *fault. */
static inline size_t walk_text(const char *text, size_t size, uint64_t pixels, uint32_t *ends, measure *m,
                               const char **fault)
{
    const unsigned char *at = (const unsigned char *)text, *const end = at + size;
    int64_t before[2] = {0, 0}; /* the runs two places and one place before */
    uint64_t total = 0;
    size_t n = 0;
    for (; at < end; n++) {
        int64_t run;
        if (!next_number(&at, end, &run)) {
            *fault = "counts are cut off or not run-length text";
            return SIZE_MAX;
        }
        if (n > 2) run += before[n & 1];
        before[n & 1] = run;
        if (run < 0 || (total += (uint64_t)run) > pixels) {
            *fault = run < 0 ? "counts hold a negative run" : "counts hold more pixels than size";
            return SIZE_MAX;
        }
        if (ends) ends[n] = (uint32_t)total;
        if (m) measure_run(m, (uint32_t)run, n & 1);
    }
    return n;
}

const char *pd_rle_scan(pd_rle_text *out, const char *text, size_t size, uint32_t h, uint32_t w)
{
    const char *fault = NULL;
    if (size > UINT32_MAX) return "counts are too long";
    measure m;
    measure_begin(&m, h, w);
    if (walk_text(text, size, (uint64_t)h * w, NULL, &m, &fault) == SIZE_MAX) return fault;
    *out = (pd_rle_text){.text = text, .size = (uint32_t)size, .h = h, .w = w};
    measure_end(&m, &out->area, out->box, &out->empty_runs);
    return NULL;
}

pd_status pd_rle_unpack(pd_mask *mask, size_t *capacity, const pd_rle_text *text, pd_err *err)
{
    PD_TRY(pd_grow(&mask->ends, capacity, (size_t)text->size + 1, sizeof *mask->ends, err));
    const char *fault = NULL;
    const size_t n = walk_text(text->text, text->size, (uint64_t)text->h * text->w, mask->ends, NULL, &fault);
    if (n == SIZE_MAX) return PD_FAIL(err, PD_EFORMAT, "a mask's %s", fault);
    mask->h = text->h;
    mask->w = text->w;
    mask->n = (uint32_t)n;
    mask->area = text->area;
    memcpy(mask->box, text->box, sizeof mask->box);
    mask->empty_runs = text->empty_runs;
    return PD_OK;
}

/* ---- polygons ---- */

#define SCALE 5.0

static int compare_positions(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The walk along the outline in fifths of a pixel, and the positions where it crosses the middle of a pixel column. */
typedef struct {
    int u, v; /* the point before */
    bool started;
    uint32_t h, w;
    uint32_t *positions;
    size_t n, capacity;
    pd_err *err;
} outline;

static inline bool outline_point(outline *o, int u, int v)
{
    const int before_u = o->u, before_v = o->v;
    const bool crossing = o->started && u != before_u;
    o->u = u;
    o->v = v;
    o->started = true;
    if (!crossing) return true;
    const int column = u < before_u ? u : u - 1;
    if (column < 0 || column % 5 != 2) return true; /* (column + 0.5) / 5 - 0.5 is no whole number */
    const uint32_t x = (uint32_t)(column - 2) / 5;
    if (x >= o->w) return true;
    double y = ((double)(v < before_v ? v : before_v) + .5) / SCALE - .5;
    y = y < 0 ? 0 : y > o->h ? o->h : y;
    uint32_t row = (uint32_t)y;
    row += (double)row < y;
    if (o->n == o->capacity && pd_grow(&o->positions, &o->capacity, o->n + 1, sizeof *o->positions, o->err) != PD_OK)
        return false;
    o->positions[o->n++] = x * o->h + row;
    return true;
}

static bool outline_edge(outline *o, int x0, int y0, int x1, int y1)
{
    const int dx = abs(x1 - x0), dy = abs(y1 - y0);
    if (dx == 0 && dy == 0) return !o->started ? outline_point(o, x0, y0) : true;
    const bool by_x = dx >= dy, flip = by_x ? x0 > x1 : y0 > y1;
    const int xs = flip ? x1 : x0, xe = flip ? x0 : x1, ys = flip ? y1 : y0, ye = flip ? y0 : y1;
    const int steps = by_x ? dx : dy;
    const double slope = by_x ? (double)(ye - ys) / dx : (double)(xe - xs) / dy;
    for (int d = 0; d <= steps; d++) {
        const int t = flip ? steps - d : d;
        const bool ok = by_x ? outline_point(o, t + xs, (int)(ys + slope * t + .5))
                             : outline_point(o, (int)(xs + slope * t + .5), t + ys);
        if (!ok) return false;
    }
    return true;
}

static inline int fifths(double coordinate)
{
    return (int)(SCALE * coordinate + .5);
}

/* Sorted crossings -> ends of runs. Two crossings at one place cancel out. */
static uint32_t join_crossings(uint32_t *ends, uint32_t *positions, size_t n, uint32_t pixels)
{
    qsort(positions, n, sizeof *positions, compare_positions);
    positions[n++] = pixels;
    uint32_t m = 0;
    size_t j = 0;
    ends[m++] = positions[j++];
    while (j < n) {
        if (positions[j] > positions[j - 1]) {
            ends[m++] = positions[j++];
        } else if (++j < n) {
            ends[m - 1] = positions[j];
            j++;
        }
    }
    return m;
}

const char *pd_mask_check_polygon(const double *xy, size_t n, double h, double w)
{
    if (!(h >= 0 && w >= 0 && h * w <= PD_MASK_PIXELS && h <= PD_MASK_PIXELS && w <= PD_MASK_PIXELS))
        return "is of an image without usable width and height";
    for (size_t i = 0; i < 2 * n; i++)
        if (!(xy[i] >= -PD_MASK_FARTHEST && xy[i] <= PD_MASK_FARTHEST))
            return "has a corner that is not finite or far outside of the image";
    return NULL;
}

pd_status pd_mask_polygon(pd_mask *mask, size_t *capacity, const double *xy, size_t n, uint32_t h, uint32_t w,
                          pd_mask_work *work, pd_err *err)
{
    outline o = {.h = h, .w = w, .positions = work->positions, .capacity = work->positions_capacity, .err = err};
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++) {
        const size_t next = i + 1 < n ? i + 1 : 0;
        ok = outline_edge(&o, fifths(xy[2 * i]), fifths(xy[2 * i + 1]), fifths(xy[2 * next]), fifths(xy[2 * next + 1]));
    }
    pd_status status = ok ? pd_grow(&o.positions, &o.capacity, o.n + 1, sizeof *o.positions, err) : PD_ENOMEM;
    work->positions = o.positions;
    work->positions_capacity = o.capacity;
    if (status != PD_OK) return status;
    PD_TRY(pd_grow(&mask->ends, capacity, o.n + 1, sizeof *mask->ends, err));
    mask->h = h;
    mask->w = w;
    mask->n = join_crossings(mask->ends, o.positions, o.n, h * w);
    pd_mask_finish(mask);
    return PD_OK;
}

/* ---- union ---- */

/* A mask being read run by run, as COCO's API does it. */
typedef struct {
    const pd_mask *mask;
    uint32_t left, at; /* of the current run; the next run */
    bool ones;
} cursor;

static inline uint32_t run_of(const pd_mask *m, uint32_t j)
{
    return m->ends[j] - (j ? m->ends[j - 1] : 0);
}

static cursor cursor_begin(const pd_mask *m)
{
    return (cursor){m, run_of(m, 0), 1, false};
}

static inline void advance(cursor *c, uint32_t length)
{
    c->left -= length;
    if (!c->left && c->at < c->mask->n) {
        c->left = run_of(c->mask, c->at++);
        c->ones = !c->ones;
    }
}

static inline uint32_t step_of(const cursor *a, const cursor *b)
{
    return a->left < b->left ? a->left : b->left;
}

uint32_t pd_mask_unite(uint32_t *ends, const pd_mask *a, const pd_mask *b)
{
    cursor ca = cursor_begin(a), cb = cursor_begin(b);
    uint32_t n = 0, position = 0;
    bool value = false;
    for (;;) {
        const uint32_t c = step_of(&ca, &cb);
        position += c;
        advance(&ca, c);
        advance(&cb, c);
        const bool before = value, more = ca.left || cb.left;
        value = ca.ones || cb.ones;
        if (value != before || !more) ends[n++] = position;
        if (!more) return n;
    }
}

/* ---- overlap ---- */

/* Ones from a cursor to the end of its mask. */
static uint32_t ones_left(const cursor *c)
{
    uint32_t sum = c->ones ? c->left : 0;
    for (uint32_t j = c->at; j < c->mask->n; j++) sum += j & 1 ? run_of(c->mask, j) : 0;
    return sum;
}

static inline bool is_over(const cursor *c)
{
    return !c->left && c->at >= c->mask->n;
}

/* Run by run as COCO's API does it: where both masks have an empty run at one place it stops. A mask that ends before
 * the other is zeros from there on. */
static void overlap_literally(const pd_mask *a, const pd_mask *b, uint32_t *both, uint32_t *any)
{
    cursor ca = cursor_begin(a), cb = cursor_begin(b);
    do {
        const uint32_t c = step_of(&ca, &cb);
        if (ca.ones || cb.ones) *any += c;
        if (ca.ones && cb.ones) *both += c;
        advance(&ca, c);
        advance(&cb, c);
    } while ((ca.left || cb.left) && !is_over(&ca) && !is_over(&cb));
    if (ca.left) *any += ones_left(&ca);
    if (cb.left) *any += ones_left(&cb);
}

/* Pixels set in both. */
static uint32_t intersection(const pd_mask *a, const pd_mask *b)
{
    uint32_t sum = 0, i = 1, k = 1;
    while (i < a->n && k < b->n) {
        const uint32_t a0 = a->ends[i - 1], a1 = a->ends[i], b0 = b->ends[k - 1], b1 = b->ends[k];
        const uint32_t low = a0 > b0 ? a0 : b0, high = a1 < b1 ? a1 : b1;
        sum += high > low ? high - low : 0;
        i += a1 <= b1 ? 2 : 0;
        k += b1 <= a1 ? 2 : 0;
    }
    return sum;
}

/* Width times height that two boxes share. */
static uint64_t shared_area(const uint32_t a[4], const uint32_t b[4])
{
    const uint64_t x1 = a[0] > b[0] ? a[0] : b[0], y1 = a[1] > b[1] ? a[1] : b[1];
    const uint64_t ax = (uint64_t)a[0] + a[2], ay = (uint64_t)a[1] + a[3];
    const uint64_t bx = (uint64_t)b[0] + b[2], by = (uint64_t)b[1] + b[3];
    const uint64_t x2 = ax < bx ? ax : bx, y2 = ay < by ? ay : by;
    return x2 > x1 && y2 > y1 ? (x2 - x1) * (y2 - y1) : 0;
}

bool pd_mask_may_reach(const pd_rle_text *det, const pd_mask *object, bool crowd, double least)
{
    /* With empty runs the sweep may stop early, and the union come out smaller than the areas say. */
    if (least <= 0 || det->empty_runs || object->empty_runs) return true;
    uint64_t most = shared_area(det->box, object->box);
    if (most > det->area) most = det->area;
    if (most > object->area) most = object->area;
    const double whole = crowd ? (double)det->area : (double)det->area + (double)object->area - (double)most;
    return (double)most >= least * whole * (1 - 1e-9);
}

double pd_mask_overlap(const pd_mask *det, const pd_mask *object, bool crowd)
{
    if (!shared_area(det->box, object->box)) return 0;
    if (det->h != object->h || det->w != object->w) return -1;
    uint32_t both = 0, any = 0;
    if (det->empty_runs || object->empty_runs) {
        overlap_literally(det, object, &both, &any);
    } else {
        both = intersection(det, object);
        any = det->area + object->area - both;
    }
    if (both == 0) return 0;
    return (double)both / (double)(crowd ? det->area : any);
}

void pd_mask_work_free(pd_mask_work *work)
{
    free(work->xy);
    free(work->positions);
    free(work->part);
    free(work->joined);
    free(work->text);
}
