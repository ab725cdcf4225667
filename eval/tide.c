#include "eval/tide.h"

#include "eval/image_pass.h"

#include <math.h>
#include <stdlib.h>

#define LIMIT 100 /* detections of an image, as tidecv's COCO reader sets it */
#define NO_DET SIZE_MAX

/* A detection that was looked at. */
typedef struct {
    double score;
    uint32_t category;
    bool used;    /* matched */
    bool ignored; /* lies in a crowd of its category: in no list */
    bool error;
    uint8_t type;    /* pd_tide_error */
    uint32_t object; /* Cls, Loc: the object meant, by place; PD_COCO_NONE: it is taken */
} verdict;

/* An object: what the detections make of it. */
typedef struct {
    bool used, usable;
    double best_score;
    size_t best; /* slot of the best detection that would find it if mended */
} fate;

typedef struct {
    const pd_coco_prepared *p;
    double foreground, background;
    verdict *verdicts;  /* (items) by slot; slots beyond an image's limit have used = ignored = error = false */
    unsigned char *met; /* (items) the slot holds a detection */
    fate *fates;        /* (objects) */
} tide;

const char *pd_tide_name(pd_tide_error error)
{
    static const char *const names[] = {"Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"};
    return names[error];
}

/* ---- one image ---- */

static const pd_coco_object *object_of(const tide *work, const pd_image_cell *cell, size_t g)
{
    return &work->p->gt->objects[cell->objects[g].object];
}

static bool is_crowd(const tide *work, const pd_image_cell *cell, size_t g)
{
    return pd_match_always_ignored(object_of(work, cell, g), &work->p->params);
}

/* Detections take, best first, the free object of their category that they overlap most; the first of equals. */
static void match_image(tide *work, const pd_image_cell *cell)
{
    fate *const fates = work->fates + cell->first_object;
    for (size_t i = 0; i < cell->n; i++) {
        verdict *const v = &work->verdicts[cell->first_slot + i];
        *v = (verdict){.score = cell->items[i]->score, .category = cell->items[i]->category, .object = PD_COCO_NONE};
        work->met[cell->first_slot + i] = 1;
        size_t best = cell->m;
        double most = 0;
        for (size_t g = 0; g < cell->m; g++) {
            if (is_crowd(work, cell, g) || fates[g].used || object_of(work, cell, g)->category != v->category) continue;
            if (cell->overlaps[i * cell->m + g] > most) {
                most = cell->overlaps[i * cell->m + g];
                best = g;
            }
        }
        if (best < cell->m && most >= work->foreground) v->used = fates[best].used = true;
    }
    for (size_t g = 0; g < cell->m; g++) {
        if (!is_crowd(work, cell, g)) continue;
        for (size_t i = 0; i < cell->n; i++) {
            verdict *const v = &work->verdicts[cell->first_slot + i];
            if (!v->used && cell->overlaps[i * cell->m + g] > work->foreground &&
                object_of(work, cell, g)->category == v->category)
                v->ignored = true;
        }
    }
}

/* What a detection without object did wrong. */
typedef struct {
    double same, other, taken; /* highest overlaps: with its category, another one, a taken object of its category */
    size_t same_at, other_at;
    bool any; /* the image has an object to be found */
} closest;

static closest find_closest(const tide *work, const pd_image_cell *cell, size_t i, const fate *fates)
{
    closest c = {0, 0, 0, 0, 0, false};
    const uint32_t category = cell->items[i]->category;
    for (size_t g = 0; g < cell->m; g++) {
        if (is_crowd(work, cell, g)) continue;
        c.any = true;
        const double overlap = cell->overlaps[i * cell->m + g];
        if (object_of(work, cell, g)->category != category) {
            if (overlap > c.other) c.other = overlap, c.other_at = g;
            continue;
        }
        if (overlap > c.same) c.same = overlap, c.same_at = g;
        if (fates[g].used && overlap > c.taken) c.taken = overlap;
    }
    return c;
}

/* The detection would find object g if mended; the best such detection is chosen, the first of equals. */
static void claim(fate *object, verdict *v, size_t slot, size_t place)
{
    if (object->used) return;
    v->object = (uint32_t)place;
    object->usable = true;
    if (object->best_score < v->score) {
        object->best_score = v->score;
        object->best = slot;
    }
}

