#include "eval/gt_read.h"

#include "eval/records.h"

#include <stdlib.h>

/* ---- fields ---- */

pd_coco_field pd_coco_read_number(pd_js *j, double *out)
{
    bool truth = false;
    switch (pd_js_peek(j)) {
    case PD_JS_NUMBER: return pd_js_double(j, out) ? PD_COCO_GOOD : PD_COCO_BAD;
    case PD_JS_BOOL:
        pd_js_bool(j, &truth);
        *out = truth;
        return PD_COCO_GOOD;
    default: pd_js_skip(j); return PD_COCO_BAD;
    }
}

pd_coco_field pd_coco_read_box(pd_js *j, double out[4])
{
    if (pd_js_peek(j) != PD_JS_ARRAY) {
        pd_js_skip(j);
        return PD_COCO_BAD;
    }
    pd_js_array(j);
    size_t n = 0;
    bool numbers = true;
    for (; pd_js_item(j); n++) {
        if (pd_js_peek(j) != PD_JS_NUMBER || n >= 4) {
            numbers = false;
            pd_js_skip(j);
        } else {
            pd_js_double(j, &out[n]);
        }
    }
    return numbers && n == 4 ? PD_COCO_GOOD : PD_COCO_BAD;
}

pd_coco_field pd_coco_read_points(pd_js *j, const double **out, uint32_t *n_points, pd_arena *arena)
{
    if (pd_js_peek(j) != PD_JS_ARRAY) {
        pd_js_skip(j);
        return PD_COCO_BAD;
    }
    pd_js_array(j);
    double first[3 * 64], *values = first; /* most sets of points fit; others are collected on the heap */
    size_t n = 0, capacity = 0;
    bool numbers = true;
    pd_err err = PD_ERR_INIT;
    while (pd_js_item(j)) {
        if (n == sizeof first / sizeof *first && values == first) {
            double *grown = NULL;
            if (pd_grow(&grown, &capacity, 2 * n, sizeof *grown, &err) != PD_OK) goto done;
            memcpy(grown, first, sizeof first);
            values = grown;
        }
        if (values != first && pd_grow(&values, &capacity, n + 1, sizeof *values, &err) != PD_OK) goto done;
        if (pd_js_peek(j) != PD_JS_NUMBER) {
            numbers = false;
            pd_js_skip(j);
        } else {
            pd_js_double(j, &values[n++]);
        }
    }
    numbers = numbers && n % 3 == 0 && n / 3 < UINT32_MAX && n > 0;
    if (numbers) {
        double *kept;
        if (PD_ALLOC(&kept, arena, n, &err) != PD_OK) goto done;
        memcpy(kept, values, n * sizeof *kept);
        *out = kept;
        *n_points = (uint32_t)(n / 3);
    }
done:
    if (values != first) free(values);
    if (err.code != PD_OK) pd_js_fail_with(j, &err);
    return numbers && err.code == PD_OK ? PD_COCO_GOOD : PD_COCO_BAD;
}

/* ---- images and categories ---- */

static bool read_text(pd_js *j, pd_js_text *out)
{
    if (pd_js_peek(j) == PD_JS_STRING) return pd_js_string(j, out);
    return pd_js_skip(j);
}

static bool read_image(pd_gt_reading *r, pd_js *j)
{
    pd_err err = PD_ERR_INIT;
    if (pd_grow(&r->images, &r->images_capacity, r->n_images + 1, sizeof *r->images, &err) != PD_OK)
        return pd_js_fail_with(j, &err);
    pd_gt_image image = {.width = -1, .height = -1, .id = {.kind = PD_COCO_ID_NULL}};
    const size_t start = pd_js_start(j);
    const unsigned read = r->gt->options.read;
    if (!pd_js_object(j)) return false;
    for (pd_js_text key; pd_js_key(j, &key);) {
        if (pd_js_is(key, "id"))
            pd_coco_read_id(j, &image.id);
        else if (pd_js_is(key, "width"))
            pd_coco_read_number(j, &image.width);
        else if (pd_js_is(key, "height"))
            pd_coco_read_number(j, &image.height);
        else if (pd_js_is(key, "file_name") && (read & PD_COCO_READ_NAMES))
            read_text(j, &image.file_name);
        else {
            if (pd_js_is(key, "neg_category_ids")) image.negative = pd_js_start(j);
            if (pd_js_is(key, "not_exhaustive_category_ids")) image.not_exhaustive = pd_js_start(j);
            pd_js_skip(j);
        }
    }
    if (image.id.kind == PD_COCO_ID_NULL) return pd_js_fail(j, start, "images[%zu] has no id", r->n_images);
    r->images[r->n_images++] = image;
    return j->err.code == PD_OK;
}

