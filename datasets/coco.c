#include "datasets/coco.h"

#include "engine/file.h"
#include "engine/json_stream.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- records as the file has them ---- */

typedef struct image_record {
    int64_t id;
    int w, h;
    size_t name_at; /* in the block of names */
    size_t offset;  /* of the record in the file, for messages */
} image_record;

typedef struct category_record {
    int64_t id;
    size_t name_at, offset;
} category_record;

typedef struct annotation_record {
    int64_t image_id, category_id;
    double x, y, w, h, area;
    bool crowd, ignore;
} annotation_record;

typedef struct records {
    pd_js json;
    image_record *images;
    category_record *categories;
    annotation_record *anns;
    char *names; /* terminated strings, one after the other */
    size_t n_images, n_categories, n_anns, names_size;
    size_t room_images, room_categories, room_anns, room_names;
} records;

static bool grow(records *r, void *array, size_t *room, size_t need, size_t size)
{
    pd_err err = PD_ERR_INIT;
    return pd_grow(array, room, need, size, &err) == PD_OK || pd_js_fail_with(&r->json, &err);
}

/* ---- fields ---- */

static bool read_integer(pd_js *j, const char *what, int64_t *out)
{
    const size_t at = pd_js_offset(j);
    pd_js_num n;
    if (!pd_js_number(j, &n)) return false;
    if (!n.is_integer && n.value == floor(n.value) && fabs(n.value) <= 0x1p53) { /* 17.0 */
        n.integer = (int64_t)n.value;
        n.is_integer = true;
    }
    if (!n.is_integer) return pd_js_fail(j, at, "%s is %.17g; expected an integer", what, n.value);
    *out = n.integer;
    return true;
}

static bool read_side(pd_js *j, const char *what, int *out)
{
    const size_t at = pd_js_offset(j);
    int64_t v = 0;
    if (!read_integer(j, what, &v)) return false;
    if (v < 1 || v > INT32_MAX) return pd_js_fail(j, at, "%s is %lld; expected at least 1", what, (long long)v);
    *out = (int)v;
    return true;
}

/* true, false, 0, 1 or null. */
static bool read_flag(pd_js *j, const char *what, bool *out)
{
    const size_t at = pd_js_offset(j);
    if (pd_js_peek(j) == PD_JS_BOOL) return pd_js_bool(j, out);
    if (pd_js_peek(j) == PD_JS_NULL) return pd_js_null(j);
    int64_t v = 0;
    if (!read_integer(j, what, &v)) return false;
    if (v != 0 && v != 1) return pd_js_fail(j, at, "%s is %lld; expected 0 or 1", what, (long long)v);
    *out = v == 1;
    return true;
}

static bool read_name(records *r, const char *what, size_t *out)
{
    pd_js *j = &r->json;
    const size_t at = pd_js_offset(j);
    pd_js_text text;
    if (!pd_js_string(j, &text) || !grow(r, &r->names, &r->room_names, r->names_size + text.size + 1, 1)) return false;
    char *to = r->names + r->names_size;
    const size_t size = pd_js_decode(text, to);
    if (size == 0 || memchr(to, 0, size)) return pd_js_fail(j, at, "%s is empty or holds a zero byte", what);
    to[size] = '\0';
    *out = r->names_size;
    r->names_size += size + 1;
    return true;
}

static bool read_bbox(pd_js *j, annotation_record *a)
{
    const size_t at = pd_js_offset(j);
    double v[4] = {0};
    int n = 0;
    if (!pd_js_array(j)) return false;
    for (; pd_js_item(j); n++) {
        if (n == 4) return pd_js_fail(j, at, "bbox has more than 4 numbers; expected [x, y, width, height]");
        const size_t here = pd_js_offset(j);
        if (!pd_js_double(j, &v[n])) return false;
        if (!(fabs(v[n]) <= 1e9)) return pd_js_fail(j, here, "bbox holds %g; expected pixels", v[n]);
    }
    if (n < 4) return pd_js_fail(j, at, "bbox has %d numbers; expected [x, y, width, height]", n);
    a->x = v[0];
    a->y = v[1];
    a->w = v[2];
    a->h = v[3];
    return true;
}

