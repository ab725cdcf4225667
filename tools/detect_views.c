#include "tools/detect_views.h"
#include "tools/cli.h"

#include <stdlib.h>

/* The next view of each loader; *end: there is none. */
static pd_status next_views(const pd_batch **views, pd_loader *const *loaders, int n, bool *end, pd_err *err)
{
    for (int v = 0; v < n; v++) {
        PD_TRY(pd_loader_next(loaders[v], &views[v], err));
        *end = !views[v];
        if (v > 0 && (!views[v] != !views[0] || (views[v] && views[v]->info->id != views[0]->info->id)))
            return PD_FAIL(err, PD_EFORMAT, "an image could be read in one view and not in another");
    }
    return PD_OK;
}

pd_status pd_detect_views_all(pd_detector *d, pd_form form, pd_loader *const *loaders, int n, pd_found_fn fn, void *arg,
                              pd_progress *progress, pd_err *err)
{
    const pd_batch *views[PD_MAX_VIEWS];
    const size_t room = (size_t)pd_detector_get(d)->test.max_per_image;
    pd_detection *found = malloc((room + 1) * sizeof *found);
    int64_t done = 0;
    pd_status status = found ? PD_OK : PD_FAIL(err, PD_ENOMEM, "out of memory for %zu detections", room);
    for (int v = 0; v < n && status == PD_OK; v++) status = pd_loader_start(loaders[v], 0, 0, err);
    while (status == PD_OK) {
        bool end = false;
        int count = 0;
        PD_TRY_DONE(next_views(views, loaders, n, &end, err));
        if (end) break;
        PD_TRY_DONE(pd_detector_detect_views(d, form, views, n, found, &count, err));
        PD_TRY_DONE(fn(arg, views[0]->info, found, count, err));
        for (int v = 0; v < n; v++) pd_loader_done(loaders[v], views[v]);
        if (progress) pd_progress_update(progress, ++done, NULL);
        if (pd_cli_stop_asked()) status = PD_FAIL(err, PD_ESTOP, "stopped after %lld images", (long long)done);
    }
done:
    free(found);
    return status;
}
