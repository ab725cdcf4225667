#include "kernels/cuda/anchors.h"
#include "kernels/cuda/ops.h"

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const pd_anchor_grid *grid = node->args;
    for (int l = 0; l < grid->levels; l++) {
        const pd_anchor_level level = pd_anchor_level_of(grid, l);
        PD_CUDA_TRY(pd_anchors_fwd(&level, node->out[0]->data, pd_cuda_of(run->device)->stream), err);
    }
    return PD_OK;
}

const pd_kernel pd_cuda_anchors = {NULL, fwd, NULL, NULL};
