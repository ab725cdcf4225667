/* A convolution whose kernel is mixed for every image. Few images in inference: the kernels are mixed, then every image
 * has a convolution of its own. Otherwise all kernels are one convolution with as many times the outputs, and the
 * outputs are mixed, by the kernels of bn_sum.cu with norms that do nothing: any batch, and the gradients of
 * everything. */
#include "kernels/cuda/bn_sum.h"
#include "kernels/cuda/convolution.h"
#include "kernels/cuda/ops.h"
#include "kernels/mix_conv_node.h"

#include <stdlib.h>

#define FEW_IMAGES 4

typedef struct mix_state {
    bool each; /* a convolution for each image */
    int mix;
    size_t kernel_floats; /* of one kernel */
    pd_convolution conv;
    size_t z_bytes;     /* kept: the outputs of all kernels */
    size_t plain_bytes; /* kept: mean_rstd */
} mix_state;

static void mix_release(pd_node *node)
{
    mix_state *s = node->state;
    if (s) pd_convolution_free(&s->conv);
    free(s);
    node->state = NULL;
}

static pd_bn_maps maps_of(const pd_node *node, const mix_state *s, char *z)
{
    const int *d = node->out[0]->shape.dim;
    pd_bn_maps m = {.branches = s->mix,
                    .c = d[3],
                    .samples = d[0],
                    .rows = (long)d[1] * d[2],
                    .store = node->out[0]->store,
                    .gate = node->in[GATE]->data,
                    .gates = s->mix};
    for (int k = 0; k < s->mix; k++) {
        m.z[k] = m.dz[k] = z + (size_t)k * (size_t)d[3] * pd_store_bytes(m.store);
        m.column[k] = k;
        m.pitch[k] = s->mix * d[3];
    }
    return m;
}

/* Scratch of the mixing's backward pass. */
typedef struct back_memory {
    size_t sums, pqr, total, partial, all; /* where each begins, and the end */
} back_memory;

static back_memory lay_back(const pd_bn_maps *m)
{
    const size_t c = (size_t)m->c, kc = (size_t)m->branches * c, f = sizeof(float), samples = (size_t)m->samples;
    back_memory b = {0};
    b.pqr = pd_align_up(2 * kc * sizeof(double));
    b.total = b.pqr + pd_align_up(3 * kc * f);
    b.partial = b.total + pd_align_up(samples * (kc + c) * f);
    b.all = b.partial + pd_align_up(samples * (size_t)pd_bn_chunks(m) * (kc + c) * f);
    return b;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static pd_status plan_each(pd_node *node, mix_state *s, pd_cuda *device, pd_conv_shape shape, pd_err *err)
{
    const pd_conv_args *a = node->args;
    const pd_convolution_wants wants = {.bias = true, .residual = node->in[RESIDUAL], .relu = a->relu};
    s->each = true;
    shape.n = 1;
    PD_TRY(
        pd_convolution_plan(&s->conv, device, &shape, 1, &shape, node->out[0]->store, node->in[X]->store, wants, err));
    node->scratch_fwd = pd_align_up(s->kernel_floats * sizeof(float)) + pd_align_up((size_t)shape.k * sizeof(float)) +
                        pd_align_up(pd_convolution_kept(&s->conv)) + pd_convolution_scratch_fwd(&s->conv);
    return PD_OK;
}

static pd_status mix_plan(pd_node *node, pd_device *d, pd_err *err)
{
    mix_state *s = calloc(1, sizeof *s);
    if (!s) return PD_FAIL(err, PD_ENOMEM, "out of memory for a convolution");
    node->state = s;
    node->keep_apart = true;
    s->mix = node->in[GATE]->shape.dim[1];
    s->kernel_floats = pd_shape_size(node->in[KERNELS]->shape) / (size_t)s->mix;
    pd_conv_shape shape =
        pd_conv_shape_of(node->args, &node->in[X]->shape, &node->in[KERNELS]->shape, &node->out[0]->shape);
    if (!node->backward && shape.n <= FEW_IMAGES) {
        shape.k /= s->mix;
        return plan_each(node, s, pd_cuda_of(d), shape, err);
    }
    const pd_convolution_wants wants = {.constant = node->in[KERNELS]->constant,
                                        .dx = node->backward && pd_wants_grad(node, X),
                                        .dw = node->backward && pd_wants_grad(node, KERNELS)};
    PD_TRY(pd_convolution_plan(&s->conv, pd_cuda_of(d), &shape, 1, &shape, node->out[0]->store, node->in[X]->store,
                               wants, err));
    const pd_bn_maps m = maps_of(node, s, NULL);
    s->plain_bytes = pd_align_up(2 * (size_t)shape.k * sizeof(float));
    s->z_bytes = pd_align_up(pd_shape_size(node->out[0]->shape) * (size_t)s->mix * pd_store_bytes(m.store));
    node->saved_bytes = s->plain_bytes + s->z_bytes + pd_convolution_kept(&s->conv);
    node->scratch_fwd = s->plain_bytes + pd_convolution_scratch_fwd(&s->conv); /* affine */
    if (node->backward) node->scratch_bwd = larger(lay_back(&m).all, pd_convolution_scratch_bwd(&s->conv));
    return PD_OK;
}

static pd_status each_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    mix_state *s = node->state;
    cudaStream_t stream = pd_cuda_of(run->device)->stream;
    const pd_conv_shape *shape = &s->conv.shape;
    const size_t n = (size_t)node->in[X]->shape.dim[0];
    const size_t in = (size_t)shape->h * (size_t)shape->w * (size_t)shape->c * pd_store_bytes(node->in[X]->store);
    const size_t out = (size_t)shape->oh * (size_t)shape->ow * (size_t)shape->k * pd_store_bytes(node->out[0]->store);
    char *memory = node->scratch;
    float *kernel = (float *)(void *)memory;
    memory += pd_align_up(s->kernel_floats * sizeof(float));
    float *bias = (float *)(void *)memory;
    memory += pd_align_up((size_t)shape->k * sizeof(float));
    void *kept = memory;
    memory += pd_align_up(pd_convolution_kept(&s->conv));
    for (size_t i = 0; i < n; i++) {
        const float *a = (const float *)node->in[GATE]->data + i * (size_t)s->mix, *w = kernel;
        const char *residual = node->in[RESIDUAL] ? (const char *)node->in[RESIDUAL]->data + i * out : NULL;
        PD_CUDA_TRY(pd_mix(s->mix, a, node->in[KERNELS]->data, s->kernel_floats, kernel, stream), err);
        PD_CUDA_TRY(pd_mix(s->mix, a, node->in[BIAS]->data, (size_t)shape->k, bias, stream), err);
        PD_TRY(pd_convolution_fwd(&s->conv, (const char *)node->in[X]->data + i * in, &w, bias, residual,
                                  (char *)node->out[0]->data + i * out, shape->k, false, kept, memory, err));
    }
    return PD_OK;
}

