/* checkpoint.h: parameters to and from safetensors files.
 *
 * Names and shapes in files are PyTorch's (params.h), so that a state dict of the reference loads here and the other way
 * round. Tensors of training state start with "train." and are not parameters: readers of models pass over them. */
#ifndef PD_CHECKPOINT_H
#define PD_CHECKPOINT_H

#include "engine/params.h"
#include "engine/safetensors.h"

typedef struct pd_load_options {
    const char *prefix;      /* put in front of each name of the file ("backbone."); NULL: "" */
    const char *const *skip; /* names of the file that start with one of these are not wanted; ended by NULL; may be NULL */
    const char *only;        /* parameters that do not start with this are not expected in the file; NULL: all are */
    bool lenient;            /* differences are reported, not an error */
} pd_load_options;

/* Fills the parameters from the file. *report: one line per difference, "" if there is none: every parameter that is
 * missing, every tensor that is unexpected, every shape that differs, all named. Unless lenient, a difference is
 * PD_EFORMAT, and no parameter is changed. A counter (num_batches_tracked) may be missing. */
pd_status pd_load_params(pd_params *params, const pd_st *file, const pd_load_options *options, char **report,
                         pd_arena *arena, pd_err *err);

/* Adds every parameter to a file being written. Data is read, and the arena needed, until the commit. */
pd_status pd_save_params(pd_st_writer *writer, const pd_params *params, pd_arena *arena, pd_err *err);
/* The same, floats stored as F32, F16 or BF16 (rounded to nearest, ties to even); readers widen them. */
pd_status pd_save_params_as(pd_st_writer *writer, const pd_params *params, pd_st_type type, pd_arena *arena, pd_err *err);

/* Blocks that lie beside the weights' block (momentum, a moving average): one tensor per weight, "<prefix><name>". */
pd_status pd_save_block(pd_st_writer *writer, const pd_params *params, const char *prefix, const float *block,
                        pd_arena *arena, pd_err *err);
pd_status pd_load_block(float *block, const pd_params *params, const char *prefix, const pd_st *file, pd_err *err);

#endif
