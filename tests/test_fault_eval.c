/* Out of memory in the evaluator: each allocation of reading, evaluating, analysing and writing fails once; every
 * failure is PD_ENOMEM with a sentence, and nothing leaks. ctest: fault */
#include "eval/bootstrap.h"
#include "eval/confusion.h"
#include "eval/curves.h"
#include "eval/tide.h"
#include "tests/fault.h"
#include "tests/pd_test.h"

#include <zlib.h>

static char folder[256];

typedef struct {
    const char *folder; /* in golden/ */
    pd_coco_params params;
    int threads;
} setup;

typedef struct {
    pd_pool *pool;
    pd_coco_gt *gt;
    pd_coco_dt *dt;
    pd_coco_result *result;
} session;

static pd_status begin(session *s, const setup *c, pd_err *err)
{
    char path[512];
    const unsigned read = PD_COCO_READ_MASKS | PD_COCO_READ_KEYPOINTS | PD_COCO_READ_NAMES | PD_COCO_READ_LVIS;
    const pd_coco_gt_options gt_options = {.read = read};
    const pd_coco_dt_options dt_options = {.read = read};
    PD_TRY(pd_pool_new(&s->pool, c->threads, err));
    snprintf(path, sizeof path, "%s/%s/gt.json", PD_GOLDEN, c->folder);
    PD_TRY(pd_coco_gt_open(&s->gt, path, &gt_options, s->pool, err));
    snprintf(path, sizeof path, "%s/%s/dt.json", PD_GOLDEN, c->folder);
    PD_TRY(pd_coco_dt_open(&s->dt, s->gt, path, &dt_options, s->pool, err));
    return pd_coco_evaluate(&s->result, s->gt, s->dt, &c->params, s->pool, err);
}

static void end(session *s)
{
    pd_coco_result_free(s->result);
    pd_coco_dt_close(s->dt);
    pd_coco_gt_close(s->gt);
    pd_pool_free(s->pool);
}

static pd_status evaluate(void *arg, pd_err *err)
{
    session s = {0};
    const pd_status status = begin(&s, arg, err);
    end(&s);
    return status;
}

static pd_status analyse(session *s, const setup *c, pd_err *err)
{
    pd_coco_interval intervals[PD_COCO_METRICS];
    pd_coco_difference difference[PD_COCO_METRICS];
    pd_coco_point best;
    pd_tide tide;
    pd_coco_confusion confusion;
    const pd_coco_bootstrap how = {5, 0.9, 1};
    char path[300];
    PD_TRY(begin(s, c, err));
    PD_TRY(pd_coco_best_f1(&best, s->result, PD_COCO_ALL, 0, err));
    PD_TRY(pd_coco_bootstrap_run(intervals, s->result, &how, s->pool, err));
    PD_TRY(pd_coco_bootstrap_compare(difference, s->result, s->result, &how, s->pool, err));
    PD_TRY(pd_tide_run(&tide, s->gt, s->dt, &c->params, 0.5, 0.1, s->pool, err));
    PD_TRY(pd_coco_confuse(&confusion, s->gt, s->dt, &c->params, 0.5, 0.1, s->pool, err));
    free(confusion.counts);
    snprintf(path, sizeof path, "%s/arrays", folder);
    return pd_coco_dump_arrays(s->result, path, err);
}

static pd_status analysis(void *arg, pd_err *err)
{
    session s = {0};
    const pd_status status = analyse(&s, arg, err);
    end(&s);
    return status;
}

static pd_status add_images(session *s, pd_err *err)
{
    char path[300];
    const double points[6] = {1, 2, 2, 3, 4, 1};
    snprintf(path, sizeof path, "%s/saved.json", folder);
    PD_TRY(pd_coco_gt_open(&s->gt, PD_GOLDEN "/coco-eval/masks/gt.json", NULL, NULL, err));
    PD_TRY(pd_coco_dt_new(&s->dt, s->gt, err));
    for (int64_t image = 1; image <= 3; image++) {
        pd_coco_det dets[20];
        for (int i = 0; i < 20; i++) dets[i] = pd_coco_det_box((pd_box){1, 2, 3, 4}, 0.5f, 1);
        dets[3].keypoints = points;
        dets[3].n_points = 2;
        dets[4].counts = "02";
        dets[4].mask_h = dets[4].mask_w = 2;
        PD_TRY(pd_coco_dt_add(s->dt, pd_coco_int_id(image), dets, 20, err));
    }
    return pd_coco_dt_save(s->dt, path, err);
}

static pd_status from_memory(void *arg, pd_err *err)
{
    (void)arg;
    session s = {0};
    const pd_status status = add_images(&s, err);
    end(&s);
    return status;
}

static pd_status read_gzip(void *arg, pd_err *err)
{
    pd_coco_gt *gt = NULL;
    const pd_status status = pd_coco_gt_open(&gt, arg, NULL, NULL, err);
    pd_coco_gt_close(gt);
    return status;
}

/* Packs a golden file. */
static void pack(const char *path)
{
    pd_err err = PD_ERR_INIT;
    pd_arena *const arena = pd_arena_new();
    pd_bytes text = {0};
    PD_CHECK_OK(pd_file_read(&text, PD_GOLDEN "/coco-eval/rules/gt.json", 0, arena, &err));
    gzFile out = gzopen(path, "wb");
    PD_CHECK(out && gzwrite(out, text.data, (unsigned)text.size) == (int)text.size && gzclose(out) == Z_OK);
    pd_arena_free(arena);
}

int main(void)
{
    PD_CHECK(pd_test_dir(folder, "fault_eval"));
    const setup cases[] = {
        {"coco-eval/rules", {.type = PD_COCO_BBOX}, 1},
        {"coco-eval/rules", {.type = PD_COCO_BBOX, .no_categories = true}, 2},
        {"coco-eval/masks", {.type = PD_COCO_SEGM}, 2},
        {"coco-eval/masks", {.type = PD_COCO_SEGM, .boundary = 0.02}, 1},
        {"coco-eval/keypoints", {.type = PD_COCO_KEYPOINTS}, 1},
        {"lvis-eval", {.type = PD_COCO_SEGM, .lvis = true}, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        PD_ROW(cases[i].folder);
        PD_CHECK(pd_fault_sweep(cases[i].folder, evaluate, (void *)(uintptr_t)&cases[i], false) > 20);
    }
    PD_ROW("");
    const setup whole = {"tide", {.keep = PD_COCO_KEEP_ARRAYS | PD_COCO_KEEP_MATCHES}, 2};
    PD_CHECK(pd_fault_sweep("analysis", analysis, (void *)(uintptr_t)&whole, true) > 60);
    PD_CHECK(pd_fault_sweep("from memory", from_memory, NULL, true) > 20);
    char packed[300];
    snprintf(packed, sizeof packed, "%s/gt.json.gz", folder);
    pack(packed);
    PD_CHECK(pd_fault_sweep("gzip", read_gzip, packed, false) > 10);
    return pd_test_end();
}
