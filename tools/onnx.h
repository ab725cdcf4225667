/* onnx.h: a folded network as an ONNX file, operator set 17, for whoever deploys with another runtime.
 *
 * The tape is walked node by node; every operation that a folded classifier or RetinaNet records has a translation.
 * Input "x" (n, 3, h, w), normalised; outputs as they are named. h and w are those of the recording. Weights are
 * float32, named as in our own files (PD-B's kernels lie in the order that is wanted here), batch norms are gone.
 *
 * A PD-B layer, y_n = conv(x_n, sum_i a_i(n) K_i) + sum_i a_i(n) c_i, has no operator of its own:
 *   batch 0 (any number of images): the kernels side by side, one convolution of the inputs a_i(n) x_n, which is the
 * same by linearity and costs as many products as there are branches; batch N: the kernels mixed by a matrix product,
 * then a convolution with a group per image: the cost of the fold.
 *
 * Errors: an operation without translation, by name; a file of 2 GiB or more (a limit of the format). */
#ifndef PD_ONNX_H
#define PD_ONNX_H

#include "engine/tape.h"

typedef struct pd_onnx_output {
    const char *name;
    const pd_value *value;
} pd_onnx_output;

typedef struct pd_onnx_fact {
    const char *key, *value; /* for the file's metadata; entries without value are left out */
} pd_onnx_fact;

typedef struct pd_onnx {
    pd_tape *tape; /* names of the file's own are made in its memory */
    const pd_value *image;
    const pd_onnx_output *outputs;
    int n_outputs;
    int batch; /* images of a run; 0: any number */
    const pd_onnx_fact *facts;
    int n_facts;
} pd_onnx;

pd_status pd_onnx_write(const char *path, const pd_onnx *model, pd_err *err);

#endif
