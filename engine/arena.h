/* arena.h: memory with one lifetime: many allocations, freed together.
 *
 * Lifetimes of this program: the program (configuration, parameters), a plan (one per input shape), a batch (decoded
 * images, boxes; reset and used again). An arena grows by blocks of the heap; nothing in it is freed alone.
 * Every allocation is zeroed and aligned to PD_ALIGN bytes, and is poisoned behind its end under AddressSanitizer.
 * Not thread safe: one arena per thread, or lock outside. */
#ifndef PD_ARENA_H
#define PD_ARENA_H

#include "engine/status.h"

#include <stddef.h>

#define PD_ALIGN 64 /* a cache line and a 512-bit vector */

typedef struct pd_arena pd_arena;

/* A new empty arena; NULL when out of memory. pd_arena_free(NULL) is allowed. */
pd_arena *pd_arena_new(void);
void pd_arena_free(pd_arena *arena);

/* Forgets all allocations but keeps the memory for the next round: after the first rounds, no heap calls. */
void pd_arena_reset(pd_arena *arena);

/* Zeroed array of count * size bytes. Fails with PD_ENOMEM (also when the product overflows). count 0 gives a valid
 * pointer to nothing. */
pd_status pd_alloc(void *out, pd_arena *arena, size_t count, size_t size, pd_err *err);

/* PD_ALLOC(&array, arena, count, err): the element size comes from the pointer's type. */
#define PD_ALLOC(out, arena, count, err) pd_alloc((out), (arena), (count), sizeof **(out), (err))

/* Copies of strings, and formatted strings, in the arena. */
pd_status pd_strdup(char **out, pd_arena *arena, const char *text, pd_err *err);
pd_status pd_strndup(char **out, pd_arena *arena, const char *text, size_t length, pd_err *err);
pd_status pd_format(char **out, pd_arena *arena, pd_err *err, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Bytes of heap that the arena holds. */
size_t pd_arena_bytes(const pd_arena *arena);

/* a * b, or false where it does not fit. For sizes that come from files. */
static inline int pd_mul_fits(size_t a, size_t b, size_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

/* Grows a heap array to hold at least `need` elements (doubling). *array NULL and *capacity 0 to begin with; release
 * with free(). On failure both are untouched. */
pd_status pd_grow(void *array, size_t *capacity, size_t need, size_t size, pd_err *err);

#endif
