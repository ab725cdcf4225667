/* params.h: the named tensors of a model: weights, and buffers such as running statistics.
 *
 * Model code asks for a tensor by name while it records a tape: the first recording registers it, later ones (other
 * input shapes) get the same one. After pd_params_allocate all weights lie in one block, in the order of registration,
 * with their gradients at the same offsets of a second one: the optimiser, the norm and a checkpoint are loops over
 * contiguous memory, and a range of layers is a range of bytes.
 *
 * Names and shapes are PyTorch's; `dim` is the shape in files. In memory a convolution's weight is (out, r, s, in/g)
 * instead of the file's (out, in/g, r, s), because activations are NHWC. */
#ifndef PD_PARAMS_H
#define PD_PARAMS_H

#include "engine/arena.h"
#include "engine/device.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum pd_param_kind {
    PD_WEIGHT,  /* trained */
    PD_BUFFER,  /* state that is not trained: running mean and variance */
    PD_COUNTER, /* a whole number, kept as a float here and as int64 in files: num_batches_tracked */
} pd_param_kind;

typedef enum pd_param_layout {
    PD_LAYOUT_PLAIN, /* memory order = file order */
    PD_LAYOUT_CONV,  /* file (o, i, r, s), memory (o, r, s, i) */
    PD_LAYOUT_FLAT,  /* file (o, i*r*s), memory (o, r, s, i): a linear layer that reads a flattened feature map */
} pd_param_layout;

typedef enum pd_init_kind {
    PD_INIT_CONST,   /* a */
    PD_INIT_NORMAL,  /* N(0, a^2) */
    PD_INIT_UNIFORM, /* U(-a, a) */
} pd_init_kind;

typedef struct pd_init {
    pd_init_kind kind;
    double a;
} pd_init;

typedef struct pd_param {
    const char *name;
    int rank, dim[4]; /* as in files; rank 0 is a scalar */
    int rsi[3];       /* PD_LAYOUT_FLAT: r, s, i of the feature map */
    pd_param_kind kind;
    pd_param_layout layout;
    pd_init init;
    bool trainable; /* false: frozen, or not a weight; change it with pd_params_freeze only */
    bool no_decay;  /* weight decay leaves it alone; change it with pd_params_decay only */
    size_t count, offset; /* in floats, within its block */
    float *data, *grad;   /* on the device; NULL before pd_params_allocate; grad NULL for buffers */
} pd_param;

typedef struct pd_params pd_params;

pd_status pd_params_new(pd_params **out, pd_err *err);
void pd_params_free(pd_params *params);

/* The tensor with this name. Registers it if it is new (and nothing is allocated yet); a known name with another shape
 * or kind is an error that names both. `spec` holds all but name, count, offset, data, grad. */
pd_status pd_params_get(pd_param **out, pd_params *params, const char *name, const pd_param *spec, pd_err *err);

/* The tensor with this name, or NULL. */
pd_param *pd_params_find(const pd_params *params, const char *name);

/* The device of pd_params_allocate. */
pd_device *pd_params_device(const pd_params *params);

/* In order of registration. */
size_t pd_params_count(const pd_params *params);
pd_param *pd_params_at(const pd_params *params, size_t index);

/* Freezes every weight whose name starts with prefix (all of a "layer1." say). Before allocation or after. */
void pd_params_freeze(pd_params *params, const char *prefix);

/* Which weights decay: all; all but scales and biases of norms (those beside a running_mean); or only those of more than
 * one dimension: kernels and matrices. */
typedef enum pd_decay { PD_DECAY_ALL, PD_DECAY_NO_NORM, PD_DECAY_KERNELS } pd_decay;
void pd_params_decay(pd_params *params, pd_decay which);

/* Makes the blocks, zeroed, on the device; with_grad: also one for gradients. */
pd_status pd_params_allocate(pd_params *params, pd_device *device, bool with_grad, pd_err *err);

/* Draws initial values: every tensor from its own stream (seed, hash of its name), so the order does not matter. */
pd_status pd_params_init(pd_params *params, uint64_t seed, pd_err *err);

/* One contiguous block of all weights (trainable or not), and its gradient; *count in floats. */
float *pd_params_weights(const pd_params *params, size_t *count);
float *pd_params_grads(const pd_params *params);
/* Running statistics and counters. */
float *pd_params_buffers(const pd_params *params, size_t *count);

/* The next longest run of neighbouring trainable weights, [begin, end) in the weights' block; *at starts as 0. False: none
 * left. */
bool pd_params_next_run(const pd_params *params, size_t *at, size_t *begin, size_t *end);

/* A listener to gradients: backward runs tell it each weight whose gradient is complete, while the rest is still being
 * computed, and NULL where a run begins that overwrites gradients instead of adding to them. One; fn NULL: none. */
typedef void (*pd_gradient_fn)(void *arg, const pd_param *p);
void pd_params_listen(pd_params *params, pd_gradient_fn fn, void *arg);
/* For plans: whether there is a listener; tells it. */
bool pd_params_listened(const pd_params *params);
void pd_params_tell(const pd_params *params, const pd_param *p);

/* Number of elements of weights (all, or the trainable ones). */
size_t pd_params_elements(const pd_params *params, bool trainable_only);

/* Between host memory (p->count floats, memory order) and a tensor's place in a block on the device: the block of
 * pd_param_block, or one of its size (momentum, averages). */
pd_status pd_param_read(float *host, const pd_params *params, const pd_param *p, const float *block, pd_err *err);
pd_status pd_param_write(const pd_params *params, const pd_param *p, float *block, const float *host, pd_err *err);
/* The block of weights or buffers that p lies in. */
float *pd_param_block(const pd_params *params, const pd_param *p);

/* Copies a tensor from or to file order (host memory, p->count floats). */
void pd_param_from_file_order(const pd_param *p, float *to_memory, const float *from_file);
void pd_param_to_file_order(const pd_param *p, float *to_file, const float *from_memory);

/* FNV-1a 64. */
uint64_t pd_hash_text(const char *text);

#endif
