#include "kernels/winograd.h"
#include "engine/arena.h"
#include "kernels/winograd_simd.h"

#include <string.h>

#define PLACES 36
#define TILE 4   /* outputs of a tile along one axis; it reads TILE + 2 inputs */
#define CHUNK 64 /* channels whose transforms lie together */
#define BLOCK 64 /* most tiles of a block: its transforms of a chunk fit a core's second-level cache */
#define GAP 16   /* floats between planes, so that 36 of them do not fall into one cache set */
#define MAX_CHUNKS 256
#define WAVE_BYTES ((size_t)4 << 20) /* transforms that stay in the last-level cache */

static const float zeros[CHUNK]; /* a pixel of the padding */

static const wino_isa *choose_isa(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return &pd_wino_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &pd_wino_avx2;
#endif
    return NULL;
}

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static wino_form form_of(const pd_wino_shape *s, int conv)
{
    return (wino_form){s->conv[conv].kh == 3, s->conv[conv].kw == 3};
}

static bool place_is_zero(wino_form f, int place)
{
    const int y = place / 6, x = place % 6;
    return (!f.tall && (y == 0 || y == 5)) || (!f.wide && (x == 0 || x == 5));
}

static size_t tile_count(const pd_wino_shape *s)
{
    return (size_t)s->n * (size_t)((s->h + TILE - 1) / TILE) * (size_t)((s->w + TILE - 1) / TILE);
}

bool pd_wino_add(pd_wino_shape *s, const pd_conv_shape *c)
{
    const bool kernel = (c->kh == 3 && c->kw == 3) || (c->kh == 3 && c->kw == 1) || (c->kh == 1 && c->kw == 3);
    const bool plain = c->stride == 1 && c->groups == 1 && c->pad_h == c->kh / 2 && c->pad_w == c->kw / 2;
    if (!choose_isa() || !kernel || !plain || c->c % 16 || c->k % 16 || c->n < 1 || c->h < 1 || c->w < 1) return false;
    if (s->count == PD_WINO_MAX) return false;
    if (s->count && (s->n != c->n || s->h != c->h || s->w != c->w || s->c != c->c)) return false;
    int chunks = (c->k + CHUNK - 1) / CHUNK;
    for (int j = 0; j < s->count; j++) chunks += (s->conv[j].k + CHUNK - 1) / CHUNK;
    if (chunks > MAX_CHUNKS || (c->c + CHUNK - 1) / CHUNK > MAX_CHUNKS) return false;
    s->n = c->n;
    s->h = c->h;
    s->w = c->w;
    s->c = c->c;
    s->conv[s->count].k = c->k;
    s->conv[s->count].kh = c->kh;
    s->conv[s->count++].kw = c->kw;
    return true;
}

/* In multiply-adds at the peak; the weights of the parts were measured on Zen 5. */
bool pd_wino_pays(const pd_wino_shape *s, bool constant)
{
    const double pixels = (double)s->n * s->h * s->w, c = s->c;
    const double tiles = (double)round_up(tile_count(s), ROWS);
    double direct = 0, ours = 200 * tiles * c;
    for (int j = 0; j < s->count; j++) {
        const double k = s->conv[j].k, taps = s->conv[j].kh * s->conv[j].kw;
        direct += pixels * taps * c * k / 0.9;
        ours += (taps == 9 ? 36 : 24) * tiles * c * k / 0.75 + 200 * tiles * k;
        ours += (constant ? 600 : 260) * c * k; /* reading 36 places from memory, or making them */
    }
    return ours < 0.9 * direct;
}

/* ---- the work of one call ---------------------------------------------------------------------------------------- */

/* Up to CHUNK channels of one source. */
typedef struct chunk {
    int source, first, count;
    size_t v, u; /* where its planes begin in a block's V, in a panel's U */
} chunk;

/* A tensor whose tiles are transformed. */
typedef struct source {
    const float *x;
    int c;
} source;

