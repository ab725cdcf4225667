/* Collectives of several processes: this program starts itself under mpirun, and each rank checks what it gets.
 *   test_comm            the parent: 1 (no mpirun), 2, 3 and 4 ranks; a rank that stops, dies, or comes too late
 *   test_comm --rank X   one rank of scenario X
 * ctest: slow, shares */
#include "backbones/layer.h"
#include "engine/average.h"
#include "engine/plan.h"
#include "engine/rng.h"
#include "kernels/pool.h"
#include "kernels/softmax_ce.h"
#include "tests/pd_test.h"
#include "tests/programs.h"
#include "tests/ranks.h"

#include <sched.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

static pd_err err;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- one rank ---- */

/* What rank r brings at place i. */
static float value_of(int r, size_t i)
{
    pd_rng rng = pd_rng_make(7, (uint32_t)r, (uint32_t)i);
    return (float)((pd_rng_double(&rng) - 0.5) * (i % 7 ? 1 : 1e6));
}

static void check_sums(pd_comm *comm)
{
    static const size_t lengths[] = {1, 2, 2047, 2048, 2049, 100003, ((size_t)8 << 20) + 5};
    const int rank = pd_comm_rank(comm), world = pd_comm_world(comm);
    for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
        const size_t n = lengths[k], step = n > 200000 ? 997 : 1; /* the longest: looked at here and there */
        float *f = malloc(n * sizeof *f);
        double *d = malloc(n * sizeof *d);
        int64_t *w = malloc(n * sizeof *w);
        for (size_t i = 0; i < n; i++) {
            f[i] = i % step ? 0 : value_of(rank, i);
            d[i] = (double)f[i] / 3;
            w[i] = (int64_t)i * rank - ((int64_t)1 << 60) / world;
        }
        PD_CHECK_OK(pd_comm_start_sum(comm, f, n, PD_COMM_F32, &err));
        PD_CHECK_OK(pd_comm_start_sum(comm, d, n, PD_COMM_F64, &err));
        PD_CHECK_OK(pd_comm_start_sum(comm, w, n, PD_COMM_I64, &err));
        PD_CHECK_OK(pd_comm_wait(comm, &err));
        size_t wrong = 0;
        for (size_t i = 0; i < n; i += step) {
            double sum = 0, third = 0;
            int64_t whole = 0;
            for (int r = 0; r < world; r++) {
                const float v = value_of(r, i);
                sum += (double)v;
                third += (double)v / 3;
                whole += (int64_t)i * r - ((int64_t)1 << 60) / world;
            }
            wrong += f[i] != (float)sum || d[i] != third || w[i] != whole;
        }
        PD_CHECK_INT(wrong, 0);
        free(f);
        free(d);
        free(w);
    }
}

static void check_rest(pd_comm *comm)
{
    const int rank = pd_comm_rank(comm), world = pd_comm_world(comm);
    char text[1000];
    for (int root = 0; root < world; root++) {
        memset(text, 'a' + rank, sizeof text);
        PD_CHECK_OK(pd_comm_broadcast(comm, text, sizeof text, root, &err));
        PD_CHECK(text[0] == 'a' + root && text[999] == 'a' + root);
    }
    /* rank r brings r times "r": nothing, "1", "22", ... */
    void *all;
    size_t bytes, at = 0;
    memset(text, '0' + rank, sizeof text);
    PD_CHECK_OK(pd_comm_gather(&all, &bytes, comm, text, (size_t)rank, &err));
    PD_CHECK_INT(bytes, world * (world - 1) / 2);
    for (int r = 0; r < world; r++)
        for (int i = 0; i < r; i++) PD_CHECK_INT(((char *)all)[at++], '0' + r);
    free(all);
    for (int r = -1; r < world; r++) {
        bool any = r < 0;
        PD_CHECK_OK(pd_comm_any(&any, comm, rank == r, &err));
        PD_CHECK(any == (r >= 0));
    }
    PD_CHECK_INT(pd_comm_local_rank(comm), rank);
    PD_CHECK_INT(pd_comm_local_world(comm), world);
    PD_CHECK_INT(pd_comm_machines(comm), 1);
}

