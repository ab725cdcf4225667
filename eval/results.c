#include "eval/results.h"

#include "eval/coco_data.h"
#include "eval/records.h"
#include "eval/text_file.h"

#include <limits.h>
#include <stdlib.h>

/* What every piece of the file is read with. */
typedef struct {
    const pd_coco_gt *gt;
    const char *name;
    pd_coco_dt_kind kind;
    pd_coco_dt_options options;
} reading;

/* ---- one record ---- */

/* A record's fields, before what it means is known. */
typedef struct {
    pd_coco_raw_id image, category;
    bool has_image, has_category, has_box_key, empty_box;
    uint8_t has_box, has_score;
    pd_coco_item item;
    pd_coco_shape shape;
    size_t mask_at; /* offset of the segmentation: it needs the image's size, and keys come in any order */
} record;

static bool out_of_memory(pd_js *j)
{
    pd_err err = PD_ERR_INIT;
    pd_fail(&err, PD_ENOMEM, "%s: out of memory", j->name);
    return pd_js_fail_with(j, &err);
}

static pd_arena *block_memory(pd_coco_block *block, pd_js *j)
{
    if (!block->memory && !(block->memory = pd_arena_new())) out_of_memory(j);
    return block->memory;
}

static void read_score(pd_js *j, record *r)
{
    r->has_score = PD_COCO_BAD;
    if (pd_js_peek(j) != PD_JS_NUMBER)
        pd_js_skip(j);
    else if (pd_js_double(j, &r->item.score))
        r->has_score = PD_COCO_GOOD;
}

static bool read_fields(record *r, pd_coco_block *block, const reading *in, pd_js *j)
{
    const bool masks = in->kind == PD_COCO_DT_MASKS || (in->options.read & PD_COCO_READ_MASKS);
    const bool points = in->kind == PD_COCO_DT_KEYPOINTS || (in->options.read & PD_COCO_READ_KEYPOINTS);
    if (!pd_js_object(j)) return false;
    for (pd_js_text key; pd_js_key(j, &key);) {
        if (pd_js_is(key, "bbox"))
            r->has_box = (uint8_t)pd_coco_read_box(j, r->item.bbox);
        else if (pd_js_is(key, "score"))
            read_score(j, r);
        else if (pd_js_is(key, "image_id"))
            r->has_image = pd_coco_read_id(j, &r->image);
        else if (pd_js_is(key, "category_id"))
            r->has_category = pd_coco_read_id(j, &r->category);
        else if (pd_js_is(key, "keypoints") && points && block_memory(block, j))
            r->shape.has_keypoints =
                (uint8_t)pd_coco_read_points(j, &r->shape.keypoints, &r->shape.n_points, block->memory);
        else {
            if (pd_js_is(key, "segmentation") && masks) r->mask_at = pd_js_start(j);
            pd_js_skip(j);
        }
    }
    return j->err.code == PD_OK;
}

/* Extent of the points: box and area of a keypoint result (numpy's min and max: a NaN among them is the answer). */
static void box_from_points(record *r)
{
    double low[2], high[2];
    for (int c = 0; c < 2; c++) {
        low[c] = high[c] = r->shape.keypoints[c];
        for (uint32_t i = 1; i < r->shape.n_points; i++) {
            const double v = r->shape.keypoints[3 * i + (uint32_t)c];
            if (v != v || v < low[c]) low[c] = v;
            if (v != v || v > high[c]) high[c] = v;
            if (v != v) break;
        }
    }
    r->item.bbox[0] = low[0];
    r->item.bbox[1] = low[1];
    r->item.bbox[2] = high[0] - low[0];
    r->item.bbox[3] = high[1] - low[1];
    r->shape.area = (high[0] - low[0]) * (high[1] - low[1]);
}

