/* Anchors of a pyramid, level by level. */
#include "kernels/cuda/launch.cuh"

#include "kernels/anchors_math.h"
#include "kernels/cuda/anchors.h"

using namespace pd;

namespace
{

__global__ void fill_level(pd_anchor_level v, pd_box *__restrict__ out)
{
    for (size_t item = first_item(); item < (size_t)v.count; item += item_step()) {
        const int cell = (int)item / v.per_cell, a = (int)item - cell * v.per_cell, y = cell / v.w, x = cell - y * v.w;
        out[(size_t)v.first + item] = pd_anchor_moved(v.base[a], x * v.stride, y * v.stride);
    }
}

} // namespace

int pd_anchors_fwd(const pd_anchor_level *level, pd_box *out, cudaStream_t stream)
{
    return launch(fill_level, blocks_for((size_t)level->count), dim3(PD_THREADS), stream, *level, out);
}
