/* The ParaDise block's normalisation: statistics, weighted sum with residual and ReLU, and the way back. */
#include "kernels/cuda/launch.cuh"

#include "kernels/bn_sum_math.h"
#include "kernels/cuda/bn_sum.h"

using namespace pd;

namespace
{

#define MAX_BRANCHES PD_MAX_BRANCHES

/* pd_bn_maps with typed pointers. */
template <class T> struct maps {
    const T *z[MAX_BRANCHES];
    T *dz[MAX_BRANCHES];
    const float *gate;
    int column[MAX_BRANCHES];
    int pitch[MAX_BRANCHES];
    int branches, c, gates;
    unsigned samples, rows;
};

template <class T> maps<T> typed(const pd_bn_maps *m)
{
    maps<T> t = {};
    for (int k = 0; k < m->branches; k++) {
        t.z[k] = (const T *)m->z[k];
        t.dz[k] = (T *)m->dz[k];
        t.column[k] = m->column[k];
        t.pitch[k] = m->pitch[k];
    }
    t.gate = m->gate;
    t.branches = m->branches;
    t.c = m->c;
    t.gates = m->gates;
    t.samples = (unsigned)m->samples;
    t.rows = (unsigned)m->rows;
    return t;
}

bool eights(const pd_bn_maps *m)
{
    bool good = m->c % 8 == 0;
    for (int k = 0; k < m->branches; k++) good = good && m->pitch[k] % 8 == 0;
    return good;
}

/* ---- forward ---- */

/* grid (slabs of 64 channels, samples * chunks, branches) */
template <class T, int V>
__global__ void __launch_bounds__(PD_THREADS) sums(maps<T> m, int chunks, float *__restrict__ partial)
{
    __shared__ float shared[slab<V>::rows * PD_SLAB];
    const int lane = (int)threadIdx.x % slab<V>::lanes, row = (int)threadIdx.x / slab<V>::lanes, k = (int)blockIdx.z;
    const int c = (int)blockIdx.x * PD_SLAB + lane * V;
    const unsigned piece = blockIdx.y, sample = piece / (unsigned)chunks;
    const unsigned per = (m.rows + (unsigned)chunks - 1) / (unsigned)chunks, begin = piece % (unsigned)chunks * per;
    const unsigned end = begin + per < m.rows ? begin + per : m.rows;
    float s[V], q[V], shift[V];
    for (int i = 0; i < V; i++) s[i] = q[i] = shift[i] = 0;
    if (c < m.c) {
        load<V>(m.z[k] + c, shift);
        const T *z = m.z[k] + (size_t)sample * m.rows * (size_t)m.pitch[k] + c;
        for (unsigned r = begin + (unsigned)row; r < end; r += slab<V>::rows) {
            float v[V];
            load<V>(z + (size_t)r * (size_t)m.pitch[k], v);
#pragma unroll
            for (int i = 0; i < V; i++) {
                const float d = v[i] - shift[i];
                s[i] += d;
                q[i] += d * d;
            }
        }
    }
    const float total = column_sum<V>(s, shared), squares = column_sum<V>(q, shared);
    const int channel = (int)blockIdx.x * PD_SLAB + (int)threadIdx.x;
    if (threadIdx.x < PD_SLAB && channel < m.c) {
        float *out = partial + ((size_t)k * gridDim.y + piece) * 2 * (size_t)m.c;
        out[channel] = total;
        out[m.c + channel] = squares;
    }
}

/* Pieces are summed by blocks of 32 columns and 8 rows of threads; a row takes every eighth piece. */
#define COLUMNS 32
#define ROWS (PD_THREADS / COLUMNS)

/* The sum of the piece sums of column i, for the threads of row 0. All threads of a block come here, and i >= width has
 * nothing. A barrier lies between two calls with the same memory. */
__device__ double sum_pieces(const float *__restrict__ partial, unsigned pieces, size_t step, int i, int width,
                             double (&shared)[ROWS][COLUMNS])
{
    const unsigned lane = threadIdx.x % COLUMNS, row = threadIdx.x / COLUMNS;
    double sum = 0;
    if (i < width)
        for (unsigned u = row; u < pieces; u += ROWS) sum += (double)partial[u * step + (size_t)i];
    shared[row][lane] = sum;
    __syncthreads();
    for (unsigned r = 1; row == 0 && r < ROWS; r++) sum += shared[r][lane];
    return sum;
}

__device__ __forceinline__ int column_of_block()
{
    return (int)(blockIdx.x * COLUMNS + threadIdx.x % COLUMNS);
}

/* grid (columns, branches) */
template <class T>
__global__ void __launch_bounds__(PD_THREADS)
    totals(maps<T> m, unsigned pieces, const float *__restrict__ partial, bool shifted, double *__restrict__ out)
{
    __shared__ double shared[2][ROWS][COLUMNS];
    const int i = column_of_block(), k = (int)blockIdx.y;
    const float *p = partial + (size_t)k * pieces * 2 * (size_t)m.c;
    double s = sum_pieces(p, pieces, 2 * (size_t)m.c, i, m.c, shared[0]);
    double q = sum_pieces(p + m.c, pieces, 2 * (size_t)m.c, i, m.c, shared[1]);
    if (threadIdx.x >= COLUMNS || i >= m.c) return;
    if (!shifted) {
        const double back = (double)to_float(m.z[k][i]), n = (double)m.samples * (double)m.rows;
        q += 2 * back * s + n * back * back;
        s += n * back;
    }
    out[(size_t)k * 2 * (size_t)m.c + (size_t)i] = s;
    out[((size_t)k * 2 + 1) * (size_t)m.c + (size_t)i] = q;
}

__global__ void given_totals(int c, pd_bn_given_sums given, double *__restrict__ out)
{
    const int i = (int)first_item(), k = (int)blockIdx.y;
    if (i >= c || !given.sum[k]) return;
    out[(size_t)k * 2 * (size_t)c + (size_t)i] = (double)given.sum[k][i];
    out[((size_t)k * 2 + 1) * (size_t)c + (size_t)i] = (double)given.square[k][i];
}

__device__ __forceinline__ double number(const pd_bn_count &count)
{
    return count.all ? *count.all : count.own;
}

__device__ __forceinline__ void affine_of(int c, int k, int i, const pd_bn_vectors &v, float mean, float rstd,
                                          float *__restrict__ out)
{
    const float scale = v.gamma[k][i] * rstd;
    out[(size_t)k * 2 * (size_t)c + (size_t)i] = scale;
    out[((size_t)k * 2 + 1) * (size_t)c + (size_t)i] = v.beta[k][i] - mean * scale;
}

template <class T>
__global__ void finish(maps<T> m, pd_bn_vectors v, const double *__restrict__ sums, pd_bn_count count, bool shifted,
                       float eps, float momentum, float *__restrict__ mean_rstd, float *__restrict__ affine)
{
    const int i = (int)first_item(), k = (int)blockIdx.y;
    if (i >= m.c) return;
    const double *s = sums + (size_t)k * 2 * (size_t)m.c;
    const double shift = shifted ? (double)to_float(m.z[k][i]) : 0;
    const pd_bn_moments found = pd_bn_moments_of(s[i], s[m.c + i], shift, number(count));
    float *out = mean_rstd + (size_t)k * 2 * (size_t)m.c;
    out[i] = (float)found.mean;
    out[m.c + i] = pd_bn_rstd(found.var, eps);
    v.run_mean[k][i] += momentum * ((float)found.mean - v.run_mean[k][i]);
    v.run_var[k][i] += momentum * ((float)found.unbiased - v.run_var[k][i]);
    affine_of(m.c, k, i, v, out[i], out[m.c + i], affine);
}

__global__ void running(int c, pd_bn_vectors v, float eps, float *__restrict__ mean_rstd, float *__restrict__ affine)
{
    const int i = (int)first_item(), k = (int)blockIdx.y;
    if (i >= c) return;
    float *out = mean_rstd + (size_t)k * 2 * (size_t)c;
    out[i] = v.run_mean[k][i];
    out[c + i] = 1 / sqrtf(v.run_var[k][i] + eps);
    affine_of(c, k, i, v, out[i], out[c + i], affine);
}

/* B: at most so many branches. There are instances for one branch and for all five; what lies between takes the latter.
 */
template <class T, int V, int B>
__global__ void __launch_bounds__(PD_THREADS)
    apply(maps<T> m, const float *__restrict__ ab, const T *__restrict__ residual, bool relu,
          T *y) /* y: also over a z */
{
    const unsigned wide = (unsigned)(m.c / V);
    const size_t items = (size_t)m.samples * m.rows * wide;
    for (size_t item = first_item(); item < items; item += item_step()) {
        const size_t pixel = item / wide;
        const int c = (int)(item % wide) * V;
        float s[V];
#pragma unroll
        for (int i = 0; i < V; i++) s[i] = 0;
        if (residual) load<V>(residual + pixel * (size_t)m.c + c, s);
        const float *gate = m.gate ? m.gate + pixel / m.rows * (size_t)m.gates : nullptr;
#pragma unroll
        for (int k = 0; k < B; k++) {
            if (k >= m.branches) break;
            float z[V], a[V], b[V];
            load<V>(m.z[k] + pixel * (size_t)m.pitch[k] + c, z);
            load<V>(ab + (size_t)k * 2 * (size_t)m.c + c, a);
            load<V>(ab + ((size_t)k * 2 + 1) * (size_t)m.c + c, b);
            const float w = gate ? gate[m.column[k]] : 1.f;
#pragma unroll
            for (int i = 0; i < V; i++) s[i] += w * (a[i] * z[i] + b[i]);
        }
        if (relu) {
#pragma unroll
            for (int i = 0; i < V; i++) s[i] = s[i] > 0 ? s[i] : 0;
        }
        store<V>(y + pixel * (size_t)m.c + c, s);
    }
}

/* ---- backward ---- */

/* Sets gradients to 0 where the output was not positive: y, or, of one branch, what `ab` makes of it once more: that is
 * read anyway. */
template <int V, int B, class T>
__device__ __forceinline__ void mask(float (&g)[V], const maps<T> &m, size_t pixel, int c, const T *__restrict__ y,
                                     const float *__restrict__ ab)
{
    float out[V];
    if (B == 1 && ab) {
        float a[V], b[V];
        load<V>(m.z[0] + pixel * (size_t)m.pitch[0] + c, out);
        load<V>(ab + c, a);
        load<V>(ab + m.c + c, b);
#pragma unroll
        for (int i = 0; i < V; i++) out[i] = a[i] * out[i] + b[i];
    } else {
        load<V>(y + pixel * (size_t)m.c + c, out);
    }
#pragma unroll
    for (int i = 0; i < V; i++) g[i] = pd_bn_masked(g[i], out[i], 1);
}

/* grid (slabs, samples * chunks) */
template <class T, int V, int B>
__global__ void __launch_bounds__(PD_THREADS)
    grad_sums(maps<T> m, int chunks, const T *__restrict__ dy, const T *__restrict__ y, bool relu,
              const float *__restrict__ ab, const float *__restrict__ mean_rstd, float *__restrict__ partial)
{
    __shared__ float shared[slab<V>::rows * PD_SLAB];
    const int lane = (int)threadIdx.x % slab<V>::lanes, row = (int)threadIdx.x / slab<V>::lanes;
    const int c = (int)blockIdx.x * PD_SLAB + lane * V, channel = (int)blockIdx.x * PD_SLAB + (int)threadIdx.x;
    const unsigned piece = blockIdx.y, sample = piece / (unsigned)chunks;
    const unsigned per = (m.rows + (unsigned)chunks - 1) / (unsigned)chunks, begin = piece % (unsigned)chunks * per;
    const unsigned end = begin + per < m.rows ? begin + per : m.rows;
    float acc[B + 1][V], mean[B][V];
#pragma unroll
    for (int k = 0; k <= B; k++)
#pragma unroll
        for (int i = 0; i < V; i++) acc[k][i] = 0;
    if (c < m.c) {
#pragma unroll
        for (int k = 0; k < B; k++)
            if (k < m.branches) load<V>(mean_rstd + (size_t)k * 2 * (size_t)m.c + c, mean[k]);
        for (unsigned r = begin + (unsigned)row; r < end; r += slab<V>::rows) {
            const size_t pixel = (size_t)sample * m.rows + r, at = pixel * (size_t)m.c + (size_t)c;
            float g[V], v[V];
            load<V>(dy + at, g);
            if (relu) mask<V, B>(g, m, pixel, c, y, ab);
#pragma unroll
            for (int i = 0; i < V; i++) acc[B][i] += g[i];
#pragma unroll
            for (int k = 0; k < B; k++) {
                if (k >= m.branches) break;
                load<V>(m.z[k] + pixel * (size_t)m.pitch[k] + c, v);
#pragma unroll
                for (int i = 0; i < V; i++) acc[k][i] += g[i] * (v[i] - mean[k][i]);
            }
        }
    }
    float *out = partial + (size_t)piece * (size_t)(m.branches + 1) * (size_t)m.c;
#pragma unroll
    for (int k = 0; k <= B; k++) {
        if (k >= m.branches && k < B) continue;
        const float total = column_sum<V>(acc[k], shared);
        const int place = k == B ? 0 : k + 1; /* the sum of g comes first */
        if (threadIdx.x < PD_SLAB && channel < m.c) out[(size_t)place * (size_t)m.c + (size_t)channel] = total;
    }
}

/* grid (columns, samples) */
__global__ void __launch_bounds__(PD_THREADS)
    grad_totals(int chunks, int width, const float *__restrict__ partial, float *__restrict__ total)
{
    __shared__ double shared[ROWS][COLUMNS];
    const int i = column_of_block();
    const size_t sample = blockIdx.y, w = (size_t)width;
    const double sum = sum_pieces(partial + sample * (size_t)chunks * w, (unsigned)chunks, w, i, width, shared);
    if (threadIdx.x < COLUMNS && i < width) total[sample * w + (size_t)i] = (float)sum;
}

template <class T>
__global__ void grad_finish(maps<T> m, pd_bn_vectors v, const float *__restrict__ mean_rstd,
                            const float *__restrict__ total, double *__restrict__ sums)
{
    const int i = (int)first_item(), k = (int)blockIdx.y;
    if (i >= m.c) return;
    const double rstd = (double)mean_rstd[((size_t)k * 2 + 1) * (size_t)m.c + (size_t)i];
    double dbeta = 0, dgamma = 0;
    for (unsigned n = 0; n < m.samples; n++) {
        const float *t = total + (size_t)n * (size_t)(1 + m.branches) * (size_t)m.c;
        const double a = m.gate ? (double)m.gate[(size_t)n * (size_t)m.gates + (size_t)m.column[k]] : 1;
        dbeta += a * (double)t[i];
        dgamma += a * (double)t[(size_t)(1 + k) * (size_t)m.c + (size_t)i] * rstd;
    }
    if (v.dgamma[k]) v.dgamma[k][i] = (float)dgamma + (v.add_gamma[k] ? v.dgamma[k][i] : 0.f);
    if (v.dbeta[k]) v.dbeta[k][i] = (float)dbeta + (v.add_beta[k] ? v.dbeta[k][i] : 0.f);
    sums[(size_t)k * 2 * (size_t)m.c + (size_t)i] = dbeta;
    sums[((size_t)k * 2 + 1) * (size_t)m.c + (size_t)i] = dgamma;
}

__global__ void grad_coefficients(int c, pd_bn_vectors v, const float *__restrict__ mean_rstd,
                                  const double *__restrict__ sums, pd_bn_count count, float *__restrict__ pqr)
{
    const int i = (int)first_item(), k = (int)blockIdx.y;
    if (i >= c) return;
    const float *mr = mean_rstd + (size_t)k * 2 * (size_t)c;
    const double *s = sums + (size_t)k * 2 * (size_t)c;
    float *out = pqr + (size_t)k * 3 * (size_t)c;
    const float gamma = v.gamma[k][i], rstd = mr[c + i];
    float q = 0, r = 0;
    const double n = number(count);
    if (n > 0) {
        q = pd_bn_q((double)gamma, (double)rstd, s[c + i], n);
        r = pd_bn_r((double)gamma, (double)rstd, s[i], n, q, mr[i]);
    }
    out[i] = gamma * rstd;
    out[c + i] = q;
    out[2 * c + i] = r;
}

/* A block per (sample, column of the gate). */
template <class T>
__global__ void __launch_bounds__(PD_THREADS)
    grad_gate(maps<T> m, pd_bn_vectors v, const float *__restrict__ mean_rstd, const float *__restrict__ total,
              float *__restrict__ dgate, bool add)
{
    __shared__ float shared[32];
    const int column = (int)blockIdx.y;
    const float *t = total + (size_t)blockIdx.x * (size_t)(1 + m.branches) * (size_t)m.c;
    float sum = 0;
    for (int k = 0; k < m.branches; k++) {
        if (m.column[k] != column) continue;
        const float *rstd = mean_rstd + ((size_t)k * 2 + 1) * (size_t)m.c;
        for (int i = (int)threadIdx.x; i < m.c; i += PD_THREADS)
            sum += v.gamma[k][i] * rstd[i] * t[(size_t)(1 + k) * (size_t)m.c + (size_t)i] + v.beta[k][i] * t[i];
    }
    sum = block_sum(sum, shared);
    float *to = dgate + (size_t)blockIdx.x * (size_t)m.gates + (size_t)column;
    if (threadIdx.x == 0) *to = sum + (add ? *to : 0.f);
}

template <class T, int V, int B>
__global__ void __launch_bounds__(PD_THREADS)
    grad_apply(maps<T> m, const float *__restrict__ pqr, const T *__restrict__ dy, const T *__restrict__ y, bool relu,
               const float *__restrict__ ab, T *__restrict__ residual, bool add)
{
    const unsigned wide = (unsigned)(m.c / V);
    const size_t items = (size_t)m.samples * m.rows * wide;
    for (size_t item = first_item(); item < items; item += item_step()) {
        const size_t pixel = item / wide;
        const int c = (int)(item % wide) * V;
        const size_t at = pixel * (size_t)m.c + (size_t)c;
        float g[V], v[V];
        load<V>(dy + at, g);
        if (relu) mask<V, B>(g, m, pixel, c, y, ab);
        if (residual) put<V>(residual + at, g, add);
        const float *gate = m.gate ? m.gate + pixel / m.rows * (size_t)m.gates : nullptr;
#pragma unroll
        for (int k = 0; k < B; k++) {
            if (k >= m.branches) break;
            if (!m.dz[k]) continue;
            float p[V], q[V], r[V];
            const float *from = pqr + (size_t)k * 3 * (size_t)m.c + c, w = gate ? gate[m.column[k]] : 1.f;
            load<V>(m.z[k] + pixel * (size_t)m.pitch[k] + c, v);
            load<V>(from, p);
            load<V>(from + m.c, q);
            load<V>(from + 2 * m.c, r);
#pragma unroll
            for (int i = 0; i < V; i++) v[i] = pd_bn_dz(p[i] * w, g[i], q[i], v[i], r[i]);
            store<V>(m.dz[k] + pixel * (size_t)m.pitch[k] + c, v);
        }
    }
}

__global__ void plain(int c, const float *__restrict__ bias, float *__restrict__ mean_rstd, float *__restrict__ affine)
{
    const int i = (int)first_item(), k = (int)blockIdx.y;
    if (i >= c) return;
    const size_t at = (size_t)k * 2 * (size_t)c + (size_t)i;
    mean_rstd[at] = 0;
    mean_rstd[at + (size_t)c] = 1;
    affine[at] = 1;
    affine[at + (size_t)c] = bias[(size_t)k * (size_t)c + (size_t)i];
}

__global__ void set_count(double *count, double value)
{
    *count = value;
}

dim3 channels(int c, int branches)
{
    return dim3((unsigned)((c + PD_THREADS - 1) / PD_THREADS), (unsigned)branches);
}

dim3 columns(int width, unsigned y)
{
    return dim3((unsigned)((width + COLUMNS - 1) / COLUMNS), y);
}

/* The instance: f(vector width, most branches). */
template <class F> int by_kind(const pd_bn_maps *m, F f)
{
    if (!eights(m)) return f(std::integral_constant<int, 1>{}, std::integral_constant<int, MAX_BRANCHES>{});
    if (m->branches > 1) return f(std::integral_constant<int, 8>{}, std::integral_constant<int, MAX_BRANCHES>{});
    return f(std::integral_constant<int, 8>{}, std::integral_constant<int, 1>{});
}

} // namespace

