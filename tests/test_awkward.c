/* Every odd, broken and hostile image file of the shared data gets what its manifest says: decode, reject, or either
 * without harm. Set PD_SHARED, or keep the data beside the checkout; skipped without it. */
#include "datasets/image.h"
#include "engine/rng.h"
#include "tests/md5.h"
#include "tests/pd_test.h"

#include <sys/resource.h>
#include <unistd.h>

enum { COLUMNS = 18 };

typedef struct row {
    const char *field[COLUMNS];
} row;

static const char *const names[] = {"file", "expect", "format", "detail", "width", "height", "mean_rgb", "rgb8_md5"};
enum { FILE_NAME, EXPECT, FORMAT, DETAIL, WIDTH, HEIGHT, MEAN, MD5, FIELDS };

/* Cuts a line at its tabs. */
static void split(row *out, char *line)
{
    line[strcspn(line, "\n")] = '\0';
    for (int i = 0; i < COLUMNS; i++) {
        out->field[i] = line ? line : "";
        char *tab = line ? strchr(line, '\t') : NULL;
        if (tab) *tab++ = '\0';
        line = tab;
    }
}

static void check_mean(const pd_image *image, const char *want, double tolerance)
{
    double mean[3] = {0}, expect[3];
    const size_t n = (size_t)image->w * (size_t)image->h;
    for (size_t i = 0; i < 3 * n; i++) mean[i % 3] += image->rgb[i];
    if (sscanf(want, "%lf,%lf,%lf", &expect[0], &expect[1], &expect[2]) != 3) return;
    for (int c = 0; c < 3; c++) PD_CHECK_NEAR(mean[c] / (double)n, expect[c], tolerance);
}

/* Parts of the picture hold the very pixels of the whole. */
static void check_parts(const pd_image *whole, pd_bytes file)
{
    pd_err err = PD_ERR_INIT;
    pd_rng rng = pd_rng_make(7, (uint32_t)whole->w, (uint32_t)whole->h);
    pd_image part = PD_IMAGE_INIT;
    for (int trial = 0; trial < 40; trial++) {
        pd_rect want, got = {0, 0, 0, 0};
        want.w = 1 + (int)pd_rng_below(&rng, (uint32_t)whole->w);
        want.h = 1 + (int)pd_rng_below(&rng, (uint32_t)whole->h);
        want.x = (int)pd_rng_below(&rng, (uint32_t)(whole->w - want.w + 1));
        want.y = (int)pd_rng_below(&rng, (uint32_t)(whole->h - want.h + 1));
        PD_CHECK_OK(pd_image_decode_part(&part, &got, want, file, NULL, &err));
        PD_CHECK(got.x <= want.x && got.y <= want.y && got.x + got.w >= want.x + want.w &&
                 got.y + got.h >= want.y + want.h && got.w == part.w && got.h == part.h);
        for (int y = want.y; y < want.y + want.h; y++) {
            const unsigned char *a = whole->rgb + ((size_t)y * (size_t)whole->w + (size_t)want.x) * 3;
            const unsigned char *b = part.rgb + ((size_t)(y - got.y) * (size_t)part.w + (size_t)(want.x - got.x)) * 3;
            const bool same = !memcmp(a, b, (size_t)want.w * 3);
            PD_CHECK_MSG(same, "part %dx%d at (%d, %d) differs in row %d", want.w, want.h, want.x, want.y, y);
            if (!same) goto done;
        }
    }
done:
    pd_image_free(&part);
}

static void check_file(const char *folder, const row *r, pd_arena *arena)
{
    pd_err err = PD_ERR_INIT;
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, r->field[FILE_NAME]);
    pd_bytes file;
    PD_CHECK_OK(pd_file_read(&file, path, 0, arena, &err));
    const char *expect = r->field[EXPECT];
    pd_image image = PD_IMAGE_INIT;
    alarm(60); /* an endless run ends the test */
    const pd_status status = pd_image_decode(&image, file, NULL, &err);
    if (!strcmp(expect, "decode")) {
        PD_CHECK_MSG(status == PD_OK, "%s", err.text);
        if (status == PD_OK) {
            PD_CHECK_INT(image.w, atoi(r->field[WIDTH]));
            PD_CHECK_INT(image.h, atoi(r->field[HEIGHT]));
            const bool inks = strstr(r->field[DETAIL], "CMYK") || strstr(r->field[DETAIL], "YCCK");
            check_mean(&image, r->field[MEAN], !strcmp(r->field[FORMAT], "png") ? 0.006 : inks ? 3 : 1);
            char hex[33];
            md5_hex(hex, image.rgb, (size_t)image.w * (size_t)image.h * 3);
            if (*r->field[MD5]) PD_CHECK_STR(hex, r->field[MD5]);
            check_parts(&image, file);
        }
    } else if (strcmp(expect, "either") != 0) {
        PD_CHECK_MSG(status == PD_EFORMAT, "expected a refusal, got %s", pd_status_text(status));
    }
    if (status != PD_OK) PD_CHECK(strlen(err.text) > 5);
    if (!strcmp(expect, "other-format")) {
        const char *const kinds[] = {"gif", "GIF", "bmp", "BMP", "webp", "WebP"};
        for (int i = 0; i < 6; i += 2)
            if (!strcmp(r->field[FORMAT], kinds[i])) PD_CHECK(strstr(err.text, kinds[i + 1]));
    }
    if (getenv("PD_VERBOSE")) printf("%-50s %-12s %s\n", r->field[FILE_NAME], expect, status ? err.text : "decoded");
    alarm(0);
    pd_image_free(&image);
}

int main(void)
{
    const char *shared = getenv("PD_SHARED");
    char folder[400], path[512];
    snprintf(folder, sizeof folder, "%s/data/awkward-images", shared ? shared : PD_SOURCE_DIR "/../shared");
    snprintf(path, sizeof path, "%s/manifest.tsv", folder);
    FILE *manifest = fopen(path, "r");
    if (!manifest) {
        PD_SKIP("no %s", path);
        return pd_test_end();
    }
    char line[4096];
    int where[FIELDS];
    row head;
    if (!fgets(line, sizeof line, manifest)) line[0] = '\0';
    split(&head, line);
    for (int f = 0; f < FIELDS; f++) {
        where[f] = 0;
        for (int i = 0; i < COLUMNS; i++)
            if (!strcmp(head.field[i], names[f])) where[f] = i;
    }
    pd_arena *arena = pd_arena_new();
    int files = 0;
    while (fgets(line, sizeof line, manifest)) {
        row all, r;
        split(&all, line);
        for (int f = 0; f < FIELDS; f++) r.field[f] = all.field[where[f]];
        PD_ROW(r.field[FILE_NAME]);
        check_file(folder, &r, arena);
        pd_arena_reset(arena);
        files++;
    }
    PD_ROW("");
    PD_CHECK(files > 100);
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    PD_CHECK_MSG(use.ru_maxrss < 2 << 20, "%ld KiB were resident", use.ru_maxrss);
    printf("%d files, %ld MiB resident at most\n", files, use.ru_maxrss >> 10);
    fclose(manifest);
    pd_arena_free(arena);
    return pd_test_end();
}