/* The mask, once the image is known. */
static bool read_mask(record *r, pd_coco_block *block, const reading *in, pd_js *j)
{
    if (!r->mask_at) return true;
    double h = -1, w = -1;
    if (r->item.image != PD_COCO_NONE) {
        h = in->gt->images[r->item.image].height;
        w = in->gt->images[r->item.image].width;
    }
    if (!block_memory(block, j)) return false;
    pd_js inside;
    pd_mask runs = {0};
    pd_js_begin_at(&inside, j->begin, (size_t)(j->end - j->begin), j->name, r->mask_at);
    if (!pd_mask_read(&runs, &r->shape.mask, &inside, h, w, &block->work, block->memory, &r->shape.mask_fault))
        return pd_js_fail_with(j, &inside.err);
    r->shape.has_mask = r->shape.mask_fault ? PD_COCO_BAD : PD_COCO_GOOD;
    if (r->shape.mask_fault || r->shape.mask.text) return true;
    pd_err err = PD_ERR_INIT;
    pd_mask *kept;
    if (PD_ALLOC(&kept, block->memory, 1, &err) != PD_OK) return pd_js_fail_with(j, &err);
    *kept = runs;
    r->shape.runs = kept;
    return true;
}

/* What the kind of the file asks of every record, listed or not. */
static bool check_kind(record *r, const reading *in, pd_js *j, size_t start)
{
    switch (in->kind) {
    case PD_COCO_DT_BOXES:
        if (r->has_box == PD_COCO_GOOD) return true;
        if (r->has_box == PD_COCO_ABSENT)
            return pd_js_fail(j, start, "this record has no bbox, but the first record has one");
        return pd_js_fail(j, start, "this record's bbox is not a list of four numbers");
    case PD_COCO_DT_MASKS:
        if (r->shape.has_mask == PD_COCO_ABSENT)
            return pd_js_fail(j, start, "this record has no segmentation, but the first record has one");
        if (r->shape.has_mask == PD_COCO_BAD) return pd_js_fail(j, start, "segmentation: %s", r->shape.mask_fault);
        if (r->shape.runs) return pd_js_fail(j, start, "segmentation: counts must be text in a result without boxes");
        r->shape.area = r->shape.mask.area;
        if (r->has_box != PD_COCO_GOOD)
            for (int i = 0; i < 4; i++) r->item.bbox[i] = r->shape.mask.box[i];
        return true;
    case PD_COCO_DT_KEYPOINTS:
        if (r->shape.has_keypoints != PD_COCO_GOOD)
            return pd_js_fail(j, start, "this record's keypoints are not a list of x, y, v triples");
        box_from_points(r);
        return true;
    }
    return true;
}

static bool add_bad(pd_coco_block *block, const record *r, pd_js *j, size_t start, const char *reason)
{
    pd_err err = PD_ERR_INIT;
    if (pd_grow(&block->bad, &block->bad_capacity, block->n_bad + 1, sizeof *block->bad, &err) != PD_OK)
        return pd_js_fail_with(j, &err);
    block->bad[block->n_bad++] = (pd_coco_bad_item){r->item.image, r->item.category, block->records, start, reason};
    return true;
}

static void note_unknown_image(pd_coco_block *block, const record *r, size_t start)
{
    const size_t seen = block->unknown_images++;
    if (seen == 0) block->first_unknown_record = block->records;
    if (seen < 3) {
        block->first_unknown[seen] = r->image;
        block->first_unknown_at[seen] = start;
    }
}

static bool keep_record(pd_coco_block *block, record *r, const reading *in, pd_js *j, size_t start)
{
    if (r->item.image == PD_COCO_NONE) {
        note_unknown_image(block, r, start);
        return true;
    }
    if (r->item.category == PD_COCO_NONE) {
        block->unknown_categories++;
        return true;
    }
    if (r->has_score != PD_COCO_GOOD)
        return add_bad(block, r, j, start,
                       r->has_score == PD_COCO_ABSENT ? "has no score" : "has a score that is no number");
    if (r->shape.has_keypoints || r->shape.has_mask || in->kind != PD_COCO_DT_BOXES) {
        pd_err err = PD_ERR_INIT;
        pd_coco_shape *shape;
        if (!block_memory(block, j)) return false;
        if (PD_ALLOC(&shape, block->memory, 1, &err) != PD_OK) return pd_js_fail_with(j, &err);
        *shape = r->shape;
        r->item.shape = shape;
        block->box_areas |= in->kind == PD_COCO_DT_BOXES;
    }
    if (block->n && r->item.image < block->last_image) block->descending_image = true;
    block->last_image = r->item.image;
    block->histogram[r->item.category]++;
    block->items[block->n++] = r->item;
    return true;
}

