#define ZLIB_CONST /* input is const */
#include "engine/zip_store.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define LOCAL 0x04034b50u    /* "PK\3\4": in front of an entry's data */
#define TRAILER 0x08074b50u  /* behind it: checksum and sizes */
#define CENTRAL 0x02014b50u  /* an entry of the directory */
#define END 0x06054b50u      /* behind the directory */
#define END64 0x06064b50u    /* the same with wide numbers, */
#define LOCATE64 0x07064b50u /* and where that is */
#define WIDE32 0xffffffffu   /* "see the ZIP64 field" */
#define BEST_RATIO 1032      /* deflate cannot do better */

static uint16_t u16(const unsigned char *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t u32(const unsigned char *p)
{
    return u16(p) | (uint32_t)u16(p + 2) << 16;
}

static uint64_t u64(const unsigned char *p)
{
    return u32(p) | (uint64_t)u32(p + 4) << 32;
}

bool pd_zip_looks_like(pd_bytes file)
{
    return file.size >= 22 && (u32(file.data) == LOCAL || u32(file.data) == END);
}

/* ---- reading ---- */

/* The directory: where it is, and how many entries it has. */
typedef struct directory {
    uint64_t at, size, count;
} directory;

#define CUT(z, what) PD_FAIL(err, PD_EFORMAT, "%s: a cut or damaged ZIP archive: %s", (z)->name, what)

static pd_status find_directory(directory *out, const pd_zip *z, pd_err *err)
{
    const unsigned char *d = z->file.data;
    const size_t size = z->file.size, last = size >= 22 ? size - 22 : 0;
    size_t at = last;
    if (size < 22) return CUT(z, "too short");
    while (u32(d + at) != END || at + 22 + u16(d + at + 20) != size) {
        if (at == 0 || last - at == 0xffff) return CUT(z, "no directory at its end");
        at--;
    }
    directory dir = {.at = u32(d + at + 16), .size = u32(d + at + 12), .count = u16(d + at + 10)};
    if (at >= 20 && u32(d + at - 20) == LOCATE64) {
        const uint64_t wide = u64(d + at - 12);
        if (size < 56 || wide > size - 56 || u32(d + wide) != END64)
            return CUT(z, "no ZIP64 directory where one should be");
        dir = (directory){.at = u64(d + wide + 48), .size = u64(d + wide + 40), .count = u64(d + wide + 32)};
    }
    if (u16(d + at + 4) != u16(d + at + 6)) return CUT(z, "one of several disks");
    if (dir.at > size || dir.size > size - dir.at) return CUT(z, "the directory goes beyond its end");
    if (dir.count > dir.size / 46) return CUT(z, "the directory is too short for its entries");
    *out = dir;
    return PD_OK;
}

/* The numbers that did not fit, from the ZIP64 field among an entry's extra fields. */
static bool read_wide(uint64_t *size, uint64_t *stored, uint64_t *header, const unsigned char *extra, size_t length)
{
    uint64_t *const wide[3] = {*size == WIDE32 ? size : NULL, *stored == WIDE32 ? stored : NULL,
                               *header == WIDE32 ? header : NULL};
    if (!wide[0] && !wide[1] && !wide[2]) return true;
    while (length >= 4) {
        const size_t n = u16(extra + 2);
        if (n > length - 4) return false;
        if (u16(extra) == 1) {
            const unsigned char *p = extra + 4, *end = p + n;
            for (int i = 0; i < 3; i++) {
                if (!wide[i]) continue;
                if (end - p < 8) return false;
                *wide[i] = u64(p);
                p += 8;
            }
            return true;
        }
        extra += 4 + n;
        length -= 4 + n;
    }
    return false;
}

static pd_status read_entry(pd_zip_entry *e, size_t *used, const pd_zip *z, const unsigned char *p, size_t left,
                            pd_arena *arena, pd_err *err)
{
    char *name;
    if (left < 46 || u32(p) != CENTRAL) return CUT(z, "a directory entry without its signature");
    const size_t n_name = u16(p + 28), n_extra = u16(p + 30), n_comment = u16(p + 32);
    if (n_name + n_extra + n_comment > left - 46) return CUT(z, "a directory entry goes beyond the directory");
    PD_TRY(pd_strndup(&name, arena, (const char *)p + 46, n_name, err));
    if (strlen(name) != n_name || !n_name) return CUT(z, "an entry without a proper name");
    uint64_t size = u32(p + 24), stored = u32(p + 20), header = u32(p + 42);
    if (!read_wide(&size, &stored, &header, p + 46 + n_name, n_extra)) return CUT(z, "wide sizes are missing");
    *e = (pd_zip_entry){.name = name, .method = u16(p + 10), .crc = u32(p + 16)};
    if (u16(p + 8) & 1) return PD_FAIL(err, PD_EFORMAT, "%s: %s: is encrypted", z->name, name);
    if (e->method != 0 && e->method != 8)
        return PD_FAIL(err, PD_EFORMAT, "%s: %s: compression method %d; stored (0) and deflated (8) are read", z->name,
                       name, e->method);
    if (header > z->file.size || stored > z->file.size - header)
        return PD_FAIL(err, PD_EFORMAT, "%s: %s: %llu bytes, more than the file has", z->name, name,
                       (unsigned long long)stored);
    if (e->method ? size / BEST_RATIO > stored : size != stored)
        return PD_FAIL(err, PD_EFORMAT, "%s: %s: %llu bytes cannot come from %llu", z->name, name,
                       (unsigned long long)size, (unsigned long long)stored);
    e->size = (size_t)size;
    e->stored = (size_t)stored;
    e->header = (size_t)header;
    *used = 46 + n_name + n_extra + n_comment;
    return PD_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const pd_zip_entry *)a)->name, ((const pd_zip_entry *)b)->name);
}

