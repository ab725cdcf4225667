#include "tools/shapes.h"

#include <math.h>

#define PI 3.14159265358979323846

typedef struct point {
    double x, y;
} point;

typedef struct color {
    float v[3];
} color;

enum { MOST_CORNERS = 40 };

typedef struct outline {
    point at[MOST_CORNERS];
    int n; /* 0: not a polygon */
} outline;

const char *pd_shape_name(int kind)
{
    static const char *const names[PD_SHAPE_KINDS] = {"circle", "square", "triangle", "star",
                                                      "cross",  "ring",   "heart",    "moon"};
    return names[kind];
}

static double between(pd_rng *rng, double low, double high)
{
    return low + (high - low) * pd_rng_double(rng);
}

static double clamp01(double v)
{
    return v < 0 ? 0 : v > 1 ? 1 : v;
}

/* ---- distance ---- */

/* Corners on a circle, with every other one at `inner`. */
static void make_rays(outline *o, int n, double inner)
{
    o->n = n;
    for (int i = 0; i < n; i++) {
        const double a = 2 * PI * i / n - PI / 2, r = i % 2 ? inner : 1;
        o->at[i] = (point){r * cos(a), r * sin(a)};
    }
}

static void make_outline(outline *o, int kind)
{
    static const point square[4] = {{-0.78, -0.78}, {0.78, -0.78}, {0.78, 0.78}, {-0.78, 0.78}};
    enum { ARM = 12 };
    o->n = 0;
    switch (kind) {
    case 1:
        o->n = 4;
        for (int i = 0; i < 4; i++) o->at[i] = square[i];
        break;
    case 2: make_rays(o, 3, 1); break;
    case 3: make_rays(o, 10, 0.45); break;
    case 4: /* one arm is three corners; each arm is the last one turned by 90 degrees */
        o->n = ARM;
        for (int i = 0; i < ARM; i++) {
            const point arm[3] = {{-0.3, -0.95}, {0.3, -0.95}, {0.3, -0.3}};
            point p = arm[i % 3];
            for (int turn = 0; turn < i / 3; turn++) p = (point){-p.y, p.x};
            o->at[i] = p;
        }
        break;
    case 6:
        o->n = MOST_CORNERS;
        for (int i = 0; i < MOST_CORNERS; i++) {
            const double t = 2 * PI * i / MOST_CORNERS, s = sin(t);
            o->at[i] = (point){16 * s * s * s / 17, -(13 * cos(t) - 5 * cos(2 * t) - 2 * cos(3 * t) - cos(4 * t)) / 17};
        }
        break;
    default: break;
    }
}

/* Signed distance to a polygon: nearest edge, and the sign by how often a ray crosses. */
static double polygon_distance(const outline *o, point p)
{
    double nearest = INFINITY;
    bool inside = false;
    for (int i = 0, j = o->n - 1; i < o->n; j = i++) {
        const point a = o->at[i], b = o->at[j], e = {b.x - a.x, b.y - a.y}, w = {p.x - a.x, p.y - a.y};
        const double along = clamp01((w.x * e.x + w.y * e.y) / (e.x * e.x + e.y * e.y));
        const double dx = w.x - e.x * along, dy = w.y - e.y * along;
        nearest = fmin(nearest, dx * dx + dy * dy);
        if ((a.y > p.y) != (b.y > p.y) && p.x < e.x * (p.y - a.y) / e.y + a.x) inside = !inside;
    }
    return inside ? -sqrt(nearest) : sqrt(nearest);
}

static double shape_distance(const outline *o, int kind, point p)
{
    const double r = hypot(p.x, p.y);
    if (o->n) return polygon_distance(o, p);
    if (kind == 5) return fabs(r - 0.7) - 0.2;
    if (kind == 7) return fmax(r - 0.92, 0.74 - hypot(p.x - 0.44, p.y));
    return r - 0.9;
}

/* ---- colour ---- */

static color from_hsv(double h, double s, double v)
{
    color c;
    for (int i = 0; i < 3; i++) {
        const double k = fmod(5 - 2 * i + 6 * h + 6, 6);
        c.v[i] = (float)(v - v * s * clamp01(fmin(k, 4 - k)));
    }
    return c;
}

static color random_color(pd_rng *rng)
{
    return from_hsv(pd_rng_double(rng), between(rng, 0.3, 1), between(rng, 0.3, 1));
}

static color mix(color a, color b, double t)
{
    for (int i = 0; i < 3; i++) a.v[i] += (b.v[i] - a.v[i]) * (float)t;
    return a;
}

static color scaled(color a, double f)
{
    for (int i = 0; i < 3; i++) a.v[i] = (float)clamp01(a.v[i] * f);
    return a;
}

static void blend(pd_canvas *c, int x, int y, color over, double alpha)
{
    float *p = c->rgb + ((size_t)y * (size_t)c->w + (size_t)x) * 3;
    for (int i = 0; i < 3; i++) p[i] += (over.v[i] - p[i]) * (float)alpha;
}

