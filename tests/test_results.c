/* Detections from memory: threads, order, the file they are written to, and that both ways give the same bits. */
#include "engine/rng.h"
#include "eval/coco_ap.h"
#include "tests/pd_test.h"

#define IMAGES 40
#define PER_IMAGE 25

static const char gt_head[] = "{\"images\": [";

/* A ground truth of IMAGES images with ids 7, 14, ... and three categories. */
static char *make_gt(pd_rng *r)
{
    char *text = NULL;
    size_t size = 0;
    FILE *const f = open_memstream(&text, &size);
    fprintf(f, "%s", gt_head);
    for (int i = 0; i < IMAGES; i++)
        fprintf(f, "%s{\"id\": %d, \"width\": 640, \"height\": 480}", i ? ", " : "", 7 * i + 7);
    fprintf(f, "], \"categories\": [{\"id\": 3}, {\"id\": 1}, {\"id\": 18}], \"annotations\": [");
    for (int i = 0; i < IMAGES * 5; i++)
        fprintf(f,
                "%s{\"id\": %d, \"image_id\": %u, \"category_id\": %d, \"bbox\": [%u, %u, 60, 50], \"area\": 3000, "
                "\"iscrowd\": 0}",
                i ? ", " : "", i + 1, 7 * pd_rng_below(r, IMAGES) + 7, (int[]){1, 3, 18}[i % 3],
                60 * pd_rng_below(r, 4), 50 * pd_rng_below(r, 4));
    fprintf(f, "]}");
    fclose(f);
    return text;
}

typedef struct {
    pd_coco_dt *dt;
    const pd_coco_det *dets; /* (IMAGES, PER_IMAGE) */
    bool backwards;
} adding;

static void add_image(void *arg, size_t begin, size_t end, int thread)
{
    (void)end;
    (void)thread;
    const adding *const a = arg;
    const size_t i = a->backwards ? IMAGES - 1 - begin : begin;
    pd_err err = PD_ERR_INIT;
    PD_CHECK_OK(pd_coco_dt_add(a->dt, pd_coco_int_id(7 * (int64_t)i + 7), a->dets + i * PER_IMAGE, PER_IMAGE, &err));
}

static void check_same(const pd_coco_result *a, const pd_coco_result *b)
{
    PD_CHECK_INT(memcmp(a->stats, b->stats, sizeof a->stats), 0);
    for (size_t t = 0; t < a->n_iou; t++)
        for (size_t rec = 0; rec < a->n_recall; rec++)
            for (size_t k = 0; k < a->n_categories; k++) {
                PD_CHECK(pd_coco_precision(a, t, rec, k, 0, 2) == pd_coco_precision(b, t, rec, k, 0, 2));
                PD_CHECK(pd_coco_score(a, t, rec, k, 0, 2) == pd_coco_score(b, t, rec, k, 0, 2));
            }
}

