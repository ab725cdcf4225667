#include "kernels/focal_loss.h"
#include "kernels/dense_loss.h"
#include "kernels/focal_loss_math.h"
#include "kernels/simd.h"
#include "kernels/vecmath.h"

static inline pd_focal_parts split(float x)
{
    const float e = pd_vec_exp(x < 0 ? x : -x);
    return pd_focal_split(x, e, pd_vec_log1p(e), 1.f / (1.f + e));
}

/* p^gamma; `gamma` is a constant 2 where this is inlined into the usual loop. */
static inline float power(pd_focal_parts s, float gamma)
{
    return gamma == 2.f ? s.p * s.p : pd_vec_exp(-gamma * s.minus_log_p);
}

static inline float value(float x, float a, float gamma)
{
    const pd_focal_parts s = split(x);
    return pd_focal_value(s, power(s, gamma), a);
}

static inline float slope(float x, float a, float gamma)
{
    const pd_focal_parts s = split(x);
    return pd_focal_slope(s, power(s, gamma), a, gamma);
}

PD_CLONES static void values(float *restrict loss, const float *restrict x, int n, float a, float gamma)
{
    if (gamma == 2.f) {
        for (int i = 0; i < n; i++) loss[i] = value(x[i], a, 2.f);
    } else {
        for (int i = 0; i < n; i++) loss[i] = value(x[i], a, gamma);
    }
}

PD_CLONES static void slopes(float *restrict out, const float *restrict x, int n, float a, float gamma)
{
    if (gamma == 2.f) {
        for (int i = 0; i < n; i++) out[i] = slope(x[i], a, 2.f);
    } else {
        for (int i = 0; i < n; i++) out[i] = slope(x[i], a, gamma);
    }
}

static void background(float *loss, const float *x, int n, const void *arg)
{
    const pd_focal_cfg *cfg = arg;
    values(loss, x, n, 1.f - cfg->alpha, cfg->gamma);
}

static void background_slope(float *out, const float *x, int n, const void *arg)
{
    const pd_focal_cfg *cfg = arg;
    slopes(out, x, n, 1.f - cfg->alpha, cfg->gamma);
}

static float positive(float x, const void *arg)
{
    const pd_focal_cfg *cfg = arg;
    return value(-x, cfg->alpha, cfg->gamma);
}

static float positive_slope(float x, const void *arg)
{
    const pd_focal_cfg *cfg = arg;
    return -slope(-x, cfg->alpha, cfg->gamma);
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
static const pd_op focal_loss = {
    .name = "focal_loss",
    .bwd_reads_in = ~0u,
    .grad_over_in = ~3u, /* the logits */
    .differentiable = true,
    .kernel = {[PD_CPU] = &cpu},
};

pd_value *pd_focal_loss(pd_tape *tape, pd_value *const *logits, int levels, pd_value *label, pd_value *weight, int k,
                        const pd_focal_cfg *cfg)
{
    if (!(cfg->alpha >= 0 && cfg->alpha <= 1) || !(cfg->gamma >= 0 && cfg->gamma <= 100)) {
        pd_tape_fail(tape, PD_EINVAL, "focal_loss: alpha %g and gamma %g: expected 0..1 and 0..100", (double)cfg->alpha,
                     (double)cfg->gamma);
        return pd_tape_dead(tape);
    }
    return pd_dense_loss(tape, &focal_loss, logits, levels, label, weight, k, cfg, sizeof *cfg);
}
