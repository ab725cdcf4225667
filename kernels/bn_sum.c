#include "kernels/bn_sum.h"
#include "kernels/bn_sum_node.h"
#include "engine/comm.h"
#include "kernels/simd.h"

#include <math.h>
#include <string.h>

#define ROWS_PER_UNIT 128

/* The work is cut into units: up to ROWS_PER_UNIT rows (pixels) of one sample. Without a gate all samples are one. */
typedef struct layout {
    size_t samples, rows, c; /* rows of one sample */
    size_t units_per_sample, units;
} layout;

static layout layout_of(const pd_node *node)
{
    const int *d = node->out[0]->shape.dim;
    const size_t n = (size_t)d[0], hw = (size_t)d[1] * (size_t)d[2];
    layout l = {.c = (size_t)d[3]};
    l.samples = node->in[GATE] ? n : 1;
    l.rows = node->in[GATE] ? hw : n * hw;
    l.units_per_sample = (l.rows + ROWS_PER_UNIT - 1) / ROWS_PER_UNIT;
    l.units = l.samples * l.units_per_sample;
    return l;
}

static void unit_rows(const layout *l, size_t unit, size_t *sample, size_t *first, size_t *count)
{
    *sample = unit / l->units_per_sample;
    const size_t at = unit % l->units_per_sample * ROWS_PER_UNIT;
    *count = l->rows - at < ROWS_PER_UNIT ? l->rows - at : ROWS_PER_UNIT;
    *first = *sample * l->rows + at;
}

/* ---- memory: saved holds mean and 1/std of every branch; scratch sums over all pixels, the units' partial sums, then
 * coefficients ------ */

static float *saved_mean(const pd_node *node, int k, size_t c)
{
    return (float *)node->saved + (size_t)(2 * k) * c;
}

static float *saved_rstd(const pd_node *node, int k, size_t c)
{
    return (float *)node->saved + (size_t)(2 * k + 1) * c;
}

/* Two sums for each branch and channel, and behind them the number of pixels: over all processes where those are asked for. */
#define SUMS(kc) (2 * (kc) + 1)

static pd_status share_sums(const pd_node *node, const pd_run *run, double *sums, size_t kc, size_t pixels, pd_err *err)
{
    const bn_args *a = node->args;
    sums[2 * kc] = (double)pixels;
    return a->set.sync ? pd_comm_sum(run->device->comm, sums, SUMS(kc), PD_COMM_F64, err) : PD_OK;
}

static pd_status bn_plan(pd_node *node, pd_device *device, pd_err *err)
{
    (void)device;
    const bn_args *a = node->args;
    const layout l = layout_of(node);
    const size_t kc = (size_t)a->branches * l.c, f = sizeof(float);
    for (int k = 0; k < a->branches; k++)
        if (node->grad_mode[IN(k, Z)] == PD_GRAD_ADD)
            return PD_FAIL(err, PD_EINVAL, "a branch's convolution output must not be used elsewhere");
    node->saved_bytes = 2 * kc * f;
    const size_t stats = a->set.batch_stats ? l.units * 2 * kc * f : 0, sums = SUMS(kc) * sizeof(double);
    node->scratch_fwd = sums + stats + l.samples * (kc + l.c) * f;
    /* per unit: sum g, and per branch sum g (z - mean); then per sample the same in total, and three coefficients */
    node->scratch_bwd = sums + (l.units + l.samples) * (kc + l.c) * f + l.samples * kc * f + 2 * kc * f;
    for (int k = 0; k < a->branches; k++)
        if (node->backward && !pd_wants_grad(node, IN(k, Z))) node->scratch_bwd += l.samples * l.rows * l.c * f;
    return PD_OK;
}

/* ---- forward ---- */

