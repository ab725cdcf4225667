/* dense_loss.h: the walk that focal_loss and bce_loss share: sigmoid losses of every (box, class) of a pyramid.
 *
 * Almost all boxes are background, so each chunk of logits is taken as background by one vectorised call, and the few
 * entries of positive or left-out boxes are put right afterwards. */
#ifndef PD_DENSE_LOSS_H
#define PD_DENSE_LOSS_H

#include "engine/tape.h"
#include "kernels/anchors.h"

#define PD_DENSE_CHUNK 2048 /* logits; a power of two */

/* One loss function. cfg: the author's settings. */
typedef struct pd_dense_terms {
    void (*background)(float *loss, const float *x, int n, const void *cfg);
    void (*background_slope)(float *slope, const float *x, int n, const void *cfg);
    float (*positive)(float x, const void *cfg);
    float (*positive_slope)(float x, const void *cfg);
} pd_dense_terms;

/* The op's arguments; the author's settings follow them in the node (dense_loss_node.h). */
typedef struct pd_dense_args {
    int levels, k, n, boxes;
    int first[PD_MAX_LEVELS + 1]; /* flat index of each level's first box */
} pd_dense_args;

/* Checks shapes and records; cfg: cfg_size bytes (<= 64). */
pd_value *pd_dense_loss(pd_tape *tape, const pd_op *op, pd_value *const *logits, int levels, pd_value *label,
                        pd_value *weight, int k, const void *cfg, size_t cfg_size);

/* Parts of the CPU kernels. */
pd_status pd_dense_loss_plan(pd_node *node, pd_device *device, pd_err *err);
pd_status pd_dense_loss_fwd(pd_node *node, const pd_run *run, const pd_dense_terms *terms);
pd_status pd_dense_loss_bwd(pd_node *node, const pd_run *run, const pd_dense_terms *terms);

#endif