/* Kinds have colours of their own, as ripe fruit has; the more difficult, the fewer keep to it. */
static color kind_color(int kind, pd_rng *rng)
{
    const double hue = fmod(kind * 0.6180339887 + between(rng, 0.95, 1.05), 1);
    return from_hsv(hue, between(rng, 0.55, 1), between(rng, 0.4, 1));
}

/* A colour that stands out from what is there around a point. */
static color contrasting(const pd_canvas *c, const pd_shape *s, double difficulty, pd_rng *rng)
{
    const bool own = pd_rng_double(rng) < 1 - 0.5 * difficulty;
    double around[3] = {0};
    for (int i = 0; i < 16; i++) {
        const double a = 2 * PI * i / 16, r = s->radius * (i % 2 ? 0.9 : 0.5);
        const int x = (int)fmin(c->w - 1, fmax(0, s->x + r * cos(a)));
        const int y = (int)fmin(c->h - 1, fmax(0, s->y + r * sin(a)));
        for (int k = 0; k < 3; k++) around[k] += c->rgb[((size_t)y * (size_t)c->w + (size_t)x) * 3 + (size_t)k] / 16.0;
    }
    color best = {{0}};
    double furthest = -1;
    for (int i = 0; i < 6; i++) {
        const color next = own ? kind_color(s->kind, rng) : random_color(rng);
        double away = 0;
        for (int k = 0; k < 3; k++) away += fabs(next.v[k] - around[k]);
        if (away > furthest) {
            furthest = away;
            best = next;
        }
        if (away > 0.8) break;
    }
    return best;
}

/* ---- noise ---- */

/* Smooth noise: a grid of random numbers from one seed, interpolated with a soft step. 0..1. */
static double grid_value(uint32_t seed, int x, int y)
{
    uint32_t out[4];
    const uint32_t key[2] = {seed, 77};
    pd_philox(out, key, (uint32_t)x, (uint32_t)y, 0, 0);
    return out[0] * 0x1p-32;
}

static double smooth_noise(uint32_t seed, double x, double y)
{
    const double fx = floor(x), fy = floor(y);
    double u = x - fx, v = y - fy;
    u = u * u * (3 - 2 * u);
    v = v * v * (3 - 2 * v);
    const int ix = (int)fx, iy = (int)fy;
    const double top = grid_value(seed, ix, iy) * (1 - u) + grid_value(seed, ix + 1, iy) * u;
    const double low = grid_value(seed, ix, iy + 1) * (1 - u) + grid_value(seed, ix + 1, iy + 1) * u;
    return top * (1 - v) + low * v;
}

/* ---- background ---- */

/* Soft-edged strokes: clutter that belongs to no class. */
static void draw_stroke(pd_canvas *c, color ink, point a, point b, double width, double alpha)
{
    const double ex = b.x - a.x, ey = b.y - a.y, length2 = ex * ex + ey * ey + 1e-9;
    const int x1 = (int)fmax(0, fmin(a.x, b.x) - width - 1), x2 = (int)fmin(c->w - 1, fmax(a.x, b.x) + width + 1);
    const int y1 = (int)fmax(0, fmin(a.y, b.y) - width - 1), y2 = (int)fmin(c->h - 1, fmax(a.y, b.y) + width + 1);
    for (int y = y1; y <= y2; y++)
        for (int x = x1; x <= x2; x++) {
            const double wx = x + 0.5 - a.x, wy = y + 0.5 - a.y, t = clamp01((wx * ex + wy * ey) / length2);
            const double d = hypot(wx - ex * t, wy - ey * t) - width / 2;
            if (d < 0.5) blend(c, x, y, ink, alpha * clamp01(0.5 - d));
        }
}

pd_status pd_canvas_begin(pd_canvas *c, int h, int w, double difficulty, pd_rng *rng, pd_arena *arena, pd_err *err)
{
    c->h = h;
    c->w = w;
    PD_TRY(PD_ALLOC(&c->rgb, arena, (size_t)h * (size_t)w * 3, err));
    PD_TRY(PD_ALLOC(&c->owner, arena, (size_t)h * (size_t)w, err));
    const color a = from_hsv(pd_rng_double(rng), between(rng, 0, 0.5), between(rng, 0.15, 0.95));
    const color b = mix(a, random_color(rng), between(rng, 0.2, 0.3 + 0.5 * difficulty));
    const uint32_t seed = pd_rng_u32(rng);
    const double coarse = between(rng, 40, 110), fine = between(rng, 6, 20);
    const double rough = difficulty * between(rng, 0.1, 0.5), slope = between(rng, -0.3, 0.3);
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            const double t = 0.75 * smooth_noise(seed, x / coarse, y / coarse) + slope * (y / (double)h - 0.5);
            const double grain = smooth_noise(seed + 1, x / fine, y / fine) - 0.5;
            const color at = scaled(mix(a, b, clamp01(t + 0.15)), 1 + rough * grain);
            blend(c, x, y, at, 1);
        }
    const int strokes = (int)(difficulty * between(rng, 0, 14));
    for (int i = 0; i < strokes; i++) {
        const point p = {between(rng, 0, w), between(rng, 0, h)};
        const double angle = between(rng, 0, 2 * PI), length = between(rng, 15, 90);
        draw_stroke(c, random_color(rng), p, (point){p.x + length * cos(angle), p.y + length * sin(angle)},
                    between(rng, 1, 3.5), between(rng, 0.2, 0.6));
    }
    return PD_OK;
}

