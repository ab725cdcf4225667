#include "tools/detector_figures.h"
#include "backbones/fold.h"

#include <string.h>

const char *const pd_part_names[PD_PARTS] = {"backbone", "neck", "head", "rpn", "roi"};
static const char *const prefixes[PD_PARTS] = {"backbone.", "neck.", "bbox_head.", "rpn_head.", "roi_head."};

static void count_params(pd_detector_figures *f, const pd_params *params)
{
    for (size_t i = 0; i < pd_params_count(params); i++) {
        const pd_param *p = pd_params_at(params, i);
        if (p->kind != PD_WEIGHT) continue;
        for (int k = 0; k < PD_PARTS; k++) {
            if (strncmp(p->name, prefixes[k], strlen(prefixes[k])) != 0) continue;
            f->part[k].params += (double)p->count;
            if (p->trainable) f->part[k].trainable += (double)p->count;
        }
    }
}

pd_status pd_count_detector(pd_detector_figures *out, pd_form form, const pd_detector_settings *set, int h, int w,
                            pd_err *err)
{
    pd_detector_figures f = {.total.macs = 0};
    pd_params *params = NULL;
    pd_tape *t = NULL;
    pd_status status = PD_OK;
    PD_TRY(pd_params_new(&params, err));
    PD_TRY_DONE(pd_tape_new(&t, params, false, err));
    PD_TRY_DONE(pd_record_detector(t, form, set, h, w, err));
    count_params(&f, params);
    f.part[PD_BACKBONE].macs = f.total.macs = pd_tape_macs(t, NULL); /* its pooling has no name */
    for (int k = PD_NECK; k < PD_PARTS; k++) {
        f.part[k].macs = pd_tape_macs(t, prefixes[k]);
        f.part[PD_BACKBONE].macs -= f.part[k].macs;
    }
    f.total.params = (double)pd_params_elements(params, false);
    f.total.trainable = (double)pd_params_elements(params, true);
    *out = f;
done:
    pd_tape_free(t);
    pd_params_free(params);
    return status;
}
