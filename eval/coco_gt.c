#include "eval/coco_gt.h"

#include "eval/coco_data.h"
#include "eval/records.h"
#include "eval/text_file.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

const char *pd_coco_type_name(pd_coco_type type)
{
    static const char *const names[] = {"bbox", "segm", "keypoints"};
    return names[type];
}

pd_status pd_coco_object_fail(const pd_coco_gt *gt, size_t object, pd_err *err, const char *fmt, ...)
{
    char id[PD_COCO_ID_ROOM], text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return PD_FAIL(err, PD_EFORMAT, "%s: annotations[%zu] (id %s): %s", gt->name, object,
                   pd_coco_raw_format(id, gt->ids[object], (const unsigned char *)""), text);
}

/* ---- fields ----------------------------------------------------------------------------------------------------- */

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

/* ---- images and categories -------------------------------------------------------------------------------------- */

/* What the file says, before ids are looked up. */
typedef struct {
    pd_coco_raw_id id;
    double width, height;
    pd_js_text file_name;
    size_t negative, not_exhaustive; /* offsets of their lists, 0 where there is none */
} raw_image;

typedef struct {
    pd_coco_raw_id id;
    pd_js_text name;
    char frequency;
} raw_category;

typedef struct {
    pd_coco_object object;
    pd_coco_raw_id id, image, category;
    size_t mask_at; /* offset of the segmentation */
} raw_object;

typedef struct {
    raw_object *items;
    size_t n, capacity, ignore_keys;
    pd_arena *memory; /* keypoints */
} raw_objects;

typedef struct {
    pd_coco_gt *gt;
    pd_pool *pool;
    pd_bytes text;
    bool mapped;
    bool has_images, has_categories;
    raw_image *images;
    raw_category *categories;
    size_t n_images, images_capacity, n_categories, categories_capacity;
    raw_objects *objects; /* in parts */
    size_t n_parts;
} reading;

static bool read_text(pd_js *j, pd_js_text *out)
{
    if (pd_js_peek(j) == PD_JS_STRING) return pd_js_string(j, out);
    return pd_js_skip(j);
}

