#include "engine/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static pd_status io_error(pd_err *err, const char *path, const char *what)
{
    return PD_FAIL(err, PD_EIO, "%s: cannot %s: %s", path, what, strerror(errno));
}

/* Opens a regular file for reading and tells its size. */
static pd_status open_read(int *fd_out, size_t *size, const char *path, pd_err *err)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return io_error(err, path, "open");
    struct stat st;
    if (fstat(fd, &st) != 0) {
        const pd_status status = io_error(err, path, "stat");
        close(fd);
        return status;
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return PD_FAIL(err, PD_EIO, "%s: is %s, not a regular file", path,
                       S_ISDIR(st.st_mode) ? "a folder" : "special");
    }
    *fd_out = fd;
    *size = (size_t)st.st_size;
    return PD_OK;
}

pd_status pd_file_read(pd_bytes *out, const char *path, size_t limit, pd_arena *arena, pd_err *err)
{
    int fd;
    size_t size;
    PD_TRY(open_read(&fd, &size, path, err));
    pd_status status = PD_OK;
    unsigned char *data = NULL;
    if (limit && size > limit) {
        status = PD_FAIL(err, PD_EFORMAT, "%s: %zu bytes, more than the %zu allowed", path, size, limit);
        goto done;
    }
    PD_TRY_DONE(pd_alloc(&data, arena, size + 1, 1, err));
    size_t have = 0;
    while (have < size) {
        const ssize_t got = read(fd, data + have, size - have);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            status = io_error(err, path, "read");
            goto done;
        }
        if (got == 0) break; /* the file shrank meanwhile: what there is */
        have += (size_t)got;
    }
    data[have] = 0;
    *out = (pd_bytes){data, have};
done:
    close(fd);
    return status;
}

pd_status pd_file_map(pd_bytes *out, const char *path, pd_err *err)
{
    int fd;
    size_t size;
    PD_TRY(open_read(&fd, &size, path, err));
    void *data = NULL;
    if (size > 0) {
        data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            const pd_status status = io_error(err, path, "map");
            close(fd);
            return status;
        }
    }
    close(fd);
    *out = (pd_bytes){data, size};
    return PD_OK;
}

void pd_file_unmap(pd_bytes *bytes)
{
    if (bytes->data) munmap((void *)(uintptr_t)bytes->data, bytes->size);
    *bytes = (pd_bytes){NULL, 0};
}

struct pd_out {
    FILE *file;
    char *path, *temp;
    bool nameless; /* the file gets the name `temp` only in the commit */
    int error;     /* errno of the first failed write */
};

static void out_free(pd_out *out)
{
    free(out->path);
    free(out->temp);
    free(out);
}

/* The folder of a path: "." where it names none; NULL when out of memory. */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return !slash ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

#define LINK_ROOM 40 /* of "/proc/self/fd/N" */

/* A file without a name beside `path`: nothing remains of it when the process is killed. -1 where the file system has no
 * such files, or where they could not be given a name. */
static int open_nameless(const char *path)
{
    char link[LINK_ROOM];
    char *dir = folder_of(path);
    int fd = dir ? open(dir, O_WRONLY | O_TMPFILE | O_CLOEXEC, 0666) : -1;
    free(dir);
    if (fd < 0) return -1;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (access(link, F_OK) == 0) return fd;
    close(fd);
    return -1;
}

/* Makes a new file beside out->path under a name that no other has, kept in out->temp: fd -1 opens one, else fd gets the
 * name. Returns the descriptor, -1 with errno set. */
static int take_name(pd_out *out, int fd)
{
    char link[LINK_ROOM];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    for (unsigned attempt = 0; attempt < 1000; attempt++) {
        free(out->temp);
        if (asprintf(&out->temp, "%s.tmp-%ld-%u", out->path, (long)getpid(), attempt) < 0) {
            out->temp = NULL;
            errno = ENOMEM;
            return -1;
        }
        const int got = fd < 0 ? open(out->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)
                               : linkat(AT_FDCWD, link, AT_FDCWD, out->temp, AT_SYMLINK_FOLLOW) == 0 ? fd : -1;
        if (got >= 0 || errno != EEXIST) return got;
    }
    return -1;
}

pd_status pd_out_open(pd_out **result, const char *path, pd_err *err)
{
    if (pd_is_dir(path)) return PD_FAIL(err, PD_EIO, "%s: cannot create: it is a folder", path);
    pd_out *out = calloc(1, sizeof *out);
    if (out) out->path = strdup(path);
    if (!out || !out->path) {
        free(out);
        return PD_FAIL(err, PD_ENOMEM, "%s: out of memory", path);
    }
    int fd = open_nameless(path);
    out->nameless = fd >= 0;
    if (fd < 0) fd = take_name(out, -1);
    if (fd < 0 || !(out->file = fdopen(fd, "wb"))) {
        const pd_status status =
            errno == ENOMEM ? PD_FAIL(err, PD_ENOMEM, "%s: out of memory", path) : io_error(err, path, "create");
        if (fd >= 0) {
            close(fd);
            if (!out->nameless) unlink(out->temp);
        }
        out_free(out);
        return status;
    }
    *result = out;
    return PD_OK;
}

