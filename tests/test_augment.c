/* Augmentation on bytes: every operation equals Pillow's and torchvision's; what the policies draw; erasing.
 * golden/transform/augment.safetensors: "image" and, for "NN OPERATION VALUE", what torchvision 0.14's functional
 * (affine, adjust_*, posterize) or Pillow 9.4's ImageOps, rotate, point and transform make of it; fill (124, 116, 104),
 * bilinear. */
#include "datasets/augment.h"
#include "engine/safetensors.h"
#include "tests/pd_test.h"

#include <math.h>

static pd_err err;

static const char *const names[PD_OPS] = {
    "IDENTITY", "SHEAR_X",   "SHEAR_Y",   "TRANSLATE_X", "TRANSLATE_Y",  "ROTATE",       "BRIGHTNESS", "COLOR",
    "CONTRAST", "SHARPNESS", "POSTERIZE", "SOLARIZE",    "SOLARIZE_ADD", "AUTOCONTRAST", "EQUALIZE",   "INVERT"};

static void test_operations(void)
{
    static const unsigned char fill[3] = {124, 116, 104};
    pd_st *golden = NULL;
    pd_image m = PD_IMAGE_INIT, spare = PD_IMAGE_INIT;
    bool seen[PD_OPS] = {true};
    PD_CHECK_OK(pd_st_open(&golden, PD_GOLDEN "/transform/augment.safetensors", &err));
    const pd_st_tensor *image = golden ? pd_st_find(golden, "image") : NULL;
    for (size_t i = 0; image && i < pd_st_count(golden); i++) {
        const pd_st_tensor *t = pd_st_at(golden, i);
        char name[32];
        double value;
        if (sscanf(t->name, "%*d %31s %lf", name, &value) != 2) continue;
        PD_ROW(t->name);
        int op = 0;
        while (op < PD_OPS && strcmp(names[op], name) != 0) op++;
        PD_CHECK(op < PD_OPS);
        if (op == PD_OPS) continue;
        seen[op] = true;
        PD_CHECK_OK(pd_image_size(&m, (int)image->shape[0], (int)image->shape[1], &err));
        memcpy(m.rgb, image->data, image->bytes);
        PD_CHECK_OK(pd_augment_one(&m, &spare, (pd_augment_op)op, value, fill, &err));
        size_t differ = 0;
        int worst = 0;
        for (size_t k = 0; k < t->bytes; k++) {
            const int d = abs(m.rgb[k] - t->data[k]);
            differ += d > 0;
            worst = d > worst ? d : worst;
        }
        /* torchvision takes a shear through degrees, Pillow a rotation through decimal digits: an edge of a byte */
        const bool rounded = op == PD_OP_SHEAR_X || op == PD_OP_SHEAR_Y || op == PD_OP_ROTATE;
        PD_CHECK_MSG(rounded ? worst <= 1 && 200 * differ < t->bytes : !differ, "%zu of %zu bytes differ, by up to %d",
                     differ, t->bytes, worst);
    }
    PD_ROW("");
    for (int i = 0; i < PD_OPS; i++) PD_CHECK_MSG(seen[i], "%s has no golden row", names[i]);
    pd_image_free(&m);
    pd_image_free(&spare);
    pd_st_close(golden);
}

/* torchvision's TrivialAugmentWide: linspace(0, most, 31) and its exceptions, both directions. */
static bool trivial_has(pd_augment_step s)
{
    for (int i = 0; i < 31; i++) {
        const double share = i / 30.0, v = s.value;
        double want;
        switch (s.op) {
        case PD_OP_SHEAR_X:
        case PD_OP_SHEAR_Y: want = 0.99 * share; break;
        case PD_OP_TRANSLATE_X:
        case PD_OP_TRANSLATE_Y: want = (int)(32 * share); break;
        case PD_OP_ROTATE: want = 135 * share; break;
        case PD_OP_POSTERIZE:
            if (v == 8 - nearbyint(i / 5.0)) return true;
            continue;
        case PD_OP_SOLARIZE:
            if (fabs(v - 255 * (1 - share)) < 1e-9) return true;
            continue;
        case PD_OP_BRIGHTNESS:
        case PD_OP_COLOR:
        case PD_OP_CONTRAST:
        case PD_OP_SHARPNESS:
            if (fabs(fabs(v - 1) - 0.99 * share) < 1e-9) return true;
            continue;
        default: return s.op == PD_OP_IDENTITY || s.op == PD_OP_AUTOCONTRAST || s.op == PD_OP_EQUALIZE;
        }
        if (fabs(fabs(v) - want) < 1e-9) return true;
    }
    return false;
}

