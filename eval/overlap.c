#include "eval/overlap.h"

#include "eval/oks.h"

#include <math.h>
#include <stdio.h>

/* fmin and fmax as IEEE 754 has them: of a number and a NaN, the number. */
static inline double least_of(double a, double b)
{
    return a < b || b != b ? a : b;
}

static inline double most_of(double a, double b)
{
    return a > b || b != b ? a : b;
}

static inline double box_overlap(const double d[4], const double g[4], bool crowd)
{
    const double w = least_of(d[2] + d[0], g[2] + g[0]) - most_of(d[0], g[0]);
    if (w <= 0) return 0;
    const double h = least_of(d[3] + d[1], g[3] + g[1]) - most_of(d[1], g[1]);
    if (h <= 0) return 0;
    const double inter = w * h, area = d[2] * d[3];
    return inter / (crowd ? area : area + g[2] * g[3] - inter);
}

double pd_coco_box_overlap(const double d[4], const double g[4], bool crowd)
{
    return box_overlap(d, g, crowd);
}

static void boxes(double *out, const pd_coco_item *item, const pd_match_object *objects, size_t m)
{
    for (size_t g = 0; g < m; g++) {
        out[g] = box_overlap(item->bbox, objects[g].bbox, objects[g].crowd_overlap);
    }
}

#define OTHER_COUNT "has %u keypoints, but there are %zu sigmas (COCO's 17 of a person unless given)"

/* "dt.json: a detection of image 5, category 1 <what>". */
static bool item_fail(pd_match_scratch *s, const pd_match_setup *setup, const pd_coco_item *item, const char *what)
{
    char image[PD_COCO_ID_ROOM], category[PD_COCO_ID_ROOM];
    pd_err err = PD_ERR_INIT;
    pd_fail(&err, PD_EFORMAT, "%s%sa detection of image %s, category %s %s", setup->dt->name,
            *setup->dt->name ? ": " : "", pd_coco_id_format(image, setup->gt->images[item->image].id),
            pd_coco_id_format(category, setup->gt->categories[item->category].id), what);
    return pd_match_fail(s, &err);
}

static bool object_fail(pd_match_scratch *s, const pd_match_setup *setup, size_t object, const char *what)
{
    pd_err err = PD_ERR_INIT;
    pd_coco_object_fail(setup->gt, object, &err, "%s", what);
    return pd_match_fail(s, &err);
}

static bool keypoints(pd_match_scratch *s, const pd_match_setup *setup, const pd_coco_item *item,
                      const pd_match_object *objects, size_t m)
{
    const pd_coco_shape *const shape = item->shape;
    if (!shape || shape->has_keypoints == PD_COCO_ABSENT) return item_fail(s, setup, item, "has no keypoints");
    if (shape->has_keypoints == PD_COCO_BAD)
        return item_fail(s, setup, item, "has keypoints that are no list of x, y, v triples");
    char what[128];
    if (shape->n_points != setup->n_points) {
        snprintf(what, sizeof what, OTHER_COUNT, shape->n_points, setup->n_points);
        return item_fail(s, setup, item, what);
    }
    for (size_t g = 0; g < m; g++) {
        const pd_coco_object *const o = &setup->gt->objects[objects[g].object];
        if (o->has_keypoints != PD_COCO_GOOD)
            return object_fail(s, setup, objects[g].object, "has no keypoints, or no list of x, y, v triples");
        if (o->n_points != setup->n_points) {
            snprintf(what, sizeof what, OTHER_COUNT, o->n_points, setup->n_points);
            return object_fail(s, setup, objects[g].object, what);
        }
        if (o->has_bbox != PD_COCO_GOOD) return object_fail(s, setup, objects[g].object, "has no bbox of four numbers");
        if (o->has_area != PD_COCO_GOOD) return object_fail(s, setup, objects[g].object, "has no area");
        s->overlaps[g] = pd_oks(shape->keypoints, o, setup->variances, setup->n_points, setup->least);
    }
    return true;
}

/* The mask of a detection in scratch->runs: unpacked text, or its box as a polygon of four corners. */
static const pd_mask *unpack(pd_match_scratch *s, const pd_match_setup *setup, const pd_coco_item *item)
{
    pd_err err = PD_ERR_INIT;
    if (item->shape && item->shape->runs) return item->shape->runs;
    if (item->shape && item->shape->has_mask) {
        if (pd_rle_unpack(&s->runs, &s->runs_capacity, &item->shape->mask, &err) == PD_OK) return &s->runs;
    } else {
        const pd_coco_image *const image = &setup->gt->images[item->image];
        const double *const b = item->bbox;
        const double x1 = b[0], x2 = b[0] + b[2], y1 = b[1], y2 = b[1] + b[3];
        const double corners[8] = {x1, y1, x1, y2, x2, y2, x2, y1};
        const char *const fault = pd_mask_check_polygon(corners, 4, image->height, image->width);
        if (fault) {
            item_fail(s, setup, item, fault);
            return NULL;
        }
        if (pd_mask_polygon(&s->runs, &s->runs_capacity, corners, 4, (uint32_t)image->height, (uint32_t)image->width,
                            &s->work, &err) == PD_OK)
            return &s->runs;
    }
    pd_match_fail(s, &err);
    return NULL;
}

static bool outline(pd_match_scratch *s, const pd_match_setup *setup, const pd_mask *mask)
{
    pd_err err = PD_ERR_INIT;
    return pd_mask_boundary(&s->boundary, &s->boundary_capacity, mask, setup->boundary, &s->boundary_work, &err) ==
               PD_OK ||
           pd_match_fail(s, &err);
}

static bool masks(pd_match_scratch *s, const pd_match_setup *setup, const pd_coco_item *item,
                  const pd_match_object *objects, size_t m)
{
    if (setup->dt->kind == PD_COCO_DT_KEYPOINTS && (!item->shape || !item->shape->has_mask))
        return item_fail(s, setup, item, "has no segmentation");
    if (item->shape && item->shape->has_mask == PD_COCO_BAD) return item_fail(s, setup, item, item->shape->mask_fault);
    const pd_rle_text *const text = item->shape && item->shape->mask.text ? &item->shape->mask : NULL;
    const pd_mask *mask = NULL;
    bool outlined = false;
    for (size_t g = 0; g < m; g++) {
        const pd_coco_object *const o = &setup->gt->objects[objects[g].object];
        s->overlaps[g] = -1;
        /* Packed masks tell by box and area whether unpacking is worth while. */
        if (text && !pd_mask_may_reach(text, &o->mask, o->crowd_overlap, setup->least)) continue;
        if (!mask && !(mask = unpack(s, setup, item))) return false;
        s->overlaps[g] = pd_mask_overlap(mask, &o->mask, o->crowd_overlap);
        if (!objects[g].boundary || o->crowd_overlap || !(s->overlaps[g] >= setup->least)) continue;
        if (!outlined && !outline(s, setup, mask)) return false;
        outlined = true;
        const double boundary = pd_mask_overlap(&s->boundary, objects[g].boundary, false);
        if (boundary < s->overlaps[g]) s->overlaps[g] = boundary;
    }
    return true;
}

bool pd_overlaps(pd_match_scratch *s, const pd_match_setup *setup, const pd_coco_item *item,
                 const pd_match_object *objects, size_t m)
{
    switch (setup->type) {
    case PD_COCO_BBOX: boxes(s->overlaps, item, objects, m); return true;
    case PD_COCO_SEGM: return masks(s, setup, item, objects, m);
    case PD_COCO_KEYPOINTS: return keypoints(s, setup, item, objects, m);
    }
    return true;
}
