#include "kernels/winograd.h"
#include "engine/arena.h"
#include "kernels/winograd_tiles.h"

#include <string.h>

#define MANY_TILES 48                   /* of a thread: then it keeps to its own tiles */
#define KERNEL_BYTES ((size_t)64 << 20) /* most of transformed kernels that are kept for that */

/* One call: a product of transformed tiles and transformed kernels for every block of tiles and panel of outputs.
 *
 * own_tiles: the kernels of all panels are transformed first, for all threads; then every thread transforms and
 * multiplies its own tiles. The transforms of a block stay in that core's cache, and neither they nor the activations
 * move to another core (which may have another last-level cache). Otherwise, with few tiles and many channels: the
 * tiles are transformed first, for all threads; then every thread transforms and multiplies the kernels of its own
 * panels. */
typedef struct work {
    wino_tiles t;
    bool own_tiles, flip;
    size_t panels;
    float *v;    /* shared: all blocks (not own_tiles) */
    float *u;    /* shared: all panels (own_tiles) */
    char *local; /* every thread's own: products, mixed taps, a block's V or a panel's U */
    size_t local_bytes;
    const float *const *w;
    const pd_panel_taps *taps; /* instead of w */
    const float *mix;
    int results;
    struct {
        float *y;
        int k;
        wino_form form;
    } result[PD_WINO_MAX];
    const float *bias, *residual;
    bool relu;
} work;

#define ROOM ((size_t)9 * PANEL) /* mixed taps of one channel */

/* Which result a panel belongs to and its first channel. */
static int find_panel(const work *a, size_t panel, int *first, int *lanes)
{
    int j = 0;
    while (panel >= pd_panels(a->result[j].k)) panel -= pd_panels(a->result[j++].k);
    *first = (int)panel * PANEL;
    *lanes = a->result[j].k - *first < PANEL ? 16 : PANEL;
    return j;
}

static wino_form chunk_form(const work *a, int result, const wino_chunk *k)
{
    return pd_wino_form_of(a->t.s, a->flip ? k->source : result);
}

/* The chunk of a panel that comes next: its constant kernels are asked for meanwhile. */
typedef struct upcoming {
    const wino_chunk *chunk; /* NULL: nothing to ask for */
    size_t panel;
} upcoming;

static void ask_for(const work *a, upcoming next, size_t step, size_t steps)
{
    if (next.chunk) pd_panel_taps_fetch(a->taps, next.panel, next.chunk->first, next.chunk->count, step, steps);
}

/* U of one chunk of constant kernels. room: for mixed taps. */
static void turn_kernels(const work *a, size_t panel, const wino_chunk *k, float *u, float *room)
{
    const wino_form form = pd_wino_form_of(a->t.s, 0);
    pd_taps_walk walk = pd_panel_taps_begin(a->taps, a->mix, panel, k->first);
    const size_t depth = (size_t)k->count, plane = wino_plane(depth, PANEL);
    if (a->taps->single)
        a->t.isa->turned(pd_panel_taps_next(&walk, k->count, NULL), form, depth, u, plane);
    else
        a->t.isa->mix_turned(&walk, form, depth, room, u, plane);
}

/* U of one chunk for one panel. */
static void make_kernels(const work *a, size_t panel, const wino_chunk *k, float *u, float *room)
{
    int first, lanes;
    const int j = find_panel(a, panel, &first, &lanes), conv = a->flip ? k->source : j;
    const wino_form form = pd_wino_form_of(a->t.s, conv);
    const size_t depth = (size_t)k->count, plane = wino_plane(depth, PANEL);
    if (a->taps) {
        turn_kernels(a, panel, k, u, room);
        return;
    }
    const size_t tstride = (size_t)a->t.s->c, kstride = tstride * (size_t)((form.tall ? 3 : 1) * (form.wide ? 3 : 1));
    if (lanes < PANEL) memset(u, 0, PLACES * plane * sizeof *u);
    if (a->flip)
        a->t.isa->flipped(a->w[conv] + (size_t)k->first * kstride + first, kstride, tstride, form, lanes, depth, u,
                          plane);
    else
        a->t.isa->kernel(a->w[conv] + (size_t)first * kstride + k->first, kstride, tstride, form, lanes, depth, u,
                         plane);
}

