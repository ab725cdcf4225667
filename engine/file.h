/* file.h: whole files in, whole files out.
 *
 * A file is written under a temporary name in the same folder, flushed to the disk (fsync) and renamed, then the
 * folder is flushed: under its final name there is the old file or the whole new one, never a part. */
#ifndef PD_FILE_H
#define PD_FILE_H

#include "engine/arena.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct pd_bytes {
    const unsigned char *data;
    size_t size;
} pd_bytes;

/* The file's bytes in the arena, with a 0 behind the end. Fails on files larger than `limit` bytes (0: no limit) before
 * allocating. */
pd_status pd_file_read(pd_bytes *out, const char *path, size_t limit, pd_arena *arena, pd_err *err);

/* The file mapped read-only; an empty file gives size 0. Release with pd_file_unmap. */
pd_status pd_file_map(pd_bytes *out, const char *path, pd_err *err);
void pd_file_unmap(pd_bytes *bytes);

/* A file being written. It has no name before the commit where the file system can do that, so that a process that is
 * killed leaves nothing behind; elsewhere it is called PATH.tmp-... meanwhile. */
typedef struct pd_out pd_out;
pd_status pd_out_open(pd_out **out, const char *path, pd_err *err);
/* Buffered; the first failure is kept and reported by pd_out_commit. */
void pd_out_write(pd_out *out, const void *data, size_t size);
void pd_out_printf(pd_out *out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The stdio stream, for writers that want one (libpng, libjpeg). */
FILE *pd_out_stream(pd_out *out);
/* Makes the file appear; frees out in any case. */
pd_status pd_out_commit(pd_out *out, pd_err *err);
/* Nothing is written; frees out. NULL allowed. */
void pd_out_cancel(pd_out *out);

/* All of it at once. */
pd_status pd_file_write(const char *path, const void *data, size_t size, pd_err *err);

/* mkdir -p. */
pd_status pd_make_dirs(const char *path, pd_err *err);
bool pd_file_exists(const char *path);
bool pd_is_dir(const char *path);
/* Whether two names lead to one file that is there. */
bool pd_is_same_file(const char *a, const char *b);

/* Joins folder and name with one '/' ("" and "." give the name alone; an absolute name stays as it is). */
pd_status pd_path_join(char **out, const char *dir, const char *name, pd_arena *arena, pd_err *err);

/* Names in a folder, sorted bytewise, without "." and ".."; kind: 0 everything, 'd' folders, 'f' regular files
 * (symbolic links are followed). */
pd_status pd_list_dir(char ***names, size_t *count, const char *path, char kind, pd_arena *arena, pd_err *err);

#endif
