#include "datasets/transform.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- settings ---- */

static const pd_transform imagenet = {
    .kind = PD_TRANSFORM_NONE,
    .crop = 224,
    .area = {0.1, 1.0},
    .aspect = {0.8, 1.25},
    .tries = 100,
    .divisor = 32,
    .divide = 255,
    .mean = {0.485, 0.456, 0.406},
    .std = {0.229, 0.224, 0.225},
};

pd_transform pd_transform_none(void)
{
    return imagenet;
}

pd_transform pd_transform_train(void)
{
    pd_transform t = imagenet;
    t.kind = PD_TRANSFORM_RANDOM_CROP;
    t.flip = 0.5;
    return t;
}

pd_transform pd_transform_val(void)
{
    pd_transform t = imagenet;
    t.kind = PD_TRANSFORM_CENTER_CROP;
    t.resize = 256;
    return t;
}

pd_transform pd_transform_detect(bool train)
{
    return (pd_transform){
        .kind = PD_TRANSFORM_DETECT,
        .flip = train ? 0.5 : 0,
        .long_side = 1333,
        .short_side = 800,
        .divisor = 32,
        .divide = 1,
        .mean = {123.675, 116.28, 103.53},
        .std = {58.395, 57.12, 57.375},
    };
}

static pd_status check_crop(const pd_transform *t, pd_err *err)
{
    if (t->crop < 1 || t->crop > 1 << 14) return PD_FAIL(err, PD_EINVAL, "crop %d is not in 1..16384", t->crop);
    if (t->kind == PD_TRANSFORM_CENTER_CROP) {
        if (t->resize >= 0 && t->resize <= 1 << 14) return PD_OK;
        return PD_FAIL(err, PD_EINVAL, "resize %d is not in 0..16384", t->resize);
    }
    if (!(t->area[0] > 0 && t->area[0] <= t->area[1] && t->area[1] <= 1))
        return PD_FAIL(err, PD_EINVAL, "area [%g, %g]; expected 0 < low <= high <= 1", t->area[0], t->area[1]);
    if (!(t->aspect[0] > 0 && t->aspect[0] <= t->aspect[1] && t->aspect[1] <= 1000))
        return PD_FAIL(err, PD_EINVAL, "aspect [%g, %g]; expected 0 < low <= high <= 1000", t->aspect[0], t->aspect[1]);
    if (t->tries < 0) return PD_FAIL(err, PD_EINVAL, "tries %d is below 0", t->tries);
    if (t->augment.layers < 0 || t->augment.layers > PD_AUGMENT_LAYERS)
        return PD_FAIL(err, PD_EINVAL, "augment.layers %d is not in 0..%d", t->augment.layers, PD_AUGMENT_LAYERS);
    return PD_OK;
}

pd_status pd_transform_check(const pd_transform *t, pd_err *err)
{
    if (!(t->flip >= 0 && t->flip <= 1)) return PD_FAIL(err, PD_EINVAL, "flip %g is not in 0..1", t->flip);
    if (!(t->divide > 0 && t->divide <= 1e6)) return PD_FAIL(err, PD_EINVAL, "divide %g is not above 0", t->divide);
    for (int c = 0; c < 3; c++)
        if (!(t->std[c] > 0) || !isfinite(t->std[c]) || !isfinite(t->mean[c]))
            return PD_FAIL(err, PD_EINVAL, "mean %g, std %g; expected finite numbers and std above 0", t->mean[c],
                           t->std[c]);
    switch (t->kind) {
    case PD_TRANSFORM_NONE: return PD_OK;
    case PD_TRANSFORM_RANDOM_CROP:
    case PD_TRANSFORM_CENTER_CROP: return check_crop(t, err);
    case PD_TRANSFORM_DETECT:
        if (t->long_side < 1 || t->short_side < 1 || t->long_side > 1 << 14 || t->short_side > 1 << 14)
            return PD_FAIL(err, PD_EINVAL, "resize [%d, %d]; expected two numbers in 1..16384", t->long_side,
                           t->short_side);
        if (t->n_short_sides < 0 || t->n_short_sides > PD_MAX_SHORT_SIDES)
            return PD_FAIL(err, PD_EINVAL, "%d short sides; at most %d", t->n_short_sides, PD_MAX_SHORT_SIDES);
        for (int i = 0; i < t->n_short_sides; i++)
            if (t->short_sides[i] < 1 || t->short_sides[i] > 1 << 14)
                return PD_FAIL(err, PD_EINVAL, "short side %d is not in 1..16384", t->short_sides[i]);
        if (t->divisor < 1 || t->divisor > 1024)
            return PD_FAIL(err, PD_EINVAL, "divisor %d is not in 1..1024", t->divisor);
        return PD_OK;
    }
    return PD_FAIL(err, PD_EINVAL, "transform kind %d is not known", (int)t->kind);
}

bool pd_transform_in_bytes(const pd_transform *t)
{
    return t->kind == PD_TRANSFORM_NONE || t->kind == PD_TRANSFORM_DETECT;
}

pd_pixel_norm pd_transform_norm(const pd_transform *t)
{
    pd_pixel_norm n;
    n.times = t->kind == PD_TRANSFORM_DETECT;
    n.divide = (float)t->divide;
    for (int c = 0; c < 3; c++) {
        n.mean[c] = (float)t->mean[c];
        n.by[c] = n.times ? (float)(1 / t->std[c]) : (float)t->std[c];
    }
    return n;
}