static bool read_image(reading *r, pd_js *j)
{
    pd_err err = PD_ERR_INIT;
    if (pd_grow(&r->images, &r->images_capacity, r->n_images + 1, sizeof *r->images, &err) != PD_OK)
        return pd_js_fail_with(j, &err);
    raw_image image = {.width = -1, .height = -1, .id = {.kind = PD_COCO_ID_NULL}};
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

static bool read_category(reading *r, pd_js *j)
{
    pd_err err = PD_ERR_INIT;
    if (pd_grow(&r->categories, &r->categories_capacity, r->n_categories + 1, sizeof *r->categories, &err) != PD_OK)
        return pd_js_fail_with(j, &err);
    raw_category category = {.id = {.kind = PD_COCO_ID_NULL}};
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

static bool read_images(reading *r, pd_js *j)
{
    r->n_images = 0;
    r->has_images = true;
    if (!pd_js_array(j)) return false;
    while (pd_js_item(j))
        if (!read_image(r, j)) return false;
    return j->err.code == PD_OK;
}

static bool read_categories(reading *r, pd_js *j)
{
    r->n_categories = 0;
    r->has_categories = true;
    if (!pd_js_array(j)) return false;
    while (pd_js_item(j))
        if (!read_category(r, j)) return false;
    return j->err.code == PD_OK;
}

/* ---- annotations ------------------------------------------------------------------------------------------------ */

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
    raw_objects *const list = part;
    const reading *const r = context;
    pd_err err = PD_ERR_INIT;
    if (pd_grow(&list->items, &list->capacity, list->n + 1, sizeof *list->items, &err) != PD_OK)
        return pd_js_fail_with(j, &err);
    const unsigned read = r->gt->options.read;
    if ((read & PD_COCO_READ_KEYPOINTS) && !list->memory && !(list->memory = pd_arena_new())) {
        pd_fail(&err, PD_ENOMEM, "out of memory");
        return pd_js_fail_with(j, &err);
    }
    raw_object *const raw = &list->items[list->n];
    *raw = (raw_object){.id = {.kind = PD_COCO_ID_NULL}};
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
    raw_objects *const list = part;
    free(list->items);
    pd_arena_free(list->memory);
}

static void forget_objects(reading *r)
{
    for (size_t i = 0; i < r->n_parts; i++) release_objects(&r->objects[i]);
    free(r->objects);
    r->objects = NULL;
    r->n_parts = 0;
}

static pd_status read_annotations(reading *r, pd_js *j, pd_err *err)
{
    forget_objects(r);
    const pd_records_reader reader = {.part_size = sizeof(raw_objects),
                                      .read = read_object,
                                      .context = r,
                                      .drop_text = r->mapped && !(r->gt->options.read & PD_COCO_READ_MASKS)};
    void *parts = NULL;
    PD_TRY(pd_records_read(&parts, &r->n_parts, j, &reader, release_objects, r->pool, err));
    r->objects = parts;
    return PD_OK;
}

static pd_status read_file(reading *r, const char *name, pd_err *err)
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

/* ---- putting it together ---------------------------------------------------------------------------------------- */

typedef struct {
    pd_coco_id id;
    size_t at;
} id_place;

static int compare_places(const void *a, const void *b)
{
    const id_place *const x = a, *const y = b;
    const int order = pd_coco_id_compare(x->id, y->id);
    return order ? order : (x->at > y->at) - (x->at < y->at);
}

/* Sorts and keeps the last of equal ids; returns how many are left. */
static size_t sort_unique(id_place *list, size_t n)
{
    qsort(list, n, sizeof *list, compare_places);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (i + 1 == n || pd_coco_id_compare(list[i].id, list[i + 1].id)) list[kept++] = list[i];
    return kept;
}

static pd_status keep_text(const char **out, pd_js_text text, pd_arena *arena, pd_err *err)
{
    char *copy;
    PD_TRY(PD_ALLOC(&copy, arena, text.size + 1, err));
    copy[text.data ? pd_js_decode(text, copy) : 0] = '\0';
    *out = copy;
    return PD_OK;
}

static pd_status list_images(reading *r, id_place *list, pd_err *err)
{
    pd_coco_gt *const gt = r->gt;
    for (size_t i = 0; i < r->n_images; i++) {
        PD_TRY(pd_coco_id_keep(&list[i].id, r->images[i].id, r->text.data, gt->memory, err));
        list[i].at = i;
    }
    gt->n_images = sort_unique(list, r->n_images);
    gt->notes.repeated_images = r->n_images - gt->n_images;
    PD_TRY(PD_ALLOC(&gt->images, gt->memory, gt->n_images, err));
    pd_coco_id *ids;
    PD_TRY(PD_ALLOC(&ids, gt->memory, gt->n_images, err));
    for (size_t i = 0; i < gt->n_images; i++) {
        const raw_image *const raw = &r->images[list[i].at];
        gt->images[i] = (pd_coco_image){list[i].id, raw->width, raw->height, ""};
        ids[i] = list[i].id;
        if (raw->file_name.size) PD_TRY(keep_text(&gt->images[i].file_name, raw->file_name, gt->memory, err));
    }
    return pd_coco_id_table_make(&gt->image_table, ids, gt->n_images, gt->memory, err);
}

static pd_status list_categories(reading *r, id_place *list, pd_err *err)
{
    pd_coco_gt *const gt = r->gt;
    for (size_t i = 0; i < r->n_categories; i++) {
        PD_TRY(pd_coco_id_keep(&list[i].id, r->categories[i].id, r->text.data, gt->memory, err));
        list[i].at = i;
    }
    gt->n_categories = sort_unique(list, r->n_categories);
    gt->notes.repeated_categories = r->n_categories - gt->n_categories;
    PD_TRY(PD_ALLOC(&gt->categories, gt->memory, gt->n_categories, err));
    PD_TRY(PD_ALLOC(&gt->frequency, gt->memory, gt->n_categories, err));
    pd_coco_id *ids;
    PD_TRY(PD_ALLOC(&ids, gt->memory, gt->n_categories, err));
    for (size_t i = 0; i < gt->n_categories; i++) {
        const raw_category *const raw = &r->categories[list[i].at];
        gt->categories[i] = (pd_coco_category){list[i].id, ""};
        gt->frequency[i] = raw->frequency;
        ids[i] = list[i].id;
        PD_TRY(keep_text(&gt->categories[i].name, raw->name, gt->memory, err));
    }
    return pd_coco_id_table_make(&gt->category_table, ids, gt->n_categories, gt->memory, err);
}

/* LVIS: the categories that each image lists, as indexes. at[i]: offset of image i's list, 0 where there is none. */
static pd_status read_id_lists(pd_coco_id_lists *out, const reading *r, const size_t *at, pd_err *err)
{
    pd_coco_gt *const gt = r->gt;
    size_t capacity = 0, n = 0;
    uint32_t *items = NULL;
    pd_status status = PD_OK;
    PD_TRY_DONE(PD_ALLOC(&out->start, gt->memory, gt->n_images + 1, err));
    for (size_t i = 0; i < gt->n_images; i++) {
        if (at[i]) {
            pd_js j;
            pd_coco_raw_id id;
            pd_js_begin_at(&j, r->text.data, r->text.size, gt->name, at[i]);
            pd_js_array(&j);
            while (pd_js_item(&j) && pd_coco_read_id(&j, &id)) {
                PD_TRY_DONE(pd_grow(&items, &capacity, n + 1, sizeof *items, err));
                items[n] = pd_coco_id_find_raw(&gt->category_table, id, r->text.data);
                n += items[n] != PD_COCO_NONE;
            }
            PD_TRY_DONE(pd_js_error(&j, err));
        }
        out->start[i + 1] = n;
    }
    PD_TRY_DONE(PD_ALLOC(&out->items, gt->memory, n, err));
    if (n) memcpy(out->items, items, n * sizeof *items);
done:
    free(items);
    return status;
}

static pd_status read_federation(reading *r, const id_place *images, pd_err *err)
{
    size_t *const at = malloc((r->gt->n_images + 1) * sizeof *at);
    if (!at) return PD_FAIL(err, PD_ENOMEM, "%s: out of memory", r->gt->name);
    for (size_t i = 0; i < r->gt->n_images; i++) at[i] = r->images[images[i].at].negative;
    pd_status status = read_id_lists(&r->gt->negative, r, at, err);
    for (size_t i = 0; i < r->gt->n_images; i++) at[i] = r->images[images[i].at].not_exhaustive;
    if (status == PD_OK) status = read_id_lists(&r->gt->not_exhaustive, r, at, err);
    free(at);
    return status;
}

static pd_status gather_objects(reading *r, pd_err *err)
{
    pd_coco_gt *const gt = r->gt;
    size_t n = 0;
    for (size_t p = 0; p < r->n_parts; p++) n += r->objects[p].n;
    if (n >= PD_COCO_NONE)
        return PD_FAIL(err, PD_EFORMAT, "%s: %zu annotations; at most %u", gt->name, n, PD_COCO_NONE - 1);
    PD_TRY(PD_ALLOC(&gt->objects, gt->memory, n, err));
    PD_TRY(PD_ALLOC(&gt->ids, gt->memory, n, err));
    PD_TRY(PD_ALLOC(&gt->parts, gt->memory, r->n_parts + (size_t)pd_pool_threads(r->pool), err));
    n = 0;
    for (size_t p = 0; p < r->n_parts; p++) {
        raw_objects *const part = &r->objects[p];
        gt->notes.ignore_keys += part->ignore_keys;
        for (size_t i = 0; i < part->n; i++, n++) {
            const raw_object *const raw = &part->items[i];
            pd_coco_object *const o = &gt->objects[n];
            *o = raw->object;
            gt->ids[n] = raw->id;
            o->image = pd_coco_id_find_raw(&gt->image_table, raw->image, r->text.data);
            o->category = pd_coco_id_find_raw(&gt->category_table, raw->category, r->text.data);
            if (o->has_area == PD_COCO_ABSENT && gt->options.area_from_box && o->has_bbox == PD_COCO_GOOD) {
                o->area = o->bbox[2] * o->bbox[3];
                o->has_area = PD_COCO_GOOD;
            }
            if (o->has_iscrowd == PD_COCO_ABSENT && gt->options.default_iscrowd) o->has_iscrowd = PD_COCO_GOOD;
            if (gt->options.unique_ids) o->id_zero = false;
            gt->notes.id_zero += o->id_zero;
            gt->notes.unlisted += o->image == PD_COCO_NONE || o->category == PD_COCO_NONE;
        }
        if (part->memory) gt->parts[gt->n_parts++] = part->memory;
        part->memory = NULL;
    }
    gt->n_objects = gt->notes.annotations = n;
    return PD_OK;
}

/* stand_in[i] = index of the last annotation with the id of annotation i. */
static pd_status find_repeated(pd_coco_gt *gt, uint32_t *stand_in, pd_err *err)
{
    for (size_t i = 0; i < gt->n_objects; i++) stand_in[i] = (uint32_t)i;
    if (gt->options.unique_ids) return PD_OK;
    size_t size = 16;
    while (size < 2 * gt->n_objects) size *= 2;
    uint32_t *const slots = malloc(size * sizeof *slots);
    if (!slots) return PD_FAIL(err, PD_ENOMEM, "out of memory: %zu annotation ids", gt->n_objects);
    memset(slots, 0xff, size * sizeof *slots);
    for (size_t i = gt->n_objects; i-- > 0;) {
        const pd_coco_raw_id id = gt->ids[i];
        uint64_t h = (uint64_t)id.whole * 0x9e3779b97f4a7c15u;
        size_t at = (h ^ h >> 32) & (size - 1);
        while (slots[at] != PD_COCO_NONE &&
               (gt->ids[slots[at]].kind != id.kind || gt->ids[slots[at]].whole != id.whole))
            at = (at + 1) & (size - 1);
        if (slots[at] == PD_COCO_NONE)
            slots[at] = (uint32_t)i;
        else
            gt->notes.repeated_ids++;
        stand_in[i] = slots[at];
    }
    free(slots);
    return PD_OK;
}

void pd_coco_sort_by(uint32_t *out, const uint32_t *in, size_t n, const uint32_t *keys, size_t *count, size_t n_keys)
{
    memset(count, 0, (n_keys + 1) * sizeof *count);
    for (size_t i = 0; i < n; i++) count[keys[in ? in[i] : i] + 1]++;
    for (size_t k = 0; k < n_keys; k++) count[k + 1] += count[k];
    for (size_t i = 0; i < n; i++) {
        const uint32_t x = in ? in[i] : (uint32_t)i;
        out[count[keys[x]]++] = x;
    }
}

/* Orders the places as pycocotools meets them: listed by sorted image id, then file order; filed by the object's own
 * category and image. */
static pd_status order_places(pd_coco_gt *gt, pd_err *err)
{
    const size_t n = gt->n_objects, most = gt->n_images > gt->n_categories ? gt->n_images : gt->n_categories;
    pd_status status = PD_OK;
    uint32_t *const stand_in = malloc((n + 1) * sizeof *stand_in), *const keys = malloc((n + 1) * sizeof *keys);
    uint32_t *a = malloc((n + 1) * sizeof *a), *b = malloc((n + 1) * sizeof *b);
    size_t *const count = malloc((most + 2) * sizeof *count);
    if (!stand_in || !keys || !a || !b || !count) {
        status = PD_FAIL(err, PD_ENOMEM, "out of memory: %zu annotations", n);
        goto done;
    }
    PD_TRY_DONE(find_repeated(gt, stand_in, err));
    const pd_coco_object *const o = gt->objects;
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        const pd_coco_object *const target = &o[stand_in[i]];
        if (o[i].image == PD_COCO_NONE) continue;
        if (target->image == PD_COCO_NONE || target->category == PD_COCO_NONE) continue;
        gt->unlisted_places |= o[i].category == PD_COCO_NONE;
        a[m++] = (uint32_t)i;
    }
    for (size_t i = 0; i < n; i++) keys[i] = o[i].image;
    pd_coco_sort_by(b, a, m, keys, count, gt->n_images);
    if (gt->notes.repeated_ids) {
        for (size_t i = 0; i < n; i++) keys[i] = o[stand_in[i]].image;
        pd_coco_sort_by(a, b, m, keys, count, gt->n_images);
        uint32_t *const swap = a;
        a = b;
        b = swap;
    }
    for (size_t i = 0; i < n; i++) keys[i] = o[stand_in[i]].category;
    pd_coco_sort_by(a, b, m, keys, count, gt->n_categories);

    PD_TRY_DONE(PD_ALLOC(&gt->places, gt->memory, m, err));
    PD_TRY_DONE(PD_ALLOC(&gt->category_start, gt->memory, gt->n_categories + 1, err));
    for (size_t i = 0; i < m; i++) gt->places[i] = (pd_coco_place){stand_in[a[i]], o[a[i]].image, o[a[i]].category};
    for (size_t k = 0; k < gt->n_categories; k++) gt->category_start[k + 1] = count[k]; /* counts are now ends */
    gt->n_places = m;
done:
    free(stand_in);
    free(keys);
    free(a);
    free(b);
    free(count);
    return status;
}

