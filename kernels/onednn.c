#include "kernels/onednn.h"

#include <stdlib.h>
#include <string.h>

static pd_status failed(dnnl_status_t code, const char *what, pd_err *err)
{
    static const char *const text[] = {
        "success",       "out of memory", "invalid arguments", "unimplemented", "last implementation reached",
        "runtime error", "not required"};
    const char *reason = (size_t)code < sizeof text / sizeof *text ? text[code] : "unknown error";
    return PD_FAIL(err, code == dnnl_out_of_memory ? PD_ENOMEM : PD_EDEVICE, "oneDNN: %s: %s", what, reason);
}

#define DNNL_TRY(call, what)                                                                                           \
    do {                                                                                                               \
        const dnnl_status_t dnnl_try_ = (call);                                                                        \
        if (dnnl_try_ != dnnl_success) return failed(dnnl_try_, (what), err);                                          \
    } while (0)

static void library_free(void *library)
{
    pd_onednn *lib = library;
    if (lib->stream) dnnl_stream_destroy(lib->stream);
    if (lib->engine) dnnl_engine_destroy(lib->engine);
    free(lib);
}

pd_status pd_onednn_of(pd_onednn **out, pd_device *device, pd_err *err)
{
    if (!device->library) {
        pd_onednn *lib = calloc(1, sizeof *lib);
        if (!lib) return PD_FAIL(err, PD_ENOMEM, "out of memory for oneDNN");
        device->library = lib;
        device->library_free = library_free;
        DNNL_TRY(dnnl_engine_create(&lib->engine, dnnl_cpu, 0), "engine");
        DNNL_TRY(dnnl_stream_create(&lib->stream, lib->engine, dnnl_stream_default_flags), "stream");
    }
    *out = device->library;
    return PD_OK;
}

/* ---- what differs between versions 2 and 3 ---- */