static pd_status mix_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    mix_state *s = node->state;
    const pd_conv_args *a = node->args;
    cudaStream_t stream = pd_cuda_of(run->device)->stream;
    if (s->each) return each_fwd(node, run, err);
    float *mean_rstd = node->saved, *affine = node->scratch;
    char *z = (char *)node->saved + s->plain_bytes, *kept = z + s->z_bytes;
    const pd_bn_maps m = maps_of(node, s, z);
    const float *w = node->in[KERNELS]->data;
    if (m.samples * m.rows == 0) return PD_OK;
    PD_TRY(pd_convolution_fwd(&s->conv, node->in[X]->data, &w, NULL, NULL, z, m.pitch[0], run->constants, kept,
                              (char *)node->scratch + s->plain_bytes, err));
    PD_CUDA_TRY(pd_bn_plain(m.branches, m.c, node->in[BIAS]->data, mean_rstd, affine, stream), err);
    PD_CUDA_TRY(pd_bn_apply(&m, affine, node->in[RESIDUAL] ? node->in[RESIDUAL]->data : NULL, a->relu,
                            node->out[0]->data, stream),
                err);
    return PD_OK;
}

static pd_status mix_bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    mix_state *s = node->state;
    const pd_conv_args *a = node->args;
    cudaStream_t stream = pd_cuda_of(run->device)->stream;
    float *mean_rstd = node->saved;
    char *z = (char *)node->saved + s->plain_bytes, *kept = z + s->z_bytes, *memory = node->scratch;
    const pd_bn_maps m = maps_of(node, s, z);
    const void *dy = node->out[0]->grad, *y = node->out[0]->data;
    const float *w = node->in[KERNELS]->data, *bias = node->in[BIAS]->data;
    if (m.samples * m.rows == 0) return PD_OK;
    const back_memory b = lay_back(&m);
    double *sums = (double *)(void *)memory;
    float *pqr = (float *)(void *)(memory + b.pqr), *total = (float *)(void *)(memory + b.total);
    float *partial = (float *)(void *)(memory + b.partial);
    const int chunks = pd_bn_chunks(&m);
    pd_bn_vectors v = {0};
    for (int k = 0; k < s->mix; k++) {
        v.gamma[k] = mean_rstd + ((size_t)k * 2 + 1) * (size_t)m.c; /* ones */
        v.beta[k] = bias + (size_t)k * (size_t)m.c;
        if (pd_wants_grad(node, BIAS)) v.dbeta[k] = node->in[BIAS]->grad + (size_t)k * (size_t)m.c;
        v.add_beta[k] = pd_adds_grad(node, BIAS, run);
    }
    PD_CUDA_TRY(pd_bn_grad_sums(&m, chunks, dy, y, a->relu, NULL, mean_rstd, partial, stream), err);
    PD_CUDA_TRY(pd_bn_grad_totals(&m, chunks, partial, total, stream), err);
    PD_CUDA_TRY(pd_bn_grad_finish(&m, &v, mean_rstd, total, sums, stream), err);
    if (pd_wants_grad(node, GATE))
        PD_CUDA_TRY(
            pd_bn_grad_gate(&m, &v, mean_rstd, total, node->in[GATE]->grad, pd_adds_grad(node, GATE, run), stream),
            err);
    PD_CUDA_TRY(pd_bn_grad_coefficients(&m, &v, mean_rstd, sums, (pd_bn_count){0}, pqr, stream), err);
    const bool residual = node->in[RESIDUAL] && pd_wants_grad(node, RESIDUAL);
    PD_CUDA_TRY(pd_bn_grad_apply(&m, pqr, dy, y, a->relu, NULL, residual ? node->in[RESIDUAL]->grad : NULL,
                                 residual && pd_adds_grad(node, RESIDUAL, run), stream),
                err);
    /* z holds its gradient now */
    if (pd_wants_grad(node, X))
        PD_TRY(pd_convolution_bwd_data(&s->conv, &w, z, m.pitch[0], node->in[X]->grad, pd_adds_grad(node, X, run), kept,
                                       node->scratch, err));
    if (!pd_wants_grad(node, KERNELS)) return PD_OK;
    float *dw = node->in[KERNELS]->grad;
    const bool add = pd_adds_grad(node, KERNELS, run);
    return pd_convolution_bwd_weights(&s->conv, node->in[X]->data, z, m.pitch[0], &dw, &add, kept, node->scratch, err);
}

const pd_kernel pd_cuda_mix_conv = {mix_plan, mix_fwd, mix_bwd, mix_release};
