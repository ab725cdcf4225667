#include "datasets/sample.h"

#include <stdio.h>
#include <string.h>

#define LARGEST_FILE ((size_t)1 << 30)

void pd_sample_tools_free(pd_sample_tools *tools)
{
    pd_arena_free(tools->arena);
    pd_image_free(&tools->picture);
    pd_image_free(&tools->spare);
    pd_transform_work_free(&tools->work);
}

pd_status pd_sample_path(char *buffer, size_t size, const pd_loader_config *config, size_t i, pd_err *err)
{
    if (config->imagenet) return pd_imagenet_path(buffer, size, config->imagenet, i, err);
    const char *dir = "", *name = config->coco ? pd_sample_coco(config, i)->file : config->paths[i];
    if (config->coco && name[0] != '/' && config->image_dir) dir = config->image_dir;
    const int n = snprintf(buffer, size, "%s%s%s", dir, *dir ? "/" : "", name);
    if (n < 0 || (size_t)n >= size)
        return PD_FAIL(err, PD_EINVAL, "%s/%s: the path is longer than %zu bytes", dir, name, size - 1);
    return PD_OK;
}

/* ---- classification ---- */

/* Resizes to bytes, augments those, normalises. The picture is used up. */
static pd_status make_augmented(pd_sample *out, const pd_source *source, int at_x, int at_y, pd_area box, pd_rect bounds,
                                bool flip, pd_rng *rng, pd_sample_tools *tools, pd_err *err)
{
    static const pd_normalizer as_is = {.slope = {1, 1, 1}};
    const pd_transform *t = &source->config->transform;
    const int side = t->crop;
    unsigned char fill[3] = {0, 0, 0};
    PD_TRY(pd_resize_triangle(out->pixels, side, side, &tools->picture, at_x, at_y, box, bounds, flip, &as_is, &tools->work,
                              err));
    PD_TRY(pd_image_size(&tools->picture, side, side, err));
    for (size_t i = 0, n = (size_t)side * (size_t)side * 3; i < n; i++) {
        const float v = out->pixels[i] + 0.5f;
        tools->picture.rgb[i] = (unsigned char)(v <= 0 ? 0 : v >= 255 ? 255 : v);
    }
    for (int c = 0; c < 3 && t->augment.kind == PD_AUGMENT_RAND; c++) fill[c] = (unsigned char)(t->mean[c] * t->divide + 0.5);
    PD_TRY(pd_augment_apply(&tools->picture, &tools->spare, &t->augment, fill, rng, err));
    pd_normalize_pad(out->pixels, side, side, &tools->picture, false, &source->norm);
    return PD_OK;
}

/* Draws or computes the box, then decodes what the filter reads and resizes that. */
static pd_status make_crop(pd_sample *out, const pd_source *source, pd_bytes file, pd_rng *rng, pd_sample_tools *tools,
                           pd_err *err)
{
    const pd_transform *t = &source->config->transform;
    const pd_image_options *options = &source->config->image;
    pd_image_header header;
    PD_TRY(pd_image_probe(&header, file, options, err));
    pd_rect bounds = {0, 0, header.w, header.h}, got = bounds;
    pd_area box;
    bool flip = false;
    if (t->kind == PD_TRANSFORM_RANDOM_CROP) {
        bounds = pd_random_crop(header.h, header.w, t->area, t->aspect, t->tries, rng);
        flip = pd_rng_double(rng) < t->flip;
        box = (pd_area){bounds.x, bounds.y, bounds.w, bounds.h};
    } else {
        box = pd_center_crop(header.h, header.w, t->resize, t->crop);
    }
    if (options->exif) {
        PD_TRY(pd_image_decode(&tools->picture, file, options, err));
    } else {
        const pd_rect reach = pd_filter_reach(box, bounds, t->crop, t->crop);
        PD_TRY(pd_image_decode_part(&tools->picture, &got, reach, file, options, err));
    }
    if (t->kind == PD_TRANSFORM_RANDOM_CROP && t->augment.kind != PD_AUGMENT_NONE)
        PD_TRY(make_augmented(out, source, got.x, got.y, box, bounds, flip, rng, tools, err));
    else
        PD_TRY(pd_resize_triangle(out->pixels, t->crop, t->crop, &tools->picture, got.x, got.y, box, bounds, flip,
                                  &source->norm, &tools->work, err));
    if (t->kind == PD_TRANSFORM_RANDOM_CROP) pd_random_erase(out->pixels, t->crop, t->crop, t->erase, rng);
    out->info = (pd_image_info){.h = t->crop,
                                .w = t->crop,
                                .pad_h = t->crop,
                                .pad_w = t->crop,
                                .ori_h = header.h,
                                .ori_w = header.w,
                                .scale_x = (float)(t->crop / box.w),
                                .scale_y = (float)(t->crop / box.h),
                                .flipped = flip};
    return PD_OK;
}

/* ---- whole pictures ---- */