void pd_out_write(pd_out *out, const void *data, size_t size)
{
    if (!out->error && size && fwrite(data, 1, size, out->file) != size) out->error = errno ? errno : EIO;
}

void pd_out_printf(pd_out *out, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    if (!out->error && vfprintf(out->file, fmt, args) < 0) out->error = errno ? errno : EIO;
    va_end(args);
}

FILE *pd_out_stream(pd_out *out)
{
    return out->file;
}

/* Makes a rename durable. A file system that cannot flush folders is no reason to fail. */
static void sync_folder(const char *path)
{
    char *dir = folder_of(path);
    if (!dir) return;
    const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    free(dir);
}

pd_status pd_out_commit(pd_out *out, pd_err *err)
{
    pd_status status = PD_OK;
    errno = 0;
    if (!out->error && (fflush(out->file) != 0 || ferror(out->file) || fsync(fileno(out->file)) != 0))
        out->error = errno ? errno : EIO;
    bool named = !out->nameless;
    if (!named && !out->error) {
        named = take_name(out, fileno(out->file)) >= 0;
        if (!named) out->error = errno;
    }
    if (fclose(out->file) != 0 && !out->error) out->error = errno ? errno : EIO;
    if (!out->error && rename(out->temp, out->path) != 0) out->error = errno;
    if (out->error) {
        status = PD_FAIL(err, out->error == ENOMEM ? PD_ENOMEM : PD_EIO, "%s: cannot write: %s", out->path,
                         strerror(out->error));
        if (named) unlink(out->temp);
    } else {
        sync_folder(out->path);
    }
    out_free(out);
    return status;
}

void pd_out_cancel(pd_out *out)
{
    if (!out) return;
    fclose(out->file);
    if (!out->nameless) unlink(out->temp);
    out_free(out);
}

pd_status pd_file_write(const char *path, const void *data, size_t size, pd_err *err)
{
    pd_out *out;
    PD_TRY(pd_out_open(&out, path, err));
    pd_out_write(out, data, size);
    return pd_out_commit(out, err);
}

pd_status pd_make_dirs(const char *path, pd_err *err)
{
    char *copy = strdup(path);
    if (!copy) return PD_FAIL(err, PD_ENOMEM, "%s: out of memory", path);
    pd_status status = PD_OK;
    for (char *p = copy + 1;; p++) {
        if (*p != '/' && *p != '\0') continue;
        const char end = *p;
        *p = '\0';
        if (*copy && mkdir(copy, 0777) != 0 && !(errno == EEXIST && pd_is_dir(copy))) {
            status = errno == EEXIST ? PD_FAIL(err, PD_EIO, "%s: cannot make the folder: a file has this name", copy)
                                     : io_error(err, copy, "make the folder");
            break;
        }
        if (end == '\0') break;
        *p = end;
    }
    free(copy);
    return status;
}

bool pd_file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

bool pd_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool pd_is_same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

pd_status pd_path_join(char **out, const char *dir, const char *name, pd_arena *arena, pd_err *err)
{
    if (!*dir || !strcmp(dir, ".") || *name == '/') return pd_strdup(out, arena, name, err);
    return pd_format(out, arena, err, "%s%s%s", dir, dir[strlen(dir) - 1] == '/' ? "" : "/", name);
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

pd_status pd_list_dir(char ***names_out, size_t *count_out, const char *path, char kind, pd_arena *arena, pd_err *err)
{
    DIR *dir = opendir(path);
    if (!dir) return io_error(err, path, "list the folder");
    pd_status status = PD_OK;
    char **found = NULL, **names = NULL;
    size_t count = 0, room = 0;
    for (const struct dirent *e; (e = readdir(dir));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        struct stat st;
        if (kind && fstatat(dirfd(dir), e->d_name, &st, 0) != 0) continue; /* a dangling link */
        if ((kind == 'd' && !S_ISDIR(st.st_mode)) || (kind == 'f' && !S_ISREG(st.st_mode))) continue;
        PD_TRY_DONE(pd_grow(&found, &room, count + 1, sizeof *found, err));
        PD_TRY_DONE(pd_strdup(&found[count], arena, e->d_name, err));
        count++;
    }
    PD_TRY_DONE(PD_ALLOC(&names, arena, count ? count : 1, err));
    if (count) {
        qsort(found, count, sizeof *found, by_bytes);
        memcpy(names, found, count * sizeof *names);
    }
    *names_out = names;
    *count_out = count;
done:
    free(found);
    closedir(dir);
    return status;
}