typedef struct work {
    const wino_isa *isa;
    const pd_wino_shape *s;
    source source[PD_WINO_MAX];
    chunk chunk[MAX_CHUNKS];
    int chunks;
    size_t v_block, u_panel; /* floats of one block's V, of one panel's U */
    /* tiles */
    int tiles_h, tiles_w;
    size_t tiles, block, blocks, wave; /* wave: blocks of one wave */
    size_t first, now;                 /* first block of this wave, and their number */
    /* memory */
    float *v;
    char *local; /* every thread's own */
    size_t local_bytes;
    /* products */
    const float *const *w;
    const float *packed;
    bool flip;
    int results;
    struct {
        float *y;
        int k;
        wino_form form;
    } result[PD_WINO_MAX];
    const float *bias, *residual;
    bool relu;
} work;

static size_t plane_of(size_t rows, size_t columns)
{
    return rows * columns + GAP;
}

/* Lays out chunks of the sources, and cuts the tiles into blocks and waves. */
static void set_up(work *a, const pd_wino_shape *s, int sources, size_t panels, int threads, size_t wave_bytes)
{
    a->isa = choose_isa();
    a->s = s;
    a->tiles_h = (s->h + TILE - 1) / TILE;
    a->tiles_w = (s->w + TILE - 1) / TILE;
    a->tiles = tile_count(s);
    size_t parts = (a->tiles + BLOCK - 1) / BLOCK;
    while (parts * panels < 2 * (size_t)threads && a->tiles / parts > 2 * ROWS) parts *= 2;
    a->block = round_up((a->tiles + parts - 1) / parts, ROWS);
    a->blocks = (a->tiles + a->block - 1) / a->block;
    for (int i = 0; i < sources; i++)
        for (int c = 0; c < a->source[i].c; c += CHUNK) {
            chunk *k = &a->chunk[a->chunks++];
            const size_t count = least((size_t)(a->source[i].c - c), CHUNK);
            *k = (chunk){i, c, (int)count, a->v_block, a->u_panel};
            a->v_block += PLACES * plane_of(a->block, count);
            a->u_panel += PLACES * plane_of(count, PANEL);
        }
    a->wave = wave_bytes / (a->v_block * sizeof(float));
    if (a->wave < 1) a->wave = 1;
    if (a->wave > a->blocks) a->wave = a->blocks;
}

static size_t block_tiles(const work *a, size_t block)
{
    return least(a->tiles - block * a->block, a->block);
}

/* Image and upper left output pixel of a tile. */
static void tile_at(const work *a, size_t tile, int *n, int *y, int *x)
{
    const size_t per_image = (size_t)a->tiles_h * (size_t)a->tiles_w, rest = tile % per_image;
    *n = (int)(tile / per_image);
    *y = (int)(rest / (size_t)a->tiles_w) * TILE;
    *x = (int)(rest % (size_t)a->tiles_w) * TILE;
}

/* Pointers to side x side pixels from (y, x) of image n; outside the picture: zeros. */
static void find_pixels(const work *a, const float *x, int c, int n, int py, int px, int side, const float **pixel)
{
    for (int r = 0; r < side; r++) {
        const int y = py + r;
        const float *row = x + ((ptrdiff_t)n * a->s->h + y) * a->s->w * c + (ptrdiff_t)px * c;
        for (int i = 0; i < side; i++)
            pixel[r * side + i] =
                y >= 0 && y < a->s->h && px + i >= 0 && px + i < a->s->w ? row + (ptrdiff_t)i * c : zeros;
    }
}

/* ROWS tiles of one chunk: jobs are (block of the wave, rows, chunk). */
static void transform(const work *a, size_t job, float *v, bool gradient)
{
    const size_t groups = a->block / ROWS, jc = job % (size_t)a->chunks, jr = job / (size_t)a->chunks % groups;
    const size_t jb = job / (size_t)a->chunks / groups, count = block_tiles(a, a->first + jb);
    const chunk *k = &a->chunk[jc];
    const source *from = &a->source[k->source];
    const size_t plane = plane_of(a->block, (size_t)k->count);
    v += jb * a->v_block + k->v;
    if (jr * ROWS >= count) return;
    for (size_t r = jr * ROWS; r < (jr + 1) * ROWS; r++) {
        float *to = v + r * (size_t)k->count;
        if (r >= count) { /* fills the last rows: products of zeros */
            for (size_t p = 0; p < PLACES; p++) memset(to + p * plane, 0, (size_t)k->count * sizeof *to);
            continue;
        }
        int n, y, x;
        const float *pixel[PLACES];
        tile_at(a, (a->first + jb) * a->block + r, &n, &y, &x);
        if (gradient) {
            find_pixels(a, from->x + k->first, from->c, n, y, x, TILE, pixel);
            a->isa->gradient(pixel, (size_t)k->count, to, plane);
        } else {
            find_pixels(a, from->x + k->first, from->c, n, y - 1, x - 1, TILE + 2, pixel);
            a->isa->input(pixel, (size_t)k->count, to, plane);
        }
    }
}

