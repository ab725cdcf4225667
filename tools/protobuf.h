/* protobuf.h: a writer of protocol buffers' wire format, as far as ONNX files need it: a message is a growing piece of
 * memory, a message inside another is written into the outer one when it is whole.
 * https://protobuf.dev/programming-guides/encoding: a field is varint(number << 3 | type), then a varint (type 0), 8
 * bytes (1), a length and bytes (2) or 4 bytes (5). */
#ifndef PD_PROTOBUF_H
#define PD_PROTOBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pd_proto {
    unsigned char *data; /* free with pd_proto_free */
    size_t size, room;
    bool failed; /* out of memory: what was put since is missing */
} pd_proto;

void pd_proto_int(pd_proto *m, int field, int64_t value);
void pd_proto_float(pd_proto *m, int field, float value);
void pd_proto_bytes(pd_proto *m, int field, const void *data, size_t size);
void pd_proto_text(pd_proto *m, int field, const char *text);
/* Puts `inner` as a field of m and frees it. */
void pd_proto_message(pd_proto *m, int field, pd_proto *inner);
void pd_proto_free(pd_proto *m);

#endif