int pd_bn_chunks(const pd_bn_maps *m)
{
    const long slabs = (m->c + PD_SLAB - 1) / PD_SLAB, blocks = slabs * m->samples;
    long chunks = (1024 + blocks - 1) / blocks, most = (m->rows + 127) / 128;
    if (chunks > most) chunks = most;
    while (m->samples * chunks > 65535) chunks--;
    return chunks < 1 ? 1 : (int)chunks;
}

int pd_bn_sums(const pd_bn_maps *m, int chunks, float *partial, cudaStream_t stream)
{
    const dim3 grid((unsigned)((m->c + PD_SLAB - 1) / PD_SLAB), (unsigned)(m->samples * chunks), (unsigned)m->branches);
    return by_store(m->store, [&](auto t) {
        using T = decltype(t);
        return by_width(eights(m), [&](auto v) {
            return launch_sync(sums<T, decltype(v)::value>, grid, dim3(PD_THREADS), stream, typed<T>(m), chunks,
                               partial);
        });
    });
}

int pd_bn_totals(const pd_bn_maps *m, int chunks, const float *partial, bool shifted, double *out, cudaStream_t stream)
{
    return by_store(m->store, [&](auto t) {
        using T = decltype(t);
        return launch_sync(totals<T>, columns(m->c, (unsigned)m->branches), dim3(PD_THREADS), stream, typed<T>(m),
                           (unsigned)(m->samples * chunks), partial, shifted, out);
    });
}

