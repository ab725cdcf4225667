/* tape.h: record a network once, as plain calls.
 *
 * Author functions (pd_conv, pd_bn_sum, pd_max_pool, ...) append a node to the tape and return the handle of its
 * output; nothing is computed. pd_plan_new (plan.h) then places every value in memory and replays the list: forward in
 * order, backward in reverse. Control flow that depends on values must be an operation or a mask.
 *
 * The tape is sticky: after the first failure author functions do nothing and return a harmless value, and
 * pd_plan_new reports that failure. So a 50-layer build reads like mathematics.
 *
 * Activations are (n, h, w, c); a linear layer's are (n, c). Shapes hold ints >= 0 (a list may be empty). */
#ifndef PD_TAPE_H
#define PD_TAPE_H

#include "engine/arena.h"
#include "engine/device.h"
#include "engine/params.h"

#include <stdbool.h>
#include <stdint.h>

#define PD_MAX_RANK 5

/* PD_U8: inputs only, images as bytes. */
typedef enum pd_dtype { PD_F32, PD_I32, PD_U8 } pd_dtype;

/* How a value's elements lie in memory. A plan for a device with a 16-bit precision keeps feature maps, which are the
 * float values of rank 4 that operations make, in 16 bits, and their gradients too; all else (parameters and kernels made
 * of them, statistics, logits of linear layers, boxes, losses) stays in 32 bits. Bytes are bytes. */
typedef enum pd_store { PD_STORE_32, PD_STORE_F16, PD_STORE_BF16, PD_STORE_8 } pd_store;

typedef struct pd_shape {
    int rank, dim[PD_MAX_RANK];
} pd_shape;

#define PD_SHAPE(...)                                                                                                  \
    ((pd_shape){.rank = (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int)), .dim = {__VA_ARGS__}})

typedef struct pd_value pd_value;
typedef struct pd_node pd_node;
typedef struct pd_tape pd_tape;

/* One tensor. Authors read shape and dtype; operations read data and grad while a plan runs. */
struct pd_value {
    pd_shape shape;
    pd_dtype dtype;
    const char *name;   /* of inputs and parameters; else "" */
    pd_node *node;      /* producer; NULL for inputs and parameters */
    int slot;           /* which of the producer's outputs */
    pd_param *param;    /* the weight behind it, or NULL */
    bool keep;          /* readable after a forward run (pd_tape_keep) */
    bool constant;      /* set by the plan: the same in every run until pd_plan_refresh */
    bool root;          /* minimised: its gradient starts as root_scale */
    float root_scale;
    pd_store store;     /* set by the plan */
    int pitch;          /* set by the plan: elements from one pixel (row) to the next; the last dimension, or more */
    void *data;         /* set by the plan, on the device; inputs: by pd_plan_bind or pd_plan_give */
    /* Set by the maker's forward run where it makes them on the way: the sums of every channel and of its squares over all
     * pixels, float32 in the device's memory; NULL: whoever needs them reads the value. Good until the maker's backward. */
    const float *sum, *square;
    float *grad;        /* NULL where no gradient is made; elements as `store` says */
    void *host;         /* of a kept value: what the host reads, float32 or int32 (pd_plan_fetch); the CPU's is data */
    struct pd_value *next;
    int id;             /* position in the tape's list of values */
};

typedef enum pd_grad_mode {
    PD_GRAD_NONE, /* nothing below this input is trained: do not compute */
    PD_GRAD_SET,  /* first writer: overwrite */
    PD_GRAD_ADD,  /* a later writer: add */
} pd_grad_mode;

/* What an implementation sees when it runs. */
typedef struct pd_run {
    pd_device *device;
    bool accumulate; /* gradients of parameters are added to what is there */
    bool constants;  /* forward: constant inputs may have changed since the last run; what was made of them is stale */
} pd_run;

typedef pd_status (*pd_node_fn)(pd_node *node, const pd_run *run, pd_err *err);

/* One implementation of an operation on one kind of device. */
typedef struct pd_kernel {
    /* Makes library descriptors (node->state) and sets node->saved_bytes, scratch_fwd, scratch_bwd, kept_bytes. May be
     * NULL. */
    pd_status (*plan)(pd_node *node, pd_device *device, pd_err *err);
    pd_node_fn fwd;
    pd_node_fn bwd;                 /* NULL: has no gradient on this device */
    void (*release)(pd_node *node); /* frees node->state */
} pd_kernel;

typedef struct pd_op {
    const char *name;
    /* What bwd reads besides the outputs' gradients: bit i = data of input i / output i. They are kept until then. */
    unsigned bwd_reads_in, bwd_reads_out;
    /* Bit i: bwd may write the gradient of input i over the data of input i (elementwise, read before write). */
    unsigned grad_over_in;
    /* 1 + i: fwd may write output 0 over input i (elementwise); 0: never. */
    int out_over_in;
    bool differentiable;
    bool stateful; /* fwd changes buffers (running statistics): never treated as a constant */
    bool makes_weights; /* outputs are kernels and biases, not feature maps: never stored in 16 bits */
    bool padded_x;      /* input 0 may have more elements a pixel than channels, where a device pads (pad_channels) */
    const pd_kernel *kernel[PD_DEVICE_KINDS]; /* the CPU's; another device is asked by name (device.h, find) */
    /* Multiply-accumulates of one forward run, by the counting rule of pd_info; NULL: 0. */
    double (*macs)(const pd_node *node);
} pd_op;

