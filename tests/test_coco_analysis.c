/* What is told beyond COCO's AP: LVIS and TIDE against the answers of lvis-api 0.5.3 and tidecv 1.0.1
 * (golden/lvis-eval, golden/tide), confusion against pycocotools' matches (golden/confusion) and, like curves, against
 * plain counting, resampling against its own definition.
 */
#include "engine/json.h"
#include "eval/bootstrap.h"
#include "eval/confusion.h"
#include "eval/curves.h"
#include "eval/tide.h"
#include "tests/pd_test.h"

typedef struct {
    pd_coco_gt *gt;
    pd_coco_dt *dt;
} files;

static files open_files(const char *folder, unsigned read)
{
    pd_err err = PD_ERR_INIT;
    files f = {0};
    char path[512];
    const pd_coco_gt_options gt_options = {.read = read};
    const pd_coco_dt_options dt_options = {.read = read};
    snprintf(path, sizeof path, "%s/%s/gt.json", PD_GOLDEN, folder);
    PD_CHECK_OK(pd_coco_gt_open(&f.gt, path, &gt_options, NULL, &err));
    snprintf(path, sizeof path, "%s/%s/dt.json", PD_GOLDEN, folder);
    PD_CHECK_OK(pd_coco_dt_open(&f.dt, f.gt, path, &dt_options, NULL, &err));
    return f;
}

static void close_files(files f)
{
    pd_coco_dt_close(f.dt);
    pd_coco_gt_close(f.gt);
}

static pd_coco_result *evaluate(files f, const pd_coco_params *params, int threads)
{
    pd_err err = PD_ERR_INIT;
    pd_pool *pool = NULL;
    pd_coco_result *r = NULL;
    PD_CHECK_OK(pd_pool_new(&pool, threads, &err));
    PD_CHECK_OK(pd_coco_evaluate(&r, f.gt, f.dt, params, pool, &err));
    pd_pool_free(pool);
    return r;
}

static pd_json_doc *read_golden(const char *name)
{
    pd_err err = PD_ERR_INIT;
    pd_json_doc *doc = NULL;
    char path[512];
    snprintf(path, sizeof path, "%s/%s", PD_GOLDEN, name);
    PD_CHECK_OK(pd_json_read(&doc, path, 0, &err));
    return doc;
}

static void test_lvis(void)
{
    for (int type = PD_COCO_BBOX; type <= PD_COCO_SEGM; type++) {
        PD_ROW(type == PD_COCO_BBOX ? "lvis bbox" : "lvis segm");
        const files f = open_files("lvis-eval", PD_COCO_READ_LVIS | PD_COCO_READ_MASKS);
        pd_json_doc *const doc =
            read_golden(type == PD_COCO_BBOX ? "lvis-eval/expected_bbox.json" : "lvis-eval/expected_segm.json");
        const pd_coco_params params = {.type = (pd_coco_type)type, .lvis = true};
        pd_coco_result *const r = evaluate(f, &params, 1 + 2 * type);
        const pd_json *const root = pd_json_root(doc), *stat = pd_json_first(pd_json_member(root, "stats"));
        const pd_json *name = pd_json_first(pd_json_member(root, "names")),
                      *line = pd_json_first(pd_json_member(root, "summary"));
        PD_CHECK_INT(r->n_stats, 13);
        for (int i = 0; i < r->n_stats && stat; i++) {
            PD_CHECK_STR(r->names[i], pd_json_string(name));
            PD_CHECK_STR(r->lines[i], pd_json_string(line));
            PD_CHECK_MSG(r->stats[i] == pd_json_number(stat), "%s is %.17g, expected %.17g", r->names[i], r->stats[i],
                         pd_json_number(stat));
            stat = pd_json_next(stat);
            name = pd_json_next(name);
            line = pd_json_next(line);
        }
        pd_json_close(doc);
        pd_coco_result_free(r);
        close_files(f);
    }
    PD_ROW("");
}

