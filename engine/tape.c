#include "engine/tape.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pd_tape {
    pd_arena *arena;
    pd_params *params;
    bool training, sync_stats;
    pd_err err; /* the first failure */
    pd_node *first_node, **last_node;
    pd_value *first_value, **last_value;
    int nodes, values;
    pd_value dead;
};

pd_status pd_tape_new(pd_tape **out, pd_params *params, bool training, pd_err *err)
{
    pd_tape *tape = calloc(1, sizeof *tape);
    if (tape) tape->arena = pd_arena_new();
    if (!tape || !tape->arena) {
        free(tape);
        return PD_FAIL(err, PD_ENOMEM, "out of memory for a tape");
    }
    tape->params = params;
    tape->training = training;
    tape->last_node = &tape->first_node;
    tape->last_value = &tape->first_value;
    tape->dead = (pd_value){.shape = {4, {1, 1, 1, 1, 0}}, .name = ""};
    *out = tape;
    return PD_OK;
}

void pd_tape_free(pd_tape *tape)
{
    if (!tape) return;
    pd_arena_free(tape->arena);
    free(tape);
}

bool pd_tape_training(const pd_tape *tape)
{
    return tape->training;
}

void pd_tape_sync_stats(pd_tape *tape)
{
    tape->sync_stats = true;
}

bool pd_tape_syncs_stats(const pd_tape *tape)
{
    return tape->sync_stats;
}

pd_params *pd_tape_params(const pd_tape *tape)
{
    return tape->params;
}

pd_status pd_tape_status(const pd_tape *tape, pd_err *err)
{
    if (tape->err.code != PD_OK && err) *err = tape->err;
    return tape->err.code;
}

void pd_tape_fail(pd_tape *tape, pd_status code, const char *fmt, ...)
{
    if (tape->err.code != PD_OK) return;
    va_list args;
    va_start(args, fmt);
    char text[sizeof tape->err.text];
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    pd_fail(&tape->err, code, "%s", text);
}

pd_value *pd_tape_dead(pd_tape *tape)
{
    return &tape->dead;
}

static pd_value *new_value(pd_tape *tape, const char *name, pd_dtype dtype, pd_shape shape)
{
    pd_value *v;
    if (tape->err.code != PD_OK) return NULL;
    for (int i = 0; i < shape.rank; i++)
        if (shape.dim[i] < 0) {
            char text[64];
            pd_tape_fail(tape, PD_EINVAL, "%s: impossible shape %s", name, pd_shape_text(text, shape));
            return NULL;
        }
    if (PD_ALLOC(&v, tape->arena, 1, &tape->err) != PD_OK) return NULL;
    v->shape = shape;
    v->dtype = dtype;
    v->name = name;
    v->id = tape->values++;
    *tape->last_value = v;
    tape->last_value = &v->next;
    return v;
}

const char *pd_tape_name(pd_tape *tape, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    const int length = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *text = NULL;
    const char *result = "";
    if (length >= 0 && pd_alloc(&text, tape->arena, (size_t)length + 1, 1, NULL) == PD_OK) {
        vsnprintf(text, (size_t)length + 1, fmt, again);
        result = text;
    } else {
        pd_tape_fail(tape, PD_ENOMEM, "out of memory for a name");
    }
    va_end(again);
    return result;
}

pd_value *pd_tape_input(pd_tape *tape, const char *name, pd_dtype dtype, pd_shape shape)
{
    pd_value *v = new_value(tape, pd_tape_name(tape, "%s", name), dtype, shape);
    return v ? v : &tape->dead;
}

/* The shape in memory of a parameter. */
static pd_shape memory_shape(const pd_param *p)
{
    if (p->layout == PD_LAYOUT_CONV) return PD_SHAPE(p->dim[0], p->dim[2], p->dim[3], p->dim[1]);
    pd_shape s = {.rank = p->rank};
    memcpy(s.dim, p->dim, (size_t)p->rank * sizeof *s.dim);
    return s;
}

