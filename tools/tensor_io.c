#include "tools/tensor_io.h"

#include <string.h>

/* (n, a, b) -> (n, b, a) */
static void swap_axes(float *to, const float *from, size_t n, size_t a, size_t b)
{
    for (size_t i = 0; i < n; i++, to += a * b, from += a * b)
        for (size_t k = 0; k < a; k++)
            for (size_t j = 0; j < b; j++) to[j * a + k] = from[k * b + j];
}

pd_status pd_tensor_read(float **out, int dim[4], const pd_st *file, const char *name, pd_arena *arena, pd_err *err)
{
    const pd_st_tensor *t;
    float *values, *ours;
    PD_TRY(pd_st_need(&t, file, name, -1, NULL, err));
    bool fits = t->ndim == 4;
    for (int i = 0; fits && i < 4; i++) fits = t->shape[i] >= 1 && t->shape[i] <= 1 << 24;
    if (!fits) {
        char text[128];
        pd_st_shape_text(text, t->ndim, t->shape);
        return PD_FAIL(err, PD_EFORMAT, "%s: %s has shape %s, expected (n, c, h, w)", pd_st_path(file), name, text);
    }
    PD_TRY(PD_ALLOC(&values, arena, t->elements, err));
    PD_TRY(PD_ALLOC(&ours, arena, t->elements, err));
    pd_st_read_f32(values, t);
    for (int i = 0; i < 4; i++) dim[i] = (int)t->shape[i];
    swap_axes(ours, values, (size_t)dim[0], (size_t)dim[1], (size_t)dim[2] * (size_t)dim[3]);
    *out = ours;
    return PD_OK;
}

pd_status pd_tensor_add(pd_st_writer *w, const char *name, const float *data, pd_shape shape, pd_arena *arena, pd_err *err)
{
    float *copy;
    int64_t dims[PD_MAX_RANK];
    const size_t count = pd_shape_size(shape);
    PD_TRY(PD_ALLOC(&copy, arena, count, err));
    for (int i = 0; i < shape.rank; i++) dims[i] = shape.dim[i];
    if (shape.rank == 4) {
        dims[1] = shape.dim[3], dims[2] = shape.dim[1], dims[3] = shape.dim[2];
        swap_axes(copy, data, (size_t)shape.dim[0], (size_t)shape.dim[1] * (size_t)shape.dim[2], (size_t)shape.dim[3]);
    } else {
        memcpy(copy, data, count * sizeof *copy);
    }
    return pd_st_add(w, name, PD_ST_F32, shape.rank, dims, copy, err);
}

pd_status pd_tensor_add_ints(pd_st_writer *w, const char *name, const int *data, pd_shape shape, pd_arena *arena, pd_err *err)
{
    int64_t *copy, dims[PD_MAX_RANK];
    const size_t count = pd_shape_size(shape);
    PD_TRY(PD_ALLOC(&copy, arena, count, err));
    for (size_t i = 0; i < count; i++) copy[i] = data[i];
    for (int i = 0; i < shape.rank; i++) dims[i] = shape.dim[i];
    return pd_st_add(w, name, PD_ST_I64, shape.rank, dims, copy, err);
}
