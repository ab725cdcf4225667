#include "eval/match.h"

#include "eval/overlap.h"

#include <math.h>
#include <stdlib.h>

/* An object that a detection may match at some threshold. */
typedef struct pd_match_candidate {
    double overlap;
    uint32_t object; /* index in the cell */
    uint32_t pass;   /* bit t: the overlap reaches threshold t */
} candidate;

void pd_match_scratch_free(pd_match_scratch *s)
{
    free(s->keys);
    free(s->overlaps);
    free(s->used);
    free(s->candidates);
    free(s->runs.ends);
    pd_mask_work_free(&s->work);
    free(s->boundary.ends);
    pd_boundary_work_free(&s->boundary_work);
}

bool pd_match_fail(pd_match_scratch *s, const pd_err *err)
{
    if (s->err.code == PD_OK || s->cell < s->fault_cell) {
        s->err = *err;
        s->fault_cell = s->cell;
    }
    return false;
}

uint64_t pd_score_key(double score)
{
    if (score != score) return UINT64_MAX;
    uint64_t bits;
    score = score == 0 ? 0.0 : score;
    memcpy(&bits, &score, sizeof bits);
    /* As an integer a double sorts by size if negative ones are flipped; then all are flipped for falling order. */
    return (bits >> 63) ? bits : ~(bits | 1ull << 63);
}

/* Stable order by score: insertion while cells are small, merging of runs above. */
static void sort_by_key(uint32_t *order, const uint64_t *keys, size_t n, uint32_t *spare)
{
    const size_t run = 16;
    for (size_t begin = 0; begin < n; begin += run) {
        const size_t end = begin + run < n ? begin + run : n;
        for (size_t i = begin; i < end; i++) {
            size_t at = i;
            for (; at > begin && keys[order[at - 1]] > keys[i]; at--) order[at] = order[at - 1];
            order[at] = (uint32_t)i;
        }
    }
    uint32_t *from = order, *to = spare;
    for (size_t width = run; width < n; width *= 2) {
        for (size_t begin = 0; begin < n; begin += 2 * width) {
            const size_t middle = begin + width < n ? begin + width : n;
            const size_t end = begin + 2 * width < n ? begin + 2 * width : n;
            size_t a = begin, b = middle;
            for (size_t i = begin; i < end; i++) {
                const bool left = a < middle && (b >= end || keys[from[a]] <= keys[from[b]]);
                to[i] = left ? from[a++] : from[b++];
            }
        }
        uint32_t *const swap = from;
        from = to;
        to = swap;
    }
    if (from != order) memcpy(order, from, n * sizeof *order);
}

bool pd_coco_listed_by_image(const pd_coco_id_lists *lists, uint32_t image, uint32_t category)
{
    if (!lists->start) return false;
    for (size_t i = lists->start[image]; i < lists->start[image + 1]; i++)
        if (lists->items[i] == category) return true;
    return false;
}

static bool reserve(pd_match_scratch *s, const pd_match_setup *setup, size_t n, size_t m)
{
    pd_err err = PD_ERR_INIT;
    const size_t cells = m * setup->n_areas;
    if (pd_grow(&s->keys, &s->keys_capacity, n + n / 2 + 1, sizeof *s->keys, &err) == PD_OK &&
        pd_grow(&s->overlaps, &s->overlaps_capacity, m, sizeof *s->overlaps, &err) == PD_OK &&
        pd_grow(&s->candidates, &s->candidates_capacity, m, sizeof *s->candidates, &err) == PD_OK)
        pd_grow(&s->used, &s->used_capacity, cells, sizeof *s->used, &err);
    return err.code == PD_OK || pd_match_fail(s, &err);
}

/* Candidates of a detection, best first; of equal overlaps the later object first. *any_nan: the rule for NaN is
 * wanted. */
static size_t find_candidates(candidate *list, const pd_match_setup *setup, const double *overlaps, size_t m,
                              bool *any_nan)
{
    size_t n = 0;
    *any_nan = false;
    for (size_t g = 0; g < m; g++) {
        const double overlap = overlaps[g];
        if (overlap != overlap) *any_nan = true;
        if (!(overlap >= setup->least)) continue;
        candidate c = {overlap, (uint32_t)g, 0};
        for (size_t t = 0; t < setup->n_thresholds; t++)
            c.pass |= (uint32_t)(overlap >= pd_match_floor(setup->thresholds[t])) << t;
        size_t at = n++;
        for (; at > 0 && list[at - 1].overlap <= overlap; at--) list[at] = list[at - 1];
        list[at] = c;
    }
    return n;
}