static void transform_inputs(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const work *a = arg;
    for (size_t job = begin; job < end; job++) transform(a, job, a->v, false);
}

static size_t transform_jobs(const work *a)
{
    return a->now * (a->block / ROWS) * (size_t)a->chunks;
}

/* ---- forward and data gradient: products of tiles and kernels ---------------------------------------------------- */

static size_t panels_of(int k)
{
    return ((size_t)k + PANEL - 1) / PANEL;
}

/* Which result a panel belongs to and its first channel. */
static int find_panel(const work *a, size_t panel, int *first, int *lanes)
{
    int j = 0;
    while (panel >= panels_of(a->result[j].k)) panel -= panels_of(a->result[j++].k);
    *first = (int)panel * PANEL;
    *lanes = a->result[j].k - *first < PANEL ? 16 : PANEL;
    return j;
}

static wino_form chunk_form(const work *a, int result, const chunk *k)
{
    return form_of(a->s, a->flip ? k->source : result);
}

/* U of one chunk for the panel of result j that begins at channel `first`. */
static void make_kernels(const work *a, int j, int first, int lanes, const chunk *k, float *u)
{
    const int conv = a->flip ? k->source : j;
    const size_t tstride = (size_t)a->s->c, kstride = tstride * (size_t)(a->s->conv[conv].kh * a->s->conv[conv].kw);
    const size_t plane = plane_of((size_t)k->count, PANEL);
    if (lanes < PANEL) memset(u, 0, PLACES * plane * sizeof *u);
    if (a->flip)
        a->isa->flipped(a->w[conv] + (size_t)k->first * kstride + first, kstride, tstride, form_of(a->s, conv), lanes,
                        (size_t)k->count, u, plane);
    else
        a->isa->kernel(a->w[conv] + (size_t)first * kstride + k->first, kstride, tstride, form_of(a->s, conv), lanes,
                       (size_t)k->count, u, plane);
}

/* The tiles of one block into the pixels of a result. */
static void put_block(const work *a, size_t block, int j, int first, int lanes, const float *m, size_t plane)
{
    const int k = a->result[j].k;
    const float *bias = a->bias ? a->bias + first : NULL;
    for (size_t r = 0; r < block_tiles(a, block); r++) {
        int n, y, x;
        tile_at(a, block * a->block + r, &n, &y, &x);
        const size_t at = (((size_t)n * (size_t)a->s->h + (size_t)y) * (size_t)a->s->w + (size_t)x) * (size_t)k;
        a->isa->output(m + r * PANEL, plane, a->result[j].form, a->result[j].y + at + first,
                       (size_t)a->s->w * (size_t)k, (size_t)k, a->s->h - y < TILE ? a->s->h - y : TILE,
                       a->s->w - x < TILE ? a->s->w - x : TILE, lanes, bias,
                       a->residual ? a->residual + at + first : NULL, a->relu);
    }
}

/* One block of tiles for one panel of outputs. u: the panel's kernels; where `make` is set they are made first, and
 * with `keep` each chunk at its own place. */
static void multiply_block(const work *a, size_t block, int j, int first, int lanes, const float *u, float *make,
                           bool keep, float *m)
{
    const size_t groups = round_up(block_tiles(a, block), ROWS) / ROWS, plane = plane_of(a->block, PANEL);
    const float *v = a->v + (block - a->first) * a->v_block;
    bool started[PLACES] = {false};
    for (const chunk *k = a->chunk; k < a->chunk + a->chunks; k++) {
        const size_t count = (size_t)k->count, vplane = plane_of(a->block, count), uplane = plane_of(count, PANEL);
        const wino_form form = chunk_form(a, j, k);
        const float *kernels = make && !keep ? make : u + k->u;
        if (make) make_kernels(a, j, first, lanes, k, make + (keep ? k->u : 0));
        for (int p = 0; p < PLACES; p++) {
            if (place_is_zero(form, p)) continue;
            for (size_t g = 0; g < groups; g++)
                a->isa->by_rows(v + k->v + (size_t)p * vplane + g * ROWS * count, count, kernels + (size_t)p * uplane,
                                PANEL, count, m + (size_t)p * plane + g * ROWS * PANEL, started[p]);
            started[p] = true;
        }
    }
    for (int p = 0; p < PLACES; p++)
        if (!started[p]) memset(m + (size_t)p * plane, 0, plane * sizeof *m);
    put_block(a, block, j, first, lanes, m, plane);
}

