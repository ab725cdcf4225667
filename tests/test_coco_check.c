/* The data check: each kind of fault is found, counted and shown with its first record; sound files are left in peace.
 */
#include "eval/coco_check.h"
#include "tests/pd_test.h"

static const char broken_gt[] =
    "{\"images\": [{\"id\": 1, \"width\": 100, \"height\": 50, \"file_name\": \"a.jpg\"},"
    " {\"id\": 2, \"width\": 100, \"height\": 50, \"file_name\": \"a.jpg\"}, {\"id\": 3}, {\"id\": 3}],"
    "\"categories\": [{\"id\": 1, \"name\": \"cat\"}, {\"id\": 2, \"name\": \"cat\"}], \"annotations\": ["
    "{\"id\": 1, \"image_id\": 1, \"category_id\": 1, \"bbox\": [0, 0, 10, 10], \"area\": 100, \"iscrowd\": 0},"
    "{\"id\": 1, \"image_id\": 9, \"category_id\": 1, \"bbox\": [0, 0, 10, 10], \"area\": 100, \"iscrowd\": 0},"
    "{\"id\": 3, \"image_id\": 1, \"category_id\": 9, \"bbox\": [0, 0, 0, 10], \"area\": 100, \"iscrowd\": 0, "
    "\"ignore\": 1},"
    "{\"id\": 0, \"image_id\": 1, \"category_id\": 1, \"bbox\": [0, 0, 10, 10], \"area\": 900},"
    "{\"id\": 5, \"image_id\": 1, \"category_id\": 1, \"bbox\": [200, 0, 10, 10], \"iscrowd\": 0},"
    "{\"id\": 6, \"image_id\": 1, \"category_id\": 1, \"bbox\": [95, 0, 10, 10], \"area\": -1, \"iscrowd\": 1},"
    "{\"id\": 7, \"image_id\": 1, \"category_id\": 1, \"bbox\": [1, 2, 3], \"area\": 1, \"iscrowd\": 0,"
    " \"segmentation\": [[1, 2, 3, 4]], \"keypoints\": [1, 2, 2, 3, 4, 1], \"num_keypoints\": 0},"
    "{\"id\": 8, \"image_id\": 1, \"category_id\": 1, \"bbox\": [0, NaN, 3, 3], \"area\": 1, \"iscrowd\": 0,"
    " \"segmentation\": {\"size\": [50, 100], \"counts\": [5000]}, \"keypoints\": [1, 2]}]}";

static const struct {
    const char *what;
    pd_coco_severity severity;
    size_t count;
    const char *first;
} gt_rows[] = {
    {"images without a usable width and height", PD_COCO_WARNING, 1, "image 3"},
    {"images without file_name", PD_COCO_WARNING, 1, "image 3"},
    {"image ids that are listed more than once", PD_COCO_WARNING, 1, "1 images"},
    {"file names that several images share", PD_COCO_WARNING, 1, "\"a.jpg\""},
    {"names that several categories share", PD_COCO_WARNING, 1, "\"cat\""},
    {"annotation ids that are used more than once", PD_COCO_ERROR, 1, "1 annotations"},
    {"annotations of an image that is not listed", PD_COCO_ERROR, 1, "annotations[1] (id 1)"},
    {"annotations of a category that is not listed", PD_COCO_ERROR, 1, "annotations[2] (id 3)"},
    {"annotations with \"ignore\", which has no effect", PD_COCO_NOTE, 1, "annotations[2]"},
    {"boxes of no or negative size", PD_COCO_ERROR, 1, "annotations[2] (id 3): bbox [0, 0, 0, 10]"},
    {"areas larger than the box", PD_COCO_WARNING, 2, "annotations[2] (id 3): area 100, box 0 x 10"},
    {"annotations with id 0 (a match to one counts as none)", PD_COCO_WARNING, 1, "annotations[3] (id 0)"},
    {"annotations without a usable iscrowd", PD_COCO_ERROR, 1, "annotations[3] (id 0)"},
    {"boxes wholly outside of their image", PD_COCO_ERROR, 1, "annotations[4] (id 5)"},
    {"objects without area", PD_COCO_ERROR, 1, "annotations[4] (id 5)"},
    {"boxes that leave their image by more than a pixel", PD_COCO_WARNING, 1, "annotations[5] (id 6)"},
    {"areas that are no number, negative or infinite", PD_COCO_ERROR, 1, "annotations[5] (id 6)"},
    {"boxes that are no list of four numbers", PD_COCO_ERROR, 1, "annotations[6] (id 7)"},
    {"segmentations that are no masks", PD_COCO_ERROR, 1, "less than three points"},
    {"num_keypoints that does not agree with the labelled points", PD_COCO_WARNING, 1, "2 are labelled"},
    {"boxes with NaN or infinity", PD_COCO_ERROR, 1, "annotations[7] (id 8)"},
    {"masks without a single pixel", PD_COCO_WARNING, 1, "annotations[7] (id 8)"},
    {"keypoints that are no x, y, v triples", PD_COCO_ERROR, 1, "annotations[7] (id 8)"},
    {"annotations of the same image, category and box", PD_COCO_WARNING, 1, "annotations[0] and annotations[3]"},
    {"images without annotations", PD_COCO_NOTE, 2, "image 2"},
    {"categories without annotations", PD_COCO_NOTE, 1, "category 2 (cat)"},
};

