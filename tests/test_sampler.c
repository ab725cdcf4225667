/* Plans of epochs: every rule of sampler.h, over a grid of sizes. */
#include "datasets/sampler.h"
#include "tests/pd_test.h"

enum { MOST = 64 };

static void plan(uint32_t *order, const pd_sampler *s, uint32_t epoch)
{
    pd_err err = PD_ERR_INIT;
    PD_CHECK_OK(pd_sampler_plan(order, s, epoch, &err));
}

/* All ranks together give the one-process order; what is missing at the end is repeated from the start. */
static void test_plain(void)
{
    for (int shuffle = 0; shuffle < 2; shuffle++)
        for (int drop = 0; drop < 2; drop++)
            for (size_t n = 1; n < 30; n++)
                for (int batch = 1; batch < 5; batch++)
                    for (int world = 1; world < 4; world++) {
                        pd_err err = PD_ERR_INIT;
                        const pd_sampler one = {.n = n,
                                                .batch = batch * world,
                                                .shuffle = shuffle,
                                                .drop_last = drop,
                                                .seed = 3,
                                                .world = 1};
                        if (drop && n < (size_t)(batch * world)) {
                            PD_CHECK_FAILS(pd_sampler_check(&one, &err), PD_EINVAL, "less than one step");
                            continue;
                        }
                        uint32_t whole[MOST], part[MOST];
                        plan(whole, &one, 5);
                        const size_t total = pd_sampler_count(&one), step = (size_t)(batch * world);
                        PD_CHECK_INT(total, drop ? n / step * step : n);
                        unsigned seen[MOST] = {0};
                        for (size_t i = 0; i < total; i++) seen[whole[i]]++;
                        for (size_t i = 0; i < n; i++) PD_CHECK(seen[i] == 1 || (drop && seen[i] == 0));
                        for (int rank = 0; rank < world; rank++) {
                            pd_sampler s = one;
                            s.batch = batch;
                            s.world = world;
                            s.rank = rank;
                            plan(part, &s, 5);
                            const size_t rest = drop ? 0 : n % step, per = (rest + (size_t)world - 1) / (size_t)world;
                            const size_t count = pd_sampler_count(&s);
                            PD_CHECK_INT(count, n / step * (size_t)batch + per);
                            PD_CHECK_INT(pd_sampler_steps(&s), (count + (size_t)batch - 1) / (size_t)batch);
                            for (size_t i = 0; i < count; i++) {
                                const size_t at = i / (size_t)batch, size = at < n / step ? (size_t)batch : per;
                                const size_t global = at * step + (size_t)rank * size + i % (size_t)batch;
                                PD_CHECK_INT(part[i], whole[global % n]);
                            }
                        }
                    }
}

static void test_order(void)
{
    pd_sampler s = {.n = 50, .batch = 4, .shuffle = true, .seed = 3, .world = 1};
    uint32_t a[MOST], b[MOST];
    plan(a, &s, 0);
    plan(b, &s, 0);
    PD_CHECK(!memcmp(a, b, 50 * sizeof *a));
    plan(b, &s, 1);
    PD_CHECK(memcmp(a, b, 50 * sizeof *a) != 0);
    s.seed = 4;
    plan(b, &s, 0);
    PD_CHECK(memcmp(a, b, 50 * sizeof *a) != 0);
    s.shuffle = false;
    plan(b, &s, 0);
    for (uint32_t i = 0; i < 50; i++) PD_CHECK_INT(b[i], i);
}

/* Specification 2.7: a step holds one group; a group is extended to whole steps by repeating its start. All ranks
 * together see the steps of one process in their order. */
