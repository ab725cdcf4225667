/* Copies between layouts and element types, and the small passes around a convolution. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/maps.h"

using namespace pd;

namespace
{

#define SUM_ROWS 512 /* of a map that one block sums */

/* WHOLE: `from` has whole vectors as well; otherwise they are put together. */
template <class A, class B, int V, bool WHOLE>
__global__ void copy(A *__restrict__ to, const B *__restrict__ from, size_t rows, size_t from_rows, int cols,
                     int from_cols, int pitch, int from_pitch, bool add)
{
    const in_rows t = thread_in_rows((unsigned)(cols / V));
    const int c = (int)t.place * V;
    for (size_t r = t.row; r < rows; r += t.step) {
        const B *here = from + r * (size_t)from_pitch + c;
        A *at = to + r * (size_t)pitch + c;
        float v[V];
#pragma unroll
        for (int i = 0; i < V; i++) v[i] = 0;
        if constexpr (WHOLE) {
            if (r < from_rows && c < from_cols) load<V>(here, v);
        } else {
#pragma unroll
            for (int i = 0; i < V; i++)
                if (r < from_rows && c + i < from_cols) v[i] = to_float(here[i]);
        }
        put<V>(at, v, add);
    }
}

template <class T, int V>
__global__ void finish(T *__restrict__ y, const T *__restrict__ residual, const float *__restrict__ bias, size_t rows,
                       int cols, int pitch, bool relu)
{
    const in_rows t = thread_in_rows((unsigned)(cols / V));
    const int c = (int)t.place * V;
    float shift[V];
#pragma unroll
    for (int i = 0; i < V; i++) shift[i] = 0;
    if (bias && t.row < rows) load<V>(bias + c, shift);
    for (size_t r = t.row; r < rows; r += t.step) {
        float v[V], more[V];
        T *at = y + r * (size_t)pitch + c;
        load<V>(at, v);
        if (residual) {
            load<V>(residual + r * (size_t)cols + c, more);
#pragma unroll
            for (int i = 0; i < V; i++) v[i] += more[i];
        }
#pragma unroll
        for (int i = 0; i < V; i++) {
            v[i] += shift[i];
            if (relu) v[i] = v[i] > 0 ? v[i] : 0;
        }
        store<V>(at, v);
    }
}

template <class T, int V> __global__ void mask(T *__restrict__ dy, const T *__restrict__ y, size_t count)
{
    for (size_t item = first_item(); item < count / V; item += item_step()) {
        float g[V], v[V];
        load<V>(dy + item * V, g);
        load<V>(y + item * V, v);
#pragma unroll
        for (int i = 0; i < V; i++) g[i] = v[i] > 0 ? g[i] : 0;
        store<V>(dy + item * V, g);
    }
}

/* A block a slab and a piece of SUM_ROWS rows. */
template <class T, int V>
__global__ void __launch_bounds__(PD_THREADS)
    sum_pieces(const T *__restrict__ from, size_t rows, int cols, int pitch, float *__restrict__ partial)
{
    __shared__ float shared[slab<V>::rows * PD_SLAB];
    const int row = (int)threadIdx.x / slab<V>::lanes, lane = (int)threadIdx.x % slab<V>::lanes;
    const int first = slab_channel(cols), c = first + lane * V;
    const size_t piece = slab_piece(cols), begin = piece * SUM_ROWS;
    const int there = begin + SUM_ROWS < rows ? SUM_ROWS : (int)(rows - begin);
    float sum[V], v[V];
#pragma unroll
    for (int i = 0; i < V; i++) sum[i] = 0;
    for (int r = row; c < cols && r < there; r += slab<V>::rows) {
        load<V>(from + (begin + (size_t)r) * (size_t)pitch + c, v);
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] += v[i];
    }
    const float total = column_sum<V>(sum, shared);
    const int channel = first + (int)threadIdx.x;
    if (threadIdx.x < PD_SLAB && channel < cols) partial[piece * (size_t)cols + channel] = total;
}

/* A block has COLUMNS columns and as many rows of threads; a row takes every COLUMNS-th piece. */
#define COLUMNS 32

