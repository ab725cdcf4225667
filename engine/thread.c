#include "engine/thread.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#ifdef PD_HAVE_OPENMP
#include <omp.h>
#endif

typedef struct worker {
    pthread_t id;
    struct pd_pool *pool;
    int number;
} worker;

struct pd_pool {
    int threads; /* the caller's included */
    worker *workers;
    int started;
    pthread_mutex_t lock;
    pthread_cond_t work, idle;
    unsigned long round; /* counts loops; a change wakes the workers */
    int busy;            /* workers that have not finished this round */
    bool quit, each;
    bool team; /* runs on OpenMP's threads; no workers of its own */
    size_t n;
    pd_range_fn fn;
    void *arg;
    atomic_size_t next; /* of pd_parallel_each */
};

int pd_cpu_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    const int n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}

static void run_share(pd_pool *pool, int number)
{
    if (pool->each) {
        for (size_t i; (i = atomic_fetch_add(&pool->next, 1)) < pool->n;) pool->fn(pool->arg, i, i + 1, number);
        return;
    }
    const size_t t = (size_t)pool->threads, k = (size_t)number;
    const size_t base = pool->n / t, rest = pool->n % t;
    const size_t begin = base * k + (k < rest ? k : rest), end = begin + base + (k < rest);
    if (begin < end) pool->fn(pool->arg, begin, end, number);
}

static void *worker_main(void *arg)
{
    const worker *w = arg;
    pd_pool *pool = w->pool;
    unsigned long seen = 0;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (pool->round == seen && !pool->quit) pthread_cond_wait(&pool->work, &pool->lock);
        if (pool->quit) break;
        seen = pool->round;
        pthread_mutex_unlock(&pool->lock);
        run_share(pool, w->number);
        pthread_mutex_lock(&pool->lock);
        if (--pool->busy == 0) pthread_cond_signal(&pool->idle);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

pd_status pd_pool_new(pd_pool **out, int threads, pd_err *err)
{
    if (threads < 0) return PD_FAIL(err, PD_EINVAL, "%d threads: must be 1 or more, or 0 for all processors", threads);
    if (threads == 0) threads = pd_cpu_count();
    pd_pool *pool = calloc(1, sizeof *pool);
    if (!pool) return PD_FAIL(err, PD_ENOMEM, "out of memory for a thread pool");
    pool->threads = threads;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->idle, NULL);
    atomic_init(&pool->next, 0);
    pool->workers = calloc((size_t)threads, sizeof *pool->workers);
    if (!pool->workers) {
        pd_pool_free(pool);
        return PD_FAIL(err, PD_ENOMEM, "out of memory for %d threads", threads);
    }
    for (int i = 1; i < threads; i++) {
        worker *w = &pool->workers[i];
        w->pool = pool;
        w->number = i;
        if (pthread_create(&w->id, NULL, worker_main, w) != 0) {
            pd_pool_free(pool);
            return PD_FAIL(err, PD_EIO, "cannot start thread %d of %d", i + 1, threads);
        }
        pool->started = i;
    }
    *out = pool;
    return PD_OK;
}

#ifdef PD_HAVE_OPENMP
/* Binds the calling thread to the number-th processor of the set. */
static void bind_to(const cpu_set_t *set, int number)
{
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, set) || number-- > 0) continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        (void)sched_setaffinity(0, sizeof one, &one); /* a refusal costs speed only */
        return;
    }
}

pd_status pd_pool_new_compute(pd_pool **out, int threads, int pin, pd_err *err)
{
    if (threads < 0) return PD_FAIL(err, PD_EINVAL, "%d threads: must be 1 or more, or 0 for all processors", threads);
    const int cpus = pd_cpu_count();
    if (threads == 0) threads = cpus;
    if (threads > omp_get_thread_limit()) threads = omp_get_thread_limit();
    pd_pool *pool = NULL;
    PD_TRY(pd_pool_new(&pool, 1, err));
    pool->team = true;
    pool->threads = threads;
    omp_set_dynamic(0);
    omp_set_num_threads(threads);
    cpu_set_t set;
    if (pin && threads <= cpus && sched_getaffinity(0, sizeof set, &set) == 0) {
#pragma omp parallel num_threads(threads)
        bind_to(&set, omp_get_thread_num());
    }
    *out = pool;
    return PD_OK;
}
#else
pd_status pd_pool_new_compute(pd_pool **out, int threads, int pin, pd_err *err)
{
    (void)pin;
    return pd_pool_new(out, threads, err);
}
#endif

