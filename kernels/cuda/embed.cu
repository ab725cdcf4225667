/* Parameters into a library's kernels, and gradients out of them. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/embed.h"

using namespace pd;

namespace
{

template <class T> __global__ void embed(pd_embedding e, const float *__restrict__ w, T *__restrict__ to)
{
    const size_t per_row = (size_t)e.rr * (size_t)e.ss * (size_t)e.cc, items = (size_t)e.rows * per_row;
    for (size_t item = first_item(); item < items; item += item_step()) {
        const int o = (int)(item / per_row), at = (int)(item % per_row);
        const int y = at / e.cc / e.ss - (e.rr - e.r) / 2, x = at / e.cc % e.ss - (e.ss - e.s) / 2;
        const int c = at % e.cc - (e.dense ? o / (e.k / e.groups) * e.cg : 0);
        const bool there = o < e.k && y >= 0 && y < e.r && x >= 0 && x < e.s && c >= 0 && c < e.cg;
        to[item] = from_float<T>(
            there ? w[(((size_t)o * (size_t)e.r + (size_t)y) * (size_t)e.s + (size_t)x) * (size_t)e.cg + (size_t)c]
                  : 0.f);
    }
}

template <class T> __global__ void extract(pd_embedding e, const T *__restrict__ from, float *__restrict__ dw, bool add)
{
    const size_t per_row = (size_t)e.r * (size_t)e.s * (size_t)e.cg, items = (size_t)e.k * per_row;
    for (size_t item = first_item(); item < items; item += item_step()) {
        const int o = (int)(item / per_row), at = (int)(item % per_row);
        const int y = at / e.cg / e.s + (e.rr - e.r) / 2, x = at / e.cg % e.s + (e.ss - e.s) / 2;
        const int c = at % e.cg + (e.dense ? o / (e.k / e.groups) * e.cg : 0);
        const float g = to_float(
            from[(((size_t)o * (size_t)e.rr + (size_t)y) * (size_t)e.ss + (size_t)x) * (size_t)e.cc + (size_t)c]);
        dw[item] = g + (add ? dw[item] : 0.f);
    }
}

__global__ void mix_kernels(int mix, const float *__restrict__ a, const float *__restrict__ from, size_t count,
                            float *__restrict__ to)
{
    for (size_t i = first_item(); i < count; i += item_step()) {
        float sum = 0;
        for (int k = 0; k < mix; k++) sum += a[k] * from[(size_t)k * count + i];
        to[i] = sum;
    }
}

} // namespace

int pd_embed(const pd_embedding *e, const float *w, void *to, cudaStream_t stream)
{
    const size_t items = (size_t)e->rows * (size_t)e->rr * (size_t)e->ss * (size_t)e->cc;
    return by_store(e->store, [&](auto t) {
        using T = decltype(t);
        return launch(embed<T>, blocks_for(items), dim3(PD_THREADS), stream, *e, w, (T *)to);
    });
}

int pd_extract(const pd_embedding *e, const void *from, float *dw, bool add, cudaStream_t stream)
{
    const size_t items = (size_t)e->k * (size_t)e->r * (size_t)e->s * (size_t)e->cg;
    return by_store(e->store, [&](auto t) {
        using T = decltype(t);
        return launch(extract<T>, blocks_for(items), dim3(PD_THREADS), stream, *e, (const T *)from, dw, add);
    });
}

int pd_mix(int mix, const float *a, const float *from, size_t count, float *to, cudaStream_t stream)
{
    return launch(mix_kernels, blocks_for(count), dim3(PD_THREADS), stream, mix, a, from, count, to);
}
