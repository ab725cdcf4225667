/* Convolutions with few channels a group, channels last: 9 to 36 products a value, so that memory bounds their speed if
 * little else is done. A thread keeps the weights of some neighbouring channels in registers (or their gradient's sums)
 * and walks down a strip of the map: each row is loaded once for the three rows of outputs that see it, and the next
 * one while this one is used. Other windows than 3x3, and channels that are no whole vectors, have plain loops. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/grouped.h"

using namespace pd;

namespace
{

/* CI and CO: channels in and out of a group. GI and GO: channels of a group in the map that is read and in the one that
 * is made; going back (BACK, the input's gradient) these are CO and CI. */

#define TAPS 9

/* A thread makes `made` neighbouring channels (MOST at most) of `read`: so many that TAPS * made * GI weights, mostly
 * 72, leave room in its registers. A block has a slab of channels of `rows` strips. */
template <class T, int GI, int GO, int MOST = 8> struct share {
    static constexpr int vector = 16 / (int)sizeof(T), fill = GI < vector ? vector / GI : 1;
    static constexpr int made = fill < MOST ? fill : MOST;
    static constexpr int read = made > GO ? GI *(made / GO) : GI;
    static constexpr int lanes = PD_SLAB / made, rows = PD_THREADS / lanes;
};

/* N channels of a pixel as they are stored, in words. */
template <class T, int N> struct channels {
    static constexpr int WORDS = N * (int)sizeof(T) / 4, V = WORDS < 4 ? WORDS : 4;
    pack<unsigned, V> part[WORDS / V];

    __device__ __forceinline__ void read(const T *from, bool inside)
    {
#pragma unroll
        for (int i = 0; i < WORDS / V; i++)
            part[i] = inside ? reinterpret_cast<const pack<unsigned, V> *>(from)[i] : pack<unsigned, V>{};
    }
    __device__ __forceinline__ void floats(float (&to)[N]) const
    {
#pragma unroll
        for (int i = 0; i < N; i++) {
            const unsigned word = part[i * (int)sizeof(T) / 4 / V].e[i * (int)sizeof(T) / 4 % V];
            if constexpr (sizeof(T) == 4)
                to[i] = pd_bits_float(word);
            else
                to[i] = to_float(T{(unsigned short)(i % 2 ? word >> 16 : word)});
        }
    }
};

/* ---- strips ---- */

/* A map cut into columns (of one or two pixels) and those into strips of nearly the same height. */
struct strips {
    unsigned height, down, across, count; /* of a strip; strips in a column; columns; all of them */
};

#define STRIP 16 /* rows at most: each strip reads two of its neighbours' */

strips strips_of(int n, int h, int columns)
{
    strips s;
    s.down = h > STRIP ? (unsigned)(h + STRIP - 1) / STRIP : 1;
    s.height = ((unsigned)h + s.down - 1) / s.down;
    s.across = (unsigned)columns;
    s.count = (unsigned)n * s.down * s.across;
    return s;
}

struct strip {
    int image, column, begin, end;
};

__device__ __forceinline__ strip strip_at(const strips &s, unsigned i, int h)
{
    const unsigned line = i / s.across, begin = line % s.down * s.height;
    const unsigned end = begin + s.height < (unsigned)h ? begin + s.height : (unsigned)h;
    return {(int)(line / s.down), (int)(i % s.across), (int)begin, (int)end};
}

/* Where a thread stands in the map that it makes. Neighbouring blocks have the slabs of the same strips. */
template <class OWN> struct stand {
    int slab, channel; /* the first of the thread's channels */
    unsigned strip;

    __device__ __forceinline__ explicit stand(unsigned slabs)
        : slab((int)(blockIdx.x % slabs)), channel(slab * PD_SLAB + (int)threadIdx.x % OWN::lanes * OWN::made),
          strip(blockIdx.x / slabs * OWN::rows + threadIdx.x / OWN::lanes)
    {
    }
};

/* The address of a pixel, which may lie outside of the map if nothing is read there. */
template <class T> __device__ __forceinline__ T *pixel(T *map, int image, int h, int y, int w, int x, int pitch)
{
    return map + (((ptrdiff_t)image * h + y) * w + x) * (ptrdiff_t)pitch;
}

