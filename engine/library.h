/* library.h: shared libraries that are loaded at run time and come with this one (the plugins for CUDA and MPI).
 *
 * They are looked for beside the file that holds this code (program or libparadise.so), in ../lib of a build, and in the
 * library folder of an installation. */
#ifndef PD_LIBRARY_H
#define PD_LIBRARY_H

#include "engine/status.h"

#include <stdbool.h>
#include <stddef.h>

/* Writes the path of `file` ("libparadise_mpi.so") into path; false: it is in none of the places. */
bool pd_library_find(char *path, size_t size, const char *file);

/* Loads it; it stays loaded: libraries behind it keep threads. global: its symbols and those of the libraries it needs
 * are seen by others. PD_EDEVICE with the loader's words. */
pd_status pd_library_load(void **out, const char *path, bool global, pd_err *err);

#endif