#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t md_ref;
static dnnl_status_t md_tag(pd_md *m, int rank, const dnnl_dims_t dims, dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_create_with_tag(&m->d, rank, dims, dnnl_f32, tag);
}
static dnnl_status_t md_strides(pd_md *m, int rank, const dnnl_dims_t dims, const dnnl_dims_t strides)
{
    return dnnl_memory_desc_create_with_strides(&m->d, rank, dims, dnnl_f32, strides);
}
static void md_free(pd_md *m)
{
    if (m->d) dnnl_memory_desc_destroy(m->d);
    m->d = NULL;
}
static md_ref md_get(const pd_md *m)
{
    return m->d;
}
/* Blocked layouts only; false: another kind. */
static bool md_layout(md_ref m, pd_layout *l)
{
    dnnl_format_kind_t kind;
    const dnnl_dims_t *dims, *strides, *block, *along;
    int rank, blocks;
    if (dnnl_memory_desc_query(m, dnnl_query_format_kind, &kind) || kind != dnnl_blocked ||
        dnnl_memory_desc_query(m, dnnl_query_ndims_s32, &rank) || dnnl_memory_desc_query(m, dnnl_query_dims, &dims) ||
        dnnl_memory_desc_query(m, dnnl_query_strides, &strides) ||
        dnnl_memory_desc_query(m, dnnl_query_inner_nblks_s32, &blocks) ||
        dnnl_memory_desc_query(m, dnnl_query_inner_blks, &block) ||
        dnnl_memory_desc_query(m, dnnl_query_inner_idxs, &along) || rank > 5 || blocks > 8)
        return false;
    l->rank = rank;
    l->blocks = blocks;
    for (int i = 0; i < rank; i++) l->dims[i] = (*dims)[i], l->strides[i] = (*strides)[i];
    for (int i = 0; i < blocks; i++) l->block[i] = (*block)[i], l->along[i] = (*along)[i];
    return true;
}
static dnnl_status_t post_relu(dnnl_post_ops_t p)
{
    return dnnl_post_ops_append_eltwise(p, dnnl_eltwise_relu, 0, 0);
}
static dnnl_status_t post_sum(dnnl_post_ops_t p)
{
    return dnnl_post_ops_append_sum(p, 1.f, 0, dnnl_data_type_undef);
}
static dnnl_status_t conv_desc(dnnl_primitive_desc_t *pd, dnnl_engine_t e, int direction, dnnl_prop_kind_t prop,
                               const pd_md *src, const pd_md *wei, const pd_md *bias, const pd_md *dst,
                               const dnnl_dims_t st, const dnnl_dims_t pl, const dnnl_dims_t pr,
                               dnnl_primitive_attr_t attr, dnnl_primitive_desc_t hint)
{
    const dnnl_dims_t dil = {0, 0};
    const dnnl_alg_kind_t alg = dnnl_convolution_direct;
    if (direction == 0)
        return dnnl_convolution_forward_primitive_desc_create(pd, e, prop, alg, src->d, wei->d, bias ? bias->d : NULL,
                                                              dst->d, st, dil, pl, pr, attr);
    if (direction == 1)
        return dnnl_convolution_backward_data_primitive_desc_create(pd, e, alg, src->d, wei->d, dst->d, st, dil, pl, pr,
                                                                    hint, attr);
    return dnnl_convolution_backward_weights_primitive_desc_create(pd, e, alg, src->d, wei->d, NULL, dst->d, st, dil,
                                                                   pl, pr, hint, attr);
}
#else
typedef const dnnl_memory_desc_t *md_ref;
static dnnl_status_t md_tag(pd_md *m, int rank, const dnnl_dims_t dims, dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_init_by_tag(&m->d, rank, dims, dnnl_f32, tag);
}
static dnnl_status_t md_strides(pd_md *m, int rank, const dnnl_dims_t dims, const dnnl_dims_t strides)
{
    return dnnl_memory_desc_init_by_strides(&m->d, rank, dims, dnnl_f32, strides);
}
static void md_free(pd_md *m)
{
    (void)m;
}
static md_ref md_get(const pd_md *m)
{
    return &m->d;
}
static bool md_layout(md_ref m, pd_layout *l)
{
    const dnnl_blocking_desc_t *b = &m->format_desc.blocking;
    if (m->format_kind != dnnl_blocked || m->ndims > 5 || b->inner_nblks > 8) return false;
    l->rank = m->ndims;
    l->blocks = b->inner_nblks;
    for (int i = 0; i < m->ndims; i++) l->dims[i] = m->dims[i], l->strides[i] = b->strides[i];
    for (int i = 0; i < b->inner_nblks; i++) l->block[i] = b->inner_blks[i], l->along[i] = b->inner_idxs[i];
    return true;
}
static dnnl_status_t post_relu(dnnl_post_ops_t p)
{
    return dnnl_post_ops_append_eltwise(p, 1.f, dnnl_eltwise_relu, 0, 0);
}
static dnnl_status_t post_sum(dnnl_post_ops_t p)
{
    return dnnl_post_ops_append_sum(p, 1.f);
}
static dnnl_status_t conv_desc(dnnl_primitive_desc_t *pd, dnnl_engine_t e, int direction, dnnl_prop_kind_t prop,
                               const pd_md *src, const pd_md *wei, const pd_md *bias, const pd_md *dst,
                               const dnnl_dims_t st, const dnnl_dims_t pl, const dnnl_dims_t pr,
                               dnnl_primitive_attr_t attr, dnnl_primitive_desc_t hint)
{
    const dnnl_alg_kind_t alg = dnnl_convolution_direct;
    dnnl_convolution_desc_t d;
    dnnl_status_t s;
    if (direction == 0)
        s = dnnl_convolution_forward_desc_init(&d, prop, alg, &src->d, &wei->d, bias ? &bias->d : NULL, &dst->d, st, pl,
                                               pr);
    else if (direction == 1)
        s = dnnl_convolution_backward_data_desc_init(&d, alg, &src->d, &wei->d, &dst->d, st, pl, pr);
    else
        s = dnnl_convolution_backward_weights_desc_init(&d, alg, &src->d, &wei->d, NULL, &dst->d, st, pl, pr);
    return s != dnnl_success ? s : dnnl_primitive_desc_create(pd, &d, attr, e, hint);
}
#endif