typedef struct forward {
    const pd_node *node;
    const bn_args *args;
    layout l;
    const float *z[PD_MAX_BRANCHES];
    double *sums;   /* (branches, 2, c): of z - shift and of its square; with `sync`, of z and of its square */
    float *partial; /* (units, branches, 2, c): sums of z - shift and of its square */
    float *scale;   /* (samples, branches, c) */
    float *offset;  /* (samples, c) */
    const float *residual;
    float *y;
} forward;

/* s += sum of rows of (z - shift), q += sum of squares. */
PD_INLINE void add_moments(const float *restrict z, const float *restrict shift, size_t rows, size_t c,
                           float *restrict s, float *restrict q)
{
    size_t r = 0;
    for (; r + 4 <= rows; r += 4, z += 4 * c)
        for (size_t i = 0; i < c; i++) {
            const float a = z[i] - shift[i], b = z[c + i] - shift[i];
            const float d = z[2 * c + i] - shift[i], e = z[3 * c + i] - shift[i];
            s[i] += (a + b) + (d + e);
            q[i] += (a * a + b * b) + (d * d + e * e);
        }
    for (; r < rows; r++, z += c)
        for (size_t i = 0; i < c; i++) {
            const float a = z[i] - shift[i];
            s[i] += a;
            q[i] += a * a;
        }
}

PD_CLONES static void moments(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const forward *f = arg;
    const size_t c = f->l.c;
    for (size_t u = begin; u < end; u++) {
        size_t sample, first, rows;
        unit_rows(&f->l, u, &sample, &first, &rows);
        for (int k = 0; k < f->args->branches; k++) {
            float *s = f->partial + (u * (size_t)f->args->branches + (size_t)k) * 2 * c;
            memset(s, 0, 2 * c * sizeof *s);
            /* the first pixel as shift: differences are of the size of the deviation, however large the mean */
            add_moments(f->z[k] + first * c, f->z[k], rows, c, s, s + c);
        }
    }
}

/* The shift of a channel: its first pixel. Processes that sum together have none. */
static double shift_of(const forward *f, int k, size_t i)
{
    return f->args->set.sync ? 0 : (double)f->z[k][i];
}

/* The sums of each channel [begin, end) over all units. */
static void add_partial(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const forward *f = arg;
    const size_t c = f->l.c, branches = (size_t)f->args->branches;
    const double m = (double)(f->l.samples * f->l.rows);
    for (size_t k = 0; k < branches; k++) {
        double *sums = f->sums + k * 2 * c;
        for (size_t i = begin; i < end; i++) {
            double s = 0, q = 0;
            for (size_t u = 0; u < f->l.units; u++) {
                const float *p = f->partial + (u * branches + k) * 2 * c;
                s += (double)p[i];
                q += (double)p[c + i];
            }
            const double back = (double)f->z[k][i] - shift_of(f, (int)k, i);
            sums[i] = s + m * back;
            sums[c + i] = q + 2 * back * s + m * back * back;
        }
    }
}

/* Mean and 1/std of each channel [begin, end), and the running statistics. */
static void finish_moments(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const forward *f = arg;
    const size_t c = f->l.c;
    const double m = f->sums[2 * (size_t)f->args->branches * c];
    const pd_bn_settings *set = &f->args->set;
    for (int k = 0; k < f->args->branches; k++) {
        const double *sums = f->sums + (size_t)k * 2 * c;
        float *mean = saved_mean(f->node, k, c), *rstd = saved_rstd(f->node, k, c);
        float *run_mean = f->node->in[IN(k, MEAN)]->data, *run_var = f->node->in[IN(k, VAR)]->data;
        for (size_t i = begin; i < end; i++) {
            const double s = sums[i] / m, mu = shift_of(f, k, i) + s;
            double q = sums[c + i] / m - s * s;
            if (q < 0) q = 0;
            mean[i] = (float)mu;
            rstd[i] = (float)(1 / sqrt(q + (double)set->eps));
            const double unbiased = m > 1 ? q * m / (m - 1) : q;
            run_mean[i] += set->momentum * ((float)mu - run_mean[i]);
            run_var[i] += set->momentum * ((float)unbiased - run_var[i]);
        }
    }
}