static bool read_record(void *part, const void *context, pd_js *j)
{
    pd_coco_block *const block = part;
    const reading *const in = context;
    pd_err err = PD_ERR_INIT;
    if (pd_grow(&block->items, &block->capacity, block->n + 1, sizeof *block->items, &err) != PD_OK)
        return pd_js_fail_with(j, &err);
    if (!block->histogram && !(block->histogram = calloc(in->gt->n_categories + 1, sizeof *block->histogram)))
        return out_of_memory(j);
    record r = {0};
    const size_t start = pd_js_offset(j);
    if (!read_fields(&r, block, in, j)) return false;
    if (!r.has_image) return pd_js_fail(j, start, "this record has no image_id");
    if (!r.has_category) return pd_js_fail(j, start, "this record has no category_id");
    if (r.image.kind != PD_COCO_ID_WHOLE || r.image.whole != block->before.whole ||
        block->before.kind != PD_COCO_ID_WHOLE || !block->records) {
        block->before = r.image;
        block->before_image = pd_coco_id_find_raw(&in->gt->image_table, r.image, j->begin);
    }
    r.item.image = block->before_image; /* records of one image stand together */
    r.item.category = pd_coco_id_find_raw(&in->gt->category_table, r.category, j->begin);
    if (!read_mask(&r, block, in, j) || !check_kind(&r, in, j, start) || !keep_record(block, &r, in, j, start))
        return false;
    block->records++;
    return true;
}

static void release_block(void *part)
{
    pd_coco_block *const block = part;
    free(block->items);
    free(block->bad);
    free(block->histogram);
    pd_mask_work_free(&block->work);
    pd_arena_free(block->memory);
}

/* ---- the whole file ---- */

/* The first record decides what the file holds. j (a copy) stands before the array. */
static pd_status find_kind(pd_coco_dt_kind *out, pd_js j, pd_err *err)
{
    *out = PD_COCO_DT_BOXES;
    bool box = false, mask = false, points = false, any = false;
    if (pd_js_peek(&j) == PD_JS_OBJECT)
        pd_js_fail(&j, pd_js_offset(&j), "expected a list of results, found an object (results are a JSON array)");
    pd_js_array(&j);
    if (pd_js_item(&j)) {
        any = true;
        pd_js_object(&j);
        for (pd_js_text key; pd_js_key(&j, &key);) {
            if (pd_js_is(key, "bbox")) {
                box = true;
                if (pd_js_peek(&j) == PD_JS_ARRAY) {
                    pd_js inside = j;
                    pd_js_array(&inside);
                    box = pd_js_item(&inside) || inside.err.code != PD_OK;
                }
            }
            mask |= pd_js_is(key, "segmentation");
            points |= pd_js_is(key, "keypoints");
            pd_js_skip(&j);
        }
        if (j.err.code == PD_OK && !box && !mask && !points)
            pd_js_fail(&j, 0, "the first record has neither bbox nor segmentation nor keypoints");
    }
    PD_TRY(pd_js_error(&j, err));
    if (any && !box) *out = mask ? PD_COCO_DT_MASKS : PD_COCO_DT_KEYPOINTS;
    return PD_OK;
}

/* Records of unknown images are an error for the whole file: says how many, which, where. */
static pd_status check_images(const pd_coco_dt *dt, const pd_coco_dt_options *options, pd_bytes text, pd_err *err)
{
    if (!dt->notes.unknown_images || options->skip_unknown_images) return PD_OK;
    char ids[3 * (PD_COCO_ID_ROOM + 2)] = "", id[PD_COCO_ID_ROOM];
    size_t shown = 0, before = 0, first = 0;
    for (size_t b = 0; b < dt->n_blocks && shown < 3; b++) {
        const pd_coco_block *const block = &dt->blocks[b];
        for (size_t i = 0; i < block->unknown_images && i < 3 && shown < 3; i++) {
            if (!shown) first = before + block->first_unknown_record;
            if (shown++) strcat(ids, ", ");
            strcat(ids, pd_coco_raw_format(id, block->first_unknown[i], text.data));
        }
        before += block->records;
    }
    return PD_FAIL(
        err, PD_EFORMAT,
        "%s: %zu of %zu records are of images that %s does not list (image_id %s%s; the first is record %zu): "
        "results and ground truth do not belong together",
        dt->name, dt->notes.unknown_images, dt->notes.records, dt->gt->name, ids,
        dt->notes.unknown_images > shown ? ", ..." : "", first);
}

