/* The evaluator against pycocotools' own answers (golden/coco-eval: each case made by pycocotools 2.0.11 with
 * numpy 1.24): every number by ==, the arrays by their SHA-256, the summary character by character; on one thread and
 * on three. */
#include "tests/coco_golden.h"

/* What the message must say where pycocotools raises. */
static const char *error_part(const char *name)
{
    static const struct {
        const char *name, *part;
    } rows[] = {
        {"object_without_area", "annotations[0] (id 1): has no area"},
        {"object_without_iscrowd", "annotations[0] (id 1): has no iscrowd"},
        {"results_not_a_list", "byte 0: expected a list of results, found an object"},
        {"unknown_image", "1 of 2 records are of images that"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(rows[i].name, name)) return rows[i].part;
    return "(no such error is known)";
}

static void test_case(const char *folder, const char *name, int threads)
{
    pd_err err = PD_ERR_INIT;
    coco_case c = {.arena = pd_arena_new()};
    pd_pool *pool = NULL;
    char path[4][512], row[128];
    static const char *const files[] = {"options.json", "expected.json", "gt.json", "dt.json"};
    for (int i = 0; i < 4; i++) snprintf(path[i], sizeof path[i], "%s/%s/%s", folder, name, files[i]);
    snprintf(row, sizeof row, "%s, %d threads", name, threads);
    PD_ROW(row);
    PD_CHECK_OK(pd_pool_new(&pool, threads, &err));
    PD_CHECK_OK(pd_json_read(&c.options, path[0], 0, &err));
    PD_CHECK_OK(pd_json_read(&c.expected, path[1], 0, &err));
    const pd_json *const options = pd_json_root(c.options);
    read_params(&c, options, pd_json_string(pd_json_member(options, "iou_type")));
    pd_coco_result *r = NULL;
    if (pd_json_member(pd_json_root(c.expected), "error") && strcmp(name, "empty_results")) {
        PD_CHECK_FAILS(evaluate(&r, path[2], path[3], &c.params, pool, &err), PD_EFORMAT, error_part(name));
    } else {
        PD_CHECK_OK(evaluate(&r, path[2], path[3], &c.params, pool, &err));
        if (r) check_result(&c, r);
    }
    pd_coco_result_free(r);
    pd_json_close(c.options);
    pd_json_close(c.expected);
    pd_arena_free(c.arena);
    pd_pool_free(pool);
    PD_ROW("");
}

int main(int argc, char **argv)
{
    pd_err err = PD_ERR_INIT;
    const char *const folder = argc > 1 ? argv[1] : PD_GOLDEN "/coco-eval";
    pd_arena *const arena = pd_arena_new();
    char **names = NULL;
    size_t n = 0;
    PD_CHECK_OK(pd_list_dir(&names, &n, folder, 'd', arena, &err));
    PD_CHECK(n >= 24);
    for (size_t i = 0; i < n; i++)
        for (int threads = 1; threads <= 3; threads += 2) test_case(folder, names[i], threads);
    pd_arena_free(arena);
    return pd_test_end();
}