static void test_memory_and_file(void)
{
    pd_err err = PD_ERR_INIT;
    pd_rng rng = pd_rng_make(5, 0, 0);
    char *const json = make_gt(&rng), folder[256], path[300];
    pd_coco_gt *gt = NULL;
    PD_CHECK_OK(pd_coco_gt_parse(&gt, (pd_bytes){(unsigned char *)json, strlen(json)}, "made", NULL, NULL, &err));
    pd_coco_det dets[IMAGES * PER_IMAGE];
    for (int i = 0; i < IMAGES * PER_IMAGE; i++) {
        const float x = (float)(60 * pd_rng_below(&rng, 4)),
                    y = (float)(50 * pd_rng_below(&rng, 4)) + pd_rng_float(&rng);
        const float score = (float)pd_rng_below(&rng, 20) / 19; /* many ties */
        dets[i] = pd_coco_det_box((pd_box){x, y, x + 60, y + 30 + 20 * pd_rng_float(&rng)}, score,
                                  (int[]){1, 3, 18, 99}[i % 4]);
    }
    PD_CHECK(pd_test_dir(folder, "results"));
    snprintf(path, sizeof path, "%s/r.json", folder);
    const pd_coco_params params = {.keep = PD_COCO_KEEP_ARRAYS};
    pd_coco_result *first = NULL;
    for (int round = 0; round < 4; round++) {
        pd_pool *pool = NULL;
        pd_coco_dt *dt = NULL;
        pd_coco_result *r = NULL;
        PD_CHECK_OK(pd_pool_new(&pool, 1 + round, &err));
        PD_CHECK_OK(pd_coco_dt_new(&dt, gt, &err));
        if (round == 3) { /* the file of round 2 */
            pd_coco_dt_close(dt);
            PD_CHECK_OK(pd_coco_dt_open(&dt, gt, path, NULL, pool, &err));
        } else {
            adding a = {dt, dets, round == 1};
            if (round == 0)
                for (size_t i = 0; i < IMAGES; i++) add_image(&a, i, i + 1, 0);
            else
                pd_parallel_each(pool, IMAGES, add_image, &a);
            PD_CHECK_INT(pd_coco_dt_get_notes(dt)->unknown_categories, IMAGES * PER_IMAGE / 4);
            PD_CHECK_FAILS(pd_coco_dt_add(dt, pd_coco_int_id(7), dets, 1, &err), PD_EINVAL,
                           "image 7 has been added before");
            PD_CHECK_FAILS(pd_coco_dt_add(dt, pd_coco_int_id(8), dets, 1, &err), PD_EINVAL, "image 8 is not in made");
            err = (pd_err)PD_ERR_INIT;
            PD_CHECK_OK(pd_coco_dt_save(dt, path, &err));
        }
        PD_CHECK_OK(pd_coco_evaluate(&r, gt, dt, &params, pool, &err));
        PD_CHECK(r && r->stats[0] > 0 && r->stats[0] < 1);
        if (first && r) check_same(first, r);
        if (!first)
            first = r;
        else
            pd_coco_result_free(r);
        pd_coco_dt_close(dt);
        pd_pool_free(pool);
    }
    pd_coco_result_free(first);
    pd_coco_gt_close(gt);
    free(json);
    remove(path);
    remove(folder);
}

static void test_writer(void)
{
    pd_err err = PD_ERR_INIT;
    char folder[256], path[300];
    PD_CHECK(pd_test_dir(folder, "results"));
    snprintf(path, sizeof path, "%s/w.json", folder);
    pd_results *w = NULL;
    PD_CHECK_OK(pd_results_open(&w, path, &err));
    const double points[6] = {1, 2, 2, 0.5, 0.25, 0};
    const pd_coco_det det = {.category_id = 5, .bbox = {0.1, 2, 3, 4}, .score = 1e-7};
    const pd_coco_det mask = {.category_id = 5, .counts = "0\\4", .mask_h = 2, .mask_w = 3, .score = 1};
    const pd_coco_det pose = {.category_id = 5, .keypoints = points, .n_points = 2, .score = 0.5};
    pd_results_add(w, pd_coco_int_id(-3), &det, 1);
    pd_results_add(w, (pd_coco_id){PD_COCO_ID_TEXT, 0, 0, "a\"b\n"}, &mask, 1);
    pd_results_add(w, (pd_coco_id){PD_COCO_ID_REAL, 0, 1.5, NULL}, &pose, 1);
    PD_CHECK_OK(pd_results_commit(w, &err));
    pd_arena *const arena = pd_arena_new();
    pd_bytes text = {0};
    PD_CHECK_OK(pd_file_read(&text, path, 0, arena, &err));
    PD_CHECK_STR(
        (const char *)text.data,
        "[{\"image_id\": -3, \"category_id\": 5, \"bbox\": [0.1, 2, 3, 4], \"score\": 1e-07},\n"
        "{\"image_id\": \"a\\\"b\\u000a\", \"category_id\": 5, \"segmentation\": {\"size\": [2, 3], \"counts\": "
        "\"0\\\\4\"}, \"score\": 1},\n"
        "{\"image_id\": 1.5, \"category_id\": 5, \"keypoints\": [1, 2, 2, 0.5, 0.25, 0], \"score\": 0.5}]\n");
    remove(path);
    PD_CHECK_OK(pd_results_open(&w, path, &err));
    const pd_coco_det nan = {.score = NAN};
    pd_results_add(w, pd_coco_int_id(1), &nan, 1);
    PD_CHECK_FAILS(pd_results_commit(w, &err), PD_EINVAL, "result 0 holds a number that is not finite");
    PD_CHECK(!pd_file_exists(path));
    PD_CHECK_OK(pd_results_open(&w, path, &err));
    pd_results_cancel(w);
    PD_CHECK(!pd_file_exists(path));
    pd_arena_free(arena);
    remove(folder);
}

int main(void)
{
    test_memory_and_file();
    test_writer();
    return pd_test_end();
}