/* ---- weights in registers ---- */

/* w[tap][i][o]: from input i of its group to the thread's channel o. The block reads them once, in their order, and its
 * threads take them from shared memory. Going back, the taps are turned round. */
template <class T, int GI, int GO, bool BACK, int O>
__device__ __forceinline__ void take_weights(const float *__restrict__ from, int slab, int count,
                                             float (&w)[TAPS][GI][O])
{
    constexpr int V = O < 4 ? O : 4, ROW = PD_SLAB + 4; /* 4: for other banks, and aligned */
    alignas(16) __shared__ float shared[TAPS * GI][ROW];
    const int first = slab * PD_SLAB, here = count - first < PD_SLAB ? count - first : PD_SLAB;
    from += (size_t)first * TAPS * GI;
    for (int e = (int)threadIdx.x; e < PD_SLAB * TAPS * GI; e += PD_THREADS) {
        int i = e % GI, tap = e / GI % TAPS, o = e / (GI * TAPS);
        if (BACK) { /* (group, GI, taps, GO) */
            i = e / (GO * TAPS) % GI;
            tap = TAPS - 1 - e / GO % TAPS;
            o = e / (GO * TAPS * GI) * GO + e % GO;
        }
        shared[tap * GI + i][o] = e < here * TAPS * GI ? from[e] : 0.f;
    }
    __syncthreads();
    const int lane = (int)threadIdx.x % (PD_SLAB / O);
#pragma unroll
    for (int tap = 0; tap < TAPS; tap++)
#pragma unroll
        for (int i = 0; i < GI; i++)
#pragma unroll
            for (int o = 0; o < O; o += V) {
                float v[V];
                load<V>(&shared[tap * GI + i][lane * O + o], v);
#pragma unroll
                for (int j = 0; j < V; j++) w[tap][i][o + j] = v[j];
            }
}

/* The pixels around (y, x) of a map of c.h * c.w, which `at` points to. */
template <class T, int R>
__device__ __forceinline__ void read_window(channels<T, R> (&to)[TAPS], const T *at, const pd_conv_shape &c, int y,
                                            int x)
{
#pragma unroll
    for (int t = 0; t < TAPS; t++) {
        const int down = t / 3 - 1, across = t % 3 - 1;
        to[t].read(at + (down * c.w + across) * c.c,
                   y + down >= 0 && y + down < c.h && x + across >= 0 && x + across < c.w);
    }
}

/* sum[o] += w[i][o] * v[the i-th input of o's group] */
template <int GO, int GI, int O, int R>
__device__ __forceinline__ void add_tap(float (&sum)[O], const float (&w)[GI][O], const float (&v)[R])
{
#pragma unroll
    for (int i = 0; i < GI; i++)
#pragma unroll
        for (int o = 0; o < O; o++) sum[o] += w[i][o] * v[o / GO * GI + i];
}

template <int O> __device__ __forceinline__ void clear(float (&sum)[O])
{
#pragma unroll
    for (int o = 0; o < O; o++) sum[o] = 0;
}

/* ---- 3x3, forward and the input's gradient ---- */

