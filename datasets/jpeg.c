/* libjpeg reports errors through a call that must not return: the one setjmp per job is here, and everything that a job
 * owns lives in one struct outside of the jumping function. */
#include "datasets/codec.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

typedef struct failure {
    struct jpeg_error_mgr manager; /* first: libjpeg hands back a pointer to it */
    jmp_buf escape;
    bool salvage;
    char text[JMSG_LENGTH_MAX];
} failure;

static void on_error(j_common_ptr info)
{
    failure *f = (failure *)info->err;
    f->manager.format_message(info, f->text);
    longjmp(f->escape, 1);
}

/* Warnings that mean lost pixels. The others (bytes between segments, odd markers) leave the picture whole. */
static bool loses_data(int code)
{
    switch (code) {
    case JWRN_JPEG_EOF:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_MUST_RESYNC:
    case JWRN_BOGUS_PROGRESSION: return true;
    default: return false;
    }
}

static void on_message(j_common_ptr info, int level)
{
    const failure *f = (const failure *)info->err;
    if (level < 0 && !f->salvage && loses_data(f->manager.msg_code)) on_error(info);
}

static void on_output(j_common_ptr info)
{
    (void)info;
}

static void failure_init(failure *f, bool salvage)
{
    jpeg_std_error(&f->manager);
    f->manager.error_exit = on_error;
    f->manager.emit_message = on_message;
    f->manager.output_message = on_output;
    f->salvage = salvage;
    f->text[0] = '\0';
}

/* ---- reading ---- */

typedef struct reader {
    failure fail;
    struct jpeg_progress_mgr progress;
    struct jpeg_decompress_struct c;
} reader;

static void count_scans(j_common_ptr info)
{
    const struct jpeg_decompress_struct *c = (const struct jpeg_decompress_struct *)info;
    if (c->input_scan_number <= PD_IMAGE_MAX_SCANS) return;
    failure *f = (failure *)info->err;
    snprintf(f->text, sizeof f->text, "more than %d scans", PD_IMAGE_MAX_SCANS);
    longjmp(f->escape, 1);
}

/* The header, and whether to go on. */
static pd_status read_header(reader *r, pd_bytes file, const pd_image_options *options, pd_err *err)
{
    struct jpeg_decompress_struct *c = &r->c;
    jpeg_mem_src(c, file.data, (unsigned long)file.size);
    jpeg_read_header(c, TRUE);
    PD_TRY(pd_image_check_size(c->image_width, c->image_height, options->max_pixels, err));
    /* Huffman coding spends at least one bit on a block. */
    const uint64_t across =
        (c->image_width + 8u * (unsigned)c->max_h_samp_factor - 1) / (8u * (unsigned)c->max_h_samp_factor);
    const uint64_t down =
        (c->image_height + 8u * (unsigned)c->max_v_samp_factor - 1) / (8u * (unsigned)c->max_v_samp_factor);
    if (!c->arith_code && !options->salvage && across * down > (uint64_t)file.size * 8)
        return PD_FAIL(err, PD_EFORMAT, "damaged JPEG: %zu bytes cannot hold the %ux%u pixels it declares", file.size,
                       c->image_width, c->image_height);
    switch (c->jpeg_color_space) {
    case JCS_GRAYSCALE:
    case JCS_RGB:
    case JCS_YCbCr: c->out_color_space = JCS_RGB; return PD_OK;
    case JCS_CMYK:
    case JCS_YCCK: c->out_color_space = JCS_CMYK; return PD_OK;
    default:
        return PD_FAIL(err, PD_EFORMAT, "JPEG with %d components; 1 (grey), 3 (colour) and 4 (CMYK) can be read",
                       c->num_components);
    }
}

static pd_status reader_open(reader *r, pd_bytes file, const pd_image_options *options, pd_err *err)
{
    memset(&r->c, 0, sizeof r->c);
    memset(&r->progress, 0, sizeof r->progress);
    failure_init(&r->fail, options->salvage);
    r->c.err = &r->fail.manager;
    jpeg_create_decompress(&r->c);
    r->progress.progress_monitor = count_scans;
    r->c.progress = &r->progress;
    return read_header(r, file, options, err);
}

/* Inverted inks: what is stored is the light that passes. */
static void cmyk_row(unsigned char *rgb, const unsigned char *cmyk, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (int j = 0; j < 3; j++)
            rgb[3 * i + (size_t)j] = (unsigned char)((cmyk[4 * i + (size_t)j] * cmyk[4 * i + 3] + 127) / 255);
}

static void read_rows(struct jpeg_decompress_struct *c, pd_image *out)
{
    enum { LINES = 8 };
    JSAMPROW rows[LINES];
    const size_t stride = (size_t)out->w * 3;
    const bool inks = c->out_color_space == JCS_CMYK;
    JSAMPARRAY line = inks ? c->mem->alloc_sarray((j_common_ptr)c, JPOOL_IMAGE, (JDIMENSION)out->w * 4, 1) : NULL;
    for (JDIMENSION y = 0, n; y < (JDIMENSION)out->h; y += n) {
        if (inks) {
            n = jpeg_read_scanlines(c, line, 1);
            if (n) cmyk_row(out->rgb + y * stride, line[0], (size_t)out->w);
        } else {
            const JDIMENSION left = (JDIMENSION)out->h - y, want = left < LINES ? left : LINES;
            for (JDIMENSION i = 0; i < want; i++) rows[i] = out->rgb + (y + i) * stride;
            n = jpeg_read_scanlines(c, rows, want);
        }
    }
}

