#include "engine/arena.h"
#include "kernels/simd.h"
#include "kernels/winograd_tiles.h"

#define BLOCK 64
#define MOST_GROUPS 4
#define WAVE_BYTES ((size_t)8 << 20) /* transforms that stay in the last-level cache */
#define SUM_BYTES ((size_t)1 << 20)  /* sums of one kernel that may go back and forth for every block */

/* The weight gradient: for each of the 36 places dU(k, c) = sum over the tiles of D(tile, k) V(tile, c), with D the
 * transformed gradients. A job is the sums of some output channels (rows) and a panel of input channels.
 *
 * Many tiles, few channels: the tiles are cut into up to four groups (their number depends on the shape alone), every
 * thread transforms the blocks of its own groups, adds their products to the group's sums, and in the end the groups
 * are added: transforms stay in the core's cache, activations where they are. Few tiles, many channels: the tiles come
 * in waves: V, then for every convolution D and the products. Jobs are ordered by panels, so that the thread that
 * transforms a panel's V is the one that reads it. */
typedef struct work {
    wino_tiles x, dy; /* the same blocks; dy: of the convolution at hand, or of the widest */
    size_t rows;      /* output channels of a job */
    float *sums;      /* of all jobs: (groups, jobs); NULL where a job is done at once */
    char *local;      /* every thread's own */
    size_t local_bytes;
    const float *const *gradient;
    float *const *dw;
    const bool *add;
    size_t jobs;  /* of all convolutions */
    size_t range; /* panels that one thread works on */
    /* groups */
    size_t groups, parts; /* a group's panels can be shared out among several threads */
    /* waves */
    size_t wave, first, now; /* blocks of a wave; first block of this one, and their number */
    float *v, *d;
    int conv; /* at hand */
    size_t first_job;
} work;

static size_t row_jobs(const work *a, int conv)
{
    return ((size_t)a->x.s->conv[conv].k + a->rows - 1) / a->rows;
}

static size_t jobs_of(const work *a, int conv)
{
    return pd_panels(a->x.s->c) * row_jobs(a, conv);
}

static size_t job_floats(const work *a)
{
    return PLACES * wino_plane(a->rows, PANEL);
}

/* Output channels and input channels that a job begins with. In a thread's range of panels all panels of one row of
 * jobs come first: D of these rows stays in the cache. */
static void find_job(const work *a, int conv, size_t job, size_t *k0, size_t *c0)
{
    const size_t panels = pd_panels(a->x.s->c), per_range = a->range * row_jobs(a, conv);
    const size_t begin = job / per_range * a->range, width = wino_least(panels - begin, a->range);
    *k0 = job % per_range / width * a->rows;
    *c0 = (begin + job % per_range % width) * PANEL;
}

/* Makes dy describe convolution j: chunks of its outputs, laid out as those of the widest. */
static void point_at(wino_tiles *dy, const float *gradient, int k)
{
    dy->source[0] = (wino_source){gradient, k};
    dy->chunks = (k + CHUNK - 1) / CHUNK;
    for (int i = 0; i < dy->chunks; i++) dy->chunk[i].count = (int)wino_least((size_t)(k - i * CHUNK), CHUNK);
}

/* V of one panel of a block. */
static void transform_panel(const work *a, size_t panel, size_t block, float *v)
{
    const size_t c = panel * PANEL;
    const wino_chunk *k = &a->x.chunk[c / CHUNK];
    const int first = (int)(c % CHUNK), count = k->count - first < PANEL ? k->count - first : PANEL;
    pd_wino_transform(&a->x, block, 0, pd_wino_block_tiles(&a->x, block), k, first, count, false, v);
}

/* Adds a block's products to one job's sums. */
static void multiply(const work *a, const wino_tiles *dy, int conv, size_t job, size_t block, const float *v,
                     const float *d, float *sum, bool add)
{
    size_t k0, c0;
    find_job(a, conv, job, &k0, &c0);
    const size_t rows = wino_least((size_t)a->x.s->conv[conv].k - k0, a->rows),
                 depth = pd_wino_block_tiles(&a->x, block);
    const wino_form form = pd_wino_form_of(a->x.s, conv);
    const wino_chunk *kx = &a->x.chunk[c0 / CHUNK], *kd = &dy->chunk[k0 / CHUNK];
    const size_t xplane = wino_plane(a->x.block, (size_t)kx->count), dplane = wino_plane(a->x.block, (size_t)kd->count);
    const size_t plane = wino_plane(a->rows, PANEL);
    v += kx->v + c0 % CHUNK;
    d += kd->v + k0 % CHUNK;
    for (size_t p = 0; p < PLACES; p++)
        for (size_t r = 0; r < rows && !pd_wino_place_is_zero(form, (int)p); r += ROWS)
            a->x.isa->by_columns(d + p * dplane + r, (size_t)kd->count, v + p * xplane, (size_t)kx->count, depth,
                                 sum + p * plane + r * PANEL, add);
}