static void judge(tide *work, const pd_image_cell *cell, size_t i)
{
    fate *const fates = work->fates + cell->first_object;
    const size_t slot = cell->first_slot + i;
    verdict *const v = &work->verdicts[slot];
    if (v->used) return;
    v->error = true;
    const closest c = find_closest(work, cell, i, fates);
    const double most = c.same > c.other ? c.same : c.other;
    if (!c.any) {
        v->type = PD_TIDE_BKG;
    } else if (work->background <= c.same && c.same <= work->foreground) {
        v->type = PD_TIDE_LOC;
        claim(&fates[c.same_at], v, slot, cell->first_object + c.same_at);
    } else if (c.other >= work->foreground) {
        v->type = PD_TIDE_CLS;
        claim(&fates[c.other_at], v, slot, cell->first_object + c.other_at);
    } else if (c.taken >= work->foreground) {
        v->type = PD_TIDE_DUPE;
    } else {
        v->type = most <= work->background ? PD_TIDE_BKG : PD_TIDE_BOTH;
    }
}

static void visit(void *arg, const pd_image_cell *cell, int thread)
{
    (void)thread;
    tide *const work = arg;
    match_image(work, cell);
    for (size_t i = 0; i < cell->n; i++) judge(work, cell, i);
}

/* ---- AP with errors mended ---- */

/* A detection in the list of a category. */
typedef struct {
    double score;
    size_t order; /* of equal scores the lower one comes first */
    uint32_t category;
    bool hit;
} listed;

typedef enum { AS_IS = PD_TIDE_ERRORS, FALSE_POSITIVES, FALSE_NEGATIVES, VARIANTS } variant;

typedef struct {
    const tide *work;
    size_t n_categories;
    double ap[VARIANTS];
    pd_status status[VARIANTS];
} mending;

static int compare_listed(const void *a, const void *b)
{
    const listed *const x = a, *const y = b;
    if (x->category != y->category) return x->category < y->category ? -1 : 1;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return (x->order > y->order) - (x->order < y->order);
}

/* The list of all categories under a variant. tidecv lists errors before hits once something is mended, which shows
 * where scores are equal. */
static size_t make_list(listed *list, const tide *work, size_t n_slots, int how)
{
    size_t n = 0;
    for (size_t slot = 0; slot < n_slots; slot++) {
        const verdict *const v = &work->verdicts[slot];
        if (!work->met[slot]) continue;
        listed entry = {v->score, slot + (how != AS_IS && v->used ? n_slots : 0), v->category, v->used};
        bool present = !v->ignored;
        if (v->error && v->type == how) {
            const fate *const f = v->object == PD_COCO_NONE ? NULL : &work->fates[v->object];
            present = f && f->best == slot;
            if (present) entry.category = work->p->gt->objects[work->p->objects[v->object].object].category;
            entry.hit = true;
        }
        if (how == FALSE_POSITIVES) entry.score = entry.hit;
        if (present) list[n++] = entry;
    }
    return n;
}

/* tidecv's AP: 101 recalls i / 100, no epsilon. list is of one category. */
static double category_ap(const listed *list, size_t n, size_t objects, double *precision, double *recall)
{
    if (!objects) return 0;
    size_t tp = 0;
    for (size_t i = 0; i < n; i++) {
        tp += list[i].hit;
        precision[i] = (double)tp / (double)(i + 1);
        recall[i] = (double)tp / (double)objects;
    }
    for (size_t i = n; i-- > 1;)
        if (precision[i] > precision[i - 1]) precision[i - 1] = precision[i];
    double sum = 0;
    size_t at = 0;
    for (int r = 0; r <= 100; r++) {
        while (at < n && recall[at] < r / 100.0) at++;
        if (at < n) sum += precision[at];
    }
    return sum / 101;
}