/* ---- primitives ---- */

const char *pd_prim_impl(const pd_prim *p)
{
    const char *name = "";
    if (dnnl_primitive_desc_query(p->desc, dnnl_query_impl_info_str, 0, (void *)&name) != dnnl_success) return "?";
    return name;
}

static md_ref query_md(const pd_prim *p, dnnl_query_t what, int index)
{
    return dnnl_primitive_desc_query_md(p->desc, what, index);
}

static pd_status add_arg(pd_prim *p, const pd_onednn *lib, int arg, md_ref md, pd_err *err)
{
    dnnl_memory_t memory;
    DNNL_TRY(dnnl_memory_create(&memory, md, lib->engine, DNNL_MEMORY_NONE), "memory object");
    p->args[p->n_args].arg = arg;
    p->args[p->n_args++].memory = memory;
    return PD_OK;
}

/* The primitive of p->desc, and its scratchpad as a last argument. */
static pd_status finish(pd_prim *p, const pd_onednn *lib, pd_err *err)
{
    DNNL_TRY(dnnl_primitive_create(&p->prim, p->desc), "primitive");
    const md_ref pad = query_md(p, dnnl_query_scratchpad_md, 0);
    p->scratch_bytes = pad ? dnnl_memory_desc_get_size(pad) : 0;
    p->reference = strstr(pd_prim_impl(p), "ref") != NULL; /* "ref:any", "gemm:ref" */
    if (p->scratch_bytes) PD_TRY(add_arg(p, lib, DNNL_ARG_SCRATCHPAD, pad, err));
    return PD_OK;
}

static pd_status user_scratch(dnnl_primitive_attr_t *attr, pd_err *err)
{
    DNNL_TRY(dnnl_primitive_attr_create(attr), "attributes");
    DNNL_TRY(dnnl_primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user), "scratchpad mode");
    return PD_OK;
}

typedef struct conv_mds {
    pd_md src, wei, dst, bias;
    dnnl_dims_t stride, left, right;
} conv_mds;

static void free_mds(conv_mds *m)
{
    md_free(&m->src);
    md_free(&m->wei);
    md_free(&m->dst);
    md_free(&m->bias);
}

static int weight_dims(dnnl_dims_t d, const pd_conv_shape *s)
{
    const int g = s->groups;
    if (g == 1) {
        d[0] = s->k, d[1] = s->c, d[2] = s->kh, d[3] = s->kw;
        return 4;
    }
    d[0] = g, d[1] = s->k / g, d[2] = s->c / g, d[3] = s->kh, d[4] = s->kw;
    return 5;
}

static pd_status make_mds(conv_mds *m, const pd_conv_shape *s, pd_err *err)
{
    const dnnl_dims_t src = {s->n, s->c, s->h, s->w}, dst = {s->n, s->k, s->oh, s->ow}, bias = {s->k};
    dnnl_dims_t wei;
    const int rank = weight_dims(wei, s);
    m->stride[0] = m->stride[1] = s->stride;
    m->left[0] = s->pad_h;
    m->left[1] = s->pad_w;
    m->right[0] = (s->oh - 1) * s->stride + s->kh - s->h - s->pad_h;
    m->right[1] = (s->ow - 1) * s->stride + s->kw - s->w - s->pad_w;
    DNNL_TRY(md_tag(&m->src, 4, src, dnnl_nhwc), "input descriptor");
    DNNL_TRY(md_tag(&m->dst, 4, dst, dnnl_nhwc), "output descriptor");
    DNNL_TRY(md_tag(&m->wei, rank, wei, dnnl_format_tag_any), "weights descriptor");
    DNNL_TRY(md_tag(&m->bias, 1, bias, dnnl_a), "bias descriptor");
    return PD_OK;
}

