#include "kernels/conv_direct.h"
#include "engine/arena.h"
#include "kernels/add_into.h"

#include <string.h>

static size_t align_up(size_t n)
{
    return (n + PD_ALIGN - 1) / PD_ALIGN * PD_ALIGN;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t input_count(const pd_conv_shape *s)
{
    return (size_t)s->n * (size_t)s->h * (size_t)s->w * (size_t)s->c;
}

static size_t weight_count(const pd_conv_shape *s)
{
    return (size_t)s->k * (size_t)s->kh * (size_t)s->kw * (size_t)(s->c / s->groups);
}

static void *pointer(const float *p)
{
    return (void *)(uintptr_t)p; /* the library takes its inputs unqualified */
}

void pd_direct_free(pd_direct *d)
{
    pd_prim *const all[] = {&d->fwd, &d->bwd_data, &d->bwd_weights, &d->pack_fwd, &d->pack_data, &d->unpack};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) pd_prim_free(all[i]);
    pd_unshare(d->packed);
    memset(d, 0, sizeof *d);
}

static pd_status plan(pd_direct *d, pd_direct_wants wants, pd_err *err)
{
    const pd_conv_shape *s = &d->shape;
    PD_TRY(pd_prim_conv_fwd(&d->fwd, d->device, s, wants.bias, wants.residual, wants.relu, wants.backward, err));
    PD_TRY(pd_prim_reorder_weights(&d->pack_fwd, &d->packed_fwd, d->device, s, &d->fwd, true, err));
    d->constant = wants.constant;
    if (wants.dx) {
        PD_TRY(pd_prim_conv_bwd_data(&d->bwd_data, d->device, s, err));
        PD_TRY(pd_prim_reorder_weights(&d->pack_data, &d->packed_data, d->device, s, &d->bwd_data, true, err));
    }
    if (wants.dw) {
        PD_TRY(pd_prim_conv_bwd_weights(&d->bwd_weights, d->device, s, err));
        PD_TRY(pd_prim_reorder_weights(&d->unpack, &d->packed_grad, d->device, s, &d->bwd_weights, false, err));
    }
    return PD_OK;
}

pd_status pd_direct_plan(pd_direct *d, pd_device *device, const pd_conv_shape *shape, pd_direct_wants wants,
                         pd_err *err)
{
    memset(d, 0, sizeof *d);
    d->device = device;
    d->shape = *shape;
    const pd_status status = plan(d, wants, err);
    if (status != PD_OK) pd_direct_free(d);
    return status;
}

size_t pd_direct_scratch_fwd(const pd_direct *d)
{
    return align_up(d->constant ? 0 : d->packed_fwd) +
           larger(align_up(d->pack_fwd.scratch_bytes), align_up(d->fwd.scratch_bytes));
}

size_t pd_direct_scratch_bwd(const pd_direct *d)
{
    size_t data = 0, weights = 0;
    if (d->bwd_data.prim)
        data = align_up(input_count(&d->shape) * sizeof(float)) + align_up(d->packed_data) +
               larger(align_up(d->pack_data.scratch_bytes), align_up(d->bwd_data.scratch_bytes));
    if (d->bwd_weights.prim)
        weights = align_up(weight_count(&d->shape) * sizeof(float)) + align_up(d->packed_grad) +
                  larger(align_up(d->unpack.scratch_bytes), align_up(d->bwd_weights.scratch_bytes));
    return larger(data, weights);
}

/* d->packed: the constant weights in the library's layout, packed anew where they changed. */
static pd_status share_packed(pd_direct *d, const float *w, bool changed, void *scratch, pd_err *err)
{
    struct {
        char what[8];
        const float *w;
        pd_layout layout;
    } key;
    memset(&key, 0, sizeof key);
    memcpy(key.what, "packed", 6);
    key.w = w;
    pd_prim_weights_layout(&d->fwd, &key.layout);
    if (!d->packed) PD_TRY(pd_share(&d->packed, d->device, &key, sizeof key, err));
    pd_shared *s = d->packed;
    if (!s->thing) PD_TRY(d->device->alloc(d->device, &s->thing, d->packed_fwd, err));
    if (!changed || pd_shared_current(s)) return PD_OK;
    PD_TRY(pd_prim_run(&d->pack_fwd, d->device, (void *[]){pointer(w), s->thing}, scratch, err));
    pd_shared_done(s);
    return PD_OK;
}

pd_status pd_direct_fwd(pd_direct *d, const float *x, const float *w, bool changed, const float *bias, float *y,
                        void *scratch, pd_err *err)
{
    char *at = scratch;
    float *weights = (float *)(void *)at;
    if (!d->constant) {
        at += align_up(d->packed_fwd);
        PD_TRY(pd_prim_run(&d->pack_fwd, d->device, (void *[]){pointer(w), weights}, at, err));
    } else {
        PD_TRY(share_packed(d, w, changed, at, err));
        weights = d->packed->thing;
    }
    return pd_prim_run(&d->fwd, d->device, (void *[]){pointer(x), weights, y, pointer(bias)}, at, err);
}

pd_status pd_direct_bwd_data(pd_direct *d, const float *w, const float *dy, float *dx, bool add, void *scratch,
                             pd_err *err)
{
    char *at = scratch;
    float *weights = (float *)(void *)at, *to = dx;
    at += align_up(d->packed_data);
    if (add) {
        to = (float *)(void *)at;
        at += align_up(input_count(&d->shape) * sizeof *to);
    }
    PD_TRY(pd_prim_run(&d->pack_data, d->device, (void *[]){pointer(w), weights}, at, err));
    PD_TRY(pd_prim_run(&d->bwd_data, d->device, (void *[]){to, weights, pointer(dy)}, at, err));
    if (add) pd_add_into(d->device->pool, dx, to, input_count(&d->shape));
    return PD_OK;
}

pd_status pd_direct_bwd_weights(pd_direct *d, const float *x, const float *dy, float *dw, bool add, void *scratch,
                                pd_err *err)
{
    char *at = scratch;
    float *packed = (float *)(void *)at, *to = dw;
    at += align_up(d->packed_grad);
    if (add) {
        to = (float *)(void *)at;
        at += align_up(weight_count(&d->shape) * sizeof *to);
    }
    PD_TRY(pd_prim_run(&d->bwd_weights, d->device, (void *[]){pointer(x), packed, pointer(dy)}, at, err));
    PD_TRY(pd_prim_run(&d->unpack, d->device, (void *[]){packed, to}, at, err));
    if (add) pd_add_into(d->device->pool, dw, to, weight_count(&d->shape));
    return PD_OK;
}

bool pd_direct_is_reference(const pd_direct *d)
{
    return d->fwd.reference || d->bwd_data.reference || d->bwd_weights.reference;
}
