#include "engine/average.h"

#include <stdlib.h>

/* Floats of a bucket. The first is small, so that communication begins early. */
#define FIRST_BUCKET ((size_t)1 << 18)
#define BUCKET ((size_t)6 << 20)

typedef struct bucket {
    size_t begin, end; /* in the block */
    int weights, left; /* in it; of them, passes included, those whose gradient is still to come */
} bucket;

struct pd_average {
    pd_params *params;
    pd_comm *comm;
    int passes;
    bucket *buckets;
    size_t count, begun;
    pd_err err; /* of a mean that could not begin */
};

static void start(pd_average *a)
{
    a->begun = 0;
    for (size_t i = 0; i < a->count; i++) a->buckets[i].left = a->buckets[i].weights * a->passes;
}

/* Begins the means of the buckets that are complete; in order, which thus is the same in all processes. */
static void begin_complete(pd_average *a, bool all)
{
    float *grads = pd_params_grads(a->params);
    while (a->begun < a->count && a->err.code == PD_OK) {
        const bucket *b = &a->buckets[a->begun];
        if (b->left > 0 && !all) return;
        (void)pd_comm_start_sum(a->comm, grads + b->begin, b->end - b->begin, PD_COMM_MEAN, &a->err);
        a->begun++;
    }
}

static void listen(void *arg, const pd_param *p)
{
    pd_average *a = arg;
    if (!p) {
        start(a);
        return;
    }
    size_t low = 0, high = a->count; /* buckets lie from high to low offsets */
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (a->buckets[middle].begin > p->offset)
            low = middle + 1;
        else
            high = middle;
    }
    a->buckets[low].left--;
    begin_complete(a, false);
}

static pd_status cut(pd_average *a, pd_err *err)
{
    size_t room = 0;
    bool open = false; /* the last bucket takes another neighbour */
    for (size_t i = pd_params_count(a->params); i-- > 0;) {
        const pd_param *p = pd_params_at(a->params, i);
        if (p->kind != PD_WEIGHT) continue;
        if (!p->trainable) {
            open = false;
            continue;
        }
        if (!open) {
            PD_TRY(pd_grow(&a->buckets, &room, a->count + 1, sizeof *a->buckets, err));
            a->buckets[a->count++] = (bucket){.end = p->offset + p->count};
        }
        bucket *b = &a->buckets[a->count - 1];
        b->begin = p->offset;
        b->weights++;
        open = b->end - b->begin < (a->count == 1 ? FIRST_BUCKET : BUCKET);
    }
    return PD_OK;
}

pd_status pd_average_new(pd_average **out, pd_params *params, pd_comm *comm, int passes, pd_err *err)
{
    if (!comm) {
        *out = NULL;
        return PD_OK;
    }
    pd_average *a = calloc(1, sizeof *a);
    if (!a) return PD_FAIL(err, PD_ENOMEM, "out of memory for the buckets of gradients");
    a->params = params;
    a->comm = comm;
    a->passes = passes;
    const pd_status status = cut(a, err);
    if (status != PD_OK) {
        pd_average_free(a);
        return status;
    }
    start(a);
    pd_params_listen(params, listen, a);
    *out = a;
    return PD_OK;
}

void pd_average_free(pd_average *a)
{
    if (!a) return;
    pd_params_listen(a->params, NULL, NULL);
    free(a->buckets);
    free(a);
}

pd_status pd_average_finish(pd_average *a, pd_err *err)
{
    if (!a) return PD_OK;
    size_t count;
    float *buffers = pd_params_buffers(a->params, &count);
    begin_complete(a, true);
    if (a->err.code != PD_OK) return PD_FAIL(err, a->err.code, "%s", a->err.text);
    PD_TRY(pd_comm_start_sum(a->comm, buffers, count, PD_COMM_MEAN, err));
    PD_TRY(pd_comm_wait(a->comm, err));
    start(a);
    return PD_OK;
}