/* ---- records ---- */

/* Which of the needed fields a record had. */
enum {
    HAS_ID = 1,
    HAS_W = 2,
    HAS_H = 4,
    HAS_NAME = 8,
    HAS_IMAGE = 16,
    HAS_CATEGORY = 32,
    HAS_BBOX = 64,
    HAS_AREA = 128
};

static bool need(pd_js *j, size_t offset, const char *kind, size_t number, unsigned have, unsigned wanted)
{
    static const char *const names[] = {"id", "width", "height", "file_name", "image_id", "category_id", "bbox"};
    for (unsigned i = 0; i < 7; i++)
        if (wanted & ~have & 1u << i)
            return pd_js_fail(j, offset, "%s %zu has no \"%s\"", kind, number,
                              wanted & HAS_W || i != 3 ? names[i] : "name");
    return true;
}

static void read_image(records *r)
{
    pd_js *j = &r->json;
    image_record image = {.offset = pd_js_offset(j)};
    unsigned have = 0;
    pd_js_object(j);
    for (pd_js_text key; pd_js_key(j, &key);) {
        if (pd_js_is(key, "id"))
            have |= HAS_ID, read_integer(j, "id", &image.id);
        else if (pd_js_is(key, "width"))
            have |= HAS_W, read_side(j, "width", &image.w);
        else if (pd_js_is(key, "height"))
            have |= HAS_H, read_side(j, "height", &image.h);
        else if (pd_js_is(key, "file_name"))
            have |= HAS_NAME, read_name(r, "file_name", &image.name_at);
        else
            pd_js_skip(j);
    }
    if (!need(j, image.offset, "image", r->n_images, have, HAS_ID | HAS_W | HAS_H | HAS_NAME) ||
        !grow(r, &r->images, &r->room_images, r->n_images + 1, sizeof image))
        return;
    r->images[r->n_images++] = image;
}

static void read_category(records *r)
{
    pd_js *j = &r->json;
    category_record category = {.offset = pd_js_offset(j)};
    unsigned have = 0;
    pd_js_object(j);
    for (pd_js_text key; pd_js_key(j, &key);) {
        if (pd_js_is(key, "id"))
            have |= HAS_ID, read_integer(j, "id", &category.id);
        else if (pd_js_is(key, "name"))
            have |= HAS_NAME, read_name(r, "name", &category.name_at);
        else
            pd_js_skip(j);
    }
    if (!need(j, category.offset, "category", r->n_categories, have, HAS_ID | HAS_NAME) ||
        !grow(r, &r->categories, &r->room_categories, r->n_categories + 1, sizeof category))
        return;
    r->categories[r->n_categories++] = category;
}

static void read_annotation(records *r)
{
    pd_js *j = &r->json;
    const size_t offset = pd_js_offset(j);
    annotation_record a = {0};
    unsigned have = 0;
    pd_js_object(j);
    for (pd_js_text key; pd_js_key(j, &key);) {
        if (pd_js_is(key, "image_id"))
            have |= HAS_IMAGE, read_integer(j, "image_id", &a.image_id);
        else if (pd_js_is(key, "category_id"))
            have |= HAS_CATEGORY, read_integer(j, "category_id", &a.category_id);
        else if (pd_js_is(key, "bbox"))
            have |= HAS_BBOX, read_bbox(j, &a);
        else if (pd_js_is(key, "area") && pd_js_peek(j) != PD_JS_NULL)
            have |= HAS_AREA, pd_js_double(j, &a.area);
        else if (pd_js_is(key, "iscrowd"))
            read_flag(j, "iscrowd", &a.crowd);
        else if (pd_js_is(key, "ignore"))
            read_flag(j, "ignore", &a.ignore);
        else
            pd_js_skip(j);
    }
    if (!need(j, offset, "annotation", r->n_anns, have, HAS_IMAGE | HAS_CATEGORY | HAS_BBOX) ||
        !grow(r, &r->anns, &r->room_anns, r->n_anns + 1, sizeof a))
        return;
    if (!(have & HAS_AREA)) a.area = a.w * a.h;
    r->anns[r->n_anns++] = a;
}