/* Adds one chunk's products to m; started: places that have some already. */
static void multiply_chunk(const work *a, int j, const wino_chunk *k, size_t rows, const float *v, const float *u,
                           float *m, bool *started, upcoming next)
{
    const size_t depth = (size_t)k->count, vplane = wino_plane(a->t.block, depth), uplane = wino_plane(depth, PANEL);
    const size_t plane = wino_plane(a->t.block, PANEL);
    const wino_form form = chunk_form(a, j, k);
    for (size_t p = 0; p < PLACES; p++) {
        ask_for(a, next, p, PLACES);
        if (pd_wino_place_is_zero(form, (int)p)) continue;
        for (size_t r = 0; r < rows; r += ROWS)
            a->t.isa->by_rows(v + p * vplane + r * depth, depth, u + p * uplane, PANEL, depth,
                              (int)wino_least(rows - r, ROWS), m + p * plane + r * PANEL, started[p]);
        started[p] = true;
    }
}

/* The tiles of one block into the pixels of a result. */
static void put_block(const work *a, size_t block, int j, int first, int lanes, const float *m)
{
    const int k = a->result[j].k, h = a->t.s->h, w = a->t.s->w;
    const float *bias = a->bias ? a->bias + first : NULL;
    for (size_t r = 0; r < pd_wino_block_tiles(&a->t, block); r++) {
        int n, y, x;
        pd_wino_tile_at(&a->t, block * a->t.block + r, &n, &y, &x);
        const size_t at = (((size_t)n * (size_t)h + (size_t)y) * (size_t)w + (size_t)x) * (size_t)k + (size_t)first;
        a->t.isa->output(m + r * PANEL, wino_plane(a->t.block, PANEL), a->result[j].form, a->result[j].y + at,
                         (size_t)w * (size_t)k, (size_t)k, h - y < 4 ? h - y : 4, w - x < 4 ? w - x : 4, lanes, bias,
                         a->residual ? a->residual + at : NULL, a->relu);
    }
}

/* One block of tiles and one panel. v: the block's; u: the panel's, or NULL: each chunk's kernels are made in `make`.
 */
static void multiply_block(const work *a, size_t block, size_t panel, const float *v, const float *u, float *make,
                           float *room, float *m)
{
    int first, lanes;
    const int j = find_panel(a, panel, &first, &lanes);
    const size_t rows = wino_round_up(pd_wino_block_tiles(&a->t, block), 4), plane = wino_plane(a->t.block, PANEL);
    bool started[PLACES] = {false};
    for (const wino_chunk *k = a->t.chunk, *end = k + a->t.chunks; k < end; k++) {
        upcoming next = {NULL, 0};
        if (!u && a->taps && k + 1 < end)
            next = (upcoming){k + 1, panel};
        else if (!u && a->taps && panel + 1 < a->panels)
            next = (upcoming){a->t.chunk, panel + 1};
        if (!u) make_kernels(a, panel, k, make, room);
        multiply_chunk(a, j, k, rows, v + k->v, u ? u + k->u : make, m, started, next);
    }
    for (size_t p = 0; p < PLACES; p++)
        if (!started[p]) memset(m + p * plane, 0, plane * sizeof *m);
    put_block(a, block, j, first, lanes, m);
}

static float *local_memory(const work *a, int thread)
{
    return (float *)(void *)(a->local + (size_t)thread * a->local_bytes);
}

/* ---- every thread its own tiles ---- */

