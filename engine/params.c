#include "engine/params.h"
#include "engine/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pd_params {
    pd_arena *arena;
    pd_param **list;
    size_t count, room;
    pd_param **table; /* open addressing by name; size a power of two, at most half full */
    size_t table_size;
    pd_device *device;
    float *weights, *grads, *buffers;
    size_t weight_count, buffer_count;
    pd_gradient_fn listener;
    void *listener_arg;
};

uint64_t pd_hash_text(const char *text)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) h = (h ^ *p) * 0x100000001B3u;
    return h;
}

pd_status pd_params_new(pd_params **out, pd_err *err)
{
    pd_params *params = calloc(1, sizeof *params);
    if (params) params->arena = pd_arena_new();
    if (!params || !params->arena) {
        free(params);
        return PD_FAIL(err, PD_ENOMEM, "out of memory for parameters");
    }
    *out = params;
    return PD_OK;
}

void pd_params_free(pd_params *params)
{
    if (!params) return;
    if (params->device) {
        params->device->release(params->device, params->weights);
        params->device->release(params->device, params->grads);
        params->device->release(params->device, params->buffers);
    }
    free(params->list);
    free(params->table);
    pd_arena_free(params->arena);
    free(params);
}

static size_t slot_of(pd_param *const *table, size_t size, const char *name)
{
    size_t i = (size_t)pd_hash_text(name) & (size - 1);
    while (table[i] && strcmp(table[i]->name, name) != 0) i = (i + 1) & (size - 1);
    return i;
}

pd_param *pd_params_find(const pd_params *params, const char *name)
{
    return params->table_size ? params->table[slot_of(params->table, params->table_size, name)] : NULL;
}

static pd_status grow_table(pd_params *params, pd_err *err)
{
    const size_t size = params->table_size ? params->table_size * 2 : 256;
    pd_param **table = calloc(size, sizeof *table);
    if (!table) return PD_FAIL(err, PD_ENOMEM, "out of memory for parameters");
    for (size_t i = 0; i < params->count; i++) table[slot_of(table, size, params->list[i]->name)] = params->list[i];
    free(params->table);
    params->table = table;
    params->table_size = size;
    return PD_OK;
}