static bool read_category(pd_gt_reading *r, pd_js *j)
{
    pd_err err = PD_ERR_INIT;
    if (pd_grow(&r->categories, &r->categories_capacity, r->n_categories + 1, sizeof *r->categories, &err) != PD_OK)
        return pd_js_fail_with(j, &err);
    pd_gt_category category = {.id = {.kind = PD_COCO_ID_NULL}};
    const size_t start = pd_js_start(j);
    if (!pd_js_object(j)) return false;
    for (pd_js_text key; pd_js_key(j, &key);) {
        pd_js_text text = {0};
        if (pd_js_is(key, "id")) {
            pd_coco_read_id(j, &category.id);
        } else if (pd_js_is(key, "name")) {
            read_text(j, &category.name);
        } else if (pd_js_is(key, "frequency")) {
            read_text(j, &text);
            category.frequency = text.size == 1 ? text.data[0] : '\0';
        } else {
            pd_js_skip(j);
        }
    }
    if (category.id.kind == PD_COCO_ID_NULL) return pd_js_fail(j, start, "categories[%zu] has no id", r->n_categories);
    r->categories[r->n_categories++] = category;
    return j->err.code == PD_OK;
}

static bool read_images(pd_gt_reading *r, pd_js *j)
{
    r->n_images = 0;
    r->has_images = true;
    if (!pd_js_array(j)) return false;
    while (pd_js_item(j))
        if (!read_image(r, j)) return false;
    return j->err.code == PD_OK;
}

static bool read_categories(pd_gt_reading *r, pd_js *j)
{
    r->n_categories = 0;
    r->has_categories = true;
    if (!pd_js_array(j)) return false;
    while (pd_js_item(j))
        if (!read_category(r, j)) return false;
    return j->err.code == PD_OK;
}

/* ---- annotations ---- */

static void read_iscrowd(pd_js *j, pd_coco_object *o)
{
    double value = 0;
    o->has_iscrowd = (uint8_t)pd_coco_read_number(j, &value);
    if (o->has_iscrowd == PD_COCO_GOOD && !(value > -1 && value < 256)) o->has_iscrowd = PD_COCO_BAD;
    o->crowd = value != 0;
    o->crowd_overlap = o->has_iscrowd == PD_COCO_GOOD && (int)value != 0;
}

