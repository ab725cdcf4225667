/* Convolutions with few channels a group, channels last: every thread has neighbouring channels, so reads are
 * coalesced. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/grouped.h"

using namespace pd;

namespace
{

/* CI and CO: channels in and out of a group. */

/* An item is one output channel of one pixel. Neighbouring threads read neighbouring inputs and the same taps. */
template <class T, int CI, int CO>
__global__ void __launch_bounds__(PD_THREADS)
    forward(pd_conv_shape s, const T *__restrict__ x, const float *__restrict__ w, T *__restrict__ y, int pitch)
{
    const size_t items = (size_t)s.n * (size_t)s.oh * (size_t)s.ow * (size_t)s.k;
    for (size_t item = first_item(); item < items; item += item_step()) {
        const int k = (int)(item % (unsigned)s.k);
        const size_t pixel = item / (unsigned)s.k, row = pixel / (unsigned)s.ow;
        const int ox = (int)(pixel % (unsigned)s.ow), oy = (int)(row % (unsigned)s.oh);
        const size_t image = row / (unsigned)s.oh;
        const float *taps = w + (size_t)k * (size_t)(s.kh * s.kw * CI);
        float sum = 0;
        for (int r = 0; r < s.kh; r++) {
            const int iy = oy * s.stride - s.pad_h + r;
            if (iy < 0 || iy >= s.h) continue;
            for (int q = 0; q < s.kw; q++) {
                const int ix = ox * s.stride - s.pad_w + q;
                if (ix < 0 || ix >= s.w) continue;
                const T *from =
                    x + ((image * (size_t)s.h + (size_t)iy) * (size_t)s.w + (size_t)ix) * (size_t)s.c + k / CO * CI;
                float v[CI];
                load<CI>(from, v);
#pragma unroll
                for (int i = 0; i < CI; i++) sum += taps[(r * s.kw + q) * CI + i] * v[i];
            }
        }
        y[pixel * (size_t)pitch + k] = from_float<T>(sum);
    }
}

/* An item is one group's inputs of one pixel. */
template <class T, int CI, int CO>
__global__ void __launch_bounds__(PD_THREADS) data(pd_conv_shape s, T *__restrict__ dx, bool add,
                                                   const float *__restrict__ w, const T *__restrict__ dy, int pitch)
{
    const size_t items = (size_t)s.n * (size_t)s.h * (size_t)s.w * (size_t)s.groups;
    for (size_t item = first_item(); item < items; item += item_step()) {
        const int g = (int)(item % (unsigned)s.groups);
        const size_t pixel = item / (unsigned)s.groups, row = pixel / (unsigned)s.w;
        const int ix = (int)(pixel % (unsigned)s.w), iy = (int)(row % (unsigned)s.h);
        const size_t image = row / (unsigned)s.h;
        float sum[CI];
        T *to = dx + pixel * (size_t)s.c + g * CI;
#pragma unroll
        for (int i = 0; i < CI; i++) sum[i] = 0;
        if (add) load<CI>(to, sum);
        for (int r = 0; r < s.kh; r++) {
            const int ty = iy + s.pad_h - r;
            if (ty < 0 || ty % s.stride || ty / s.stride >= s.oh) continue;
            for (int q = 0; q < s.kw; q++) {
                const int tx = ix + s.pad_w - q;
                if (tx < 0 || tx % s.stride || tx / s.stride >= s.ow) continue;
                const size_t out =
                    (image * (size_t)s.oh + (size_t)(ty / s.stride)) * (size_t)s.ow + (size_t)(tx / s.stride);
                float v[CO];
#pragma unroll
                for (int o = 0; o < CO; o++) v[o] = to_float(dy[out * (size_t)pitch + g * CO + o]);
#pragma unroll
                for (int o = 0; o < CO; o++) {
                    const float *taps =
                        w + ((size_t)(g * CO + o) * (size_t)(s.kh * s.kw) + (size_t)(r * s.kw + q)) * CI;
#pragma unroll
                    for (int i = 0; i < CI; i++) sum[i] += v[o] * taps[i];
                }
            }
        }
        store<CI>(to, sum);
    }
}