/* One detection and area range, all thresholds: a set bit of `open` is a threshold still without a match. ignore and
 * used are strided by the number of areas. */
static pd_match take(const candidate *list, size_t n, const pd_match_object *objects, const uint8_t *ignore,
                     uint32_t *used, size_t stride, uint32_t open)
{
    pd_match fate = {0, 0};
    for (uint8_t phase = 0; phase < 2; phase++) {
        for (size_t i = 0; i < n && open; i++) {
            const uint32_t g = list[i].object;
            if (ignore[g * stride] != phase) continue;
            const uint32_t free_bits = objects[g].crowd_overlap ? UINT32_MAX : ~used[g * stride];
            const uint32_t taken = list[i].pass & open & free_bits;
            open &= ~taken;
            used[g * stride] |= taken;
            if (!objects[g].id_zero) fate.matched |= taken;
            if (phase) fate.ignored |= taken;
        }
    }
    return fate;
}

/* The rule word by word, for detections with a NaN among their overlaps. */
static pd_match take_literally(const pd_match_setup *setup, const double *overlaps, size_t m,
                               const pd_match_object *objects, const uint8_t *ignore, uint32_t *used, size_t stride)
{
    pd_match fate = {0, 0};
    for (size_t t = 0; t < setup->n_thresholds; t++) {
        const uint32_t bit = 1u << t;
        double best = pd_match_floor(setup->thresholds[t]);
        size_t match = SIZE_MAX;
        for (size_t i = 0; i < 2 * m; i++) {
            const size_t g = i % m;
            if (ignore[g * stride] != i / m) continue; /* first all to be found, then all ignored */
            if ((used[g * stride] & bit) && !objects[g].crowd_overlap) continue;
            if (match != SIZE_MAX && !ignore[match * stride] && ignore[g * stride]) break;
            if (overlaps[g] < best) continue;
            best = overlaps[g];
            match = g;
        }
        if (match == SIZE_MAX) continue;
        used[match * stride] |= bit;
        if (!objects[match].id_zero) fate.matched |= bit;
        if (ignore[match * stride]) fate.ignored |= bit;
    }
    return fate;
}

size_t pd_match_cell(pd_match_scratch *s, const pd_match_setup *setup, const pd_coco_item *const *items, size_t n,
                     const pd_match_object *objects, const uint8_t *ignore, size_t m, uint32_t *order,
                     pd_match *matches)
{
    if (!reserve(s, setup, n, m)) return 0;
    for (size_t i = 0; i < n; i++) s->keys[i] = pd_score_key(items[i]->score);
    sort_by_key(order, s->keys, n, (uint32_t *)(s->keys + n));
    const size_t kept = n < setup->limit ? n : setup->limit, A = setup->n_areas;
    const uint32_t all = setup->n_thresholds < 32 ? (1u << setup->n_thresholds) - 1 : UINT32_MAX;
    const bool compare = m > 0 && !setup->no_overlaps;
    const bool forgive = setup->lvis && n > 0 &&
                         pd_coco_listed_by_image(&setup->gt->not_exhaustive, items[0]->image, items[0]->category);
    if (compare) memset(s->used, 0, m * A * sizeof *s->used);

    for (size_t i = 0; i < kept; i++) {
        const pd_coco_item *const item = items[order[i]];
        size_t n_candidates = 0;
        bool any_nan = false;
        if (compare) {
            if (!pd_overlaps(s, setup, item, objects, m)) return 0;
            n_candidates = find_candidates(s->candidates, setup, s->overlaps, m, &any_nan);
            if (any_nan) { /* behind a NaN low overlaps count too: none may be left out */
                pd_match_setup exact = *setup;
                exact.least = -INFINITY;
                if (!pd_overlaps(s, &exact, item, objects, m)) return 0;
            }
        }
        const double area = pd_coco_item_area(setup->dt, item);
        for (size_t a = 0; a < A; a++) {
            pd_match fate = {0, 0};
            if (any_nan)
                fate = take_literally(setup, s->overlaps, m, objects, ignore + a, s->used + a, A);
            else if (n_candidates)
                fate = take(s->candidates, n_candidates, objects, ignore + a, s->used + a, A, all);
            if (forgive || area < setup->areas[a].low || area > setup->areas[a].high)
                fate.ignored |= all & ~fate.matched;
            matches[i * A + a] = fate;
        }
    }
    return kept;
}