/* From sums to the taps of a job. */
static void finish(const work *a, int conv, size_t job, const float *sum)
{
    const pd_wino_shape *s = a->x.s;
    size_t k0, c0;
    find_job(a, conv, job, &k0, &c0);
    const size_t tstride = (size_t)s->c, kstride = tstride * (size_t)(s->conv[conv].kh * s->conv[conv].kw);
    a->x.isa->taps(sum, wino_plane(a->rows, PANEL), pd_wino_form_of(s, conv), a->dw[conv] + k0 * kstride + c0, kstride,
                   tstride, wino_least((size_t)s->conv[conv].k - k0, a->rows), (size_t)s->c - c0 < PANEL ? 16 : PANEL,
                   a->add[conv]);
}

/* ---- groups of tiles ---- */

static void own_groups(void *arg, size_t begin, size_t end, int thread)
{
    const work *a = arg;
    const pd_wino_shape *s = a->x.s;
    float *v = (float *)(void *)(a->local + (size_t)thread * a->local_bytes), *d = v + a->x.v_block;
    wino_tiles dy = a->dy;
    for (size_t unit = begin; unit < end; unit++) {
        const size_t group = unit / a->parts, part = unit % a->parts, panels = pd_panels(s->c);
        const size_t p0 = part * a->range, p1 = wino_least(p0 + a->range, panels);
        const size_t b0 = a->x.blocks * group / a->groups, b1 = a->x.blocks * (group + 1) / a->groups;
        for (size_t block = b0; block < b1; block++) {
            float *sum = a->sums + group * a->jobs * job_floats(a);
            for (size_t p = p0; p < p1; p++) transform_panel(a, p, block, v);
            for (int j = 0; j < s->count; sum += jobs_of(a, j++) * job_floats(a)) {
                if (!a->dw[j]) continue;
                point_at(&dy, a->gradient[j], s->conv[j].k);
                for (int i = 0; i < dy.chunks; i++)
                    pd_wino_transform(&dy, block, 0, pd_wino_block_tiles(&dy, block), &dy.chunk[i], 0,
                                      dy.chunk[i].count, true, d);
                for (size_t job = p0 * row_jobs(a, j); job < p1 * row_jobs(a, j); job++)
                    multiply(a, &dy, j, job, block, v, d, sum + job * job_floats(a), block > b0);
            }
        }
    }
}

PD_CLONES static void add_floats(float *restrict to, const float *restrict from, size_t n)
{
    for (size_t i = 0; i < n; i++) to[i] += from[i];
}

static void add_groups(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const work *a = arg;
    const size_t n = job_floats(a);
    for (size_t job = begin; job < end; job++) {
        float *sum = a->sums + job * n;
        int conv = 0;
        size_t index = job;
        while (index >= jobs_of(a, conv)) index -= jobs_of(a, conv++);
        if (!a->dw[conv]) continue;
        for (size_t g = 1; g < a->groups; g++) add_floats(sum, sum + g * a->jobs * n, n);
        finish(a, conv, index, sum);
    }
}

/* ---- waves of tiles ---- */

/* Jobs are (panel of channels, block of the wave). */
static void transform_inputs(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const work *a = arg;
    for (size_t job = begin; job < end; job++)
        transform_panel(a, job / a->now, a->first + job % a->now, a->v + job % a->now * a->x.v_block);
}

/* Jobs are (block of the wave, chunk of channels). */
static void transform_gradients(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const work *a = arg;
    for (size_t job = begin; job < end; job++) {
        const size_t block = job / (size_t)a->dy.chunks;
        const wino_chunk *k = &a->dy.chunk[job % (size_t)a->dy.chunks];
        pd_wino_transform(&a->dy, a->first + block, 0, pd_wino_block_tiles(&a->dy, a->first + block), k, 0, k->count,
                          true, a->d + block * a->dy.v_block);
    }
}

static void multiply_jobs(void *arg, size_t begin, size_t end, int thread)
{
    const work *a = arg;
    for (size_t job = begin; job < end; job++) {
        float *sum = a->sums ? a->sums + (a->first_job + job) * job_floats(a)
                             : (float *)(void *)(a->local + (size_t)thread * a->local_bytes);
        for (size_t b = 0; b < a->now; b++)
            multiply(a, &a->dy, a->conv, job, a->first + b, a->v + b * a->x.v_block, a->d + b * a->dy.v_block, sum,
                     a->first + b > 0);
        if (a->first + a->now == a->x.blocks) finish(a, a->conv, job, sum);
    }
}