static const char broken_dt[] = "[{\"image_id\": 1, \"category_id\": 1, \"bbox\": [0, 0, 10, 10], \"score\": 0.5},"
                                "{\"image_id\": 1, \"category_id\": 1, \"bbox\": [0, 0, 10, 10], \"score\": 1.5},"
                                "{\"image_id\": 1, \"category_id\": 1, \"bbox\": [0, 0, -1, 10], \"score\": NaN},"
                                "{\"image_id\": 1, \"category_id\": 1, \"bbox\": [0, 0, 10, 11]},"
                                "{\"image_id\": 1, \"category_id\": 7, \"bbox\": [0, 0, 10, 10], \"score\": 0.5},"
                                "{\"image_id\": 7, \"category_id\": 1, \"bbox\": [0, 0, 10, 10], \"score\": 0.5}]";

static const char *const dt_rows[] = {
    "detections of images that the ground truth does not list",
    "detections of categories that the ground truth does not list",
    "records without a usable score",
    "scores outside of 0 .. 1",
    "scores that are NaN or infinite",
    "boxes of no or negative size",
    "detections of the same image, category and box",
    "images without detections",
};

static pd_bytes bytes_of(const char *text)
{
    return (pd_bytes){(const unsigned char *)text, strlen(text)};
}

static const pd_coco_finding *find(const pd_coco_findings *f, const char *what)
{
    for (size_t i = 0; i < f->n; i++)
        if (!strcmp(f->items[i].what, what)) return &f->items[i];
    return NULL;
}

static void test_broken(void)
{
    pd_err err = PD_ERR_INIT;
    pd_coco_gt *gt = NULL;
    pd_coco_dt *dt = NULL;
    pd_coco_findings f = {0};
    const pd_coco_gt_options how = {.read = PD_COCO_READ_MASKS | PD_COCO_READ_KEYPOINTS | PD_COCO_READ_NAMES};
    PD_CHECK_OK(pd_coco_gt_parse(&gt, bytes_of(broken_gt), "gt", &how, NULL, &err));
    PD_CHECK_OK(pd_coco_check_gt(&f, gt, &err));
    const size_t n = sizeof gt_rows / sizeof *gt_rows;
    size_t errors = 0;
    for (size_t i = 0; i < n; i++) {
        PD_ROW(gt_rows[i].what);
        const pd_coco_finding *const x = find(&f, gt_rows[i].what);
        PD_CHECK(x && x->severity == gt_rows[i].severity && strstr(x->first, gt_rows[i].first));
        if (x) PD_CHECK_INT(x->count, gt_rows[i].count);
        errors += gt_rows[i].severity == PD_COCO_ERROR ? gt_rows[i].count : 0;
    }
    PD_ROW("");
    PD_CHECK_INT(f.n, n);
    PD_CHECK_INT(f.errors, errors);
    pd_coco_findings_free(&f);
    const pd_coco_dt_options skip = {.skip_unknown_images = true};
    PD_CHECK_OK(pd_coco_dt_parse(&dt, gt, bytes_of(broken_dt), "dt", &skip, NULL, &err));
    PD_CHECK_OK(pd_coco_check_dt(&f, dt, &err));
    for (size_t i = 0; i < sizeof dt_rows / sizeof *dt_rows; i++) {
        PD_ROW(dt_rows[i]);
        PD_CHECK(find(&f, dt_rows[i]));
    }
    PD_ROW("");
    PD_CHECK_INT(f.n, sizeof dt_rows / sizeof *dt_rows);
    PD_CHECK_INT(f.errors, 3);
    pd_coco_findings_free(&f);
    pd_coco_dt_close(dt);
    pd_coco_gt_close(gt);
}

static void test_sound(void)
{
    pd_err err = PD_ERR_INIT;
    pd_coco_gt *gt = NULL;
    pd_coco_findings f = {0};
    const char *const path = PD_GOLDEN "/coco-eval/segm_mini/gt.json";
    const pd_coco_gt_options how = {.read = PD_COCO_READ_MASKS | PD_COCO_READ_KEYPOINTS | PD_COCO_READ_NAMES};
    PD_CHECK_OK(pd_coco_check_syntax(path, &err));
    PD_CHECK_OK(pd_coco_gt_open(&gt, path, &how, NULL, &err));
    PD_CHECK_OK(pd_coco_check_gt(&f, gt, &err));
    for (size_t i = 0; i < f.n; i++)
        PD_CHECK_MSG(f.items[i].severity == PD_COCO_NOTE, "%s: %s", f.items[i].what, f.items[i].first);
    pd_coco_findings_free(&f);
    pd_coco_gt_close(gt);
    PD_CHECK_FAILS(pd_coco_check_syntax(PD_GOLDEN "/coco-eval", &err), PD_EIO, "coco-eval");
}

int main(void)
{
    test_broken();
    test_sound();
    return pd_test_end();
}
