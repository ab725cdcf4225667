#include "tools/onnx.h"
#include "engine/file.h"
#include "kernels/conv.h"
#include "kernels/pool_node.h"
#include "tools/protobuf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Field numbers of onnx.proto. */
enum {
    MODEL_IR = 1,
    MODEL_PRODUCER = 2,
    MODEL_PRODUCER_VERSION = 3,
    MODEL_GRAPH = 7,
    MODEL_OPSET = 8,
    MODEL_PROPS = 14
};
enum { GRAPH_NODE = 1, GRAPH_NAME = 2, GRAPH_INITIALIZER = 5, GRAPH_INPUT = 11, GRAPH_OUTPUT = 12 };
enum { NODE_INPUT = 1, NODE_OUTPUT = 2, NODE_NAME = 3, NODE_OP = 4, NODE_ATTRIBUTE = 5 };
enum { ATTR_NAME = 1, ATTR_INT = 3, ATTR_TEXT = 4, ATTR_INTS = 8, ATTR_TYPE = 20 };
enum { ATTR_IS_INT = 2, ATTR_IS_TEXT = 3, ATTR_IS_INTS = 7 };
enum { TENSOR_DIM = 1, TENSOR_TYPE = 2, TENSOR_NAME = 8, TENSOR_RAW = 9, FLOAT = 1, INT64 = 7 };

#define OPSET 17
#define IR_VERSION 8

typedef struct exporter {
    const pd_onnx *m;
    pd_proto nodes, weights; /* the graph's, ready to be joined */
    const char **made;       /* names of initialisers so far */
    size_t n_made, room;
    pd_err *err;
    pd_status status; /* the first failure */
} exporter;

