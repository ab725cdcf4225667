/* winograd_tiles.h: how winograd.c and winograd_weights.c cut a picture into tiles and transform them. Private to them.
 *
 * A block is up to 64 tiles; its V is laid out chunk by chunk (up to 64 channels of one source), in a chunk place by
 * place: planes of (tiles, channels). U of a panel of 32 output channels the same way: planes of (channels, 32). */
#ifndef PD_WINOGRAD_TILES_H
#define PD_WINOGRAD_TILES_H

#include "kernels/winograd.h"
#include "kernels/winograd_simd.h"

#define PLACES 36
#define CHUNK PD_TAPS_CHUNK /* channels whose transforms lie together */
#define MAX_CHUNKS 256

/* Up to CHUNK channels of one source. */
typedef struct wino_chunk {
    int source, first, count;
    size_t v, u; /* where its planes begin in a block's V, in a panel's U */
} wino_chunk;

/* A tensor whose tiles are transformed: (n, h, w, c). */
typedef struct wino_source {
    const float *x;
    int c;
} wino_source;

typedef struct wino_tiles {
    const wino_isa *isa;
    const pd_wino_shape *s;
    wino_source source[PD_WINO_MAX];
    wino_chunk chunk[MAX_CHUNKS];
    int chunks;
    size_t v_block, u_panel; /* floats of one block's V, of one panel's U */
    int tiles_h, tiles_w;
    size_t tiles, block, blocks; /* block: tiles of one, a multiple of 4 */
} wino_tiles;

/* Lays out the chunks of t->source[0 .. sources - 1] and cuts the tiles into `parts` blocks. */
void pd_wino_tiles_init(wino_tiles *t, const pd_wino_shape *s, int sources, size_t parts);

size_t pd_wino_tile_count(const pd_wino_shape *s);
size_t pd_wino_block_tiles(const wino_tiles *t, size_t block); /* that exist in this block */

/* Image and upper left output pixel of a tile. */
void pd_wino_tile_at(const wino_tiles *t, size_t tile, int *n, int *y, int *x);

/* V of tiles [begin, end) of a block, for channels first .. first + count - 1 of a chunk (multiples of 16); the tiles
 * behind the block's last are zeros. gradient: of 4 x 4 gradients instead of 6 x 6 inputs. v: the block's. */
void pd_wino_transform(const wino_tiles *t, size_t block, size_t begin, size_t end, const wino_chunk *k, int first,
                       int count, bool gradient, float *v);

/* A 1-wide kernel is zero in columns 0 and 5 of the 36 places. */
bool pd_wino_place_is_zero(wino_form f, int place);
wino_form pd_wino_form_of(const pd_wino_shape *s, int conv);

/* Floats of a plane; the gap keeps 36 planes out of one cache set. */
static inline size_t wino_plane(size_t rows, size_t columns)
{
    return rows * columns + 16;
}

static inline size_t wino_round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static inline size_t wino_least(size_t a, size_t b)
{
    return a < b ? a : b;
}

#endif
