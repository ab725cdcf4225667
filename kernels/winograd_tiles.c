#include "kernels/winograd_tiles.h"

#include <string.h>

#define TILE 4 /* outputs of a tile along one axis; it reads TILE + 2 inputs */

static const float zeros[CHUNK]; /* a pixel of the padding */

const wino_isa *pd_wino_isa(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
        return &pd_wino_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &pd_wino_avx2;
#endif
    return NULL;
}

wino_form pd_wino_form_of(const pd_wino_shape *s, int conv)
{
    return (wino_form){s->conv[conv].kh == 3, s->conv[conv].kw == 3};
}

bool pd_wino_place_is_zero(wino_form f, int place)
{
    const int y = place / 6, x = place % 6;
    return (!f.tall && (y == 0 || y == 5)) || (!f.wide && (x == 0 || x == 5));
}

size_t pd_wino_tile_count(const pd_wino_shape *s)
{
    return (size_t)s->n * (size_t)((s->h + TILE - 1) / TILE) * (size_t)((s->w + TILE - 1) / TILE);
}

bool pd_wino_add(pd_wino_shape *s, const pd_conv_shape *c)
{
    const bool kernel = (c->kh == 3 && c->kw == 3) || (c->kh == 3 && c->kw == 1) || (c->kh == 1 && c->kw == 3);
    const bool plain = c->stride == 1 && c->groups == 1 && c->pad_h == c->kh / 2 && c->pad_w == c->kw / 2;
    if (!pd_wino_isa() || !kernel || !plain || c->c % 16 || c->k % 16 || c->n < 1 || c->h < 1 || c->w < 1) return false;
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
bool pd_wino_pays(const pd_wino_shape *s)
{
    const double pixels = (double)s->n * s->h * s->w, c = s->c;
    const double tiles = (double)wino_round_up(pd_wino_tile_count(s), 4);
    double direct = 0, ours = 200 * tiles * c;
    for (int j = 0; j < s->count; j++) {
        const double k = s->conv[j].k, taps = s->conv[j].kh * s->conv[j].kw;
        direct += pixels * taps * c * k / 0.9;
        ours += (taps == 9 ? 36 : 24) * tiles * c * k / 0.75 + 200 * tiles * k + 150 * c * k;
    }
    return ours < 0.95 * direct;
}

void pd_wino_tiles_init(wino_tiles *t, const pd_wino_shape *s, int sources, size_t parts)
{
    t->isa = pd_wino_isa();
    t->s = s;
    t->tiles_h = (s->h + TILE - 1) / TILE;
    t->tiles_w = (s->w + TILE - 1) / TILE;
    t->tiles = pd_wino_tile_count(s);
    t->block = wino_round_up((t->tiles + parts - 1) / parts, 4);
    t->blocks = (t->tiles + t->block - 1) / t->block;
    for (int i = 0; i < sources; i++)
        for (int c = 0; c < t->source[i].c; c += CHUNK) {
            const size_t count = wino_least((size_t)(t->source[i].c - c), CHUNK);
            t->chunk[t->chunks++] = (wino_chunk){i, c, (int)count, t->v_block, t->u_panel};
            t->v_block += PLACES * wino_plane(t->block, count);
            t->u_panel += PLACES * wino_plane(count, PANEL);
        }
}

size_t pd_wino_block_tiles(const wino_tiles *t, size_t block)
{
    return wino_least(t->tiles - block * t->block, t->block);
}

void pd_wino_tile_at(const wino_tiles *t, size_t tile, int *n, int *y, int *x)
{
    const size_t per_image = (size_t)t->tiles_h * (size_t)t->tiles_w, rest = tile % per_image;
    *n = (int)(tile / per_image);
    *y = (int)(rest / (size_t)t->tiles_w) * TILE;
    *x = (int)(rest % (size_t)t->tiles_w) * TILE;
}

/* Pointers to side x side pixels from (y, x) of image n; outside the picture: zeros. */
static void find_pixels(const pd_wino_shape *s, const float *x, int c, int n, int py, int px, int side,
                        const float **pixel)
{
    for (int r = 0; r < side; r++) {
        const int y = py + r;
        const float *row = x + (((ptrdiff_t)n * s->h + y) * s->w + px) * c;
        for (int i = 0; i < side; i++)
            pixel[r * side + i] = y >= 0 && y < s->h && px + i >= 0 && px + i < s->w ? row + (ptrdiff_t)i * c : zeros;
    }
}

void pd_wino_transform(const wino_tiles *t, size_t block, size_t begin, size_t end, const wino_chunk *k, int first,
                       int count, bool gradient, float *v)
{
    const wino_source *from = &t->source[k->source];
    const float *x = from->x + k->first + first;
    const size_t plane = wino_plane(t->block, (size_t)k->count), tiles = pd_wino_block_tiles(t, block);
    for (size_t r = begin; r < end; r++) {
        float *to = v + k->v + r * (size_t)k->count + (size_t)first;
        int n, py, px;
        const float *pixel[PLACES];
        if (r >= tiles) {
            for (size_t p = 0; p < PLACES; p++) memset(to + p * plane, 0, (size_t)count * sizeof *to);
            continue;
        }
        pd_wino_tile_at(t, block * t->block + r, &n, &py, &px);
        if (gradient) {
            find_pixels(t->s, x, from->c, n, py, px, TILE, pixel);
            t->isa->gradient(pixel, (size_t)count, to, plane);
        } else {
            find_pixels(t->s, x, from->c, n, py - 1, px - 1, TILE + 2, pixel);
            t->isa->input(pixel, (size_t)count, to, plane);
        }
    }
}
