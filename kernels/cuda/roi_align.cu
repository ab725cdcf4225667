/* RoIAlign: the boxes' weights along both axes, then sums of pixels, and in reverse sums of bins. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/roi_align.h"
#include "kernels/roi_align.h"
#include "kernels/roi_align_math.h"

#include <math.h>

using namespace pd;

namespace
{

/* Backward: a block has a tile of pixels and up to 32 vectors of channels; a thread has TILE_W pixels of a row. */
constexpr int TILE_H = PD_THREADS / 32, TILE_W = 4;

enum { UNUSED = -1, WRONG = -2 }; /* levels of boxes that read nothing */

/* One axis of one box: all pixels that it reads. */
struct reach {
    int begin, end;
};

/* One bin along one axis: its weights begin at `at`. */
struct cut {
    int first, count;
    unsigned at;
};

/* What pd_roi_cut makes. Of box r and axis a (0: x, 1: y) line 2 r + a. */
struct table {
    int *level;    /* (boxes) */
    reach *all;    /* (lines) */
    cut *bin;      /* (lines, size) */
    float *weight; /* (lines, room) */
    int room;
    size_t bytes;
};

size_t boxes_of(const pd_roi_maps *m)
{
    return (size_t)m->n * (size_t)m->m;
}

table table_of(const pd_roi_maps *m, const void *memory)
{
    const size_t boxes = boxes_of(m), lines = 2 * boxes;
    char *base = (char *)memory;
    size_t used = 0;
    const auto take = [&](size_t bytes) {
        char *at = base ? base + used : nullptr;
        used += pd_align_up(bytes);
        return (void *)at;
    };
    table t;
    t.room = m->longest + 3 * m->size; /* pd_roi_bin */
    t.level = (int *)take(boxes * sizeof(int));
    t.all = (reach *)take(lines * sizeof(reach));
    t.bin = (cut *)take(lines * (size_t)m->size * sizeof(cut));
    t.weight = (float *)take(lines * (size_t)t.room * sizeof(float));
    t.bytes = used;
    return t;
}

/* One thread a line. */
__global__ void cut_boxes(pd_roi_maps m, table t, size_t lines)
{
    for (size_t line = first_item(); line < lines; line += item_step()) {
        const size_t r = line / 2, image = r / (unsigned)m.m;
        const bool is_y = line % 2;
        const int row = (int)(r % (unsigned)m.m), used = m.count ? m.count[image] : m.m;
        const pd_box roi = m.roi[r];
        int level = pd_roi_level(roi, m.levels);
        if (used < 0 || used > m.m)
            level = WRONG;
        else if (row >= used)
            level = UNUSED;
        if (!is_y) t.level[r] = level;
        if (level < 0) continue;
        const int pixels = is_y ? m.h[level] : m.w[level];
        const pd_roi_axis axis = is_y ? pd_roi_axis_of(roi.y1, roi.y2, m.stride[level], m.size, m.ratio, pixels)
                                      : pd_roi_axis_of(roi.x1, roi.x2, m.stride[level], m.size, m.ratio, pixels);
        reach all = {pixels, 0};
        unsigned at = 0;
        float *weight = t.weight + line * (size_t)t.room;
        for (int p = 0; p < m.size; p++) {
            const pd_roi_span s = pd_roi_bin(weight + at, &axis, p);
            const cut c = {s.first, s.count, at};
            t.bin[line * (size_t)m.size + (size_t)p] = c;
            at += (unsigned)s.count;
            if (s.count && s.first < all.begin) all.begin = s.first;
            if (s.count && s.first + s.count > all.end) all.end = s.first + s.count;
        }
        t.all[line] = all;
    }
}

