/* Drawing stays inside of the picture whatever the box, and hits the pixels it should. */
#include "datasets/draw.h"
#include "engine/rng.h"
#include "tests/pd_test.h"

enum { W = 60, H = 40 };

static bool is(const pd_image *image, int x, int y, pd_color c)
{
    const unsigned char *p = image->rgb + (y * image->w + x) * 3;
    return p[0] == c.r && p[1] == c.g && p[2] == c.b;
}

static void clear(pd_image *image)
{
    pd_err err = PD_ERR_INIT;
    PD_CHECK_OK(pd_image_size(image, H, W, &err));
    memset(image->rgb, 0, (size_t)H * W * 3);
}

static int count(const pd_image *image, pd_color c)
{
    int n = 0;
    for (int y = 0; y < image->h; y++)
        for (int x = 0; x < image->w; x++) n += is(image, x, y, c);
    return n;
}

static void test_outline(pd_image *image)
{
    const pd_color red = {200, 1, 2};
    clear(image);
    pd_draw_box(image, (pd_box){10, 5, 30, 20}, red, 2);
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++) {
            const bool inside = x >= 10 && x < 30 && y >= 5 && y < 20;
            const bool core = x >= 12 && x < 28 && y >= 7 && y < 18;
            PD_CHECK_INT(is(image, x, y, red), inside && !core);
        }
    clear(image);
    pd_draw_box(image, (pd_box){-10, -10, 100, 100}, red, 3); /* all four edges outside */
    pd_draw_box(image, (pd_box){5, 5, 5, 9}, red, 3);
    pd_draw_box(image, (pd_box){NAN, 5, 8, 9}, red, 3);
    PD_CHECK_INT(count(image, red), 0);
    pd_draw_box(image, (pd_box){-INFINITY, -INFINITY, INFINITY, 10}, red, 1); /* only its lower edge is seen */
    PD_CHECK_INT(count(image, red), W);
}

/* The letter T: a bar over its five columns and a stem under the middle. */
static void test_text(pd_image *image)
{
    const pd_color dark = {10, 20, 30}, white = {255, 255, 255}, yellow = {255, 255, 0}, black = {0, 0, 0};
    clear(image);
    pd_draw_text(image, 3, 4, "T", dark, 1);
    PD_CHECK_INT(count(image, dark) + count(image, white), 7 * 10);
    for (int i = 0; i < 5; i++) PD_CHECK(is(image, 4 + i, 5, white));
    for (int i = 0; i < 7; i++) PD_CHECK(is(image, 6, 5 + i, white));
    PD_CHECK_INT(count(image, white), 11);
    clear(image);
    pd_draw_text(image, 3, 4, "T", yellow, 2);
    PD_CHECK_INT(count(image, yellow), 4 * (7 * 10 - 11));
    PD_CHECK(is(image, 5, 6, black));
    clear(image);
    pd_draw_text(image, 1000, 1000, "T", dark, 1); /* moved inside */
    PD_CHECK_INT(count(image, dark), 7 * 10 - 11);
    PD_CHECK(is(image, W - 1, H - 1, dark));
}

/* Any box, any name: ASan watches. */
static void test_wild(pd_image *image)
{
    pd_err err = PD_ERR_INIT;
    pd_rng rng = pd_rng_make(1, 2, 3);
    static const float wild[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e9f, -1e9f, 0, 1};
    char name[200];
    for (int i = 0; i < 3000; i++) {
        float v[4];
        for (int k = 0; k < 4; k++)
            v[k] = pd_rng_below(&rng, 4) ? 120 * pd_rng_float(&rng) - 30 : wild[pd_rng_below(&rng, 9)];
        const int length = (int)pd_rng_below(&rng, 199);
        for (int k = 0; k < length; k++) name[k] = (char)(1 + pd_rng_below(&rng, 255));
        name[length] = '\0';
        PD_CHECK_OK(pd_image_size(image, 1 + (int)pd_rng_below(&rng, H), 1 + (int)pd_rng_below(&rng, W), &err));
        pd_draw_labelled(image, (pd_box){v[0], v[1], v[2], v[3]}, (int)pd_rng_below(&rng, 90) - 2, i % 3 ? name : NULL,
                         i % 2 ? v[0] : 0.5f);
    }
}

static void test_colors(void)
{
    for (int a = 0; a < 80; a++)
        for (int b = 0; b < a; b++) {
            const pd_color p = pd_class_color(a), q = pd_class_color(b);
            const int gap = abs(p.r - q.r) + abs(p.g - q.g) + abs(p.b - q.b);
            PD_CHECK_MSG(gap >= (a < 12 ? 40 : 1), "colours of %d and %d are %d apart", a, b, gap);
        }
}

int main(void)
{
    pd_image image = PD_IMAGE_INIT;
    test_outline(&image);
    test_text(&image);
    test_wild(&image);
    test_colors();
    pd_image_free(&image);
    return pd_test_end();
}