static pd_status check_annotated_size(const pd_image *picture, const pd_source *source, const pd_coco_photo *image,
                                      pd_bytes file, pd_err *err)
{
    if (picture->h == image->h && picture->w == image->w) return PD_OK;
    const bool turned = source->config->image.exif && pd_exif_orientation(file) >= 5 && picture->h == image->w &&
                        picture->w == image->h;
    return PD_FAIL(err, PD_EFORMAT, "the picture is %dx%d, but %s says %dx%d for image id %lld%s", picture->w,
                   picture->h, source->config->coco->path, image->w, image->h, (long long)image->id,
                   turned ? "; it was annotated before its EXIF turn: switch EXIF off for this set" : "");
}

static void copy_boxes(pd_sample *out, const pd_coco *set, const pd_coco_photo *image)
{
    const pd_image_info *f = &out->info;
    for (size_t k = 0; k < image->n; k++) {
        const pd_coco_ann *a = &set->anns[image->first + k];
        if (a->use != PD_COCO_GT) continue;
        out->box_labels[out->n_boxes] = a->label;
        out->boxes[out->n_boxes++] = pd_box_resize(a->box, f->scale_x, f->scale_y, f->h, f->w, f->flipped);
    }
}

static pd_status make_whole(pd_sample *out, const pd_source *source, uint32_t i, pd_bytes file, pd_rng *rng,
                            pd_sample_tools *tools, pd_err *err)
{
    const pd_loader_config *config = source->config;
    const pd_transform *t = &config->transform;
    const pd_coco_photo *annotated = config->coco ? pd_sample_coco(config, i) : NULL;
    const bool resize = t->kind == PD_TRANSFORM_DETECT;
    pd_image *picture = resize ? &tools->picture : &out->image;
    const pd_image_options stored = {false, config->image.salvage, config->image.max_pixels};
    PD_TRY(pd_image_decode(picture, file, &stored, err));
    if (config->image.exif) PD_TRY(pd_image_orient(picture, pd_exif_orientation(file), &tools->spare, err));
    if (annotated) PD_TRY(check_annotated_size(picture, source, annotated, file, err));
    if (!resize && (picture->h != source->one_h || picture->w != source->one_w))
        return PD_FAIL(err, PD_EFORMAT, "%dx%d pixels, but %s has %dx%d; without a transform all must be of one size",
                       picture->w, picture->h, source->one_path, source->one_w, source->one_h);
    int h = picture->h, w = picture->w;
    const bool flipped = pd_rng_double(rng) < t->flip;
    if (resize) {
        pd_keep_ratio(&h, &w, picture->h, picture->w, t->long_side, pd_draw_short_side(t, rng));
        PD_TRY(pd_resize_opencv(&out->image, h, w, picture, &tools->work, err));
    }
    out->info = (pd_image_info){.h = h,
                                .w = w,
                                .pad_h = resize ? pd_round_up(h, t->divisor) : h,
                                .pad_w = resize ? pd_round_up(w, t->divisor) : w,
                                .ori_h = picture->h,
                                .ori_w = picture->w,
                                .scale_x = (float)((double)w / picture->w),
                                .scale_y = (float)((double)h / picture->h),
                                .flipped = flipped};
    if (annotated) copy_boxes(out, config->coco, annotated);
    return PD_OK;
}

/* ---- one sample ---- */

pd_status pd_sample_make(pd_sample *out, const pd_source *source, uint32_t i, uint32_t epoch, pd_sample_tools *tools,
                         pd_err *err)
{
    const pd_loader_config *config = source->config;
    const bool crop =
        config->transform.kind == PD_TRANSFORM_RANDOM_CROP || config->transform.kind == PD_TRANSFORM_CENTER_CROP;
    char path[4096];
    pd_bytes file;
    pd_rng rng = pd_rng_make(config->seed, epoch, i);
    pd_arena_reset(tools->arena);
    PD_TRY(pd_sample_path(path, sizeof path, config, i, err));
    PD_TRY(pd_file_read(&file, path, LARGEST_FILE, tools->arena, err));
    out->n_boxes = 0;
    const pd_status status =
        crop ? make_crop(out, source, file, &rng, tools, err) : make_whole(out, source, i, file, &rng, tools, err);
    if (status != PD_OK) return pd_err_context(err, "%s", path), status;
    out->info.id = config->coco ? pd_sample_coco(config, i)->id : (int64_t)i;
    out->label = config->imagenet ? config->imagenet->labels[i] : 0;
    return PD_OK;
}

pd_status pd_sample_probe(int *h, int *w, const pd_source *source, uint32_t i, pd_sample_tools *tools, pd_err *err)
{
    char path[4096];
    pd_bytes file;
    pd_image_header header;
    pd_arena_reset(tools->arena);
    PD_TRY(pd_sample_path(path, sizeof path, source->config, i, err));
    PD_TRY(pd_file_read(&file, path, LARGEST_FILE, tools->arena, err));
    const pd_status status = pd_image_probe(&header, file, &source->config->image, err);
    if (status != PD_OK) return pd_err_context(err, "%s", path), status;
    *h = header.h;
    *w = header.w;
    return PD_OK;
}