template <class T, int V> __global__ void roi_forward(pd_roi_maps m, table t, T *__restrict__ y, size_t items)
{
    const unsigned wide = (unsigned)(m.c / V), size = (unsigned)m.size;
    for (size_t item = first_item(); item < items; item += item_step()) {
        const unsigned c = (unsigned)(item % wide) * V;
        const size_t place = item / wide, r = place / (size * size);
        const unsigned q = (unsigned)(place % size), p = (unsigned)(place / size % size);
        const int level = t.level[r];
        float sum[V];
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] = level == WRONG ? NAN : 0.f;
        if (level >= 0) {
            const cut bx = t.bin[2 * r * size + q], by = t.bin[(2 * r + 1) * size + p];
            const float *wx = t.weight + 2 * r * (size_t)t.room + bx.at,
                        *wy = t.weight + (2 * r + 1) * (size_t)t.room + by.at;
            const size_t h = (size_t)m.h[level], w = (size_t)m.w[level];
            const T *map = (const T *)m.x[level] +
                           ((r / (unsigned)m.m * h + (size_t)by.first) * w + (size_t)bx.first) * (size_t)m.c + c;
            for (int j = 0; j < by.count; j++) {
                float row[V], v[V];
#pragma unroll
                for (int i = 0; i < V; i++) row[i] = 0;
                for (int k = 0; k < bx.count; k++) {
                    load<V>(map + ((size_t)j * w + (size_t)k) * (size_t)m.c, v);
#pragma unroll
                    for (int i = 0; i < V; i++) row[i] += wx[k] * v[i];
                }
#pragma unroll
                for (int i = 0; i < V; i++) sum[i] += wy[j] * row[i];
            }
        }
        store<V>(y + place * (size_t)m.c + c, sum);
    }
}

/* Number of each level's first tile; a level without a gradient has none. */
struct tiles {
    unsigned first[PD_MAX_LEVELS + 1];
};

/* Adds to acc what box r gives to pixels x0 .. x0 + TILE_W - 1 of row y, channels c .. c + V - 1. */
template <class T, int V>
__device__ __forceinline__ void gather(const pd_roi_maps &m, const table &t, size_t r, int x0, int y, int c,
                                       const T *__restrict__ dy, float (&acc)[TILE_W][V])
{
    const size_t size = (size_t)m.size, lx = 2 * r, ly = lx + 1;
    for (size_t q = 0; q < size; q++) {
        const cut bx = t.bin[lx * size + q];
        if (bx.first >= x0 + TILE_W || bx.first + bx.count <= x0) continue;
        float row[V], v[V];
#pragma unroll
        for (int i = 0; i < V; i++) row[i] = 0;
        for (size_t p = 0; p < size; p++) {
            const cut by = t.bin[ly * size + p];
            if (y < by.first || y >= by.first + by.count) continue;
            const float wy = t.weight[ly * (size_t)t.room + by.at + (unsigned)(y - by.first)];
            load<V>(dy + ((r * size + p) * size + q) * (size_t)m.c + (size_t)c, v);
#pragma unroll
            for (int i = 0; i < V; i++) row[i] += wy * v[i];
        }
#pragma unroll
        for (int j = 0; j < TILE_W; j++) {
            const int k = x0 + j - bx.first;
            if (k < 0 || k >= bx.count) continue;
            const float wx = t.weight[lx * (size_t)t.room + bx.at + (unsigned)k];
#pragma unroll
            for (int i = 0; i < V; i++) acc[j][i] += wx * row[i];
        }
    }
}

