#include "kernels/cuda/sample.h"
#include "kernels/cuda/ops.h"
#include "kernels/sample_node.h"

static pd_status plan(pd_node *node, pd_device *device, pd_err *err)
{
    (void)device;
    (void)err;
    const int *shape = node->in[MATCH]->shape.dim;
    node->scratch_fwd = (size_t)shape[0] * pd_sample_work(node->args, shape[1]) * sizeof(int);
    return PD_OK;
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const int *shape = node->in[MATCH]->shape.dim;
    PD_CUDA_TRY(pd_sample_fwd(node->args, shape[0], shape[1], node->in[MATCH]->data, node->in[DRAW]->data,
                              node->out[0]->data, node->scratch, pd_cuda_of(run->device)->stream),
                err);
    return PD_OK;
}

const pd_kernel pd_cuda_sample = {plan, fwd, NULL, NULL};