pd_value *pd_tape_param(pd_tape *tape, const char *name, const pd_param *spec)
{
    pd_param *p;
    if (tape->err.code != PD_OK) return &tape->dead;
    if (pd_params_get(&p, tape->params, name, spec, &tape->err) != PD_OK) return &tape->dead;
    for (pd_value *v = tape->first_value; v; v = v->next) /* asked for again: the same value, so gradients add up */
        if (v->param == p) return v;
    pd_value *v = new_value(tape, p->name, PD_F32, memory_shape(p));
    if (!v) return &tape->dead;
    v->param = p;
    return v;
}

pd_value *pd_tape_keep(pd_tape *tape, pd_value *value)
{
    (void)tape;
    value->keep = true;
    return value;
}

void pd_tape_minimise(pd_tape *tape, pd_value *value, float scale)
{
    if (tape->err.code != PD_OK) return;
    if (pd_shape_size(value->shape) != 1 || value->dtype != PD_F32) {
        char text[64];
        pd_tape_fail(tape, PD_EINVAL, "only a scalar can be minimised, not %s", pd_shape_text(text, value->shape));
        return;
    }
    value->keep = value->root = true;
    value->root_scale = scale;
}

pd_node *pd_tape_add(pd_tape *tape, const pd_op *op, const char *name, int n_in, pd_value *const *in, int n_out,
                     const pd_shape *out_shapes, const pd_dtype *out_types, const void *args, size_t args_size)
{
    if (tape->err.code != PD_OK) return NULL;
    pd_node *node;
    void *copy;
    if (PD_ALLOC(&node, tape->arena, 1, &tape->err) != PD_OK ||
        PD_ALLOC(&node->in, tape->arena, (size_t)n_in, &tape->err) != PD_OK ||
        PD_ALLOC(&node->out, tape->arena, (size_t)n_out, &tape->err) != PD_OK ||
        PD_ALLOC(&node->grad_mode, tape->arena, (size_t)n_in, &tape->err) != PD_OK ||
        pd_alloc(&copy, tape->arena, args_size, 1, &tape->err) != PD_OK)
        return NULL;
    if (args_size) memcpy(copy, args, args_size);
    node->op = op;
    node->name = name ? name : "";
    node->n_in = n_in;
    node->n_out = n_out;
    node->args = copy;
    node->args_size = args_size;
    memcpy(node->in, in, (size_t)n_in * sizeof *in);
    for (int i = 0; i < n_out; i++) {
        pd_value *v = new_value(tape, "", out_types ? out_types[i] : PD_F32, out_shapes[i]);
        if (!v) return NULL;
        v->node = node;
        v->slot = i;
        node->out[i] = v;
    }
    node->id = tape->nodes++;
    *tape->last_node = node;
    tape->last_node = &node->next;
    return node;
}

pd_value *pd_tape_add1(pd_tape *tape, const pd_op *op, const char *name, int n_in, pd_value *const *in, pd_shape shape,
                       const void *args, size_t args_size)
{
    pd_node *node = pd_tape_add(tape, op, name, n_in, in, 1, &shape, NULL, args, args_size);
    return node ? node->out[0] : &tape->dead;
}

pd_node *pd_tape_nodes(const pd_tape *tape)
{
    return tape->first_node;
}

pd_value *pd_tape_values(const pd_tape *tape)
{
    return tape->first_value;
}

int pd_tape_value_count(const pd_tape *tape)
{
    return tape->values;
}

int pd_tape_node_count(const pd_tape *tape)
{
    return tape->nodes;
}

pd_arena *pd_tape_arena(pd_tape *tape)
{
    return tape->arena;
}

const char *pd_shape_text(char text[64], pd_shape shape)
{
    size_t used = 1;
    text[0] = '(';
    text[1] = '\0';
    for (int i = 0; i < shape.rank; i++) {
        const int wrote = snprintf(text + used, 64 - used, "%s%d", i ? ", " : "", shape.dim[i]);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
    snprintf(text + used, 64 - used, ")");
    return text;
}
