#include "tools/detect_all.h"
#include "tools/cli.h"

#include <stdlib.h>
#include <string.h>

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

/* Detections on their way to rank 0: for each image its info, the number of detections, and these. */
typedef struct parcel {
    char *data;
    size_t bytes, room;
} parcel;

static void put(parcel *p, const void *data, size_t bytes)
{
    if (bytes) memcpy(p->data + p->bytes, data, bytes);
    p->bytes += bytes;
}

static pd_status pack(void *arg, const pd_image_info *info, const pd_detection *found, int count, pd_err *err)
{
    parcel *p = arg;
    const size_t size = (size_t)count * sizeof *found;
    PD_TRY(pd_grow(&p->data, &p->room, p->bytes + sizeof *info + sizeof count + size, 1, err));
    put(p, info, sizeof *info);
    put(p, &count, sizeof count);
    put(p, found, size);
    return PD_OK;
}

static pd_status unpack(const char *from, const char *end, pd_found_fn fn, void *arg, pd_err *err)
{
    pd_detection *found = NULL;
    size_t room = 0;
    pd_status status = PD_OK;
    while (from < end && status == PD_OK) {
        pd_image_info info;
        int count;
        memcpy(&info, from, sizeof info);
        memcpy(&count, from + sizeof info, sizeof count);
        from += sizeof info + sizeof count;
        PD_TRY_DONE(pd_grow(&found, &room, (size_t)count + 1, sizeof *found, err));
        memcpy(found, from, (size_t)count * sizeof *found);
        from += (size_t)count * sizeof *found;
        status = fn(arg, &info, found, count, err);
    }
done:
    free(found);
    return status;
}

pd_status pd_detect_shared(pd_detector *d, pd_form form, pd_loader *loader, pd_comm *comm, pd_found_fn fn, void *arg,
                           pd_err *err)
{
    if (!comm) return pd_detect_all(d, form, loader, fn, arg, NULL, err);
    parcel mine = {0};
    void *all = NULL;
    size_t bytes = 0;
    pd_status status = pd_detect_all(d, form, loader, pack, &mine, NULL, err);
    if (status == PD_OK) status = pd_comm_gather(&all, &bytes, comm, mine.data, mine.bytes, err);
    if (status == PD_OK && comm->rank == 0) status = unpack(all, (char *)all + bytes, fn, arg, err);
    free(mine.data);
    free(all);
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
