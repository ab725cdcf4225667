#include "kernels/refine.h"
#include "kernels/refine_node.h"

#include <string.h>

static void refine_images(void *arg, size_t begin, size_t end, int thread)
{
    const pd_node *node = arg;
    const refine_args *a = node->args;
    const size_t m = (size_t)a->m;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const pd_box *roi = (const pd_box *)node->in[ROIS]->data + i * m;
        const float *deltas = (const float *)node->in[DELTAS]->data + 4 * i * m;
        const int *drop = node->in[DROP] ? (const int *)node->in[DROP]->data + i * m : NULL;
        const int *size = (const int *)node->in[SIZES]->data + 4 * i, n = ((const int *)node->in[N_ROIS]->data)[i];
        pd_box *out = (pd_box *)node->out[0]->data + i * m;
        int row = 0;
        for (int r = 0; r < n; r++) {
            if (drop && drop[r]) continue;
            pd_delta t;
            memcpy(&t, deltas + 4 * (size_t)r, sizeof t);
            out[row++] = pd_box_clip(&a->coder, pd_box_decode(&a->coder, roi[r], t), size[0], size[1]);
        }
        ((int *)node->out[1]->data)[i] = row;
        for (; row < a->m; row++) out[row] = (pd_box){0, 0, 0, 0};
    }
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const refine_args *a = node->args;
    for (int i = 0; i < a->n; i++) {
        const int n = ((const int *)node->in[N_ROIS]->data)[i];
        if (n < 0 || n > a->m)
            return PD_FAIL(err, PD_EINVAL, "image %d of the batch has %d boxes, the room is %d", i, n, a->m);
    }
    pd_parallel(run->device->pool, (size_t)a->n, refine_images, node);
    return PD_OK;
}

static const pd_kernel cpu = {NULL, fwd, NULL, NULL};
static const pd_op refine = {.name = "refine", .kernel = {[PD_CPU] = &cpu}};

pd_refined pd_refine(pd_tape *tape, pd_value *rois, pd_value *n_rois, pd_value *deltas, pd_value *drop, pd_value *sizes,
                     const pd_box_coder *coder)
{
    pd_value *dead = pd_tape_dead(tape);
    pd_refined out = {dead, dead};
    if (pd_tape_status(tape, NULL) != PD_OK) return out;
    const pd_shape s = rois->shape;
    const refine_args a = {*coder, s.dim[0], s.dim[1]};
    const char *wrong = NULL;
    if (s.rank != 3 || s.dim[2] != 4)
        wrong = "boxes: expected (n, m, 4)";
    else if (n_rois->dtype != PD_I32 || n_rois->shape.rank != 1 || n_rois->shape.dim[0] != a.n)
        wrong = "counts: expected int32 (n)";
    else if (pd_shape_size(deltas->shape) != pd_shape_size(s))
        wrong = "offsets: expected four per box";
    else if (drop && (drop->dtype != PD_I32 || pd_shape_size(drop->shape) != (size_t)a.n * (size_t)a.m))
        wrong = "drop: expected int32 (n, m)";
    else if (sizes->dtype != PD_I32 || sizes->shape.rank != 2 || sizes->shape.dim[0] != a.n || sizes->shape.dim[1] != 4)
        wrong = "sizes: expected int32 (n, 4): h, w, pad_h, pad_w";
    if (wrong) {
        pd_tape_fail(tape, PD_EINVAL, "refine: %s", wrong);
        return out;
    }
    pd_value *in[INPUTS] = {rois, n_rois, deltas, drop, sizes};
    const pd_shape shapes[] = {s, PD_SHAPE(a.n)};
    const pd_dtype types[] = {PD_F32, PD_I32};
    pd_node *node = pd_tape_add(tape, &refine, NULL, INPUTS, in, 2, shapes, types, &a, sizeof a);
    if (node) out = (pd_refined){node->out[0], node->out[1]};
    return out;
}
