#include "kernels/sample.h"
#include "kernels/assign.h"
#include "kernels/sample_math.h"
#include "kernels/sample_node.h"

/* Keeps at most k of the positives (or of the background boxes), marks the rest as ignored. Returns how many stay. */
static int keep(int *match, int n, bool positives, int k, const pd_sample_cfg *cfg, pd_rng *rng, int *list)
{
    int count = 0;
    for (int i = 0; i < n; i++)
        if (positives ? match[i] >= 0 : match[i] == PD_MATCH_BACKGROUND) list[count++] = i;
    pd_sample_choose(list, count, k, cfg, rng);
    for (int i = k; i < count; i++) match[list[i]] = PD_MATCH_IGNORED;
    return count < k ? count : k;
}

void pd_sample_matches(int *match, int n, const pd_sample_cfg *cfg, uint32_t draw, int *work)
{
    pd_rng rng = pd_rng_make(cfg->seed, draw, cfg->stream);
    const int positives = keep(match, n, true, pd_sample_positives(cfg), cfg, &rng, work);
    keep(match, n, false, cfg->num - positives, cfg, &rng, work);
}

static pd_status plan(pd_node *node, pd_device *device, pd_err *err)
{
    (void)device;
    (void)err;
    node->scratch_fwd = pd_shape_size(node->in[MATCH]->shape) * sizeof(int);
    return PD_OK;
}

static void sample_images(void *arg, size_t begin, size_t end, int thread)
{
    const pd_node *node = arg;
    const size_t a = (size_t)node->in[MATCH]->shape.dim[1];
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const int *from = (const int *)node->in[MATCH]->data + i * a;
        int *to = (int *)node->out[0]->data + i * a;
        for (size_t k = 0; k < a; k++) to[k] = from[k];
        pd_sample_matches(to, (int)a, node->args, (uint32_t)((const int *)node->in[DRAW]->data)[i],
                          (int *)node->scratch + i * a);
    }
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    (void)err;
    pd_parallel(run->device->pool, (size_t)node->in[MATCH]->shape.dim[0], sample_images, node);
    return PD_OK;
}

static const pd_kernel cpu = {plan, fwd, NULL, NULL};
static const pd_op sample = {.name = "sample", .kernel = {[PD_CPU] = &cpu}};

pd_value *pd_sample(pd_tape *tape, pd_value *match, pd_value *draw, const pd_sample_cfg *cfg)
{
    if (pd_tape_status(tape, NULL) != PD_OK) return pd_tape_dead(tape);
    if (match->dtype != PD_I32 || match->shape.rank != 2 || draw->dtype != PD_I32 || draw->shape.rank != 1 ||
        draw->shape.dim[0] != match->shape.dim[0] || cfg->num < 0 || !(cfg->fraction >= 0 && cfg->fraction <= 1)) {
        pd_tape_fail(tape, PD_EINVAL,
                     "sample: expected int32 matches (n, boxes) and draws (n), num >= 0, fraction in 0..1");
        return pd_tape_dead(tape);
    }
    pd_value *in[] = {match, draw};
    const pd_dtype type = PD_I32;
    pd_node *node = pd_tape_add(tape, &sample, NULL, 2, in, 1, &match->shape, &type, cfg, sizeof *cfg);
    return node ? node->out[0] : pd_tape_dead(tape);
}
