/* Boxes moved by a stage's offsets: a block an image; each thread a stretch of its boxes, so that they keep their
 * order. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/refine.h"

using namespace pd;

namespace
{

template <class T>
__global__ void __launch_bounds__(PD_LIST_THREADS)
    refine_image(pd_box_coder coder, int m, const pd_box *__restrict__ roi, const int *__restrict__ n_rois,
                 const T *__restrict__ deltas, const int *__restrict__ drop, const int *__restrict__ sizes,
                 pd_box *__restrict__ out, int *__restrict__ count)
{
    __shared__ int shared[PD_LIST_THREADS];
    const size_t image = blockIdx.x, first = image * (size_t)m;
    const int given = n_rois[image], n = given < 0 ? 0 : given < m ? given : m, self = (int)threadIdx.x;
    const int per = (n + PD_LIST_THREADS - 1) / PD_LIST_THREADS;
    const int begin = self * per < n ? self * per : n, end = begin + per < n ? begin + per : n;
    const int *size = sizes + 4 * image;
    int kept = 0, all;
    for (int i = begin; i < end; i++) kept += !drop || !drop[first + (size_t)i];
    int row = block_scan(kept, &all, shared);
    for (int i = begin; i < end; i++) {
        if (drop && drop[first + (size_t)i]) continue;
        float d[4];
        load<4>(deltas + 4 * (first + (size_t)i), d);
        const pd_delta t = {d[0], d[1], d[2], d[3]};
        out[first + (size_t)row++] =
            pd_box_clip(&coder, pd_box_decode(&coder, roi[first + (size_t)i], t), size[0], size[1]);
    }
    for (int i = all + self; i < m; i += PD_LIST_THREADS) out[first + (size_t)i] = pd_box{0, 0, 0, 0};
    if (self == 0) count[image] = all;
}

} // namespace

int pd_refine_fwd(const pd_box_coder *coder, int n, int m, pd_store s, const pd_box *roi, const int *n_rois,
                  const void *deltas, const int *drop, const int *sizes, pd_box *out, int *count, cudaStream_t stream)
{
    return by_store(s, [&](auto t) {
        using T = decltype(t);
        return launch_sync(refine_image<T>, dim3((unsigned)n), dim3(PD_LIST_THREADS), stream, *coder, m, roi, n_rois,
                           (const T *)deltas, drop, sizes, out, count);
    });
}