/* Where there are enough, every rank has processors of its own. */
static void check_processors(pd_comm *comm, int before)
{
    cpu_set_t mine, *all;
    void *gathered;
    size_t bytes;
    sched_getaffinity(0, sizeof mine, &mine);
    PD_CHECK_OK(pd_comm_gather(&gathered, &bytes, comm, &mine, sizeof mine, &err));
    all = gathered;
    if (before >= pd_comm_world(comm))
        for (int a = 0; a < pd_comm_world(comm); a++)
            for (int b = 0; b < a; b++) {
                cpu_set_t both;
                CPU_AND(&both, &all[a], &all[b]);
                PD_CHECK_INT(CPU_COUNT(&both), 0);
            }
    free(gathered);
}

/* ---- batch norm and gradients over all ranks */

enum { SIDE = 9, CHANNELS = 8, CLASSES = 5, PER_RANK = 2 };

/* Two ParaDise layers and a head, their gradients and statistics after one step on samples first .. first + n - 1. */
typedef struct outcome {
    pd_params *params;
    float loss;
} outcome;

static void one_step(outcome *o, pd_device *device, pd_comm *comm, pd_mixture mixture, int first, int n)
{
    const pd_layer layer = {
        .out = 2 * CHANNELS, .kernel = 3, .stride = 1, .groups = 1, .mixture = mixture, .branches = PD_ALL_BRANCHES};
    pd_tape *t = NULL;
    pd_plan *plan = NULL;
    pd_average *average = NULL;
    int labels[16];
    float *pixels = malloc((size_t)n * SIDE * SIDE * CHANNELS * sizeof *pixels);
    for (int i = 0; i < n; i++) {
        pd_rng rng = pd_rng_make(11, (uint32_t)(first + i), 0);
        labels[i] = (first + i) % CLASSES;
        for (size_t k = 0; k < SIDE * SIDE * CHANNELS; k++)
            pixels[(size_t)i * SIDE * SIDE * CHANNELS + k] = (float)(pd_rng_normal(&rng) + 0.3 * (first + i));
    }
    device->comm = comm;
    PD_CHECK_OK(pd_params_new(&o->params, &err));
    PD_CHECK_OK(pd_tape_new(&t, o->params, true, &err));
    if (comm) pd_tape_sync_stats(t);
    pd_value *image = pd_tape_input(t, "image", PD_F32, PD_SHAPE(n, SIDE, SIDE, CHANNELS)), *correct;
    pd_value *label = pd_tape_input(t, "label", PD_I32, PD_SHAPE(n)), *x = image;
    for (int i = 0; i < 2; i++) x = pd_record_layer(t, PD_FORM_TRAIN, i ? "b" : "a", "", x, &layer, NULL, true);
    pd_value *logits = pd_record_linear(t, "fc", pd_global_avg_pool(t, x), CLASSES, false);
    pd_value *loss = pd_softmax_ce(t, logits, label, NULL, 0, &correct);
    pd_tape_minimise(t, loss, 1);
    PD_CHECK_OK(pd_params_allocate(o->params, device, true, &err));
    PD_CHECK_OK(pd_params_init(o->params, 5, &err));
    PD_CHECK_OK(pd_plan_new(&plan, t, device, PD_PLAN_TRAIN, NULL, &err));
    PD_CHECK_OK(pd_average_new(&average, o->params, comm, 1, &err));
    pd_plan_bind(image, pixels);
    pd_plan_bind(label, labels);
    PD_CHECK_OK(pd_plan_forward(plan, &err));
    PD_CHECK_OK(pd_plan_backward(plan, false, &err));
    PD_CHECK_OK(pd_average_finish(average, &err));
    o->loss = *(const float *)loss->data;
    pd_average_free(average);
    pd_plan_free(plan);
    pd_tape_free(t);
    free(pixels);
}