/* Jobs are (panel, block of the wave); a thread makes the kernels of a panel when it comes to it. */
static void multiply_jobs(void *arg, size_t begin, size_t end, int thread)
{
    const work *a = arg;
    float *m = (float *)(void *)(a->local + (size_t)thread * a->local_bytes);
    float *own = m + PLACES * plane_of(a->block, PANEL);
    const bool keep = a->now > 1;
    size_t have = (size_t)-1;
    for (size_t job = begin; job < end; job++) {
        const size_t panel = job / a->now;
        int first, lanes;
        const int j = find_panel(a, panel, &first, &lanes);
        const bool make = !a->packed && (!keep || panel != have);
        multiply_block(a, a->first + job % a->now, j, first, lanes, a->packed ? a->packed + panel * a->u_panel : own,
                       make ? own : NULL, keep, m);
        have = panel;
    }
}

static void run_products(work *a, pd_pool *pool)
{
    size_t panels = 0;
    for (int j = 0; j < a->results; j++) panels += panels_of(a->result[j].k);
    for (a->first = 0; a->first < a->blocks; a->first += a->wave) {
        a->now = least(a->blocks - a->first, a->wave);
        pd_parallel(pool, transform_jobs(a), transform_inputs, a);
        pd_parallel(pool, panels * a->now, multiply_jobs, a);
    }
}

/* Places the call's memory; returns its bytes. scratch may be NULL. */
static size_t place_products(work *a, int threads, bool packed, void *scratch)
{
    const size_t v = round_up(a->wave * a->v_block * sizeof(float), PD_ALIGN);
    size_t u = 0;
    if (!packed) u = a->wave > 1 ? a->u_panel : PLACES * plane_of(CHUNK, PANEL);
    a->local_bytes = round_up((PLACES * plane_of(a->block, PANEL) + u) * sizeof(float), 4096) + 2 * PD_ALIGN;
    a->v = scratch;
    a->local = scratch ? (char *)scratch + v : NULL;
    return v + (size_t)threads * a->local_bytes;
}

static void set_up_fwd(work *a, const pd_wino_shape *s, int threads)
{
    size_t panels = 0;
    a->results = s->count;
    for (int j = 0; j < s->count; j++) {
        a->result[j].k = s->conv[j].k;
        a->result[j].form = form_of(s, j);
        panels += panels_of(s->conv[j].k);
    }
    a->source[0].c = s->c;
    set_up(a, s, 1, panels, threads, WAVE_BYTES);
}

static void set_up_bwd_data(work *a, const pd_wino_shape *s, int threads)
{
    a->flip = true;
    a->results = 1;
    a->result[0].k = s->c;
    a->result[0].form = (wino_form){true, true};
    for (int j = 0; j < s->count; j++) a->source[j].c = s->conv[j].k;
    set_up(a, s, s->count, panels_of(s->c), threads, WAVE_BYTES);
}

size_t pd_wino_fwd_scratch(const pd_wino_shape *s, int threads)
{
    work a = {0};
    set_up_fwd(&a, s, threads);
    return place_products(&a, threads, false, NULL);
}

void pd_wino_fwd(pd_pool *pool, const pd_wino_shape *s, const float *x, const float *const *w, const float *packed,
                 float *const *y, const pd_wino_after *after, void *scratch)
{
    work a = {0};
    const int threads = pd_pool_threads(pool);
    set_up_fwd(&a, s, threads);
    (void)place_products(&a, threads, packed != NULL, scratch);
    a.source[0].x = x;
    a.w = w;
    a.packed = packed;
    for (int j = 0; j < s->count; j++) a.result[j].y = y[j];
    if (after) {
        a.bias = after->bias;
        a.residual = after->residual;
        a.relu = after->relu;
    }
    run_products(&a, pool);
}