void pd_pool_free(pd_pool *pool)
{
    if (!pool) return;
    pthread_mutex_lock(&pool->lock);
    pool->quit = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 1; i <= pool->started; i++) pthread_join(pool->workers[i].id, NULL);
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->idle);
    free(pool->workers);
    free(pool);
}

int pd_pool_threads(const pd_pool *pool)
{
    return pool ? pool->threads : 1;
}

static void run_loop(pd_pool *pool, size_t n, pd_range_fn fn, void *arg, bool each)
{
    if (n == 0) return;
    if (!pool || pool->threads == 1) {
        if (!each) {
            fn(arg, 0, n, 0);
            return;
        }
        for (size_t i = 0; i < n; i++) fn(arg, i, i + 1, 0);
        return;
    }
#ifdef PD_HAVE_OPENMP
    if (pool->team) {
        pool->n = n;
        pool->fn = fn;
        pool->arg = arg;
        pool->each = each;
        atomic_store(&pool->next, 0);
        /* inside a caller's own parallel region the team is smaller than asked for */
#pragma omp parallel num_threads(pool->threads)
        for (int share = omp_get_thread_num(); share < pool->threads; share += omp_get_num_threads())
            run_share(pool, share);
        return;
    }
#endif
    pthread_mutex_lock(&pool->lock);
    pool->n = n;
    pool->fn = fn;
    pool->arg = arg;
    pool->each = each;
    atomic_store(&pool->next, 0);
    pool->busy = pool->threads - 1;
    pool->round++;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    run_share(pool, 0);
    pthread_mutex_lock(&pool->lock);
    while (pool->busy > 0) pthread_cond_wait(&pool->idle, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

void pd_parallel(pd_pool *pool, size_t n, pd_range_fn fn, void *arg)
{
    run_loop(pool, n, fn, arg, false);
}

void pd_parallel_each(pd_pool *pool, size_t n, pd_range_fn fn, void *arg)
{
    run_loop(pool, n, fn, arg, true);
}

struct pd_queue {
    pthread_mutex_t lock;
    pthread_cond_t room, item;
    size_t capacity, first, count;
    bool closed;
    void *slots[];
};

pd_status pd_queue_new(pd_queue **out, size_t capacity, pd_err *err)
{
    if (capacity == 0) return PD_FAIL(err, PD_EINVAL, "a queue needs room for at least one item");
    pd_queue *queue = calloc(1, sizeof *queue + capacity * sizeof queue->slots[0]);
    if (!queue) return PD_FAIL(err, PD_ENOMEM, "out of memory for a queue of %zu", capacity);
    queue->capacity = capacity;
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->room, NULL);
    pthread_cond_init(&queue->item, NULL);
    *out = queue;
    return PD_OK;
}

void pd_queue_free(pd_queue *queue)
{
    if (!queue) return;
    pthread_mutex_destroy(&queue->lock);
    pthread_cond_destroy(&queue->room);
    pthread_cond_destroy(&queue->item);
    free(queue);
}

int pd_queue_push(pd_queue *queue, void *item)
{
    pthread_mutex_lock(&queue->lock);
    while (queue->count == queue->capacity && !queue->closed) pthread_cond_wait(&queue->room, &queue->lock);
    const int taken = !queue->closed;
    if (taken) {
        queue->slots[(queue->first + queue->count++) % queue->capacity] = item;
        pthread_cond_signal(&queue->item);
    }
    pthread_mutex_unlock(&queue->lock);
    return taken;
}

int pd_queue_pop(pd_queue *queue, void **item)
{
    pthread_mutex_lock(&queue->lock);
    while (queue->count == 0 && !queue->closed) pthread_cond_wait(&queue->item, &queue->lock);
    const int got = queue->count > 0;
    if (got) {
        *item = queue->slots[queue->first];
        queue->first = (queue->first + 1) % queue->capacity;
        queue->count--;
        pthread_cond_signal(&queue->room);
    }
    pthread_mutex_unlock(&queue->lock);
    return got;
}

void pd_queue_close(pd_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->closed = true;
    pthread_cond_broadcast(&queue->room);
    pthread_cond_broadcast(&queue->item);
    pthread_mutex_unlock(&queue->lock);
}
