#include "eval/coco_check.h"

#include "eval/coco_data.h"
#include "eval/text_file.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void pd_coco_findings_free(pd_coco_findings *findings)
{
    free(findings->items);
    *findings = (pd_coco_findings){0};
}

pd_status pd_coco_find_fault(pd_coco_findings *f, pd_coco_severity severity, const char *what, pd_err *err,
                             const char *fmt, ...)
{
    size_t i = 0;
    while (i < f->n && strcmp(f->items[i].what, what)) i++;
    if (i == f->n) {
        PD_TRY(pd_grow(&f->items, &f->capacity, f->n + 1, sizeof *f->items, err));
        f->items[f->n++] = (pd_coco_finding){.severity = severity, .what = what};
        va_list args;
        va_start(args, fmt);
        vsnprintf(f->items[i].first, sizeof f->items[i].first, fmt, args);
        va_end(args);
    }
    f->items[i].count++;
    f->errors += severity == PD_COCO_ERROR;
    f->warnings += severity == PD_COCO_WARNING;
    return PD_OK;
}

pd_status pd_coco_check_syntax(const char *path, pd_err *err)
{
    pd_text_file file;
    PD_TRY(pd_text_open(&file, path, err));
    pd_js j;
    pd_js_begin(&j, file.bytes.data, file.bytes.size, path);
    pd_js_strict(&j);
    pd_js_skip(&j);
    const pd_status status = pd_js_end(&j, err);
    pd_text_close(&file);
    return status;
}

/* ---- what the checks share ---- */

typedef struct {
    pd_coco_findings *findings;
    const pd_coco_gt *gt;
    pd_err *err;
    char where[160]; /* the record at hand */
} checking;

#define FAULT(c, severity, what, ...)                                                                                  \
    PD_TRY(pd_coco_find_fault((c)->findings, (severity), (what), (c)->err, __VA_ARGS__))

static bool all_finite(const double *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(values[i])) return false;
    return true;
}

/* More than a pixel: annotators round. */
static bool leaves_image(const double b[4], const pd_coco_image *image)
{
    return b[0] < -1 || b[1] < -1 || b[0] + b[2] > image->width + 1 || b[1] + b[3] > image->height + 1;
}

static bool is_outside(const double b[4], const pd_coco_image *image)
{
    return b[0] >= image->width || b[1] >= image->height || b[0] + b[2] <= 0 || b[1] + b[3] <= 0;
}

static pd_status check_box(checking *c, const double b[4], const pd_coco_image *image, bool truth)
{
    const char *const fmt = "%s: bbox [%g, %g, %g, %g]";
    if (!all_finite(b, 4)) {
        FAULT(c, PD_COCO_ERROR, "boxes with NaN or infinity", fmt, c->where, b[0], b[1], b[2], b[3]);
        return PD_OK;
    }
    if (b[2] <= 0 || b[3] <= 0) {
        FAULT(c, truth ? PD_COCO_ERROR : PD_COCO_WARNING, "boxes of no or negative size", fmt, c->where, b[0], b[1],
              b[2], b[3]);
    } else if (image->width > 0 && image->height > 0) {
        if (is_outside(b, image))
            FAULT(c, truth ? PD_COCO_ERROR : PD_COCO_WARNING, "boxes wholly outside of their image", fmt, c->where,
                  b[0], b[1], b[2], b[3]);
        else if (leaves_image(b, image))
            FAULT(c, PD_COCO_WARNING, "boxes that leave their image by more than a pixel", fmt, c->where, b[0], b[1],
                  b[2], b[3]);
    }
    return PD_OK;
}

/* Two records that say the same. */
typedef struct {
    uint32_t image, category;
    double box[4];
    size_t index;
} twin;

static int compare_twins(const void *a, const void *b)
{
    const twin *const x = a, *const y = b;
    if (x->image != y->image) return x->image < y->image ? -1 : 1;
    if (x->category != y->category) return x->category < y->category ? -1 : 1;
    const int order = memcmp(x->box, y->box, sizeof x->box);
    return order ? order : (x->index > y->index) - (x->index < y->index);
}

static bool are_twins(const twin *a, const twin *b)
{
    return a->image == b->image && a->category == b->category && !memcmp(a->box, b->box, sizeof a->box);
}

/* ---- ground truth ---- */

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static pd_status check_names(checking *c, const char **names, size_t n, const char *what)
{
    qsort(names, n, sizeof *names, compare_names);
    for (size_t i = 1; i < n; i++)
        if (*names[i] && !strcmp(names[i - 1], names[i])) FAULT(c, PD_COCO_WARNING, what, "\"%s\"", names[i]);
    return PD_OK;
}

