/* The proof of a fold: it follows rows that changed places, and it notices what differs. */
#include "tests/pd_test.h"
#include "tools/fold_proof.h"

#define BOUND 1e-4

enum { N = 2, M = 200, K = 3, USED = 150 };

static pd_err err;

/* One network's outputs. */
typedef struct outputs {
    float map[N * 6], proposals[N * M * 5], cls[N * M * K];
    int count[N], level[N * M];
} outputs;

static void make(outputs *o)
{
    *o = (outputs){.count = {USED, USED}};
    for (int i = 0; i < N * 6; i++) o->map[i] = (float)i - 3;
    for (int i = 0; i < N * M; i++) {
        const float x = (float)(i % M);
        const float row[5] = {x, 2 * x, x + 9, 2 * x + 9, 0.9f - x * 1e-5f};
        if (i % M >= USED) continue;
        memcpy(o->proposals + 5 * i, row, sizeof row);
        for (int k = 0; k < K; k++) o->cls[K * i + k] = x + (float)k;
        o->level[i] = 2 + i % 3;
    }
}

static void swap_rows(outputs *o, int a, int b)
{
    for (int k = 0; k < 5; k++) {
        const float t = o->proposals[5 * a + k];
        o->proposals[5 * a + k] = o->proposals[5 * b + k];
        o->proposals[5 * b + k] = t;
    }
    for (int k = 0; k < K; k++) {
        const float t = o->cls[K * a + k];
        o->cls[K * a + k] = o->cls[K * b + k];
        o->cls[K * b + k] = t;
    }
    const int l = o->level[a];
    o->level[a] = o->level[b];
    o->level[b] = l;
}

static pd_raw raw(const outputs *o)
{
    return (pd_raw){.count = 5,
                    .name = {"p3", "proposals", "num_proposals", "stage0.level", "stage0.cls_score"},
                    .data = {o->map, o->proposals, o->count, o->level, o->cls},
                    .type = {PD_F32, PD_F32, PD_I32, PD_I32, PD_F32},
                    .shape = {PD_SHAPE(N, 1, 2, 3), PD_SHAPE(N, M, 5), PD_SHAPE(N), PD_SHAPE(N, M), PD_SHAPE(N, M, K)}};
}

static pd_fold_proof prove(const outputs *a, const outputs *b)
{
    pd_fold_proof p = {.count = 0};
    pd_arena *arena = pd_arena_new();
    const pd_raw x = raw(a), y = raw(b);
    pd_raw copy;
    PD_CHECK_OK(pd_raw_copy(&copy, &x, arena, &err));
    PD_CHECK_OK(pd_proof_add(&p, &copy, &y, arena, &err));
    pd_arena_free(arena);
    return p;
}

int main(void)
{
    outputs a, b;
    pd_fold_proof p;
    make(&a);

    make(&b);
    p = prove(&a, &b);
    PD_CHECK(pd_proof_holds(&p, BOUND) && p.lost == 0 && p.rows == N * USED && p.absolute[4] == 0 &&
             p.largest[4] > 100);

    for (int i = 0; i < USED; i += 2) swap_rows(&b, M + i, M + i + 1); /* rows change places */
    p = prove(&a, &b);
    PD_CHECK(pd_proof_holds(&p, BOUND) && p.lost == 0 && p.absolute[4] == 0);

    b.cls[K * (M + 7) + 1] += 0.1f; /* a row's numbers change */
    p = prove(&a, &b);
    PD_CHECK(!pd_proof_holds(&p, BOUND));
    PD_CHECK_NEAR(p.absolute[4], 0.1, 1e-4);

    make(&b);
    b.map[4] += 0.01f; /* a map changes */
    p = prove(&a, &b);
    PD_CHECK(!pd_proof_holds(&p, BOUND));

    make(&b);
    b.map[4] = NAN;
    p = prove(&a, &b);
    PD_CHECK(!pd_proof_holds(&p, BOUND));

    make(&b);
    b.level[3] = 5; /* on the edge of a level: the row is left out */
    b.cls[K * 3] += 50;
    p = prove(&a, &b);
    PD_CHECK(pd_proof_holds(&p, BOUND) && p.lost == 1);

    make(&b);
    for (int i = 0; i < 3; i++) b.proposals[5 * i] += 5; /* three of 300 have no partner: the most that is allowed */
    p = prove(&a, &b);
    PD_CHECK(pd_proof_holds(&p, BOUND) && p.lost == 3);
    b.proposals[5 * 9 + 4] += 0.01f; /* a score */
    p = prove(&a, &b);
    PD_CHECK(!pd_proof_holds(&p, BOUND) && p.lost == 4);
    return pd_test_end();
}