/* scale and offset of every sample and channel: y = sum_k scale_k z_k + offset. */
static void coefficients(const forward *f)
{
    const size_t c = f->l.c;
    const int branches = f->args->branches;
    for (size_t n = 0; n < f->l.samples; n++) {
        float *offset = f->offset + n * c;
        memset(offset, 0, c * sizeof *offset);
        for (int k = 0; k < branches; k++) {
            const pd_value *gate = f->node->in[GATE];
            const float a =
                gate ? ((const float *)gate->data)[n * (size_t)gate->shape.dim[1] + (size_t)f->args->gate[k]] : 1;
            const float *gamma = f->node->in[IN(k, GAMMA)]->data, *beta = f->node->in[IN(k, BETA)]->data;
            const float *mean = saved_mean(f->node, k, c), *rstd = saved_rstd(f->node, k, c);
            float *scale = f->scale + (n * (size_t)branches + (size_t)k) * c;
            for (size_t i = 0; i < c; i++) {
                scale[i] = a * (gamma[i] * rstd[i]);
                offset[i] += a * (beta[i] - mean[i] * (gamma[i] * rstd[i]));
            }
        }
    }
}

PD_INLINE void normalise_rows(const forward *f, size_t first, size_t rows, const float *scale, const float *offset,
                              const int branches, const bool add, const bool relu)
{
    const size_t c = f->l.c;
    const float *s0 = scale, *s1 = scale + c, *s2 = scale + 2 * c, *s3 = scale + 3 * c, *s4 = scale + 4 * c;
    for (size_t r = first; r < first + rows; r++) {
        const float *z0 = f->z[0] + r * c, *z1 = branches > 1 ? f->z[1] + r * c : NULL;
        const float *z2 = branches > 2 ? f->z[2] + r * c : NULL, *z3 = branches > 3 ? f->z[3] + r * c : NULL;
        const float *z4 = branches > 4 ? f->z[4] + r * c : NULL, *res = add ? f->residual + r * c : NULL;
        float *y = f->y + r * c;
        PD_IVDEP
        for (size_t i = 0; i < c; i++) {
            float v = offset[i] + s0[i] * z0[i];
            if (branches > 1) v += s1[i] * z1[i];
            if (branches > 2) v += s2[i] * z2[i];
            if (branches > 3) v += s3[i] * z3[i];
            if (branches > 4) v += s4[i] * z4[i];
            if (add) v += res[i];
            y[i] = relu ? (v > 0 ? v : 0) : v;
        }
    }
}

PD_INLINE void normalise_some(const forward *f, size_t begin, size_t end, const int branches)
{
    for (size_t u = begin; u < end; u++) {
        size_t sample, first, rows;
        unit_rows(&f->l, u, &sample, &first, &rows);
        const float *scale = f->scale + sample * (size_t)branches * f->l.c, *offset = f->offset + sample * f->l.c;
        if (f->residual && f->args->set.relu)
            normalise_rows(f, first, rows, scale, offset, branches, true, true);
        else if (f->residual)
            normalise_rows(f, first, rows, scale, offset, branches, true, false);
        else if (f->args->set.relu)
            normalise_rows(f, first, rows, scale, offset, branches, false, true);
        else
            normalise_rows(f, first, rows, scale, offset, branches, false, false);
    }
}

PD_CLONES static void normalise(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const forward *f = arg;
    switch (f->args->branches) {
    case 1: normalise_some(f, begin, end, 1); break;
    case 2: normalise_some(f, begin, end, 2); break;
    case 3: normalise_some(f, begin, end, 3); break;
    case 4: normalise_some(f, begin, end, 4); break;
    default: normalise_some(f, begin, end, 5); break;
    }
}