/* ---- masks ------------------------------------------------------------------------------------------------------ */

typedef struct {
    const reading *r;
    const size_t *mask_at; /* (objects) offset of the segmentation, 0: none */
    pd_arena **arenas;     /* (threads) */
    pd_err *errs;          /* (threads); ranges go up with the thread, so the first one set is the first in the file */
} mask_job;

static void read_mask_range(void *arg, size_t begin, size_t end, int thread)
{
    const mask_job *const job = arg;
    pd_coco_gt *const gt = job->r->gt;
    pd_err *const err = &job->errs[thread];
    pd_mask_work work = {0};
    for (size_t i = begin; i < end && err->code == PD_OK; i++) {
        pd_coco_object *const o = &gt->objects[i];
        if (!job->mask_at[i] || o->image == PD_COCO_NONE) continue;
        pd_js j;
        pd_js_begin_at(&j, job->r->text.data, job->r->text.size, gt->name, job->mask_at[i]);
        const pd_coco_image *const image = &gt->images[o->image];
        if (!pd_mask_read(&o->mask, NULL, &j, image->height, image->width, &work, job->arenas[thread], &o->mask_fault))
            pd_js_error(&j, err);
        o->has_mask = o->mask_fault ? PD_COCO_BAD : PD_COCO_GOOD;
        if (!o->mask_fault && !(image->height >= 0 && image->width >= 0)) {
            o->mask_fault = "its image has no width and height";
            o->has_mask = PD_COCO_BAD;
        }
    }
    pd_mask_work_free(&work);
}