static pd_status mend(mending *m, int how)
{
    const tide *const work = m->work;
    const pd_coco_prepared *const p = work->p;
    const size_t n_slots = p->item_start[1];
    pd_status status = PD_OK;
    listed *const list = malloc((n_slots + 1) * sizeof *list);
    double *const precision = malloc((2 * n_slots + 1) * sizeof *precision);
    size_t *const objects = calloc(m->n_categories + 1, sizeof *objects);
    if (!list || !precision || !objects) {
        status = PD_ENOMEM;
        goto done;
    }
    for (size_t i = 0; i < p->place_start[1]; i++) {
        const pd_coco_object *const o = &p->gt->objects[p->objects[i].object];
        if (pd_match_always_ignored(o, &p->params)) continue;
        const fate *const f = &work->fates[i];
        if (how == PD_TIDE_MISS && !f->used && !f->usable) continue;
        if (how == FALSE_NEGATIVES && !f->used) continue;
        objects[o->category]++;
    }
    const size_t n = make_list(list, work, n_slots, how);
    qsort(list, n, sizeof *list, compare_listed);
    double sum = 0;
    size_t categories = 0;
    for (size_t c = 0, begin = 0, end; c < m->n_categories; c++, begin = end) {
        for (end = begin; end < n && list[end].category == c;) end++;
        if (begin == end && !objects[c]) continue;
        sum += category_ap(list + begin, end - begin, objects[c], precision, precision + n_slots);
        categories++;
    }
    m->ap[how] = categories ? sum / (double)categories : 0;
done:
    free(list);
    free(precision);
    free(objects);
    return status;
}

static void mend_one(void *arg, size_t begin, size_t end, int thread)
{
    (void)end;
    (void)thread;
    mending *const m = arg;
    m->status[begin] = mend(m, (int)begin);
}

/* ---- all of it ---- */

static pd_status run(pd_tide *out, pd_coco_prepared *p, double foreground, double background, pd_err *err)
{
    tide work = {.p = p, .foreground = foreground, .background = background};
    const size_t n_slots = p->item_start[1], n_objects = p->place_start[1];
    PD_TRY(PD_ALLOC(&work.verdicts, p->memory, n_slots, err));
    PD_TRY(PD_ALLOC(&work.met, p->memory, n_slots, err));
    PD_TRY(PD_ALLOC(&work.fates, p->memory, n_objects, err));
    for (size_t i = 0; i < n_objects; i++) work.fates[i] = (fate){.best_score = -1, .best = NO_DET};
    const pd_image_pass pass = {.least = 0, .min_score = -INFINITY, .limit = LIMIT, .visit = visit, .arg = &work};
    PD_TRY(pd_coco_each_image(p, &pass, err));

    mending m = {.work = &work, .n_categories = p->gt->n_categories};
    pd_parallel_each(p->pool, VARIANTS, mend_one, &m);
    for (int i = 0; i < VARIANTS; i++)
        if (m.status[i] != PD_OK) return PD_FAIL(err, m.status[i], "out of memory: %zu detections", n_slots);
    pd_tide result = {.foreground = foreground, .background = background, .ap = m.ap[AS_IS]};
    for (int i = 0; i < PD_TIDE_ERRORS; i++) result.gain[i] = fmax(m.ap[i] - m.ap[AS_IS], 0);
    result.false_positives = m.ap[FALSE_POSITIVES] - m.ap[AS_IS];
    result.false_negatives = m.ap[FALSE_NEGATIVES] - m.ap[AS_IS];
    for (size_t i = 0; i < n_slots; i++)
        if (work.met[i] && work.verdicts[i].error) result.count[work.verdicts[i].type]++;
    for (size_t i = 0; i < n_objects; i++)
        result.count[PD_TIDE_MISS] += !work.fates[i].used && !work.fates[i].usable &&
                                      !pd_match_always_ignored(&p->gt->objects[p->objects[i].object], &p->params);
    *out = result;
    return PD_OK;
}

pd_status pd_tide_run(pd_tide *out, const pd_coco_gt *gt, const pd_coco_dt *dt, const pd_coco_params *params,
                      double foreground, double background, pd_pool *pool, pd_err *err)
{
    if (!(foreground > 0 && foreground <= 1) || !(background > 0 && background < foreground))
        return PD_FAIL(err, PD_EINVAL, "thresholds %g and %g; expected 0 < background < foreground <= 1", background,
                       foreground);
    if (params && params->type == PD_COCO_KEYPOINTS) return PD_FAIL(err, PD_EINVAL, "TIDE is for boxes and masks");
    pd_arena *const arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    pd_coco_prepared p;
    pd_status status = pd_coco_prepare(&p, gt, dt, params, PD_LAYOUT_IMAGES, pool, arena, err);
    if (status == PD_OK) status = run(out, &p, foreground, background, err);
    pd_coco_prepared_release(&p);
    pd_arena_free(arena);
    return status;
}