static void test_tide(void)
{
    pd_err err = PD_ERR_INIT;
    const files f = open_files("tide", PD_COCO_READ_MASKS);
    pd_json_doc *const doc = read_golden("tide/expected.json");
    const pd_json *const root = pd_json_root(doc);
    for (int threads = 1; threads <= 3; threads += 2) {
        pd_pool *pool = NULL;
        pd_tide t = {0};
        PD_CHECK_OK(pd_pool_new(&pool, threads, &err));
        PD_CHECK_OK(pd_tide_run(&t, f.gt, f.dt, NULL, 0.5, 0.1, pool, &err));
        PD_CHECK_NEAR(t.ap, pd_json_number(pd_json_member(root, "AP")), 1e-12);
        PD_CHECK_NEAR(t.false_positives, pd_json_number(pd_json_member(root, "FP")), 1e-12);
        PD_CHECK_NEAR(t.false_negatives, pd_json_number(pd_json_member(root, "FN")), 1e-12);
        for (int i = 0; i < PD_TIDE_ERRORS; i++) {
            const char *const name = pd_tide_name((pd_tide_error)i);
            PD_ROW(name);
            PD_CHECK_NEAR(t.gain[i], pd_json_number(pd_json_member(pd_json_member(root, "gain"), name)), 1e-12);
            PD_CHECK_INT(t.count[i], pd_json_number(pd_json_member(pd_json_member(root, "count"), name)));
        }
        PD_ROW("");
        PD_CHECK_FAILS(pd_tide_run(&t, f.gt, f.dt, NULL, 0.5, 0.5, pool, &err), PD_EINVAL, "thresholds 0.5 and 0.5");
        pd_pool_free(pool);
    }
    pd_json_close(doc);
    close_files(f);
}

/* The curves of one category, from scratch: its AP arrays know nothing of scores, so count on the golden set itself. */
static void test_curves(void)
{
    pd_err err = PD_ERR_INIT;
    const files f = open_files("coco-eval/bbox_many", 0);
    const pd_coco_params params = {.keep = PD_COCO_KEEP_MATCHES | PD_COCO_KEEP_ARRAYS};
    pd_coco_result *const r = evaluate(f, &params, 2);
    const double scores[] = {2, 0.9, 0.5, 0.25, 0, -1};
    pd_coco_point all[6] = {0}, sum[6] = {0}, best;
    PD_CHECK_OK(pd_coco_points(all, r, PD_COCO_ALL, 0, scores, 6, &err));
    for (size_t k = 0; k < r->n_categories; k++) {
        pd_coco_point points[6];
        PD_CHECK_OK(pd_coco_points(points, r, k, 0, scores, 6, &err));
        PD_CHECK_OK(pd_coco_best_f1(&best, r, k, 0, &err));
        for (int i = 0; i < 6; i++) {
            sum[i].tp += points[i].tp;
            sum[i].fp += points[i].fp;
            sum[i].objects += points[i].objects;
            PD_CHECK(best.f1 >= points[i].f1);
        }
        /* With every detection in, the recall is the array's. */
        if (points[5].objects) PD_CHECK(points[5].recall == pd_coco_recall(r, 0, k, 0, 2));
        pd_coco_point again;
        PD_CHECK_OK(pd_coco_points(&again, r, k, 0, &best.score, 1, &err));
        PD_CHECK(best.f1 == 0 || (again.f1 == best.f1 && again.tp == best.tp && again.fp == best.fp));
    }
    for (int i = 0; i < 6; i++) {
        PD_CHECK_INT(all[i].tp, sum[i].tp);
        PD_CHECK_INT(all[i].fp, sum[i].fp);
        PD_CHECK_INT(all[i].objects, sum[i].objects);
    }
    PD_CHECK(all[0].tp == 0 && all[0].fp == 0 && all[0].precision == 0);
    PD_CHECK(all[5].tp > 0 && all[5].fp > 0 && all[5].precision == (double)all[5].tp / (double)(all[5].tp + all[5].fp));
    PD_CHECK_FAILS(pd_coco_points(all, r, 1000, 0, scores, 6, &err), PD_EINVAL, "category 1000 of");
    PD_CHECK_FAILS(pd_coco_points(all, r, 0, 10, scores, 6, &err), PD_EINVAL, "IoU threshold 10 of 10");
    pd_coco_result_free(r);
    pd_coco_result *const plain = evaluate(f, NULL, 1);
    PD_CHECK_FAILS(pd_coco_best_f1(&best, plain, 0, 0, &err), PD_EINVAL, "PD_COCO_KEEP_MATCHES");
    pd_coco_result_free(plain);
    close_files(f);
}