static pd_status read_masks(reading *r, pd_err *err)
{
    pd_coco_gt *const gt = r->gt;
    const size_t threads = (size_t)pd_pool_threads(r->pool);
    pd_status status = PD_OK;
    size_t *const mask_at = malloc((gt->n_objects + 1) * sizeof *mask_at);
    pd_err *const errs = calloc(threads, sizeof *errs);
    if (!mask_at || !errs) {
        status = PD_FAIL(err, PD_ENOMEM, "%s: out of memory", gt->name);
        goto done;
    }
    pd_arena **const arenas = gt->parts + gt->n_parts;
    for (size_t t = 0; t < threads; t++) {
        if (!(arenas[t] = pd_arena_new())) {
            status = PD_FAIL(err, PD_ENOMEM, "%s: out of memory", gt->name);
            goto done;
        }
        gt->n_parts++;
    }
    size_t n = 0;
    for (size_t p = 0; p < r->n_parts; p++)
        for (size_t i = 0; i < r->objects[p].n; i++) mask_at[n++] = r->objects[p].items[i].mask_at;
    mask_job job = {r, mask_at, arenas, errs};
    pd_parallel(r->pool, n, read_mask_range, &job);
    for (size_t t = 0; t < threads && status == PD_OK; t++)
        if (errs[t].code != PD_OK) {
            status = errs[t].code;
            if (err) *err = errs[t];
        }
done:
    free(mask_at);
    free(errs);
    return status;
}