int pd_bn_given(const pd_bn_maps *m, const pd_bn_given_sums *given, double *out, cudaStream_t stream)
{
    return launch(given_totals, channels(m->c, m->branches), dim3(PD_THREADS), stream, m->c, *given, out);
}

int pd_bn_finish(const pd_bn_maps *m, const pd_bn_vectors *v, const double *s, pd_bn_count count, bool shifted,
                 float eps, float momentum, float *mean_rstd, float *ab, cudaStream_t stream)
{
    return by_store(m->store, [&](auto t) {
        using T = decltype(t);
        return launch(finish<T>, channels(m->c, m->branches), dim3(PD_THREADS), stream, typed<T>(m), *v, s, count,
                      shifted, eps, momentum, mean_rstd, ab);
    });
}

int pd_bn_running(const pd_bn_maps *m, const pd_bn_vectors *v, float eps, float *mean_rstd, float *ab,
                  cudaStream_t stream)
{
    return launch(running, channels(m->c, m->branches), dim3(PD_THREADS), stream, m->c, *v, eps, mean_rstd, ab);
}

int pd_bn_apply(const pd_bn_maps *m, const float *ab, const void *residual, bool relu, void *y, cudaStream_t stream)
{
    return by_store(m->store, [&](auto t) {
        using T = decltype(t);
        const size_t pixels = (size_t)m->samples * (size_t)m->rows;
        return by_kind(m, [&](auto v, auto b) {
            constexpr int V = decltype(v)::value, B = decltype(b)::value;
            return launch(apply<T, V, B>, blocks_for(pixels * (size_t)m->c / V), dim3(PD_THREADS), stream, typed<T>(m),
                          ab, (const T *)residual, relu, (T *)y);
        });
    });
}

