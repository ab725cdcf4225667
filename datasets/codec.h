/* codec.h: what image.c asks of jpeg.c and png.c; users include image.h. */
#ifndef PD_CODEC_H
#define PD_CODEC_H

#include "datasets/image.h"

/* PD_EFORMAT where w x h is empty or more than max_pixels (0: the default). */
pd_status pd_image_check_size(uint64_t w, uint64_t h, uint64_t max_pixels, pd_err *err);

/* Stored size, from the header. */
pd_status pd_jpeg_header(int *h, int *w, pd_bytes file, const pd_image_options *options, pd_err *err);
pd_status pd_png_header(int *h, int *w, pd_bytes file, const pd_image_options *options, pd_err *err);

/* want NULL: everything, got unused. EXIF is not looked at. */
pd_status pd_jpeg_decode(pd_image *out, pd_rect *got, const pd_rect *want, pd_bytes file,
                         const pd_image_options *options, pd_err *err);
pd_status pd_png_decode(pd_image *out, pd_bytes file, const pd_image_options *options, pd_err *err);

#endif
