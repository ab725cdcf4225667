#include "kernels/add_into.h"
#include "kernels/simd.h"

typedef struct spans {
    float *to;
    const float *from;
} spans;

PD_CLONES static void add_range(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const spans *s = arg;
    float *to = s->to;
    const float *from = s->from;
    PD_IVDEP
    for (size_t i = begin; i < end; i++) to[i] += from[i];
}

void pd_add_into(pd_pool *pool, float *to, const float *from, size_t count)
{
    pd_parallel(pool, count, add_range, &(spans){to, from});
}
