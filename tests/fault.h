/* fault.h: allocations that fail on purpose.
 *
 * For test programs whose first comment holds the words "ctest: fault": the linker then leads malloc, calloc, realloc,
 * aligned_alloc, strdup and asprintf of the program and of the static library through here (--wrap), and cJSON's
 * allocations come here by its hooks. What libc and other shared libraries allocate inside is not counted. */
#ifndef PD_FAULT_H
#define PD_FAULT_H

#include "engine/status.h"

#include <stdbool.h>

/* From now on allocation number n fails (1: the next one), once; 0: none. Counts from 0 again. */
void pd_fault_fail_at(long n);

/* Allocations since the last pd_fault_fail_at. */
long pd_fault_count(void);

/* Runs `work` with allocation 1, 2, 3, ... failing, until it gets by without meeting the failure. Each time it met it,
 * it must have returned PD_ENOMEM with a sentence (or PD_OK, where `may_ignore`: work that can do without). The last
 * run must have returned PD_OK. Returns how many allocations failed, or -1 after printing what was wrong on stderr.
 * `work` frees all it made; the leak sanitizer sees to it. */
typedef pd_status (*pd_fault_work)(void *arg, pd_err *err);
long pd_fault_sweep(const char *name, pd_fault_work work, void *arg, bool may_ignore);

#endif