struct pd_node {
    const pd_op *op;
    const char *name; /* for messages: the parameter prefix or "" */
    int n_in, n_out;
    pd_value **in, **out;
    const void *args; /* the operation's own settings, copied into the tape */
    size_t args_size;
    /* Set by the plan: */
    unsigned char *grad_mode; /* (n_in) pd_grad_mode */
    bool backward;            /* bwd is called */
    bool constant;            /* all inputs are constants: runs only when they change */
    void *state;
    void *saved;              /* from fwd to bwd */
    void *scratch;            /* during fwd, and during bwd */
    size_t saved_bytes, scratch_fwd, scratch_bwd;
    size_t kept_bytes; /* what it will make of constants and keep outside of the plan (packed weights), for forecasts */
    /* A kernel's plan may ask for: */
    bool keep_apart;   /* no output may lie over an input */
    /* Bit k: output k lies pixel by pixel beside output k - 1, which has its shape. The pitch of such a run of outputs is
     * the channels of all of them. */
    unsigned joined;
    /* Output 0 has so many elements a pixel, those beyond its channels 0 as fwd writes them; 0: no more than channels.
     * Granted, as the output's pitch, where all its readers are operations with padded_x, and it is neither kept nor
     * trained. */
    int pad_channels;
    const pd_kernel *kernel;
    pd_node *next;
    int id;
};

/* A new tape that records for this set of parameters. training: operations record their training form (batch
 * statistics). Free it after the plans made of it. */
pd_status pd_tape_new(pd_tape **out, pd_params *params, bool training, pd_err *err);
void pd_tape_free(pd_tape *tape);

bool pd_tape_training(const pd_tape *tape);
/* Batch norms recorded from now on take their statistics over all processes that train together (bn_sum.h). */
void pd_tape_sync_stats(pd_tape *tape);
bool pd_tape_syncs_stats(const pd_tape *tape);
pd_params *pd_tape_params(const pd_tape *tape);

/* The first failure, PD_OK so far. */
pd_status pd_tape_status(const pd_tape *tape, pd_err *err);
/* Makes the tape fail (for author functions that find impossible arguments). */
void pd_tape_fail(pd_tape *tape, pd_status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* A tensor that the caller gives with each run (pd_plan_bind). */
pd_value *pd_tape_input(pd_tape *tape, const char *name, pd_dtype dtype, pd_shape shape);

/* The parameter `name` (registered if new; see params.h) as a value. */
pd_value *pd_tape_param(pd_tape *tape, const char *name, const pd_param *spec);

/* A formatted name in the tape's memory: "layer1.0.conv2". */
const char *pd_tape_name(pd_tape *tape, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Keeps a value's data readable after the forward run. Returns it. */
pd_value *pd_tape_keep(pd_tape *tape, pd_value *value);

/* Adds scale * value to what backward minimises; value is a scalar (shape (1)). It is kept. */
void pd_tape_minimise(pd_tape *tape, pd_value *value, float scale);

/* For author functions: appends a node. in: n_in values, NULL entries allowed (an optional input). out_shapes: n_out
 * shapes, all of dtype PD_F32 unless out_types says otherwise. args: args_size bytes, copied. The outputs are
 * node->out[0..n_out-1]. Returns NULL on a failed tape. */
pd_node *pd_tape_add(pd_tape *tape, const pd_op *op, const char *name, int n_in, pd_value *const *in, int n_out,
                     const pd_shape *out_shapes, const pd_dtype *out_types, const void *args, size_t args_size);
/* The usual case: one output; a harmless value on a failed tape. */
pd_value *pd_tape_add1(pd_tape *tape, const pd_op *op, const char *name, int n_in, pd_value *const *in, pd_shape shape,
                       const void *args, size_t args_size);
/* What author functions return on a failed tape: shape (1, 1, 1, 1). */
pd_value *pd_tape_dead(pd_tape *tape);

/* The recorded nodes and values, in order (node->next, value->next). */
pd_node *pd_tape_nodes(const pd_tape *tape);
pd_value *pd_tape_values(const pd_tape *tape);
int pd_tape_value_count(const pd_tape *tape);
int pd_tape_node_count(const pd_tape *tape);
pd_arena *pd_tape_arena(pd_tape *tape);

/* Elements of a shape. */
static inline size_t pd_shape_size(pd_shape s)
{
    size_t n = 1;
    for (int i = 0; i < s.rank; i++) n *= (size_t)s.dim[i];
    return n;
}

/* Is the gradient of input i of this node wanted, and is it to be added? For implementations of bwd. */
static inline bool pd_wants_grad(const pd_node *node, int i)
{
    return node->grad_mode[i] != PD_GRAD_NONE;
}
static inline bool pd_adds_grad(const pd_node *node, int i, const pd_run *run)
{
    return node->grad_mode[i] == PD_GRAD_ADD || (run->accumulate && node->in[i]->param);
}

/* Bytes of an element in memory. */
static inline size_t pd_store_bytes(pd_store store)
{
    return store == PD_STORE_32 ? 4 : store == PD_STORE_8 ? 1 : 2;
}

/* "(2, 3, 64, 64)" */
const char *pd_shape_text(char text[64], pd_shape shape);

#endif
