/* The evaluator at the size of COCO val2017: 500,000 boxes, 100,000 masks, 100,000 sets of keypoints, drawn by the
 * generator in $PD_SHARED/tools and answered by pycocotools; numbers by ==, arrays by SHA-256. Skipped where that is
 * not there. ctest: slow */
#include "tests/coco_golden.h"

#include <unistd.h>

static void check_file_sum(const char *path, const char *want)
{
    pd_err err = PD_ERR_INIT;
    pd_bytes file;
    sha256 h;
    char got[65];
    PD_CHECK_OK(pd_file_map(&file, path, &err));
    sha256_begin(&h);
    sha256_add(&h, file.data, file.size);
    sha256_end(&h, got);
    pd_file_unmap(&file);
    PD_CHECK_STR(got, want);
}

static void check_set(const char *shared, const char *name, const char *folder)
{
    pd_err err = PD_ERR_INIT;
    coco_case c = {.arena = pd_arena_new()};
    pd_pool *pool = NULL;
    pd_coco_result *r = NULL;
    char path[512], gt[300], dt[300], command[2048];
    PD_ROW(name);
    snprintf(path, sizeof path, "%s/coco-eval-large/%s.json", shared, name);
    snprintf(gt, sizeof gt, "%s/gt.json", folder);
    snprintf(dt, sizeof dt, "%s/dt.json", folder);
    PD_CHECK_OK(pd_json_read(&c.expected, path, 0, &err));
    PD_CHECK_OK(pd_pool_new(&pool, 0, &err));
    const pd_json *const root = pd_json_root(c.expected);
    snprintf(command, sizeof command, "python3 '%s/tools/make_coco_cases.py' %s --gt '%s' --dt '%s'", shared,
             pd_json_string(pd_json_member(root, "make")), gt, dt);
    PD_CHECK(system(command) == 0);
    check_file_sum(gt, pd_json_string(pd_json_member(root, "gt_sha256")));
    check_file_sum(dt, pd_json_string(pd_json_member(root, "dt_sha256")));
    read_params(&c, pd_json_member(root, "options"), pd_json_string(pd_json_member(root, "iou_type")));
    PD_CHECK_OK(evaluate(&r, gt, dt, &c.params, pool, &err));
    if (r) check_result(&c, r);
    pd_coco_result_free(r);
    pd_json_close(c.expected);
    pd_pool_free(pool);
    pd_arena_free(c.arena);
    remove(gt);
    remove(dt);
    PD_ROW("");
}

int main(void)
{
    const char *const shared = getenv("PD_SHARED") ? getenv("PD_SHARED") : PD_SOURCE_DIR "/../shared";
    char path[512], folder[256];
    snprintf(path, sizeof path, "%s/tools/make_coco_cases.py", shared);
    if (!pd_file_exists(path)) {
        PD_SKIP("%s is not there (PD_SHARED chooses another place)", path);
    } else if (pd_test_dir(folder, "coco_large")) {
        check_set(shared, "keypoints_5000", folder);
        check_set(shared, "segm_1000", folder);
        check_set(shared, "val_bbox", folder);
        remove(folder);
    }
    return pd_test_end();
}