/* direction: 0 forward, 1 backward data, 2 backward weights. */
static pd_status make_conv(pd_prim *p, pd_device *device, const pd_conv_shape *s, int direction, bool bias, bool sum,
                           bool relu, bool training, pd_err *err)
{
    pd_onednn *lib;
    conv_mds m;
    memset(&m, 0, sizeof m);
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t post = NULL;
    dnnl_primitive_desc_t hint = NULL;
    dnnl_status_t code = dnnl_success;
    pd_status status = PD_OK;
    memset(p, 0, sizeof *p);
    PD_TRY(pd_onednn_of(&lib, device, err));
    PD_TRY_DONE(make_mds(&m, s, err));
    PD_TRY_DONE(user_scratch(&attr, err));
    if (sum || relu) {
        code = dnnl_post_ops_create(&post);
        if (code == dnnl_success && sum) code = post_sum(post);
        if (code == dnnl_success && relu) code = post_relu(post);
        if (code == dnnl_success) code = dnnl_primitive_attr_set_post_ops(attr, post);
    }
    const dnnl_prop_kind_t prop = training || direction ? dnnl_forward_training : dnnl_forward_inference;
    if (code == dnnl_success)
        code = conv_desc(direction ? &hint : &p->desc, lib->engine, 0, prop, &m.src, &m.wei, bias ? &m.bias : NULL,
                         &m.dst, m.stride, m.left, m.right, direction ? NULL : attr, NULL);
    if (code == dnnl_success && direction)
        code = conv_desc(&p->desc, lib->engine, direction, prop, &m.src, &m.wei, NULL, &m.dst, m.stride, m.left,
                         m.right, attr, hint);
    if (code != dnnl_success) {
        status = failed(code, "convolution", err);
        goto done;
    }
    const bool data = direction == 1, weights = direction == 2;
    PD_TRY_DONE(add_arg(p, lib, data ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC,
                        query_md(p, data ? dnnl_query_diff_src_md : dnnl_query_src_md, 0), err));
    PD_TRY_DONE(add_arg(p, lib, weights ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS,
                        query_md(p, weights ? dnnl_query_diff_weights_md : dnnl_query_weights_md, 0), err));
    PD_TRY_DONE(add_arg(p, lib, direction ? DNNL_ARG_DIFF_DST : DNNL_ARG_DST,
                        query_md(p, direction ? dnnl_query_diff_dst_md : dnnl_query_dst_md, 0), err));
    if (bias) PD_TRY_DONE(add_arg(p, lib, DNNL_ARG_BIAS, query_md(p, dnnl_query_weights_md, 1), err));
    PD_TRY_DONE(finish(p, lib, err));
done:
    if (hint) dnnl_primitive_desc_destroy(hint);
    if (post) dnnl_post_ops_destroy(post);
    if (attr) dnnl_primitive_attr_destroy(attr);
    free_mds(&m);
    if (status != PD_OK) pd_prim_free(p);
    return status;
}

pd_status pd_prim_conv_fwd(pd_prim *out, pd_device *device, const pd_conv_shape *s, bool bias, bool sum, bool relu,
                           bool training, pd_err *err)
{
    return make_conv(out, device, s, 0, bias, sum, relu, training, err);
}

pd_status pd_prim_conv_bwd_data(pd_prim *out, pd_device *device, const pd_conv_shape *s, pd_err *err)
{
    return make_conv(out, device, s, 1, false, false, false, true, err);
}

pd_status pd_prim_conv_bwd_weights(pd_prim *out, pd_device *device, const pd_conv_shape *s, pd_err *err)
{
    return make_conv(out, device, s, 2, false, false, false, true, err);
}

/* The weights' descriptor of a convolution in any direction. */
static md_ref conv_weights(const pd_prim *conv)
{
    md_ref md = query_md(conv, dnnl_query_diff_weights_md, 0);
    if (!md || dnnl_memory_desc_get_size(md) == 0) md = query_md(conv, dnnl_query_weights_md, 0);
    return md;
}