static pd_status build(reading *r, const char *name, pd_err *err)
{
    pd_coco_gt *const gt = r->gt;
    PD_TRY(pd_strdup(&gt->name, gt->memory, name, err));
    PD_TRY(read_file(r, gt->name, err));
    const size_t most = r->n_images > r->n_categories ? r->n_images : r->n_categories;
    id_place *const images = malloc((most + 1) * sizeof *images), *const categories =
                                                                      malloc((most + 1) * sizeof *images);
    pd_status status = PD_OK;
    if (!images || !categories) status = PD_FAIL(err, PD_ENOMEM, "out of memory: %zu ids", most);
    if (status == PD_OK) status = list_images(r, images, err);
    if (status == PD_OK) status = list_categories(r, categories, err);
    if (status == PD_OK && (gt->options.read & PD_COCO_READ_LVIS)) status = read_federation(r, images, err);
    free(images);
    free(categories);
    if (status != PD_OK) return status;
    PD_TRY(gather_objects(r, err));
    if (gt->options.read & PD_COCO_READ_MASKS) PD_TRY(read_masks(r, err));
    return order_places(gt, err);
}

static pd_status read_ground_truth(pd_coco_gt **out, pd_bytes text, bool mapped, const char *name,
                                   const pd_coco_gt_options *options, pd_pool *pool, pd_err *err)
{
    reading r = {.pool = pool, .text = text, .mapped = mapped};
    r.gt = calloc(1, sizeof *r.gt);
    if (!r.gt || !(r.gt->memory = pd_arena_new())) {
        free(r.gt);
        return PD_FAIL(err, PD_ENOMEM, "%s: out of memory", name);
    }
    if (options) r.gt->options = *options;
    const pd_status status = build(&r, name, err);
    forget_objects(&r);
    free(r.images);
    free(r.categories);
    if (status == PD_OK)
        *out = r.gt;
    else
        pd_coco_gt_close(r.gt);
    return status;
}

