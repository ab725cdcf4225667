/* graph.h: cuDNN's backend graph API as a few calls: the one place, with graph.c, that names its attributes.
 *
 * A pd_graph collects descriptors; the first failure sticks, with cuDNN's own words, and later calls do nothing.
 * Tensors are NHWC with logical dimensions n, c, h, w; unique ids count from 1 in the order of creation. */
#ifndef PD_CUDNN_GRAPH_H
#define PD_CUDNN_GRAPH_H

#include "engine/status.h"
#include "kernels/conv_shape.h"
#include "kernels/cuda/gconv.h"

#include <cudnn.h>

typedef cudnnBackendDescriptor_t pd_desc;

#define PD_GRAPH_OPS 8

typedef struct pd_graph {
    pd_desc *all; /* every descriptor, in order of creation */
    size_t count, room;
    pd_desc op[PD_GRAPH_OPS];
    int ops;
    int64_t ids;
    pd_desc graph;
    cudnnStatus_t status;
    char text[512];
} pd_graph;

pd_desc pd_graph_new(pd_graph *g, cudnnBackendDescriptorType_t type);
void pd_graph_set(pd_graph *g, pd_desc d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                  int64_t count, const void *value);
void pd_graph_finalize(pd_graph *g, pd_desc d, const char *what);
void pd_graph_free(pd_graph *g);

/* inner: lives inside the fused kernel only. */
pd_desc pd_graph_tensor(pd_graph *g, cudnnDataType_t type, int n, int c, int h, int w, bool inner);
void pd_graph_conv(pd_graph *g, pd_gconv_kind kind, const pd_conv_shape *s, pd_desc x, pd_desc w, pd_desc y);
/* b NULL: of one argument */
void pd_graph_pointwise(pd_graph *g, cudnnPointwiseMode_t mode, pd_desc x, pd_desc b, pd_desc y);
/* sum, square: per channel (1, c, 1, 1), float32, of x and of its squares. */
void pd_graph_sums(pd_graph *g, pd_desc x, pd_desc sum, pd_desc square);
/* Closes the graph; then it can be asked for plans: for the handle's device, or, with NULL, for one that is described
 * to whoever is asked. */
void pd_graph_build(pd_graph *g, cudnnHandle_t handle);
/* Hands a descriptor over to another collection. */
void pd_graph_move(pd_graph *to, pd_graph *from, pd_desc d);

/* What stuck, as an error; `what` is put in front. */
pd_status pd_graph_fail(const pd_graph *g, const char *what, pd_err *err);

#endif