static void run_waves(work *a, pd_pool *pool)
{
    const pd_wino_shape *s = a->x.s;
    for (a->first = 0; a->first < a->x.blocks; a->first += a->wave) {
        a->now = wino_least(a->x.blocks - a->first, a->wave);
        a->first_job = 0;
        pd_parallel(pool, pd_panels(s->c) * a->now, transform_inputs, a);
        for (a->conv = 0; a->conv < s->count; a->first_job += jobs_of(a, a->conv++)) {
            if (!a->dw[a->conv]) continue;
            point_at(&a->dy, a->gradient[a->conv], s->conv[a->conv].k);
            pd_parallel(pool, a->now * (size_t)a->dy.chunks, transform_gradients, a);
            pd_parallel(pool, jobs_of(a, a->conv), multiply_jobs, a);
        }
    }
}

/* ---- both ---- */

static size_t aligned_bytes(size_t floats)
{
    return wino_round_up(floats * sizeof(float), 4096) + PD_ALIGN;
}

static size_t place_groups(work *a, size_t threads, char *at)
{
    const size_t sums = aligned_bytes(a->groups * a->jobs * job_floats(a));
    const size_t panels = pd_panels(a->x.s->c);
    a->range = (panels + (threads + a->groups - 1) / a->groups - 1) / ((threads + a->groups - 1) / a->groups);
    a->parts = (panels + a->range - 1) / a->range;
    a->local_bytes = aligned_bytes(a->x.v_block + a->dy.v_block);
    a->sums = (float *)(void *)at;
    a->local = at ? at + sums : NULL;
    return sums + threads * a->local_bytes;
}

static size_t place_waves(work *a, size_t kernel_bytes, size_t threads, char *at)
{
    /* sums that go back and forth between waves are worth waves of twice their size */
    const size_t bytes = 2 * kernel_bytes > WAVE_BYTES ? 2 * kernel_bytes : WAVE_BYTES;
    a->wave = bytes / ((a->x.v_block + a->dy.v_block) * sizeof(float));
    a->range = (pd_panels(a->x.s->c) + threads - 1) / threads;
    if (a->wave < 1) a->wave = 1;
    if (a->wave > a->x.blocks) a->wave = a->x.blocks;
    const size_t v = aligned_bytes(a->wave * a->x.v_block), d = aligned_bytes(a->wave * a->dy.v_block);
    const size_t sums = a->wave < a->x.blocks ? aligned_bytes(a->jobs * job_floats(a)) : 0;
    a->local_bytes = aligned_bytes(job_floats(a));
    if (at) {
        a->v = (float *)(void *)at;
        a->d = (float *)(void *)(at + v);
        a->local = at + v + d;
        a->sums = sums ? (float *)(void *)a->local : NULL;
    }
    return v + d + (sums ? sums : threads * a->local_bytes);
}

/* Chooses the way of working and lays out the memory; returns its bytes. scratch may be NULL. */
static size_t set_up(work *a, const pd_wino_shape *s, int threads, void *scratch)
{
    int widest = 0;
    for (int j = 0; j < s->count; j++) widest = s->conv[j].k > widest ? s->conv[j].k : widest;
    const size_t kernel_bytes = PLACES * sizeof(float) * (size_t)widest * (size_t)s->c, tiles = pd_wino_tile_count(s);
    size_t parts = (tiles + BLOCK - 1) / BLOCK;
    a->groups = tiles >= 2 * BLOCK && kernel_bytes <= SUM_BYTES ? wino_least(tiles / BLOCK, MOST_GROUPS) : 0;
    if (a->groups) parts = wino_round_up(parts, a->groups);
    a->x.source[0].c = s->c;
    a->dy.source[0].c = widest;
    pd_wino_tiles_init(&a->x, s, 1, parts);
    pd_wino_tiles_init(&a->dy, s, 1, parts);
    a->rows = CHUNK;
    while (!a->groups && a->rows > 16 && (size_t)widest / a->rows * pd_panels(s->c) < 2 * (size_t)threads) a->rows /= 2;
    for (int j = 0; j < s->count; j++) a->jobs += jobs_of(a, j);
    return a->groups ? place_groups(a, (size_t)threads, scratch)
                     : place_waves(a, kernel_bytes, (size_t)threads, scratch);
}

size_t pd_wino_bwd_weights_scratch(const pd_wino_shape *s, int threads)
{
    work a = {.rows = 0};
    return set_up(&a, s, threads, NULL);
}

void pd_wino_bwd_weights(pd_pool *pool, const pd_wino_shape *s, const float *x, const float *const *dy,
                         float *const *dw, const bool *add, void *scratch)
{
    work a = {.gradient = dy, .dw = dw, .add = add};
    (void)set_up(&a, s, pd_pool_threads(pool), scratch);
    a.x.source[0].x = x;
    if (!a.groups) {
        run_waves(&a, pool);
        return;
    }
    pd_parallel(pool, a.groups * a.parts, own_groups, &a);
    pd_parallel(pool, a.jobs, add_groups, &a);
}