static const char *shape_text(char text[64], const pd_param *p)
{
    size_t used = 1;
    text[0] = '(';
    for (int i = 0; i < p->rank; i++) {
        const int wrote = snprintf(text + used, 64 - used, "%s%d", i ? ", " : "", p->dim[i]);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
    snprintf(text + used, 64 - used, ")");
    return text;
}

pd_status pd_params_get(pd_param **out, pd_params *params, const char *name, const pd_param *spec, pd_err *err)
{
    pd_param *p = pd_params_find(params, name);
    if (p) {
        if (p->rank != spec->rank || p->kind != spec->kind || p->layout != spec->layout ||
            memcmp(p->dim, spec->dim, sizeof p->dim) != 0) {
            char a[64], b[64];
            return PD_FAIL(err, PD_EINVAL, "%s: registered as %s, asked for again as %s", name, shape_text(a, p),
                           shape_text(b, spec));
        }
        *out = p;
        return PD_OK;
    }
    if (params->device) return PD_FAIL(err, PD_EINVAL, "%s: not a tensor of this model", name);
    size_t count = 1;
    for (int i = 0; i < spec->rank; i++)
        if (spec->dim[i] < 1 || !pd_mul_fits(count, (size_t)spec->dim[i], &count) || count > SIZE_MAX / 64) {
            char a[64];
            return PD_FAIL(err, PD_EINVAL, "%s: impossible shape %s", name, shape_text(a, spec));
        }
    if (2 * (params->count + 1) > params->table_size) PD_TRY(grow_table(params, err));
    PD_TRY(pd_grow(&params->list, &params->room, params->count + 1, sizeof(pd_param *), err));
    char *own_name;
    PD_TRY(pd_strdup(&own_name, params->arena, name, err));
    PD_TRY(PD_ALLOC(&p, params->arena, 1, err));
    *p = *spec;
    p->name = own_name;
    p->count = count;
    p->trainable = spec->kind == PD_WEIGHT;
    p->data = p->grad = NULL;
    params->table[slot_of(params->table, params->table_size, name)] = p;
    params->list[params->count++] = p;
    *out = p;
    return PD_OK;
}

pd_device *pd_params_device(const pd_params *params)
{
    return params->device;
}

size_t pd_params_count(const pd_params *params)
{
    return params->count;
}

pd_param *pd_params_at(const pd_params *params, size_t index)
{
    return params->list[index];
}

void pd_params_freeze(pd_params *params, const char *prefix)
{
    for (size_t i = 0; i < params->count; i++)
        if (!strncmp(params->list[i]->name, prefix, strlen(prefix))) params->list[i]->trainable = false;
}

/* Whether the weight stands beside running statistics: "bn1.weight" and "bn1.running_mean". */
static bool of_norm(const pd_params *params, const pd_param *p)
{
    char name[256];
    const char *dot = strrchr(p->name, '.');
    if (p->rank != 1 || !dot) return false;
    snprintf(name, sizeof name, "%.*s.running_mean", (int)(dot - p->name), p->name);
    return pd_params_find(params, name) != NULL;
}

void pd_params_decay(pd_params *params, pd_decay which)
{
    for (size_t i = 0; i < params->count; i++) {
        pd_param *p = params->list[i];
        p->no_decay = p->kind == PD_WEIGHT && ((which == PD_DECAY_NO_NORM && of_norm(params, p)) ||
                                               (which == PD_DECAY_KERNELS && p->rank < 2));
    }
}

pd_status pd_params_allocate(pd_params *params, pd_device *device, bool with_grad, pd_err *err)
{
    const size_t line = PD_ALIGN / sizeof(float);
    size_t weights = 0, buffers = 0;
    for (size_t i = 0; i < params->count; i++) {
        pd_param *p = params->list[i];
        size_t *end = p->kind == PD_WEIGHT ? &weights : &buffers;
        p->offset = *end;
        *end += (p->count + line - 1) / line * line; /* the gap stays zero: it has no gradient and no effect */
    }
    float *block[3] = {NULL, NULL, NULL};
    const size_t size[3] = {weights, with_grad ? weights : 0, buffers};
    for (int b = 0; b < 3; b++) {
        pd_status status = device->alloc(device, (void **)&block[b], size[b] * sizeof(float), err);
        if (status == PD_OK) status = device->fill(device, block[b], 0, size[b] * sizeof(float), err);
        if (status != PD_OK) {
            for (int k = 0; k < b + (block[b] != NULL); k++) device->release(device, block[k]);
            return status;
        }
    }
    params->device = device;
    params->weights = block[0];
    params->grads = block[1];
    params->buffers = block[2];
    params->weight_count = weights;
    params->buffer_count = buffers;
    for (size_t i = 0; i < params->count; i++) {
        pd_param *p = params->list[i];
        p->data = (p->kind == PD_WEIGHT ? params->weights : params->buffers) + p->offset;
        p->grad = p->kind == PD_WEIGHT && with_grad ? params->grads + p->offset : NULL;
    }
    return PD_OK;
}

pd_status pd_params_init(pd_params *params, uint64_t seed, pd_err *err)
{
    float *values = NULL;
    size_t room = 0;
    pd_status status = PD_OK;
    for (size_t i = 0; i < params->count && status == PD_OK; i++) {
        const pd_param *p = params->list[i];
        status = pd_grow(&values, &room, p->count, sizeof *values, err);
        if (status != PD_OK) break;
        const uint64_t hash = pd_hash_text(p->name);
        pd_rng rng = pd_rng_make(seed, (uint32_t)hash, (uint32_t)(hash >> 32));
        for (size_t k = 0; k < p->count; k++) {
            double v = p->init.a;
            if (p->init.kind == PD_INIT_NORMAL) v *= pd_rng_normal(&rng);
            if (p->init.kind == PD_INIT_UNIFORM) v *= 2 * pd_rng_double(&rng) - 1;
            values[k] = (float)v;
        }
        status = params->device->upload(params->device, p->data, values, p->count * sizeof(float), err);
    }
    free(values);
    return status;
}

float *pd_params_weights(const pd_params *params, size_t *count)
{
    *count = params->weight_count;
    return params->weights;
}

float *pd_params_grads(const pd_params *params)
{
    return params->grads;
}

float *pd_params_buffers(const pd_params *params, size_t *count)
{
    *count = params->buffer_count;
    return params->buffers;
}

bool pd_params_next_run(const pd_params *params, size_t *at, size_t *begin, size_t *end)
{
    bool any = false;
    for (; *at < params->count; ++*at) {
        const pd_param *p = params->list[*at];
        if (p->kind != PD_WEIGHT) continue;
        if (!p->trainable && any) break;
        if (!p->trainable) continue;
        if (!any) *begin = p->offset;
        *end = p->offset + p->count;
        any = true;
    }
    return any;
}

void pd_params_listen(pd_params *params, pd_gradient_fn fn, void *arg)
{
    params->listener = fn;
    params->listener_arg = arg;
}

bool pd_params_listened(const pd_params *params)
{
    return params->listener != NULL;
}

void pd_params_tell(const pd_params *params, const pd_param *p)
{
    if (params->listener) params->listener(params->listener_arg, p);
}

size_t pd_params_elements(const pd_params *params, bool trainable_only)
{
    size_t n = 0;
    for (size_t i = 0; i < params->count; i++) {
        const pd_param *p = params->list[i];
        if (p->kind == PD_WEIGHT && (p->trainable || !trainable_only)) n += p->count;
    }
    return n;
}

pd_status pd_param_read(float *host, const pd_params *params, const pd_param *p, const float *block, pd_err *err)
{
    return params->device->download(params->device, host, block + p->offset, p->count * sizeof *host, err);
}

pd_status pd_param_write(const pd_params *params, const pd_param *p, float *block, const float *host, pd_err *err)
{
    return params->device->upload(params->device, block + p->offset, host, p->count * sizeof *host, err);
}

float *pd_param_block(const pd_params *params, const pd_param *p)
{
    return p->kind == PD_WEIGHT ? params->weights : params->buffers;
}

/* The (r*s, i) matrix of one output channel and its transposed twin in the file. */
static void conv_extent(const pd_param *p, size_t *outs, size_t *taps, size_t *ins)
{
    *outs = (size_t)p->dim[0];
    if (p->layout == PD_LAYOUT_FLAT) {
        *taps = (size_t)p->rsi[0] * (size_t)p->rsi[1];
        *ins = (size_t)p->rsi[2];
    } else {
        *taps = (size_t)p->dim[2] * (size_t)p->dim[3];
        *ins = (size_t)p->dim[1];
    }
}

void pd_param_from_file_order(const pd_param *p, float *to, const float *from)
{
    if (p->layout == PD_LAYOUT_PLAIN) {
        memcpy(to, from, p->count * sizeof *to);
        return;
    }
    size_t outs, taps, ins;
    conv_extent(p, &outs, &taps, &ins);
    for (size_t o = 0; o < outs; o++, to += taps * ins, from += taps * ins)
        for (size_t t = 0; t < taps; t++)
            for (size_t i = 0; i < ins; i++) to[t * ins + i] = from[i * taps + t];
}

void pd_param_to_file_order(const pd_param *p, float *to, const float *from)
{
    if (p->layout == PD_LAYOUT_PLAIN) {
        memcpy(to, from, p->count * sizeof *to);
        return;
    }
    size_t outs, taps, ins;
    conv_extent(p, &outs, &taps, &ins);
    for (size_t o = 0; o < outs; o++, to += taps * ins, from += taps * ins)
        for (size_t t = 0; t < taps; t++)
            for (size_t i = 0; i < ins; i++) to[i * taps + t] = from[t * ins + i];
}