static pd_status bn_fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const bn_args *a = node->args;
    forward f = {.node = node, .args = a, .l = layout_of(node), .y = node->out[0]->data};
    const size_t c = f.l.c, kc = (size_t)a->branches * c;
    if (f.l.units == 0 || c == 0) return PD_OK;
    for (int k = 0; k < a->branches; k++) f.z[k] = node->in[IN(k, Z)]->data;
    f.residual = node->in[RESIDUAL] ? node->in[RESIDUAL]->data : NULL;
    f.sums = node->scratch;
    f.partial = (float *)(f.sums + SUMS(kc));
    f.scale = f.partial + (a->set.batch_stats ? f.l.units * 2 * kc : 0);
    f.offset = f.scale + f.l.samples * kc;
    pd_pool *pool = run->device->pool;
    if (a->set.batch_stats) {
        pd_parallel(pool, f.l.units, moments, &f);
        pd_parallel(pool, c, add_partial, &f);
        PD_TRY(share_sums(node, run, f.sums, kc, f.l.samples * f.l.rows, err));
        pd_parallel(pool, c, finish_moments, &f);
    } else {
        for (int k = 0; k < a->branches; k++) {
            const float *var = node->in[IN(k, VAR)]->data;
            float *rstd = saved_rstd(node, k, c);
            memcpy(saved_mean(node, k, c), node->in[IN(k, MEAN)]->data, c * sizeof(float));
            for (size_t i = 0; i < c; i++) rstd[i] = 1 / sqrtf(var[i] + a->set.eps);
        }
    }
    coefficients(&f);
    pd_parallel(pool, f.l.units, normalise, &f);
    return PD_OK;
}

/* ---- backward ---- */

typedef struct backward {
    const pd_node *node;
    const pd_run *run;
    const bn_args *args;
    layout l;
    const float *z[PD_MAX_BRANCHES], *mean[PD_MAX_BRANCHES];
    float *dz[PD_MAX_BRANCHES];
    const float *dy, *y;
    float *dres;
    bool add_res;
    double *sums;   /* (branches, 2, c): dbeta, dgamma */
    float *partial; /* (units, 1 + branches, c): sum g, sum g (z_k - mean_k) */
    float *total;   /* (samples, 1 + branches, c) */
    float *p;       /* (samples, branches, c): dz = p g + q z + r */
    float *q, *r;   /* (branches, c) */
} backward;

/* dy is loaded before the mask is asked for: a conditional load would keep the loop from being vectorised. */
PD_INLINE float masked(float dy, float y, const bool relu)
{
    return relu ? (y > 0 ? dy : 0) : dy;
}

/* Adds `pair` + 1 rows that begin at element o to the sums: of g, and of g (z_k - mean_k) for every branch. */
PD_INLINE void reduce_row(const backward *b, size_t o, const size_t pair, float *sums, const int branches,
                          const bool relu)
{
    const size_t c = b->l.c, j = pair * c;
    const float *restrict dy = b->dy + o, *restrict y = b->y + o;
    const float *restrict z0 = b->z[0] + o, *restrict m0 = b->mean[0];
    const float *restrict z1 = branches > 1 ? b->z[1] + o : NULL, *restrict m1 = b->mean[1];
    const float *restrict z2 = branches > 2 ? b->z[2] + o : NULL, *restrict m2 = b->mean[2];
    const float *restrict z3 = branches > 3 ? b->z[3] + o : NULL, *restrict m3 = b->mean[3];
    const float *restrict z4 = branches > 4 ? b->z[4] + o : NULL, *restrict m4 = b->mean[4];
    float *restrict sg = sums, *restrict s0 = sums + c, *restrict s1 = sums + 2 * c, *restrict s2 = sums + 3 * c;
    float *restrict s3 = sums + 4 * c, *restrict s4 = sums + 5 * c;
    for (size_t i = 0; i < c; i++) {
        const float d = dy[i], e = dy[i + j];
        const float g = masked(d, y[i], relu), h = pair ? masked(e, y[i + j], relu) : 0;
        sg[i] += g + h;
        s0[i] += g * (z0[i] - m0[i]) + h * (z0[i + j] - m0[i]);
        if (branches > 1) s1[i] += g * (z1[i] - m1[i]) + h * (z1[i + j] - m1[i]);
        if (branches > 2) s2[i] += g * (z2[i] - m2[i]) + h * (z2[i + j] - m2[i]);
        if (branches > 3) s3[i] += g * (z3[i] - m3[i]) + h * (z3[i + j] - m3[i]);
        if (branches > 4) s4[i] += g * (z4[i] - m4[i]) + h * (z4[i + j] - m4[i]);
    }
}