static void test_confusion(void)
{
    static const char gt_text[] =
        "{\"images\": [{\"id\": 1}, {\"id\": 2}], \"categories\": [{\"id\": 5}, {\"id\": 3}], \"annotations\": ["
        "{\"id\": 1, \"image_id\": 1, \"category_id\": 3, \"bbox\": [0, 0, 10, 10], \"area\": 100, \"iscrowd\": 0},"
        "{\"id\": 2, \"image_id\": 1, \"category_id\": 5, \"bbox\": [50, 0, 10, 10], \"area\": 100, \"iscrowd\": 0},"
        "{\"id\": 3, \"image_id\": 1, \"category_id\": 5, \"bbox\": [200, 200, 90, 90], \"area\": 8100, \"iscrowd\": "
        "1},"
        "{\"id\": 4, \"image_id\": 2, \"category_id\": 5, \"bbox\": [0, 0, 10, 10], \"area\": 100, \"iscrowd\": 0}]}";
    static const char dt_text[] =
        "[{\"image_id\": 1, \"category_id\": 5, \"bbox\": [0, 0, 10, 9], \"score\": 0.9}," /* 3 taken for 5 */
        "{\"image_id\": 1, \"category_id\": 3, \"bbox\": [0, 0, 10, 10], \"score\": 0.8}," /* too late: background */
        "{\"image_id\": 1, \"category_id\": 5, \"bbox\": [50, 0, 10, 9], \"score\": 0.7}," /* right */
        "{\"image_id\": 1, \"category_id\": 5, \"bbox\": [210, 210, 20, 20], \"score\": 0.7}," /* in the crowd */
        "{\"image_id\": 1, \"category_id\": 3, \"bbox\": [220, 220, 20, 20], \"score\": 0.7}," /* in it too */
        "{\"image_id\": 2, \"category_id\": 5, \"bbox\": [0, 0, 10, 10], \"score\": 0.2}]";    /* below the score */
    static const size_t want[9] = {/* 3: */ 0, 1, 0, /* 5: */ 0, 1, 1, /* background: */ 1, 0, 0};
    pd_err err = PD_ERR_INIT;
    files f = {0};
    PD_CHECK_OK(pd_coco_gt_parse(&f.gt, (pd_bytes){(const unsigned char *)gt_text, sizeof gt_text - 1}, "gt", NULL,
                                 NULL, &err));
    PD_CHECK_OK(pd_coco_dt_parse(&f.dt, f.gt, (pd_bytes){(const unsigned char *)dt_text, sizeof dt_text - 1}, "dt",
                                 NULL, NULL, &err));
    pd_coco_confusion c = {0};
    PD_CHECK_OK(pd_coco_confuse(&c, f.gt, f.dt, NULL, 0.5, 0.3, NULL, &err));
    PD_CHECK_INT(c.n, 2);
    for (size_t i = 0; i < 9; i++)
        PD_CHECK_MSG(c.counts[i] == want[i], "[%zu][%zu] is %zu, expected %zu", i / 3, i % 3, c.counts[i], want[i]);
    free(c.counts);
    PD_CHECK_FAILS(pd_coco_confuse(&c, f.gt, f.dt, NULL, 0, 0.3, NULL, &err), PD_EINVAL, "an IoU of 0");
    close_files(f);
}

/* golden/confusion: counted from pycocotools 2.0.11's own matches (all categories made one, detections below the score
 * left out). Each of its cells, and no other, must be there. */
