/* Arenas, threads, random numbers and files. */
#include "engine/arena.h"
#include "engine/file.h"
#include "engine/rng.h"
#include "engine/thread.h"
#include "tests/pd_test.h"

#include <stdatomic.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_arena(void)
{
    pd_err err = PD_ERR_INIT;
    pd_arena *arena = pd_arena_new();
    PD_CHECK(arena);
    size_t held = 0;
    for (int round = 0; round < 3; round++) {
        for (size_t n = 0; n < 2000; n += 37) {
            unsigned char *p = NULL;
            PD_CHECK_OK(PD_ALLOC(&p, arena, n, &err));
            PD_CHECK((uintptr_t)p % PD_ALIGN == 0);
            for (size_t i = 0; i < n; i++)
                if (p[i]) PD_CHECK(!"zeroed");
            memset(p, 0xff, n);
        }
        if (round == 1) held = pd_arena_bytes(arena);
        if (round == 2) PD_CHECK_INT(pd_arena_bytes(arena), held);
        pd_arena_reset(arena);
    }
    double *big = NULL;
    PD_CHECK_FAILS(PD_ALLOC(&big, arena, SIZE_MAX / 4, &err), PD_ENOMEM, "out of memory");
    PD_CHECK(big == NULL);
    char *text = NULL;
    PD_CHECK_OK(pd_format(&text, arena, &err, "%s.%d", "layer", 3));
    PD_CHECK_STR(text, "layer.3");
    pd_arena_free(arena);
    pd_arena_free(NULL);
}

typedef struct {
    atomic_int seen[1000];
    int thread[1000];
} loop;

static void touch(void *arg, size_t begin, size_t end, int thread)
{
    loop *l = arg;
    for (size_t i = begin; i < end; i++) {
        atomic_fetch_add(&l->seen[i], 1);
        l->thread[i] = thread;
    }
}

static void check_pool(pd_pool *pool)
{
    const int threads = pd_pool_threads(pool);
    for (size_t n = 0; n < 9; n++) {
        loop l = {0};
        pd_parallel(pool, n, touch, &l);
        pd_parallel_each(pool, n, touch, &l);
        for (size_t i = 0; i < 1000; i++) PD_CHECK_INT(atomic_load(&l.seen[i]), i < n ? 2 : 0);
    }
    loop l = {0};
    pd_parallel(pool, 1000, touch, &l);
    for (size_t i = 1; i < 1000; i++) PD_CHECK(l.thread[i] >= l.thread[i - 1]);
    PD_CHECK_INT(l.thread[999], threads - 1);
    pd_pool_free(pool);
}

static void test_compute_pool(int limit)
{
    pd_err err = PD_ERR_INIT;
    for (int threads = 1; threads <= 4; threads++) {
        pd_pool *pool = NULL;
        PD_CHECK_OK(pd_pool_new_compute(&pool, threads, 0, &err));
        PD_CHECK(pd_pool_threads(pool) == threads || pd_pool_threads(pool) == limit); /* the latter with OpenMP */
        if (pool) check_pool(pool);
    }
}

/* Where the environment allows fewer threads than asked for, so many are used and the loops are whole. */
static void test_thread_limit(void)
{
    const pid_t child = fork();
    if (child == 0) {
        setenv("OMP_THREAD_LIMIT", "2", 1);
        execl("/proc/self/exe", "test_engine", "compute", (char *)NULL);
        _exit(2);
    }
    int status = -1;
    PD_CHECK(child > 0 && waitpid(child, &status, 0) == child);
    PD_CHECK_INT(status, 0);
}

static void test_pool(void)
{
    pd_err err = PD_ERR_INIT;
    for (int threads = 1; threads <= 4; threads++) {
        pd_pool *pool = NULL;
        PD_CHECK_OK(pd_pool_new(&pool, threads, &err));
        PD_CHECK_INT(pd_pool_threads(pool), threads);
        if (pool) check_pool(pool);
    }
    pd_pool *none = NULL;
    PD_CHECK_FAILS(pd_pool_new(&none, -1, &err), PD_EINVAL, "-1 threads");
}

static void produce(void *arg, size_t begin, size_t end, int thread)
{
    (void)thread;
    static int items[500];
    pd_queue *queue = arg;
    for (size_t i = begin; i < end; i++) {
        if (i == 0) { /* the consumer */
            int count = 0;
            void *item;
            while (count < 500 && pd_queue_pop(queue, &item)) count++;
            PD_CHECK_INT(count, 500);
        } else {
            for (int k = 0; k < 500; k++) PD_CHECK(pd_queue_push(queue, &items[k]));
        }
    }
}

static void test_queue(void)
{
    pd_err err = PD_ERR_INIT;
    pd_queue *queue = NULL;
    pd_pool *pool = NULL;
    PD_CHECK_OK(pd_queue_new(&queue, 3, &err));
    PD_CHECK_OK(pd_pool_new(&pool, 2, &err));
    pd_parallel(pool, 2, produce, queue);
    pd_queue_close(queue);
    void *item;
    PD_CHECK(!pd_queue_push(queue, &err));
    PD_CHECK(!pd_queue_pop(queue, &item));
    pd_pool_free(pool);
    pd_queue_free(queue);
}

