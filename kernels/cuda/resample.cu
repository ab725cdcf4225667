/* Nearest-neighbour upsampling with addition, and taking every n-th pixel. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/resample.h"

using namespace pd;

namespace
{

/* An item of a map as channel, column, row, image. */
struct place {
    int c, x, y;
    size_t image;
};

__device__ __forceinline__ place place_of(size_t item, int c, int w, int h)
{
    place p;
    p.c = (int)(item % (unsigned)c);
    item /= (unsigned)c;
    p.x = (int)(item % (unsigned)w);
    item /= (unsigned)w;
    p.y = (int)(item % (unsigned)h);
    p.image = item / (unsigned)h;
    return p;
}

__device__ __forceinline__ size_t index_of(size_t image, int y, int x, int c, int h, int w, int channels)
{
    return ((image * (size_t)h + (size_t)y) * (size_t)w + (size_t)x) * (size_t)channels + (size_t)c;
}

template <class T>
__global__ void up_forward(pd_resample s, const T *__restrict__ coarse, const T *lateral, T *y, size_t items)
{
    for (size_t item = first_item(); item < items; item += item_step()) {
        const place p = place_of(item, s.c, s.w, s.h);
        const int cy = (int)((long)p.y * s.hc / s.h), cx = (int)((long)p.x * s.wc / s.w);
        y[item] =
            from_float<T>(to_float(lateral[item]) + to_float(coarse[index_of(p.image, cy, cx, p.c, s.hc, s.wc, s.c)]));
    }
}

template <class T>
__global__ void up_backward(pd_resample s, const T *__restrict__ dy, T *__restrict__ dcoarse, bool add, size_t items)
{
    for (size_t item = first_item(); item < items; item += item_step()) {
        const place p = place_of(item, s.c, s.wc, s.hc);
        const int y0 = (int)(((long)p.y * s.h + s.hc - 1) / s.hc),
                  y1 = (int)(((long)(p.y + 1) * s.h + s.hc - 1) / s.hc);
        const int x0 = (int)(((long)p.x * s.w + s.wc - 1) / s.wc),
                  x1 = (int)(((long)(p.x + 1) * s.w + s.wc - 1) / s.wc);
        float sum = add ? to_float(dcoarse[item]) : 0.f;
        for (int y = y0; y < y1; y++)
            for (int x = x0; x < x1; x++) sum += to_float(dy[index_of(p.image, y, x, p.c, s.h, s.w, s.c)]);
        dcoarse[item] = from_float<T>(sum);
    }
}

template <class T>
__global__ void sub_forward(pd_resample s, const T *__restrict__ fine, T *__restrict__ coarse, size_t items)
{
    for (size_t item = first_item(); item < items; item += item_step()) {
        const place p = place_of(item, s.c, s.wc, s.hc);
        coarse[item] = fine[index_of(p.image, p.y * s.stride, p.x * s.stride, p.c, s.h, s.w, s.c)];
    }
}

template <class T>
__global__ void sub_backward(pd_resample s, const T *__restrict__ dcoarse, T *__restrict__ dfine, bool add,
                             size_t items)
{
    for (size_t item = first_item(); item < items; item += item_step()) {
        const place p = place_of(item, s.c, s.w, s.h);
        float sum = add ? to_float(dfine[item]) : 0.f;
        if (p.y % s.stride == 0 && p.x % s.stride == 0)
            sum += to_float(dcoarse[index_of(p.image, p.y / s.stride, p.x / s.stride, p.c, s.hc, s.wc, s.c)]);
        dfine[item] = from_float<T>(sum);
    }
}

size_t fine_items(const pd_resample *s)
{
    return (size_t)s->n * (size_t)s->h * (size_t)s->w * (size_t)s->c;
}

size_t coarse_items(const pd_resample *s)
{
    return (size_t)s->n * (size_t)s->hc * (size_t)s->wc * (size_t)s->c;
}

} // namespace

int pd_upsample_add_fwd(const pd_resample *s, const void *coarse, const void *lateral, void *y, cudaStream_t stream)
{
    return by_store(s->store, [&](auto t) {
        using T = decltype(t);
        return launch(up_forward<T>, blocks_for(fine_items(s)), dim3(PD_THREADS), stream, *s, (const T *)coarse,
                      (const T *)lateral, (T *)y, fine_items(s));
    });
}

int pd_upsample_add_bwd(const pd_resample *s, const void *dy, void *dcoarse, bool add, cudaStream_t stream)
{
    return by_store(s->store, [&](auto t) {
        using T = decltype(t);
        return launch(up_backward<T>, blocks_for(coarse_items(s)), dim3(PD_THREADS), stream, *s, (const T *)dy,
                      (T *)dcoarse, add, coarse_items(s));
    });
}

int pd_subsample_fwd(const pd_resample *s, const void *fine, void *coarse, cudaStream_t stream)
{
    return by_store(s->store, [&](auto t) {
        using T = decltype(t);
        return launch(sub_forward<T>, blocks_for(coarse_items(s)), dim3(PD_THREADS), stream, *s, (const T *)fine,
                      (T *)coarse, coarse_items(s));
    });
}

int pd_subsample_bwd(const pd_resample *s, const void *dcoarse, void *dfine, bool add, cudaStream_t stream)
{
    return by_store(s->store, [&](auto t) {
        using T = decltype(t);
        return launch(sub_backward<T>, blocks_for(fine_items(s)), dim3(PD_THREADS), stream, *s, (const T *)dcoarse,
                      (T *)dfine, add, fine_items(s));
    });
}
