/* engine/plan_cache on a network of one pooling: plans are made once, the longest unused makes room, what was recorded
 * is found again; late losses come in their order and keep their plan; failures change nothing. */
#include "engine/plan_cache.h"
#include "kernels/pool.h"
#include "tests/pd_test.h"

static pd_err err;

typedef struct side {
    int n; /* of the image; 0: cannot be recorded */
} side;

typedef struct network {
    pd_value *in, *out;
} network;

typedef struct owner {
    pd_params *params;
    int recorded;
} owner;

static pd_status record(void *arg, const void *key, pd_tape **tape, void **net, pd_err *e)
{
    owner *o = arg;
    const int n = ((const side *)key)->n;
    network *k;
    PD_TRY(pd_tape_new(tape, o->params, false, e));
    if (!n) return PD_FAIL(e, PD_EINVAL, "no side");
    PD_TRY(PD_ALLOC(&k, pd_tape_arena(*tape), 1, e));
    k->in = pd_tape_input(*tape, "in", PD_F32, PD_SHAPE(1, n, n, 1));
    k->out = pd_global_avg_pool(*tape, k->in);
    pd_tape_keep(*tape, k->out);
    *net = k;
    o->recorded++;
    return pd_tape_status(*tape, e);
}

static pd_plan_mode mode(const void *key)
{
    (void)key;
    return PD_PLAN_INFER;
}

/* Means of n x n equal numbers, read at once or later. */
static void run(pd_plan_cache *c, int n, float value, bool later)
{
    float image[16];
    for (int i = 0; i < 16; i++) image[i] = value;
    PD_CHECK_OK(pd_plan_cache_ready(c, later, &err));
    PD_CHECK_OK(pd_plan_cache_use(c, &(side){n}, &err));
    const pd_planned *p = pd_plan_cache_last(c);
    const network *net = p->net;
    PD_CHECK_INT(((const side *)p->key)->n, n);
    PD_CHECK_OK(pd_plan_give(p->plan, net->in, image, &err));
    PD_CHECK_OK(pd_plan_forward(p->plan, &err));
    if (later) {
        PD_CHECK_OK(pd_plan_cache_later(c, &err));
    } else {
        PD_CHECK_OK(pd_plan_fetch(p->plan, net->out, &err));
        PD_CHECK_NEAR(*(const float *)net->out->host, value, 1e-6);
    }
}

static void late(pd_plan_cache *c, int n, float value)
{
    const pd_planned *p = NULL;
    PD_CHECK_OK(pd_plan_cache_late(c, &p, &err));
    if (!p) return;
    PD_CHECK_INT(((const side *)p->key)->n, n);
    PD_CHECK_NEAR(*(const float *)((const network *)p->net)->out->host, value, 1e-6);
}

int main(void)
{
    static const pd_plan_recorder recorder = {.key_bytes = sizeof(side), .room = 2, .device_room = 2, .record = record, .mode = mode};
    pd_device *device = NULL;
    pd_plan_cache *c = NULL;
    const pd_planned *p = NULL;
    owner o = {0};
    PD_CHECK_OK(pd_device_open(&device, "cpu", 1, &err));
    PD_CHECK_OK(pd_params_new(&o.params, &err));
    PD_CHECK_OK(pd_params_allocate(o.params, device, false, &err));
    PD_CHECK_OK(pd_plan_cache_new(&c, device, &recorder, &o, &err));
    PD_CHECK(pd_plan_cache_last(c) == NULL);

    run(c, 2, 1, false);
    run(c, 3, 2, false);
    run(c, 2, 3, false);
    PD_CHECK_INT(o.recorded, 2);
    run(c, 4, 4, false); /* in place of 3 */
    run(c, 2, 5, false);
    PD_CHECK_INT(o.recorded, 3);
    run(c, 3, 6, false);
    PD_CHECK_INT(o.recorded, 4);

    PD_CHECK_FAILS(pd_plan_cache_use(c, &(side){0}, &err), PD_EINVAL, "no side");
    PD_CHECK_INT(((const side *)pd_plan_cache_last(c)->key)->n, 3);
    run(c, 2, 7, false);
    PD_CHECK_INT(o.recorded, 4);

    PD_CHECK_FAILS(pd_plan_cache_late(c, &p, &err), PD_EINVAL, "no losses are unread");
    run(c, 3, 8, true);
    PD_CHECK_FAILS(pd_plan_cache_ready(c, false, &err), PD_EINVAL, "unread losses: 1");
    run(c, 2, 9, true);
    PD_CHECK_FAILS(pd_plan_cache_ready(c, true, &err), PD_EINVAL, "unread losses: 2");
    PD_CHECK_FAILS(pd_plan_cache_use(c, &(side){4}, &err), PD_EINVAL, "their plan must make room");
    late(c, 3, 8);
    run(c, 4, 10, true); /* in place of 3 */
    late(c, 2, 9);
    late(c, 4, 10);
    PD_CHECK_INT(o.recorded, 5);

    pd_plan_cache_free(c);
    pd_plan_cache_free(NULL);
    pd_params_free(o.params);
    pd_device_close(device);
    return pd_test_end();
}
