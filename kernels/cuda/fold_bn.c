#include "kernels/cuda/fold_bn.h"
#include "kernels/cuda/ops.h"
#include "kernels/fold_bn_node.h"

static pd_fold_shape shape_of(const pd_node *node, const pd_run *run)
{
    const fold_args *a = node->args;
    pd_fold_shape f = {
        .branches = a->branches, .columns = a->columns, .k = a->k, .r = a->r, .s = a->s, .c = a->c, .eps = a->eps};
    for (int b = 0; b < a->branches; b++) {
        pd_value *const *in = node->in + IN(b, 0);
        const int *wd = in[W]->shape.dim;
        f.part[b] = (pd_fold_part){.w = in[W]->data,
                                   .gamma = in[GAMMA]->data,
                                   .beta = in[BETA]->data,
                                   .mean = in[MEAN]->data,
                                   .var = in[VAR]->data,
                                   .r = wd[1],
                                   .s = wd[2],
                                   .cg = wd[3],
                                   .groups = a->groups[b],
                                   .column = a->column[b]};
        if (!node->backward) continue;
        if (pd_wants_grad(node, IN(b, W))) f.part[b].dw = in[W]->grad;
        if (pd_wants_grad(node, IN(b, GAMMA))) f.part[b].dgamma = in[GAMMA]->grad;
        if (pd_wants_grad(node, IN(b, BETA))) f.part[b].dbeta = in[BETA]->grad;
        f.part[b].add_w = pd_adds_grad(node, IN(b, W), run);
        f.part[b].add_gamma = pd_adds_grad(node, IN(b, GAMMA), run);
        f.part[b].add_beta = pd_adds_grad(node, IN(b, BETA), run);
    }
    return f;
}

static pd_status fold_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const pd_fold_shape f = shape_of(node, run);
    PD_CUDA_TRY(pd_fold_fwd(&f, node->out[0]->data, node->out[1]->data, pd_cuda_of(run->device)->stream), err);
    return PD_OK;
}

static pd_status fold_bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const pd_fold_shape f = shape_of(node, run);
    PD_CUDA_TRY(pd_fold_bwd(&f, node->out[0]->grad, node->out[1]->grad, pd_cuda_of(run->device)->stream), err);
    return PD_OK;
}

const pd_kernel pd_cuda_fold_bn = {NULL, fold_fwd, fold_bwd, NULL};