/* A stride of 1, forward or back: maps (n, h, w, their pitch). P: pixels side by side that a thread makes. */
template <class T, int GI, int GO, bool BACK, int P>
__global__ void __launch_bounds__(PD_THREADS, 2)
    same(strips s, unsigned slabs, int h, int w, const T *__restrict__ from, int from_pitch,
         const float *__restrict__ weights, T *__restrict__ to, int to_pitch, int made, bool add)
{
    using own = share<T, GI, GO>;
    constexpr int O = own::made, R = own::read;
    constexpr int AHEAD = R * sizeof(T) <= 16; /* rows that are read before they are used */
    const stand<own> here(slabs);
    float k[TAPS][GI][O];
    take_weights<T, GI, GO, BACK>(weights, here.slab, made, k);
    if (here.channel >= made || here.strip >= s.count) return;
    const strip at = strip_at(s, here.strip, h);
    const int x = at.column * P, from_row = w * from_pitch, to_row = w * to_pitch;
    const T *in = pixel(from, at.image, h, at.begin - 1, w, x, from_pitch) + here.channel / GO * GI;
    T *out = pixel(to, at.image, h, at.begin, w, x, to_pitch) + here.channel;
    float sum[3][P][O]; /* of the rows above this one, beside it and below */
    channels<T, R> column[P + 2];
#pragma unroll
    for (int p = 0; p < P; p++) {
        clear(sum[0][p]);
        clear(sum[1][p]);
        clear(sum[2][p]);
    }
#pragma unroll
    for (int q = 0; AHEAD && q < P + 2; q++)
        column[q].read(in + (q - 1) * from_pitch, at.begin > 0 && x + q >= 1 && x + q <= w);
    in += AHEAD * from_row;
#pragma unroll 1
    for (int y = at.begin - 1; y <= at.end; y++, in += from_row) {
        const bool inside = y + AHEAD >= 0 && y + AHEAD < h && y + AHEAD <= at.end;
#pragma unroll
        for (int q = 0; q < P + 2; q++) {
            float v[R];
            if (AHEAD) column[q].floats(v);
            column[q].read(in + (q - 1) * from_pitch, inside && x + q >= 1 && x + q <= w);
            if (!AHEAD) column[q].floats(v);
#pragma unroll
            for (int p = 0; p < P; p++)
#pragma unroll
                for (int r = 0; r < 3 && 0 <= q - p && q - p < 3; r++) add_tap<GO>(sum[2 - r][p], k[r * 3 + q - p], v);
        }
        if (y > at.begin) {
            put<O>(out, sum[0][0], add);
            if (P == 2 && x + 1 < w) put<O>(out + to_pitch, sum[0][P - 1], add);
            out += to_row;
        }
#pragma unroll
        for (int p = 0; p < P; p++)
#pragma unroll
            for (int o = 0; o < O; o++) {
                sum[0][p][o] = sum[1][p][o];
                sum[1][p][o] = sum[2][p][o];
                sum[2][p][o] = 0;
            }
    }
}

/* Forward with a stride of 2. x (n, h, w, c), y (n, oh, ow, its pitch). */
template <class T, int CI, int CO>
__global__ void __launch_bounds__(PD_THREADS, 2)
    halve(strips s, unsigned slabs, pd_conv_shape c, const T *__restrict__ x, const float *__restrict__ weights,
          T *__restrict__ y, int pitch)
{
    using own = share<T, CI, CO>;
    constexpr int O = own::made, R = own::read;
    const stand<own> here(slabs);
    float k[TAPS][CI][O];
    take_weights<T, CI, CO, false>(weights, here.slab, c.k, k);
    if (here.channel >= c.k || here.strip >= s.count) return;
    const strip at = strip_at(s, here.strip, c.oh);
    const T *in = pixel(x, at.image, c.h, 2 * at.begin, c.w, 2 * at.column, c.c) + here.channel / CO * CI;
    T *out = pixel(y, at.image, c.oh, at.begin, c.ow, at.column, pitch) + here.channel;
    for (int oy = at.begin; oy < at.end; oy++) {
        channels<T, R> seen[TAPS];
        float sum[O];
        clear(sum);
        read_window(seen, in, c, 2 * oy, 2 * at.column);
#pragma unroll
        for (int t = 0; t < TAPS; t++) {
            float v[R];
            seen[t].floats(v);
            add_tap<CO>(sum, k[t], v);
        }
        store<O>(out, sum);
        in += 2 * c.w * c.c;
        out += c.ow * pitch;
    }
}

/* The input's gradient with a stride of 2: a thread makes dx (2y, 2x), its neighbours to the right and below, from dy
 * (y, x) and its own. Strips of dy. */
