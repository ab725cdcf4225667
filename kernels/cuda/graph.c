#include "kernels/cuda/graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DESC CUDNN_TYPE_BACKEND_DESCRIPTOR

static void note(pd_graph *g, cudnnStatus_t status, const char *what)
{
    char text[400] = "";
    if (status == CUDNN_STATUS_SUCCESS || g->status != CUDNN_STATUS_SUCCESS) return;
    g->status = status;
    cudnnGetLastErrorString(text, sizeof text);
    text[strcspn(text, "\n")] = '\0';
    snprintf(g->text, sizeof g->text, "%s: %s (%s)", what, cudnnGetErrorString(status), text);
}

static bool grow(pd_graph *g)
{
    if (g->status != CUDNN_STATUS_SUCCESS) return false;
    if (pd_grow(&g->all, &g->room, g->count + 1, sizeof *g->all, NULL) == PD_OK) return true;
    g->status = CUDNN_STATUS_ALLOC_FAILED;
    snprintf(g->text, sizeof g->text, "out of memory");
    return false;
}

pd_desc pd_graph_new(pd_graph *g, cudnnBackendDescriptorType_t type)
{
    pd_desc d = NULL;
    if (!grow(g)) return NULL;
    note(g, cudnnBackendCreateDescriptor(type, &d), "a new descriptor");
    if (d) g->all[g->count++] = d;
    return d;
}

void pd_graph_move(pd_graph *to, pd_graph *from, pd_desc d)
{
    for (size_t i = 0; i < from->count; i++)
        if (from->all[i] == d && grow(to)) {
            to->all[to->count++] = d;
            from->all[i] = from->all[--from->count];
            return;
        }
}

void pd_graph_set(pd_graph *g, pd_desc d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                  int64_t count, const void *value)
{
    char what[40];
    if (g->status != CUDNN_STATUS_SUCCESS) return;
    snprintf(what, sizeof what, "attribute %d", (int)name);
    note(g, cudnnBackendSetAttribute(d, name, type, count, value), what);
}

void pd_graph_finalize(pd_graph *g, pd_desc d, const char *what)
{
    if (g->status == CUDNN_STATUS_SUCCESS) note(g, cudnnBackendFinalize(d), what);
}

void pd_graph_free(pd_graph *g)
{
    while (g->count) cudnnBackendDestroyDescriptor(g->all[--g->count]);
    free(g->all);
    memset(g, 0, sizeof *g);
}