static void test_confusion_golden(void)
{
    pd_err err = PD_ERR_INIT;
    pd_json_doc *const doc = read_golden("confusion/expected.json");
    for (const pd_json *c = pd_json_first(pd_json_root(doc)); c; c = pd_json_next(c)) {
        char folder[128];
        snprintf(folder, sizeof folder, "coco-eval/%s", pd_json_string(pd_json_member(c, "case")));
        PD_ROW(folder);
        const bool masks = *pd_json_string(pd_json_member(c, "iou_type")) == 's';
        const files f = open_files(folder, masks ? PD_COCO_READ_MASKS : 0);
        const pd_coco_params params = {.type = masks ? PD_COCO_SEGM : PD_COCO_BBOX};
        pd_coco_confusion got = {0};
        pd_pool *pool = NULL;
        PD_CHECK_OK(pd_pool_new(&pool, 3, &err));
        PD_CHECK_OK(pd_coco_confuse(&got, f.gt, f.dt, &params, pd_json_number(pd_json_member(c, "iou")),
                                    pd_json_number(pd_json_member(c, "score")), pool, &err));
        PD_CHECK_INT(got.n, pd_json_number(pd_json_member(c, "categories")));
        size_t sum = 0, want_sum = 0;
        for (size_t i = 0; i < (got.n + 1) * (got.n + 1); i++) sum += got.counts[i];
        for (const pd_json *cell = pd_json_first(pd_json_member(c, "counts")); cell; cell = pd_json_next(cell)) {
            const pd_json *const row = pd_json_first(cell), *const column = pd_json_next(row);
            const size_t want = (size_t)pd_json_number(pd_json_next(column));
            const size_t at = (size_t)pd_json_number(row) * (got.n + 1) + (size_t)pd_json_number(column);
            PD_CHECK_MSG(got.counts[at] == want, "[%g][%g] is %zu, expected %zu", pd_json_number(row),
                         pd_json_number(column), got.counts[at], want);
            want_sum += want;
        }
        PD_CHECK_INT(sum, want_sum);
        free(got.counts);
        pd_pool_free(pool);
        close_files(f);
    }
    PD_ROW("");
    pd_json_close(doc);
}

static void test_bootstrap(void)
{
    pd_err err = PD_ERR_INIT;
    const files f = open_files("coco-eval/bbox_many", 0);
    const pd_coco_params params = {.keep = PD_COCO_KEEP_MATCHES};
    pd_coco_result *const r = evaluate(f, &params, 1);
    const double seventy[] = {0.5, 0.7};
    const pd_coco_params other_thresholds = {.keep = PD_COCO_KEEP_MATCHES, .iou_thrs = seventy, .n_iou = 2};
    pd_coco_result *const other = evaluate(f, &other_thresholds, 1);
    pd_coco_interval first[PD_COCO_METRICS] = {{0}}, again[PD_COCO_METRICS];
    pd_coco_difference difference[PD_COCO_METRICS];
    const pd_coco_bootstrap how = {300, 0.9, 42}, reseeded = {300, 0.9, 43};
    for (int threads = 1; threads <= 3; threads++) {
        pd_pool *pool = NULL;
        PD_CHECK_OK(pd_pool_new(&pool, threads, &err));
        PD_CHECK_OK(pd_coco_bootstrap_run(again, r, &how, pool, &err));
        if (threads > 1)
            PD_CHECK_INT(memcmp(first, again, sizeof first), 0);
        else
            memcpy(first, again, sizeof first);
        PD_CHECK_OK(pd_coco_bootstrap_run(again, r, &reseeded, pool, &err));
        PD_CHECK(first[0].low != again[0].low);
        PD_CHECK_OK(pd_coco_bootstrap_compare(difference, r, r, &how, pool, &err));
        PD_CHECK(difference[0].interval.value == 0 && difference[0].interval.low == 0 && difference[0].a_better == 0.5);
        pd_pool_free(pool);
    }
    for (int m = 0; m < PD_COCO_METRICS; m++) { /* stats 0, 1, 2 are AP, AP50, AP75 */
        PD_CHECK_NEAR(first[m].value, r->stats[m], 1e-12);
        PD_CHECK(first[m].low <= first[m].value && first[m].value <= first[m].high && first[m].low < first[m].high);
        PD_CHECK(first[m].error > 0 && fabs(first[m].mean - first[m].value) < 3 * first[m].error);
    }
    PD_CHECK_OK(pd_coco_bootstrap_run(again, other, &how, NULL, &err));
    PD_CHECK(again[PD_COCO_METRIC_AP75].value == -1 &&
             again[PD_COCO_METRIC_AP50].value == first[PD_COCO_METRIC_AP50].value);
    PD_CHECK_FAILS(pd_coco_bootstrap_compare(difference, r, other, &how, NULL, &err), PD_EINVAL, "not of the same");
    const pd_coco_bootstrap one = {1, 0.9, 0}, level = {10, 1, 0};
    PD_CHECK_FAILS(pd_coco_bootstrap_run(again, r, &one, NULL, &err), PD_EINVAL, "1 resamples");
    PD_CHECK_FAILS(pd_coco_bootstrap_run(again, r, &level, NULL, &err), PD_EINVAL, "a level of 1");
    pd_coco_result_free(r);
    pd_coco_result_free(other);
    close_files(f);
}