template <class T, int CI, int CO>
__global__ void __launch_bounds__(PD_THREADS, 2)
    spread(strips s, unsigned slabs, pd_conv_shape c, const T *__restrict__ dy, int pitch,
           const float *__restrict__ weights, T *__restrict__ dx, bool add)
{
    using own = share<T, CO, CI>;
    constexpr int O = own::made, R = own::read;
    const stand<own> here(slabs);
    float k[TAPS][CO][O]; /* turned round: of tap 8 - t */
    take_weights<T, CO, CI, true>(weights, here.slab, c.c, k);
    if (here.channel >= c.c || here.strip >= s.count) return;
    const strip at = strip_at(s, here.strip, c.oh);
    const bool right = at.column + 1 < c.ow, wide = 2 * at.column + 1 < c.w;
    const T *in = pixel(dy, at.image, c.oh, at.begin, c.ow, at.column, pitch) + here.channel / CI * CO;
    T *out = pixel(dx, at.image, c.h, 2 * at.begin, c.w, 2 * at.column, c.c) + here.channel;
    channels<T, R> row[2][2]; /* of dy, this and the next */
    row[1][0].read(in, true);
    row[1][1].read(in + pitch, right);
    for (int y = at.begin; y < at.end; y++) {
        in += c.ow * pitch;
        row[0][0] = row[1][0];
        row[0][1] = row[1][1];
        row[1][0].read(in, y + 1 < c.oh);
        row[1][1].read(in + pitch, y + 1 < c.oh && right);
#pragma unroll
        for (int r = 0; r < 2 && 2 * y + r < c.h; r++) { /* of dx */
            float left[O], other[O], v[R];
            clear(left);
            clear(other);
#pragma unroll
            for (int b = 0; b <= r; b++) { /* row of dy: an even one of dx is seen by its own only */
                const int t = 3 * (r ? 2 * b : 1);
                row[b][0].floats(v);
                add_tap<CI>(left, k[t + 1], v);
                add_tap<CI>(other, k[t], v);
                row[b][1].floats(v);
                add_tap<CI>(other, k[t + 2], v);
            }
            put<O>(out, left, add);
            if (wide) put<O>(out + c.c, other, add);
            out += c.w * c.c;
        }
    }
}

/* ---- 3x3, the weights' gradient ---- */

/* sum[i][o] += d[o] * v[the i-th input of o's group] */
template <int GO, int GI, int O, int R>
__device__ __forceinline__ void add_product(float (&sum)[GI][O], const float (&d)[O], const float (&v)[R])
{
#pragma unroll
    for (int i = 0; i < GI; i++)
#pragma unroll
        for (int o = 0; o < O; o++) sum[i][o] += d[o] * v[o / GO * GI + i];
}

/* grid (slabs of outputs, pieces of the strips of y); partial (pieces, k, taps, CI). With a stride of 1 a row of x goes
 * with the three rows of dy around it, P pixels of each; with a stride of 2 every pixel of dy with its window. */
