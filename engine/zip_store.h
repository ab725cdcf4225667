/* zip_store.h: ZIP archives as PyTorch keeps its files in them: reading from memory, writing without compression.
 *
 * Format: PKWARE's APPNOTE 6.3, entries stored (0) or deflated (8), with ZIP64's sizes. Reading goes by the central
 * directory; every offset and size is held against the file before it is used. Encrypted entries, other compression
 * methods, several disks and names that appear twice are errors. Errors name the archive and the entry.
 *
 * Threads: an open archive may be read by many; a writer belongs to one. */
#ifndef PD_ZIP_STORE_H
#define PD_ZIP_STORE_H

#include "engine/file.h"

typedef struct pd_zip_entry {
    const char *name;
    size_t size, stored; /* bytes, and bytes in the archive */
    int method;          /* 0: stored, 8: deflated */
    uint32_t crc;
    size_t header; /* offset of the local header */
} pd_zip_entry;

typedef struct pd_zip {
    const char *name; /* of the archive, for errors */
    pd_bytes file;
    pd_zip_entry *entries; /* sorted by name */
    size_t count;
} pd_zip;

/* Whether the bytes begin like an archive. */
bool pd_zip_looks_like(pd_bytes file);

/* Reads the directory into the arena; the bytes and `name` are kept, not copied. */
pd_status pd_zip_open(pd_zip *out, const char *name, pd_bytes file, pd_arena *arena, pd_err *err);

/* NULL where there is none. */
const pd_zip_entry *pd_zip_find(const pd_zip *zip, const char *name);

/* An entry's bytes, held against its checksum: a part of the archive, or inflated into the arena. */
pd_status pd_zip_read(pd_bytes *out, const pd_zip *zip, const pd_zip_entry *entry, pd_arena *arena, pd_err *err);

/* ---- writing ---- */

typedef struct pd_zip_writer pd_zip_writer;

pd_status pd_zip_create(pd_zip_writer **out, const char *path, pd_err *err);
/* Begins an entry of `size` bytes, whose first byte lies at a multiple of PD_ALIGN; then they are put, in any pieces.
 */
pd_status pd_zip_begin(pd_zip_writer *w, const char *name, size_t size, pd_err *err);
void pd_zip_put(pd_zip_writer *w, const void *data, size_t size);
/* Writes the directory and makes the file appear; frees the writer in any case. */
pd_status pd_zip_commit(pd_zip_writer *w, pd_err *err);
void pd_zip_cancel(pd_zip_writer *w); /* NULL allowed */

#endif
