#include "tools/detect_all.h"
#include "tools/cli.h"

#include <stdlib.h>

pd_status pd_detect_all(pd_detector *d, pd_form form, pd_loader *loader, pd_found_fn fn, void *arg, pd_progress *progress,
                        pd_err *err)
{
    const int room = pd_detector_get(d)->test.max_per_image;
    pd_detection *found = NULL;
    int *count = NULL;
    size_t found_room = 0, count_room = 0;
    int64_t done = 0;
    pd_status status = PD_OK;
    PD_TRY_DONE(pd_loader_start(loader, 0, 0, err));
    for (;;) {
        const pd_batch *b;
        PD_TRY_DONE(pd_loader_next(loader, &b, err));
        if (!b) break;
        PD_TRY_DONE(pd_grow(&found, &found_room, (size_t)b->n * (size_t)room, sizeof *found, err));
        PD_TRY_DONE(pd_grow(&count, &count_room, (size_t)b->n, sizeof *count, err));
        PD_TRY_DONE(pd_detector_detect(d, form, b, found, count, err));
        for (int i = 0; i < b->n; i++) PD_TRY_DONE(fn(arg, &b->info[i], found + (size_t)i * (size_t)room, count[i], err));
        done += b->n;
        pd_loader_done(loader, b);
        if (progress) pd_progress_update(progress, done, NULL);
        if (pd_cli_stop_asked()) {
            status = PD_FAIL(err, PD_ESTOP, "stopped after %lld images", (long long)done);
            goto done;
        }
    }
done:
    free(found);
    free(count);
    return status;
}

pd_status pd_collect_found(void *arg, const pd_image_info *info, const pd_detection *found, int count, pd_err *err)
{
    const pd_collect *c = arg;
    pd_coco_det *dets = malloc(((size_t)count + 1) * sizeof *dets);
    if (!dets) return PD_FAIL(err, PD_ENOMEM, "out of memory for %d detections", count);
    for (int i = 0; i < count; i++) dets[i] = pd_coco_det_box(found[i].box, found[i].score, c->ids[found[i].label]);
    const pd_status status = pd_coco_dt_add(c->dt, pd_coco_int_id(info->id), dets, (size_t)count, err);
    free(dets);
    return status;
}