template <class T, int CI, int CO, int STRIDE, int P>
__global__ void __launch_bounds__(PD_THREADS, 2)
    weights(strips s, pd_conv_shape c, const T *__restrict__ x, const T *__restrict__ dy, int pitch,
            float *__restrict__ partial)
{
    using own = share<T, CI, CO, 4>;
    constexpr int O = own::made, R = own::read;
    __shared__ float shared[slab<O>::rows * PD_SLAB];
    const int channel = (int)blockIdx.x * PD_SLAB + (int)threadIdx.x % own::lanes * O;
    const int x_row = c.w * c.c, dy_row = c.ow * pitch;
    const unsigned step = gridDim.y * own::rows;
    float sum[TAPS][CI][O];
#pragma unroll
    for (int t = 0; t < TAPS; t++)
#pragma unroll
        for (int i = 0; i < CI; i++) clear(sum[t][i]);
    x += channel / CO * CI;
    dy += channel;
    unsigned i = blockIdx.y * own::rows + threadIdx.x / own::lanes;
    for (; channel < c.k && i < s.count; i += step) {
        const strip at = strip_at(s, i, c.oh);
        const int ox = at.column * P;
        const T *down = pixel(dy, at.image, c.oh, at.begin, c.ow, ox, pitch);
        const T *in = pixel(x, at.image, c.h, STRIDE * at.begin, c.w, STRIDE * ox, c.c);
        channels<T, O> next[P];
#pragma unroll
        for (int p = 0; p < P; p++) next[p].read(down + p * pitch, ox + p < c.ow);
        if constexpr (STRIDE == 1) {
            channels<T, R> column[P + 2];
            float d[3][P][O]; /* of the rows below, beside and above */
            in -= x_row;
#pragma unroll
            for (int q = 0; q < P + 2; q++)
                column[q].read(in + (q - 1) * c.c, at.begin > 0 && ox + q >= 1 && ox + q <= c.w);
#pragma unroll
            for (int p = 0; p < P; p++) {
                clear(d[1][p]);
                clear(d[2][p]);
            }
#pragma unroll 1
            for (int row = at.begin - 1; row <= at.end; row++) {
                const bool inside = row + 1 < c.h && row < at.end;
                down += dy_row;
                in += x_row;
#pragma unroll
                for (int p = 0; p < P; p++) {
                    next[p].floats(d[0][p]);
                    next[p].read(down + p * pitch, row + 2 < at.end && ox + p < c.ow);
                }
#pragma unroll
                for (int q = 0; q < P + 2; q++) {
                    float v[R];
                    column[q].floats(v);
                    column[q].read(in + (q - 1) * c.c, inside && ox + q >= 1 && ox + q <= c.w);
#pragma unroll
                    for (int p = 0; p < P; p++)
#pragma unroll
                        for (int r = 0; r < 3 && 0 <= q - p && q - p < 3; r++)
                            add_product<CO>(sum[r * 3 + q - p], d[r][p], v);
                }
#pragma unroll
                for (int p = 0; p < P; p++)
#pragma unroll
                    for (int o = 0; o < O; o++) {
                        d[2][p][o] = d[1][p][o];
                        d[1][p][o] = d[0][p][o];
                    }
            }
        } else {
            for (int oy = at.begin; oy < at.end; oy++) {
                channels<T, R> seen[TAPS];
                float d[O];
                next[0].floats(d);
                read_window(seen, in, c, STRIDE * oy, STRIDE * ox);
                down += dy_row;
                in += STRIDE * x_row;
                next[0].read(down, oy + 1 < at.end);
#pragma unroll
                for (int t = 0; t < TAPS; t++) {
                    float v[R];
                    seen[t].floats(v);
                    add_product<CO>(sum[t], d, v);
                }
            }
        }
    }
    const int k = (int)blockIdx.x * PD_SLAB + (int)threadIdx.x;
    float *out = partial + ((size_t)blockIdx.y * (size_t)c.k + (size_t)k) * (TAPS * CI);
#pragma unroll
    for (int t = 0; t < TAPS; t++)
#pragma unroll
        for (int j = 0; j < CI; j++) {
            const float total = column_sum<O>(sum[t][j], shared);
            if (threadIdx.x < PD_SLAB && k < c.k) out[t * CI + j] = total;
        }
}

/* ---- any window and any channels: an item is one value ---- */

template <class T>
__global__ void any_forward(pd_conv_shape s, const T *__restrict__ x, const float *__restrict__ w, T *__restrict__ y,
                            int pitch)
{
    const int ci = s.c / s.groups, co = s.k / s.groups;
    const size_t items = (size_t)s.n * (size_t)s.oh * (size_t)s.ow * (size_t)s.k;
    for (size_t item = first_item(); item < items; item += item_step()) {
        const int k = (int)(item % (unsigned)s.k);
        const size_t out = item / (unsigned)s.k, row = out / (unsigned)s.ow;
        const int ox = (int)(out % (unsigned)s.ow), oy = (int)(row % (unsigned)s.oh);
        const int image = (int)(row / (unsigned)s.oh);
        const float *tap = w + (size_t)k * (size_t)(s.kh * s.kw * ci);
        float sum = 0;
        for (int t = 0; t < s.kh * s.kw; t++, tap += ci) {
            const int iy = oy * s.stride - s.pad_h + t / s.kw, ix = ox * s.stride - s.pad_w + t % s.kw;
            if (iy < 0 || iy >= s.h || ix < 0 || ix >= s.w) continue;
            const T *from = pixel(x, image, s.h, iy, s.w, ix, s.c) + k / co * ci;
            for (int i = 0; i < ci; i++) sum += tap[i] * to_float(from[i]);
        }
        y[out * (size_t)pitch + (size_t)k] = from_float<T>(sum);
    }
}