static pd_status check_images(checking *c)
{
    const pd_coco_gt *const gt = c->gt;
    char id[PD_COCO_ID_ROOM];
    for (size_t i = 0; i < gt->n_images; i++) {
        const pd_coco_image *const image = &gt->images[i];
        pd_coco_id_format(id, image->id);
        if (!(image->width > 0) || !(image->height > 0) || !isfinite(image->width * image->height))
            FAULT(c, PD_COCO_WARNING, "images without a usable width and height", "image %s", id);
        if ((gt->options.read & PD_COCO_READ_NAMES) && !*image->file_name)
            FAULT(c, PD_COCO_WARNING, "images without file_name", "image %s", id);
    }
    if (gt->notes.repeated_images)
        FAULT(c, PD_COCO_WARNING, "image ids that are listed more than once", "%zu images", gt->notes.repeated_images);
    if (gt->notes.repeated_categories)
        FAULT(c, PD_COCO_WARNING, "category ids that are listed more than once", "%zu categories",
              gt->notes.repeated_categories);
    const size_t most = gt->n_images > gt->n_categories ? gt->n_images : gt->n_categories;
    const char **const names = malloc((most + 1) * sizeof *names);
    if (!names) return PD_FAIL(c->err, PD_ENOMEM, "out of memory: %zu names", most);
    for (size_t i = 0; i < gt->n_images; i++) names[i] = gt->images[i].file_name;
    pd_status status = check_names(c, names, gt->n_images, "file names that several images share");
    for (size_t i = 0; i < gt->n_categories; i++) names[i] = gt->categories[i].name;
    if (status == PD_OK) status = check_names(c, names, gt->n_categories, "names that several categories share");
    free(names);
    return status;
}

static pd_status check_area(checking *c, const pd_coco_object *o)
{
    if (o->has_area == PD_COCO_ABSENT && !o->crowd)
        FAULT(c, PD_COCO_ERROR, "objects without area", "%s", c->where);
    else if (o->has_area == PD_COCO_BAD || (o->has_area == PD_COCO_GOOD && !(o->area >= 0 && isfinite(o->area))))
        FAULT(c, PD_COCO_ERROR, "areas that are no number, negative or infinite", "%s", c->where);
    else if (o->has_area == PD_COCO_GOOD && o->has_bbox == PD_COCO_GOOD && o->area > o->bbox[2] * o->bbox[3] * 1.01 + 1)
        FAULT(c, PD_COCO_WARNING, "areas larger than the box", "%s: area %g, box %g x %g", c->where, o->area,
              o->bbox[2], o->bbox[3]);
    return PD_OK;
}

static pd_status check_keypoints(checking *c, const pd_coco_object *o)
{
    if (o->has_keypoints == PD_COCO_BAD)
        FAULT(c, PD_COCO_ERROR, "keypoints that are no x, y, v triples", "%s", c->where);
    if (o->has_keypoints != PD_COCO_GOOD) return PD_OK;
    size_t labelled = 0;
    for (uint32_t i = 0; i < o->n_points; i++) labelled += o->keypoints[3 * i + 2] > 0;
    if (!all_finite(o->keypoints, 3 * (size_t)o->n_points))
        FAULT(c, PD_COCO_ERROR, "keypoints with NaN or infinity", "%s", c->where);
    if (o->has_num_keypoints == PD_COCO_ABSENT)
        FAULT(c, PD_COCO_ERROR, "objects with keypoints but without num_keypoints", "%s", c->where);
    else if (o->unlabelled != (labelled == 0))
        FAULT(c, PD_COCO_WARNING, "num_keypoints that does not agree with the labelled points", "%s: %zu are labelled",
              c->where, labelled);
    return PD_OK;
}

