#include "kernels/cuda/assign.h"
#include "kernels/assign_node.h"
#include "kernels/cuda/ops.h"

#include <string.h>

static pd_status plan(pd_node *node, pd_device *device, pd_err *err)
{
    const assign_args *a = node->args;
    (void)device;
    (void)err;
    node->scratch_fwd = (size_t)a->n * (size_t)a->g * sizeof(int);
    return PD_OK;
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const assign_args *a = node->args;
    pd_value *const *in = node->in;
    pd_assign_shape s = {.cfg = a->cfg,
                         .n = a->n,
                         .boxes = a->boxes,
                         .g = a->g,
                         .box_step = a->shared ? 0 : (size_t)a->boxes,
                         .match_step = (size_t)a->boxes};
    if (a->has_grid) {
        s.levels = a->grid.levels;
        s.per_cell = a->grid.per_cell;
        memcpy(s.first, a->grid.first, sizeof s.first);
        memcpy(s.w, a->grid.w, sizeof s.w);
        memcpy(s.stride, a->grid.stride, sizeof s.stride);
    }
    PD_CUDA_TRY(pd_assign_fwd(&s, in[BOXES]->data, in[N_BOXES] ? in[N_BOXES]->data : NULL, in[GT]->data, in[N_GT]->data,
                              in[SIZES] ? in[SIZES]->data : NULL, node->scratch, node->out[0]->data,
                              pd_cuda_of(run->device)->stream),
                err);
    return PD_OK;
}

const pd_kernel pd_cuda_assign = {plan, fwd, NULL, NULL};