PD_INLINE void reduce_rows(const backward *b, size_t first, size_t rows, float *sums, const int branches,
                           const bool relu)
{
    size_t r = 0;
    for (; r + 2 <= rows; r += 2) reduce_row(b, (first + r) * b->l.c, 1, sums, branches, relu);
    if (r < rows) reduce_row(b, (first + r) * b->l.c, 0, sums, branches, relu);
}

PD_INLINE void reduce_some(const backward *b, size_t begin, size_t end, const int branches)
{
    for (size_t u = begin; u < end; u++) {
        size_t sample, first, rows;
        unit_rows(&b->l, u, &sample, &first, &rows);
        float *sums = b->partial + u * (size_t)(1 + branches) * b->l.c;
        memset(sums, 0, (size_t)(1 + branches) * b->l.c * sizeof *sums);
        if (b->args->set.relu)
            reduce_rows(b, first, rows, sums, branches, true);
        else
            reduce_rows(b, first, rows, sums, branches, false);
    }
}

PD_CLONES static void reduce(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const backward *b = arg;
    switch (b->args->branches) {
    case 1: reduce_some(b, begin, end, 1); break;
    case 2: reduce_some(b, begin, end, 2); break;
    case 3: reduce_some(b, begin, end, 3); break;
    case 4: reduce_some(b, begin, end, 4); break;
    default: reduce_some(b, begin, end, 5); break;
    }
}

#define TOTAL_BLOCK 64

/* Sums over a sample's units, for a range of blocks of the (samples, 1 + branches, c) totals. */
PD_CLONES static void add_units(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const backward *b = arg;
    const size_t width = (size_t)(1 + b->args->branches) * b->l.c, blocks = (width + TOTAL_BLOCK - 1) / TOTAL_BLOCK;
    for (size_t at = begin; at < end; at++) {
        const size_t sample = at / blocks, i = at % blocks * TOTAL_BLOCK;
        const size_t n = width - i < TOTAL_BLOCK ? width - i : TOTAL_BLOCK;
        const float *p = b->partial + sample * b->l.units_per_sample * width + i;
        double sum[TOTAL_BLOCK] = {0};
        for (size_t u = 0; u < b->l.units_per_sample; u++, p += width)
            for (size_t k = 0; k < n; k++) sum[k] += (double)p[k];
        for (size_t k = 0; k < n; k++) b->total[sample * width + i + k] = (float)sum[k];
    }
}

static void put(float *grad, size_t i, double value, bool add)
{
    grad[i] = (float)value + (add ? grad[i] : 0.f);
}

static float gate_weight(const backward *b, size_t sample, int branch)
{
    const pd_value *gate = b->node->in[GATE];
    if (!gate) return 1;
    return ((const float *)gate->data)[sample * (size_t)gate->shape.dim[1] + (size_t)b->args->gate[branch]];
}

