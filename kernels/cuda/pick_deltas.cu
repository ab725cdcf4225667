/* The offsets of each box's own class. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/pick_deltas.h"

using namespace pd;

namespace
{

__global__ void pick(int rows, int k, const float *__restrict__ deltas, const int *__restrict__ label,
                     float *__restrict__ y)
{
    for (size_t i = first_item(); i < 4 * (size_t)rows; i += item_step()) {
        const size_t row = i / 4;
        const int c = label[row];
        y[i] = c >= 0 && c < k ? deltas[4 * (row * (size_t)k + (size_t)c) + i % 4] : 0.f;
    }
}

__global__ void put_back(int rows, int k, const float *__restrict__ dy, const int *__restrict__ label,
                         float *__restrict__ ddeltas, bool add)
{
    for (size_t i = first_item(); i < 4 * (size_t)rows * (size_t)k; i += item_step()) {
        const size_t pair = i / 4, row = pair / (unsigned)k;
        const float own = (int)(pair % (unsigned)k) == label[row] ? dy[4 * row + i % 4] : 0.f;
        ddeltas[i] = own + (add ? ddeltas[i] : 0.f);
    }
}

} // namespace

int pd_pick_deltas_fwd(int rows, int k, const float *deltas, const int *label, float *y, cudaStream_t stream)
{
    return launch(pick, blocks_for(4 * (size_t)rows), dim3(PD_THREADS), stream, rows, k, deltas, label, y);
}

int pd_pick_deltas_bwd(int rows, int k, const float *dy, const int *label, float *ddeltas, bool add,
                       cudaStream_t stream)
{
    return launch(put_back, blocks_for(4 * (size_t)rows * (size_t)k), dim3(PD_THREADS), stream, rows, k, dy, label,
                  ddeltas, add);
}