static void test_policies(void)
{
    enum { DRAWS = 20000 };
    const pd_augment wide = {.kind = PD_AUGMENT_TRIVIAL},
                     rand = {.kind = PD_AUGMENT_RAND, .layers = 2, .magnitude = 6, .spread = 0.5, .chance = 0.5};
    pd_augment_step s[PD_AUGMENT_LAYERS];
    int count[PD_OPS] = {0}, steps = 0, low = 0, high = 0;
    double least = 9, most = 0;
    pd_rng rng = pd_rng_make(1, 2, 3);
    for (int i = 0; i < DRAWS; i++) {
        PD_CHECK_INT(pd_augment_draw(s, &wide, 100, 100, &rng), 1);
        PD_CHECK_MSG(trivial_has(s[0]), "%s %g is none of the policy", names[s[0].op], s[0].value);
        count[s[0].op]++;
        if (s[0].op == PD_OP_ROTATE) (s[0].value < 0 ? &low : &high)[0]++;
        if (s[0].op == PD_OP_POSTERIZE) least = fmin(least, s[0].value), most = fmax(most, s[0].value);
    }
    PD_CHECK(least == 2 && most == 8 && low > 500 && high > 500);
    for (int i = 0; i < PD_OPS; i++) {
        const bool there = i != PD_OP_INVERT && i != PD_OP_SOLARIZE_ADD;
        PD_CHECK_MSG(there ? abs(count[i] - DRAWS / 14) < 200 : !count[i], "%s %d times", names[i], count[i]);
        count[i] = 0;
    }
    for (int i = 0; i < DRAWS; i++) {
        const int n = pd_augment_draw(s, &rand, 160, 320, &rng);
        steps += n;
        for (int k = 0; k < n; k++) {
            count[s[k].op]++;
            const double v = s[k].value;
            if (s[k].op == PD_OP_TRANSLATE_X) PD_CHECK_NEAR(fabs(v), 0.27 * 320, 0.05 * 5 * 0.45 * 320);
            if (s[k].op == PD_OP_ROTATE) PD_CHECK_NEAR(fabs(v), 18, 7.5);
            if (s[k].op == PD_OP_COLOR) PD_CHECK(v >= 0.1 && v < 1.9);
            if (s[k].op == PD_OP_POSTERIZE) PD_CHECK(v == 1 || v == 2 || v == 3);
            if (s[k].op == PD_OP_SOLARIZE) PD_CHECK(v == floor(v) && v > 30 && v < 180);
        }
    }
    PD_CHECK_NEAR(steps, DRAWS, 400);
    for (int i = 0; i < PD_OPS; i++)
        PD_CHECK_MSG(i == PD_OP_IDENTITY ? !count[i] : abs(count[i] - steps / 15) < 200, "%s %d times", names[i],
                     count[i]);
}

static void test_erase(void)
{
    enum { H = 40, W = 50, DRAWS = 2000 };
    static float x[H * W * 3];
    pd_rng rng = pd_rng_make(5, 0, 0);
    int erased = 0;
    double share = 0;
    for (int i = 0; i < DRAWS; i++) {
        for (int k = 0; k < H * W * 3; k++) x[k] = 1;
        pd_random_erase(x, H, W, 0.25, &rng);
        int zero = 0, top = H, bottom = -1, left = W, right = -1;
        for (int y = 0; y < H; y++)
            for (int c = 0; c < W; c++) {
                const float *p = x + (y * W + c) * 3;
                PD_CHECK(p[0] == p[1] && p[1] == p[2]);
                if (p[0] != 0) continue;
                zero++;
                top = y < top ? y : top;
                bottom = y > bottom ? y : bottom;
                left = c < left ? c : left;
                right = c > right ? c : right;
            }
        if (!zero) continue;
        erased++;
        share += (double)zero / (H * W);
        PD_CHECK_INT(zero, (bottom - top + 1) * (right - left + 1)); /* a box */
        PD_CHECK(zero > 0.01 * H * W && zero < 0.36 * H * W);
    }
    PD_CHECK_NEAR(erased, 0.25 * DRAWS, 70);
    PD_CHECK_NEAR(share / erased, 0.175, 0.03);
}

int main(void)
{
    test_operations();
    test_policies();
    test_erase();
    return pd_test_end();
}