pd_status pd_zip_open(pd_zip *out, const char *name, pd_bytes file, pd_arena *arena, pd_err *err)
{
    pd_zip z = {.name = name, .file = file};
    directory dir;
    PD_TRY(find_directory(&dir, &z, err));
    z.count = (size_t)dir.count;
    PD_TRY(PD_ALLOC(&z.entries, arena, z.count, err));
    size_t at = (size_t)dir.at, left = (size_t)dir.size, used;
    for (size_t i = 0; i < z.count; i++, at += used, left -= used)
        PD_TRY(read_entry(&z.entries[i], &used, &z, file.data + at, left, arena, err));
    if (z.count) qsort(z.entries, z.count, sizeof *z.entries, by_name);
    for (size_t i = 1; i < z.count; i++)
        if (!strcmp(z.entries[i - 1].name, z.entries[i].name))
            return PD_FAIL(err, PD_EFORMAT, "%s: %s: is there twice", name, z.entries[i].name);
    *out = z;
    return PD_OK;
}

const pd_zip_entry *pd_zip_find(const pd_zip *z, const char *name)
{
    const pd_zip_entry key = {.name = name};
    return z->count ? bsearch(&key, z->entries, z->count, sizeof key, by_name) : NULL;
}

static pd_status inflate_entry(pd_bytes *out, const pd_zip *z, const pd_zip_entry *e, const unsigned char *from,
                               pd_arena *arena, pd_err *err)
{
    unsigned char *to;
    z_stream s = {0};
    PD_TRY(pd_alloc(&to, arena, e->size + 1, 1, err));
    if (inflateInit2(&s, -MAX_WBITS) != Z_OK) return PD_FAIL(err, PD_ENOMEM, "%s: %s: out of memory", z->name, e->name);
    size_t in = e->stored, room = e->size + 1; /* one more than should come shows when more comes */
    int code = Z_OK;
    s.next_in = from;
    s.next_out = to;
    while (code == Z_OK) {
        const size_t a = in < UINT32_MAX ? in : UINT32_MAX, b = room < UINT32_MAX ? room : UINT32_MAX;
        s.avail_in = (uInt)a;
        s.avail_out = (uInt)b;
        code = inflate(&s, Z_NO_FLUSH);
        in -= a - s.avail_in;
        room -= b - s.avail_out;
        if (code == Z_OK && s.avail_in == a && s.avail_out == b) code = Z_BUF_ERROR;
    }
    (void)inflateEnd(&s);
    if (code == Z_MEM_ERROR) return PD_FAIL(err, PD_ENOMEM, "%s: %s: out of memory", z->name, e->name);
    if (code != Z_STREAM_END || room != 1)
        return PD_FAIL(err, PD_EFORMAT, "%s: %s: damaged: does not inflate to %zu bytes", z->name, e->name, e->size);
    *out = (pd_bytes){to, e->size};
    return PD_OK;
}

