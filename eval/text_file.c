#include "eval/text_file.h"

#include <stdlib.h>
#include <zlib.h>

/* Unpacks all members of a gzip file into *out (heap). */
static pd_status unpack(pd_bytes *out, pd_bytes packed, const char *path, pd_err *err)
{
    z_stream z = {0};
    if (inflateInit2(&z, 15 + 16) != Z_OK) return PD_FAIL(err, PD_ENOMEM, "%s: out of memory", path);
    pd_status status = PD_OK;
    unsigned char *text = NULL;
    size_t capacity = 0, size = 0, used = 0;
    int state = Z_OK;
    while (state != Z_STREAM_END) {
        PD_TRY_DONE(pd_grow(&text, &capacity, size + ((size_t)1 << 18), 1, err));
        const size_t in = packed.size - used, room = capacity - size, chunk = (size_t)1 << 30;
        z.next_in = (unsigned char *)packed.data + used;
        z.avail_in = (uInt)(in < chunk ? in : chunk);
        z.next_out = text + size;
        z.avail_out = (uInt)(room < chunk ? room : chunk);
        const uInt in_given = z.avail_in, out_given = z.avail_out;
        state = inflate(&z, Z_NO_FLUSH);
        used += in_given - z.avail_in;
        size += out_given - z.avail_out;
        if (state == Z_STREAM_END && used < packed.size && packed.data[used] == 0x1f) {
            inflateReset(&z);
            state = Z_OK;
        } else if (state == Z_MEM_ERROR) {
            status = PD_FAIL(err, PD_ENOMEM, "%s: out of memory", path);
            goto done;
        } else if (state != Z_OK && state != Z_STREAM_END) {
            status = PD_FAIL(err, PD_EFORMAT, "%s: the gzip data is %s after byte %zu", path,
                             used == packed.size ? "cut off" : "damaged", used);
            goto done;
        }
    }
    *out = (pd_bytes){text, size};
    text = NULL;
done:
    free(text);
    inflateEnd(&z);
    return status;
}

pd_status pd_text_open(pd_text_file *out, const char *path, pd_err *err)
{
    pd_text_file file = {.mapped = true};
    PD_TRY(pd_file_map(&file.bytes, path, err));
    if (file.bytes.size >= 2 && file.bytes.data[0] == 0x1f && file.bytes.data[1] == 0x8b) {
        pd_bytes text = {0};
        const pd_status status = unpack(&text, file.bytes, path, err);
        pd_file_unmap(&file.bytes);
        if (status != PD_OK) return status;
        file = (pd_text_file){text, false};
    }
    *out = file;
    return PD_OK;
}

void pd_text_close(pd_text_file *file)
{
    if (file->mapped)
        pd_file_unmap(&file->bytes);
    else
        free((void *)file->bytes.data);
    *file = (pd_text_file){{NULL, 0}, false};
}