int pd_bn_grad_sums(const pd_bn_maps *m, int chunks, const void *dy, const void *y, bool relu, const float *ab,
                    const float *mean_rstd, float *partial, cudaStream_t stream)
{
    const dim3 grid((unsigned)((m->c + PD_SLAB - 1) / PD_SLAB), (unsigned)(m->samples * chunks));
    return by_store(m->store, [&](auto t) {
        using T = decltype(t);
        return by_kind(m, [&](auto v, auto b) {
            return launch_sync(grad_sums<T, decltype(v)::value, decltype(b)::value>, grid, dim3(PD_THREADS), stream,
                               typed<T>(m), chunks, (const T *)dy, (const T *)y, relu, ab, mean_rstd, partial);
        });
    });
}

int pd_bn_grad_totals(const pd_bn_maps *m, int chunks, const float *partial, float *total, cudaStream_t stream)
{
    const int width = (1 + m->branches) * m->c;
    return launch_sync(grad_totals, columns(width, (unsigned)m->samples), dim3(PD_THREADS), stream, chunks, width,
                       partial, total);
}

int pd_bn_grad_finish(const pd_bn_maps *m, const pd_bn_vectors *v, const float *mean_rstd, const float *total,
                      double *s, cudaStream_t stream)
{
    return by_store(m->store, [&](auto t) {
        using T = decltype(t);
        return launch(grad_finish<T>, channels(m->c, m->branches), dim3(PD_THREADS), stream, typed<T>(m), *v, mean_rstd,
                      total, s);
    });
}