static pd_status read_file(records *r, pd_bytes file, const char *path, pd_err *err)
{
    static const struct {
        const char *key;
        void (*read)(records *r);
    } lists[] = {{"images", read_image}, {"categories", read_category}, {"annotations", read_annotation}};
    pd_js *j = &r->json;
    unsigned seen = 0;
    pd_js_begin(j, file.data, file.size, path);
    pd_js_object(j);
    for (pd_js_text key; pd_js_key(j, &key);) {
        unsigned i = 0;
        while (i < 3 && !pd_js_is(key, lists[i].key)) i++;
        if (i == 3) {
            pd_js_skip(j);
            continue;
        }
        if (seen & 1u << i) pd_js_fail(j, pd_js_offset(j), "\"%s\" appears twice", lists[i].key);
        seen |= 1u << i;
        pd_js_array(j);
        while (pd_js_item(j)) lists[i].read(r);
    }
    PD_TRY(pd_js_end(j, err));
    for (unsigned i = 0; i < 2; i++)
        if (i == 0 ? r->n_images == 0 : r->n_categories == 0)
            return PD_FAIL(err, PD_EFORMAT, "%s: %s \"%s\"; expected a COCO annotation file", path,
                           seen & 1u << i ? "nothing in" : "no", lists[i].key);
    return PD_OK;
}

/* ---- from records to the index ---- */

/* An id with the position of its record, to sort and search. */
typedef struct id_at {
    int64_t id;
    uint32_t at;
} id_at;

static int by_id(const void *a, const void *b)
{
    const id_at *x = a, *y = b;
    return x->id != y->id ? (x->id < y->id ? -1 : 1) : (x->at > y->at) - (x->at < y->at);
}

