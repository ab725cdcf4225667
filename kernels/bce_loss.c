#include "kernels/bce_loss.h"
#include "kernels/bce_loss_math.h"
#include "kernels/dense_loss.h"
#include "kernels/simd.h"
#include "kernels/vecmath.h"

static inline float value(float x)
{
    return pd_bce_value(x, pd_vec_log1p(pd_vec_exp(x < 0 ? x : -x)));
}

static inline float slope(float x)
{
    return pd_bce_slope(x, pd_vec_exp(x < 0 ? x : -x));
}

PD_CLONES static void values(float *restrict loss, const float *restrict x, int n)
{
    for (int i = 0; i < n; i++) loss[i] = value(x[i]);
}

PD_CLONES static void slopes(float *restrict out, const float *restrict x, int n)
{
    for (int i = 0; i < n; i++) out[i] = slope(x[i]);
}

static void background(float *loss, const float *x, int n, const void *cfg)
{
    (void)cfg;
    values(loss, x, n);
}

static void background_slope(float *out, const float *x, int n, const void *cfg)
{
    (void)cfg;
    slopes(out, x, n);
}

static float positive(float x, const void *cfg)
{
    (void)cfg;
    return value(-x);
}

static float positive_slope(float x, const void *cfg)
{
    (void)cfg;
    return -slope(-x);
}

static const pd_dense_terms terms = {background, background_slope, positive, positive_slope};

static pd_status fwd(pd_node *node, const pd_run *run, pd_err *err)
{
    (void)err;
    return pd_dense_loss_fwd(node, run, &terms);
}

static pd_status bwd(pd_node *node, const pd_run *run, pd_err *err)
{
    (void)err;
    return pd_dense_loss_bwd(node, run, &terms);
}

static const pd_kernel cpu = {pd_dense_loss_plan, fwd, bwd, NULL};
static const pd_op bce_loss = {
    .name = "bce_loss",
    .bwd_reads_in = ~0u,
    .grad_over_in = ~3u, /* the logits */
    .differentiable = true,
    .kernel = {[PD_CPU] = &cpu},
};

pd_value *pd_bce_loss(pd_tape *tape, pd_value *const *logits, int levels, pd_value *label, pd_value *weight, int k)
{
    return pd_dense_loss(tape, &bce_loss, logits, levels, label, weight, k, "", 1);
}
