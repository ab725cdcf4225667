#include "engine/library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef PD_LIBDIR
#define PD_LIBDIR "lib"
#endif

/* The folder of the file (program or shared library) that holds this code; "" where it cannot be told. */
static void own_folder(char *folder, size_t size)
{
    static const char anchor = 0;
    Dl_info info;
    folder[0] = '\0';
    if (!dladdr(&anchor, &info) || !info.dli_fname) return;
    /* a program's dli_fname is its argv[0], which need not be a path */
    char *path = strchr(info.dli_fname, '/') ? realpath(info.dli_fname, NULL) : realpath("/proc/self/exe", NULL);
    char *slash = path ? strrchr(path, '/') : NULL;
    if (slash && (size_t)(slash - path) < size) {
        *slash = '\0';
        snprintf(folder, size, "%s", path);
    }
    free(path);
}

bool pd_library_find(char *path, size_t size, const char *file)
{
    static const char *const places[] = {".", "../lib", "../" PD_LIBDIR, "../../lib"};
    char folder[3072];
    own_folder(folder, sizeof folder);
    for (size_t i = 0; *folder && i < sizeof places / sizeof *places; i++) {
        const int length = snprintf(path, size, "%s/%s/%s", folder, places[i], file);
        if (length > 0 && (size_t)length < size && access(path, F_OK) == 0) return true;
    }
    return false;
}

pd_status pd_library_load(void **out, const char *path, bool global, pd_err *err)
{
    void *handle = dlopen(path, RTLD_NOW | (global ? RTLD_GLOBAL : RTLD_LOCAL));
    if (!handle) return PD_FAIL(err, PD_EDEVICE, "%s cannot be loaded: %s", path, dlerror());
    *out = handle;
    return PD_OK;
}
