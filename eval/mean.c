#include "eval/mean.h"

/* Halves are a multiple of 8 long, so the cuts of 8192 values fall on blocks of 128: a loop with a stack of sums would
 * do, but the recursion is at most seven deep and reads like numpy's own. */
double pd_pairwise_sum(const double *v, size_t n)
{
    if (n < 8) {
        double sum = 0;
        for (size_t i = 0; i < n; i++) sum += v[i];
        return sum;
    }
    if (n <= 128) {
        double r[8];
        for (size_t k = 0; k < 8; k++) r[k] = v[k];
        size_t i = 8;
        for (; i + 8 <= n; i += 8)
            for (size_t k = 0; k < 8; k++) r[k] += v[i + k];
        double sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
        for (; i < n; i++) sum += v[i];
        return sum;
    }
    const size_t half = n / 2 - n / 2 % 8;
    return pd_pairwise_sum(v, half) + pd_pairwise_sum(v + half, n - half);
}

void pd_mean_begin(pd_mean *m)
{
    m->held = m->count = 0;
    m->total = 0;
}

static void flush(pd_mean *m)
{
    m->total += pd_pairwise_sum(m->block, m->held);
    m->count += m->held;
    m->held = 0;
}

void pd_mean_add(pd_mean *m, double value)
{
    if (!(value > -1)) return;
    m->block[m->held++] = value;
    if (m->held == PD_MEAN_BLOCK) flush(m);
}

double pd_mean_end(pd_mean *m)
{
    if (m->held) flush(m);
    return m->count ? m->total / (double)m->count : -1;
}
