#include "datasets/image.h"

#include "datasets/codec.h"

#include <stdlib.h>
#include <string.h>

void pd_image_free(pd_image *image)
{
    free(image->rgb);
    *image = (pd_image)PD_IMAGE_INIT;
}

pd_status pd_image_size(pd_image *image, int h, int w, pd_err *err)
{
    if (h < 1 || w < 1) return PD_FAIL(err, PD_EINVAL, "an image of %dx%d pixels", w, h);
    const size_t need = (size_t)h * (size_t)w * 3; /* below 2^64 for any two ints */
    if (need > image->room) {
        unsigned char *grown = malloc(need);
        if (!grown) return PD_FAIL(err, PD_ENOMEM, "out of memory: an image of %dx%d pixels", w, h);
        free(image->rgb);
        image->rgb = grown;
        image->room = need;
    }
    image->h = h;
    image->w = w;
    return PD_OK;
}

pd_status pd_image_check_size(uint64_t w, uint64_t h, uint64_t max_pixels, pd_err *err)
{
    const uint64_t most = max_pixels ? max_pixels : PD_IMAGE_MAX_PIXELS;
    if (w == 0 || h == 0 || w > INT32_MAX / 4 || h > INT32_MAX / 4 || w * h > most)
        return PD_FAIL(err, PD_EFORMAT, "declares %llux%llu pixels; allowed are 1 to %llu", (unsigned long long)w,
                       (unsigned long long)h, (unsigned long long)most);
    return PD_OK;
}

pd_image_format pd_image_format_of(pd_bytes file)
{
    static const struct {
        pd_image_format format;
        size_t at, size;
        const char *magic;
    } table[] = {
        {PD_FORMAT_JPEG, 0, 3, "\xff\xd8\xff"},
        {PD_FORMAT_PNG, 0, 8, "\x89PNG\r\n\x1a\n"},
        {PD_FORMAT_GIF, 0, 4, "GIF8"},
        {PD_FORMAT_WEBP, 8, 4, "WEBP"},
        {PD_FORMAT_TIFF, 0, 4, "II*\0"},
        {PD_FORMAT_TIFF, 0, 4, "MM\0*"},
        {PD_FORMAT_BMP, 0, 2, "BM"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (file.size >= table[i].at + table[i].size && !memcmp(file.data + table[i].at, table[i].magic, table[i].size))
            return table[i].format;
    return PD_FORMAT_UNKNOWN;
}

/* The sentence for what cannot be read. */
static pd_status refuse(pd_bytes file, pd_err *err)
{
    static const char *const names[] = {
        [PD_FORMAT_GIF] = "a GIF", [PD_FORMAT_BMP] = "a BMP", [PD_FORMAT_WEBP] = "a WebP", [PD_FORMAT_TIFF] = "a TIFF"};
    const pd_image_format format = pd_image_format_of(file);
    if (format != PD_FORMAT_UNKNOWN)
        return PD_FAIL(err, PD_EFORMAT, "is %s image; JPEG and PNG can be read: convert it", names[format]);
    if (file.size == 0) return PD_FAIL(err, PD_EFORMAT, "is empty");
    if (file.size < 4) return PD_FAIL(err, PD_EFORMAT, "%zu bytes are too short for an image", file.size);
    return PD_FAIL(err, PD_EFORMAT, "is not an image: begins with %02x %02x %02x %02x, neither JPEG nor PNG",
                   file.data[0], file.data[1], file.data[2], file.data[3]);
}

static const pd_image_options no_options = {false, false, 0};

pd_status pd_image_probe(pd_image_header *out, pd_bytes file, const pd_image_options *options, pd_err *err)
{
    if (!options) options = &no_options;
    pd_image_header header = {pd_image_format_of(file), 0, 0, pd_exif_orientation(file)};
    switch (header.format) {
    case PD_FORMAT_JPEG: PD_TRY(pd_jpeg_header(&header.h, &header.w, file, options, err)); break;
    case PD_FORMAT_PNG: PD_TRY(pd_png_header(&header.h, &header.w, file, options, err)); break;
    default: return refuse(file, err);
    }
    if (options->exif && header.orientation >= 5) {
        const int h = header.h;
        header.h = header.w;
        header.w = h;
    }
    *out = header;
    return PD_OK;
}

pd_status pd_image_decode(pd_image *out, pd_bytes file, const pd_image_options *options, pd_err *err)
{
    if (!options) options = &no_options;
    switch (pd_image_format_of(file)) {
    case PD_FORMAT_JPEG: PD_TRY(pd_jpeg_decode(out, NULL, NULL, file, options, err)); break;
    case PD_FORMAT_PNG: PD_TRY(pd_png_decode(out, file, options, err)); break;
    default: return refuse(file, err);
    }
    if (!options->exif) return PD_OK;
    pd_image spare = PD_IMAGE_INIT;
    const pd_status status = pd_image_orient(out, pd_exif_orientation(file), &spare, err);
    pd_image_free(&spare);
    return status;
}

pd_status pd_image_decode_part(pd_image *out, pd_rect *got, pd_rect want, pd_bytes file,
                               const pd_image_options *options, pd_err *err)
{
    if (!options) options = &no_options;
    if (options->exif) return PD_FAIL(err, PD_EINVAL, "a part of an image cannot be decoded with its EXIF turn");
    pd_image_header header;
    PD_TRY(pd_image_probe(&header, file, options, err));
    if (want.x < 0 || want.y < 0 || want.w < 1 || want.h < 1 || want.w > header.w || want.x > header.w - want.w ||
        want.h > header.h || want.y > header.h - want.h)
        return PD_FAIL(err, PD_EINVAL, "part %dx%d at (%d, %d) is not inside the image of %dx%d", want.w, want.h,
                       want.x, want.y, header.w, header.h);
    if (header.format == PD_FORMAT_JPEG) return pd_jpeg_decode(out, got, &want, file, options, err);
    PD_TRY(pd_png_decode(out, file, options, err));
    *got = (pd_rect){0, 0, out->w, out->h};
    return PD_OK;
}

pd_status pd_image_load(pd_image *out, const char *path, const pd_image_options *options, pd_err *err)
{
    pd_arena *arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "%s: out of memory", path);
    pd_bytes file;
    pd_status status = pd_file_read(&file, path, 0, arena, err);
    if (status == PD_OK && (status = pd_image_decode(out, file, options, err)) != PD_OK)
        pd_err_context(err, "%s", path);
    pd_arena_free(arena);
    return status;
}

pd_status pd_image_save(const char *path, const pd_image *image, pd_err *err)
{
    pd_out *out;
    PD_TRY(pd_out_open(&out, path, err));
    const size_t length = strlen(path);
    const bool png = length > 4 && !strcmp(path + length - 4, ".png");
    const pd_status status = png ? pd_png_encode(out, image, err) : pd_jpeg_encode(out, image, 90, err);
    if (status == PD_OK) return pd_out_commit(out, err);
    pd_out_cancel(out);
    return pd_err_context(err, "%s", path), status;
}
