#include "datasets/augment.h"

#include <math.h>
#include <string.h>

#define PI 3.14159265358979323846

static size_t bytes_of(const pd_image *m)
{
    return (size_t)m->h * (size_t)m->w * 3;
}

static void swap(pd_image *a, pd_image *b)
{
    const pd_image t = *a;
    *a = *b;
    *b = t;
}

/* ---- tables: what becomes of every value, channel by channel ---- */

static void look_up(pd_image *m, unsigned char lut[3][256])
{
    for (size_t i = 0, n = bytes_of(m); i < n; i += 3)
        for (int c = 0; c < 3; c++) m->rgb[i + (size_t)c] = lut[c][m->rgb[i + (size_t)c]];
}

static unsigned char clip(double v)
{
    return (unsigned char)(v <= 0 ? 0 : v >= 255 ? 255 : v);
}

static void histogram(long count[256], const pd_image *m, int channel)
{
    memset(count, 0, 256 * sizeof *count);
    for (size_t i = (size_t)channel, n = bytes_of(m); i < n; i += 3) count[m->rgb[i]]++;
}

static void autocontrast(unsigned char lut[256], const long count[256])
{
    int low = 0, high = 255;
    while (low < 255 && !count[low]) low++;
    while (high > 0 && !count[high]) high--;
    const double scale = high > low ? 255.0 / (high - low) : 1, offset = high > low ? -low * scale : 0;
    for (int i = 0; i < 256; i++) lut[i] = clip(i * scale + offset);
}

static void equalize(unsigned char lut[256], const long count[256])
{
    long total = 0, last = 0, used = 0;
    for (int i = 0; i < 256; i++) {
        total += count[i];
        used += count[i] > 0;
        if (count[i]) last = count[i];
    }
    const long step = (total - last) / 255;
    long n = step / 2;
    for (int i = 0; i < 256; i++) {
        lut[i] = clip((double)(used > 1 && step ? n / step : i)); /* few pixels: beyond 255 */
        n += count[i];
    }
}

static void by_table(pd_image *m, pd_augment_op op, double value)
{
    unsigned char lut[3][256];
    const int whole = (int)value;
    for (int c = 0; c < 3; c++) {
        long count[256];
        if (op == PD_OP_AUTOCONTRAST || op == PD_OP_EQUALIZE) {
            histogram(count, m, c);
            (op == PD_OP_EQUALIZE ? equalize : autocontrast)(lut[c], count);
            continue;
        }
        for (int i = 0; i < 256; i++) {
            int v = i;
            if (op == PD_OP_POSTERIZE) v = i & (0xff00 >> whole);
            if (op == PD_OP_SOLARIZE && i >= value) v = 255 - i;
            if (op == PD_OP_SOLARIZE_ADD && i < 128) v = i + whole > 255 ? 255 : i + whole;
            if (op == PD_OP_INVERT) v = 255 - i;
            lut[c][i] = (unsigned char)v;
        }
    }
    look_up(m, lut);
}

/* ---- between the image and a poorer one ---- */

/* Pillow's Image.blend: from `from` (factor 0) to `to` (1) and beyond; float32, cut. */
static unsigned char blend(int from, int to, float factor)
{
    const float v = (float)from + factor * (float)(to - from);
    if (factor >= 0 && factor <= 1) return (unsigned char)v;
    return clip((double)v);
}

static int grey(const unsigned char *p)
{
    return (p[0] * 19595 + p[1] * 38470 + p[2] * 7471 + 0x8000) >> 16;
}

static int mean_grey(const pd_image *m)
{
    double sum = 0;
    const size_t n = bytes_of(m);
    for (size_t i = 0; i < n; i += 3) sum += grey(m->rgb + i);
    return (int)(sum / ((double)n / 3) + 0.5);
}

static void enhance(pd_image *m, pd_augment_op op, double value)
{
    const int mean = op == PD_OP_CONTRAST ? mean_grey(m) : 0;
    for (size_t i = 0, n = bytes_of(m); i < n; i += 3) {
        unsigned char *p = m->rgb + i;
        const int poor = op == PD_OP_COLOR ? grey(p) : mean;
        for (int c = 0; c < 3; c++) p[c] = blend(poor, p[c], (float)value);
    }
}

/* Against the mean of 3x3 pixels of which the middle weighs 5; the frame has none and stays. */
static pd_status sharpen(pd_image *m, pd_image *out, double value, pd_err *err)
{
    PD_TRY(pd_image_size(out, m->h, m->w, err));
    const ptrdiff_t row = 3 * (ptrdiff_t)m->w;
    for (int y = 0; y < m->h; y++)
        for (int x = 0; x < m->w; x++) {
            const bool frame = y == 0 || x == 0 || y == m->h - 1 || x == m->w - 1;
            const ptrdiff_t at = y * row + 3 * x;
            for (int c = 0; c < 3; c++) {
                const unsigned char *p = m->rgb + at + c;
                int smooth = *p;
                if (!frame) {
                    int sum = 4 * p[0];
                    for (int k = -1; k <= 1; k++) sum += p[k * row - 3] + p[k * row] + p[k * row + 3];
                    smooth = (2 * sum + 13) / 26;
                }
                out->rgb[at + c] = blend(smooth, *p, (float)value);
            }
        }
    swap(m, out);
    return PD_OK;
}

