#include "eval/overlap.h"

#include "eval/oks.h"

#include <math.h>

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

static void boxes(double *out, const pd_match_setup *setup, const pd_coco_item *item, const pd_coco_place *places,
                  size_t m)
{
    for (size_t g = 0; g < m; g++) {
        const pd_coco_object *const object = &setup->gt->objects[places[g].object];
        out[g] = box_overlap(item->bbox, object->bbox, object->crowd_overlap);
    }
}

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
                      const pd_coco_place *places, size_t m, double least)
{
    const pd_coco_shape *const shape = item->shape;
    if (!shape || shape->has_keypoints == PD_COCO_ABSENT) return item_fail(s, setup, item, "has no keypoints");
    if (shape->has_keypoints == PD_COCO_BAD)
        return item_fail(s, setup, item, "has keypoints that are no list of x, y, v triples");
    if (shape->n_points != setup->n_points)
        return item_fail(s, setup, item, "has another number of keypoints than there are sigmas (17 unless given)");
    for (size_t g = 0; g < m; g++) {
        const pd_coco_object *const o = &setup->gt->objects[places[g].object];
        if (o->has_keypoints != PD_COCO_GOOD)
            return object_fail(s, setup, places[g].object, "has no keypoints, or no list of x, y, v triples");
        if (o->n_points != setup->n_points)
            return object_fail(s, setup, places[g].object,
                               "has another number of keypoints than there are sigmas (17 unless given)");
        if (o->has_bbox != PD_COCO_GOOD) return object_fail(s, setup, places[g].object, "has no bbox of four numbers");
        if (o->has_area != PD_COCO_GOOD) return object_fail(s, setup, places[g].object, "has no area");
        s->overlaps[g] = pd_oks(shape->keypoints, o, setup->variances, setup->n_points, least);
    }
    return true;
}

bool pd_overlaps(pd_match_scratch *s, const pd_match_setup *setup, const pd_coco_item *item,
                 const pd_coco_place *places, size_t m, double least)
{
    switch (setup->type) {
    case PD_COCO_BBOX: boxes(s->overlaps, setup, item, places, m); return true;
    case PD_COCO_SEGM: return false;
    case PD_COCO_KEYPOINTS: return keypoints(s, setup, item, places, m, least);
    }
    return true;
}
