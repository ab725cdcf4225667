/* bench.h: what the benchmarks share: clock, medians, the machine's own limits, and peers as child processes.
 *
 * A peer is another program that does the same work (a Python text that the benchmark writes into a temporary file). It
 * prints "ready" when it has warmed up; then, for each line "N" on its standard input, it does N steps and answers with
 * the N times in seconds on one line. So the benchmark can take turns: a few steps of ours, a few of each peer, again
 * and again; medians over all turns then saw the same machine. A turn waits for a quiet machine and is done again when
 * other processes used more than a tenth of one processor meanwhile (the number of turns that never were alone is
 * printed as "disturbed"). A peer that cannot run is reported and left out. */
#ifndef PD_BENCH_H
#define PD_BENCH_H

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "engine/device.h"

#define MAX_SAMPLES 4096

typedef struct samples {
    double t[MAX_SAMPLES];
    int n;
    int disturbed; /* turns that were kept although the machine was busy */
} samples;

static inline double bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline void add_sample(samples *s, double t)
{
    if (s->n < MAX_SAMPLES) s->t[s->n++] = t;
}

static inline int bench_order(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Quantile q of the samples, 0.5 for the median; 0 without samples. */
static inline double quantile(const samples *s, double q)
{
    static double sorted[MAX_SAMPLES];
    if (s->n == 0) return 0;
    memcpy(sorted, s->t, (size_t)s->n * sizeof *sorted);
    qsort(sorted, (size_t)s->n, sizeof *sorted, bench_order);
    return sorted[(int)(q * (s->n - 1) + 0.5)];
}

/* ---- results for other programs ---- */

/* Appends one JSON object, on a line, to the file; path NULL: nothing. what: "training", "inference", ...; seconds: of
 * a batch. */
static inline void bench_json(const char *path, const pd_device *device, const char *net, const char *what, int batch,
                              double seconds)
{
    FILE *f = path ? fopen(path, "a") : NULL;
    if (path && !f) fprintf(stderr, "%s: cannot be written\n", path);
    if (!f) return;
    fprintf(f,
            "{\"side\": \"paradise\", \"how\": \"%s\", \"net\": \"%s\", \"what\": \"%s\", \"batch\": %d, \"ms\": %.4f, "
            "\"img_s\": %.2f}\n",
            pd_precision_text(device->precision), net, what, batch, seconds * 1e3, batch / seconds);
    fclose(f);
}

/* ---- company ---- */

/* Seconds of processor time that the machine has spent so far, and that one process has (its threads included). */
static inline double machine_busy(void)
{
    double v[8] = {0};
    FILE *f = fopen("/proc/stat", "r");
    if (!f) return 0;
    const int got =
        fscanf(f, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", v, v + 1, v + 2, v + 3, v + 4, v + 5, v + 6, v + 7);
    fclose(f);
    return got == 8 ? (v[0] + v[1] + v[2] + v[5] + v[6] + v[7]) / (double)sysconf(_SC_CLK_TCK) : 0;
}

static inline double process_busy(pid_t pid)
{
    char path[64];
    double user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    if (fscanf(f, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lf %lf", &user, &system) != 2)
        user = system = 0;
    fclose(f);
    return (user + system) / (double)sysconf(_SC_CLK_TCK);
}

/* Waits until the machine has been idle for a moment; gives up after `seconds`. */
static inline void wait_for_quiet(double seconds)
{
    const struct timespec moment = {0, 300000000};
    for (const double start = bench_now(); bench_now() - start < seconds;) {
        const double busy = machine_busy();
        nanosleep(&moment, NULL);
        if (machine_busy() - busy < 0.06) return;
    }
}

/* A turn is kept when other processes used less than this share of one processor meanwhile; the last try is kept anyway
 * and counted. */
#define COMPANY_ALLOWED 0.10
#define MAX_TRIES 4

typedef struct watch {
    double start, machine, own;
    pid_t pid;
    int first; /* samples before the turn */
} watch;

static inline watch watch_start(pid_t pid, const samples *s)
{
    return (watch){bench_now(), machine_busy(), process_busy(pid), pid, s->n};
}

/* Was the turn alone on the machine? If not its samples are dropped, unless it was the last try. */
static inline bool watch_keep(const watch *w, samples *s, bool last)
{
    const double others = (machine_busy() - w->machine) - (process_busy(w->pid) - w->own);
    if (others <= COMPANY_ALLOWED * (bench_now() - w->start) + 0.02) return true;
    if (last)
        s->disturbed++;
    else
        s->n = w->first;
    return last;
}

/* ---- peers ---- */

typedef struct peer {
    const char *name;
    pid_t pid;
    FILE *to, *from;
    samples s;
} peer;

/* Reads lines until one starts with `word`; other lines are shown. */
static inline bool peer_wait(peer *p, const char *word)
{
    char line[1024];
    while (fgets(line, sizeof line, p->from)) {
        if (!strncmp(line, word, strlen(word))) return true;
        fprintf(stderr, "%s: %s", p->name, line);
    }
    return false;
}

/* Starts argv (NULL-terminated) on all processors of `set`, with `threads` compute threads, and waits for "ready". */
static inline bool peer_start(peer *p, const char *name, const char *const *argv, int threads, const cpu_set_t *set)
{
    int in[2], out[2];
    memset(p, 0, sizeof *p);
    p->name = name;
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC)) return false; /* no peer holds another one's ends */
    p->pid = fork();
    if (p->pid == 0) {
        char count[16];
        snprintf(count, sizeof count, "%d", threads);
        setenv("OMP_NUM_THREADS", count, 1);
        setenv("OMP_PROC_BIND", "true", 1);
        sched_setaffinity(0, sizeof *set, set);
        dup2(in[0], 0);
        dup2(out[1], 1);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    p->to = fdopen(in[1], "w");
    p->from = fdopen(out[0], "r");
    if (p->pid > 0 && p->to && p->from && peer_wait(p, "ready")) return true;
    printf("peer %s: cannot run here (%s); left out\n", name, argv[0]);
    if (p->pid > 0) {
        kill(p->pid, SIGTERM);
        waitpid(p->pid, NULL, 0);
    }
    p->pid = 0;
    return false;
}

/* n steps, timed; false when the peer is gone. */
static inline bool peer_steps(peer *p, int n)
{
    fprintf(p->to, "%d\n", n);
    fflush(p->to);
    for (int i = 0; i < n; i++) {
        double t;
        if (fscanf(p->from, "%lf", &t) != 1) {
            printf("peer %s: stopped\n", p->name);
            waitpid(p->pid, NULL, 0);
            p->pid = 0;
            return false;
        }
        add_sample(&p->s, t);
    }
    return true;
}

/* One turn of n steps on a machine that was quiet before; waits at most `wait` seconds for that, 0: takes it as it is.
 */
static inline void peer_turn(peer *p, int n, double wait)
{
    for (int tries = wait > 0 ? 0 : MAX_TRIES - 1; tries < MAX_TRIES && p->pid > 0; tries++) {
        wait_for_quiet(wait);
        const watch w = watch_start(p->pid, &p->s);
        if (!peer_steps(p, n) || watch_keep(&w, &p->s, tries + 1 == MAX_TRIES)) return;
    }
}

static inline void peer_stop(peer *p)
{
    if (p->pid <= 0) return;
    fclose(p->to); /* end of input ends it */
    waitpid(p->pid, NULL, 0);
    fclose(p->from);
    p->pid = 0;
}

/* Writes `text` into a new temporary file; its path in `path` (at least 64 bytes). */
static inline bool write_script(char *path, const char *text)
{
    strcpy(path, "/tmp/pd_bench_XXXXXX");
    const int fd = mkstemp(path);
    if (fd < 0) return false;
    const bool ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    close(fd);
    return ok;
}

/* ---- the machine's limits ---- */

#if defined(__x86_64__)
#define FMA_CHAINS(T, FMA, set)                                                                                        \
    T a0 = set(0.f), a1 = set(1.f), a2 = set(2.f), a3 = set(3.f), a4 = set(4.f), a5 = set(5.f);                        \
    T a6 = set(6.f), a7 = set(7.f), a8 = set(8.f), a9 = set(9.f), aa = set(10.f), ab = set(11.f);                      \
    const T x = set(0.999f), y = set(0.001f);                                                                          \
    for (long i = 0; i < n; i++) {                                                                                     \
        a0 = FMA(a0, x, y), a1 = FMA(a1, x, y), a2 = FMA(a2, x, y), a3 = FMA(a3, x, y);                                \
        a4 = FMA(a4, x, y), a5 = FMA(a5, x, y), a6 = FMA(a6, x, y), a7 = FMA(a7, x, y);                                \
        a8 = FMA(a8, x, y), a9 = FMA(a9, x, y), aa = FMA(aa, x, y), ab = FMA(ab, x, y);                                \
        __asm__ volatile("" : "+v"(a0), "+v"(a1), "+v"(a2), "+v"(a3), "+v"(a4), "+v"(a5));                             \
        __asm__ volatile("" : "+v"(a6), "+v"(a7), "+v"(a8), "+v"(a9), "+v"(aa), "+v"(ab));                             \
    }
__attribute__((target("avx512f"))) static inline void fma_512(long n)
{
    FMA_CHAINS(__m512, _mm512_fmadd_ps, _mm512_set1_ps)
}
__attribute__((target("avx2,fma"))) static inline void fma_256(long n)
{
    FMA_CHAINS(__m256, _mm256_fmadd_ps, _mm256_set1_ps)
}
static inline void fma_work(void *arg, size_t begin, size_t end, int thread)
{
    (void)begin, (void)end, (void)thread;
    if (__builtin_cpu_supports("avx512f"))
        fma_512(*(const long *)arg);
    else
        fma_256(*(const long *)arg);
}
/* Multiply-adds that the pool's threads do in a second, times 2: FLOP/s. */
static inline double peak_flops(pd_pool *pool)
{
    long n = 4000000;
    const double lanes = __builtin_cpu_supports("avx512f") ? 16 : 8;
    samples s = {.n = 0};
    if (!__builtin_cpu_supports("fma")) return 0;
    for (int i = 0; i < 7; i++) {
        const double start = bench_now();
        pd_parallel(pool, (size_t)pd_pool_threads(pool), fma_work, &n);
        add_sample(&s, bench_now() - start);
    }
    return 24 * lanes * (double)n * pd_pool_threads(pool) / quantile(&s, 0.25);
}
#else
static inline double peak_flops(pd_pool *pool)
{
    (void)pool;
    return 0;
}
#endif

typedef struct copy_work {
    float *to;
    const float *from;
} copy_work;

static inline void copy_range(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    const copy_work *c = arg;
    memcpy(c->to + begin, c->from + begin, (end - begin) * sizeof(float));
}

/* Bytes a second of a copy that does not fit in the cache (read plus written), by the pool's threads. */
static inline double peak_bandwidth(pd_pool *pool)
{
    const size_t n = (size_t)32 << 20;
    copy_work c = {malloc(n * sizeof(float)), NULL};
    float *from = malloc(n * sizeof(float));
    c.from = from;
    double best = 0;
    if (c.to && from) {
        samples s = {.n = 0};
        memset(from, 1, n * sizeof(float));
        for (int i = 0; i < 5; i++) {
            const double start = bench_now();
            pd_parallel(pool, n, copy_range, &c);
            add_sample(&s, bench_now() - start);
        }
        best = 2.0 * (double)n * sizeof(float) / quantile(&s, 0.25);
    }
    free(c.to);
    free(from);
    return best;
}

#endif
