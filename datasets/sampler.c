#include "datasets/sampler.h"

#include "engine/rng.h"

#include <stdlib.h>

/* Samples of all ranks in one step. */
static size_t step_size(const pd_sampler *s)
{
    return (size_t)s->batch * (size_t)s->world;
}

static bool grouped(const pd_sampler *s)
{
    return s->group && s->shuffle && !s->exact;
}

static size_t share_begin(const pd_sampler *s, int rank)
{
    return (size_t)((uint64_t)s->n * (uint64_t)rank / (uint64_t)s->world);
}

/* Chunks of a group in an epoch: the last one filled up, or cut. */
static size_t group_chunks(const pd_sampler *s, size_t members)
{
    const size_t batch = (size_t)s->batch;
    return s->drop_last ? members / batch : (members + batch - 1) / batch;
}

static void count_groups(const pd_sampler *s, size_t members[2])
{
    members[0] = members[1] = 0;
    for (size_t i = 0; i < s->n; i++) members[s->group[i] != 0]++;
}

size_t pd_sampler_count(const pd_sampler *s)
{
    if (s->exact) return share_begin(s, s->rank + 1) - share_begin(s, s->rank);
    if (grouped(s)) {
        size_t members[2];
        count_groups(s, members);
        return (group_chunks(s, members[0]) + group_chunks(s, members[1])) / (size_t)s->world * (size_t)s->batch;
    }
    const size_t full = s->n / step_size(s), rest = s->n % step_size(s), world = (size_t)s->world;
    return full * (size_t)s->batch + (s->drop_last ? 0 : (rest + world - 1) / world);
}

size_t pd_sampler_steps(const pd_sampler *s)
{
    return (pd_sampler_count(s) + (size_t)s->batch - 1) / (size_t)s->batch;
}

pd_status pd_sampler_check(const pd_sampler *s, pd_err *err)
{
    if (s->n < 1 || s->n > UINT32_MAX - 1) return PD_FAIL(err, PD_EINVAL, "%zu samples; expected 1 to 2^32 - 2", s->n);
    if (s->batch < 1 || s->batch > 1 << 20)
        return PD_FAIL(err, PD_EINVAL, "%d samples per step; expected 1 to 2^20", s->batch);
    if (s->world < 1 || s->world > 1 << 20 || s->rank < 0 || s->rank >= s->world)
        return PD_FAIL(err, PD_EINVAL, "rank %d of %d", s->rank, s->world);
    if (!s->exact && pd_sampler_count(s) == 0)
        return PD_FAIL(err, PD_EINVAL, "%zu samples are less than one step of %d x %d%s", s->n, s->batch, s->world,
                       s->drop_last ? ": take fewer, or keep the last, smaller step (drop_last)" : "");
    return PD_OK;
}

static void plan_plain(uint32_t *order, const pd_sampler *s, const uint32_t *all)
{
    const size_t batch = (size_t)s->batch, rank = (size_t)s->rank, step = step_size(s);
    const size_t full = s->n / step, count = pd_sampler_count(s), rest = count - full * batch;
    for (size_t i = 0; i < full * batch; i++) order[i] = all[i / batch * step + rank * batch + i % batch];
    for (size_t i = 0; i < rest; i++) order[full * batch + i] = all[(full * step + rank * rest + i) % s->n];
}

/* chunks: room for one number per chunk of all ranks; members: room for n, gets group after group. */
static void plan_groups(uint32_t *order, const pd_sampler *s, const uint32_t *all, uint32_t *members, uint32_t *chunks,
                        pd_rng *rng)
{
    const size_t batch = (size_t)s->batch, world = (size_t)s->world;
    size_t count[2], begin[2], n_chunks[2];
    count_groups(s, count);
    begin[0] = 0;
    begin[1] = count[0];
    for (size_t i = 0, at[2] = {0, count[0]}; i < s->n; i++) members[at[s->group[all[i]] != 0]++] = all[i];
    for (int g = 0; g < 2; g++) n_chunks[g] = group_chunks(s, count[g]);
    const size_t total = n_chunks[0] + n_chunks[1];
    for (size_t i = 0; i < total; i++) chunks[i] = (uint32_t)i;
    pd_rng_shuffle(rng, chunks, (uint32_t)total);
    for (size_t k = 0; k < total / world; k++) {
        size_t chunk = chunks[k * world + (size_t)s->rank];
        const int g = chunk >= n_chunks[0];
        if (g) chunk -= n_chunks[0];
        for (size_t i = 0; i < batch; i++) order[k * batch + i] = members[begin[g] + (chunk * batch + i) % count[g]];
    }
}

pd_status pd_sampler_plan(uint32_t *order, const pd_sampler *s, uint32_t epoch, pd_err *err)
{
    if (s->exact) {
        const size_t begin = share_begin(s, s->rank), n = pd_sampler_count(s);
        for (size_t i = 0; i < n; i++) order[i] = (uint32_t)(begin + i);
        return PD_OK;
    }
    size_t members[2] = {0, 0};
    if (grouped(s)) count_groups(s, members);
    const size_t chunks = group_chunks(s, members[0]) + group_chunks(s, members[1]);
    uint32_t *all = malloc((2 * s->n + chunks) * sizeof *all);
    if (!all) return PD_FAIL(err, PD_ENOMEM, "out of memory: the order of %zu samples", s->n);
    for (size_t i = 0; i < s->n; i++) all[i] = (uint32_t)i;
    /* Stream UINT32_MAX: no sample has this number, so the order shares no random numbers with the crops. */
    pd_rng rng = pd_rng_make(s->seed, epoch, UINT32_MAX);
    if (s->shuffle) pd_rng_shuffle(&rng, all, (uint32_t)s->n);
    if (grouped(s))
        plan_groups(order, s, all, all + s->n, all + 2 * s->n, &rng);
    else
        plan_plain(order, s, all);
    free(all);
    return PD_OK;
}
