/* Bytes of images become normalised elements, mirrored where that is wanted and padded to whole vectors. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/normalize.h"

using namespace pd;

namespace
{

/* A thread has a pixel of the output, in as many images as fall to it. PITCH 3: no padding. */
template <class T, int PITCH>
__global__ void normalize(pd_normalizing s, const unsigned char *__restrict__ bytes, const int *__restrict__ sizes,
                          const int *__restrict__ mirror, T *__restrict__ to)
{
    const in_rows t = thread_in_rows((unsigned)s.h * (unsigned)s.w);
    const int y = (int)(t.place / (unsigned)s.w), x = (int)(t.place % (unsigned)s.w);
    for (size_t i = t.row; i < (size_t)s.n; i += t.step) {
        const size_t item = i * (size_t)s.h * (size_t)s.w + t.place;
        const int h = sizes[4 * i], wide = sizes[4 * i + 1], w = wide < s.w ? wide : s.w;
        float v[PITCH];
#pragma unroll
        for (int c = 0; c < PITCH; c++) v[c] = 0;
        if (y < h && x < w) {
            const unsigned char *from = bytes + 3 * (item - (size_t)x + (size_t)(mirror[i] ? w - 1 - x : x));
#pragma unroll
            for (int c = 0; c < 3; c++) v[c] = pd_pixel_value(from[c], &s.norm, c);
        }
        if constexpr (PITCH == 3) {
#pragma unroll
            for (int c = 0; c < 3; c++) to[3 * item + c] = from_float<T>(v[c]);
        } else {
            store<PITCH>(to + PITCH * item, v);
        }
    }
}

} // namespace

int pd_normalize_images(const pd_normalizing *s, const unsigned char *bytes, const int *sizes, const int *mirror,
                        void *to, cudaStream_t stream)
{
    const dim3 blocks = blocks_for_rows((size_t)s->n, (size_t)s->h * (size_t)s->w);
    return by_store(s->store, [&](auto t) {
        using T = decltype(t);
        constexpr int whole = 16 / (int)sizeof(T);
        if (s->pitch == whole)
            return launch(normalize<T, whole>, blocks, dim3(PD_THREADS), stream, *s, bytes, sizes, mirror, (T *)to);
        return launch(normalize<T, 3>, blocks, dim3(PD_THREADS), stream, *s, bytes, sizes, mirror, (T *)to);
    });
}
