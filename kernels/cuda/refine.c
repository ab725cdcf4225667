#include "kernels/cuda/refine.h"
#include "kernels/cuda/ops.h"
#include "kernels/refine_node.h"

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const refine_args *a = node->args;
    pd_value *const *in = node->in;
    PD_CUDA_TRY(pd_refine_fwd(&a->coder, a->n, a->m, in[DELTAS]->store, in[ROIS]->data, in[N_ROIS]->data,
                              in[DELTAS]->data, in[DROP] ? in[DROP]->data : NULL, in[SIZES]->data, node->out[0]->data,
                              node->out[1]->data, pd_cuda_of(run->device)->stream),
                err);
    return PD_OK;
}

const pd_kernel pd_cuda_refine = {NULL, fwd, NULL, NULL};
