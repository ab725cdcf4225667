#include "engine/json.h"
#include "eval/coco_data.h"

#include <math.h>
#include <stdlib.h>

struct pd_results {
    pd_out *out;
    size_t records;
    pd_err err; /* the first failure */
};

pd_status pd_results_open(pd_results **out, const char *path, pd_err *err)
{
    pd_results *const r = calloc(1, sizeof *r);
    if (!r) return PD_FAIL(err, PD_ENOMEM, "%s: out of memory", path);
    const pd_status status = pd_out_open(&r->out, path, err);
    if (status != PD_OK) {
        free(r);
        return status;
    }
    pd_out_write(r->out, "[", 1);
    *out = r;
    return PD_OK;
}

static void write_number(pd_results *r, double value)
{
    char text[32];
    if (!isfinite(value) && r->err.code == PD_OK)
        pd_fail(&r->err, PD_EINVAL, "result %zu holds a number that is not finite", r->records);
    pd_json_format_double(text, value);
    pd_out_write(r->out, text, strlen(text));
}

static void write_text(pd_results *r, const char *text)
{
    pd_out_write(r->out, "\"", 1);
    for (const char *p = text; *p; p++) {
        const unsigned char c = (unsigned char)*p;
        if (c == '"' || c == '\\')
            pd_out_printf(r->out, "\\%c", c);
        else if (c < 0x20)
            pd_out_printf(r->out, "\\u%04x", c);
        else
            pd_out_write(r->out, p, 1);
    }
    pd_out_write(r->out, "\"", 1);
}

static void write_id(pd_results *r, pd_coco_id id)
{
    if (id.kind == PD_COCO_ID_TEXT)
        write_text(r, id.text);
    else if (id.kind == PD_COCO_ID_REAL)
        write_number(r, id.real);
    else
        pd_out_printf(r->out, "%lld", (long long)id.whole);
}

static void write_list(pd_results *r, const double *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        pd_out_write(r->out, i ? ", " : "[", i ? 2 : 1);
        write_number(r, values[i]);
    }
    pd_out_write(r->out, n ? "]" : "[]", n ? 1 : 2);
}

static void write_record(pd_results *r, pd_coco_id image, pd_coco_id category, const pd_coco_det *det)
{
    const bool box = det->bbox[0] != 0 || det->bbox[1] != 0 || det->bbox[2] != 0 || det->bbox[3] != 0;
    pd_out_printf(r->out, r->records ? ",\n{\"image_id\": " : "{\"image_id\": ");
    write_id(r, image);
    pd_out_printf(r->out, ", \"category_id\": ");
    write_id(r, category);
    if (box || (!det->counts && !det->keypoints)) {
        pd_out_printf(r->out, ", \"bbox\": ");
        write_list(r, det->bbox, 4);
    }
    if (det->counts) {
        pd_out_printf(r->out, ", \"segmentation\": {\"size\": [%u, %u], \"counts\": ", det->mask_h, det->mask_w);
        write_text(r, det->counts);
        pd_out_printf(r->out, "}");
    }
    if (det->keypoints) {
        pd_out_printf(r->out, ", \"keypoints\": ");
        write_list(r, det->keypoints, 3 * det->n_points);
    }
    pd_out_printf(r->out, ", \"score\": ");
    write_number(r, det->score);
    pd_out_write(r->out, "}", 1);
    r->records++;
}

void pd_results_add(pd_results *r, pd_coco_id image, const pd_coco_det *dets, size_t n)
{
    for (size_t i = 0; i < n; i++) write_record(r, image, pd_coco_int_id(dets[i].category_id), &dets[i]);
}

pd_status pd_results_commit(pd_results *r, pd_err *err)
{
    pd_status status = r->err.code;
    if (status != PD_OK) {
        if (err) *err = r->err;
        pd_out_cancel(r->out);
    } else {
        pd_out_write(r->out, "]\n", 2);
        status = pd_out_commit(r->out, err);
    }
    free(r);
    return status;
}

void pd_results_cancel(pd_results *r)
{
    if (!r) return;
    pd_out_cancel(r->out);
    free(r);
}

/* ---- what was added from memory ---- */

static int by_image(const void *a, const void *b)
{
    const pd_coco_block *const x = *(pd_coco_block *const *)a, *const y = *(pd_coco_block *const *)b;
    return (x->last_image > y->last_image) - (x->last_image < y->last_image);
}

static void save_block(pd_results *r, const pd_coco_gt *gt, const pd_coco_block *block)
{
    for (size_t i = 0; i < block->n; i++) {
        const pd_coco_item *const item = &block->items[i];
        pd_coco_det det = {.score = item->score};
        memcpy(det.bbox, item->bbox, sizeof det.bbox);
        if (item->shape) {
            det.keypoints = item->shape->keypoints;
            det.n_points = item->shape->n_points;
            det.counts = item->shape->mask.text; /* from memory it is terminated */
            det.mask_h = item->shape->mask.h;
            det.mask_w = item->shape->mask.w;
        }
        write_record(r, gt->images[item->image].id, gt->categories[item->category].id, &det);
    }
}

pd_status pd_coco_dt_save(const pd_coco_dt *dt, const char *path, pd_err *err)
{
    if (!dt->added) return PD_FAIL(err, PD_EINVAL, "%s: these results came from a file", path);
    pd_coco_block **const blocks = malloc((dt->n_blocks + 1) * sizeof *blocks);
    if (!blocks) return PD_FAIL(err, PD_ENOMEM, "%s: out of memory", path);
    for (size_t b = 0; b < dt->n_blocks; b++) blocks[b] = &dt->blocks[b];
    qsort(blocks, dt->n_blocks, sizeof *blocks, by_image);
    pd_results *r;
    pd_status status = pd_results_open(&r, path, err);
    if (status == PD_OK) {
        for (size_t b = 0; b < dt->n_blocks; b++) save_block(r, dt->gt, blocks[b]);
        status = pd_results_commit(r, err);
    }
    free(blocks);
    return status;
}