pd_status pd_zip_read(pd_bytes *out, const pd_zip *z, const pd_zip_entry *e, pd_arena *arena, pd_err *err)
{
    const unsigned char *p = z->file.data + e->header;
    const size_t left = z->file.size - e->header, skip = left < 30 ? 0 : 30 + (size_t)u16(p + 26) + u16(p + 28);
    if (!skip || u32(p) != LOCAL || skip > left || e->stored > left - skip)
        return PD_FAIL(err, PD_EFORMAT, "%s: %s: its data goes beyond the file's end", z->name, e->name);
    pd_bytes data = {p + skip, e->stored};
    if (e->method) PD_TRY(inflate_entry(&data, z, e, p + skip, arena, err));
    if ((uint32_t)crc32_z(crc32_z(0, NULL, 0), data.data, data.size) != e->crc)
        return PD_FAIL(err, PD_EFORMAT, "%s: %s: damaged: its checksum differs", z->name, e->name);
    *out = data;
    return PD_OK;
}

/* ---- writing ---- */

typedef struct written {
    char *name;
    uint64_t size, header;
    uint32_t crc;
} written;

struct pd_zip_writer {
    pd_out *out;
    pd_arena *arena;
    char *path;
    written *entries;
    size_t count, room;
    uint64_t at;  /* bytes of the file so far */
    uint64_t put; /* bytes of the entry so far */
    bool open;
};

static void set(unsigned char *p, int bytes, uint64_t v)
{
    for (int i = 0; i < bytes; i++, v >>= 8) p[i] = (unsigned char)v;
}

static void emit(pd_zip_writer *w, const void *data, size_t size)
{
    pd_out_write(w->out, data, size);
    w->at += size;
}

pd_status pd_zip_create(pd_zip_writer **out, const char *path, pd_err *err)
{
    pd_zip_writer *w = calloc(1, sizeof *w);
    if (w) w->arena = pd_arena_new();
    pd_status status = w && w->arena ? PD_OK : PD_FAIL(err, PD_ENOMEM, "%s: out of memory", path);
    if (status == PD_OK) status = pd_strdup(&w->path, w->arena, path, err);
    if (status == PD_OK) status = pd_out_open(&w->out, path, err);
    if (status != PD_OK) {
        pd_zip_cancel(w);
        return status;
    }
    *out = w;
    return PD_OK;
}

void pd_zip_cancel(pd_zip_writer *w)
{
    if (!w) return;
    pd_out_cancel(w->out);
    pd_arena_free(w->arena);
    free(w->entries);
    free(w);
}

/* Ends the entry that is open: checksum and sizes, which were not known in front of it. */
static pd_status end_entry(pd_zip_writer *w, pd_err *err)
{
    unsigned char t[24];
    if (!w->open) return PD_OK;
    const written *e = &w->entries[w->count - 1];
    if (w->put != e->size)
        return PD_FAIL(err, PD_EINVAL, "%s: %s: %llu bytes were put, %llu announced", w->path, e->name,
                       (unsigned long long)w->put, (unsigned long long)e->size);
    const int wide = e->size >= WIDE32 ? 8 : 4;
    set(t, 4, TRAILER);
    set(t + 4, 4, e->crc);
    set(t + 8, wide, e->size);
    set(t + 8 + wide, wide, e->size);
    emit(w, t, 8 + 2 * (size_t)wide);
    w->open = false;
    return PD_OK;
}

/* What local header and directory entry share: version to unpack, flags (trailer, UTF-8), method, date 1980-01-01. */
static void common(unsigned char *p, const written *e, bool known)
{
    set(p, 2, e->size >= WIDE32 || e->header >= WIDE32 ? 45 : 20);
    set(p + 2, 2, 0x0808);
    set(p + 8, 2, 0x0021);
    if (known) {
        set(p + 10, 4, e->crc);
        set(p + 14, 4, e->size < WIDE32 ? e->size : WIDE32);
        set(p + 18, 4, e->size < WIDE32 ? e->size : WIDE32);
    } else if (e->size >= WIDE32) {
        set(p + 14, 8, UINT64_MAX); /* both sizes: see the ZIP64 field */
    }
    set(p + 22, 2, strlen(e->name));
}