size_t pd_wino_bwd_data_scratch(const pd_wino_shape *s, int threads)
{
    work a = {0};
    set_up_bwd_data(&a, s, threads);
    return place_products(&a, threads, false, NULL);
}

void pd_wino_bwd_data(pd_pool *pool, const pd_wino_shape *s, const float *const *w, const float *const *dy, float *dx,
                      bool add, void *scratch)
{
    work a = {0};
    const int threads = pd_pool_threads(pool);
    set_up_bwd_data(&a, s, threads);
    (void)place_products(&a, threads, false, scratch);
    for (int j = 0; j < s->count; j++) a.source[j].x = dy[j];
    a.w = w;
    a.result[0].y = dx;
    a.residual = add ? dx : NULL;
    run_products(&a, pool);
}

/* ---- kernels made once ------------------------------------------------------------------------------------------- */

typedef struct packing {
    work a;
    float *to;
} packing;

static void pack_panels(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const packing *p = arg;
    for (size_t panel = begin; panel < end; panel++) {
        int first, lanes;
        const int j = find_panel(&p->a, panel, &first, &lanes);
        for (int k = 0; k < p->a.chunks; k++)
            make_kernels(&p->a, j, first, lanes, &p->a.chunk[k], p->to + panel * p->a.u_panel + p->a.chunk[k].u);
    }
}

static size_t all_panels(const pd_wino_shape *s)
{
    size_t panels = 0;
    for (int j = 0; j < s->count; j++) panels += panels_of(s->conv[j].k);
    return panels;
}

size_t pd_wino_packed_bytes(const pd_wino_shape *s)
{
    work a = {0};
    set_up_fwd(&a, s, 1);
    return all_panels(s) * a.u_panel * sizeof(float);
}

void pd_wino_pack(pd_pool *pool, const pd_wino_shape *s, const float *const *w, float *packed)
{
    packing p = {.to = packed};
    set_up_fwd(&p.a, s, 1);
    p.a.w = w;
    pd_parallel(pool, all_panels(s), pack_panels, &p);
}

/* ---- weight gradient: products of tiles and gradients, summed over the tiles ------------------------------------- */

typedef struct weight_work {
    work x, dy;  /* the same blocks and waves */
    float *sums; /* of all kernels between waves; NULL where one wave is enough */
    float *dw;
    bool add;
    int conv;
    size_t rows; /* output channels of a job */
} weight_work;

static size_t sums_of_job(const weight_work *a)
{
    return PLACES * plane_of(a->rows, PANEL);
}

/* Jobs are (rows of output channels, panel of input channels). */
static size_t weight_jobs(const weight_work *a, int conv)
{
    return round_up((size_t)a->x.s->conv[conv].k, a->rows) / a->rows * panels_of(a->x.s->c);
}

static void transform_gradients(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const weight_work *a = arg;
    for (size_t job = begin; job < end; job++) transform(&a->dy, job, a->dy.v, true);
}

static void multiply_weights(void *arg, size_t begin, size_t end, int thread)
{
    const weight_work *a = arg;
    const pd_wino_shape *s = a->x.s;
    const size_t panels = panels_of(s->c), plane = plane_of(a->rows, PANEL);
    const wino_form form = form_of(s, a->conv);
    const size_t tstride = (size_t)s->c, kstride = tstride * (size_t)(s->conv[a->conv].kh * s->conv[a->conv].kw);
    for (size_t job = begin; job < end; job++) {
        const size_t k0 = job / panels * a->rows, c0 = job % panels * PANEL;
        const size_t rows = least((size_t)s->conv[a->conv].k - k0, a->rows);
        const chunk *kx = &a->x.chunk[c0 / CHUNK], *kd = &a->dy.chunk[k0 / CHUNK];
        const size_t xplane = plane_of(a->x.block, (size_t)kx->count), dplane = plane_of(a->x.block, (size_t)kd->count);
        float *sum = a->sums ? a->sums + job * sums_of_job(a)
                             : (float *)(void *)(a->x.local + (size_t)thread * a->x.local_bytes);
        for (size_t b = 0; b < a->x.now; b++) {
            const float *v = a->x.v + b * a->x.v_block + kx->v + c0 % CHUNK;
            const float *d = a->dy.v + b * a->dy.v_block + kd->v + k0 % CHUNK;
            const size_t depth = block_tiles(&a->x, a->x.first + b);
            const bool add = b > 0 || a->x.first > 0;
            for (int p = 0; p < PLACES; p++)
                for (size_t r = 0; r < rows && !place_is_zero(form, p); r += ROWS)
                    a->x.isa->by_columns(d + (size_t)p * dplane + r, (size_t)kd->count, v + (size_t)p * xplane,
                                         (size_t)kx->count, depth, sum + (size_t)p * plane + r * PANEL, add);
        }
        if (a->x.first + a->x.now < a->x.blocks) continue;
        a->x.isa->taps(sum, plane, form, a->dw + k0 * kstride + c0, kstride, tstride, rows,
                       (size_t)s->c - c0 < PANEL ? 16 : PANEL, a->add);
    }
}

