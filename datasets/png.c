/* libpng's errors jump like libjpeg's: the setjmp for PNG is here and nowhere else. */
#include "datasets/codec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>

typedef struct job {
    png_structp png;
    png_infop info;
    pd_bytes file;
    size_t at;       /* read position in file */
    png_bytepp rows; /* heap */
    char text[200];
} job;

static void on_error(png_structp png, png_const_charp text)
{
    job *j = png_get_error_ptr(png);
    snprintf(j->text, sizeof j->text, "%s", text);
    png_longjmp(png, 1);
}

/* Warnings leave the pixels whole (check sums of side chunks, odd profiles). But a chunk compressed in a way that PNG
 * does not have is refused, as Pillow and pngcheck do: such a file was not made by a PNG writer. */
static void on_warning(png_structp png, png_const_charp text)
{
    if (strstr(text, "bad compression method")) on_error(png, text);
}

static void read_bytes(png_structp png, png_bytep to, png_size_t n)
{
    job *j = png_get_io_ptr(png);
    if (n > j->file.size - j->at) png_error(png, "the file ends early");
    memcpy(to, j->file.data + j->at, n);
    j->at += n;
}

/* The image rows as pointers, for libpng. */
static pd_status make_rows(job *j, const pd_image *image, pd_err *err)
{
    j->rows = malloc(sizeof *j->rows * (size_t)image->h);
    if (!j->rows) return PD_FAIL(err, PD_ENOMEM, "out of memory: %d rows of a PNG", image->h);
    for (int y = 0; y < image->h; y++) j->rows[y] = image->rgb + (size_t)y * (size_t)image->w * 3;
    return PD_OK;
}

/* ---- reading ---- */

/* libpng makes room for a whole chunk before it reads one: none up to the pixels may be longer than the file. */
static pd_status check_chunks(pd_bytes file, pd_err *err)
{
    bool pixels = false;
    for (size_t at = 8;;) {
        if (file.size - at < 12) return PD_FAIL(err, PD_EFORMAT, "damaged PNG: the file ends early");
        const unsigned char *p = file.data + at;
        const size_t length = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        const bool is_pixels = !memcmp(p + 4, "IDAT", 4);
        if ((pixels && !is_pixels) || !memcmp(p + 4, "IEND", 4)) return PD_OK;
        if (length > file.size - at - 12) return PD_FAIL(err, PD_EFORMAT, "damaged PNG: the file ends early");
        pixels = is_pixels;
        at += 12 + length;
    }
}

static pd_status read_header(job *j, const pd_image_options *options, int *h, int *w, pd_err *err)
{
    /* Texts and the like could be compressed a thousandfold: not read. */
    static const png_byte skipped[] = "tEXt\0zTXt\0iTXt\0sPLT\0hIST\0eXIf\0tIME\0pHYs\0oFFs\0pCAL\0sCAL";
    PD_TRY(check_chunks(j->file, err));
    png_set_read_fn(j->png, j, read_bytes);
    png_set_user_limits(j->png, PNG_UINT_31_MAX, PNG_UINT_31_MAX); /* ours is on the product */
    png_set_keep_unknown_chunks(j->png, PNG_HANDLE_CHUNK_NEVER, skipped, (int)(sizeof skipped / 5));
    png_set_chunk_malloc_max(j->png, 16u << 20);
    png_read_info(j->png, j->info);
    const png_uint_32 width = png_get_image_width(j->png, j->info), height = png_get_image_height(j->png, j->info);
    PD_TRY(pd_image_check_size(width, height, options->max_pixels, err));
    *w = (int)width;
    *h = (int)height;
    return PD_OK;
}

static pd_status read_pixels(job *j, pd_image *out, int h, int w, pd_err *err)
{
    png_structp png = j->png;
    const int color = png_get_color_type(png, j->info);
    png_set_strip_16(png);
    if (color == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
    if (color == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(png);
    if (!(color & PNG_COLOR_MASK_COLOR)) png_set_gray_to_rgb(png);
    png_set_strip_alpha(png);
    (void)png_set_interlace_handling(png);
    png_read_update_info(png, j->info);
    if (png_get_rowbytes(png, j->info) != (size_t)w * 3)
        return PD_FAIL(err, PD_EFORMAT, "PNG of colour type %d gives %zu bytes a row, expected %zu", color,
                       png_get_rowbytes(png, j->info), (size_t)w * 3);
    PD_TRY(pd_image_size(out, h, w, err));
    PD_TRY(make_rows(j, out, err));
    png_read_image(png, j->rows);
    return PD_OK;
}

/* setjmp is alone with pointers, so that nothing it may clobber is used after a jump. */
static pd_status guarded(job *j, pd_image *out, int *h, int *w, const pd_image_options *options, pd_err *err)
{
    if (setjmp(png_jmpbuf(j->png))) return PD_FAIL(err, PD_EFORMAT, "damaged PNG: %s", j->text);
    PD_TRY(read_header(j, options, h, w, err));
    return out ? read_pixels(j, out, *h, *w, err) : PD_OK;
}

/* out NULL: the header only. */
static pd_status read_png(pd_image *out, int *h, int *w, pd_bytes file, const pd_image_options *options, pd_err *err)
{
    job j = {.file = file};
    j.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &j, on_error, on_warning);
    if (j.png) j.info = png_create_info_struct(j.png);
    const pd_status status =
        j.info ? guarded(&j, out, h, w, options, err) : PD_FAIL(err, PD_ENOMEM, "out of memory decoding a PNG");
    free(j.rows);
    png_destroy_read_struct(&j.png, &j.info, NULL);
    return status;
}

pd_status pd_png_header(int *h, int *w, pd_bytes file, const pd_image_options *options, pd_err *err)
{
    return read_png(NULL, h, w, file, options, err);
}

pd_status pd_png_decode(pd_image *out, pd_bytes file, const pd_image_options *options, pd_err *err)
{
    int h, w;
    return read_png(out, &h, &w, file, options, err);
}

/* ---- writing ---- */

static pd_status write_all(job *j, FILE *to, const pd_image *image, pd_err *err)
{
    if (setjmp(png_jmpbuf(j->png)))
        return PD_FAIL(err, PD_EIO, "cannot write a PNG: %s", ferror(to) ? strerror(errno) : j->text);
    PD_TRY(make_rows(j, image, err));
    png_init_io(j->png, to);
    png_set_IHDR(j->png, j->info, (png_uint_32)image->w, (png_uint_32)image->h, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_rows(j->png, j->info, j->rows);
    png_write_png(j->png, j->info, PNG_TRANSFORM_IDENTITY, NULL);
    return PD_OK;
}

pd_status pd_png_encode(pd_out *out, const pd_image *image, pd_err *err)
{
    if (image->w < 1 || image->h < 1) return PD_FAIL(err, PD_EINVAL, "an empty picture cannot be written as PNG");
    job j = {.file = {NULL, 0}};
    j.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &j, on_error, on_warning);
    if (j.png) j.info = png_create_info_struct(j.png);
    const pd_status status =
        j.info ? write_all(&j, pd_out_stream(out), image, err) : PD_FAIL(err, PD_ENOMEM, "out of memory writing a PNG");
    free(j.rows);
    png_destroy_write_struct(&j.png, &j.info);
    return status;
}
