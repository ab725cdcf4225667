/* Decoding, EXIF, limits, encoding; see golden/images/README.md for where the expectations come from. */
#include "datasets/image.h"
#include "engine/rng.h"
#include "tests/md5.h"
#include "tests/pd_test.h"

#include <sys/resource.h>
#include <unistd.h>

static pd_arena *arena;

static pd_bytes golden(const char *name)
{
    pd_err err = PD_ERR_INIT;
    char path[512];
    pd_bytes file = {NULL, 0};
    snprintf(path, sizeof path, "%s/images/%s", PD_GOLDEN, name);
    PD_CHECK_OK(pd_file_read(&file, path, 0, arena, &err));
    return file;
}

static void check_parts(const pd_image *whole, pd_bytes file)
{
    pd_err err = PD_ERR_INIT;
    pd_image part = PD_IMAGE_INIT;
    pd_rng rng = pd_rng_make(1, 2, 3);
    for (int trial = 0; trial < 200; trial++) {
        pd_rect want, got;
        want.w = 1 + (int)pd_rng_below(&rng, (uint32_t)whole->w);
        want.h = 1 + (int)pd_rng_below(&rng, (uint32_t)whole->h);
        want.x = (int)pd_rng_below(&rng, (uint32_t)(whole->w - want.w + 1));
        want.y = (int)pd_rng_below(&rng, (uint32_t)(whole->h - want.h + 1));
        PD_CHECK_OK(pd_image_decode_part(&part, &got, want, file, NULL, &err));
        PD_CHECK(got.x >= 0 && got.x <= want.x && got.x + got.w >= want.x + want.w && got.w == part.w);
        PD_CHECK(got.y >= 0 && got.y <= want.y && got.y + got.h >= want.y + want.h && got.h == part.h);
        int different = 0;
        for (int y = 0; y < want.h; y++) {
            const unsigned char *a = whole->rgb + ((want.y + y) * whole->w + want.x) * 3;
            const unsigned char *b = part.rgb + ((want.y - got.y + y) * part.w + want.x - got.x) * 3;
            different += memcmp(a, b, (size_t)want.w * 3) != 0;
        }
        PD_CHECK_MSG(different == 0, "part %dx%d at (%d, %d): %d rows differ from the whole", want.w, want.h, want.x,
                     want.y, different);
        if (different) break;
    }
    pd_image_free(&part);
}

static void test_list(void)
{
    pd_err err = PD_ERR_INIT;
    FILE *list = fopen(PD_GOLDEN "/images/list.txt", "r");
    PD_CHECK(list);
    char line[512], name[128], expect[32], mean[64], md5[40];
    int w, h, files = 0;
    while (list && fgets(line, sizeof line, list)) {
        if (*line == '#' || sscanf(line, "%127s %31s %d %d %63s %39s", name, expect, &w, &h, mean, md5) != 6) continue;
        PD_ROW(name);
        files++;
        const pd_bytes file = golden(name);
        pd_image image = PD_IMAGE_INIT;
        const pd_image_options options = {.exif = !strcmp(expect, "upright")};
        const pd_status status = pd_image_decode(&image, file, &options, &err);
        if (!strcmp(expect, "reject") || !strcmp(expect, "other-format")) PD_CHECK_INT(status, PD_EFORMAT);
        if (!strcmp(expect, "decode") || !strcmp(expect, "upright")) {
            PD_CHECK_MSG(status == PD_OK, "%s", err.text);
            pd_image_header header = {PD_FORMAT_UNKNOWN, 0, 0, 0};
            PD_CHECK_OK(pd_image_probe(&header, file, &options, &err));
            PD_CHECK(image.w == w && image.h == h && header.w == w && header.h == h);
        }
        if (status == PD_OK) {
            char hex[33];
            md5_hex(hex, image.rgb, (size_t)image.w * (size_t)image.h * 3);
            if (md5[1]) PD_CHECK_STR(hex, md5);
            double want[3], sum[3] = {0};
            for (int i = 0; i < image.w * image.h * 3; i++) sum[i % 3] += image.rgb[i];
            if (sscanf(mean, "%lf,%lf,%lf", &want[0], &want[1], &want[2]) == 3)
                for (int c = 0; c < 3; c++) PD_CHECK_NEAR(sum[c] / (image.w * image.h), want[c], md5[1] ? 0.006 : 1);
            if (!options.exif) check_parts(&image, file);
        }
        pd_image_free(&image);
    }
    PD_ROW("");
    PD_CHECK(files > 30);
    if (list) fclose(list);
}