static void test_groups(void)
{
    uint8_t group[MOST];
    for (size_t n = 1; n < 40; n++)
        for (int kind = 0; kind < 3; kind++)
            for (int batch = 1; batch < 4; batch++) {
                size_t members[2] = {0, 0};
                const size_t b = (size_t)batch;
                for (size_t i = 0; i < n; i++) members[group[i] = kind == 0 ? i % 3 == 0 : kind == 1]++;
                const size_t chunks = (members[0] + b - 1) / b + (members[1] + b - 1) / b;
                const pd_sampler one = {.n = n, .group = group, .batch = batch, .shuffle = true, .seed = n, .world = 1};
                uint32_t whole[4 * MOST], part[4 * MOST];
                unsigned seen[MOST] = {0};
                PD_CHECK_INT(pd_sampler_count(&one), chunks * b);
                plan(whole, &one, 2);
                for (size_t i = 0; i < chunks * b; i++) {
                    seen[whole[i]]++;
                    PD_CHECK_INT(group[whole[i]], group[whole[i - i % b]]);
                }
                for (size_t i = 0; i < n; i++) {
                    const size_t m = members[group[i]], full = (m + b - 1) / b * b;
                    PD_CHECK(seen[i] >= full / m && seen[i] <= (full + m - 1) / m);
                }
                for (int world = 2; world < 4; world++)
                    for (int rank = 0; rank < world; rank++) {
                        pd_err err = PD_ERR_INIT;
                        pd_sampler s = one;
                        s.world = world;
                        s.rank = rank;
                        const size_t count = pd_sampler_count(&s);
                        PD_CHECK_INT(count, chunks / (size_t)world * b);
                        if (!count) {
                            PD_CHECK_FAILS(pd_sampler_check(&s, &err), PD_EINVAL, "less than one step");
                            continue;
                        }
                        plan(part, &s, 2);
                        for (size_t i = 0; i < count; i++)
                            PD_CHECK_INT(part[i], whole[(i / b * (size_t)world + (size_t)rank) * b + i % b]);
                    }
            }
    /* drop_last cuts, and too little is refused. */
    pd_err err = PD_ERR_INIT;
    for (size_t i = 0; i < 10; i++) group[i] = i < 3;
    pd_sampler s = {.n = 10, .group = group, .batch = 4, .shuffle = true, .drop_last = true, .world = 1};
    PD_CHECK_INT(pd_sampler_count(&s), 4);
    s.batch = 8;
    PD_CHECK_FAILS(pd_sampler_check(&s, &err), PD_EINVAL, "less than one step");
    /* The chunks are mixed: not all of one group come first. */
    for (size_t i = 0; i < 40; i++) group[i] = i < 20;
    s = (pd_sampler){.n = 40, .group = group, .batch = 2, .shuffle = true, .world = 1, .seed = 9};
    uint32_t order[MOST];
    plan(order, &s, 0);
    int changes = 0;
    for (size_t i = 2; i < 40; i += 2) changes += group[order[i]] != group[order[i - 2]];
    PD_CHECK(changes >= 4);
}

static void test_exact(void)
{
    for (size_t n = 1; n < 20; n++)
        for (int world = 1; world < 6; world++) {
            unsigned seen[MOST] = {0};
            for (int rank = 0; rank < world; rank++) {
                const pd_sampler s = {.n = n, .batch = 3, .exact = true, .shuffle = true, .rank = rank, .world = world};
                uint32_t order[MOST];
                plan(order, &s, 1);
                const size_t count = pd_sampler_count(&s);
                for (size_t i = 0; i < count; i++) seen[order[i]]++;
                for (size_t i = 1; i < count; i++) PD_CHECK_INT(order[i], order[i - 1] + 1);
            }
            for (size_t i = 0; i < n; i++) PD_CHECK_INT(seen[i], 1);
        }
}

static void test_refusals(void)
{
    pd_err err = PD_ERR_INIT;
    pd_sampler s = {.n = 0, .batch = 1, .world = 1};
    PD_CHECK_FAILS(pd_sampler_check(&s, &err), PD_EINVAL, "0 samples");
    s.n = 5;
    PD_CHECK_OK(pd_sampler_check(&s, &err));
    s.batch = 0;
    PD_CHECK_FAILS(pd_sampler_check(&s, &err), PD_EINVAL, "0 samples per step");
    s.batch = 1;
    s.rank = 1;
    PD_CHECK_FAILS(pd_sampler_check(&s, &err), PD_EINVAL, "rank 1 of 1");
}

int main(void)
{
    test_plain();
    test_order();
    test_groups();
    test_exact();
    test_refusals();
    return pd_test_end();
}