/* Gradients of gamma and beta, and the first coefficient of dz, for a range of channels. */
static void finish_reduce(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const backward *b = arg;
    const size_t c = b->l.c, width = (size_t)(1 + b->args->branches) * c;
    const pd_node *node = b->node;
    for (int k = 0; k < b->args->branches; k++) {
        const float *gamma = node->in[IN(k, GAMMA)]->data, *rstd = saved_rstd(node, k, c);
        double *sums = b->sums + (size_t)k * 2 * c;
        const bool want_gamma = pd_wants_grad(node, IN(k, GAMMA)), want_beta = pd_wants_grad(node, IN(k, BETA));
        for (size_t i = begin; i < end; i++) {
            double dbeta = 0, dgamma = 0;
            for (size_t n = 0; n < b->l.samples; n++) {
                const float a = gate_weight(b, n, k), *t = b->total + n * width;
                dbeta += (double)a * (double)t[i];
                dgamma += (double)a * (double)t[(size_t)(1 + k) * c + i] * (double)rstd[i];
                b->p[(n * (size_t)b->args->branches + (size_t)k) * c + i] = a * (gamma[i] * rstd[i]);
            }
            if (want_gamma) put(node->in[IN(k, GAMMA)]->grad, i, dgamma, pd_adds_grad(node, IN(k, GAMMA), b->run));
            if (want_beta) put(node->in[IN(k, BETA)]->grad, i, dbeta, pd_adds_grad(node, IN(k, BETA), b->run));
            sums[i] = dbeta;
            sums[c + i] = dgamma;
        }
    }
}

/* The other coefficients: what the mean and the deviation of the batch have to do with each of its pixels. */
static void finish_coefficients(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const backward *b = arg;
    const size_t c = b->l.c;
    const double m = b->sums[2 * (size_t)b->args->branches * c];
    for (int k = 0; k < b->args->branches; k++) {
        const float *gamma = b->node->in[IN(k, GAMMA)]->data, *rstd = saved_rstd(b->node, k, c), *mean = b->mean[k];
        const double *sums = b->sums + (size_t)k * 2 * c;
        float *q = b->q + (size_t)k * c, *r = b->r + (size_t)k * c;
        for (size_t i = begin; i < end; i++) {
            const double gr = (double)gamma[i] * (double)rstd[i];
            q[i] = b->args->set.batch_stats ? (float)(-gr * (double)rstd[i] * sums[c + i] / m) : 0.f;
            r[i] = b->args->set.batch_stats ? (float)(-gr * sums[i] / m) - q[i] * mean[i] : 0.f;
        }
    }
}

/* Gradient of the gate: every sample's sum of g * branch. */
static void gate_gradient(const backward *b)
{
    const pd_node *node = b->node;
    const pd_value *gate = node->in[GATE];
    if (!gate || !pd_wants_grad(node, GATE)) return;
    const size_t c = b->l.c, width = (size_t)(1 + b->args->branches) * c, gates = (size_t)gate->shape.dim[1];
    if (!pd_adds_grad(node, GATE, b->run)) memset(gate->grad, 0, b->l.samples * gates * sizeof(float));
    for (int k = 0; k < b->args->branches; k++) {
        const float *gamma = node->in[IN(k, GAMMA)]->data, *beta = node->in[IN(k, BETA)]->data;
        const float *rstd = saved_rstd(node, k, c);
        for (size_t n = 0; n < b->l.samples; n++) {
            const float *t = b->total + n * width;
            double da = 0;
            for (size_t i = 0; i < c; i++)
                da += (double)gamma[i] * (double)rstd[i] * (double)t[(size_t)(1 + k) * c + i] +
                      (double)beta[i] * (double)t[i];
            gate->grad[n * gates + (size_t)b->args->gate[k]] += (float)da;
        }
    }
}