static pd_status check_object(checking *c, size_t at)
{
    const pd_coco_gt *const gt = c->gt;
    const pd_coco_object *const o = &gt->objects[at];
    char id[PD_COCO_ID_ROOM];
    snprintf(c->where, sizeof c->where, "annotations[%zu] (id %s)", at,
             pd_coco_raw_format(id, gt->ids[at], (const unsigned char *)""));
    if (o->image == PD_COCO_NONE) FAULT(c, PD_COCO_ERROR, "annotations of an image that is not listed", "%s", c->where);
    if (o->category == PD_COCO_NONE)
        FAULT(c, PD_COCO_ERROR, "annotations of a category that is not listed", "%s", c->where);
    if (o->id_zero) FAULT(c, PD_COCO_WARNING, "annotations with id 0 (a match to one counts as none)", "%s", c->where);
    if (o->ignore_key) FAULT(c, PD_COCO_NOTE, "annotations with \"ignore\", which has no effect", "%s", c->where);
    if (o->has_iscrowd != PD_COCO_GOOD) FAULT(c, PD_COCO_ERROR, "annotations without a usable iscrowd", "%s", c->where);
    if (o->has_bbox == PD_COCO_ABSENT)
        FAULT(c, PD_COCO_ERROR, "annotations without bbox", "%s", c->where);
    else if (o->has_bbox == PD_COCO_BAD)
        FAULT(c, PD_COCO_ERROR, "boxes that are no list of four numbers", "%s", c->where);
    else if (o->image != PD_COCO_NONE)
        PD_TRY(check_box(c, o->bbox, &gt->images[o->image], true));
    PD_TRY(check_area(c, o));
    if (o->has_mask == PD_COCO_BAD && o->mask_fault)
        FAULT(c, PD_COCO_ERROR, "segmentations that are no masks", "%s: %s", c->where, o->mask_fault);
    if (o->has_mask == PD_COCO_GOOD && o->mask.area == 0)
        FAULT(c, PD_COCO_WARNING, "masks without a single pixel", "%s", c->where);
    return check_keypoints(c, o);
}

static pd_status check_object_twins(checking *c)
{
    const pd_coco_gt *const gt = c->gt;
    twin *const list = malloc((gt->n_objects + 1) * sizeof *list);
    if (!list) return PD_FAIL(c->err, PD_ENOMEM, "out of memory: %zu annotations", gt->n_objects);
    pd_status status = PD_OK;
    size_t n = 0;
    for (size_t i = 0; i < gt->n_objects; i++) {
        const pd_coco_object *const o = &gt->objects[i];
        if (o->has_bbox != PD_COCO_GOOD || o->image == PD_COCO_NONE) continue;
        list[n] = (twin){.image = o->image, .category = o->category, .index = i};
        memcpy(list[n++].box, o->bbox, sizeof o->bbox);
    }
    qsort(list, n, sizeof *list, compare_twins);
    for (size_t i = 1; i < n && status == PD_OK; i++)
        if (are_twins(&list[i - 1], &list[i]))
            status =
                pd_coco_find_fault(c->findings, PD_COCO_WARNING, "annotations of the same image, category and box",
                                   c->err, "annotations[%zu] and annotations[%zu]", list[i - 1].index, list[i].index);
    free(list);
    return status;
}

/* Images and categories that nothing refers to. */
static pd_status check_unused(checking *c)
{
    const pd_coco_gt *const gt = c->gt;
    unsigned char *const used = calloc(gt->n_images + gt->n_categories + 1, 1);
    if (!used) return PD_FAIL(c->err, PD_ENOMEM, "out of memory");
    for (size_t i = 0; i < gt->n_objects; i++) {
        if (gt->objects[i].image != PD_COCO_NONE) used[gt->objects[i].image] = 1;
        if (gt->objects[i].category != PD_COCO_NONE) used[gt->n_images + gt->objects[i].category] = 1;
    }
    pd_status status = PD_OK;
    char id[PD_COCO_ID_ROOM];
    for (size_t i = 0; i < gt->n_images && status == PD_OK; i++)
        if (!used[i])
            status = pd_coco_find_fault(c->findings, PD_COCO_NOTE, "images without annotations", c->err, "image %s",
                                        pd_coco_id_format(id, gt->images[i].id));
    for (size_t i = 0; i < gt->n_categories && status == PD_OK; i++)
        if (!used[gt->n_images + i])
            status = pd_coco_find_fault(c->findings, PD_COCO_NOTE, "categories without annotations", c->err,
                                        "category %s (%s)", pd_coco_id_format(id, gt->categories[i].id),
                                        gt->categories[i].name);
    free(used);
    return status;
}

pd_status pd_coco_check_gt(pd_coco_findings *findings, const pd_coco_gt *gt, pd_err *err)
{
    checking c = {.findings = findings, .gt = gt, .err = err};
    PD_TRY(check_images(&c));
    if (gt->notes.repeated_ids)
        PD_TRY(pd_coco_find_fault(findings, PD_COCO_ERROR, "annotation ids that are used more than once", err,
                                  "%zu annotations (the last of an id stands in for all)", gt->notes.repeated_ids));
    for (size_t i = 0; i < gt->n_objects; i++) PD_TRY(check_object(&c, i));
    PD_TRY(check_object_twins(&c));
    return check_unused(&c);
}

