#include "tools/coco_check_files.h"

#include "datasets/image.h"

#include <string.h>

static void print_findings(FILE *out, const pd_coco_findings *f)
{
    static const char *const names[] = {"error", "warning", "note"};
    for (int severity = PD_COCO_ERROR; severity <= PD_COCO_NOTE; severity++)
        for (size_t i = 0; i < f->n; i++) {
            const pd_coco_finding *const x = &f->items[i];
            if ((int)x->severity == severity)
                fprintf(out, "  %-7s %8zu  %s\n                    first: %s\n", names[severity], x->count, x->what,
                        x->first);
        }
    if (!f->n) fprintf(out, "  nothing to remark\n");
}

/* A file that cannot be read is the one finding about it; running out of memory is not. */
static pd_status as_finding(pd_coco_findings *f, pd_status status, const char *what, pd_err *err)
{
    if (status == PD_OK || status == PD_ENOMEM) return status;
    char text[sizeof err->text];
    memcpy(text, err->text, sizeof text);
    *err = (pd_err)PD_ERR_INIT;
    return pd_coco_find_fault(f, PD_COCO_ERROR, what, err, "%s", text);
}

/* The picture is there, can be read, and has the size that is written. */
static pd_status check_picture(pd_coco_findings *f, const pd_coco_image *image, const char *dir, pd_arena *arena,
                               pd_err *err)
{
    char *path;
    if (!*image->file_name) return PD_OK;
    PD_TRY(pd_path_join(&path, dir, image->file_name, arena, err));
    if (!pd_file_exists(path))
        return pd_coco_find_fault(f, PD_COCO_ERROR, "pictures that are not there", err, "%s", path);
    pd_bytes file;
    pd_image_header header = {0};
    pd_status status = pd_file_map(&file, path, err);
    if (status != PD_OK) return as_finding(f, status, "pictures that cannot be read", err);
    status = pd_image_probe(&header, file, &(pd_image_options){.exif = true}, err);
    pd_file_unmap(&file);
    if (status == PD_EFORMAT) pd_err_context(err, "%s", path);
    if (status != PD_OK) return as_finding(f, status, "pictures that cannot be read", err);
    if ((double)header.w != image->width || (double)header.h != image->height)
        return pd_coco_find_fault(f, PD_COCO_ERROR, "pictures of another size than is written", err,
                                  "%s: %d x %d, expected %g x %g", path, header.w, header.h, image->width,
                                  image->height);
    return PD_OK;
}

static pd_status check_pictures(pd_coco_findings *f, const pd_coco_gt *gt, const char *dir, pd_err *err)
{
    pd_arena *const arena = pd_arena_new();
    if (!arena) return PD_FAIL(err, PD_ENOMEM, "out of memory");
    pd_status status = PD_OK;
    for (size_t i = 0; i < pd_coco_gt_image_count(gt) && status == PD_OK; i++) {
        pd_arena_reset(arena);
        status = check_picture(f, pd_coco_gt_image(gt, i), dir, arena, err);
    }
    pd_arena_free(arena);
    return status;
}

typedef struct {
    FILE *out;
    pd_pool *pool;
    pd_coco_gt *gt;
    pd_coco_dt *dt;
    pd_coco_findings findings; /* of the file at hand */
    size_t errors;
} report;

static void end_file(report *r)
{
    print_findings(r->out, &r->findings);
    r->errors += r->findings.errors;
    pd_coco_findings_free(&r->findings);
}

static pd_status check_truth(report *r, const char *path, const char *image_dir, pd_err *err)
{
    const pd_coco_gt_options how = {.read = PD_COCO_READ_MASKS | PD_COCO_READ_KEYPOINTS | PD_COCO_READ_NAMES};
    fprintf(r->out, "%s\n", path);
    pd_status status = pd_coco_check_syntax(path, err);
    if (status == PD_OK) status = pd_coco_gt_open(&r->gt, path, &how, r->pool, err);
    if (status != PD_OK) return as_finding(&r->findings, status, "the file cannot be used", err);
    fprintf(r->out, "  %zu images, %zu categories, %zu annotations\n", pd_coco_gt_image_count(r->gt),
            pd_coco_gt_category_count(r->gt), pd_coco_gt_get_notes(r->gt)->annotations);
    PD_TRY(pd_coco_check_gt(&r->findings, r->gt, err));
    return image_dir ? check_pictures(&r->findings, r->gt, image_dir, err) : PD_OK;
}

static pd_status check_results(report *r, const char *path, pd_err *err)
{
    const pd_coco_dt_options how = {.read = PD_COCO_READ_MASKS | PD_COCO_READ_KEYPOINTS, .skip_unknown_images = true};
    fprintf(r->out, "%s\n", path);
    pd_status status = pd_coco_check_syntax(path, err);
    if (status == PD_OK) status = pd_coco_dt_open(&r->dt, r->gt, path, &how, r->pool, err);
    if (status != PD_OK) return as_finding(&r->findings, status, "the file cannot be used", err);
    fprintf(r->out, "  %zu detections\n", pd_coco_dt_get_notes(r->dt)->records);
    return pd_coco_check_dt(&r->findings, r->dt, err);
}

pd_status pd_coco_check_files(FILE *out, const char *gt_path, const char *dt_path, const char *image_dir, pd_pool *pool,
                              size_t *errors, pd_err *err)
{
    report r = {.out = out, .pool = pool};
    pd_status status = check_truth(&r, gt_path, image_dir, err);
    if (status == PD_OK) end_file(&r);
    if (status == PD_OK && dt_path && r.gt) {
        status = check_results(&r, dt_path, err);
        if (status == PD_OK) end_file(&r);
    }
    pd_coco_findings_free(&r.findings);
    pd_coco_dt_close(r.dt);
    pd_coco_gt_close(r.gt);
    if (status == PD_OK) *errors = r.errors;
    return status;
}