static void test_messages(void)
{
    pd_err err = PD_ERR_INIT;
    pd_image image = PD_IMAGE_INIT;
    pd_rect got;
    const pd_bytes photo = golden("hopper_gray.jpg"); /* 128x128 */
    pd_image_options small = {.max_pixels = 128 * 128 - 1};
    PD_CHECK_FAILS(pd_image_decode(&image, photo, &small, &err), PD_EFORMAT, "128x128");
    small.max_pixels++;
    PD_CHECK_OK(pd_image_decode(&image, photo, &small, &err));
    PD_CHECK_FAILS(pd_image_decode(&image, golden("l_trns.png"), &(pd_image_options){.max_pixels = 9}, &err),
                   PD_EFORMAT, "64x64 pixels; allowed are 1 to 9");
    PD_CHECK_FAILS(pd_image_decode(&image, golden("coco-webp-inside.JPEG"), NULL, &err), PD_EFORMAT, "WebP");
    PD_CHECK_FAILS(pd_image_decode(&image, golden("coco-zero-byte.JPEG"), NULL, &err), PD_EFORMAT, "empty");
    PD_CHECK_FAILS(pd_image_decode(&image, golden("coco-error-page.jpg"), NULL, &err), PD_EFORMAT,
                   "neither JPEG nor PNG");
    PD_CHECK_FAILS(pd_image_load(&image, "/nonexistent/x.jpg", NULL, &err), PD_EIO, "/nonexistent/x.jpg");
    PD_CHECK_FAILS(pd_image_load(&image, PD_GOLDEN "/images/coco-cut-005.jpg", NULL, &err), PD_EFORMAT,
                   "cut-005.jpg: damaged");
    PD_CHECK_FAILS(pd_image_decode_part(&image, &got, (pd_rect){100, 0, 29, 1}, photo, NULL, &err), PD_EINVAL,
                   "29x1 at (100, 0)");
    PD_CHECK_FAILS(pd_image_decode_part(&image, &got, (pd_rect){0, 0, 0, 1}, photo, NULL, &err), PD_EINVAL,
                   "not inside");
    PD_CHECK_FAILS(
        pd_image_decode_part(&image, &got, (pd_rect){0, 0, 1, 1}, photo, &(pd_image_options){.exif = true}, &err),
        PD_EINVAL, "EXIF");
    pd_image_free(&image);
}

/* A cut JPEG is refused, or decoded as far as it goes on request. */
static void test_salvage(void)
{
    pd_err err = PD_ERR_INIT;
    pd_image whole = PD_IMAGE_INIT, image = PD_IMAGE_INIT;
    pd_bytes photo = golden("hopper_gray.jpg");
    PD_CHECK_OK(pd_image_decode(&whole, photo, NULL, &err));
    photo.size = photo.size * 3 / 4;
    PD_CHECK_FAILS(pd_image_decode(&image, photo, NULL, &err), PD_EFORMAT, "Premature end");
    PD_CHECK_OK(pd_image_decode(&image, photo, &(pd_image_options){.salvage = true}, &err));
    PD_CHECK(!memcmp(image.rgb, whole.rgb, 128 * 3 * 32));
    PD_CHECK(memcmp(image.rgb + 128 * 3 * 120, whole.rgb + 128 * 3 * 120, 128 * 3 * 8) != 0);
    pd_image_free(&image);
    pd_image_free(&whole);
}

/* Hand-made Exif segments: both byte orders, LONG instead of SHORT, and ways to be wrong. */
static void test_exif(void)
{
#define APP1(n) "\xff\xd8\xff\xe1\0" n "Exif\0\0"
#define LITTLE "II*\0\x8\0\0\0"
#define BIG "MM\0*\0\0\0\x8"
    static const struct {
        const char *name;
        size_t size;
        const char *bytes;
        int want;
    } rows[] = {
#define ROW(name, bytes, want) {name, sizeof(bytes) - 1, bytes, want}
        ROW("little endian", APP1("\x22") LITTLE "\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0", 6),
        ROW("big endian", APP1("\x22") BIG "\0\1\1\x12\0\3\0\0\0\1\0\x8\0\0\0\0\0\0", 8),
        ROW("LONG", APP1("\x22") LITTLE "\1\0\x12\1\4\0\1\0\0\0\3\0\0\0\0\0\0\0", 3),
        ROW("second entry", APP1("\x2e") LITTLE "\2\0\0\1\3\0\1\0\0\0\5\0\0\0\x12\1\3\0\1\0\0\0\2\0\0\0\0\0\0\0", 2),
        ROW("fill byte before",
            "\xff\xd8\xff\xff\xe1\0\x22"
            "Exif\0\0" LITTLE "\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0",
            6),
        ROW("value 9", APP1("\x22") LITTLE "\1\0\x12\1\3\0\1\0\0\0\x9\0\0\0\0\0\0\0", 1),
        ROW("value 0", APP1("\x22") LITTLE "\1\0\x12\1\3\0\1\0\0\0\0\0\0\0\0\0\0\0", 1),
        ROW("count 2", APP1("\x22") LITTLE "\1\0\x12\1\3\0\2\0\0\0\6\0\0\0\0\0\0\0", 1),
        ROW("a byte's type", APP1("\x22") LITTLE "\1\0\x12\1\1\0\1\0\0\0\6\0\0\0\0\0\0\0", 1),
        ROW("directory far outside",
            APP1("\x22") "II*\0\xff\xff\xff\xff"
                         "\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0",
            1),
        ROW("directory in the header",
            APP1("\x22") "II*\0\0\0\0\0"
                         "\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0",
            1),
        ROW("many entries declared", APP1("\x22") LITTLE "\xff\xff\0\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0", 1),
        ROW("cut in the entry", APP1("\x18") LITTLE "\1\0\x12\1\3\0\1\0", 1),
        ROW("segment longer than the file", APP1("\x7f") LITTLE "\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0", 1),
        ROW("not 42",
            APP1("\x22") "II+\0\x8\0\0\0"
                         "\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0",
            1),
        ROW("after the scan",
            "\xff\xd8\xff\xda\0\2"
            "\xff\xe1\0\x22"
            "Exif\0\0" LITTLE "\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0",
            1),
        ROW("nothing", "\xff\xd8\xff", 1),
#undef ROW
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        PD_ROW(rows[i].name);
        unsigned char *exact = malloc(rows[i].size); /* so that ASan sees a byte too far */
        memcpy(exact, rows[i].bytes, rows[i].size);
        PD_CHECK_INT(pd_exif_orientation((pd_bytes){exact, rows[i].size}), rows[i].want);
        free(exact);
    }
    PD_ROW("");
    PD_CHECK_INT(pd_exif_orientation(golden("hopper_orientation_6.jpg")), 6);
}