/* Boundary AP as faster-coco-eval 1.8.0 has it (its means differ in the last bit). */
static void test_boundary(void)
{
    static const double want[12] = {0.052148597089683876,
                                    0.15220384094610975,
                                    0.01826835430795827,
                                    0.17882178207316532,
                                    0.0014631463146314633,
                                    0,
                                    0.04592676387939546,
                                    0.11169633553580921,
                                    0.11360542644490013,
                                    0.24719692880219196,
                                    0.006,
                                    0};
    const files f = open_files("coco-eval/segm_mini", PD_COCO_READ_MASKS);
    const pd_coco_params params = {.type = PD_COCO_SEGM, .boundary = 0.02};
    for (int threads = 1; threads <= 3; threads += 2) {
        pd_coco_result *const r = evaluate(f, &params, threads);
        for (int i = 0; i < 12 && r; i++) PD_CHECK_NEAR(r->stats[i], want[i], 1e-15);
        pd_coco_result_free(r);
    }
    pd_err err = PD_ERR_INIT;
    pd_coco_result *r = NULL;
    const pd_coco_params boxes = {.boundary = 0.02};
    PD_CHECK_FAILS(pd_coco_evaluate(&r, f.gt, f.dt, &boxes, NULL, &err), PD_EINVAL, "boundaries are for masks");
    close_files(f);
}

/* A box must not silently stand in for a mask that was not read. */
static void test_not_read(void)
{
    pd_err err = PD_ERR_INIT;
    pd_coco_gt *gt = NULL;
    pd_coco_dt *dt = NULL;
    pd_coco_result *r = NULL;
    const pd_coco_params masks = {.type = PD_COCO_SEGM};
    const pd_coco_gt_options read = {.read = PD_COCO_READ_MASKS};
    PD_CHECK_OK(pd_coco_gt_open(&gt, PD_GOLDEN "/coco-eval/segm_with_boxes/gt.json", &read, NULL, &err));
    PD_CHECK_OK(pd_coco_dt_open(&dt, gt, PD_GOLDEN "/coco-eval/segm_with_boxes/dt.json", NULL, NULL, &err));
    PD_CHECK_FAILS(pd_coco_evaluate(&r, gt, dt, &masks, NULL, &err), PD_EINVAL,
                   "dt.json was opened without PD_COCO_READ_MASKS");
    pd_coco_dt_close(dt);
    pd_coco_gt_close(gt);
}

int main(void)
{
    test_not_read();
    test_boundary();
    test_lvis();
    test_tide();
    test_curves();
    test_confusion();
    test_confusion_golden();
    test_bootstrap();
    return pd_test_end();
}