pd_desc pd_graph_tensor(pd_graph *g, cudnnDataType_t type, int n, int c, int h, int w, bool inner)
{
    pd_desc d = pd_graph_new(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    const int64_t dims[4] = {n, c, h, w}, id = ++g->ids, align = 16;
    const int64_t strides[4] = {(int64_t)c * h * w, 1, (int64_t)c * w, c};
    pd_graph_set(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    pd_graph_set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims);
    pd_graph_set(g, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
    pd_graph_set(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id);
    pd_graph_set(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align);
    pd_graph_set(g, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &inner);
    pd_graph_finalize(g, d, "a tensor");
    return d;
}

/* The padding below and to the right follows from the output's size; it may be less than that on the other side. */
static int64_t pad_behind(int size, int out, int kernel, int stride, int pad)
{
    const int64_t need = (int64_t)(out - 1) * stride + kernel - size - pad;
    return need > 0 ? need : 0;
}

static pd_desc conv_settings(pd_graph *g, const pd_conv_shape *s)
{
    pd_desc d = pd_graph_new(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    const int64_t axes = 2, before[2] = {s->pad_h, s->pad_w}, stride[2] = {s->stride, s->stride}, dilation[2] = {1, 1};
    const int64_t behind[2] = {pad_behind(s->h, s->oh, s->kh, s->stride, s->pad_h),
                               pad_behind(s->w, s->ow, s->kw, s->stride, s->pad_w)};
    /* equal padding on both sides wherever that gives the same output: more engines take it */
    const bool even_h = (s->h + 2 * s->pad_h - s->kh) / s->stride + 1 == s->oh;
    const bool even_w = (s->w + 2 * s->pad_w - s->kw) / s->stride + 1 == s->ow;
    const int64_t after[2] = {even_h ? before[0] : behind[0], even_w ? before[1] : behind[1]};
    const cudnnDataType_t sums = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    pd_graph_set(g, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &axes);
    pd_graph_set(g, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &sums);
    pd_graph_set(g, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    pd_graph_set(g, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, before);
    pd_graph_set(g, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, after);
    pd_graph_set(g, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilation);
    pd_graph_set(g, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, stride);
    pd_graph_finalize(g, d, "a convolution's settings");
    return d;
}

void pd_graph_conv(pd_graph *g, pd_gconv_kind kind, const pd_conv_shape *s, pd_desc x, pd_desc w, pd_desc y)
{
    static const cudnnBackendDescriptorType_t type[3] = {
        CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
        CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
        CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR};
    static const cudnnBackendAttributeName_t name[3][6] = {
        {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
        {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
        {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA}};
    const float alpha = 1, beta = 0;
    pd_desc settings = conv_settings(g, s), d = pd_graph_new(g, type[kind]);
    pd_desc part[4] = {x, w, y, settings};
    for (int i = 0; i < 4; i++) pd_graph_set(g, d, name[kind][i], DESC, 1, &part[i]);
    pd_graph_set(g, d, name[kind][4], CUDNN_TYPE_FLOAT, 1, &alpha);
    pd_graph_set(g, d, name[kind][5], CUDNN_TYPE_FLOAT, 1, &beta);
    pd_graph_finalize(g, d, "a convolution");
    g->op[g->ops++] = d;
}

void pd_graph_pointwise(pd_graph *g, cudnnPointwiseMode_t mode, pd_desc x, pd_desc b, pd_desc y)
{
    const cudnnDataType_t math = CUDNN_DATA_FLOAT;
    pd_desc p = pd_graph_new(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    pd_graph_set(g, p, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    pd_graph_set(g, p, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &math);
    pd_graph_finalize(g, p, "a pointwise function");
    pd_desc d = pd_graph_new(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    pd_graph_set(g, d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, DESC, 1, &p);
    pd_graph_set(g, d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, DESC, 1, &x);
    if (b) pd_graph_set(g, d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, DESC, 1, &b);
    pd_graph_set(g, d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, DESC, 1, &y);
    pd_graph_finalize(g, d, "a pointwise operation");
    g->op[g->ops++] = d;
}

void pd_graph_sums(pd_graph *g, pd_desc x, pd_desc sum, pd_desc square)
{
    const cudnnGenStatsMode_t mode = CUDNN_GENSTATS_SUM_SQSUM;
    const cudnnDataType_t math = CUDNN_DATA_FLOAT;
    pd_desc d = pd_graph_new(g, CUDNN_BACKEND_OPERATION_GEN_STATS_DESCRIPTOR);
    pd_graph_set(g, d, CUDNN_ATTR_OPERATION_GENSTATS_MODE, CUDNN_TYPE_GENSTATS_MODE, 1, &mode);
    pd_graph_set(g, d, CUDNN_ATTR_OPERATION_GENSTATS_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &math);
    pd_graph_set(g, d, CUDNN_ATTR_OPERATION_GENSTATS_XDESC, DESC, 1, &x);
    pd_graph_set(g, d, CUDNN_ATTR_OPERATION_GENSTATS_SUMDESC, DESC, 1, &sum);
    pd_graph_set(g, d, CUDNN_ATTR_OPERATION_GENSTATS_SQSUMDESC, DESC, 1, &square);
    pd_graph_finalize(g, d, "sums of channels");
    g->op[g->ops++] = d;
}

void pd_graph_build(pd_graph *g, cudnnHandle_t handle)
{
    g->graph = pd_graph_new(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    if (handle) pd_graph_set(g, g->graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    pd_graph_set(g, g->graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, DESC, g->ops, g->op);
    pd_graph_finalize(g, g->graph, "the graph");
}

pd_status pd_graph_fail(const pd_graph *g, const char *what, pd_err *err)
{
    return PD_FAIL(err, PD_EDEVICE, "cuDNN: %s: %s", what, g->text);
}