/* Each rank's share of a batch gives what the whole batch gives to one process. */
static void check_batch_norm(pd_comm *comm)
{
    static const pd_mixture mixtures[] = {PD_PLAIN_CONV, PD_SUM, PD_GATED};
    const int world = pd_comm_world(comm);
    pd_device *device;
    PD_CHECK_OK(pd_device_open(&device, "cpu", 1, &err));
    for (int m = 0; m < 3; m++) {
        outcome mine, whole;
        double loss, largest = 0, most = 0, statistics = 0;
        one_step(&mine, device, comm, mixtures[m], pd_comm_rank(comm) * PER_RANK, PER_RANK);
        one_step(&whole, device, NULL, mixtures[m], 0, PER_RANK * world);
        loss = (double)mine.loss;
        PD_CHECK_OK(pd_comm_sum(comm, &loss, 1, PD_COMM_F64, &err));
        PD_CHECK_NEAR(loss / world, whole.loss, 1e-5);
        for (size_t i = 0; i < pd_params_count(whole.params); i++) {
            const pd_param *p = pd_params_at(mine.params, i), *q = pd_params_at(whole.params, i);
            for (size_t k = 0; k < p->count; k++) {
                if (q->kind == PD_WEIGHT) {
                    largest = fmax(largest, fabs((double)q->grad[k]));
                    most = fmax(most, fabs((double)p->grad[k] - (double)q->grad[k]));
                } else {
                    statistics = fmax(statistics, fabs((double)p->data[k] - (double)q->data[k]));
                }
            }
        }
        PD_CHECK_MSG(largest > 1e-3 && most <= 1e-5 * largest,
                     "mixture %d: gradients differ by %.3g, the largest is %.3g", m, most, largest);
        PD_CHECK_MSG(statistics <= 1e-5, "mixture %d: running statistics differ by %.3g", m, statistics);
        pd_params_free(mine.params);
        pd_params_free(whole.params);
    }
    device->comm = NULL;
    pd_device_close(device);
}

static void lost(void *arg, const char *text)
{
    (void)arg;
    fprintf(stderr, "test_comm: %s\n", text);
}

static int rank_main(const char *scenario)
{
    pd_comm *comm;
    cpu_set_t mask;
    sched_getaffinity(0, sizeof mask, &mask);
    PD_CHECK_OK(pd_comm_open(&comm, &err));
    if (err.code) return pd_test_end();
    const bool last = pd_comm_rank(comm) == pd_comm_world(comm) - 1;
    if (!strcmp(scenario, "sums")) {
        PD_CHECK_OK(pd_comm_watch(comm, 30, lost, NULL, &err));
        check_sums(comm);
        check_rest(comm);
        check_processors(comm, CPU_COUNT(&mask));
        check_batch_norm(comm);
    } else {
        PD_CHECK_OK(pd_comm_watch(comm, !strcmp(scenario, "dawdling rank") ? 1 : 2, lost, NULL, &err));
        if (!strcmp(scenario, "stopped rank") && last) raise(SIGSTOP);
        if (!strcmp(scenario, "stopped first rank") && pd_comm_rank(comm) == 0) raise(SIGSTOP);
        if (!strcmp(scenario, "killed rank") && last) raise(SIGKILL);
        if (!strcmp(scenario, "failed rank") && last) {
            fprintf(stderr, "test_comm: this rank failed\n");
            pd_comm_close(comm, 3);
        }
        if (!strcmp(scenario, "dawdling rank") && last) sleep(60); /* its heart goes on */
        if (!strcmp(scenario, "computing") || !strcmp(scenario, "stopped rank")) {
            const double start = seconds();
            while (seconds() - start < (last ? 6 : 5)) continue; /* far beyond the limit, without a call */
        }
        PD_CHECK_OK(pd_comm_barrier(comm, &err));
    }
    const int code = pd_test_failures ? 1 : 0;
    if (pd_comm_rank(comm) == 0) printf("%d checks of each rank\n", pd_test_checks);
    pd_comm_close(comm, 0);
    return code;
}

/* ---- the parent ---- */