pd_status pd_coco_gt_open(pd_coco_gt **out, const char *path, const pd_coco_gt_options *options, pd_pool *pool,
                          pd_err *err)
{
    pd_text_file file;
    PD_TRY(pd_text_open(&file, path, err));
    const pd_status status = read_ground_truth(out, file.bytes, file.mapped, path, options, pool, err);
    pd_text_close(&file);
    return status;
}

pd_status pd_coco_gt_parse(pd_coco_gt **out, pd_bytes json, const char *name, const pd_coco_gt_options *options,
                           pd_pool *pool, pd_err *err)
{
    return read_ground_truth(out, json, false, name, options, pool, err);
}

void pd_coco_gt_close(pd_coco_gt *gt)
{
    if (!gt) return;
    for (size_t i = 0; i < gt->n_parts; i++) pd_arena_free(gt->parts[i]);
    pd_arena_free(gt->memory);
    free(gt);
}

size_t pd_coco_gt_image_count(const pd_coco_gt *gt)
{
    return gt->n_images;
}

size_t pd_coco_gt_category_count(const pd_coco_gt *gt)
{
    return gt->n_categories;
}

const pd_coco_image *pd_coco_gt_image(const pd_coco_gt *gt, size_t i)
{
    return &gt->images[i];
}

const pd_coco_category *pd_coco_gt_category(const pd_coco_gt *gt, size_t i)
{
    return &gt->categories[i];
}

bool pd_coco_gt_find_image(const pd_coco_gt *gt, pd_coco_id id, size_t *index)
{
    const uint32_t i = pd_coco_id_find(&gt->image_table, id);
    if (i == PD_COCO_NONE) return false;
    *index = i;
    return true;
}

bool pd_coco_gt_find_category(const pd_coco_gt *gt, pd_coco_id id, size_t *index)
{
    const uint32_t i = pd_coco_id_find(&gt->category_table, id);
    if (i == PD_COCO_NONE) return false;
    *index = i;
    return true;
}

const pd_coco_gt_notes *pd_coco_gt_get_notes(const pd_coco_gt *gt)
{
    return &gt->notes;
}