/* grid (slabs of 64 outputs, pieces of the output's pixels); partial (pieces, k, taps, CI) */
template <class T, int CI, int CO>
__global__ void __launch_bounds__(PD_THREADS)
    weights(pd_conv_shape s, const T *__restrict__ x, const T *__restrict__ dy, int pitch, size_t per_piece,
            float *__restrict__ partial)
{
    __shared__ float shared[slab<1>::rows * PD_SLAB];
    const int k = (int)blockIdx.x * PD_SLAB + (int)threadIdx.x % PD_SLAB, lane = (int)threadIdx.x / PD_SLAB;
    const size_t pixels = (size_t)s.n * (size_t)s.oh * (size_t)s.ow, begin = (size_t)blockIdx.y * per_piece;
    const size_t end = begin + per_piece < pixels ? begin + per_piece : pixels;
    float sum[PD_GROUPED_TAPS * CI];
#pragma unroll
    for (int i = 0; i < PD_GROUPED_TAPS * CI; i++) sum[i] = 0;
    for (size_t pixel = begin + (size_t)lane; k < s.k && pixel < end; pixel += slab<1>::rows) {
        const size_t row = pixel / (unsigned)s.ow, image = row / (unsigned)s.oh;
        const int ox = (int)(pixel % (unsigned)s.ow), oy = (int)(row % (unsigned)s.oh);
        const float g = to_float(dy[pixel * (size_t)pitch + k]);
        int tap = 0;
#pragma unroll
        for (int t = 0; t < PD_GROUPED_TAPS; t++, tap++) {
            if (t >= s.kh * s.kw) break;
            const int iy = oy * s.stride - s.pad_h + t / s.kw, ix = ox * s.stride - s.pad_w + t % s.kw;
            if (iy < 0 || iy >= s.h || ix < 0 || ix >= s.w) continue;
            float v[CI];
            load<CI>(x + ((image * (size_t)s.h + (size_t)iy) * (size_t)s.w + (size_t)ix) * (size_t)s.c + k / CO * CI,
                     v);
#pragma unroll
            for (int i = 0; i < CI; i++) sum[t * CI + i] += g * v[i];
        }
    }
    const int taps = s.kh * s.kw;
    const int channel = (int)blockIdx.x * PD_SLAB + (int)threadIdx.x;
    float *out = partial + (size_t)blockIdx.y * (size_t)s.k * (size_t)(taps * CI);
#pragma unroll
    for (int t = 0; t < PD_GROUPED_TAPS * CI; t++) {
        if (t >= taps * CI) break;
        const float one[1] = {sum[t]};
        const float total = column_sum<1>(one, shared);
        if (threadIdx.x < PD_SLAB && channel < s.k) out[(size_t)channel * (size_t)(taps * CI) + (size_t)t] = total;
    }
}

__global__ void add_pieces(const float *__restrict__ partial, size_t pieces, size_t count, float *__restrict__ dw,
                           bool add)
{
    for (size_t i = first_item(); i < count; i += item_step()) {
        double sum = 0;
        for (size_t p = 0; p < pieces; p++) sum += (double)partial[p * count + i];
        dw[i] = (float)sum + (add ? dw[i] : 0.f);
    }
}

size_t weight_count(const pd_conv_shape *s)
{
    return (size_t)s->k * (size_t)(s->kh * s->kw) * (size_t)(s->c / s->groups);
}

/* Pieces of the output that are summed apart: by the shape alone. */
size_t pieces_of(const pd_conv_shape *s)
{
    const size_t slabs = (size_t)(s->k + PD_SLAB - 1) / PD_SLAB, pixels = (size_t)s->n * (size_t)s->oh * (size_t)s->ow;
    size_t pieces = (512 + slabs - 1) / slabs;
    if (pieces > (pixels + 63) / 64) pieces = (pixels + 63) / 64;
    return pieces ? pieces : 1;
}