/* ---- shape ---- */

/* Where the output pixel's centre (x + 0.5, y + 0.5) is read: (a0 x + a1 y + a2, a3 x + a4 y + a5). */
static pd_status affine(pd_image *m, pd_image *out, const double a[6], const unsigned char fill[3], pd_err *err)
{
    PD_TRY(pd_image_size(out, m->h, m->w, err));
    unsigned char *to = out->rgb;
    for (int y = 0; y < m->h; y++)
        for (int x = 0; x < m->w; x++, to += 3) {
            double u = a[0] * (x + 0.5) + a[1] * (y + 0.5) + a[2], v = a[3] * (x + 0.5) + a[4] * (y + 0.5) + a[5];
            if (!(u >= 0 && u < m->w && v >= 0 && v < m->h)) {
                memcpy(to, fill, 3);
                continue;
            }
            u -= 0.5;
            v -= 0.5;
            const int left = (int)floor(u), top = (int)floor(v);
            const double dx = u - left, dy = v - top;
            const int x0 = left < 0 ? 0 : left, x1 = left + 1 < m->w ? left + 1 : m->w - 1;
            const int y0 = top < 0 ? 0 : top, y1 = top + 1 < m->h ? top + 1 : y0;
            const unsigned char *r0 = m->rgb + 3 * (ptrdiff_t)y0 * m->w, *r1 = m->rgb + 3 * (ptrdiff_t)y1 * m->w;
            for (int c = 0; c < 3; c++) {
                const double p = r0[3 * x0 + c] + (r0[3 * x1 + c] - r0[3 * x0 + c]) * dx;
                const double q = r1[3 * x0 + c] + (r1[3 * x1 + c] - r1[3 * x0 + c]) * dx;
                to[c] = (unsigned char)(p + (q - p) * dy);
            }
        }
    swap(m, out);
    return PD_OK;
}

static pd_status move(pd_image *m, pd_image *out, pd_augment_op op, double value, const unsigned char fill[3],
                      pd_err *err)
{
    double a[6] = {1, 0, 0, 0, 1, 0};
    switch (op) {
    case PD_OP_SHEAR_X: a[1] = value; break;
    case PD_OP_SHEAR_Y: a[3] = value; break;
    case PD_OP_TRANSLATE_X: a[2] = -value; break;
    case PD_OP_TRANSLATE_Y: a[5] = -value; break;
    default: {
        if (fmod(value, 360) == 0) return PD_OK;
        const double angle = -value * PI / 180, cx = m->w / 2.0, cy = m->h / 2.0;
        a[0] = a[4] = round(cos(angle) * 1e15) / 1e15;
        a[1] = round(sin(angle) * 1e15) / 1e15;
        a[3] = -a[1];
        a[2] = a[0] * -cx + a[1] * -cy + cx;
        a[5] = a[3] * -cx + a[4] * -cy + cy;
    }
    }
    return affine(m, out, a, fill, err);
}

pd_status pd_augment_one(pd_image *image, pd_image *spare, pd_augment_op op, double value, const unsigned char fill[3],
                         pd_err *err)
{
    switch (op) {
    case PD_OP_IDENTITY: return PD_OK;
    case PD_OP_SHEAR_X:
    case PD_OP_SHEAR_Y:
    case PD_OP_TRANSLATE_X:
    case PD_OP_TRANSLATE_Y:
    case PD_OP_ROTATE: return move(image, spare, op, value, fill, err);
    case PD_OP_BRIGHTNESS:
    case PD_OP_COLOR:
    case PD_OP_CONTRAST: enhance(image, op, value); return PD_OK;
    case PD_OP_SHARPNESS: return sharpen(image, spare, value, err);
    default: by_table(image, op, value); return PD_OK;
    }
}

/* ---- policies ---- */

/* How a strength, 0..1 of the policy's range, becomes the operation's value. */
typedef struct choice {
    pd_augment_op op;
    double least, most; /* values at strength 0 and 1 */
    bool either;        /* the change's direction is drawn */
    bool enhance;       /* value = 1 + change */
    bool whole;         /* cut to whole numbers */
    bool of_side;       /* least and most are shares of the image's side */
} choice;

static const choice trivial[] = {
    {PD_OP_IDENTITY, 0, 0, false, false, false, false},     {PD_OP_SHEAR_X, 0, 0.99, true, false, false, false},
    {PD_OP_SHEAR_Y, 0, 0.99, true, false, false, false},    {PD_OP_TRANSLATE_X, 0, 32, true, false, true, false},
    {PD_OP_TRANSLATE_Y, 0, 32, true, false, true, false},   {PD_OP_ROTATE, 0, 135, true, false, false, false},
    {PD_OP_BRIGHTNESS, 0, 0.99, true, true, false, false},  {PD_OP_COLOR, 0, 0.99, true, true, false, false},
    {PD_OP_CONTRAST, 0, 0.99, true, true, false, false},    {PD_OP_SHARPNESS, 0, 0.99, true, true, false, false},
    {PD_OP_POSTERIZE, 8, 2, false, false, true, false},     {PD_OP_SOLARIZE, 255, 0, false, false, false, false},
    {PD_OP_AUTOCONTRAST, 0, 0, false, false, false, false}, {PD_OP_EQUALIZE, 0, 0, false, false, false, false},
};

