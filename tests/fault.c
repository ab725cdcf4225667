#include "tests/fault.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static atomic_long seen, fail_at;

/* Counts one allocation; true where it is to fail. */
static bool fails(void)
{
    const long n = atomic_fetch_add(&seen, 1) + 1;
    if (n != atomic_load(&fail_at)) return false;
    errno = ENOMEM;
    return true;
}

/* Names that the linker gives: a reference to `malloc` becomes __wrap_malloc, __real_malloc is the old one. */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
char *__wrap_strdup(const char *text);
int __wrap_asprintf(char **out, const char *fmt, ...);

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return fails() ? NULL : __real_realloc(old, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return fails() ? NULL : __real_aligned_alloc(alignment, size);
}

char *__wrap_strdup(const char *text)
{
    char *copy = fails() ? NULL : __real_malloc(strlen(text) + 1);
    return copy ? strcpy(copy, text) : NULL;
}

int __wrap_asprintf(char **out, const char *fmt, ...)
{
    if (fails()) return -1;
    va_list args;
    va_start(args, fmt);
    const int n = vasprintf(out, fmt, args);
    va_end(args);
    return n;
}

void pd_fault_fail_at(long n)
{
    cJSON_Hooks hooks = {__wrap_malloc, free};
    cJSON_InitHooks(&hooks);
    atomic_store(&fail_at, n);
    atomic_store(&seen, 0);
}

long pd_fault_count(void)
{
    return atomic_load(&seen);
}

long pd_fault_sweep(const char *name, pd_fault_work work, void *arg, bool may_ignore)
{
    for (long n = 1;; n++) {
        pd_err err = PD_ERR_INIT;
        pd_fault_fail_at(n);
        const pd_status status = work(arg, &err);
        const bool met = pd_fault_count() >= n;
        pd_fault_fail_at(0);
        if (!met && status == PD_OK) return n - 1;
        if (met && status == PD_ENOMEM && strstr(err.text, "memory")) continue;
        if (met && status == PD_OK && may_ignore) continue;
        fprintf(stderr, "%s: allocation %ld %s: %s: \"%s\"\n", name, n, met ? "failed" : "did not fail",
                pd_status_text(status), err.text);
        return -1;
    }
}