static void fail(exporter *e, pd_status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void fail(exporter *e, pd_status code, const char *fmt, ...)
{
    char text[400];
    va_list args;
    if (e->status != PD_OK) return;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    e->status = PD_FAIL(e->err, code, "%s", text);
}

/* ---- pieces of a graph ---- */

/* "BASE.PART"; in the tape's memory, as all names here. */
static const char *part_of(const exporter *e, const char *base, const char *part)
{
    return pd_tape_name(e->m->tape, "%s.%s", base, part);
}

/* How a value is called in the file. */
static const char *name_of(const exporter *e, const pd_value *v)
{
    for (int i = 0; i < e->m->n_outputs; i++)
        if (e->m->outputs[i].value == v) return e->m->outputs[i].name;
    if (v == e->m->image) return "x";
    if (v->param) return v->param->name;
    return pd_tape_name(e->m->tape, "v%d", v->id);
}

typedef struct attribute {
    const char *name;
    const char *text; /* or */
    int64_t v[8];
    int n; /* 0: one whole number, v[0]; else a list */
} attribute;

typedef struct operation {
    const char *op, *name, *out;
    const char *in[8]; /* "" for one that is left out */
    int n_in;
    attribute attr[6]; /* ended by one without name */
} operation;

static void put_node(exporter *e, const operation *o)
{
    pd_proto node = {0};
    for (int i = 0; i < o->n_in; i++) pd_proto_text(&node, NODE_INPUT, o->in[i]);
    pd_proto_text(&node, NODE_OUTPUT, o->out);
    pd_proto_text(&node, NODE_NAME, o->out);
    pd_proto_text(&node, NODE_OP, o->op);
    for (const attribute *a = o->attr; a->name; a++) {
        pd_proto attr = {0};
        pd_proto_text(&attr, ATTR_NAME, a->name);
        for (int i = 0; i < a->n; i++) pd_proto_int(&attr, ATTR_INTS, a->v[i]);
        if (a->text) pd_proto_text(&attr, ATTR_TEXT, a->text);
        if (!a->text && !a->n) pd_proto_int(&attr, ATTR_INT, a->v[0]);
        pd_proto_int(&attr, ATTR_TYPE, a->text ? ATTR_IS_TEXT : a->n ? ATTR_IS_INTS : ATTR_IS_INT);
        pd_proto_message(&node, NODE_ATTRIBUTE, &attr);
    }
    pd_proto_message(&e->nodes, GRAPH_NODE, &node);
}

static void put_simple(exporter *e, const char *op, const char *out, const char *a, const char *b)
{
    put_node(e, &(operation){.op = op, .out = out, .in = {a, b}, .n_in = b ? 2 : 1});
}

static void put_tensor(exporter *e, const char *name, int type, int rank, const int64_t *dim, const void *data,
                       size_t bytes)
{
    pd_proto tensor = {0};
    for (int i = 0; i < rank; i++) pd_proto_int(&tensor, TENSOR_DIM, dim[i]);
    pd_proto_int(&tensor, TENSOR_TYPE, type);
    pd_proto_text(&tensor, TENSOR_NAME, name);
    pd_proto_bytes(&tensor, TENSOR_RAW, data, bytes);
    pd_proto_message(&e->weights, GRAPH_INITIALIZER, &tensor);
}

/* True the first time: heads share their weights over the levels. */
static bool new_name(exporter *e, const char *name)
{
    for (size_t i = 0; i < e->n_made; i++)
        if (!strcmp(e->made[i], name)) return false;
    if (pd_grow(&e->made, &e->room, e->n_made + 1, sizeof *e->made, NULL) != PD_OK) {
        fail(e, PD_ENOMEM, "out of memory for an ONNX file");
        return false;
    }
    e->made[e->n_made++] = name;
    return true;
}

static const char *put_ints(exporter *e, const char *name, int n, const int64_t *v)
{
    if (new_name(e, name)) put_tensor(e, name, INT64, 1, (const int64_t[]){n}, v, (size_t)n * sizeof *v);
    return name;
}

/* A weight in PyTorch's order; free it. */
static float *weight_of(exporter *e, const pd_value *v)
{
    if (!v->param) {
        fail(e, PD_EINVAL, "ONNX: a kernel is made on the tape: the network is not folded");
        return NULL;
    }
    const pd_params *params = pd_tape_params(e->m->tape);
    float *w = malloc(2 * v->param->count * sizeof *w);
    if (!w) {
        fail(e, PD_ENOMEM, "out of memory for %s", v->param->name);
        return NULL;
    }
    const pd_status read =
        pd_param_read(w + v->param->count, params, v->param, pd_param_block(params, v->param), e->err);
    if (e->status == PD_OK) e->status = read;
    pd_param_to_file_order(v->param, w, w + v->param->count);
    return w;
}

static const char *put_weight(exporter *e, const pd_value *v)
{
    if (v->param && !new_name(e, v->param->name)) return v->param->name;
    float *w = weight_of(e, v);
    if (!w) return "";
    int64_t dim[4];
    for (int i = 0; i < v->param->rank; i++) dim[i] = v->param->dim[i];
    put_tensor(e, v->param->name, FLOAT, v->param->rank, dim, w, v->param->count * sizeof *w);
    free(w);
    return v->param->name;
}

/* ---- operations ---- */

/* What comes behind a sum of products: + residual, ReLU. Returns the name that the products themselves must get. */
typedef struct tail {
    const char *before, *sum, *residual, *out;
    bool relu;
} tail;

static const char *begin_tail(tail *t, const exporter *e, const pd_node *node, const pd_value *residual, bool relu)
{
    *t = (tail){.residual = residual ? name_of(e, residual) : NULL, .out = name_of(e, node->out[0]), .relu = relu};
    t->before = part_of(e, t->out, "product");
    t->sum = part_of(e, t->out, "sum");
    return t->residual || relu ? t->before : t->out;
}

static void end_tail(exporter *e, const tail *t)
{
    if (t->residual) put_simple(e, "Add", t->relu ? t->sum : t->out, t->before, t->residual);
    if (t->relu) put_simple(e, "Relu", t->out, t->residual ? t->sum : t->before, NULL);
}

static void put_conv(exporter *e, const char *out, const char *x, const char *w, const char *bias,
                     const pd_value *kernel, const pd_conv_args *a, int groups)
{
    const int *k = kernel->shape.dim; /* (o, r, s, i) */
    put_node(e, &(operation){.op = "Conv",
                             .out = out,
                             .in = {x, w, bias},
                             .n_in = bias ? 3 : 2,
                             .attr = {{"dilations", NULL, {1, 1}, 2},
                                      {"group", NULL, {groups}, 0},
                                      {"kernel_shape", NULL, {k[1], k[2]}, 2},
                                      {"pads", NULL, {a->pad_h, a->pad_w, a->pad_h, a->pad_w}, 4},
                                      {"strides", NULL, {a->stride, a->stride}, 2}}});
}

static void conv(exporter *e, const pd_node *node)
{
    enum { X, W, BIAS, RESIDUAL };
    tail t;
    const pd_conv_args *a = node->args;
    const char *out = begin_tail(&t, e, node, node->in[RESIDUAL], a->relu);
    put_conv(e, out, name_of(e, node->in[X]), put_weight(e, node->in[W]),
             node->in[BIAS] ? put_weight(e, node->in[BIAS]) : NULL, node->in[W], a, a->groups);
    end_tail(e, &t);
}

/* Any number of images: a convolution of [a_0 x, a_1 x, ..] with the kernels side by side along their inputs. */
static void mix_inputs(exporter *e, const char *out, const char *x, const char *gate, const pd_value *kernels,
                       const pd_conv_args *a, int g)
{
    pd_tape *t = e->m->tape;
    operation concat = {.op = "Concat", .out = part_of(e, out, "inputs"), .n_in = g, .attr = {{"axis", NULL, {1}, 0}}};
    for (int i = 0; i < g; i++) {
        const char *column = pd_tape_name(t, "%s.column.%d", out, i), *weight = pd_tape_name(t, "%s.gate.%d", out, i);
        const char *index = put_ints(e, pd_tape_name(t, "index.%d", i), 1, (const int64_t[]){i});
        concat.in[i] = pd_tape_name(t, "%s.input.%d", out, i);
        put_node(e,
                 &(operation){
                     .op = "Gather", .out = column, .in = {gate, index}, .n_in = 2, .attr = {{"axis", NULL, {1}, 0}}});
        put_simple(e, "Unsqueeze", weight, column, put_ints(e, "axes.2.3", 2, (const int64_t[]){2, 3}));
        put_simple(e, "Mul", concat.in[i], x, weight);
    }
    put_node(e, &concat);
    const pd_param *p = kernels->param; /* (g * k, c, r, s), wanted (k, g * c, r, s) */
    const size_t k = (size_t)p->dim[0] / (size_t)g, row = (size_t)p->dim[1] * (size_t)p->dim[2] * (size_t)p->dim[3];
    const int64_t dim[4] = {(int64_t)k, (int64_t)g * p->dim[1], p->dim[2], p->dim[3]};
    float *from = weight_of(e, kernels), *to = malloc(p->count * sizeof *to);
    if (!to) fail(e, PD_ENOMEM, "out of memory for %s", p->name);
    for (size_t i = 0; from && to && i < (size_t)g; i++)
        for (size_t o = 0; o < k; o++)
            memcpy(to + (o * (size_t)g + i) * row, from + (i * k + o) * row, row * sizeof *to);
    if (from && to && new_name(e, p->name)) put_tensor(e, p->name, FLOAT, 4, dim, to, p->count * sizeof *to);
    free(from);
    free(to);
    put_conv(e, out, concat.out, p->name, NULL, kernels, a, 1);
}

/* A fixed number of images: their kernels, then a group of one convolution each. */
static void mix_kernels(exporter *e, const char *out, const char *x, const char *gate, const pd_value *kernels,
                        const pd_conv_args *a, int g, const int *in, const int *y)
{
    const pd_param *p = kernels->param;
    const int n = e->m->batch;
    const int64_t k = p->dim[0] / g, dim[2] = {g, k * p->dim[1] * p->dim[2] * p->dim[3]};
    float *w = weight_of(e, kernels);
    if (w && new_name(e, p->name)) put_tensor(e, p->name, FLOAT, 2, dim, w, p->count * sizeof *w);
    free(w);
    const char *mixed = part_of(e, out, "mixed"), *kernel = part_of(e, out, "kernel"), *row = part_of(e, out, "row");
    const char *rows = part_of(e, out, "rows");
    put_simple(e, "MatMul", mixed, gate, p->name);
    put_simple(e, "Reshape", kernel, mixed,
               put_ints(e, part_of(e, kernel, "shape"), 4, (const int64_t[]){n * k, p->dim[1], p->dim[2], p->dim[3]}));
    if (n == 1) {
        put_conv(e, out, x, kernel, NULL, kernels, a, 1);
        return;
    }
    put_simple(e, "Reshape", row, x,
               put_ints(e, part_of(e, row, "shape"), 4, (const int64_t[]){1, (int64_t)n * in[3], in[1], in[2]}));
    put_conv(e, rows, row, kernel, NULL, kernels, a, n);
    put_simple(e, "Reshape", out, rows, put_ints(e, part_of(e, out, "shape"), 4, (const int64_t[]){n, k, y[1], y[2]}));
}

static void mix_conv(exporter *e, const pd_node *node)
{
    enum { X, GATE, KERNELS, BIAS, RESIDUAL };
    tail t;
    const pd_conv_args *a = node->args;
    const int g = node->in[GATE]->shape.dim[1], k = node->out[0]->shape.dim[3];
    const char *weights = name_of(e, node->in[GATE]), *out = begin_tail(&t, e, node, node->in[RESIDUAL], a->relu);
    if (!node->in[KERNELS]->param || !node->in[BIAS]->param) {
        fail(e, PD_EINVAL, "ONNX: a kernel is made on the tape: the network is not folded");
        return;
    }
    const char *product = part_of(e, t.out, "mix");
    const char *bias = part_of(e, t.out, "bias");
    const char *shift = part_of(e, t.out, "shift");
    if (e->m->batch)
        mix_kernels(e, product, name_of(e, node->in[X]), weights, node->in[KERNELS], a, g, node->in[X]->shape.dim,
                    node->out[0]->shape.dim);
    else
        mix_inputs(e, product, name_of(e, node->in[X]), weights, node->in[KERNELS], a, g);
    const pd_param *c = node->in[BIAS]->param;
    float *biases = weight_of(e, node->in[BIAS]);
    if (biases && new_name(e, c->name))
        put_tensor(e, c->name, FLOAT, 2, (const int64_t[]){g, k}, biases, c->count * sizeof *biases);
    free(biases);
    put_simple(e, "MatMul", bias, weights, c->name);
    put_simple(e, "Unsqueeze", shift, bias, put_ints(e, "axes.2.3", 2, (const int64_t[]){2, 3}));
    put_simple(e, "Add", out, product, shift);
    end_tail(e, &t);
}

static void linear(exporter *e, const pd_node *node)
{
    tail t;
    const char *out = begin_tail(&t, e, node, NULL, *(const bool *)node->args);
    if (node->in[0]->shape.rank != 2) fail(e, PD_EINVAL, "ONNX: %s reads a feature map", node->name);
    put_node(e, &(operation){.op = "Gemm",
                             .out = out,
                             .n_in = node->in[2] ? 3 : 2,
                             .attr = {{"transB", NULL, {1}, 0}},
                             .in = {name_of(e, node->in[0]), put_weight(e, node->in[1]),
                                    node->in[2] ? put_weight(e, node->in[2]) : NULL}});
    end_tail(e, &t);
}

static void mean(exporter *e, const pd_node *node)
{
    const char *out = name_of(e, node->out[0]);
    const char *map = part_of(e, out, "map");
    put_simple(e, "GlobalAveragePool", map, name_of(e, node->in[0]), NULL);
    put_simple(e, "Flatten", out, map, NULL);
}

static void max_pool(exporter *e, const pd_node *node)
{
    const pool_args *a = node->args;
    put_node(e, &(operation){.op = "MaxPool",
                             .out = name_of(e, node->out[0]),
                             .in = {name_of(e, node->in[0])},
                             .n_in = 1,
                             .attr = {{"kernel_shape", NULL, {a->size, a->size}, 2},
                                      {"pads", NULL, {a->pad, a->pad, a->pad, a->pad}, 4},
                                      {"strides", NULL, {a->stride, a->stride}, 2}}});
}

static void row_softmax(exporter *e, const pd_node *node)
{
    put_node(e, &(operation){.op = "Softmax",
                             .out = name_of(e, node->out[0]),
                             .in = {name_of(e, node->in[0])},
                             .n_in = 1,
                             .attr = {{"axis", NULL, {1}, 0}}});
}

/* x by nearest neighbour to the size of `like`: source index floor(i * from / to). */
static void put_upsample(exporter *e, const char *out, const char *x, const char *like)
{
    const char *shape = part_of(e, out, "shape");
    put_simple(e, "Shape", shape, like, NULL);
    put_node(e, &(operation){.op = "Resize",
                             .out = out,
                             .in = {x, "", "", shape},
                             .n_in = 4,
                             .attr = {{.name = "coordinate_transformation_mode", .text = "asymmetric"},
                                      {.name = "mode", .text = "nearest"},
                                      {.name = "nearest_mode", .text = "floor"}}});
}

static void upsample_add(exporter *e, const pd_node *node)
{
    enum { COARSE, LATERAL };
    const char *out = name_of(e, node->out[0]), *lateral = name_of(e, node->in[LATERAL]);
    const char *up = part_of(e, out, "up");
    put_upsample(e, up, name_of(e, node->in[COARSE]), lateral);
    put_simple(e, "Add", out, up, lateral);
}

static void excite(exporter *e, const pd_node *node)
{
    enum { X, M, RESIDUAL };
    tail t;
    const char *out = begin_tail(&t, e, node, node->in[RESIDUAL], *(const bool *)node->args);
    const char *in = name_of(e, node->in[X]);
    const char *gate = part_of(e, t.out, "sigmoid");
    const char *map = part_of(e, t.out, "gate");
    put_simple(e, "Sigmoid", gate, name_of(e, node->in[M]), NULL);
    if (node->in[M]->shape.rank == 2)
        put_simple(e, "Unsqueeze", map, gate, put_ints(e, "axes.2.3", 2, (const int64_t[]){2, 3}));
    else
        put_upsample(e, map, gate, in);
    put_simple(e, "Mul", out, in, map);
    end_tail(e, &t);
}

static const struct {
    const char *op;
    void (*put)(exporter *e, const pd_node *node);
} translations[] = {{"conv", conv},
                    {"conv_relu", conv},
                    {"mix_conv", mix_conv},
                    {"mix_conv_relu", mix_conv},
                    {"linear", linear},
                    {"global_avg_pool", mean},
                    {"channel_means", mean},
                    {"max_pool", max_pool},
                    {"row_softmax", row_softmax},
                    {"upsample_add", upsample_add},
                    {"excite", excite}};

static void put_operation(exporter *e, const pd_node *node)
{
    for (size_t i = 0; i < sizeof translations / sizeof *translations; i++)
        if (!strcmp(translations[i].op, node->op->name)) {
            translations[i].put(e, node);
            return;
        }
    fail(e, PD_EINVAL, "ONNX: there is no translation of %s", node->op->name);
}

/* ---- the file ---- */

/* ValueInfo: name and (n, c, h, w) or (n, c). */
static void put_value(pd_proto *graph, int field, const char *name, pd_shape s, int batch)
{
    pd_proto info = {0}, type = {0}, tensor = {0}, shape = {0};
    const int order[2][4] = {{0, 1}, {0, 3, 1, 2}};
    for (int i = 0; i < s.rank; i++) {
        pd_proto dim = {0};
        if (i == 0 && !batch)
            pd_proto_text(&dim, 2, "n");
        else
            pd_proto_int(&dim, 1, i ? s.dim[order[s.rank == 4][i]] : batch);
        pd_proto_message(&shape, 1, &dim);
    }
    pd_proto_int(&tensor, 1, FLOAT);
    pd_proto_message(&tensor, 2, &shape);
    pd_proto_message(&type, 1, &tensor);
    pd_proto_text(&info, 1, name);
    pd_proto_message(&info, 2, &type);
    pd_proto_message(graph, field, &info);
}

static void put_head(pd_proto *model, const pd_onnx *m)
{
    pd_proto opset = {0};
    pd_proto_int(model, MODEL_IR, IR_VERSION);
    pd_proto_text(model, MODEL_PRODUCER, "ParaDise");
    pd_proto_text(model, MODEL_PRODUCER_VERSION, PD_VERSION);
    pd_proto_text(&opset, 1, "");
    pd_proto_int(&opset, 2, OPSET);
    pd_proto_message(model, MODEL_OPSET, &opset);
    for (int i = 0; i < m->n_facts; i++) {
        pd_proto fact = {0};
        if (!m->facts[i].value) continue;
        pd_proto_text(&fact, 1, m->facts[i].key);
        pd_proto_text(&fact, 2, m->facts[i].value);
        pd_proto_message(model, MODEL_PROPS, &fact);
    }
}

static pd_status write_model(const char *path, pd_proto *model, const pd_proto *head, const exporter *e, pd_err *err)
{
    pd_out *out;
    unsigned char length[16];
    const uint64_t size = head->size + e->nodes.size + e->weights.size;
    if (model->failed || head->failed || e->nodes.failed || e->weights.failed)
        return PD_FAIL(err, PD_ENOMEM, "out of memory for %s", path);
    if (size > (1u << 31) - (1u << 16))
        return PD_FAIL(err, PD_EINVAL, "%s: %llu bytes of weights; an ONNX file has less than 2 GiB", path,
                       (unsigned long long)size);
    size_t n = 0;
    length[n++] = MODEL_GRAPH << 3 | 2; /* the graph's pieces follow one after the other */
    uint64_t rest = size;
    for (; rest >= 0x80; rest >>= 7) length[n++] = (unsigned char)(rest | 0x80);
    length[n++] = (unsigned char)rest;
    PD_TRY(pd_out_open(&out, path, err));
    pd_out_write(out, model->data, model->size);
    pd_out_write(out, length, n);
    pd_out_write(out, e->nodes.data, e->nodes.size);
    pd_out_write(out, head->data, head->size);
    pd_out_write(out, e->weights.data, e->weights.size);
    return pd_out_commit(out, err);
}

pd_status pd_onnx_write(const char *path, const pd_onnx *m, pd_err *err)
{
    exporter e = {.m = m, .err = err};
    pd_proto model = {0}, rest = {0};
    pd_err own = PD_ERR_INIT;
    e.status = pd_tape_status(m->tape, &own);
    if (e.status != PD_OK) return PD_FAIL(err, e.status, "%s", own.text);
    for (const pd_node *node = pd_tape_nodes(m->tape); node && e.status == PD_OK; node = node->next)
        put_operation(&e, node);
    if (e.status == PD_OK) {
        put_head(&model, m);
        pd_proto_text(&rest, GRAPH_NAME, "paradise");
        put_value(&rest, GRAPH_INPUT, "x", m->image->shape, m->batch);
        for (int i = 0; i < m->n_outputs; i++)
            put_value(&rest, GRAPH_OUTPUT, m->outputs[i].name, m->outputs[i].value->shape, m->batch);
        e.status = write_model(path, &model, &rest, &e, err);
    }
    pd_proto_free(&model);
    pd_proto_free(&rest);
    pd_proto_free(&e.nodes);
    pd_proto_free(&e.weights);
    free(e.made);
    return e.status;
}
