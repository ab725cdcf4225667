#include "eval/coco_gt.h"

#include "eval/gt_read.h"
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

/* ---- putting it together ---- */

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

static pd_status list_images(pd_gt_reading *r, id_place *list, pd_err *err)
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
        const pd_gt_image *const raw = &r->images[list[i].at];
        gt->images[i] = (pd_coco_image){list[i].id, raw->width, raw->height, ""};
        ids[i] = list[i].id;
        if (raw->file_name.size) PD_TRY(keep_text(&gt->images[i].file_name, raw->file_name, gt->memory, err));
    }
    return pd_coco_id_table_make(&gt->image_table, ids, gt->n_images, gt->memory, err);
}

static pd_status list_categories(pd_gt_reading *r, id_place *list, pd_err *err)
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
        const pd_gt_category *const raw = &r->categories[list[i].at];
        gt->categories[i] = (pd_coco_category){list[i].id, ""};
        gt->frequency[i] = raw->frequency;
        ids[i] = list[i].id;
        PD_TRY(keep_text(&gt->categories[i].name, raw->name, gt->memory, err));
    }
    return pd_coco_id_table_make(&gt->category_table, ids, gt->n_categories, gt->memory, err);
}

/* LVIS: the categories that each image lists, as indexes. at[i]: offset of image i's list, 0 where there is none. */
static pd_status read_id_lists(pd_coco_id_lists *out, const pd_gt_reading *r, const size_t *at, pd_err *err)
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

static pd_status read_federation(pd_gt_reading *r, const id_place *images, pd_err *err)
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

static pd_status gather_objects(pd_gt_reading *r, pd_err *err)
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
        pd_gt_objects *const part = &r->objects[p];
        gt->notes.ignore_keys += part->ignore_keys;
        for (size_t i = 0; i < part->n; i++, n++) {
            const pd_gt_object *const raw = &part->items[i];
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

/* ---- masks ---- */

typedef struct {
    const pd_gt_reading *r;
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

static pd_status read_masks(pd_gt_reading *r, pd_err *err)
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

static pd_status build(pd_gt_reading *r, const char *name, pd_err *err)
{
    pd_coco_gt *const gt = r->gt;
    PD_TRY(pd_strdup(&gt->name, gt->memory, name, err));
    PD_TRY(pd_gt_read(r, gt->name, err));
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
    pd_gt_reading r = {.pool = pool, .text = text, .mapped = mapped};
    r.gt = calloc(1, sizeof *r.gt);
    if (!r.gt || !(r.gt->memory = pd_arena_new())) {
        free(r.gt);
        return PD_FAIL(err, PD_ENOMEM, "%s: out of memory", name);
    }
    if (options) r.gt->options = *options;
    const pd_status status = build(&r, name, err);
    pd_gt_release(&r);
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
