#include "kernels/cuda/roi_targets.h"
#include "kernels/cuda/assign.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/sample.h"
#include "kernels/roi_targets_node.h"

/* Scratch: the candidates' matches, the sampler's work, the assignment's best of each ground truth. */
typedef struct work {
    int *match, *sample, *best;
    size_t bytes;
} work;

static work lay(const roi_targets_args *a, void *memory)
{
    const size_t all = pd_align_up((size_t)a->n * ((size_t)a->g + (size_t)a->m) * sizeof(int));
    const size_t sample = pd_align_up((size_t)a->n * pd_sample_work(&a->cfg.sample, a->g + a->m) * sizeof(int));
    char *base = memory;
    return (work){.match = memory,
                  .sample = base ? (int *)(void *)(base + all) : NULL,
                  .best = base ? (int *)(void *)(base + all + sample) : NULL,
                  .bytes = all + sample + (size_t)a->n * (size_t)a->g * sizeof(int)};
}

static pd_status plan(pd_node *node, pd_device *device, pd_err *err)
{
    (void)device;
    (void)err;
    node->scratch_fwd = lay(node->args, NULL).bytes;
    return PD_OK;
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const roi_targets_args *a = node->args;
    const work w = lay(a, node->scratch);
    const pd_box *proposals = node->in[PROPOSALS]->data, *gt = node->in[GT]->data;
    const int *n_gt = node->in[N_GT]->data, candidates = a->g + a->m;
    cudaStream_t s = pd_cuda_of(run->device)->stream;
    const pd_assign_shape shape = {.cfg = a->cfg.assign,
                                   .n = a->n,
                                   .boxes = a->m,
                                   .g = a->g,
                                   .box_step = (size_t)a->m,
                                   .match_step = (size_t)candidates};
    PD_CUDA_TRY(pd_roi_own(a->n, a->m, a->g, gt, n_gt, w.match, s), err);
    PD_CUDA_TRY(pd_assign_fwd(&shape, proposals, node->in[N_PROPOSALS]->data, gt, n_gt, NULL, w.best,
                              w.match ? w.match + a->g : NULL, s),
                err);
    PD_CUDA_TRY(pd_sample_fwd(&a->cfg.sample, a->n, candidates, w.match, node->in[DRAW]->data, w.match, w.sample, s),
                err);
    PD_CUDA_TRY(pd_roi_rows(a->n, a->m, a->g, a->cfg.sample.num, gt, proposals, w.match, node->out[0]->data,
                            node->out[1]->data, node->out[2]->data, node->out[3]->data, s),
                err);
    return PD_OK;
}

const pd_kernel pd_cuda_roi_targets = {plan, fwd, NULL, NULL};
