#include "datasets/mix.h"

#include <string.h>

/* Marsaglia and Tsang 2000, "A simple method for generating gamma variables"; a < 1 by their section 6. */
static double gamma_draw(pd_rng *rng, double a)
{
    const double boost = a < 1 ? pow(1 - pd_rng_double(rng), 1 / a) : 1;
    const double d = (a < 1 ? a + 1 : a) - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        const double x = pd_rng_normal(rng), v = 1 + c * x, cube = v * v * v, u = 1 - pd_rng_double(rng);
        if (v > 0 && log(u) < x * x / 2 + d - d * cube + d * log(cube)) return boost * d * cube;
    }
}

double pd_rng_beta(pd_rng *rng, double a)
{
    const double x = gamma_draw(rng, a), y = gamma_draw(rng, a);
    return x + y > 0 ? x / (x + y) : 0.5; /* a so small that both underflow */
}

static int clamp(int v, int high)
{
    return v < 0 ? 0 : v > high ? high : v;
}

pd_mix pd_mix_draw(const pd_mix_cfg *cfg, int h, int w, pd_rng *rng)
{
    pd_mix m = {.share = 1};
    if (cfg->mixup <= 0 && cfg->cutmix <= 0) return m;
    m.cut = cfg->cutmix > 0 && (cfg->mixup <= 0 || pd_rng_below(rng, 2) == 1);
    const double share = pd_rng_beta(rng, m.cut ? cfg->cutmix : cfg->mixup);
    m.share = (float)share;
    if (!m.cut) return m;
    const int x = (int)pd_rng_below(rng, (uint32_t)w), y = (int)pd_rng_below(rng, (uint32_t)h);
    const double half = 0.5 * sqrt(1 - share);
    const int hw = (int)(half * w), hh = (int)(half * h);
    m.x0 = clamp(x - hw, w);
    m.y0 = clamp(y - hh, h);
    m.x1 = clamp(x + hw, w);
    m.y1 = clamp(y + hh, h);
    m.share = (float)(1 - (double)(m.x1 - m.x0) * (m.y1 - m.y0) / ((double)w * h));
    return m;
}

void pd_mix_apply(const pd_mix *mix, float *pixels, const int *labels, int *mixed_labels, int n, int h, int w,
                  float *work)
{
    const size_t size = (size_t)h * (size_t)w * 3;
    for (int i = 0; i < n; i++) mixed_labels[i] = labels[(i + n - 1) % n];
    if (mix->share >= 1 || n < 1) return;
    memcpy(work, pixels + (size_t)(n - 1) * size, size * sizeof *work);
    for (int i = n - 1; i >= 0; i--) {
        float *to = pixels + (size_t)i * size;
        const float *from = i ? to - size : work;
        if (!mix->cut) {
            for (size_t k = 0; k < size; k++) to[k] = mix->share * to[k] + (1 - mix->share) * from[k];
            continue;
        }
        for (int y = mix->y0; y < mix->y1; y++) {
            const size_t at = ((size_t)y * (size_t)w + (size_t)mix->x0) * 3;
            memcpy(to + at, from + at, (size_t)(mix->x1 - mix->x0) * 3 * sizeof *to);
        }
    }
}
