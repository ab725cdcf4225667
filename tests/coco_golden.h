/* coco_golden.h: a pycocotools answer (expected.json, options.json as the golden cases have them) against ours: every
 * number by ==, the arrays by their SHA-256, the summary character by character. */
#ifndef PD_COCO_GOLDEN_H
#define PD_COCO_GOLDEN_H

#include "engine/json.h"
#include "eval/coco_ap.h"
#include "tests/pd_test.h"
#include "tests/sha256.h"

typedef struct {
    pd_arena *arena;
    pd_json_doc *options, *expected;
    pd_coco_params params;
} coco_case;

static const double *numbers(const pd_json *list, size_t *n, pd_arena *arena)
{
    double *out = NULL;
    pd_err err = PD_ERR_INIT;
    *n = pd_json_count(list);
    PD_CHECK_OK(PD_ALLOC(&out, arena, *n, &err));
    size_t i = 0;
    for (const pd_json *v = pd_json_first(list); v; v = pd_json_next(v)) out[i++] = pd_json_number(v);
    return out;
}

/* options: the object with max_dets and the like; type: iou_type. */
static void read_params(coco_case *c, const pd_json *root, const char *type)
{
    pd_err err = PD_ERR_INIT;
    const pd_json *v;
    c->params.type = *type == 'b' ? PD_COCO_BBOX : *type == 's' ? PD_COCO_SEGM : PD_COCO_KEYPOINTS;
    c->params.keep = PD_COCO_KEEP_ARRAYS;
    if ((v = pd_json_member(root, "use_cats"))) c->params.no_categories = pd_json_number(v) == 0;
    if ((v = pd_json_member(root, "iou_thrs"))) c->params.iou_thrs = numbers(v, &c->params.n_iou, c->arena);
    if ((v = pd_json_member(root, "max_dets"))) {
        size_t n, *limits = NULL;
        const double *const values = numbers(v, &n, c->arena);
        PD_CHECK_OK(PD_ALLOC(&limits, c->arena, n, &err));
        for (size_t i = 0; i < n; i++) limits[i] = (size_t)values[i];
        c->params.limits = limits;
        c->params.n_limits = n;
    }
    if ((v = pd_json_member(root, "area_rngs"))) {
        pd_coco_range *areas = NULL;
        const size_t n = pd_json_count(v);
        PD_CHECK_OK(PD_ALLOC(&areas, c->arena, n, &err));
        size_t i = 0;
        for (const pd_json *pair = pd_json_first(v); pair; pair = pd_json_next(pair), i++) {
            areas[i].low = pd_json_number(pd_json_first(pair));
            areas[i].high = pd_json_number(pd_json_next(pd_json_first(pair)));
        }
        c->params.areas = areas;
        c->params.n_areas = n;
    }
}

static void check_sum(const pd_json *sums, const char *name, const pd_coco_result *r,
                      double (*get)(const pd_coco_result *, size_t, size_t, size_t, size_t, size_t))
{
    sha256 h;
    char got[65];
    sha256_begin(&h);
    const size_t R = get ? r->n_recall : 1;
    for (size_t t = 0; t < r->n_iou; t++)
        for (size_t rec = 0; rec < R; rec++)
            for (size_t k = 0; k < r->n_categories; k++)
                for (size_t a = 0; a < r->n_areas; a++)
                    for (size_t m = 0; m < r->n_limits; m++) {
                        const double v = get ? get(r, t, rec, k, a, m) : pd_coco_recall(r, t, k, a, m);
                        sha256_add(&h, &v, sizeof v);
                    }
    sha256_end(&h, got);
    const char *const want = pd_json_string(pd_json_member(sums, name));
    PD_CHECK_MSG(!strcmp(got, want), "the %s array has SHA-256 %.12s..., expected %.12s...", name, got, want);
}

/* Bit for bit (a NaN equals a NaN). */
static void check_equal(const char *name, double got, double want)
{
    PD_CHECK_MSG(got == want || (isnan(got) && isnan(want)), "%s is %.17g, expected %.17g", name, got, want);
}

static void check_result(const coco_case *c, const pd_coco_result *r)
{
    const pd_json *const root = pd_json_root(c->expected), *v = pd_json_first(pd_json_member(root, "stats"));
    const pd_json *name = pd_json_first(pd_json_member(root, "names"));
    const pd_json *line = pd_json_first(pd_json_member(root, "summary"));
    PD_CHECK_INT(pd_json_count(pd_json_member(root, "stats")), r->n_stats);
    for (int i = 0; v && i < r->n_stats; i++) {
        PD_CHECK_STR(r->names[i], pd_json_string(name));
        PD_CHECK_STR(r->lines[i], pd_json_string(line));
        check_equal(r->names[i], r->stats[i], pd_json_number(v));
        v = pd_json_next(v);
        name = pd_json_next(name);
        line = pd_json_next(line);
    }
    const size_t counts[] = {r->n_iou, r->n_recall, r->n_categories, r->n_areas, r->n_limits};
    const pd_json *count = pd_json_first(pd_json_member(root, "counts"));
    for (size_t i = 0; i < 5 && count; i++, count = pd_json_next(count)) PD_CHECK_INT(counts[i], pd_json_number(count));
    const pd_json *const sums = pd_json_member(root, "sha256");
    if (sums) {
        check_sum(sums, "precision", r, pd_coco_precision);
        check_sum(sums, "recall", r, NULL);
        check_sum(sums, "scores", r, pd_coco_score);
    }
    size_t k = 0;
    for (const pd_json *row = pd_json_first(pd_json_member(root, "per_category")); row; row = pd_json_next(row), k++) {
        if (k >= r->n_categories) break;
        const pd_coco_category_ap *const ap = &r->categories[k];
        const double id = ap->id.kind == PD_COCO_ID_REAL ? ap->id.real : (double)ap->id.whole;
        check_equal("category_id", id, pd_json_number(pd_json_member(row, "category_id")));
        check_equal("category AP", ap->ap, pd_json_number(pd_json_member(row, "AP")));
        check_equal("category AP50", ap->ap50, pd_json_number(pd_json_member(row, "AP50")));
        check_equal("category AP75", ap->ap75, pd_json_number(pd_json_member(row, "AP75")));
        check_equal("category AR", ap->ar, pd_json_number(pd_json_member(row, "AR")));
    }
    PD_CHECK_INT(k, pd_json_member(root, "per_category") ? r->n_categories : 0);
}

static unsigned reads(pd_coco_type type)
{
    return type == PD_COCO_SEGM ? PD_COCO_READ_MASKS : type == PD_COCO_KEYPOINTS ? PD_COCO_READ_KEYPOINTS : 0;
}

static pd_status evaluate(pd_coco_result **r, const char *gt_path, const char *dt_path, const pd_coco_params *params,
                          pd_pool *pool, pd_err *err)
{
    pd_coco_gt *gt = NULL;
    pd_coco_dt *dt = NULL;
    const pd_coco_gt_options gt_options = {.read = reads(params->type)};
    const pd_coco_dt_options dt_options = {.read = reads(params->type)};
    pd_status status = pd_coco_gt_open(&gt, gt_path, &gt_options, pool, err);
    if (status == PD_OK) status = pd_coco_dt_open(&dt, gt, dt_path, &dt_options, pool, err);
    if (status == PD_OK) status = pd_coco_evaluate(r, gt, dt, params, pool, err);
    pd_coco_dt_close(dt);
    pd_coco_gt_close(gt);
    return status;
}

#endif