__global__ void __launch_bounds__(COLUMNS *COLUMNS)
    sum_finish(const float *__restrict__ partial, size_t pieces, int cols, float *__restrict__ out, bool add)
{
    __shared__ double shared[COLUMNS][COLUMNS];
    const int lane = (int)threadIdx.x % COLUMNS, row = (int)threadIdx.x / COLUMNS;
    const int c = (int)blockIdx.x * COLUMNS + lane;
    double sum = 0;
    for (size_t p = (size_t)row; c < cols && p < pieces; p += COLUMNS) sum += (double)partial[p * (size_t)cols + c];
    shared[row][lane] = sum;
    __syncthreads();
    if (row > 0 || c >= cols) return;
    for (int r = 1; r < COLUMNS; r++) sum += shared[r][lane];
    out[c] = (float)sum + (add ? out[c] : 0.f);
}

size_t pieces_of(size_t rows)
{
    return (rows + SUM_ROWS - 1) / SUM_ROWS;
}

} // namespace

int pd_map_copy(const pd_map *to, const pd_map *from, bool add, cudaStream_t stream)
{
    return by_store(to->store, [&](auto a) {
        using A = decltype(a);
        constexpr int V = 16 / (int)sizeof(A);
        const auto vectors = [](const pd_map *m) { return m->cols % V == 0 && m->pitch % V == 0; };
        const auto go = [&](auto b) {
            using B = decltype(b);
            const auto with = [&](auto kernel, int v) {
                return launch(kernel, blocks_for_rows(to->rows, (size_t)(to->cols / v)), dim3(PD_THREADS), stream,
                              (A *)to->data, (const B *)from->data, to->rows, from->rows, to->cols, from->cols,
                              to->pitch, from->pitch, add);
            };
            if (!vectors(to)) return with(copy<A, B, 1, true>, 1);
            return vectors(from) ? with(copy<A, B, V, true>, V) : with(copy<A, B, V, false>, V);
        };
        if constexpr (std::is_same_v<A, float>) {
            return by_store(from->store, go);
        } else {
            if (from->store == to->store) return go(a);
            return from->store == PD_STORE_32 ? go(float{}) : (int)cudaErrorInvalidValue;
        }
    });
}

int pd_map_finish(const pd_map *y, const void *residual, const float *bias, bool relu, cudaStream_t stream)
{
    return by_store(y->store, [&](auto t) {
        using T = decltype(t);
        return by_width(y->cols % 8 == 0 && y->pitch % 8 == 0, [&](auto v) {
            constexpr int V = decltype(v)::value;
            return launch(finish<T, V>, blocks_for_rows(y->rows, (size_t)(y->cols / V)), dim3(PD_THREADS), stream,
                          (T *)y->data, (const T *)residual, bias, y->rows, y->cols, y->pitch, relu);
        });
    });
}

int pd_map_mask(void *dy, const void *y, pd_store store, size_t count, cudaStream_t stream)
{
    if (!count) return 0;
    return by_store(store, [&](auto t) {
        using T = decltype(t);
        return by_width(count % 8 == 0, [&](auto v) {
            constexpr int V = decltype(v)::value;
            return launch(mask<T, V>, blocks_for(count / V), dim3(PD_THREADS), stream, (T *)dy, (const T *)y, count);
        });
    });
}

size_t pd_map_sum_floats(size_t rows, int cols)
{
    return pieces_of(rows) * (size_t)cols;
}

int pd_map_sums(const pd_map *m, float *partial, float *out, bool add, cudaStream_t stream)
{
    const size_t pieces = pieces_of(m->rows);
    if (!m->cols) return 0;
    const int code = by_store(m->store, [&](auto t) {
        using T = decltype(t);
        return by_width(m->cols % 8 == 0 && m->pitch % 8 == 0, [&](auto v) {
            return launch_sync(sum_pieces<T, decltype(v)::value>, slab_blocks(m->cols, pieces), dim3(PD_THREADS),
                               stream, (const T *)m->data, m->rows, m->cols, m->pitch, partial);
        });
    });
    if (code) return code;
    return launch_sync(sum_finish, dim3((unsigned)((m->cols + COLUMNS - 1) / COLUMNS)), dim3(COLUMNS * COLUMNS), stream,
                       (const float *)partial, pieces, m->cols, out, add);
}
