#include "kernels/subsample.h"
#include "kernels/subsample_node.h"

#include <string.h>

typedef struct job {
    pd_node *node;
    const pd_run *run;
} job;

static void forward_rows(void *arg, size_t begin, size_t end, int thread)
{
    const pd_node *node = ((const job *)arg)->node;
    const sub_args *a = node->args;
    (void)thread;
    for (size_t r = begin; r < end; r++) {
        const size_t row = r / a->oh * a->h + r % a->oh * a->stride; /* of the input, all images counted */
        const float *from = (const float *)node->in[0]->data + row * a->w * a->c;
        float *to = (float *)node->out[0]->data + r * a->ow * a->c;
        for (size_t x = 0; x < a->ow; x++) memcpy(to + x * a->c, from + x * a->stride * a->c, a->c * sizeof *to);
    }
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const sub_args *a = node->args;
    job j = {node, run};
    (void)err;
    pd_parallel(run->device->pool, a->n * a->oh, forward_rows, &j);
    return PD_OK;
}

static void backward_rows(void *arg, size_t begin, size_t end, int thread)
{
    const job *j = arg;
    const sub_args *a = j->node->args;
    const bool add = pd_adds_grad(j->node, 0, j->run);
    (void)thread;
    for (size_t r = begin; r < end; r++) {
        float *grad = j->node->in[0]->grad + r * a->w * a->c;
        const size_t y = r % a->h, row = r / a->h * a->oh + y / a->stride;
        if (!add) memset(grad, 0, a->w * a->c * sizeof *grad);
        if (y % a->stride) continue;
        const float *dy = j->node->out[0]->grad + row * a->ow * a->c;
        for (size_t x = 0; x < a->ow; x++)
            for (size_t k = 0; k < a->c; k++) grad[x * a->stride * a->c + k] += dy[x * a->c + k];
    }
}

static pd_status bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const sub_args *a = node->args;
    job j = {node, run};
    (void)err;
    if (pd_wants_grad(node, 0)) pd_parallel(run->device->pool, a->n * a->h, backward_rows, &j);
    return PD_OK;
}

static const pd_kernel cpu = {NULL, fwd, bwd, NULL};
static const pd_op subsample = {.name = "subsample", .differentiable = true, .kernel = {[PD_CPU] = &cpu}};

pd_value *pd_subsample(pd_tape *tape, pd_value *x, int stride)
{
    if (pd_tape_status(tape, NULL) != PD_OK) return pd_tape_dead(tape);
    const pd_shape s = x->shape;
    if (s.rank != 4 || stride < 1) {
        char text[64];
        pd_tape_fail(tape, PD_EINVAL, "subsample: input %s, stride %d: expected (n, h, w, c) and 1 or more",
                     pd_shape_text(text, s), stride);
        return pd_tape_dead(tape);
    }
    const pd_shape out =
        PD_SHAPE(s.dim[0], (s.dim[1] + stride - 1) / stride, (s.dim[2] + stride - 1) / stride, s.dim[3]);
    const sub_args a = {.stride = (size_t)stride,
                        .n = (size_t)s.dim[0],
                        .h = (size_t)s.dim[1],
                        .w = (size_t)s.dim[2],
                        .oh = (size_t)out.dim[1],
                        .ow = (size_t)out.dim[2],
                        .c = (size_t)s.dim[3]};
    return pd_tape_add1(tape, &subsample, NULL, 1, &x, out, &a, sizeof a);
}