template <class T>
__global__ void any_data(pd_conv_shape s, const T *__restrict__ dy, int pitch, const float *__restrict__ w,
                         T *__restrict__ dx, bool add)
{
    const int ci = s.c / s.groups, co = s.k / s.groups, taps = s.kh * s.kw;
    const size_t items = (size_t)s.n * (size_t)s.h * (size_t)s.w * (size_t)s.c;
    for (size_t item = first_item(); item < items; item += item_step()) {
        const int c = (int)(item % (unsigned)s.c), first = c / ci * co;
        const size_t in = item / (unsigned)s.c, row = in / (unsigned)s.w;
        const int ix = (int)(in % (unsigned)s.w), iy = (int)(row % (unsigned)s.h), image = (int)(row / (unsigned)s.h);
        float sum = add ? to_float(dx[item]) : 0;
        for (int t = 0; t < taps; t++) {
            const int ty = iy + s.pad_h - t / s.kw, tx = ix + s.pad_w - t % s.kw, oy = ty / s.stride,
                      ox = tx / s.stride;
            if (ty < 0 || ty % s.stride || oy >= s.oh || tx < 0 || tx % s.stride || ox >= s.ow) continue;
            const T *from = pixel(dy, image, s.oh, oy, s.ow, ox, pitch) + first;
            for (int o = 0; o < co; o++)
                sum += to_float(from[o]) * w[((size_t)(first + o) * (size_t)taps + (size_t)t) * (size_t)ci + c % ci];
        }
        dx[item] = from_float<T>(sum);
    }
}

/* grid (weights, pieces of the output's pixels); partial (pieces, weights) */
template <class T>
__global__ void any_weights(pd_conv_shape s, const T *__restrict__ x, const T *__restrict__ dy, int pitch,
                            size_t per_piece, float *__restrict__ partial)
{
    const int ci = s.c / s.groups, co = s.k / s.groups, taps = s.kh * s.kw, count = s.k * taps * ci;
    const int item = (int)first_item(), k = item / (taps * ci), t = item / ci % taps;
    const size_t pixels = (size_t)s.n * (size_t)s.oh * (size_t)s.ow, begin = (size_t)blockIdx.y * per_piece;
    const size_t end = begin + per_piece < pixels ? begin + per_piece : pixels;
    if (item >= count) return;
    float sum = 0;
    for (size_t out = begin; out < end; out++) {
        const size_t row = out / (unsigned)s.ow;
        const int iy = (int)(row % (unsigned)s.oh) * s.stride - s.pad_h + t / s.kw;
        const int ix = (int)(out % (unsigned)s.ow) * s.stride - s.pad_w + t % s.kw;
        if (iy < 0 || iy >= s.h || ix < 0 || ix >= s.w) continue;
        const T *from = pixel(x, (int)(row / (unsigned)s.oh), s.h, iy, s.w, ix, s.c) + k / co * ci;
        sum += to_float(dy[out * (size_t)pitch + (size_t)k]) * to_float(from[item % ci]);
    }
    partial[(size_t)blockIdx.y * (size_t)count + (size_t)item] = sum;
}

/* ---- pieces of the weights' gradient ---- */

#define COLUMNS 32
#define ROWS (PD_THREADS / COLUMNS)

/* grid (weights / COLUMNS); rows of threads share the pieces. */
__global__ void __launch_bounds__(PD_THREADS)
    add_pieces(const float *__restrict__ partial, unsigned pieces, size_t count, float *__restrict__ dw, bool add)
{
    __shared__ double shared[ROWS][COLUMNS];
    const unsigned lane = threadIdx.x % COLUMNS, row = threadIdx.x / COLUMNS;
    const size_t i = (size_t)blockIdx.x * COLUMNS + lane;
    double sum = 0;
    for (unsigned p = row; i < count && p < pieces; p += ROWS) sum += (double)partial[p * count + i];
    shared[row][lane] = sum;
    __syncthreads();
    if (row || i >= count) return;
    for (unsigned r = 1; r < ROWS; r++) sum += shared[r][lane];
    dw[i] = (float)sum + (add ? dw[i] : 0.f);
}