PD_INLINE void apply_rows(const backward *b, size_t first, size_t rows, const float *p, const int branches,
                          const bool relu, const int residual /* 0 none, 1 set, 2 add */)
{
    const size_t c = b->l.c;
    for (size_t row = first; row < first + rows; row++) {
        const size_t o = row * c;
        const float *dy = b->dy + o, *y = b->y + o;
        float *res = residual ? b->dres + o : NULL;
        const float *z0 = b->z[0] + o, *z1 = branches > 1 ? b->z[1] + o : NULL, *z2 = branches > 2 ? b->z[2] + o : NULL;
        const float *z3 = branches > 3 ? b->z[3] + o : NULL, *z4 = branches > 4 ? b->z[4] + o : NULL;
        float *d0 = b->dz[0] + o, *d1 = branches > 1 ? b->dz[1] + o : NULL, *d2 = branches > 2 ? b->dz[2] + o : NULL;
        float *d3 = branches > 3 ? b->dz[3] + o : NULL, *d4 = branches > 4 ? b->dz[4] + o : NULL;
        const float *q = b->q, *r = b->r;
        PD_IVDEP
        for (size_t i = 0; i < c; i++) {
            const float d = dy[i], g = masked(d, y[i], relu);
            if (residual == 1) res[i] = g;
            if (residual == 2) res[i] += g;
            d0[i] = p[i] * g + (q[i] * z0[i] + r[i]);
            if (branches > 1) d1[i] = p[c + i] * g + (q[c + i] * z1[i] + r[c + i]);
            if (branches > 2) d2[i] = p[2 * c + i] * g + (q[2 * c + i] * z2[i] + r[2 * c + i]);
            if (branches > 3) d3[i] = p[3 * c + i] * g + (q[3 * c + i] * z3[i] + r[3 * c + i]);
            if (branches > 4) d4[i] = p[4 * c + i] * g + (q[4 * c + i] * z4[i] + r[4 * c + i]);
        }
    }
}

PD_INLINE void apply_some(const backward *b, size_t begin, size_t end, const int branches)
{
    const bool relu = b->args->set.relu;
    for (size_t u = begin; u < end; u++) {
        size_t sample, first, rows;
        unit_rows(&b->l, u, &sample, &first, &rows);
        const float *p = b->p + sample * (size_t)branches * b->l.c;
        if (!b->dres && relu)
            apply_rows(b, first, rows, p, branches, true, 0);
        else if (!b->dres)
            apply_rows(b, first, rows, p, branches, false, 0);
        else if (relu && !b->add_res)
            apply_rows(b, first, rows, p, branches, true, 1);
        else if (relu)
            apply_rows(b, first, rows, p, branches, true, 2);
        else
            apply_rows(b, first, rows, p, branches, false, b->add_res ? 2 : 1);
    }
}

PD_CLONES static void apply(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const backward *b = arg;
    switch (b->args->branches) {
    case 1: apply_some(b, begin, end, 1); break;
    case 2: apply_some(b, begin, end, 2); break;
    case 3: apply_some(b, begin, end, 3); break;
    case 4: apply_some(b, begin, end, 4); break;
    default: apply_some(b, begin, end, 5); break;
    }
}

static pd_status bn_bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    const bn_args *a = node->args;
    backward b = {
        .node = node, .run = run, .args = a, .l = layout_of(node), .dy = node->out[0]->grad, .y = node->out[0]->data};
    const size_t c = b.l.c, kc = (size_t)a->branches * c, width = kc + c;
    if (b.l.units == 0 || c == 0) return PD_OK;
    for (int k = 0; k < a->branches; k++) {
        b.z[k] = node->in[IN(k, Z)]->data;
        b.mean[k] = saved_mean(node, k, c);
        b.dz[k] = node->in[IN(k, Z)]->grad;
    }
    b.sums = node->scratch;
    b.partial = (float *)(b.sums + SUMS(kc));
    b.total = b.partial + b.l.units * width;
    b.p = b.total + b.l.samples * width;
    b.q = b.p + b.l.samples * kc;
    b.r = b.q + kc;
    float *unwanted = b.r + kc; /* a branch whose convolution is frozen below a trained gamma */
    for (int k = 0; k < a->branches; k++) {
        if (b.dz[k]) continue;
        b.dz[k] = unwanted;
        unwanted += b.l.samples * b.l.rows * c;
    }
    if (node->in[RESIDUAL] && pd_wants_grad(node, RESIDUAL)) {
        b.dres = node->in[RESIDUAL]->grad;
        b.add_res = pd_adds_grad(node, RESIDUAL, run);
    }
    pd_pool *pool = run->device->pool;
    pd_parallel(pool, b.l.units, reduce, &b);
    pd_parallel(pool, b.l.samples * ((width + TOTAL_BLOCK - 1) / TOTAL_BLOCK), add_units, &b);
    pd_parallel(pool, c, finish_reduce, &b);
    gate_gradient(&b);
    PD_TRY(share_sums(node, run, b.sums, kc, b.l.samples * b.l.rows, err));
    pd_parallel(pool, c, finish_coefficients, &b);
    pd_parallel(pool, b.l.units, apply, &b);
    return PD_OK;
}