int pd_bn_grad_coefficients(const pd_bn_maps *m, const pd_bn_vectors *v, const float *mean_rstd, const double *s,
                            pd_bn_count count, float *pqr, cudaStream_t stream)
{
    return launch(grad_coefficients, channels(m->c, m->branches), dim3(PD_THREADS), stream, m->c, *v, mean_rstd, s,
                  count, pqr);
}

int pd_bn_grad_gate(const pd_bn_maps *m, const pd_bn_vectors *v, const float *mean_rstd, const float *total,
                    float *dgate, bool add, cudaStream_t stream)
{
    return by_store(m->store, [&](auto t) {
        using T = decltype(t);
        return launch_sync(grad_gate<T>, dim3((unsigned)m->samples, (unsigned)m->gates), dim3(PD_THREADS), stream,
                           typed<T>(m), *v, mean_rstd, total, dgate, add);
    });
}

int pd_bn_grad_apply(const pd_bn_maps *m, const float *pqr, const void *dy, const void *y, bool relu, const float *ab,
                     void *residual, bool add, cudaStream_t stream)
{
    return by_store(m->store, [&](auto t) {
        using T = decltype(t);
        const size_t pixels = (size_t)m->samples * (size_t)m->rows;
        return by_kind(m, [&](auto v, auto b) {
            constexpr int V = decltype(v)::value, B = decltype(b)::value;
            return launch(grad_apply<T, V, B>, blocks_for(pixels * (size_t)m->c / V), dim3(PD_THREADS), stream,
                          typed<T>(m), pqr, (const T *)dy, (const T *)y, relu, ab, (T *)residual, add);
        });
    });
}

int pd_bn_plain(int branches, int c, const float *bias, float *mean_rstd, float *ab, cudaStream_t stream)
{
    return launch(plain, channels(c, branches), dim3(PD_THREADS), stream, c, bias, mean_rstd, ab);
}

int pd_bn_set_count(double *count, double value, cudaStream_t stream)
{
    return launch(set_count, dim3(1), dim3(1), stream, count, value);
}