static pd_status read_blocks(pd_coco_dt *dt, pd_bytes text, bool mapped, const pd_coco_dt_options *options,
                             pd_pool *pool, pd_err *err)
{
    pd_js j;
    pd_js_begin(&j, text.data, text.size, dt->name);
    PD_TRY(find_kind(&dt->kind, j, err));
    dt->read = options->read;
    const reading in = {.gt = dt->gt, .name = dt->name, .kind = dt->kind, .options = *options};
    const pd_records_reader reader = {
        .part_size = sizeof(pd_coco_block), .read = read_record, .context = &in, .drop_text = mapped};
    void *parts = NULL;
    size_t n = 0;
    PD_TRY(pd_records_read(&parts, &n, &j, &reader, release_block, pool, err));
    dt->blocks = parts;
    dt->n_blocks = dt->capacity = n;
    for (size_t b = 0; b < n; b++) {
        dt->notes.records += dt->blocks[b].records;
        dt->notes.unknown_categories += dt->blocks[b].unknown_categories;
        dt->notes.unknown_images += dt->blocks[b].unknown_images;
        dt->notes.box_areas |= dt->blocks[b].box_areas;
    }
    PD_TRY(pd_js_end(&j, err));
    return check_images(dt, options, text, err);
}

static pd_status make_dt(pd_coco_dt **out, const pd_coco_gt *gt, const char *name, pd_err *err)
{
    pd_coco_dt *const dt = calloc(1, sizeof *dt);
    if (!dt || !(dt->memory = pd_arena_new())) {
        free(dt);
        return PD_FAIL(err, PD_ENOMEM, "out of memory");
    }
    dt->gt = gt;
    dt->read = UINT_MAX;
    pthread_mutex_init(&dt->lock, NULL); /* cannot fail for the default kind */
    const pd_status status = pd_strdup(&dt->name, dt->memory, name, err);
    if (status == PD_OK)
        *out = dt;
    else
        pd_coco_dt_close(dt);
    return status;
}

static pd_status read_results(pd_coco_dt **out, const pd_coco_gt *gt, pd_bytes text, bool mapped, const char *name,
                              const pd_coco_dt_options *options, pd_pool *pool, pd_err *err)
{
    static const pd_coco_dt_options none = {0};
    pd_coco_dt *dt;
    PD_TRY(make_dt(&dt, gt, name, err));
    const pd_status status = read_blocks(dt, text, mapped, options ? options : &none, pool, err);
    if (status == PD_OK)
        *out = dt;
    else
        pd_coco_dt_close(dt);
    return status;
}

pd_status pd_coco_dt_open(pd_coco_dt **out, const pd_coco_gt *gt, const char *path, const pd_coco_dt_options *options,
                          pd_pool *pool, pd_err *err)
{
    pd_text_file file;
    PD_TRY(pd_text_open(&file, path, err));
    const pd_status status = read_results(out, gt, file.bytes, file.mapped, path, options, pool, err);
    pd_text_close(&file);
    return status;
}

pd_status pd_coco_dt_parse(pd_coco_dt **out, const pd_coco_gt *gt, pd_bytes json, const char *name,
                           const pd_coco_dt_options *options, pd_pool *pool, pd_err *err)
{
    return read_results(out, gt, json, false, name, options, pool, err);
}

const pd_coco_dt_notes *pd_coco_dt_get_notes(const pd_coco_dt *dt)
{
    return &dt->notes;
}

void pd_coco_dt_close(pd_coco_dt *dt)
{
    if (!dt) return;
    for (size_t b = 0; b < dt->n_blocks; b++) release_block(&dt->blocks[b]);
    free(dt->blocks);
    free(dt->added);
    pthread_mutex_destroy(&dt->lock);
    pd_arena_free(dt->memory);
    free(dt);
}

/* ---- from memory ---- */

pd_status pd_coco_dt_new(pd_coco_dt **out, const pd_coco_gt *gt, pd_err *err)
{
    pd_coco_dt *dt;
    PD_TRY(make_dt(&dt, gt, "", err));
    dt->added = calloc(gt->n_images + 1, 1);
    if (!dt->added) {
        pd_coco_dt_close(dt);
        return PD_FAIL(err, PD_ENOMEM, "out of memory: %zu images", gt->n_images);
    }
    *out = dt;
    return PD_OK;
}

