#include "kernels/conv_node.h"
#include "kernels/cuda/convolution.h"
#include "kernels/cuda/maps.h"
#include "kernels/cuda/ops.h"

#include <stdlib.h>

static void conv_release(pd_node *node)
{
    if (node->state) pd_convolution_free(node->state);
    free(node->state);
    node->state = NULL;
}

static size_t pixels(const pd_node *node)
{
    const int *y = node->out[0]->shape.dim;
    return (size_t)y[0] * (size_t)y[1] * (size_t)y[2];
}

static bool wants_bias_grad(const pd_node *node)
{
    return node->backward && node->in[BIAS] && pd_wants_grad(node, BIAS);
}

static pd_status conv_plan(pd_node *node, pd_device *device, pd_err *err)
{
    const pd_conv_args *a = node->args;
    const pd_conv_shape shape = pd_conv_shape_of(a, &node->in[X]->shape, &node->in[W]->shape, &node->out[0]->shape);
    const pd_convolution_wants wants = {.bias = node->in[BIAS],
                                        .residual = node->in[RESIDUAL],
                                        .relu = a->relu,
                                        .x_pitch = node->in[X]->pitch,
                                        .constant = node->in[W]->constant,
                                        .sums = node->backward && pd_convolution_feeds_norm(node),
                                        .dx = node->backward && pd_wants_grad(node, X),
                                        .add_dx = node->grad_mode[X] == PD_GRAD_ADD,
                                        .dw = node->backward && pd_wants_grad(node, W)};
    pd_convolution *c = calloc(1, sizeof *c);
    if (!c) return PD_FAIL(err, PD_ENOMEM, "out of memory for a convolution");
    node->state = c;
    PD_TRY(pd_convolution_plan(c, pd_cuda_of(device), &shape, 1, &shape, node->out[0]->store, node->in[X]->store, wants,
                               err));
    node->keep_apart = true;
    node->saved_bytes = pd_convolution_kept(c);
    node->scratch_fwd = pd_convolution_scratch_fwd(c);
    node->scratch_bwd = pd_convolution_scratch_bwd(c);
    if (wants_bias_grad(node)) {
        const size_t sums = pd_map_sum_floats(pixels(node), shape.k) * sizeof(float);
        if (sums > node->scratch_bwd) node->scratch_bwd = sums;
    }
    return PD_OK;
}

static pd_status conv_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const float *w = node->in[W]->data;
    pd_convolution_sums(node->state, node->saved, node->out); /* in place when forward is done */
    return pd_convolution_fwd(node->state, node->in[X]->data, &w, node->in[BIAS] ? node->in[BIAS]->data : NULL,
                              node->in[RESIDUAL] ? node->in[RESIDUAL]->data : NULL, node->out[0]->data,
                              node->out[0]->shape.dim[3], run->constants, node->saved, node->scratch, err);
}

static pd_status conv_bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const pd_conv_args *a = node->args;
    cudaStream_t stream = pd_cuda_of(run->device)->stream;
    const int k = node->out[0]->shape.dim[3];
    const pd_store store = node->out[0]->store;
    void *dy = node->out[0]->grad;
    const float *w = node->in[W]->data;
    const pd_map map = pd_map_of(dy, store, pixels(node), k, k);
    if (a->relu) PD_CUDA_TRY(pd_map_mask(dy, node->out[0]->data, store, pixels(node) * (size_t)k, stream), err);
    if (wants_bias_grad(node))
        PD_CUDA_TRY(pd_map_sums(&map, node->scratch, node->in[BIAS]->grad, pd_adds_grad(node, BIAS, run), stream), err);
    if (node->in[RESIDUAL] && pd_wants_grad(node, RESIDUAL)) {
        const pd_map to = pd_map_of(node->in[RESIDUAL]->grad, store, pixels(node), k, k);
        PD_CUDA_TRY(pd_map_copy(&to, &map, pd_adds_grad(node, RESIDUAL, run), stream), err);
    }
    if (pd_wants_grad(node, X))
        PD_TRY(pd_convolution_bwd_data(node->state, &w, dy, k, node->in[X]->grad, pd_adds_grad(node, X, run),
                                       node->saved, node->scratch, err));
    if (!pd_wants_grad(node, W)) return PD_OK;
    float *dw = node->in[W]->grad;
    const bool add = pd_adds_grad(node, W, run);
    return pd_convolution_bwd_weights(node->state, node->in[X]->data, dy, k, &dw, &add, node->saved, node->scratch,
                                      err);
}

const pd_kernel pd_cuda_conv = {conv_plan, conv_fwd, conv_bwd, conv_release};