static bool read_object(void *part, const void *context, pd_js *j)
{
    pd_gt_objects *const list = part;
    const pd_gt_reading *const r = context;
    pd_err err = PD_ERR_INIT;
    if (pd_grow(&list->items, &list->capacity, list->n + 1, sizeof *list->items, &err) != PD_OK)
        return pd_js_fail_with(j, &err);
    const unsigned read = r->gt->options.read;
    if ((read & PD_COCO_READ_KEYPOINTS) && !list->memory && !(list->memory = pd_arena_new())) {
        pd_fail(&err, PD_ENOMEM, "out of memory");
        return pd_js_fail_with(j, &err);
    }
    pd_gt_object *const raw = &list->items[list->n];
    *raw = (pd_gt_object){.id = {.kind = PD_COCO_ID_NULL}};
    pd_coco_object *const o = &raw->object;
    bool has_image = false, has_category = false;
    double value;
    const size_t start = pd_js_offset(j);
    if (!pd_js_object(j)) return false;
    for (pd_js_text key; pd_js_key(j, &key);) {
        if (pd_js_is(key, "bbox"))
            o->has_bbox = (uint8_t)pd_coco_read_box(j, o->bbox);
        else if (pd_js_is(key, "image_id"))
            has_image = pd_coco_read_id(j, &raw->image);
        else if (pd_js_is(key, "category_id"))
            has_category = pd_coco_read_id(j, &raw->category);
        else if (pd_js_is(key, "id"))
            pd_coco_read_id(j, &raw->id);
        else if (pd_js_is(key, "area"))
            o->has_area = (uint8_t)pd_coco_read_number(j, &o->area);
        else if (pd_js_is(key, "iscrowd"))
            read_iscrowd(j, o);
        else if (pd_js_is(key, "keypoints") && (read & PD_COCO_READ_KEYPOINTS))
            o->has_keypoints = (uint8_t)pd_coco_read_points(j, &o->keypoints, &o->n_points, list->memory);
        else if (pd_js_is(key, "num_keypoints")) {
            value = 1; /* whatever is not a number is not 0 */
            pd_coco_read_number(j, &value);
            o->has_num_keypoints = PD_COCO_GOOD;
            o->unlabelled = value == 0;
        } else if (pd_js_is(key, "ignore")) {
            value = 0;
            pd_coco_read_number(j, &value);
            o->ignore_key = value != 0;
        } else {
            if (pd_js_is(key, "segmentation")) raw->mask_at = pd_js_start(j);
            pd_js_skip(j);
        }
    }
    if (j->err.code != PD_OK) return false;
    if (!has_image) return pd_js_fail(j, start, "this annotation has no image_id");
    if (!has_category) return pd_js_fail(j, start, "this annotation has no category_id");
    if (raw->id.kind != PD_COCO_ID_WHOLE && raw->id.kind != PD_COCO_ID_REAL)
        return pd_js_fail(j, start,
                          raw->id.kind == PD_COCO_ID_NULL ? "this annotation has no id"
                                                          : "this annotation's id is text; a number is needed");
    list->ignore_keys += o->ignore_key;
    o->id_zero = raw->id.kind == PD_COCO_ID_WHOLE && raw->id.whole == 0;
    list->n++;
    return true;
}

static void release_objects(void *part)
{
    pd_gt_objects *const list = part;
    free(list->items);
    pd_arena_free(list->memory);
}

static void forget_objects(pd_gt_reading *r)
{
    for (size_t i = 0; i < r->n_parts; i++) release_objects(&r->objects[i]);
    free(r->objects);
    r->objects = NULL;
    r->n_parts = 0;
}

static pd_status read_annotations(pd_gt_reading *r, pd_js *j, pd_err *err)
{
    forget_objects(r);
    const pd_records_reader reader = {.part_size = sizeof(pd_gt_objects),
                                      .read = read_object,
                                      .context = r,
                                      .drop_text = r->mapped && !(r->gt->options.read & PD_COCO_READ_MASKS)};
    void *parts = NULL;
    PD_TRY(pd_records_read(&parts, &r->n_parts, j, &reader, release_objects, r->pool, err));
    r->objects = parts;
    return PD_OK;
}

pd_status pd_gt_read(pd_gt_reading *r, const char *name, pd_err *err)
{
    pd_js j;
    pd_js_begin(&j, r->text.data, r->text.size, name);
    if (!pd_js_object(&j)) return pd_js_error(&j, err);
    for (pd_js_text key; pd_js_key(&j, &key);) {
        if (pd_js_is(key, "images"))
            read_images(r, &j);
        else if (pd_js_is(key, "categories"))
            read_categories(r, &j);
        else if (pd_js_is(key, "annotations"))
            PD_TRY(read_annotations(r, &j, err));
        else
            pd_js_skip(&j);
    }
    PD_TRY(pd_js_end(&j, err));
    if (!r->has_images) return PD_FAIL(err, PD_EFORMAT, "%s: no \"images\": this is not a COCO ground truth", name);
    if (!r->has_categories)
        return PD_FAIL(err, PD_EFORMAT, "%s: no \"categories\": this is not a COCO ground truth", name);
    return PD_OK;
}

void pd_gt_release(pd_gt_reading *r)
{
    forget_objects(r);
    free(r->images);
    free(r->categories);
}
