/* Batch norms with fixed statistics folded into kernels, and the gradient of that. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/fold_bn.h"

using namespace pd;

namespace
{

/* A branch's own weight at tap (y, x) and input c of the whole kernel: its index, or -1 where the branch has none. */
__device__ __forceinline__ long own_index(const pd_fold_shape &f, const pd_fold_part &p, int o, int y, int x, int c)
{
    const int i = y - (f.r - p.r) / 2, j = x - (f.s - p.s) / 2, first = o / (f.k / p.groups) * p.cg;
    if (i < 0 || i >= p.r || j < 0 || j >= p.s || c < first || c >= first + p.cg) return -1;
    return (((long)o * p.r + i) * p.s + j) * p.cg + (c - first);
}

__global__ void fold_kernel(pd_fold_shape f, float *__restrict__ kernel)
{
    const size_t per_output = (size_t)f.r * (size_t)f.s * (size_t)f.c,
                 items = (size_t)f.columns * (size_t)f.k * per_output;
    for (size_t item = first_item(); item < items; item += item_step()) {
        const int row = (int)(item / per_output), column = row / f.k, o = row % f.k;
        const int at = (int)(item % per_output), c = at % f.c, x = at / f.c % f.s, y = at / f.c / f.s;
        float sum = 0;
        for (int b = 0; b < f.branches; b++) {
            const pd_fold_part &p = f.part[b];
            const long from = p.column == column ? own_index(f, p, o, y, x, c) : -1;
            if (from >= 0) sum += p.gamma[o] / sqrtf(p.var[o] + f.eps) * p.w[from];
        }
        kernel[item] = sum;
    }
}

__global__ void fold_bias(pd_fold_shape f, float *__restrict__ bias)
{
    const int row = (int)first_item(), column = row / f.k, o = row % f.k;
    if (row >= f.columns * f.k) return;
    float sum = 0;
    for (int b = 0; b < f.branches; b++) {
        const pd_fold_part &p = f.part[b];
        if (p.column == column) sum += p.beta[o] - p.gamma[o] / sqrtf(p.var[o] + f.eps) * p.mean[o];
    }
    bias[row] = sum;
}

/* One block per (output, branch): the kernel's gradient times s, and its product with the weights. */
__global__ void __launch_bounds__(PD_THREADS)
    fold_backward(pd_fold_shape f, const float *__restrict__ dkernel, const float *__restrict__ dbias)
{
    __shared__ float shared[32];
    const int o = (int)blockIdx.x;
    const pd_fold_part &p = f.part[blockIdx.y];
    const float r = 1 / sqrtf(p.var[o] + f.eps), s = p.gamma[o] * r;
    const float db = dbias ? dbias[p.column * f.k + o] : 0.f;
    const int count = p.r * p.s * p.cg, first = o / (f.k / p.groups) * p.cg;
    float dot = 0;
    for (int at = (int)threadIdx.x; at < count; at += PD_THREADS) {
        const int c = at % p.cg, j = at / p.cg % p.s, i = at / p.cg / p.s;
        const int y = i + (f.r - p.r) / 2, x = j + (f.s - p.s) / 2;
        const size_t to =
            (((size_t)(p.column * f.k + o) * (size_t)f.r + (size_t)y) * (size_t)f.s + (size_t)x) * (size_t)f.c +
            (size_t)(first + c);
        const size_t own = (size_t)o * (size_t)count + (size_t)at;
        const float g = dkernel[to];
        dot += g * p.w[own];
        if (p.dw) p.dw[own] = s * g + (p.add_w ? p.dw[own] : 0.f);
    }
    dot = block_sum(dot, shared);
    if (threadIdx.x) return;
    if (p.dgamma) p.dgamma[o] = r * (dot - p.mean[o] * db) + (p.add_gamma ? p.dgamma[o] : 0.f);
    if (p.dbeta) p.dbeta[o] = db + (p.add_beta ? p.dbeta[o] : 0.f);
}

} // namespace

int pd_fold_fwd(const pd_fold_shape *f, float *kernel, float *bias, cudaStream_t stream)
{
    const size_t rows = (size_t)f->columns * (size_t)f->k, items = rows * (size_t)f->r * (size_t)f->s * (size_t)f->c;
    const int code = launch(fold_kernel, blocks_for(items), dim3(PD_THREADS), stream, *f, kernel);
    return code ? code : launch(fold_bias, blocks_for(rows), dim3(PD_THREADS), stream, *f, bias);
}

int pd_fold_bwd(const pd_fold_shape *f, const float *dkernel, const float *dbias, cudaStream_t stream)
{
    return launch_sync(fold_backward, dim3((unsigned)f->k, (unsigned)f->branches), dim3(PD_THREADS), stream, *f,
                       dkernel, dbias);
}
