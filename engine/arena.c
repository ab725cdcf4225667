#include "engine/arena.h"
#include "engine/poison.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_BLOCK ((size_t)1 << 16)

/* A block is one heap allocation: this header, padded to PD_ALIGN, then `size` usable bytes. */
typedef struct block {
    struct block *next;
    size_t size;
} block;
_Static_assert(sizeof(block) <= PD_ALIGN, "a block's header fits in front of its data");

struct pd_arena {
    block *first, *current; /* blocks in the order of use; those behind current are empty and wait */
    size_t used;            /* bytes used of current */
    size_t bytes;           /* heap held */
};

static char *block_data(block *b)
{
    return (char *)b + PD_ALIGN;
}

pd_arena *pd_arena_new(void)
{
    return calloc(1, sizeof(pd_arena));
}

void pd_arena_free(pd_arena *arena)
{
    if (!arena) return;
    for (block *b = arena->first; b;) {
        block *next = b->next;
        PD_UNPOISON(block_data(b), b->size);
        free(b);
        b = next;
    }
    free(arena);
}

void pd_arena_reset(pd_arena *arena)
{
    for (block *b = arena->first; b; b = b->next) PD_POISON(block_data(b), b->size);
    arena->current = arena->first;
    arena->used = 0;
}

/* Makes `need` bytes available behind current->used, by the next waiting block or a new one. */
static pd_status more(pd_arena *arena, size_t need, pd_err *err)
{
    while (arena->current && arena->current->next) {
        arena->current = arena->current->next;
        arena->used = 0;
        if (arena->current->size >= need) return PD_OK;
    }
    size_t size = arena->bytes > FIRST_BLOCK ? arena->bytes : FIRST_BLOCK;
    if (size > ((size_t)1 << 26)) size = (size_t)1 << 26;
    if (size < need) size = need;
    if (size > SIZE_MAX - 2 * PD_ALIGN)
        return PD_FAIL(err, PD_ENOMEM, "out of memory: %zu bytes asked for", need);
    block *b = aligned_alloc(PD_ALIGN, (size + 2 * PD_ALIGN - 1) / PD_ALIGN * PD_ALIGN);
    if (!b) return PD_FAIL(err, PD_ENOMEM, "out of memory: %zu bytes asked for", need);
    b->next = NULL;
    b->size = size;
    PD_POISON(block_data(b), size);
    if (arena->current)
        arena->current->next = b;
    else
        arena->first = b;
    arena->current = b;
    arena->used = 0;
    arena->bytes += size;
    return PD_OK;
}

pd_status pd_alloc(void *out, pd_arena *arena, size_t count, size_t size, pd_err *err)
{
    size_t bytes;
    if (!pd_mul_fits(count, size, &bytes) || bytes > SIZE_MAX - 4 * PD_ALIGN)
        return PD_FAIL(err, PD_ENOMEM, "out of memory: %zu elements of %zu bytes asked for", count, size);
    const size_t step = (bytes + PD_RED_ZONE + PD_ALIGN - 1) / PD_ALIGN * PD_ALIGN;
    if (!arena->current || arena->current->size - arena->used < step) PD_TRY(more(arena, step, err));
    char *p = block_data(arena->current) + arena->used;
    arena->used += step;
    PD_UNPOISON(p, bytes);
    memset(p, 0, bytes);
    memcpy(out, &p, sizeof p);
    return PD_OK;
}

pd_status pd_strndup(char **out, pd_arena *arena, const char *text, size_t length, pd_err *err)
{
    char *copy;
    PD_TRY(pd_alloc(&copy, arena, length + 1, 1, err));
    memcpy(copy, text, length);
    *out = copy;
    return PD_OK;
}

pd_status pd_strdup(char **out, pd_arena *arena, const char *text, pd_err *err)
{
    return pd_strndup(out, arena, text, strlen(text), err);
}

pd_status pd_format(char **out, pd_arena *arena, pd_err *err, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    const int length = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *text = NULL;
    const pd_status status = length < 0 ? PD_FAIL(err, PD_EINVAL, "cannot format \"%s\"", fmt)
                                        : pd_alloc(&text, arena, (size_t)length + 1, 1, err);
    if (status == PD_OK) {
        vsnprintf(text, (size_t)length + 1, fmt, again);
        *out = text;
    }
    va_end(again);
    return status;
}

size_t pd_arena_bytes(const pd_arena *arena)
{
    return arena->bytes;
}

pd_status pd_grow(void *array, size_t *capacity, size_t need, size_t size, pd_err *err)
{
    if (need <= *capacity) return PD_OK;
    size_t room = *capacity < 16 ? 16 : *capacity, bytes;
    while (room < need) room = room > SIZE_MAX / 2 ? need : room * 2;
    if (!pd_mul_fits(room, size, &bytes))
        return PD_FAIL(err, PD_ENOMEM, "out of memory: %zu elements of %zu bytes asked for", need, size);
    void *old;
    memcpy(&old, array, sizeof old);
    void *grown = realloc(old, bytes);
    if (!grown) return PD_FAIL(err, PD_ENOMEM, "out of memory: %zu bytes asked for", bytes);
    memcpy(array, &grown, sizeof grown);
    *capacity = room;
    return PD_OK;
}