void pd_normalizer_init(pd_normalizer *out, const pd_transform *t)
{
    const pd_pixel_norm norm = pd_transform_norm(t);
    for (int c = 0; c < 3; c++) {
        for (int v = 0; v < 256; v++) out->byte[c][v] = pd_pixel_value((unsigned char)v, &norm, c);
        out->slope[c] = (float)(1 / (t->divide * t->std[c]));
        out->offset[c] = (float)(-t->mean[c] / t->std[c]);
    }
}

/* ---- geometry ---- */

pd_rect pd_random_crop(int h, int w, const double area[2], const double aspect[2], int tries, pd_rng *rng)
{
    const double log_low = log(aspect[0]), log_high = log(aspect[1]), whole = (double)h * w;
    for (int i = 0; i < tries; i++) {
        const double size = whole * (area[0] + (area[1] - area[0]) * pd_rng_double(rng));
        const double ratio = exp(log_low + (log_high - log_low) * pd_rng_double(rng));
        const double bw = rint(sqrt(size * ratio)), bh = rint(sqrt(size / ratio));
        if (!(bw >= 1 && bw <= w && bh >= 1 && bh <= h)) continue;
        pd_rect box = {0, 0, (int)bw, (int)bh};
        box.y = (int)pd_rng_below(rng, (uint32_t)(h - box.h + 1));
        box.x = (int)pd_rng_below(rng, (uint32_t)(w - box.w + 1));
        return box;
    }
    pd_rect box = {0, 0, w, h};
    const double ratio = (double)w / h;
    if (ratio < aspect[0]) box.h = (int)fmin(h, fmax(1, rint(w / aspect[0])));
    if (ratio > aspect[1]) box.w = (int)fmin(w, fmax(1, rint(h * aspect[1])));
    box.x = (w - box.w) / 2;
    box.y = (h - box.h) / 2;
    return box;
}

pd_area pd_center_crop(int h, int w, int resize, int crop)
{
    const int low = h < w ? h : w, high = h < w ? w : h;
    if (resize == 0) resize = low;
    if (resize < crop) resize = crop;
    const int longer = (int)((double)resize * high / low); /* truncated, as torchvision does */
    const int new_h = h < w ? resize : longer, new_w = h < w ? longer : resize;
    const double scale_y = (double)h / new_h, scale_x = (double)w / new_w;
    const double top = rint((new_h - crop) / 2.0), left = rint((new_w - crop) / 2.0);
    return (pd_area){left * scale_x, top * scale_y, crop * scale_x, crop * scale_y};
}

int pd_draw_short_side(const pd_transform *t, pd_rng *rng)
{
    if (t->n_short_sides == 0) return t->short_side;
    if (!t->short_range) return t->short_sides[pd_rng_below(rng, (uint32_t)t->n_short_sides)];
    int low = t->short_sides[0], high = low;
    for (int i = 1; i < t->n_short_sides; i++) {
        if (t->short_sides[i] < low) low = t->short_sides[i];
        if (t->short_sides[i] > high) high = t->short_sides[i];
    }
    return low + (int)pd_rng_below(rng, (uint32_t)(high - low + 1));
}

void pd_keep_ratio(int *out_h, int *out_w, int h, int w, int long_side, int short_side)
{
    const double a = (double)long_side / (h > w ? h : w), b = (double)short_side / (h < w ? h : w);
    const double s = a < b ? a : b;
    const int nh = (int)(h * s + 0.5), nw = (int)(w * s + 0.5);
    *out_h = nh < 1 ? 1 : nh;
    *out_w = nw < 1 ? 1 : nw;
}

int pd_round_up(int x, int divisor)
{
    return (x + divisor - 1) / divisor * divisor;
}

static float clip(float v, float high)
{
    return v < 0 ? 0 : v > high ? high : v;
}

pd_box pd_box_resize(pd_box box, float scale_x, float scale_y, int h, int w, bool flip)
{
    const float fw = (float)w, fh = (float)h;
    pd_box b = {clip(box.x1 * scale_x, fw), clip(box.y1 * scale_y, fh), clip(box.x2 * scale_x, fw),
                clip(box.y2 * scale_y, fh)};
    if (flip) b = (pd_box){fw - b.x2, b.y1, fw - b.x1, b.y2};
    return b;
}

void pd_normalize_pad(float *out, int out_h, int out_w, const pd_image *image, bool flip, const pd_normalizer *norm)
{
    const size_t stride = (size_t)out_w * 3, used = (size_t)image->w * 3;
    for (int y = 0; y < image->h; y++) {
        const unsigned char *from = image->rgb + (size_t)y * used;
        float *to = out + (size_t)y * stride;
        const ptrdiff_t step = flip ? -3 : 3;
        if (flip) from += used - 3;
        for (int x = 0; x < image->w; x++, from += step, to += 3) {
            to[0] = norm->byte[0][from[0]];
            to[1] = norm->byte[1][from[1]];
            to[2] = norm->byte[2][from[2]];
        }
        memset(to, 0, (stride - used) * sizeof *to);
    }
    const size_t done = (size_t)image->h * stride;
    memset(out + done, 0, ((size_t)out_h * stride - done) * sizeof *out);
}