static double bn_macs(const pd_node *node)
{
    const bn_args *a = node->args;
    return (2 * a->branches + (a->set.relu ? 1 : 0)) * (double)pd_shape_size(node->out[0]->shape);
}

static const pd_kernel bn_cpu = {bn_plan, bn_fwd, bn_bwd, NULL};

#define EVERY(what) (1u << IN(0, what) | 1u << IN(1, what) | 1u << IN(2, what) | 1u << IN(3, what) | 1u << IN(4, what))
#define BN_OP(text, stats, relu)                                                                                       \
    {                                                                                                                  \
        .name = text, .bwd_reads_in = 1u << GATE | EVERY(Z) | EVERY(GAMMA) | EVERY(BETA), .bwd_reads_out = (relu),     \
        .grad_over_in = EVERY(Z), .out_over_in = 1 + IN(0, Z), .differentiable = true, .stateful = (stats),            \
        .kernel = {[PD_CPU] = &bn_cpu}, .macs = bn_macs                                                                \
    }

static const pd_op bn_ops[2][2] = {{BN_OP("bn_sum_frozen", false, 0), BN_OP("bn_sum_frozen_relu", false, 1)},
                                   {BN_OP("bn_sum", true, 0), BN_OP("bn_sum_relu", true, 1)}};

pd_value *pd_bn_sum(pd_tape *t, const char *name, int branches, const pd_bn_branch *b, pd_value *gate,
                    pd_value *residual, pd_bn_settings settings)
{
    if (pd_tape_status(t, NULL) != PD_OK) return pd_tape_dead(t);
    char text[64];
    if (branches < 1 || branches > PD_MAX_BRANCHES) {
        pd_tape_fail(t, PD_EINVAL, "%s: %d branches; 1 to %d are possible", name, branches, PD_MAX_BRANCHES);
        return pd_tape_dead(t);
    }
    bn_args args = {.set = settings, .branches = branches};
    pd_value *in[FIRST + PER_BRANCH * PD_MAX_BRANCHES] = {gate, residual};
    const pd_shape shape = b[0].z->shape;
    for (int k = 0; k < branches; k++) {
        pd_value *const part[PER_BRANCH] = {b[k].z, b[k].gamma, b[k].beta, b[k].mean, b[k].var};
        memcpy(&in[IN(k, Z)], part, sizeof part);
        args.gate[k] = b[k].gate;
        if (memcmp(&b[k].z->shape, &shape, sizeof shape) != 0 ||
            (gate && (b[k].gate < 0 || b[k].gate >= gate->shape.dim[1]))) {
            pd_tape_fail(t, PD_EINVAL, "%s: branch %d of shape %s, gate column %d, does not fit", name, k,
                         pd_shape_text(text, b[k].z->shape), b[k].gate);
            return pd_tape_dead(t);
        }
    }
    if (shape.rank != 4 || (residual && memcmp(&residual->shape, &shape, sizeof shape) != 0)) {
        pd_tape_fail(t, PD_EINVAL, "%s: residual does not have the branches' shape %s", name,
                     pd_shape_text(text, shape));
        return pd_tape_dead(t);
    }
    return pd_tape_add1(t, &bn_ops[settings.batch_stats][settings.relu], name, FIRST + PER_BRANCH * branches, in, shape,
                        &args, sizeof args);
}
