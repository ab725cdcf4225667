#include "kernels/normalize_node.h"

#include <string.h>

typedef struct job {
    const normalize_args *args;
    const unsigned char *bytes;
    const int *sizes, *mirror;
    float *out;
    float value[3][256];
} job;

static void rows(void *arg, size_t begin, size_t end, int thread)
{
    const job *j = arg;
    const size_t h = (size_t)j->args->h, stride = (size_t)j->args->w * 3;
    (void)thread;
    for (size_t r = begin; r < end; r++) {
        const int *size = j->sizes + 4 * (r / h);
        const bool inside = (int)(r % h) < size[0], mirrored = j->mirror[r / h] != 0;
        const unsigned char *from = j->bytes + r * stride + (mirrored && size[1] > 0 ? 3 * (size_t)(size[1] - 1) : 0);
        float *to = j->out + r * stride, *const last = to + stride;
        for (int x = 0; inside && x < size[1]; x++, to += 3, from += mirrored ? -3 : 3)
            for (int c = 0; c < 3; c++) to[c] = j->value[c][from[c]];
        memset(to, 0, (size_t)(last - to) * sizeof *to);
    }
}

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const normalize_args *a = node->args;
    job j = {a, node->in[BYTES]->data, node->in[SIZES]->data, node->in[MIRROR]->data, node->out[0]->data, {{0}}};
    for (int i = 0; i < a->n; i++)
        if (j.sizes[4 * i] < 0 || j.sizes[4 * i] > a->h || j.sizes[4 * i + 1] < 0 || j.sizes[4 * i + 1] > a->w)
            return PD_FAIL(err, PD_EINVAL, "image %d of the batch is %dx%d, the batch %dx%d", i, j.sizes[4 * i + 1],
                           j.sizes[4 * i], a->w, a->h);
    for (int c = 0; c < 3; c++)
        for (int v = 0; v < 256; v++) j.value[c][v] = pd_pixel_value((unsigned char)v, &a->norm, c);
    pd_parallel(run->device->pool, (size_t)a->n * (size_t)a->h, rows, &j);
    return PD_OK;
}

static const pd_kernel cpu = {NULL, fwd, NULL, NULL};
static const pd_op normalize = {.name = "normalize", .kernel = {[PD_CPU] = &cpu}};

pd_value *pd_normalize(pd_tape *tape, pd_value *bytes, pd_value *sizes, pd_value *mirror, const pd_pixel_norm *norm)
{
    if (pd_tape_status(tape, NULL) != PD_OK) return pd_tape_dead(tape);
    const pd_shape s = bytes->shape;
    const bool image = bytes->dtype == PD_U8 && s.rank == 4 && s.dim[3] == 3;
    if (!image || sizes->dtype != PD_I32 || pd_shape_size(sizes->shape) != 4 * (size_t)s.dim[0] ||
        mirror->dtype != PD_I32 || pd_shape_size(mirror->shape) != (size_t)s.dim[0]) {
        char text[64];
        pd_tape_fail(tape, PD_EINVAL,
                     "normalize: images %s: expected bytes (n, h, w, 3), int32 sizes (n, 4) and mirror (n)",
                     pd_shape_text(text, s));
        return pd_tape_dead(tape);
    }
    const normalize_args a = {s.dim[0], s.dim[1], s.dim[2], *norm};
    pd_value *const in[INPUTS] = {bytes, sizes, mirror};
    return pd_tape_add1(tape, &normalize, NULL, INPUTS, in, s, &a, sizeof a);
}