/* ---- launchers ---- */

unsigned slabs(int channels)
{
    return (unsigned)(channels + PD_SLAB - 1) / PD_SLAB;
}

size_t weight_count(const pd_conv_shape *s)
{
    return (size_t)s->k * (size_t)(s->kh * s->kw) * (size_t)(s->c / s->groups);
}

/* Pieces of the output that are summed apart, by the shape alone: as many as an H100 runs at once, two blocks on each
 * of its 132 processors, or fewer, for four strips each. */
unsigned pieces_of(const pd_conv_shape *s)
{
    const unsigned want = (264 + slabs(s->k) - 1) / slabs(s->k), most = (strips_of(s->n, s->oh, s->ow).count + 3) / 4;
    return want < most ? want : most ? most : 1;
}

template <class OWN> dim3 blocks_of(const strips &s, int made)
{
    return dim3((s.count + OWN::rows - 1) / OWN::rows * slabs(made));
}

template <int N> using number = std::integral_constant<int, N>;

/* f(CI, CO) as integral constants. */
template <class F> int by_group(const pd_conv_shape *s, F f)
{
    const bool twice = s->k > s->c;
    const int ci = s->c / s->groups;
    if (ci == 1) return twice ? f(number<1>{}, number<2>{}) : f(number<1>{}, number<1>{});
    if (ci == 2) return twice ? f(number<2>{}, number<4>{}) : f(number<2>{}, number<2>{});
    return twice ? f(number<4>{}, number<8>{}) : f(number<4>{}, number<4>{});
}

/* May the strips' kernels be used? Every vector, of eight elements at most, must lie at a multiple of its size. */
bool by_strips(const pd_conv_shape *s, pd_store store, const void *x, const void *y, int pitch)
{
    const size_t vector = 8 * pd_store_bytes(store);
    return s->kh == 3 && s->kw == 3 && s->pad_h == 1 && s->pad_w == 1 && s->stride <= 2 && s->c % 8 == 0 &&
           s->k % 8 == 0 && pitch % 8 == 0 && (uintptr_t)x % vector == 0 && (uintptr_t)y % vector == 0 &&
           s->oh == (s->h - 1) / s->stride + 1 && s->ow == (s->w - 1) / s->stride + 1;
}

/* Do two pixels side by side fit into a thread's registers, with three rows of sums (or gradients) and, as they are
 * stored, four columns and `more` channels? */
template <class T, class OWN, int GI> constexpr int side_by_side(int more)
{
    return TAPS * GI * OWN::made + 3 * 2 * OWN::made + (4 * OWN::read + more) * (int)sizeof(T) / 4 <= 104 ? 2 : 1;
}

template <class T, int GI, int GO, bool BACK>
int launch_same(const pd_conv_shape *s, const void *from, int from_pitch, const float *w, void *to, int to_pitch,
                int made, bool add, cudaStream_t stream)
{
    using own = share<T, GI, GO>;
    constexpr int P = side_by_side<T, own, GI>(0);
    const strips all = strips_of(s->n, s->h, (s->w + P - 1) / P);
    return launch_sync(same<T, GI, GO, BACK, P>, blocks_of<own>(all, made), dim3(PD_THREADS), stream, all, slabs(made),
                       s->h, s->w, (const T *)from, from_pitch, w, (T *)to, to_pitch, made, add);
}

} // namespace

bool pd_grouped_fits(const pd_conv_shape *s)
{
    const int ci = s->c / s->groups, co = s->k / s->groups;
    return s->groups > 1 && s->kh * s->kw <= PD_GROUPED_TAPS && (ci == 1 || ci == 2 || ci == 4) &&
           (co == ci || co == 2 * ci);
}

