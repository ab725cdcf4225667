/* The orientation tag, and turning by it. Every read is checked against the end of the bytes. */
#include "datasets/image.h"

#include <string.h>

typedef struct span {
    const unsigned char *data;
    size_t size;
    bool little; /* byte order of a TIFF block */
} span;

/* Unsigned numbers at an offset; -1 outside. */
static int64_t get16(span s, size_t at)
{
    if (s.size < 2 || at > s.size - 2) return -1;
    const unsigned char *p = s.data + at;
    return s.little ? p[0] | p[1] << 8 : p[0] << 8 | p[1];
}

static int64_t get32(span s, size_t at)
{
    if (s.size < 4 || at > s.size - 4) return -1;
    const int64_t a = get16(s, at), b = get16(s, at + 2);
    return s.little ? a | b << 16 : a << 16 | b;
}

/* Tag 274 in the first directory of a TIFF block: "II" or "MM", 42, offset of the directory; there a count and entries
 * of 12 bytes: tag, type, count, value. 0 where there is none. */
static int tiff_orientation(span tiff)
{
    if (tiff.size < 8) return 0;
    if (!memcmp(tiff.data, "II", 2))
        tiff.little = true;
    else if (memcmp(tiff.data, "MM", 2) != 0)
        return 0;
    const int64_t dir = get32(tiff, 4);
    if (get16(tiff, 2) != 42 || dir < 8) return 0;
    const int64_t entries = get16(tiff, (size_t)dir);
    for (int64_t i = 0; i < entries; i++) {
        const size_t at = (size_t)dir + 2 + (size_t)i * 12;
        if (get32(tiff, at + 8) < 0) return 0; /* past the end */
        if (get16(tiff, at) != 274) continue;
        const int64_t type = get16(tiff, at + 2), count = get32(tiff, at + 4);
        const int64_t value = type == 3 ? get16(tiff, at + 8) : type == 4 ? get32(tiff, at + 8) : 0;
        return count == 1 && value >= 1 && value <= 8 ? (int)value : 0;
    }
    return 0;
}

/* Segments up to the scan: FF, marker, big-endian length that counts itself. */
static int jpeg_orientation(span s)
{
    for (size_t at = 2; at + 4 <= s.size;) {
        if (s.data[at] != 0xff) return 0;
        const unsigned char marker = s.data[at + 1];
        if (marker == 0xff) { /* fill byte */
            at++;
            continue;
        }
        if (marker == 0xda || marker == 0xd9) return 0;
        const int64_t length = get16(s, at + 2);
        if (length < 2 || (size_t)length > s.size - at - 2) return 0;
        const unsigned char *body = s.data + at + 4;
        if (marker == 0xe1 && length >= 8 && !memcmp(body, "Exif\0", 6)) {
            const int found = tiff_orientation((span){body + 6, (size_t)length - 8, false});
            if (found) return found;
        }
        at += 2 + (size_t)length;
    }
    return 0;
}

/* Chunks: length, name, body, check sum. */
static int png_orientation(span s)
{
    for (size_t at = 8; at + 12 <= s.size;) {
        const int64_t length = get32(s, at);
        if (length < 0 || (size_t)length > s.size - at - 12) return 0;
        const unsigned char *body = s.data + at + 8;
        if (!memcmp(s.data + at + 4, "eXIf", 4)) return tiff_orientation((span){body, (size_t)length, false});
        if (!memcmp(s.data + at + 4, "IEND", 4)) return 0;
        at += 12 + (size_t)length;
    }
    return 0;
}

int pd_exif_orientation(pd_bytes file)
{
    const span s = {file.data, file.size, false};
    const pd_image_format format = pd_image_format_of(file);
    const int found = format == PD_FORMAT_JPEG ? jpeg_orientation(s) : format == PD_FORMAT_PNG ? png_orientation(s) : 0;
    return found ? found : 1;
}

/* EXIF numbers the eight ways by where row 0 and column 0 are seen: 2 mirrored, 3 turned by 180, 4 upside down
 * mirrored, and 5..8 the same with rows and columns exchanged (6: turn right by 90 to see it upright, 8: left). */
pd_status pd_image_orient(pd_image *image, int orientation, pd_image *spare, pd_err *err)
{
    if (orientation < 2 || orientation > 8) return PD_OK;
    const bool swap = orientation >= 5;
    const int h = swap ? image->w : image->h, w = swap ? image->h : image->w;
    PD_TRY(pd_image_size(spare, h, w, err));
    const bool flip_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8; /* in the file */
    const bool flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    const ptrdiff_t stride = (ptrdiff_t)image->w * 3;
    /* One step right or down in the result, as a step in the file's pixels. */
    const ptrdiff_t right = swap ? (flip_y ? -stride : stride) : (flip_x ? -3 : 3);
    const ptrdiff_t down = swap ? (flip_x ? -3 : 3) : (flip_y ? -stride : stride);
    const unsigned char *row = image->rgb + (flip_x ? stride - 3 : 0) + (flip_y ? (image->h - 1) * stride : 0);
    unsigned char *to = spare->rgb;
    for (int y = 0; y < h; y++, row += down) {
        const unsigned char *from = row;
        for (int x = 0; x < w; x++, from += right, to += 3) {
            to[0] = from[0];
            to[1] = from[1];
            to[2] = from[2];
        }
    }
    const pd_image turned = *spare;
    *spare = *image;
    *image = turned;
    return PD_OK;
}
