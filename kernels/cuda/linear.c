#include "kernels/cuda/gemm.h"
#include "kernels/cuda/maps.h"
#include "kernels/cuda/ops.h"
#include "kernels/linear_node.h"

/* Maps of 16 bits are multiplied in 16 bits, with a copy of the weights; rows of floats in TensorFloat-32, but in
 * float32 where that is the precision. */
typedef struct sizes {
    int n, in, out;
    bool half;
    pd_store store; /* of x */
    size_t w_bytes; /* kept: the copy of the weights */
    size_t dy_bytes, sum_floats;
} sizes;

static sizes sizes_of(const pd_node *node)
{
    sizes s = {.n = node->in[X]->shape.dim[0], .out = node->in[W]->shape.dim[0], .store = node->in[X]->store};
    s.in = (int)(pd_shape_size(node->in[W]->shape) / (size_t)s.out);
    s.half = s.store != PD_STORE_32;
    s.w_bytes = s.half ? pd_align_up((size_t)s.in * (size_t)s.out * pd_store_bytes(s.store)) : 0;
    s.dy_bytes = s.half ? pd_align_up((size_t)s.n * (size_t)s.out * pd_store_bytes(s.store)) : 0;
    s.sum_floats = pd_map_sum_floats((size_t)s.n, s.out);
    return s;
}

static bool has_relu(const pd_node *node)
{
    return *(const bool *)node->args;
}

static pd_status linear_plan(pd_node *node, pd_device *device, pd_err *err)
{
    const sizes s = sizes_of(node);
    (void)device;
    (void)err;
    node->saved_bytes = s.w_bytes;
    node->scratch_bwd = s.dy_bytes + s.sum_floats * sizeof(float);
    return PD_OK;
}

static pd_status copy_half(void *to, const float *from, int rows, int cols, pd_store store, cudaStream_t stream,
                           pd_err *err)
{
    const pd_map a = pd_map_of(to, store, (size_t)rows, cols, cols),
                 b = pd_map_of(from, PD_STORE_32, (size_t)rows, cols, cols);
    PD_CUDA_TRY(pd_map_copy(&a, &b, false, stream), err);
    return PD_OK;
}

static pd_status linear_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    pd_cuda *c = pd_cuda_of(run->device);
    const sizes s = sizes_of(node);
    const void *w = node->in[W]->data;
    const pd_gemm g = {.tb = true,
                       .m = s.n,
                       .n = s.out,
                       .k = s.in,
                       .lda = s.in,
                       .ldb = s.in,
                       .ldc = s.out,
                       .in = s.store,
                       .out = PD_STORE_32,
                       .tf32 = run->device->precision != PD_FP32};
    if (s.n == 0) return PD_OK;
    if (s.half) {
        PD_TRY(copy_half(node->saved, w, s.out, s.in, s.store, c->stream, err));
        w = node->saved;
    }
    PD_TRY(pd_gemm_run(c, &g, node->in[X]->data, w, 0.f, node->out[0]->data, err));
    const pd_map y = pd_map_of(node->out[0]->data, PD_STORE_32, (size_t)s.n, s.out, s.out);
    if (node->in[BIAS] || has_relu(node))
        PD_CUDA_TRY(pd_map_finish(&y, NULL, node->in[BIAS] ? node->in[BIAS]->data : NULL, has_relu(node), c->stream),
                    err);
    return PD_OK;
}

static pd_status linear_bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    pd_cuda *c = pd_cuda_of(run->device);
    const sizes s = sizes_of(node);
    const bool tf32 = run->device->precision != PD_FP32;
    float *dy = node->out[0]->grad;
    const void *gy = dy, *w = s.half ? node->saved : node->in[W]->data;
    if (s.n == 0) return PD_OK;
    if (has_relu(node))
        PD_CUDA_TRY(pd_map_mask(dy, node->out[0]->data, PD_STORE_32, (size_t)s.n * (size_t)s.out, c->stream), err);
    if (node->in[BIAS] && pd_wants_grad(node, BIAS)) {
        const pd_map m = pd_map_of(dy, PD_STORE_32, (size_t)s.n, s.out, s.out);
        float *partial = (float *)(void *)((char *)node->scratch + s.dy_bytes);
        PD_CUDA_TRY(pd_map_sums(&m, partial, node->in[BIAS]->grad, pd_adds_grad(node, BIAS, run), c->stream), err);
    }
    if (s.half) {
        PD_TRY(copy_half(node->scratch, dy, s.n, s.out, s.store, c->stream, err));
        gy = node->scratch;
    }
    if (pd_wants_grad(node, X)) {
        const pd_gemm g = {.m = s.n,
                           .n = s.in,
                           .k = s.out,
                           .lda = s.out,
                           .ldb = s.in,
                           .ldc = s.in,
                           .in = s.store,
                           .out = s.store,
                           .tf32 = tf32};
        PD_TRY(pd_gemm_run(c, &g, gy, w, pd_adds_grad(node, X, run) ? 1.f : 0.f, node->in[X]->grad, err));
    }
    if (pd_wants_grad(node, W)) {
        const pd_gemm g = {.ta = true,
                           .m = s.out,
                           .n = s.in,
                           .k = s.n,
                           .lda = s.out,
                           .ldb = s.in,
                           .ldc = s.in,
                           .in = s.store,
                           .out = PD_STORE_32,
                           .tf32 = tf32};
        PD_TRY(
            pd_gemm_run(c, &g, gy, node->in[X]->data, pd_adds_grad(node, W, run) ? 1.f : 0.f, node->in[W]->grad, err));
    }
    return PD_OK;
}

const pd_kernel pd_cuda_linear = {linear_plan, linear_fwd, linear_bwd, NULL};
