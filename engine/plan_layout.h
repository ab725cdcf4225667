/* plan_layout.h: the first half of planning, shared by plan_layout.c and plan.c alone: what is constant, who writes
 * each gradient, how long every buffer lives, and where it lies. */
#ifndef PD_PLAN_LAYOUT_H
#define PD_PLAN_LAYOUT_H

#include "engine/plan.h"
#include "engine/shared.h"

/* A piece of the workspace and the span of steps during which it must not be shared. Step i < T is node i's forward,
 * step 2T - 1 - i its backward. A buffer that lies in another one's memory has `in` set and no offset of its own. */
typedef struct pd_buffer {
    size_t bytes, offset;
    size_t used;  /* of `bytes`, which are rounded up */
    size_t inner; /* where it begins in `in` */
    int start, end;
    bool constant; /* lives in the plan's own memory, between runs too */
    struct pd_buffer *in;
} pd_buffer;

typedef struct pd_node_plan {
    pd_buffer saved, scratch_fwd, scratch_bwd;
    void *fwd_scratch, *bwd_scratch;
} pd_node_plan;

typedef struct pd_value_plan {
    pd_buffer data, grad;
    int users;       /* slots of nodes that read it */
    bool trained;    /* something trainable lies in or below it, and a gradient can get there */
    bool wants_grad; /* a backward run writes its gradient */
    int last_writer; /* of a weight's gradient: the node that completes it */
    bool mutable;    /* a buffer that an operation of this tape changes */
    bool counted;    /* what operations keep of it (pd_plan_measure_constants) */
    void *given;     /* device memory for what pd_plan_give brings; the plan's */
    void *host;      /* what pd_plan_fetch fills; NULL on the CPU */
} pd_value_plan;

/* A run that is replayed. Valid as long as the inputs lie where they lay. */
typedef struct pd_recording {
    void *graph;
    int plain_runs; /* since the last change of addresses */
} pd_recording;

/* What pd_plan_fetch_later copies, and where to. */
typedef struct pd_late {
    void *slot[PD_PLAN_LATE]; /* the device's; on the CPU plain memory */
    int first, unread;        /* the oldest, and how many there are */
    int count;                /* kept values; -1: not listed yet */
    pd_value **value;
    const void **from;
    size_t *bytes, total;
} pd_late;

struct pd_plan {
    pd_tape *tape;
    pd_device *device;
    pd_plan_mode mode;
    pd_arena *arena;
    pd_node **nodes;
    int count;
    pd_node_plan *node;            /* (count) */
    pd_value_plan *value;          /* (values of the tape) */
    pd_workspace *workspace, *own; /* own: the same, where the plan made it */
    void *placed;                  /* the workspace's memory that addresses were given for */
    pd_shared *constants;          /* one block */
    size_t bytes, constant_bytes, naive;
    bool stale; /* constants must run */
    pd_node_time *times;
    pd_recording graph[3]; /* forward, backward, backward that accumulates */
    bool no_graphs;
    pd_late late;
    uintptr_t inputs; /* where the inputs lay when graphs were recorded */
};

static inline size_t pd_value_bytes(const pd_value *v)
{
    return pd_shape_size(v->shape) * pd_store_bytes(v->store);
}

/* Fills in everything that needs no memory yet: nodes, kernels, buffers and their offsets, bytes, constant_bytes,
 * naive. The tape, device, mode and arena are set. Fails with the tape's first failure or where an operation has no
 * implementation on the device. */
pd_status pd_plan_lay_out(pd_plan *plan, pd_err *err);

#endif