/* Cut anywhere and flipped anywhere: any answer, but an answer. */
static void test_damage(void)
{
    static const char *const names[] = {
        "b422.jpg", "p420.jpg", "cmyk.jpg", "bug-10-8bit.jpg", "pngsuite-basi2c16.png", "pngsuite-tbbn3p08.png",
        "exif6.png"};
    pd_err err = PD_ERR_INIT;
    pd_image image = PD_IMAGE_INIT;
    pd_rng rng = pd_rng_make(5, 6, 7);
    for (size_t f = 0; f < sizeof names / sizeof *names; f++) {
        PD_ROW(names[f]);
        const pd_bytes file = golden(names[f]);
        alarm(100);
        for (int trial = 0; trial < 400; trial++) {
            const size_t size = trial % 2 ? file.size : pd_rng_below(&rng, (uint32_t)file.size);
            unsigned char *copy = malloc(size ? size : 1);
            memcpy(copy, file.data, size);
            for (int i = 0; trial % 2 && i < 1 + trial % 5; i++)
                copy[pd_rng_below(&rng, (uint32_t)size)] ^= (unsigned char)(1 << pd_rng_below(&rng, 8));
            const pd_image_options options = {.exif = true, .salvage = trial % 3 == 0, .max_pixels = 1 << 20};
            const pd_status status = pd_image_decode(&image, (pd_bytes){copy, size}, &options, &err);
            PD_CHECK(status == PD_OK || status == PD_EFORMAT);
            free(copy);
        }
        alarm(0);
    }
    PD_ROW("");
    pd_image_free(&image);
}

static void test_encode(void)
{
    pd_err err = PD_ERR_INIT;
    char dir[256], path[300];
    PD_CHECK(pd_test_dir(dir, "image"));
    pd_image image = PD_IMAGE_INIT, back = PD_IMAGE_INIT;
    PD_CHECK_OK(pd_image_size(&image, 31, 45, &err));
    for (int i = 0; i < 31 * 45 * 3; i++)
        image.rgb[i] = (unsigned char)(128 + 90 * sin(i % 3 + i / 3 % 45 / 9.) * cos(i / 135 / 7.));
    static const char *const ends[] = {"a.png", "a.jpg", "noend"};
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, ends[i]);
        PD_CHECK_OK(pd_image_save(path, &image, &err));
        PD_CHECK_OK(pd_image_load(&back, path, NULL, &err));
        PD_CHECK(back.h == 31 && back.w == 45);
        double sum = 0;
        for (int k = 0; k < 31 * 45 * 3; k++) sum += abs(back.rgb[k] - image.rgb[k]);
        PD_CHECK_NEAR(sum / (31 * 45 * 3), 0, i == 0 ? 0 : 3);
        PD_CHECK((sum == 0) == (i == 0));
        unlink(path);
    }
    pd_out *out;
    snprintf(path, sizeof path, "%s/b.jpg", dir);
    PD_CHECK_OK(pd_out_open(&out, path, &err));
    PD_CHECK_FAILS(pd_jpeg_encode(out, &image, 0, &err), PD_EINVAL, "quality 0");
    pd_out_cancel(out);
    out = NULL;
    PD_CHECK_FAILS(pd_image_save("/nonexistent/b.jpg", &image, &err), PD_EIO, "/nonexistent/b.jpg");
    PD_CHECK_FAILS(pd_image_size(&image, 0, 5, &err), PD_EINVAL, "5x0");
    PD_CHECK_INT(image.w, 45);
    rmdir(dir);
    pd_image_free(&image);
    pd_image_free(&back);
}

int main(void)
{
    arena = pd_arena_new();
    test_list();
    test_messages();
    test_salvage();
    test_exif();
    test_damage();
    test_encode();
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    PD_CHECK_MSG(use.ru_maxrss < 1 << 20, "%ld KiB were resident", use.ru_maxrss);
    pd_arena_free(arena);
    return pd_test_end();
}
