/* tensor_io.h: tensors in and out of programs, in PyTorch's order (n, c, h, w). */
#ifndef PD_TENSOR_IO_H
#define PD_TENSOR_IO_H

#include "engine/safetensors.h"
#include "engine/tape.h"

/* Tensor `name` [N, C, H, W] of a file as (n, h, w, c), in the arena. */
pd_status pd_tensor_read(float **out, int dim[4], const pd_st *file, const char *name, pd_arena *arena, pd_err *err);

/* Adds (n, h, w, c) data as [N, C, H, W] (other ranks as they are); the data is copied. */
pd_status pd_tensor_add(pd_st_writer *w, const char *name, const float *data, pd_shape shape, pd_arena *arena, pd_err *err);
/* Adds whole numbers, as int64. */
pd_status pd_tensor_add_ints(pd_st_writer *w, const char *name, const int *data, pd_shape shape, pd_arena *arena, pd_err *err);

#endif
