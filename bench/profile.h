/* profile.h: tables of where a plan's time goes. */
#ifndef PD_BENCH_PROFILE_H
#define PD_BENCH_PROFILE_H

#include "bench/bench.h"
#include "engine/plan_layout.h"

static inline void bench_print_machine(pd_pool *pool)
{
    printf("machine: %d threads, %.0f GFLOP/s of multiply-adds, copy %.1f GB/s\n", pd_pool_threads(pool),
           peak_flops(pool) * 1e-9, peak_bandwidth(pool) * 1e-9);
    fflush(stdout);
}

/* The shortest times seen of every node. */
typedef struct node_times {
    pd_node_time *seen, *least;
    int count;
} node_times;

static inline bool node_times_init(node_times *t, const pd_tape *tape)
{
    t->count = pd_tape_node_count(tape);
    t->seen = calloc((size_t)t->count + 1, sizeof *t->seen);
    t->least = calloc((size_t)t->count + 1, sizeof *t->least);
    for (int i = 0; t->least && i < t->count; i++) t->least[i] = (pd_node_time){1e9, 1e9};
    return t->seen && t->least;
}

static inline void node_times_free(node_times *t)
{
    free(t->seen);
    free(t->least);
}

/* After each run. */
static inline void node_times_add(node_times *t, const pd_plan *plan)
{
    const pd_node_time *now = pd_plan_times(plan);
    for (int i = 0; i < t->count; i++) {
        const double fwd = now[i].fwd - t->seen[i].fwd, bwd = now[i].bwd - t->seen[i].bwd;
        if (fwd < t->least[i].fwd) t->least[i].fwd = fwd;
        if (bwd < t->least[i].bwd) t->least[i].bwd = bwd;
        t->seen[i] = now[i];
    }
}

/* Bytes that a node must at least move: every value that it reads or writes once. */
typedef struct node_bytes {
    double fwd, bwd;
} node_bytes;

static inline node_bytes bench_node_bytes(const pd_node *n)
{
    node_bytes b = {0, 0};
    for (int i = 0; i < n->n_in; i++) {
        if (!n->in[i]) continue;
        const double bytes = (double)pd_value_bytes(n->in[i]);
        b.fwd += bytes;
        if (n->op->bwd_reads_in >> i & 1) b.bwd += bytes;
        if (n->backward && n->grad_mode[i] != PD_GRAD_NONE) b.bwd += bytes * (n->grad_mode[i] == PD_GRAD_ADD ? 2 : 1);
    }
    for (int i = 0; i < n->n_out; i++) {
        const double bytes = (double)pd_value_bytes(n->out[i]);
        b.fwd += bytes;
        b.bwd += bytes * (!!n->out[i]->grad + (n->op->bwd_reads_out >> i & 1));
    }
    return b;
}

typedef struct op_total {
    const char *name;
    double fwd, bwd; /* ms */
    node_bytes bytes;
    int count;
} op_total;

static inline void bench_print_total(const op_total *t, const pd_device *device, const char *json)
{
    printf("  %-16s %4d nodes: fwd %8.2f ms, bwd %8.2f ms", t->name, t->count, t->fwd, t->bwd);
    if (device && t->fwd > 0) printf("; at least %.0f GB/s", t->bytes.fwd / t->fwd * 1e-6);
    if (device && t->bwd > 0) printf(" and %.0f GB/s", t->bytes.bwd / t->bwd * 1e-6);
    printf("\n");
    FILE *f = device && json ? fopen(json, "a") : NULL;
    if (!f) return;
    fprintf(f,
            "{\"side\": \"paradise\", \"how\": \"%s\", \"what\": \"profile\", \"op\": \"%s\", \"nodes\": %d, "
            "\"fwd_ms\": %.4f, "
            "\"bwd_ms\": %.4f, \"fwd_gb\": %.4f, \"bwd_gb\": %.4f}\n",
            pd_precision_text(device->precision), t->name, t->count, t->fwd, t->bwd, t->bytes.fwd * 1e-9,
            t->bytes.bwd * 1e-9);
    fclose(f);
}

/* Every node with its time in ms, then sums by operation. device, where it is not the CPU: sums come with the bytes
 * that such nodes must move, a value counted once, by the time; each node's time has a launch and a wait in it, so that
 * what is reached is at least that. They go to the file json as well, if there is one. */
static inline void bench_print_nodes(const pd_tape *tape, const node_times *t, const pd_device *device,
                                     const char *json)
{
    op_total totals[32] = {{0}};
    int kinds = 0;
    const pd_node_time *times = t->least;
    for (const pd_node *n = pd_tape_nodes(tape); n; n = n->next) {
        char shape[64];
        const double fwd = times[n->id].fwd * 1e3, bwd = times[n->id].bwd * 1e3;
        const double macs = n->op->macs ? n->op->macs(n) : 0;
        printf("  %-16s %-34s %-20s fwd %8.3f ms", n->op->name, n->name, pd_shape_text(shape, n->out[0]->shape), fwd);
        if (macs > 0 && fwd > 0) printf(" %6.1f GFLOP/s", 2 * macs / fwd * 1e-6);
        if (n->backward) printf("  bwd %8.3f ms", bwd);
        printf("\n");
        int k = 0;
        while (k < kinds && strcmp(totals[k].name, n->op->name)) k++;
        if (k == kinds && kinds < 32) totals[kinds++].name = n->op->name;
        if (k == 32 || n->constant) continue;
        const node_bytes bytes = bench_node_bytes(n);
        totals[k].fwd += fwd, totals[k].bwd += bwd, totals[k].count++;
        totals[k].bytes.fwd += bytes.fwd;
        if (n->backward) totals[k].bytes.bwd += bytes.bwd;
    }
    for (int k = 0; k < kinds; k++) bench_print_total(&totals[k], device, json);
}

#endif