static void make_all_kernels(void *arg, size_t begin, size_t end, int thread)
{
    const work *a = arg;
    for (size_t job = begin; job < end; job++) {
        const size_t panel = job / (size_t)a->t.chunks;
        const wino_chunk *k = &a->t.chunk[job % (size_t)a->t.chunks];
        make_kernels(a, panel, k, a->u + panel * a->t.u_panel + k->u, local_memory(a, thread));
    }
}

static void own_blocks(void *arg, size_t begin, size_t end, int thread)
{
    const work *a = arg;
    float *m = local_memory(a, thread), *v = m + PLACES * wino_plane(a->t.block, PANEL);
    for (size_t block = begin; block < end; block++) {
        for (const wino_chunk *k = a->t.chunk; k < a->t.chunk + a->t.chunks; k++)
            pd_wino_transform(&a->t, block, 0, wino_round_up(pd_wino_block_tiles(&a->t, block), 4), k, 0, k->count,
                              false, v);
        for (size_t panel = 0; panel < a->panels; panel++)
            multiply_block(a, block, panel, v, a->u + panel * a->t.u_panel, NULL, NULL, m);
    }
}

/* ---- every thread its own panels ---- */

static void transform_all(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const work *a = arg;
    const size_t groups = a->t.block / 4, chunks = (size_t)a->t.chunks;
    for (size_t job = begin; job < end; job++) {
        const size_t block = job / groups / chunks, r = job / chunks % groups * 4;
        const wino_chunk *k = &a->t.chunk[job % chunks];
        pd_wino_transform(&a->t, block, r, r + 4, k, 0, k->count, false, a->v + block * a->t.v_block);
    }
}

/* Jobs are (panel, block). With one block the kernels of a chunk are made just before they are used, in a place that
 * stays in the cache; with several, those of all chunks, once for all blocks of the thread. */
static void own_panels(void *arg, size_t begin, size_t end, int thread)
{
    const work *a = arg;
    float *m = local_memory(a, thread), *room = m + PLACES * wino_plane(a->t.block, PANEL), *u = room + ROOM;
    size_t have = (size_t)-1;
    for (size_t job = begin; job < end; job++) {
        const size_t panel = job / a->t.blocks, block = job % a->t.blocks;
        const float *v = a->v + block * a->t.v_block;
        if (a->t.blocks == 1) {
            multiply_block(a, block, panel, v, NULL, u, room, m);
            continue;
        }
        for (const wino_chunk *k = a->t.chunk; panel != have && k < a->t.chunk + a->t.chunks; k++)
            make_kernels(a, panel, k, u + k->u, room);
        have = panel;
        multiply_block(a, block, panel, v, u, NULL, room, m);
    }
}

/* ---- both ---- */

static size_t aligned_bytes(size_t floats)
{
    return wino_round_up(floats * sizeof(float), 4096) + PD_ALIGN; /* threads' parts do not begin at one cache set */
}

/* Chooses the way of working and the memory's layout; returns its bytes. scratch may be NULL. */
static size_t set_up(work *a, const pd_wino_shape *s, int sources, int threads, void *scratch)
{
    size_t channels = 0, outputs = 0;
    for (int i = 0; i < sources; i++) channels += (size_t)a->t.source[i].c;
    for (int j = 0; j < a->results; j++) {
        a->panels += pd_panels(a->result[j].k);
        outputs += (size_t)a->result[j].k;
    }
    const size_t tiles = pd_wino_tile_count(s), team = (size_t)threads;
    a->own_tiles = tiles >= MANY_TILES * team && PLACES * channels * outputs * sizeof(float) <= KERNEL_BYTES;
    const size_t most = a->own_tiles && channels > 128 ? 32 : 64; /* tiles of a block: its V should stay close */
    size_t parts = (tiles + most - 1) / most;
    if (a->own_tiles) parts = wino_round_up(parts, team);
    while (!a->own_tiles && parts * a->panels < 2 * team && tiles / parts > 16) parts *= 2;
    pd_wino_tiles_init(&a->t, s, sources, parts);

    const size_t m = PLACES * wino_plane(a->t.block, PANEL);
    const size_t shared = aligned_bytes(a->own_tiles ? a->panels * a->t.u_panel : a->t.blocks * a->t.v_block);
    const size_t kernels = a->t.blocks > 1 ? a->t.u_panel : PLACES * wino_plane(CHUNK, PANEL);
    const size_t own = a->own_tiles ? m + a->t.v_block : m + ROOM + kernels;
    a->local_bytes = aligned_bytes(own > ROOM ? own : ROOM);
    a->u = a->v = scratch;
    a->local = scratch ? (char *)scratch + shared : NULL;
    return shared + team * a->local_bytes;
}

