/* Copies between layouts and element types, and the small passes around a convolution. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/maps.h"

using namespace pd;

namespace
{

#define SUM_ROWS 512 /* of a map that one block sums */

template <class A, class B, int V>
__global__ void copy(A *__restrict__ to, const B *__restrict__ from, size_t rows, size_t from_rows, int cols,
                     int from_cols, int pitch, int from_pitch, bool add)
{
    const unsigned wide = (unsigned)(cols / V);
    const size_t items = rows * wide;
    for (size_t item = first_item(); item < items; item += item_step()) {
        const size_t r = item / wide;
        const int c = (int)(item % wide) * V;
        float v[V], was[V];
#pragma unroll
        for (int i = 0; i < V; i++) v[i] = was[i] = 0;
        if (r < from_rows && c < from_cols) load<V>(from + r * (size_t)from_pitch + c, v);
        A *at = to + r * (size_t)pitch + c;
        if (add) load<V>(at, was);
#pragma unroll
        for (int i = 0; i < V; i++) v[i] += was[i];
        store<V>(at, v);
    }
}

template <class T, int V>
__global__ void finish(T *__restrict__ y, const T *__restrict__ residual, const float *__restrict__ bias, size_t rows,
                       int cols, int pitch, bool relu)
{
    const unsigned wide = (unsigned)(cols / V);
    const size_t items = rows * wide;
    for (size_t item = first_item(); item < items; item += item_step()) {
        const size_t r = item / wide;
        const int c = (int)(item % wide) * V;
        float v[V], more[V];
        T *at = y + r * (size_t)pitch + c;
        load<V>(at, v);
        if (residual) {
            load<V>(residual + r * (size_t)cols + c, more);
#pragma unroll
            for (int i = 0; i < V; i++) v[i] += more[i];
        }
        if (bias) {
            load<V>(bias + c, more);
#pragma unroll
            for (int i = 0; i < V; i++) v[i] += more[i];
        }
        if (relu) {
#pragma unroll
            for (int i = 0; i < V; i++) v[i] = v[i] > 0 ? v[i] : 0;
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

/* grid (slabs, pieces of SUM_ROWS rows) */
template <class T>
__global__ void __launch_bounds__(PD_THREADS)
    sum_pieces(const T *__restrict__ from, size_t rows, int cols, int pitch, float *__restrict__ partial)
{
    __shared__ float shared[slab<1>::rows * PD_SLAB];
    const int row = (int)threadIdx.x / PD_SLAB, c = (int)blockIdx.x * PD_SLAB + (int)threadIdx.x % PD_SLAB;
    const size_t begin = (size_t)blockIdx.y * SUM_ROWS, end = begin + SUM_ROWS < rows ? begin + SUM_ROWS : rows;
    float sum[1] = {0};
    for (size_t r = begin + (size_t)row; c < cols && r < end; r += slab<1>::rows)
        sum[0] += to_float(from[r * (size_t)pitch + c]);
    const float total = column_sum<1>(sum, shared);
    const int channel = (int)blockIdx.x * PD_SLAB + (int)threadIdx.x;
    if (threadIdx.x < PD_SLAB && channel < cols) partial[(size_t)blockIdx.y * (size_t)cols + channel] = total;
}

__global__ void sum_finish(const float *__restrict__ partial, size_t pieces, int cols, float *__restrict__ out,
                           bool add)
{
    const int c = (int)first_item();
    if (c >= cols) return;
    double sum = 0;
    for (size_t p = 0; p < pieces; p++) sum += (double)partial[p * (size_t)cols + c];
    out[c] = (float)sum + (add ? out[c] : 0.f);
}

size_t pieces_of(size_t rows)
{
    return (rows + SUM_ROWS - 1) / SUM_ROWS;
}

} // namespace

int pd_map_copy(const pd_map *to, const pd_map *from, bool add, cudaStream_t stream)
{
    const bool wide = to->cols % 8 == 0 && to->pitch % 8 == 0 && from->cols % 8 == 0 && from->pitch % 8 == 0;
    const size_t items = to->rows * (size_t)to->cols / (wide ? 8 : 1);
    if (!items) return 0;
    return by_store(to->store, [&](auto a) {
        using A = decltype(a);
        const auto go = [&](auto b) {
            using B = decltype(b);
            return by_width(wide, [&](auto v) {
                return launch(copy<A, B, decltype(v)::value>, blocks_for(items), dim3(PD_THREADS), stream,
                              (A *)to->data, (const B *)from->data, to->rows, from->rows, to->cols, from->cols,
                              to->pitch, from->pitch, add);
            });
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
    const bool wide = y->cols % 8 == 0 && y->pitch % 8 == 0;
    const size_t items = y->rows * (size_t)y->cols / (wide ? 8 : 1);
    if (!items) return 0;
    return by_store(y->store, [&](auto t) {
        using T = decltype(t);
        return by_width(wide, [&](auto v) {
            return launch(finish<T, decltype(v)::value>, blocks_for(items), dim3(PD_THREADS), stream, (T *)y->data,
                          (const T *)residual, bias, y->rows, y->cols, y->pitch, relu);
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
    const int code = !pieces ? 0 : by_store(m->store, [&](auto t) {
        using T = decltype(t);
        return launch_sync(sum_pieces<T>, dim3((unsigned)((m->cols + PD_SLAB - 1) / PD_SLAB), (unsigned)pieces),
                           dim3(PD_THREADS), stream, (const T *)m->data, m->rows, m->cols, m->pitch, partial);
    });
    if (code) return code;
    return launch(sum_finish, dim3((unsigned)((m->cols + PD_THREADS - 1) / PD_THREADS)), dim3(PD_THREADS), stream,
                  (const float *)partial, pieces, m->cols, out, add);
}