static const choice rand_augment[] = {
    {PD_OP_AUTOCONTRAST, 0, 0, false, false, false, false},  {PD_OP_EQUALIZE, 0, 0, false, false, false, false},
    {PD_OP_INVERT, 0, 0, false, false, false, false},        {PD_OP_ROTATE, 0, 30, true, false, false, false},
    {PD_OP_POSTERIZE, 4, 0, false, false, true, false},      {PD_OP_SOLARIZE, 256, 0, false, false, true, false},
    {PD_OP_SOLARIZE_ADD, 0, 110, false, false, true, false}, {PD_OP_COLOR, 0, 0.9, true, true, false, false},
    {PD_OP_CONTRAST, 0, 0.9, true, true, false, false},      {PD_OP_BRIGHTNESS, 0, 0.9, true, true, false, false},
    {PD_OP_SHARPNESS, 0, 0.9, true, true, false, false},     {PD_OP_SHEAR_X, 0, 0.3, true, false, false, false},
    {PD_OP_SHEAR_Y, 0, 0.3, true, false, false, false},      {PD_OP_TRANSLATE_X, 0, 0.45, true, false, false, true},
    {PD_OP_TRANSLATE_Y, 0, 0.45, true, false, false, true},
};

/* A falling whole number falls by whole steps: least - (int)(strength * span), as both libraries have it (torchvision
 * rounds the posterised bits, which 31 strengths make the same as rounding the step). */
static double value_of(const choice *c, double strength, bool turn, int h, int w, bool rounds)
{
    double v = c->least + strength * (c->most - c->least);
    if (c->whole && c->most < c->least) {
        const double step = strength * (c->least - c->most);
        v = c->least - (rounds ? nearbyint(step) : floor(step));
    } else if (c->whole) {
        v = floor(v);
    }
    if (c->of_side) v *= c->op == PD_OP_TRANSLATE_X ? w : h;
    if (c->either && turn) v = -v;
    if (c->enhance) v = rounds ? 1 + v : fmax(0.1, 1 + v); /* timm's bound */
    return v;
}

int pd_augment_draw(pd_augment_step *out, const pd_augment *how, int h, int w, pd_rng *rng)
{
    enum { TRIVIAL = sizeof trivial / sizeof *trivial, RAND = sizeof rand_augment / sizeof *rand_augment };
    int count = 0;
    if (how->kind == PD_AUGMENT_TRIVIAL) {
        const choice *c = &trivial[pd_rng_below(rng, TRIVIAL)];
        const double strength = pd_rng_below(rng, 31) / 30.0;
        const bool turn = pd_rng_below(rng, 2);
        out[count++] = (pd_augment_step){c->op, value_of(c, strength, turn, h, w, true)};
    }
    for (int i = 0; how->kind == PD_AUGMENT_RAND && i < how->layers && i < PD_AUGMENT_LAYERS; i++) {
        const choice *c = &rand_augment[pd_rng_below(rng, RAND)];
        const bool used = pd_rng_double(rng) < how->chance, turn = pd_rng_below(rng, 2);
        const double level = how->magnitude + how->spread * pd_rng_normal(rng);
        const double strength = fmin(fmax(level, 0), 10) / 10;
        if (used) out[count++] = (pd_augment_step){c->op, value_of(c, strength, turn, h, w, false)};
    }
    return count;
}

pd_status pd_augment_apply(pd_image *image, pd_image *spare, const pd_augment *how, const unsigned char fill[3],
                           pd_rng *rng, pd_err *err)
{
    pd_augment_step steps[PD_AUGMENT_LAYERS];
    const int count = pd_augment_draw(steps, how, image->h, image->w, rng);
    for (int i = 0; i < count; i++) PD_TRY(pd_augment_one(image, spare, steps[i].op, steps[i].value, fill, err));
    return PD_OK;
}

void pd_random_erase(float *pixels, int h, int w, double chance, pd_rng *rng)
{
    if (chance <= 0 || pd_rng_double(rng) >= chance) return;
    for (int i = 0; i < 10; i++) {
        const double area = (0.02 + 0.31 * pd_rng_double(rng)) * h * w;
        const double ratio = exp(log(0.3) + log(3.3 / 0.3) * pd_rng_double(rng));
        const int eh = (int)nearbyint(sqrt(area * ratio)), ew = (int)nearbyint(sqrt(area / ratio));
        if (!(eh < h && ew < w)) continue;
        const int top = (int)pd_rng_below(rng, (uint32_t)(h - eh + 1)),
                  left = (int)pd_rng_below(rng, (uint32_t)(w - ew + 1));
        for (int y = top; y < top + eh; y++)
            memset(pixels + ((size_t)y * (size_t)w + (size_t)left) * 3, 0, (size_t)ew * 3 * sizeof *pixels);
        return;
    }
}