static void run(work *a, pd_pool *pool)
{
    if (a->own_tiles) {
        pd_parallel(pool, a->panels * (size_t)a->t.chunks, make_all_kernels, a);
        pd_parallel(pool, a->t.blocks, own_blocks, a);
    } else {
        pd_parallel(pool, a->t.blocks * (a->t.block / 4) * (size_t)a->t.chunks, transform_all, a);
        pd_parallel(pool, a->panels * a->t.blocks, own_panels, a);
    }
}

/* The input is transformed once; every convolution is a result. */
static size_t set_up_fwd(work *a, const pd_wino_shape *s, int threads, void *scratch)
{
    a->results = s->count;
    for (int j = 0; j < s->count; j++) {
        a->result[j].k = s->conv[j].k;
        a->result[j].form = pd_wino_form_of(s, j);
    }
    a->t.source[0].c = s->c;
    return set_up(a, s, 1, threads, scratch);
}

size_t pd_wino_fwd_scratch(const pd_wino_shape *s, int threads)
{
    work a = {0};
    return set_up_fwd(&a, s, threads, NULL);
}

static void run_fwd(work *a, pd_pool *pool, const pd_wino_shape *s, const float *x, float *const *y,
                    const pd_wino_after *after, void *scratch)
{
    (void)set_up_fwd(a, s, pd_pool_threads(pool), scratch);
    a->t.source[0].x = x;
    for (int j = 0; j < s->count; j++) a->result[j].y = y[j];
    if (after) {
        a->bias = after->bias;
        a->residual = after->residual;
        a->relu = after->relu;
    }
    run(a, pool);
}

void pd_wino_fwd(pd_pool *pool, const pd_wino_shape *s, const float *x, const float *const *w, float *const *y,
                 const pd_wino_after *after, void *scratch)
{
    work a = {.w = w};
    run_fwd(&a, pool, s, x, y, after, scratch);
}

void pd_wino_fwd_taps(pd_pool *pool, const pd_wino_shape *s, const float *x, const pd_panel_taps *taps,
                      const float *mix, float *y, const pd_wino_after *after, void *scratch)
{
    work a = {.taps = taps, .mix = mix};
    run_fwd(&a, pool, s, x, &y, after, scratch);
}

/* All gradients are sources of one result: their products are one long sum. */
static size_t set_up_bwd_data(work *a, const pd_wino_shape *s, int threads, void *scratch)
{
    a->flip = true;
    a->results = 1;
    a->result[0].k = s->c;
    a->result[0].form = (wino_form){true, true};
    for (int j = 0; j < s->count; j++) a->t.source[j].c = s->conv[j].k;
    return set_up(a, s, s->count, threads, scratch);
}

size_t pd_wino_bwd_data_scratch(const pd_wino_shape *s, int threads)
{
    work a = {0};
    return set_up_bwd_data(&a, s, threads, NULL);
}

void pd_wino_bwd_data(pd_pool *pool, const pd_wino_shape *s, const float *const *w, const float *const *dy, float *dx,
                      bool add, void *scratch)
{
    work a = {.w = w};
    (void)set_up_bwd_data(&a, s, pd_pool_threads(pool), scratch);
    for (int j = 0; j < s->count; j++) a.t.source[j].x = dy[j];
    a.result[0].y = dx;
    a.residual = add ? dx : NULL;
    run(&a, pool);
}