static pd_status read_part(reader *r, pd_image *out, pd_rect *got, const pd_rect *want, pd_err *err)
{
    struct jpeg_decompress_struct *c = &r->c;
    jpeg_start_decompress(c);
    if (!want) {
        PD_TRY(pd_image_size(out, (int)c->output_height, (int)c->output_width, err));
        read_rows(c, out);
        return PD_OK;
    }
    /* libjpeg treats the cut as the border of the picture, so its outermost upsampled columns differ: keep one more
     * unit. */
    const JDIMENSION unit = (JDIMENSION)c->max_h_samp_factor * DCTSIZE;
    const JDIMENSION left = (JDIMENSION)want->x, right = left + (JDIMENSION)want->w;
    JDIMENSION x = left > unit ? left - unit : 0;
    JDIMENSION w = (c->output_width - right > unit ? right + unit : c->output_width) - x;
    if (w < c->output_width) jpeg_crop_scanline(c, &x, &w);
    PD_TRY(pd_image_size(out, want->h, (int)c->output_width, err));
    if (want->y > 0) (void)jpeg_skip_scanlines(c, (JDIMENSION)want->y);
    read_rows(c, out);
    *got = (pd_rect){(int)x, want->y, out->w, want->h};
    return PD_OK;
}

static pd_status jpeg_failed(const failure *f, pd_err *err)
{
    if (f->manager.msg_code == JERR_OUT_OF_MEMORY) return PD_FAIL(err, PD_ENOMEM, "out of memory decoding a JPEG");
    return PD_FAIL(err, PD_EFORMAT, "damaged or unsupported JPEG: %s", f->text);
}

/* setjmp is alone with pointers, so that nothing it may clobber is used after a jump. out NULL: the header only. */
static pd_status guarded(reader *r, pd_image *out, pd_rect *got, const pd_rect *want, pd_bytes file,
                         const pd_image_options *options, pd_err *err)
{
    if (setjmp(r->fail.escape)) return jpeg_failed(&r->fail, err);
    PD_TRY(reader_open(r, file, options, err));
    return out ? read_part(r, out, got, want, err) : PD_OK;
}

pd_status pd_jpeg_header(int *h, int *w, pd_bytes file, const pd_image_options *options, pd_err *err)
{
    reader r;
    const pd_status status = guarded(&r, NULL, NULL, NULL, file, options, err);
    if (status == PD_OK) {
        *h = (int)r.c.image_height;
        *w = (int)r.c.image_width;
    }
    jpeg_destroy_decompress(&r.c);
    return status;
}

pd_status pd_jpeg_decode(pd_image *out, pd_rect *got, const pd_rect *want, pd_bytes file,
                         const pd_image_options *options, pd_err *err)
{
    reader r;
    const pd_status status = guarded(&r, out, got, want, file, options, err);
    jpeg_destroy_decompress(&r.c);
    return status;
}

/* ---- writing ---- */

typedef struct writer {
    failure fail;
    struct jpeg_compress_struct c;
} writer;

static pd_status write_all(writer *w, FILE *to, const pd_image *image, int quality, pd_err *err)
{
    struct jpeg_compress_struct *c = &w->c;
    memset(c, 0, sizeof *c);
    failure_init(&w->fail, true);
    c->err = &w->fail.manager;
    if (setjmp(w->fail.escape))
        return PD_FAIL(err, PD_EIO, "cannot write a JPEG: %s", ferror(to) ? strerror(errno) : w->fail.text);
    jpeg_create_compress(c);
    jpeg_stdio_dest(c, to);
    c->image_width = (JDIMENSION)image->w;
    c->image_height = (JDIMENSION)image->h;
    c->input_components = 3;
    c->in_color_space = JCS_RGB;
    jpeg_set_defaults(c);
    jpeg_set_quality(c, quality, TRUE);
    jpeg_start_compress(c, TRUE);
    while (c->next_scanline < c->image_height) {
        JSAMPROW row = image->rgb + (size_t)c->next_scanline * (size_t)image->w * 3;
        (void)jpeg_write_scanlines(c, &row, 1);
    }
    jpeg_finish_compress(c);
    return PD_OK;
}

pd_status pd_jpeg_encode(pd_out *out, const pd_image *image, int quality, pd_err *err)
{
    if (quality < 1 || quality > 100) return PD_FAIL(err, PD_EINVAL, "JPEG quality %d; it goes from 1 to 100", quality);
    if (image->w < 1 || image->h < 1 || image->w > JPEG_MAX_DIMENSION || image->h > JPEG_MAX_DIMENSION)
        return PD_FAIL(err, PD_EINVAL, "%dx%d pixels do not fit into a JPEG (1..%ld a side)", image->w, image->h,
                       JPEG_MAX_DIMENSION);
    writer w;
    const pd_status status = write_all(&w, pd_out_stream(out), image, quality, err);
    jpeg_destroy_compress(&w.c);
    return status;
}