static void test_rng(void)
{
    /* Philox4x32-10, known answers of the authors' Random123 (kat_vectors). */
    static const uint32_t ones[2] = {0xffffffffu, 0xffffffffu}, zero[2] = {0, 0};
    static const uint32_t pi[2] = {0xa4093822u, 0x299f31d0u};
    uint32_t out[4];
    pd_philox(out, zero, 0, 0, 0, 0);
    PD_CHECK(out[0] == 0x6627e8d5u && out[1] == 0xe169c58du && out[2] == 0xbc57ac4cu && out[3] == 0x9b00dbd8u);
    pd_philox(out, ones, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu);
    PD_CHECK(out[0] == 0x408f276du && out[1] == 0x41c83b0eu && out[2] == 0xa20bc7c6u && out[3] == 0x6d5451fdu);
    pd_philox(out, pi, 0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u);
    PD_CHECK(out[0] == 0xd16cfe09u && out[1] == 0x94fdccebu && out[2] == 0x5001e420u && out[3] == 0x24126ea1u);

    pd_rng r = pd_rng_make(7, 1, 2), s = pd_rng_make(7, 1, 2), other = pd_rng_make(7, 2, 1);
    int equal = 0;
    double sum = 0, square = 0;
    for (int i = 0; i < 20000; i++) {
        const uint32_t v = pd_rng_u32(&r);
        PD_CHECK(v == pd_rng_u32(&s));
        equal += v == pd_rng_u32(&other);
        const double z = pd_rng_normal(&other);
        sum += z;
        square += z * z;
    }
    PD_CHECK(equal < 3);
    PD_CHECK_NEAR(sum / 20000, 0, 0.03);
    PD_CHECK_NEAR(square / 20000, 1, 0.05);
    uint32_t perm[10];
    for (uint32_t i = 0; i < 10; i++) perm[i] = i;
    pd_rng_shuffle(&r, perm, 10);
    unsigned mask = 0;
    for (int i = 0; i < 10; i++) mask |= 1u << perm[i];
    PD_CHECK_INT(mask, 1023);
    for (int i = 0; i < 1000; i++) PD_CHECK(pd_rng_below(&r, 3) < 3);
}

static void test_file(void)
{
    pd_err err = PD_ERR_INIT;
    char dir[256], path[300];
    PD_CHECK(pd_test_dir(dir, "engine"));
    pd_arena *arena = pd_arena_new();
    snprintf(path, sizeof path, "%s/a/b/c.txt", dir);
    char folder[300];
    snprintf(folder, sizeof folder, "%s/a/b", dir);
    PD_CHECK_OK(pd_make_dirs(folder, &err));
    PD_CHECK_OK(pd_make_dirs(folder, &err));
    PD_CHECK_OK(pd_file_write(path, "hello", 5, &err));
    pd_bytes bytes;
    PD_CHECK_OK(pd_file_read(&bytes, path, 0, arena, &err));
    PD_CHECK_INT(bytes.size, 5);
    PD_CHECK_STR((const char *)bytes.data, "hello");
    PD_CHECK_FAILS(pd_file_read(&bytes, path, 4, arena, &err), PD_EFORMAT, "5 bytes, more than the 4 allowed");
    PD_CHECK_FAILS(pd_file_read(&bytes, folder, 0, arena, &err), PD_EIO, "is a folder");
    PD_CHECK_OK(pd_file_map(&bytes, path, &err));
    PD_CHECK(bytes.size == 5 && !memcmp(bytes.data, "hello", 5));
    pd_file_unmap(&bytes);

    /* Not committed: the old file stays, the folder stays clean. */
    pd_out *out = NULL;
    PD_CHECK_OK(pd_out_open(&out, path, &err));
    pd_out_printf(out, "%d", 12345678);
    pd_out_cancel(out);
    char **names = NULL;
    size_t count = 0;
    PD_CHECK_OK(pd_list_dir(&names, &count, folder, 0, arena, &err));
    PD_CHECK_INT(count, 1);
    if (count == 1) PD_CHECK_STR(names[0], "c.txt");
    PD_CHECK_OK(pd_file_read(&bytes, path, 0, arena, &err));
    PD_CHECK_STR((const char *)bytes.data, "hello");
    PD_CHECK_FAILS(pd_file_write("/nonexistent/x", "", 0, &err), PD_EIO, "/nonexistent/x");
    char *joined = NULL;
    PD_CHECK_OK(pd_path_join(&joined, "a/", "b", arena, &err));
    PD_CHECK_STR(joined, "a/b");
    PD_CHECK_OK(pd_path_join(&joined, "a", "/b", arena, &err));
    PD_CHECK_STR(joined, "/b");
    unlink(path);
    rmdir(folder);
    pd_arena_free(arena);
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "compute")) {
        test_compute_pool(2);
        return pd_test_end();
    }
    test_arena();
    test_pool();
    test_thread_limit();
    test_compute_pool(4);
    test_queue();
    test_rng();
    test_file();
    return pd_test_end();
}
