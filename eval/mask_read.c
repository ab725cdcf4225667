#include "eval/mask.h"

static bool no_memory(pd_js *j, const pd_err *err)
{
    return pd_js_fail_with(j, err);
}

/* One polygon's numbers into work->xy; *n of them. *fault for what is no coordinate. */
static bool read_numbers(pd_js *j, pd_mask_work *work, size_t *n, const char **fault)
{
    *n = 0;
    if (pd_js_peek(j) != PD_JS_ARRAY) {
        *fault = "segmentation is neither polygons nor run lengths";
        return pd_js_skip(j);
    }
    pd_err err = PD_ERR_INIT;
    pd_js_array(j);
    while (pd_js_item(j)) {
        if (pd_grow(&work->xy, &work->xy_capacity, *n + 1, sizeof *work->xy, &err) != PD_OK) return no_memory(j, &err);
        double *const value = &work->xy[*n];
        if (pd_js_peek(j) != PD_JS_NUMBER) {
            *fault = "a polygon holds something that is no number";
            pd_js_skip(j);
        } else if (pd_js_double(j, value) && !(*value >= -PD_MASK_FARTHEST && *value <= PD_MASK_FARTHEST)) {
            *fault = "a polygon's coordinate is not finite or far outside of the image";
        } else {
            ++*n;
        }
    }
    return j->err.code == PD_OK;
}

/* Moves a mask whose ends are in a work buffer to the arena. */
static pd_status keep(pd_mask *mask, const uint32_t *ends, pd_arena *arena, pd_err *err)
{
    uint32_t *copy;
    PD_TRY(PD_ALLOC(&copy, arena, mask->n, err));
    if (mask->n) memcpy(copy, ends, mask->n * sizeof *copy); /* "counts": [] has no runs at all */
    mask->ends = copy;
    return PD_OK;
}

static bool read_polygons(pd_mask *mask, pd_js *j, double h, double w, pd_mask_work *work, pd_arena *arena,
                          const char **fault)
{
    pd_err err = PD_ERR_INIT;
    pd_mask all = {0};
    size_t polygons = 0;
    pd_js_array(j);
    for (size_t n; pd_js_item(j); polygons++) {
        if (!read_numbers(j, work, &n, fault)) return false;
        if (polygons == 0 && n <= 4 && !*fault) *fault = "the first polygon has less than three points";
        if (*fault) continue;
        pd_mask one = {.ends = work->part};
        if (pd_mask_polygon(&one, &work->part_capacity, work->xy, n / 2, (uint32_t)h, (uint32_t)w, work, &err) != PD_OK)
            return no_memory(j, &err);
        work->part = one.ends;
        if (polygons == 0) {
            all = one;
            if (keep(&all, one.ends, arena, &err) != PD_OK) return no_memory(j, &err);
            continue;
        }
        if (pd_grow(&work->joined, &work->joined_capacity, (size_t)all.n + one.n + 1, sizeof *work->joined, &err) !=
            PD_OK)
            return no_memory(j, &err);
        all.n = pd_mask_unite(work->joined, &all, &one);
        if (keep(&all, work->joined, arena, &err) != PD_OK) return no_memory(j, &err);
    }
    if (j->err.code != PD_OK) return false;
    if (!polygons) *fault = "segmentation is empty";
    if (*fault) return true;
    pd_mask_finish(&all);
    *mask = all;
    return true;
}

/* "size": [h, w]. */
static bool read_size(pd_js *j, uint32_t size[2], const char **fault)
{
    double v[3] = {0};
    size_t n = 0;
    bool good = pd_js_peek(j) == PD_JS_ARRAY;
    if (!good) {
        pd_js_skip(j);
    } else {
        pd_js_array(j);
        for (; pd_js_item(j); n++) {
            if (pd_js_peek(j) != PD_JS_NUMBER || n >= 2) {
                good = false;
                pd_js_skip(j);
            } else {
                pd_js_double(j, &v[n]);
            }
        }
    }
    for (size_t i = 0; i < 2; i++) {
        good = good && v[i] >= 0 && v[i] <= PD_MASK_PIXELS && v[i] == (double)(uint32_t)v[i];
        size[i] = good ? (uint32_t)v[i] : 0;
    }
    if (!good || n != 2 || (uint64_t)size[0] * size[1] > PD_MASK_PIXELS) *fault = "size is not [height, width]";
    return j->err.code == PD_OK;
}

