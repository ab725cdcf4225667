/* Any bytes as an image: an answer without harm; and where the whole decodes, a part has the pixels of the whole.
 * The last byte chooses options and part, so that image files can be the corpus as they are. */
#include "datasets/image.h"
#include "engine/rng.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_part(const pd_image *whole, pd_bytes file, const pd_image_options *options, pd_rng *rng)
{
    pd_err err = PD_ERR_INIT;
    pd_image part = PD_IMAGE_INIT;
    pd_rect got, want;
    want.w = 1 + (int)pd_rng_below(rng, (uint32_t)whole->w);
    want.h = 1 + (int)pd_rng_below(rng, (uint32_t)whole->h);
    want.x = (int)pd_rng_below(rng, (uint32_t)(whole->w - want.w + 1));
    want.y = (int)pd_rng_below(rng, (uint32_t)(whole->h - want.h + 1));
    if (pd_image_decode_part(&part, &got, want, file, options, &err) != PD_OK) abort();
    for (int y = want.y; y < want.y + want.h; y++) {
        const unsigned char *a = whole->rgb + ((size_t)y * (size_t)whole->w + (size_t)want.x) * 3;
        const unsigned char *b = part.rgb + ((size_t)(y - got.y) * (size_t)part.w + (size_t)(want.x - got.x)) * 3;
        if (memcmp(a, b, (size_t)want.w * 3) != 0) abort();
    }
    pd_image_free(&part);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    const pd_bytes file = {data, size};
    const uint8_t choice = data[size - 1];
    const pd_image_options options = {.exif = choice & 1, .salvage = choice & 2, .max_pixels = 1 << 18};
    pd_err err = PD_ERR_INIT;
    pd_image image = PD_IMAGE_INIT;
    pd_image_header header;
    const pd_status probed = pd_image_probe(&header, file, &options, &err);
    const pd_status status = pd_image_decode(&image, file, &options, &err);
    if (status == PD_OK) {
        if (probed != PD_OK || header.h != image.h || header.w != image.w) abort();
        pd_rng rng = pd_rng_make(size, choice, 0);
        if (!options.exif && !options.salvage)
            for (int i = 0; i < 3; i++) check_part(&image, file, &options, &rng);
    } else if (status != PD_EFORMAT || !err.text[0]) {
        abort();
    }
    pd_image_free(&image);
    return 0;
}
