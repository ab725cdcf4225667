#include "tools/protobuf.h"

#include <stdlib.h>
#include <string.h>

enum { VARINT = 0, LENGTH = 2, FOUR_BYTES = 5 };

static void put(pd_proto *m, const void *data, size_t size)
{
    if (m->failed) return;
    if (m->room - m->size < size) {
        const size_t room = (m->size + size) + (m->size + size) / 2 + 64;
        unsigned char *larger = realloc(m->data, room);
        if (!larger) {
            m->failed = true;
            return;
        }
        m->data = larger;
        m->room = room;
    }
    if (size) memcpy(m->data + m->size, data, size);
    m->size += size;
}

static void put_varint(pd_proto *m, uint64_t v)
{
    unsigned char bytes[10];
    size_t n = 0;
    for (; v >= 0x80; v >>= 7) bytes[n++] = (unsigned char)(v | 0x80);
    bytes[n++] = (unsigned char)v;
    put(m, bytes, n);
}

static void put_tag(pd_proto *m, int field, unsigned type)
{
    put_varint(m, (uint64_t)field << 3 | type);
}

void pd_proto_int(pd_proto *m, int field, int64_t value)
{
    put_tag(m, field, VARINT);
    put_varint(m, (uint64_t)value);
}

void pd_proto_float(pd_proto *m, int field, float value)
{
    put_tag(m, field, FOUR_BYTES);
    put(m, &value, sizeof value); /* little-endian, as all files here */
}

void pd_proto_bytes(pd_proto *m, int field, const void *data, size_t size)
{
    put_tag(m, field, LENGTH);
    put_varint(m, size);
    put(m, data, size);
}

void pd_proto_text(pd_proto *m, int field, const char *text)
{
    pd_proto_bytes(m, field, text, strlen(text));
}

void pd_proto_message(pd_proto *m, int field, pd_proto *inner)
{
    pd_proto_bytes(m, field, inner->data, inner->size);
    m->failed |= inner->failed;
    pd_proto_free(inner);
}

void pd_proto_free(pd_proto *m)
{
    free(m->data);
    *m = (pd_proto){0};
}