/* f(CI, CO) as integral constants. */
template <class F> int by_group(const pd_conv_shape *s, F f)
{
    const int ci = s->c / s->groups, co = s->k / s->groups;
    const auto out = [&](auto in) {
        if (co == 1) return f(in, std::integral_constant<int, 1>{});
        if (co == 2) return f(in, std::integral_constant<int, 2>{});
        if (co == 4) return f(in, std::integral_constant<int, 4>{});
        return f(in, std::integral_constant<int, 8>{});
    };
    if (ci == 1) return out(std::integral_constant<int, 1>{});
    if (ci == 2) return out(std::integral_constant<int, 2>{});
    return out(std::integral_constant<int, 4>{});
}

} // namespace

bool pd_grouped_fits(const pd_conv_shape *s)
{
    const int ci = s->c / s->groups, co = s->k / s->groups;
    return s->groups > 1 && s->kh * s->kw <= PD_GROUPED_TAPS && (ci == 1 || ci == 2 || ci == 4) &&
           (co == ci || co == 2 * ci);
}

/* Only what fits is instantiated: as many channels out as in, or twice. */
#define ONLY_FITTING(in, out, ...)                                                                                     \
    if constexpr (decltype(out)::value == decltype(in)::value || decltype(out)::value == 2 * decltype(in)::value) {    \
        constexpr int CI = decltype(in)::value, CO = decltype(out)::value;                                             \
        __VA_ARGS__                                                                                                    \
    } else {                                                                                                           \
        return (int)cudaErrorInvalidValue;                                                                             \
    }

int pd_grouped_fwd(const pd_conv_shape *s, pd_store store, const void *x, const float *w, void *y, int y_pitch,
                   cudaStream_t stream)
{
    const size_t items = (size_t)s->n * (size_t)s->oh * (size_t)s->ow * (size_t)s->k;
    if (!items) return 0;
    return by_store(store, [&](auto t) {
        using T = decltype(t);
        return by_group(s, [&](auto in, auto out) {
            ONLY_FITTING(in, out,
                         return launch(forward<T, CI, CO>, blocks_for(items), dim3(PD_THREADS), stream, *s,
                                       (const T *)x, w, (T *)y, y_pitch);)
        });
    });
}

int pd_grouped_data(const pd_conv_shape *s, pd_store store, void *dx, bool add, const float *w, const void *dy,
                    int dy_pitch, cudaStream_t stream)
{
    const size_t items = (size_t)s->n * (size_t)s->h * (size_t)s->w * (size_t)s->groups;
    if (!items) return 0;
    return by_store(store, [&](auto t) {
        using T = decltype(t);
        return by_group(s, [&](auto in, auto out) {
            ONLY_FITTING(in, out,
                         return launch(data<T, CI, CO>, blocks_for(items), dim3(PD_THREADS), stream, *s, (T *)dx, add,
                                       w, (const T *)dy, dy_pitch);)
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
    const size_t pixels = (size_t)s->n * (size_t)s->oh * (size_t)s->ow, pieces = pieces_of(s), count = weight_count(s);
    const dim3 grid((unsigned)((s->k + PD_SLAB - 1) / PD_SLAB), (unsigned)pieces);
    const int code = by_store(store, [&](auto t) {
        using T = decltype(t);
        return by_group(s, [&](auto in, auto out) {
            ONLY_FITTING(in, out,
                         return launch_sync(weights<T, CI, CO>, grid, dim3(PD_THREADS), stream, *s, (const T *)x,
                                            (const T *)dy, dy_pitch, (pixels + pieces - 1) / pieces, partial);)
        });
    });
    if (code) return code;
    return launch(add_pieces, blocks_for(count), dim3(PD_THREADS), stream, (const float *)partial, pieces, count, dw,
                  add);
}
