#include "kernels/pick_deltas.h"
#include "kernels/pick_deltas_node.h"

#include <string.h>

/* What a row of `deltas` begins with, for the class of row r; NULL: of none. */
static float *own(float *deltas, size_t r, int label, size_t k)
{
    return label >= 0 && (size_t)label < k ? deltas + 4 * (r * k + (size_t)label) : NULL;
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const size_t rows = (size_t)node->out[0]->shape.dim[0], k = (size_t)node->in[DELTAS]->shape.dim[1] / 4;
    const int *label = node->in[LABEL]->data;
    float *out = node->out[0]->data;
    (void)run;
    (void)err;
    if (!rows) return PD_OK; /* no memory either */
    memset(out, 0, 4 * rows * sizeof *out);
    for (size_t r = 0; r < rows; r++) {
        const float *from = own(node->in[DELTAS]->data, r, label[r], k);
        if (from) memcpy(out + 4 * r, from, 4 * sizeof *out);
    }
    return PD_OK;
}

static pd_status bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const size_t rows = (size_t)node->out[0]->shape.dim[0], k = (size_t)node->in[DELTAS]->shape.dim[1] / 4;
    const int *label = node->in[LABEL]->data;
    const float *dy = node->out[0]->grad;
    (void)err;
    if (!rows || !pd_wants_grad(node, DELTAS)) return PD_OK;
    if (!pd_adds_grad(node, DELTAS, run)) memset(node->in[DELTAS]->grad, 0, 4 * rows * k * sizeof(float));
    for (size_t r = 0; r < rows; r++) {
        float *to = own(node->in[DELTAS]->grad, r, label[r], k);
        for (size_t i = 0; to && i < 4; i++) to[i] += dy[4 * r + i];
    }
    return PD_OK;
}

static const pd_kernel cpu = {NULL, fwd, bwd, NULL};
static const pd_op pick_deltas = {
    .name = "pick_deltas", .bwd_reads_in = 1u << LABEL, .differentiable = true, .kernel = {[PD_CPU] = &cpu}};

pd_value *pd_pick_deltas(pd_tape *tape, pd_value *deltas, pd_value *label)
{
    if (pd_tape_status(tape, NULL) != PD_OK) return pd_tape_dead(tape);
    const pd_shape s = deltas->shape;
    char text[64], labels[64];
    if (s.rank != 2 || s.dim[1] < 4 || s.dim[1] % 4 || label->dtype != PD_I32 ||
        pd_shape_size(label->shape) != (size_t)s.dim[0]) {
        pd_tape_fail(tape, PD_EINVAL,
                     "pick_deltas: offsets %s, classes %s: expected (rows, 4 * k) and int32 for each row",
                     pd_shape_text(text, s), pd_shape_text(labels, label->shape));
        return pd_tape_dead(tape);
    }
    return pd_tape_add1(tape, &pick_deltas, NULL, 2, (pd_value *[]){deltas, label}, PD_SHAPE(s.dim[0], 4), NULL, 0);
}