size_t pd_prim_weights_bytes(const pd_prim *conv)
{
    return dnnl_memory_desc_get_size(conv_weights(conv));
}

void pd_prim_weights_layout(const pd_prim *conv, pd_layout *layout)
{
    memset(layout, 0, sizeof *layout);
    if (!md_layout(conv_weights(conv), layout)) layout->only = conv->prim;
}

pd_status pd_prim_reorder_weights(pd_prim *p, size_t *bytes, pd_device *device, const pd_conv_shape *s,
                                  const pd_prim *conv, bool to_blocked, pd_err *err)
{
    pd_onednn *lib;
    pd_md plain;
    memset(&plain, 0, sizeof plain);
    dnnl_primitive_attr_t attr = NULL;
    pd_status status = PD_OK;
    memset(p, 0, sizeof *p);
    PD_TRY(pd_onednn_of(&lib, device, err));
    dnnl_dims_t dims, strides;
    const int rank = weight_dims(dims, s), at = rank - 4;
    const dnnl_dim_t c = s->c / s->groups, taps = (dnnl_dim_t)s->kh * s->kw;
    strides[at] = taps * c, strides[at + 1] = 1, strides[at + 2] = s->kw * c, strides[at + 3] = c;
    if (at) strides[0] = (s->k / s->groups) * taps * c;
    dnnl_status_t code = md_strides(&plain, rank, dims, strides);
    const md_ref blocked = conv_weights(conv), ours = md_get(&plain);
    const md_ref from = to_blocked ? ours : blocked, to = to_blocked ? blocked : ours;
    if (code == dnnl_success) status = user_scratch(&attr, err);
    if (status != PD_OK) goto done;
    if (code == dnnl_success)
        code = dnnl_reorder_primitive_desc_create(&p->desc, from, lib->engine, to, lib->engine, attr);
    if (code != dnnl_success) {
        status = failed(code, "reorder of weights", err);
        goto done;
    }
    *bytes = dnnl_memory_desc_get_size(blocked);
    PD_TRY_DONE(add_arg(p, lib, DNNL_ARG_FROM, from, err));
    PD_TRY_DONE(add_arg(p, lib, DNNL_ARG_TO, to, err));
    PD_TRY_DONE(finish(p, lib, err));
done:
    if (attr) dnnl_primitive_attr_destroy(attr);
    md_free(&plain);
    if (status != PD_OK) pd_prim_free(p);
    return status;
}

pd_status pd_prim_run(pd_prim *p, pd_device *device, void *const *pointers, void *scratch, pd_err *err)
{
    const pd_onednn *lib = device->library;
    const int own = p->n_args - (p->scratch_bytes > 0);
    for (int i = 0; i < own; i++) DNNL_TRY(dnnl_memory_set_data_handle(p->args[i].memory, pointers[i]), "argument");
    if (p->scratch_bytes) DNNL_TRY(dnnl_memory_set_data_handle(p->args[own].memory, scratch), "scratchpad");
    DNNL_TRY(dnnl_primitive_execute(p->prim, lib->stream, p->n_args, p->args), "execution");
    DNNL_TRY(dnnl_stream_wait(lib->stream), "stream");
    return PD_OK;
}

void pd_prim_free(pd_prim *p)
{
    for (int i = 0; i < p->n_args; i++) dnnl_memory_destroy(p->args[i].memory);
    if (p->prim) dnnl_primitive_destroy(p->prim);
    if (p->desc) dnnl_primitive_desc_destroy(p->desc);
    memset(p, 0, sizeof *p);
}

pd_status pd_sgemm(bool ta, bool tb, int m, int n, int k, const float *a, int lda, const float *b, int ldb, float beta,
                   float *c, int ldc, pd_err *err)
{
    if (m == 0 || n == 0) return PD_OK;
    DNNL_TRY(dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', m, n, k, 1.f, a, lda, b, ldb, beta, c, ldc), "sgemm");
    return PD_OK;
}
