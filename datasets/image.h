/* image.h: pictures in memory: bytes of a JPEG or PNG file in, 8-bit RGB out, and back.
 *
 * The format is told by the content, never by a file's name. What comes out is always (h, w, 3) bytes R, G, B:
 *   JPEG (libjpeg-turbo)  baseline, extended, progressive, arithmetic; grey -> three equal bytes; YCbCr and RGB;
 *                         CMYK and YCCK read as inverted inks, as Adobe writes them and common decoders assume:
 *                         r = c * k / 255
 *   PNG (libpng)          every colour type and depth, interlaced or not; grey and palette expanded; 16-bit samples
 *                         cut to their high byte; alpha, tRNS, gAMA and colour profiles ignored
 * GIF, BMP, WebP and others are refused with a sentence that names them. The integer IDCT and "fancy" chroma
 * upsampling are used, which makes the pixels equal to those of Pillow and OpenCV on the same library.
 *
 * A damaged file is an error that gives the reason (the caller adds the file's name): never a crash, an exit or an
 * endless run. Sizes are checked before anything is allocated: at most max_pixels, at most PD_IMAGE_MAX_SCANS scans,
 * and a Huffman-coded JPEG must be long enough for the size it declares.
 *
 * Threads: no state is shared; one pd_image belongs to one thread at a time. */
#ifndef PD_IMAGE_H
#define PD_IMAGE_H

#include "engine/file.h"
#include "engine/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Largest image that is decoded unless asked otherwise: 1 GiB / 4 / 3 pixels, as Pillow's. A progressive JPEG of this
 * size takes about 1 GB while it is decoded. */
#define PD_IMAGE_MAX_PIXELS ((uint64_t)89478485)
#define PD_IMAGE_MAX_SCANS 100

/* Pixels with their own heap memory, which grows and is used again by the next decode. Begin with PD_IMAGE_INIT;
 * release with pd_image_free. The fields are free to read; row y begins at rgb + y * w * 3. */
typedef struct pd_image {
    int h, w;
    unsigned char *rgb; /* (h, w, 3) */
    size_t room;        /* bytes allocated at rgb */
} pd_image;

#define PD_IMAGE_INIT                                                                                                  \
    {                                                                                                                  \
        0, 0, NULL, 0                                                                                                  \
    }

void pd_image_free(pd_image *image);

/* Makes room for (h, w) pixels; their values are undefined. On failure the image is unchanged. */
pd_status pd_image_size(pd_image *image, int h, int w, pd_err *err);

typedef enum pd_image_format {
    PD_FORMAT_UNKNOWN,
    PD_FORMAT_JPEG,
    PD_FORMAT_PNG,
    PD_FORMAT_GIF,
    PD_FORMAT_BMP,
    PD_FORMAT_WEBP,
    PD_FORMAT_TIFF,
} pd_image_format;

/* By the first bytes. */
pd_image_format pd_image_format_of(pd_bytes file);

typedef struct pd_image_options {
    bool exif;    /* turn and mirror the picture as EXIF tag 274 asks (detection: yes; ImageNet: no, as torchvision) */
    bool salvage; /* a JPEG with lost data is decoded as far as it goes (the rest grey) instead of refused */
    uint64_t max_pixels; /* 0: PD_IMAGE_MAX_PIXELS */
} pd_image_options;

/* What the header says, without decoding: size after the EXIF turn if options ask for it. options NULL: all zero.
 * Errors as pd_image_decode gives them for the header. */
typedef struct pd_image_header {
    pd_image_format format;
    int h, w;
    int orientation; /* EXIF 1..8; 1 where there is none */
} pd_image_header;
pd_status pd_image_probe(pd_image_header *out, pd_bytes file, const pd_image_options *options, pd_err *err);

/* The whole picture. After a failure the content of out is undefined, but it can be used again and freed.
 * PD_EFORMAT: not an image that can be read, and why. PD_ENOMEM. */
pd_status pd_image_decode(pd_image *out, pd_bytes file, const pd_image_options *options, pd_err *err);

/* A part of the picture, in pixels of the file (before any EXIF turn). */
typedef struct pd_rect {
    int x, y, w, h;
} pd_rect;

/* A part that contains `want`, in the coordinates of the whole picture (options->exif must be off: PD_EINVAL). *got
 * tells which part out holds: at least `want`, often some pixels more at the sides. Every pixel inside `want` is equal
 * to that of pd_image_decode: a margin is decoded where chroma upsampling looks across the border. Rows below the part
 * are not read, so damage there is not seen. Faster than the whole for JPEGs, where IDCT and colour conversion are left
 * out outside of the part; PNGs are decoded whole. `want` must lie inside the picture and not be empty (PD_EINVAL). */
pd_status pd_image_decode_part(pd_image *out, pd_rect *got, pd_rect want, pd_bytes file,
                               const pd_image_options *options, pd_err *err);

/* Turns and mirrors in place of `image` so that it is seen upright; orientation is EXIF's 1..8, others do nothing.
 * `spare` is working memory, kept by the caller for the next time. */
pd_status pd_image_orient(pd_image *image, int orientation, pd_image *spare, pd_err *err);

/* Tag 274 of a JPEG's Exif segment or a PNG's eXIf chunk: 1..8; 1 if there is none or it makes no sense. Every offset
 * in the file is checked against its end. */
int pd_exif_orientation(pd_bytes file);

/* Reads and decodes; the error names the file. */
pd_status pd_image_load(pd_image *out, const char *path, const pd_image_options *options, pd_err *err);

/* JPEG (quality 1..100, 4:2:0) or PNG to a file being written. A failed write shows at pd_out_commit. */
pd_status pd_jpeg_encode(pd_out *out, const pd_image *image, int quality, pd_err *err);
pd_status pd_png_encode(pd_out *out, const pd_image *image, pd_err *err);

/* The whole of it: PNG if path ends in .png, else JPEG of quality 90. */
pd_status pd_image_save(const char *path, const pd_image *image, pd_err *err);

#endif
