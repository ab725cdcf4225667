#include "engine/tfevents.h"

#include "engine/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct pd_tfevents {
    int fd;
    char *path;
    unsigned char *bytes; /* the record being built */
    size_t size, room;
};

uint32_t pd_crc32c(const void *data, size_t size)
{
    const unsigned char *p = data;
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < size; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1u)));
    }
    return ~crc;
}

/* TensorFlow's records store a crc that cannot equal the crc of data that contains it. */
static uint32_t masked(const void *data, size_t size)
{
    const uint32_t crc = pd_crc32c(data, size);
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

/* ---- protocol buffers: (field << 3 | wire type), value ---- */

static pd_status put(pd_tfevents *t, const void *data, size_t size, pd_err *err)
{
    PD_TRY(pd_grow(&t->bytes, &t->room, t->size + size, 1, err));
    memcpy(t->bytes + t->size, data, size);
    t->size += size;
    return PD_OK;
}

static size_t varint(unsigned char out[10], uint64_t value)
{
    size_t n = 0;
    for (; value > 0x7f; value >>= 7) out[n++] = (unsigned char)(value | 0x80);
    out[n++] = (unsigned char)value;
    return n;
}

static pd_status put_varint(pd_tfevents *t, uint64_t value, pd_err *err)
{
    unsigned char bytes[10];
    return put(t, bytes, varint(bytes, value), err);
}

static size_t varint_size(uint64_t value)
{
    unsigned char bytes[10];
    return varint(bytes, value);
}

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

static pd_status put_tag(pd_tfevents *t, unsigned field, unsigned wire, pd_err *err)
{
    return put_varint(t, field << 3 | wire, err);
}

/* wall_time and step, with which every event begins; the first 12 bytes stay free for the record's head. */
static pd_status begin(pd_tfevents *t, double wall_time, int64_t step, pd_err *err)
{
    t->size = 0;
    PD_TRY(put(t, (const char[12]){0}, 12, err));
    PD_TRY(put_tag(t, 1, FIXED64, err));
    PD_TRY(put(t, &wall_time, sizeof wall_time, err));
    if (step == 0) return PD_OK; /* protocol buffers leave out what is 0 */
    PD_TRY(put_tag(t, 2, VARINT, err));
    return put_varint(t, (uint64_t)step, err);
}

/* Writes the record with its lengths and sums, in one piece. */
static pd_status end(pd_tfevents *t, pd_err *err)
{
    const uint64_t length = t->size - 12;
    const uint32_t body = masked(t->bytes + 12, t->size - 12);
    memcpy(t->bytes, &length, 8);
    const uint32_t head = masked(t->bytes, 8);
    memcpy(t->bytes + 8, &head, 4);
    PD_TRY(put(t, &body, 4, err));
    for (size_t done = 0; done < t->size;) {
        const ssize_t n = write(t->fd, t->bytes + done, t->size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return PD_FAIL(err, PD_EIO, "%s: cannot write: %s", t->path, strerror(errno));
        done += (size_t)n;
    }
    return PD_OK;
}

static pd_status write_preamble(pd_tfevents *t, double wall_time, int64_t first_step, pd_err *err)
{
    static const char version[] = "brain.Event:2";
    PD_TRY(begin(t, wall_time, 0, err));
    PD_TRY(put_tag(t, 3, BYTES, err));
    PD_TRY(put_varint(t, strlen(version), err));
    PD_TRY(put(t, version, strlen(version), err));
    PD_TRY(end(t, err));
    PD_TRY(begin(t, wall_time, first_step, err));
    PD_TRY(put_tag(t, 7, BYTES, err)); /* SessionLog {1: status = START (1)} */
    PD_TRY(put(t, "\x02\x08\x01", 3, err));
    return end(t, err);
}

pd_status pd_tfevents_open(pd_tfevents **out, const char *dir, double wall_time, int64_t first_step, pd_err *err)
{
    pd_tfevents *t = calloc(1, sizeof *t);
    if (!t) return PD_FAIL(err, PD_ENOMEM, "%s: out of memory", dir);
    pd_status status = PD_OK;
    char host[65] = "host";
    t->fd = -1;
    if (gethostname(host, sizeof host - 1) != 0) strcpy(host, "host");
    if (asprintf(&t->path, "%s/events.out.tfevents.%010lld.%s.%ld", dir, (long long)wall_time, host, (long)getpid()) <
        0) {
        t->path = NULL;
        status = PD_FAIL(err, PD_ENOMEM, "%s: out of memory", dir);
        goto done;
    }
    t->fd = open(t->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (t->fd < 0) {
        status = PD_FAIL(err, PD_EIO, "%s: cannot create: %s", t->path, strerror(errno));
        goto done;
    }
    PD_TRY_DONE(write_preamble(t, wall_time, first_step, err));
    *out = t;
    t = NULL;
done:
    if (t) pd_tfevents_close(t, NULL);
    return status;
}

/* Summary.Value {1: tag, 2: simple_value} inside Summary field 1. */
static pd_status put_value(pd_tfevents *t, const char *prefix, const char *name, double value, pd_err *err)
{
    const size_t tag = strlen(prefix) + 1 + strlen(name);
    const float v = (float)value;
    PD_TRY(put_tag(t, 1, BYTES, err));
    PD_TRY(put_varint(t, 1 + varint_size(tag) + tag + 5, err));
    PD_TRY(put_tag(t, 1, BYTES, err));
    PD_TRY(put_varint(t, tag, err));
    PD_TRY(put(t, prefix, strlen(prefix), err));
    PD_TRY(put(t, "/", 1, err));
    PD_TRY(put(t, name, strlen(name), err));
    PD_TRY(put_tag(t, 2, FIXED32, err));
    return put(t, &v, sizeof v, err);
}

static size_t value_size(const char *prefix, const char *name)
{
    const size_t tag = strlen(prefix) + 1 + strlen(name), body = 1 + varint_size(tag) + tag + 5;
    return 1 + varint_size(body) + body;
}

pd_status pd_tfevents_scalars(pd_tfevents *t, double wall_time, int64_t step, const char *prefix,
                              const char *const *names, const double *values, size_t count, pd_err *err)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++) size += value_size(prefix, names[i]);
    if (!count) return PD_OK;
    PD_TRY(begin(t, wall_time, step, err));
    PD_TRY(put_tag(t, 5, BYTES, err));
    PD_TRY(put_varint(t, size, err));
    for (size_t i = 0; i < count; i++) PD_TRY(put_value(t, prefix, names[i], values[i], err));
    return end(t, err);
}

pd_status pd_tfevents_close(pd_tfevents *t, pd_err *err)
{
    if (!t) return PD_OK;
    pd_status status = PD_OK;
    if (t->fd >= 0 && close(t->fd) != 0)
        status = PD_FAIL(err, PD_EIO, "%s: cannot write: %s", t->path, strerror(errno));
    free(t->path);
    free(t->bytes);
    free(t);
    return status;
}