static pd_status keep_points(pd_coco_shape *shape, pd_arena *arena, const pd_coco_det *det, pd_err *err)
{
    double *points;
    PD_TRY(PD_ALLOC(&points, arena, 3 * det->n_points, err));
    memcpy(points, det->keypoints, 3 * det->n_points * sizeof *points);
    shape->has_keypoints = PD_COCO_GOOD;
    shape->n_points = (uint32_t)det->n_points;
    shape->keypoints = points;
    return PD_OK;
}

static pd_status keep_mask(pd_coco_shape *shape, pd_arena *arena, const pd_coco_det *det, pd_err *err)
{
    char *text;
    PD_TRY(pd_strdup(&text, arena, det->counts, err));
    if ((uint64_t)det->mask_h * det->mask_w > PD_MASK_PIXELS)
        return PD_FAIL(err, PD_EINVAL, "a mask of %u x %u pixels", det->mask_h, det->mask_w);
    const char *const fault = pd_rle_scan(&shape->mask, text, strlen(text), det->mask_h, det->mask_w);
    if (fault) return PD_FAIL(err, PD_EINVAL, "a detection's %s", fault);
    shape->has_mask = PD_COCO_GOOD;
    shape->area = shape->mask.area;
    return PD_OK;
}

static pd_status keep_shape(pd_coco_item *item, pd_coco_block *block, const pd_coco_det *det, pd_err *err)
{
    if (!det->keypoints && !det->counts) return PD_OK;
    if (!block->memory && !(block->memory = pd_arena_new())) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    pd_coco_shape *shape;
    PD_TRY(PD_ALLOC(&shape, block->memory, 1, err));
    if (det->keypoints) PD_TRY(keep_points(shape, block->memory, det, err));
    if (det->counts) PD_TRY(keep_mask(shape, block->memory, det, err));
    item->shape = shape;
    return PD_OK;
}

static pd_status fill_block(pd_coco_block *block, const pd_coco_gt *gt, uint32_t image, const pd_coco_det *dets,
                            size_t n, pd_err *err)
{
    PD_TRY(pd_grow(&block->items, &block->capacity, n, sizeof *block->items, err));
    for (size_t i = 0; i < n; i++) {
        const uint32_t category = pd_coco_id_find(&gt->category_table, pd_coco_int_id(dets[i].category_id));
        if (category == PD_COCO_NONE) {
            block->unknown_categories++;
            continue;
        }
        pd_coco_item *const item = &block->items[block->n];
        *item = (pd_coco_item){.score = dets[i].score, .image = image, .category = category};
        memcpy(item->bbox, dets[i].bbox, sizeof item->bbox);
        PD_TRY(keep_shape(item, block, &dets[i], err));
        block->n++;
    }
    block->last_image = image;
    block->records = n;
    return PD_OK;
}

pd_status pd_coco_dt_add(pd_coco_dt *dt, pd_coco_id image, const pd_coco_det *dets, size_t n, pd_err *err)
{
    char id[PD_COCO_ID_ROOM];
    const uint32_t index = pd_coco_id_find(&dt->gt->image_table, image);
    if (index == PD_COCO_NONE)
        return PD_FAIL(err, PD_EINVAL, "image %s is not in %s", pd_coco_id_format(id, image), dt->gt->name);
    if (!dt->added) return PD_FAIL(err, PD_EINVAL, "%s: results from a file take no more detections", dt->name);
    pd_coco_block block = {0};
    pd_status status = fill_block(&block, dt->gt, index, dets, n, err);
    pthread_mutex_lock(&dt->lock);
    if (status == PD_OK && dt->added[index])
        status = PD_FAIL(err, PD_EINVAL, "image %s has been added before", pd_coco_id_format(id, image));
    if (status == PD_OK) status = pd_grow(&dt->blocks, &dt->capacity, dt->n_blocks + 1, sizeof block, err);
    if (status == PD_OK) {
        dt->added[index] = 1;
        dt->blocks[dt->n_blocks++] = block;
        dt->notes.records += n;
        dt->notes.unknown_categories += block.unknown_categories;
    }
    pthread_mutex_unlock(&dt->lock);
    if (status != PD_OK) release_block(&block);
    return status;
}