/* ---- shapes ---- */

typedef struct paint {
    int texture; /* 0 plain, 1 stripes, 2 dots, 3 checks, 4 mottled */
    color base, second;
    double period, turn, edge, shade;
    uint32_t seed;
} paint;

static paint choose_paint(const pd_canvas *c, const pd_shape *s, double difficulty, pd_rng *rng)
{
    paint p = {.base = contrasting(c, s, difficulty, rng)};
    p.texture = pd_rng_double(rng) < 0.35 + 0.5 * difficulty ? (int)pd_rng_below(rng, 5) : 0;
    p.second = pd_rng_below(rng, 2) ? scaled(p.base, between(rng, 0.55, 0.8))
                                    : mix(p.base, (color){{1, 1, 1}}, between(rng, 0.2, 0.45));
    p.period = fmax(4, s->radius * between(rng, 0.25, 0.5));
    p.turn = between(rng, 0, PI);
    p.edge = pd_rng_below(rng, 2) ? between(rng, 1, 1 + s->radius / 20) : 0;
    p.shade = between(rng, 0.05, 0.3);
    p.seed = pd_rng_u32(rng);
    return p;
}

/* How much of the second colour shows at a point of the shape. */
static double texture_at(const paint *p, double x, double y)
{
    const double u = (x * cos(p->turn) + y * sin(p->turn)) / p->period;
    const double v = (y * cos(p->turn) - x * sin(p->turn)) / p->period;
    switch (p->texture) {
    case 1: return clamp01(0.5 + 3 * sin(2 * PI * u) / 2);
    case 2: return clamp01(0.5 + 5 * (0.3 - hypot(u - floor(u) - 0.5, v - floor(v) - 0.5)));
    case 3: return clamp01(0.5 + 4 * sin(PI * u) * sin(PI * v));
    case 4: return smooth_noise(p->seed, 2 * u + 50, 2 * v + 50);
    default: return 0;
    }
}

int pd_canvas_shape(pd_canvas *c, const pd_shape *s, uint16_t id, double difficulty, pd_rng *rng)
{
    outline o;
    make_outline(&o, s->kind);
    const paint p = choose_paint(c, s, difficulty, rng);
    const bool shadow = pd_rng_below(rng, 3) != 0;
    const double drop = fmin(8, s->radius * 0.14),
                 reach = s->radius * fmax(1, fmax(s->aspect, 1 / s->aspect)) + 2 * drop + 2;
    const double sx = s->radius * sqrt(s->aspect), sy = s->radius / sqrt(s->aspect), unit = fmin(sx, sy);
    const double cosa = cos(s->angle), sina = sin(s->angle);
    const int x1 = (int)fmax(0, s->x - reach), x2 = (int)fmin(c->w - 1, s->x + reach);
    const int y1 = (int)fmax(0, s->y - reach), y2 = (int)fmin(c->h - 1, s->y + reach);
    int covered = 0;
    for (int pass = shadow ? 0 : 1; pass < 2; pass++)
        for (int y = y1; y <= y2; y++)
            for (int x = x1; x <= x2; x++) {
                const double dx = x + 0.5 - s->x - (pass ? 0 : drop), dy = y + 0.5 - s->y - (pass ? 0 : drop);
                const point local = {(dx * cosa + dy * sina) / sx, (dy * cosa - dx * sina) / sy};
                const double d = shape_distance(&o, s->kind, local) * unit; /* pixels */
                if (pass == 0) { /* the shadow: dark, soft, a little to the lower right */
                    if (d < drop) blend(c, x, y, (color){{0, 0, 0}}, 0.4 * clamp01(0.5 - d / (2 * drop)));
                    continue;
                }
                const double cover = clamp01(0.5 - d);
                if (cover <= 0) continue;
                color at = mix(p.base, p.second, texture_at(&p, dx, dy));
                at = scaled(at, 1 - p.shade * (dx + dy) / (2 * s->radius)); /* light from the upper left */
                if (d > -p.edge) at = scaled(at, 0.45);
                blend(c, x, y, at, cover);
                if (cover > 0.5) {
                    c->owner[(size_t)y * (size_t)c->w + (size_t)x] = id;
                    covered++;
                }
            }
    return covered;
}

pd_status pd_canvas_finish(pd_image *out, const pd_canvas *c, double difficulty, pd_rng *rng, pd_err *err)
{
    PD_TRY(pd_image_size(out, c->h, c->w, err));
    const double gain = between(rng, 0.85, 1.1), noise = difficulty * between(rng, 0, 0.06);
    const size_t n = (size_t)c->h * (size_t)c->w * 3;
    for (size_t i = 0; i < n; i++) {
        const double v = c->rgb[i] * gain + noise * pd_rng_normal(rng);
        out->rgb[i] = (unsigned char)(255 * clamp01(v) + 0.5);
    }
    return PD_OK;
}
