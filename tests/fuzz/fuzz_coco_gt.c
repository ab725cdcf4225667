/* Any bytes as an evaluator's ground truth, masks, keypoints and LVIS lists included: a ground truth that evaluates, or
 * a sentence. */
#include "eval/coco_ap.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void evaluate(const pd_coco_gt *gt, pd_coco_type type, bool lvis)
{
    pd_err err = PD_ERR_INIT;
    pd_coco_dt *dt = NULL;
    pd_coco_result *r = NULL;
    const double points[51] = {1, 2, 1};
    if (pd_coco_dt_new(&dt, gt, &err) != PD_OK) abort();
    for (size_t i = 0; i < pd_coco_gt_image_count(gt) && i < 4; i++)
        for (size_t k = 0; k < pd_coco_gt_category_count(gt) && k < 1; k++) {
            pd_coco_det det = {
                .category_id = pd_coco_gt_category(gt, k)->id.whole, .bbox = {1, 2, 30, 40}, .score = 0.5};
            det.keypoints = points;
            det.n_points = 17;
            if (pd_coco_dt_add(dt, pd_coco_gt_image(gt, i)->id, &det, 1, &err) != PD_OK) abort();
        }
    const pd_coco_params params = {.type = type, .lvis = lvis};
    const pd_status status = pd_coco_evaluate(&r, gt, dt, &params, NULL, &err);
    if (status != PD_OK && (status != PD_EFORMAT || !err.text[0])) abort();
    pd_coco_result_free(r);
    pd_coco_dt_close(dt);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pd_err err = PD_ERR_INIT;
    pd_coco_gt *gt = NULL;
    const pd_coco_gt_options options = {.read = PD_COCO_READ_MASKS | PD_COCO_READ_KEYPOINTS | PD_COCO_READ_NAMES |
                                                PD_COCO_READ_LVIS};
    const pd_status status = pd_coco_gt_parse(&gt, (pd_bytes){data, size}, "fuzz.json", &options, NULL, &err);
    if (status == PD_OK) {
        for (size_t i = 0; i < pd_coco_gt_image_count(gt); i++) {
            size_t at = 0;
            if (!pd_coco_gt_find_image(gt, pd_coco_gt_image(gt, i)->id, &at) || at != i) abort();
        }
        evaluate(gt, PD_COCO_BBOX, false);
        evaluate(gt, PD_COCO_SEGM, false);
        evaluate(gt, PD_COCO_KEYPOINTS, false);
        evaluate(gt, PD_COCO_BBOX, true);
    } else if (status != PD_EFORMAT || !err.text[0]) {
        abort();
    }
    pd_coco_gt_close(gt);
    return 0;
}