/* Lays out both sides for one convolution; returns the bytes of the call. */
static size_t set_up_weights(weight_work *a, const pd_wino_shape *s, int threads, void *scratch)
{
    int widest = 0;
    for (int j = 0; j < s->count; j++) widest = s->conv[j].k > widest ? s->conv[j].k : widest;
    /* sums that go back and forth between waves are worth waves of twice their size */
    size_t bytes = 2 * PLACES * sizeof(float) * (size_t)widest * (size_t)s->c;
    if (bytes < WAVE_BYTES) bytes = WAVE_BYTES;
    a->x.source[0].c = s->c;
    a->dy.source[0].c = widest;
    set_up(&a->dy, s, 1, 1, 1, bytes / 2);
    set_up(&a->x, s, 1, 1, 1, bytes / 2);
    a->x.wave = a->dy.wave = least(a->x.wave, a->dy.wave);
    a->rows = CHUNK;
    while (a->rows > 16 && (size_t)widest / a->rows * panels_of(s->c) < 2 * (size_t)threads) a->rows /= 2;
    size_t sums = 0, jobs = 0;
    for (int j = 0; j < s->count; j++) jobs += weight_jobs(a, j);
    if (a->x.wave < a->x.blocks) sums = jobs * sums_of_job(a) * sizeof(float);
    const size_t v = round_up(a->x.wave * a->x.v_block * sizeof(float), PD_ALIGN);
    const size_t d = round_up(a->dy.wave * a->dy.v_block * sizeof(float), PD_ALIGN);
    a->x.local_bytes = round_up(sums_of_job(a) * sizeof(float), 4096) + 2 * PD_ALIGN;
    char *at = scratch;
    if (at) {
        a->x.v = (float *)(void *)at;
        a->dy.v = (float *)(void *)(at + v);
        a->x.local = at + v + d;
        a->sums = sums ? (float *)(void *)(at + v + d) : NULL;
    }
    return v + d + (sums ? sums : (size_t)threads * a->x.local_bytes);
}

size_t pd_wino_bwd_weights_scratch(const pd_wino_shape *s, int threads)
{
    weight_work a = {0};
    a.x.s = s;
    return set_up_weights(&a, s, threads, NULL);
}

void pd_wino_bwd_weights(pd_pool *pool, const pd_wino_shape *s, const float *x, const float *const *dy,
                         float *const *dw, const bool *add, void *scratch)
{
    weight_work a = {0};
    a.x.s = s;
    (void)set_up_weights(&a, s, pd_pool_threads(pool), scratch);
    a.x.source[0].x = x;
    float *const sums = a.sums;
    for (a.x.first = 0; a.x.first < a.x.blocks; a.x.first += a.x.wave) {
        a.x.now = a.dy.now = least(a.x.blocks - a.x.first, a.x.wave);
        a.dy.first = a.x.first;
        pd_parallel(pool, transform_jobs(&a.x), transform_inputs, &a.x);
        a.sums = sums;
        for (int j = 0; j < s->count; j++) {
            if (!dw[j]) continue;
            a.dy.source[0] = (source){dy[j], s->conv[j].k};
            a.dy.chunks = (s->conv[j].k + CHUNK - 1) / CHUNK;
            a.dw = dw[j];
            a.add = add[j];
            a.conv = j;
            pd_parallel(pool, transform_jobs(&a.dy), transform_gradients, &a);
            pd_parallel(pool, weight_jobs(&a, j), multiply_weights, &a);
            if (sums) a.sums += weight_jobs(&a, j) * sums_of_job(&a);
        }
    }
}