/* grid (tiles of an image, images, slices of channels) */
template <class T, int V>
__global__ void __launch_bounds__(PD_THREADS) roi_backward(pd_roi_maps m, table t, tiles at, const T *__restrict__ dy)
{
    __shared__ int ranks[PD_THREADS], list[PD_THREADS];
    int level = 0;
    while (blockIdx.x >= at.first[level + 1]) level++;
    const int h = m.h[level], w = m.w[level], across = (w + TILE_W - 1) / TILE_W;
    const int tile = (int)(blockIdx.x - at.first[level]), x0 = tile % across * TILE_W, y0 = tile / across * TILE_H;
    const int y = y0 + (int)threadIdx.x / 32, c = ((int)blockIdx.z * 32 + (int)threadIdx.x % 32) * V;
    const bool active = y < h && c < m.c;
    float acc[TILE_W][V];
#pragma unroll
    for (int j = 0; j < TILE_W; j++)
#pragma unroll
        for (int i = 0; i < V; i++) acc[j][i] = 0;
    for (int begin = 0; begin < m.m; begin += PD_THREADS) {
        const int row = begin + (int)threadIdx.x;
        const size_t r = (size_t)blockIdx.y * (size_t)m.m + (size_t)row;
        bool reads = false;
        if (row < m.m && t.level[r] == level) {
            const reach x = t.all[2 * r], v = t.all[2 * r + 1];
            reads = x.begin < x0 + TILE_W && x.end > x0 && v.begin < y0 + TILE_H && v.end > y0;
        }
        int count;
        const int rank = block_rank(reads, &count, ranks);
        if (reads) list[rank] = row;
        __syncthreads();
        for (int i = 0; active && i < count; i++)
            gather<T, V>(m, t, (size_t)blockIdx.y * (size_t)m.m + (size_t)list[i], x0, y, c, dy, acc);
        __syncthreads();
    }
    T *to =
        (T *)m.dx[level] + (((size_t)blockIdx.y * (size_t)h + (size_t)y) * (size_t)w + (size_t)x0) * (size_t)m.c + c;
#pragma unroll
    for (int j = 0; j < TILE_W; j++, to += m.c) {
        if (!active || x0 + j >= w) continue;
        float was[V];
#pragma unroll
        for (int i = 0; i < V; i++) was[i] = 0;
        if (m.add[level]) load<V>(to, was);
#pragma unroll
        for (int i = 0; i < V; i++) was[i] += acc[j][i];
        store<V>(to, was);
    }
}

} // namespace

size_t pd_roi_table(const pd_roi_maps *m)
{
    return table_of(m, nullptr).bytes;
}

int pd_roi_cut(const pd_roi_maps *m, void *memory, cudaStream_t stream)
{
    const size_t lines = 2 * boxes_of(m);
    return launch(cut_boxes, blocks_for(lines), dim3(PD_THREADS), stream, *m, table_of(m, memory), lines);
}

int pd_roi_fwd(const pd_roi_maps *m, const void *memory, void *y, cudaStream_t stream)
{
    const size_t values = boxes_of(m) * (size_t)m->size * (size_t)m->size * (size_t)m->c;
    return by_store(m->store, [&](auto t) {
        using T = decltype(t);
        return by_width(m->c % 8 == 0, [&](auto v) {
            constexpr int V = decltype(v)::value;
            return launch(roi_forward<T, V>, blocks_for(values / V), dim3(PD_THREADS), stream, *m, table_of(m, memory),
                          (T *)y, values / V);
        });
    });
}

int pd_roi_bwd(const pd_roi_maps *m, const void *memory, const void *dy, cudaStream_t stream)
{
    tiles at = {};
    for (int l = 0; l < m->levels; l++) {
        const int across = (m->w[l] + TILE_W - 1) / TILE_W, down = (m->h[l] + TILE_H - 1) / TILE_H;
        at.first[l + 1] = at.first[l] + (m->dx[l] ? (unsigned)across * (unsigned)down : 0);
    }
    return by_store(m->store, [&](auto t) {
        using T = decltype(t);
        return by_width(m->c % 8 == 0, [&](auto v) {
            constexpr int V = decltype(v)::value;
            const dim3 grid(at.first[m->levels], (unsigned)m->n, (unsigned)((m->c + 32 * V - 1) / (32 * V)));
            return launch_sync(roi_backward<T, V>, grid, dim3(PD_THREADS), stream, *m, table_of(m, memory), at,
                               (const T *)dy);
        });
    });
}
