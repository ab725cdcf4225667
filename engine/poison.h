/* poison.h: memory that nobody may touch, where AddressSanitizer watches; nothing in other builds.
 *
 * Allocators of our own tell the sanitizer which of their bytes are handed out. PD_RED_ZONE bytes behind each piece
 * belong to nobody, so that a step beyond its end is seen and not taken for the neighbour's. */
#ifndef PD_POISON_H
#define PD_POISON_H

#if defined(__SANITIZE_ADDRESS__)
#define PD_POISONS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PD_POISONS 1
#endif
#endif
#ifdef PD_POISONS
#include <sanitizer/asan_interface.h>
#define PD_POISON(p, n) ASAN_POISON_MEMORY_REGION((p), (n))
#define PD_UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION((p), (n))
#define PD_RED_ZONE 64
#else
#define PD_POISON(p, n) ((void)0)
#define PD_UNPOISON(p, n) ((void)0)
#define PD_RED_ZONE 0
#endif

#endif