static ptrdiff_t find(const id_at *ids, size_t n, int64_t id)
{
    size_t low = 0, high = n;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (ids[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && ids[low].id == id ? (ptrdiff_t)ids[low].at : -1;
}

/* The later record of a pair with one id, in sorted ids; -1 if there is none. */
static ptrdiff_t find_twice(const id_at *ids, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if (ids[i].id == ids[i - 1].id) return (ptrdiff_t)ids[i].at;
    return -1;
}

static pd_status build_images(pd_coco *set, id_at *ids, records *r, const char *names, pd_arena *arena, pd_err *err)
{
    PD_TRY(PD_ALLOC(&set->images, arena, r->n_images, err));
    PD_TRY(PD_ALLOC(&set->by_id, arena, r->n_images, err));
    set->n_images = r->n_images;
    for (size_t i = 0; i < r->n_images; i++) {
        const image_record *from = &r->images[i];
        set->images[i] = (pd_coco_photo){.id = from->id, .w = from->w, .h = from->h, .file = names + from->name_at};
        ids[i] = (id_at){from->id, (uint32_t)i};
    }
    qsort(ids, r->n_images, sizeof *ids, by_id);
    const ptrdiff_t twice = find_twice(ids, r->n_images);
    if (twice >= 0) {
        pd_js_fail(&r->json, r->images[twice].offset, "image %td has id %lld, as one before it", twice,
                   (long long)r->images[twice].id);
        return pd_js_error(&r->json, err);
    }
    for (size_t i = 0; i < r->n_images; i++) set->by_id[i] = ids[i].at;
    return PD_OK;
}

/* Labels of the file's categories (-1: not wanted), in the order of `ids`, sorted by id. */
static pd_status build_classes(pd_coco *set, id_at *ids, records *r, const char *names, char *const *classes,
                               int n_classes, const char *path, pd_arena *arena, pd_err *err)
{
    const size_t n = r->n_categories;
    for (size_t i = 0; i < n; i++) ids[i] = (id_at){r->categories[i].id, (uint32_t)i};
    qsort(ids, n, sizeof *ids, by_id);
    const ptrdiff_t twice = find_twice(ids, n);
    if (twice >= 0) {
        pd_js_fail(&r->json, r->categories[twice].offset, "category %td has id %lld, as one before it", twice,
                   (long long)r->categories[twice].id);
        return pd_js_error(&r->json, err);
    }
    set->n_classes = classes ? n_classes : (int)n;
    PD_TRY(PD_ALLOC(&set->classes, arena, (size_t)set->n_classes, err));
    PD_TRY(PD_ALLOC(&set->category_ids, arena, (size_t)set->n_classes, err));
    bool *found = NULL;
    PD_TRY(PD_ALLOC(&found, arena, (size_t)set->n_classes, err));
    for (size_t i = 0; i < n; i++) {
        const char *name = names + r->categories[ids[i].at].name_at;
        int label = (int)i;
        if (classes)
            for (label = n_classes - 1; label >= 0; label--)
                if (!found[label] && !strcmp(classes[label], name)) break;
        ids[i].at = (uint32_t)label; /* -1 as UINT32_MAX */
        if (label < 0) continue;
        found[label] = true;
        set->category_ids[label] = ids[i].id;
        PD_TRY(pd_strdup(&set->classes[label], arena, name, err));
    }
    for (int c = 0; c < set->n_classes; c++)
        if (!found[c])
            return PD_FAIL(err, PD_EFORMAT, "%s: no category \"%s\", which is in the class list", path, classes[c]);
    return PD_OK;
}

/* mmdetection's order of tests. */
static pd_coco_use use_of(const annotation_record *a, const pd_coco_photo *image, int label)
{
    const double w = fmin(a->x + a->w, image->w) - fmax(a->x, 0), h = fmin(a->y + a->h, image->h) - fmax(a->y, 0);
    if (a->ignore) return PD_COCO_IGNORED;
    if (fmax(w, 0) * fmax(h, 0) == 0) return PD_COCO_OUTSIDE;
    if (!(a->area > 0) || a->w < 1 || a->h < 1) return PD_COCO_TINY;
    if (label < 0) return PD_COCO_NO_CLASS;
    return a->crowd ? PD_COCO_CROWD : PD_COCO_GT;
}

/* Groups the annotations by image and keeps the file's order in each: count, place, fill. */
static pd_status build_anns(pd_coco *set, const id_at *image_ids, const id_at *category_ids, const records *r,
                            pd_arena *arena, pd_err *err)
{
    uint32_t *image_of = malloc((r->n_anns ? r->n_anns : 1) * sizeof *image_of);
    if (!image_of) return PD_FAIL(err, PD_ENOMEM, "%s: out of memory", set->path);
    pd_status status = PD_OK;
    for (size_t i = 0; i < r->n_anns; i++) {
        const ptrdiff_t at = find(image_ids, r->n_images, r->anns[i].image_id);
        image_of[i] = at < 0 ? UINT32_MAX : (uint32_t)at;
        if (at < 0)
            set->no_image++;
        else
            set->images[at].n++;
    }
    set->n_anns = r->n_anns - set->no_image;
    PD_TRY_DONE(PD_ALLOC(&set->anns, arena, set->n_anns, err));
    for (size_t i = 0, first = 0; i < set->n_images; i++) {
        set->images[i].first = first;
        first += set->images[i].n;
        set->images[i].n = 0;
    }
    for (size_t i = 0; i < r->n_anns; i++) {
        if (image_of[i] == UINT32_MAX) continue;
        const annotation_record *a = &r->anns[i];
        pd_coco_photo *image = &set->images[image_of[i]];
        const int label = (int)find(category_ids, r->n_categories, a->category_id);
        const pd_coco_use use = use_of(a, image, label);
        set->anns[image->first + image->n++] =
            (pd_coco_ann){{(float)a->x, (float)a->y, (float)(a->x + a->w), (float)(a->y + a->h)}, label, (uint8_t)use};
        set->counts[use]++;
        if (use == PD_COCO_GT && ++image->n_gt > set->max_gt) set->max_gt = image->n_gt;
    }
done:
    free(image_of);
    return status;
}

static pd_status build(pd_coco *set, records *r, const char *path, char *const *classes, int n_classes, pd_arena *arena,
                       pd_err *err)
{
    if (r->n_images > INT32_MAX || r->n_categories > INT32_MAX || r->n_anns > UINT32_MAX - 1)
        return PD_FAIL(err, PD_EFORMAT, "%s: more than 2^31 images or categories, or 2^32 annotations", path);
    char *path_copy, *names;
    PD_TRY(pd_strdup(&path_copy, arena, path, err));
    set->path = path_copy;
    PD_TRY(PD_ALLOC(&names, arena, r->names_size, err));
    memcpy(names, r->names, r->names_size);
    id_at *image_ids = malloc(r->n_images * sizeof *image_ids),
          *category_ids = malloc(r->n_categories * sizeof *image_ids);
    pd_status status = PD_OK;
    if (!image_ids || !category_ids) {
        status = PD_FAIL(err, PD_ENOMEM, "%s: out of memory", path);
        goto done;
    }
    PD_TRY_DONE(build_images(set, image_ids, r, names, arena, err));
    PD_TRY_DONE(build_classes(set, category_ids, r, names, classes, n_classes, path, arena, err));
    PD_TRY_DONE(build_anns(set, image_ids, category_ids, r, arena, err));
done:
    free(image_ids);
    free(category_ids);
    return status;
}

pd_status pd_coco_open(pd_coco *out, const char *path, char *const *classes, int n_classes, pd_arena *arena,
                       pd_err *err)
{
    pd_bytes file;
    PD_TRY(pd_file_map(&file, path, err));
    pd_coco set = {0};
    records r = {0};
    pd_status status = read_file(&r, file, path, err);
    if (status == PD_OK) status = build(&set, &r, path, classes, n_classes, arena, err);
    if (status == PD_OK) *out = set;
    free(r.images);
    free(r.categories);
    free(r.anns);
    free(r.names);
    pd_file_unmap(&file);
    return status;
}

/* ---- questions ---- */

ptrdiff_t pd_coco_find(const pd_coco *set, int64_t image_id)
{
    size_t low = 0, high = set->n_images;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (set->images[set->by_id[middle]].id < image_id)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == set->n_images || set->images[set->by_id[low]].id != image_id) return -1;
    return (ptrdiff_t)set->by_id[low];
}

pd_status pd_coco_train_images(uint32_t **out, size_t *n, const pd_coco *set, int min_side, bool keep_empty,
                               pd_arena *arena, pd_err *err)
{
    uint32_t *list;
    size_t count = 0;
    PD_TRY(PD_ALLOC(&list, arena, set->n_images, err));
    for (size_t i = 0; i < set->n_images; i++) {
        const pd_coco_photo *image = &set->images[i];
        bool wanted = keep_empty;
        for (size_t k = 0; k < image->n && !wanted; k++) wanted = set->anns[image->first + k].label >= 0;
        if (wanted && image->w >= min_side && image->h >= min_side) list[count++] = (uint32_t)i;
    }
    *out = list;
    *n = count;
    return PD_OK;
}

pd_status pd_coco_summary(char **text, const pd_coco *set, pd_arena *arena, pd_err *err)
{
    static const struct {
        pd_coco_use use;
        const char *what;
    } dropped[] = {{PD_COCO_IGNORED, "marked ignore"},
                   {PD_COCO_OUTSIDE, "outside of their image"},
                   {PD_COCO_TINY, "below 1 pixel"},
                   {PD_COCO_NO_CLASS, "of other categories"}};
    char line[512];
    int at =
        snprintf(line, sizeof line, "%zu images, %d classes, %zu annotations: %zu boxes, %zu crowds", set->n_images,
                 set->n_classes, set->n_anns + set->no_image, set->counts[PD_COCO_GT], set->counts[PD_COCO_CROWD]);
    const char *join = "; left out: ";
    for (int i = 0; i < 4; i++) {
        if (set->counts[dropped[i].use] == 0) continue;
        at += snprintf(line + at, sizeof line - (size_t)at, "%s%zu %s", join, set->counts[dropped[i].use],
                       dropped[i].what);
        join = ", ";
    }
    if (set->no_image) snprintf(line + at, sizeof line - (size_t)at, "%s%zu of unknown images", join, set->no_image);
    return pd_strdup(text, arena, line, err);
}