/* ---- detections ---- */

static pd_status check_item(checking *c, const pd_coco_dt *dt, const pd_coco_item *item)
{
    char image[PD_COCO_ID_ROOM], category[PD_COCO_ID_ROOM];
    snprintf(c->where, sizeof c->where, "a detection of image %.60s, category %.60s",
             pd_coco_id_format(image, c->gt->images[item->image].id),
             pd_coco_id_format(category, c->gt->categories[item->category].id));
    if (!isfinite(item->score))
        FAULT(c, PD_COCO_ERROR, "scores that are NaN or infinite", "%s", c->where);
    else if (item->score < 0 || item->score > 1)
        FAULT(c, PD_COCO_WARNING, "scores outside of 0 .. 1", "%s: %g", c->where, item->score);
    if (item->shape && item->shape->has_mask == PD_COCO_BAD)
        FAULT(c, PD_COCO_ERROR, "segmentations that are no masks", "%s: %s", c->where, item->shape->mask_fault);
    if (dt->kind != PD_COCO_DT_BOXES) return PD_OK;
    return check_box(c, item->bbox, &c->gt->images[item->image], false);
}

/* Fills list with all detections, per image sorted together. */
static pd_status check_item_twins(checking *c, const pd_coco_dt *dt, size_t n)
{
    twin *const list = malloc((n + 1) * sizeof *list);
    if (!list) return PD_FAIL(c->err, PD_ENOMEM, "out of memory: %zu detections", n);
    size_t m = 0;
    for (size_t b = 0; b < dt->n_blocks; b++)
        for (size_t i = 0; i < dt->blocks[b].n; i++, m++) {
            const pd_coco_item *const item = &dt->blocks[b].items[i];
            list[m] = (twin){.image = item->image, .category = item->category, .index = m};
            memcpy(list[m].box, item->bbox, sizeof item->bbox);
        }
    qsort(list, m, sizeof *list, compare_twins);
    pd_status status = PD_OK;
    char id[PD_COCO_ID_ROOM];
    size_t images = 0;
    for (size_t i = 0; i < m && status == PD_OK; i++) {
        images += i == 0 || list[i].image != list[i - 1].image;
        if (i && dt->kind == PD_COCO_DT_BOXES && are_twins(&list[i - 1], &list[i]))
            status = pd_coco_find_fault(c->findings, PD_COCO_WARNING, "detections of the same image, category and box",
                                        c->err, "image %s", pd_coco_id_format(id, c->gt->images[list[i].image].id));
    }
    if (status == PD_OK && images < c->gt->n_images)
        status = pd_coco_find_fault(c->findings, PD_COCO_NOTE, "images without detections", c->err, "%zu of %zu",
                                    c->gt->n_images - images, c->gt->n_images);
    free(list);
    return status;
}

pd_status pd_coco_check_dt(pd_coco_findings *findings, const pd_coco_dt *dt, pd_err *err)
{
    checking c = {.findings = findings, .gt = dt->gt, .err = err};
    const pd_coco_dt_notes *const notes = &dt->notes;
    size_t n = 0, before = 0;
    if (notes->unknown_images)
        FAULT(&c, PD_COCO_ERROR, "detections of images that the ground truth does not list", "%zu of %zu records",
              notes->unknown_images, notes->records);
    if (notes->unknown_categories)
        FAULT(&c, PD_COCO_WARNING, "detections of categories that the ground truth does not list", "%zu of %zu records",
              notes->unknown_categories, notes->records);
    if (!notes->records) FAULT(&c, PD_COCO_WARNING, "no detections at all", "the list is empty");
    for (size_t b = 0; b < dt->n_blocks; b++) {
        const pd_coco_block *const block = &dt->blocks[b];
        for (size_t i = 0; i < block->n_bad; i++)
            FAULT(&c, PD_COCO_ERROR, "records without a usable score", "record %zu (byte %zu) %s",
                  before + block->bad[i].record, block->bad[i].offset, block->bad[i].reason);
        for (size_t i = 0; i < block->n; i++) PD_TRY(check_item(&c, dt, &block->items[i]));
        n += block->n;
        before += block->records;
    }
    return check_item_twins(&c, dt, n);
}