static void test_alone(void)
{
    pd_comm *comm = (pd_comm *)&err;
    float f = 3;
    bool any = true;
    PD_CHECK_OK(pd_comm_open(&comm, &err));
    PD_CHECK(!comm);
    check_rest(comm);
    PD_CHECK_OK(pd_comm_sum(comm, &f, 1, PD_COMM_F32, &err));
    PD_CHECK(f == 3);
    PD_CHECK_OK(pd_comm_any(&any, comm, false, &err));
    PD_CHECK(!any);
    PD_CHECK_OK(pd_comm_watch(comm, 1, NULL, NULL, &err));
    pd_comm_close(comm, 1);
}

/* A launcher that starts several, but is not MPI's, must not make a run of each of them. */
static void test_strange_launcher(const char *self)
{
    pd_child c = {0};
    setenv("SLURM_STEP_NUM_TASKS", "2", 1);
    pd_child_run(&c, NULL, "", "%s --rank strange", self);
    unsetenv("SLURM_STEP_NUM_TASKS");
    PD_CHECK_MSG(c.code == 1 && strstr(c.err, "the launcher started 2 processes, but MPI sees one"), "exit %d: %s",
                 c.code, c.err);
    pd_child_free(&c);
}

static void test_ranks(const char *bin, const char *self)
{
    pd_child c = {0};
    for (int world = 2; world <= 4; world++) {
        pd_child_run(&c, NULL, bin, "mpirun -np %d %s --rank sums", world, self);
        PD_CHECK_MSG(c.code == 0, "%d ranks: exit %d: %s", world, c.code, c.err);
        PD_CHECK_MSG(strstr(c.out, "checks of each rank"), "said \"%s\"", c.out);
    }
    pd_child_free(&c);
}

static void test_lost(const char *bin, const char *self)
{
    static const struct {
        const char *scenario, *says; /* says: on standard error, by the library or by mpirun */
        int code;                    /* -1: any but 0 */
        double limit;                /* seconds until all are gone */
    } rows[] = {
        {"computing", "", 0, 30},
        {"stopped rank", "test_comm: rank 2 (", 1, 20},
        {"stopped first rank", "test_comm: rank 0 (", 1, 20},
        {"killed rank", "rank 2", -1, 20},
        {"failed rank", "this rank failed", 3, 20},
        {"dawdling rank", "keeps the others waiting", 1, 50},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pd_child c = {0};
        PD_ROW(rows[i].scenario);
        const double start = seconds();
        char scenario[64];
        snprintf(scenario, sizeof scenario, "%s", rows[i].scenario);
        for (char *p = scenario; *p; p++)
            if (*p == ' ') *p = '_';
        pd_child_run(&c, NULL, bin, "mpirun -np 3 %s --rank %s", self, scenario);
        const double took = seconds() - start;
        PD_CHECK_MSG(rows[i].code < 0 ? c.code != 0 : c.code == rows[i].code, "exit %d: %s", c.code, c.err);
        PD_CHECK_MSG(strstr(c.err, rows[i].says), "said \"%s\", not \"%s\"", c.err, rows[i].says);
        PD_CHECK_MSG(took < rows[i].limit, "took %.1f s", took);
        printf("%s: %.1f s\n", rows[i].scenario, took);
        pd_child_free(&c);
    }
    PD_ROW("");
}

int main(int argc, char **argv)
{
    char bin[256], self[4096], scenario[64];
    if (argc == 3 && !strcmp(argv[1], "--rank")) {
        snprintf(scenario, sizeof scenario, "%s", argv[2]);
        for (char *p = scenario; *p; p++)
            if (*p == '_') *p = ' ';
        return rank_main(scenario);
    }
    test_alone();
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    self[length > 0 ? length : 0] = '\0';
    if (pd_find_mpirun(bin)) {
        test_strange_launcher(self);
        test_ranks(bin, self);
        test_lost(bin, self);
    } else {
        PD_SKIP("no mpirun of Open MPI on PATH");
    }
    return pd_test_end();
}