int pd_grouped_fwd(const pd_conv_shape *s, pd_store store, const void *x, const float *w, void *y, int y_pitch,
                   cudaStream_t stream)
{
    const size_t items = (size_t)s->n * (size_t)s->oh * (size_t)s->ow * (size_t)s->k;
    if (!items) return 0;
    return by_store(store, [&](auto t) {
        using T = decltype(t);
        if (!by_strips(s, store, x, y, y_pitch))
            return launch(any_forward<T>, blocks_for(items), dim3(PD_THREADS), stream, *s, (const T *)x, w, (T *)y,
                          y_pitch);
        return by_group(s, [&](auto in, auto out) {
            constexpr int CI = decltype(in)::value, CO = decltype(out)::value;
            if (s->stride == 1) return launch_same<T, CI, CO, false>(s, x, s->c, w, y, y_pitch, s->k, false, stream);
            const strips all = strips_of(s->n, s->oh, s->ow);
            return launch_sync(halve<T, CI, CO>, blocks_of<share<T, CI, CO>>(all, s->k), dim3(PD_THREADS), stream, all,
                               slabs(s->k), *s, (const T *)x, w, (T *)y, y_pitch);
        });
    });
}

int pd_grouped_data(const pd_conv_shape *s, pd_store store, void *dx, bool add, const float *w, const void *dy,
                    int dy_pitch, cudaStream_t stream)
{
    const size_t items = (size_t)s->n * (size_t)s->h * (size_t)s->w * (size_t)s->c;
    if (!items) return 0;
    return by_store(store, [&](auto t) {
        using T = decltype(t);
        if (!by_strips(s, store, dx, dy, dy_pitch))
            return launch(any_data<T>, blocks_for(items), dim3(PD_THREADS), stream, *s, (const T *)dy, dy_pitch, w,
                          (T *)dx, add);
        return by_group(s, [&](auto in, auto out) {
            constexpr int CI = decltype(in)::value, CO = decltype(out)::value;
            if (s->stride == 1) return launch_same<T, CO, CI, true>(s, dy, dy_pitch, w, dx, s->c, s->c, add, stream);
            const strips all = strips_of(s->n, s->oh, s->ow);
            return launch_sync(spread<T, CI, CO>, blocks_of<share<T, CO, CI>>(all, s->c), dim3(PD_THREADS), stream, all,
                               slabs(s->c), *s, (const T *)dy, dy_pitch, w, (T *)dx, add);
        });
    });
}

size_t pd_grouped_floats(const pd_conv_shape *s)
{
    return pieces_of(s) * weight_count(s);
}

int pd_grouped_weights(const pd_conv_shape *s, pd_store store, const void *x, float *dw, bool add, const void *dy,
                       int dy_pitch, float *partial, cudaStream_t stream)
{
    const size_t pixels = (size_t)s->n * (size_t)s->oh * (size_t)s->ow, count = weight_count(s);
    const unsigned pieces = pieces_of(s);
    const int code = by_store(store, [&](auto t) {
        using T = decltype(t);
        if (!by_strips(s, store, x, dy, dy_pitch))
            return launch(any_weights<T>, dim3((unsigned)((count + PD_THREADS - 1) / PD_THREADS), pieces),
                          dim3(PD_THREADS), stream, *s, (const T *)x, (const T *)dy, dy_pitch,
                          (pixels + pieces - 1) / pieces, partial);
        return by_group(s, [&](auto in, auto out) {
            constexpr int CI = decltype(in)::value, CO = decltype(out)::value;
            using own = share<T, CI, CO, 4>;
            constexpr int P = side_by_side<T, own, CI>(4 * own::made);
            return launch_sync(s->stride == 1 ? weights<T, CI, CO, 1, P> : weights<T, CI, CO, 2, 1>,
                               dim3(slabs(s->k), pieces), dim3(PD_THREADS), stream,
                               strips_of(s->n, s->oh, s->stride == 1 ? (s->ow + P - 1) / P : s->ow), *s, (const T *)x,
                               (const T *)dy, dy_pitch, partial);
        });
    });
    if (code) return code;
    return launch_sync(add_pieces, dim3((unsigned)((count + COLUMNS - 1) / COLUMNS)), dim3(PD_THREADS), stream,
                       (const float *)partial, pieces, count, dw, add);
}
