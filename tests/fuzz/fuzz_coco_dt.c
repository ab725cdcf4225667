/* Any bytes as a results file against a fixed ground truth of boxes, masks and keypoints: numbers, or a sentence. */
#include "eval/coco_ap.h"
#include "eval/tide.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char ground_truth[] =
    "{\"images\": [{\"id\": 1, \"width\": 20, \"height\": 16}, {\"id\": 2, \"width\": 20, \"height\": 16}],"
    "\"categories\": [{\"id\": 1}, {\"id\": 2}], \"annotations\": ["
    "{\"id\": 1, \"image_id\": 1, \"category_id\": 1, \"iscrowd\": 0, \"area\": 64, \"bbox\": [2, 2, 8, 8],"
    " \"segmentation\": [[2, 2, 10, 2, 10, 10, 2, 10]], \"num_keypoints\": 1, \"keypoints\": ["
    "1,2,2,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,5,5,1]},"
    "{\"id\": 2, \"image_id\": 2, \"category_id\": 2, \"iscrowd\": 1, \"area\": 100, \"bbox\": [0, 0, 20, 16],"
    " \"segmentation\": {\"size\": [16, 20], \"counts\": [3, 100, 0, 7, 210]}, \"num_keypoints\": 0, \"keypoints\": ["
    "0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}]}";

static void check(pd_status status, const pd_err *err)
{
    if (status != PD_OK && (status != PD_EFORMAT || !err->text[0])) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pd_err err = PD_ERR_INIT;
    pd_coco_gt *gt = NULL;
    const unsigned read = PD_COCO_READ_MASKS | PD_COCO_READ_KEYPOINTS;
    const pd_coco_gt_options gt_options = {.read = read};
    const pd_bytes truth = {(const unsigned char *)ground_truth, sizeof ground_truth - 1};
    if (pd_coco_gt_parse(&gt, truth, "gt", &gt_options, NULL, &err) != PD_OK) abort();
    for (int skip = 0; skip < 2; skip++) {
        pd_coco_dt *dt = NULL;
        const pd_coco_dt_options options = {.read = read, .skip_unknown_images = skip};
        const pd_status status = pd_coco_dt_parse(&dt, gt, (pd_bytes){data, size}, "fuzz.json", &options, NULL, &err);
        check(status, &err);
        for (int type = PD_COCO_BBOX; status == PD_OK && type <= PD_COCO_KEYPOINTS; type++) {
            pd_coco_result *r = NULL;
            const pd_coco_params params = {.type = (pd_coco_type)type, .keep = PD_COCO_KEEP_MATCHES};
            check(pd_coco_evaluate(&r, gt, dt, &params, NULL, &err), &err);
            for (int i = 0; r && i < r->n_stats; i++)
                if (!(r->stats[i] == -1 || (r->stats[i] >= 0 && r->stats[i] <= 1))) abort();
            pd_coco_result_free(r);
            pd_tide tide;
            if (type != PD_COCO_KEYPOINTS) check(pd_tide_run(&tide, gt, dt, &params, 0.5, 0.1, NULL, &err), &err);
        }
        pd_coco_dt_close(dt);
    }
    pd_coco_gt_close(gt);
    return 0;
}