/* Plain run lengths into work->part as ends; *n of them. Sizes are checked later: keys come in any order. */
static bool read_runs(pd_js *j, pd_mask_work *work, size_t *n, const char **fault)
{
    pd_err err = PD_ERR_INIT;
    uint64_t total = 0;
    *n = 0;
    pd_js_array(j);
    while (pd_js_item(j)) {
        double v = -1;
        if (pd_js_peek(j) == PD_JS_NUMBER)
            pd_js_double(j, &v);
        else
            pd_js_skip(j);
        const bool good = v >= 0 && v <= PD_MASK_PIXELS && v == (double)(uint32_t)v;
        if (good) total += (uint32_t)v;
        if (!good || total > PD_MASK_PIXELS) {
            *fault = "counts hold something that is no run length";
            total = 0;
            continue;
        }
        if (pd_grow(&work->part, &work->part_capacity, *n + 1, sizeof *work->part, &err) != PD_OK)
            return no_memory(j, &err);
        work->part[(*n)++] = (uint32_t)total;
    }
    return j->err.code == PD_OK;
}

/* {"size": [h, w], "counts": text or list}. */
static bool read_run_lengths(pd_mask *mask, pd_rle_text *text_out, pd_js *j, pd_mask_work *work, pd_arena *arena,
                             const char **fault)
{
    pd_err err = PD_ERR_INIT;
    uint32_t size[2] = {0, 0};
    bool has_size = false, has_text = false, has_runs = false;
    pd_js_text text = {0};
    size_t n = 0;
    pd_js_object(j);
    for (pd_js_text key; pd_js_key(j, &key);) {
        if (pd_js_is(key, "size")) {
            has_size = read_size(j, size, fault);
        } else if (pd_js_is(key, "counts")) {
            has_text = pd_js_peek(j) == PD_JS_STRING;
            has_runs = pd_js_peek(j) == PD_JS_ARRAY;
            if (has_text)
                pd_js_string(j, &text);
            else if (has_runs)
                read_runs(j, work, &n, fault);
            else
                pd_js_skip(j);
        } else {
            pd_js_skip(j);
        }
    }
    if (j->err.code != PD_OK) return false;
    if (!*fault && !has_size) *fault = "segmentation has no size";
    if (!*fault && !has_text && !has_runs) *fault = "segmentation has no counts (text, or a list of run lengths)";
    if (*fault) return true;
    if (has_runs) {
        if (n && work->part[n - 1] > size[0] * size[1]) {
            *fault = "counts hold more pixels than size";
            return true;
        }
        *mask = (pd_mask){.h = size[0], .w = size[1], .n = (uint32_t)n};
        if (keep(mask, work->part, arena, &err) != PD_OK) return no_memory(j, &err);
        pd_mask_finish(mask);
        return true;
    }
    char *copy;
    if (PD_ALLOC(&copy, arena, text.size + 1, &err) != PD_OK) return no_memory(j, &err);
    pd_rle_text packed;
    *fault = pd_rle_scan(&packed, copy, pd_js_decode(text, copy), size[0], size[1]);
    if (*fault) return true;
    if (text_out) {
        *text_out = packed;
        return true;
    }
    pd_mask unpacked = {.ends = work->part};
    if (pd_rle_unpack(&unpacked, &work->part_capacity, &packed, &err) != PD_OK) return no_memory(j, &err);
    work->part = unpacked.ends;
    *mask = unpacked;
    return keep(mask, work->part, arena, &err) == PD_OK || no_memory(j, &err);
}

bool pd_mask_read(pd_mask *mask, pd_rle_text *text, pd_js *j, double h, double w, pd_mask_work *work, pd_arena *arena,
                  const char **fault)
{
    *fault = NULL;
    switch (pd_js_peek(j)) {
    case PD_JS_OBJECT: return read_run_lengths(mask, text, j, work, arena, fault);
    case PD_JS_ARRAY: break;
    default: *fault = "segmentation is neither polygons nor run lengths"; return pd_js_skip(j);
    }
    if (pd_mask_check_polygon(NULL, 0, h, w)) {
        *fault = "its image has no usable width and height";
        return pd_js_skip(j);
    }
    return read_polygons(mask, j, h, w, work, arena, fault);
}
