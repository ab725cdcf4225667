/* thread.h: a pool of threads for loops, and a bounded queue between threads.
 *
 * A pool of n threads is the calling thread plus n - 1 workers. One loop runs on a pool at a time; loops do not nest.
 * pd_parallel cuts [0, n) into one contiguous range per thread, always the same for the same n and thread count, so a
 * reduction over per-thread partial sums in thread order is deterministic. */
#ifndef PD_THREAD_H
#define PD_THREAD_H

#include "engine/status.h"

#include <stddef.h>

typedef struct pd_pool pd_pool;

/* Number of processors this process may use (its affinity mask). */
int pd_cpu_count(void);

/* threads >= 1; 0 means pd_cpu_count(). pd_pool_free(NULL) is allowed. */
pd_status pd_pool_new(pd_pool **out, int threads, pd_err *err);
void pd_pool_free(pd_pool *pool);
int pd_pool_threads(const pd_pool *pool);

/* A pool on OpenMP's own team, the one that oneDNN computes with, so that its threads and ours are the same. Sets the
 * calling thread's OpenMP thread count; with `pin`, each thread of the team is bound to one processor of the process's
 * mask (unpinned teams now and then sit on one core). Never more threads than OMP_THREAD_LIMIT allows: oneDNN would leave
 * out the work of those that do not come. Where the build has no OpenMP this is pd_pool_new. */
pd_status pd_pool_new_compute(pd_pool **out, int threads, int pin, pd_err *err);

/* fn(arg, begin, end, thread): elements [begin, end) on thread number `thread` (0 = the caller's). */
typedef void (*pd_range_fn)(void *arg, size_t begin, size_t end, int thread);

/* One contiguous range per thread (empty ranges are not called); returns when all are done. pool NULL: one thread. */
void pd_parallel(pd_pool *pool, size_t n, pd_range_fn fn, void *arg);

/* Items handed out one by one, for work of uneven size; fn gets ranges of length 1. Which thread does which item
 * varies between runs. */
void pd_parallel_each(pd_pool *pool, size_t n, pd_range_fn fn, void *arg);

/* A queue of pointers with a fixed capacity, for any number of producers and consumers. */
typedef struct pd_queue pd_queue;
pd_status pd_queue_new(pd_queue **out, size_t capacity, pd_err *err);
void pd_queue_free(pd_queue *queue);
/* Waits for room. 0 when the queue was closed (the item was not taken). */
int pd_queue_push(pd_queue *queue, void *item);
/* Waits for an item. 0 when the queue is closed and empty. */
int pd_queue_pop(pd_queue *queue, void **item);
/* Wakes everyone: pushes fail from now on, pops drain what is left. */
void pd_queue_close(pd_queue *queue);

#endif
