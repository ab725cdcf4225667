#include "kernels/cuda/pool.h"
#include "kernels/cuda/ops.h"
#include "kernels/pool_node.h"

static pd_pool_shape shape_of(const pd_node *node)
{
    const int *x = node->in[0]->shape.dim;
    return (pd_pool_shape){.n = x[0], .h = x[1], .w = x[2], .c = x[3], .store = node->in[0]->store};
}

static pd_pool_shape max_shape(const pd_node *node)
{
    const pool_args *a = node->args;
    pd_pool_shape s = shape_of(node);
    s.oh = node->out[0]->shape.dim[1];
    s.ow = node->out[0]->shape.dim[2];
    s.size = a->size;
    s.stride = a->stride;
    s.pad = a->pad;
    return s;
}

static pd_status max_plan(pd_node *node, pd_device *device, pd_err *err)
{
    (void)device;
    (void)err;
    node->saved_bytes = node->backward ? pd_shape_size(node->out[0]->shape) : 0;
    return PD_OK;
}

static pd_status max_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const pd_pool_shape s = max_shape(node);
    PD_CUDA_TRY(pd_max_pool_fwd(&s, node->in[0]->data, node->out[0]->data, node->backward ? node->saved : NULL,
                                pd_cuda_of(run->device)->stream),
                err);
    return PD_OK;
}

static pd_status max_bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const pd_pool_shape s = max_shape(node);
    PD_CUDA_TRY(pd_max_pool_bwd(&s, node->out[0]->grad, node->saved, node->in[0]->grad, pd_adds_grad(node, 0, run),
                                pd_cuda_of(run->device)->stream),
                err);
    return PD_OK;
}

static pd_status means_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const pd_pool_shape s = shape_of(node);
    PD_CUDA_TRY(pd_means_fwd(&s, node->in[0]->data, node->out[0]->data, pd_cuda_of(run->device)->stream), err);
    return PD_OK;
}

static pd_status means_bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const pd_pool_shape s = shape_of(node);
    PD_CUDA_TRY(pd_means_bwd(&s, node->out[0]->grad, node->in[0]->grad, pd_adds_grad(node, 0, run),
                             pd_cuda_of(run->device)->stream),
                err);
    return PD_OK;
}

const pd_kernel pd_cuda_max_pool = {max_plan, max_fwd, max_bwd, NULL};
const pd_kernel pd_cuda_channel_means = {NULL, means_fwd, means_bwd, NULL};