pd_status pd_zip_begin(pd_zip_writer *w, const char *name, size_t size, pd_err *err)
{
    unsigned char head[30] = {0}, extra[20 + 4 + PD_ALIGN] = {0};
    PD_TRY(end_entry(w, err));
    if (strlen(name) > 0xffff) return PD_FAIL(err, PD_EINVAL, "%s: a name of %zu bytes", w->path, strlen(name));
    PD_TRY(pd_grow(&w->entries, &w->room, w->count + 1, sizeof *w->entries, err));
    written e = {.size = size, .header = w->at};
    PD_TRY(pd_strdup(&e.name, w->arena, name, err));
    size_t n_extra = 0;
    if (size >= WIDE32) { /* both sizes, zero like the narrow ones: they follow in the trailer */
        set(extra, 2, 1);
        set(extra + 2, 2, 16);
        n_extra = 20;
    }
    /* As PyTorch pads: a field "FB" of so many bytes that the data is aligned. */
    const size_t pad = (PD_ALIGN - (size_t)(w->at + 30 + strlen(name) + n_extra + 4) % PD_ALIGN) % PD_ALIGN;
    set(extra + n_extra, 2, 0x4246);
    set(extra + n_extra + 2, 2, pad);
    memset(extra + n_extra + 4, 'Z', pad);
    n_extra += 4 + pad;
    set(head, 4, LOCAL);
    common(head + 4, &e, false);
    set(head + 28, 2, n_extra);
    emit(w, head, sizeof head);
    emit(w, name, strlen(name));
    emit(w, extra, n_extra);
    w->entries[w->count++] = e;
    w->put = 0;
    w->open = true;
    return PD_OK;
}

void pd_zip_put(pd_zip_writer *w, const void *data, size_t size)
{
    written *e = &w->entries[w->count - 1];
    if (size <= e->size - w->put) {
        emit(w, data, size);
        if (size) e->crc = (uint32_t)crc32_z(e->crc, data, size);
        w->put += size;
    } else {
        w->put = UINT64_MAX; /* more than announced: the commit fails */
    }
}

static void emit_directory(pd_zip_writer *w)
{
    for (size_t i = 0; i < w->count; i++) {
        const written *e = &w->entries[i];
        unsigned char head[46] = {0}, extra[28];
        size_t n = 4;
        for (int k = 0; k < 2 && e->size >= WIDE32; k++, n += 8) set(extra + n, 8, e->size);
        if (e->header >= WIDE32) {
            set(extra + n, 8, e->header);
            n += 8;
        }
        set(extra, 2, 1);
        set(extra + 2, 2, n - 4);
        if (n == 4) n = 0;
        set(head, 4, CENTRAL);
        set(head + 4, 2, 45);
        common(head + 6, e, true);
        set(head + 30, 2, n);
        set(head + 42, 4, e->header < WIDE32 ? e->header : WIDE32);
        emit(w, head, sizeof head);
        emit(w, e->name, strlen(e->name));
        emit(w, extra, n);
    }
}

static void emit_end(pd_zip_writer *w, uint64_t from)
{
    unsigned char end64[56] = {0}, locate[20] = {0}, end[22] = {0};
    const uint64_t to = w->at;
    const bool wide = w->count >= 0xffff || from >= WIDE32 || to - from >= WIDE32;
    if (wide) {
        set(end64, 4, END64);
        set(end64 + 4, 8, sizeof end64 - 12);
        set(end64 + 12, 2, 45);
        set(end64 + 14, 2, 45);
        set(end64 + 24, 8, w->count);
        set(end64 + 32, 8, w->count);
        set(end64 + 40, 8, to - from);
        set(end64 + 48, 8, from);
        emit(w, end64, sizeof end64);
        set(locate, 4, LOCATE64);
        set(locate + 8, 8, to);
        set(locate + 16, 4, 1);
        emit(w, locate, sizeof locate);
    }
    set(end, 4, END);
    set(end + 8, 2, wide ? 0xffff : w->count);
    set(end + 10, 2, wide ? 0xffff : w->count);
    set(end + 12, 4, wide ? WIDE32 : to - from);
    set(end + 16, 4, wide ? WIDE32 : from);
    emit(w, end, sizeof end);
}

pd_status pd_zip_commit(pd_zip_writer *w, pd_err *err)
{
    pd_status status = end_entry(w, err);
    if (status == PD_OK) {
        const uint64_t from = w->at;
        emit_directory(w);
        emit_end(w, from);
        status = pd_out_commit(w->out, err);
        w->out = NULL;
    }
    pd_zip_cancel(w);
    return status;
}
