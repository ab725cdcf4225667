#include "detectors/detector.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PLANS 12 /* kept; the longest unused one makes room */

/* A recorded and planned detector for one form and input shape. */
typedef struct entry {
    pd_form form;
    bool train;
    int n, h, w, g; /* g: room for boxes per image, training only */
    pd_tape *tape;
    pd_plan *plan;
    pd_value *image;
    pd_ground_truth gt;
    pd_retinanet net;
    pd_retinanet_losses loss;
    unsigned long used;
} entry;

struct pd_detector {
    pd_device *device;
    pd_detector_settings set;
    pd_params *params;
    pd_workspace *workspace; /* the plans run in turn */
    entry plans[MAX_PLANS];
    int count;
    entry *last;
    unsigned long clock;
    int *sizes; /* (n, 4) of the batch under way */
    size_t sizes_room;
};

static void entry_free(entry *e)
{
    pd_plan_free(e->plan);
    pd_tape_free(e->tape);
    memset(e, 0, sizeof *e);
}

static pd_status record(pd_detector *d, entry *e, pd_err *err)
{
    PD_TRY(pd_tape_new(&e->tape, d->params, e->train, err));
    pd_tape *t = e->tape;
    e->image = pd_tape_input(t, "image", PD_F32, PD_SHAPE(e->n, e->h, e->w, 3));
    pd_record_retinanet(t, e->form, d->set.arch, d->set.classes, e->image, &e->net);
    if (e->train) {
        e->gt = (pd_ground_truth){pd_tape_input(t, "boxes", PD_F32, PD_SHAPE(e->n, e->g, 4)),
                                  pd_tape_input(t, "labels", PD_I32, PD_SHAPE(e->n, e->g)),
                                  pd_tape_input(t, "box count", PD_I32, PD_SHAPE(e->n)),
                                  pd_tape_input(t, "sizes", PD_I32, PD_SHAPE(e->n, 4))};
        e->loss = pd_record_retinanet_losses(t, &e->net, d->set.classes, &e->gt, &d->set.retinanet);
    } else {
        for (int l = 0; l < PD_RETINA_LEVELS; l++) {
            pd_tape_keep(t, e->net.p[l]);
            pd_tape_keep(t, e->net.cls[l]);
            pd_tape_keep(t, e->net.reg[l]);
        }
    }
    return pd_tape_status(t, err);
}

static void freeze(pd_detector *d)
{
    char prefix[32];
    if (d->set.frozen_stages < 0) return;
    pd_params_freeze(d->params, "backbone.conv1.");
    pd_params_freeze(d->params, "backbone.bn1.");
    for (int i = 1; i <= d->set.frozen_stages; i++) {
        snprintf(prefix, sizeof prefix, "backbone.layer%d.", i);
        pd_params_freeze(d->params, prefix);
    }
}

pd_status pd_detector_new(pd_detector **out, pd_device *device, const pd_detector_settings *set, pd_err *err)
{
    if (set->classes < 1) return PD_FAIL(err, PD_EINVAL, "a detector needs at least one class, not %d", set->classes);
    if (set->frozen_stages < -1 || set->frozen_stages > 4)
        return PD_FAIL(err, PD_EINVAL, "frozen_stages is %d; -1 to 4 are possible", set->frozen_stages);
    pd_detector *d = calloc(1, sizeof *d);
    if (!d) return PD_FAIL(err, PD_ENOMEM, "out of memory for a detector");
    d->device = device;
    d->set = *set;
    entry first = {.form = set->folded ? PD_FORM_FOLDED : PD_FORM_EVAL, .n = 1, .h = 128, .w = 128};
    pd_status status = pd_params_new(&d->params, err);
    if (status == PD_OK) status = pd_workspace_new(&d->workspace, device, err);
    if (status == PD_OK) status = record(d, &first, err); /* for the names and shapes only */
    entry_free(&first);
    if (status == PD_OK) {
        freeze(d);
        status = pd_params_allocate(d->params, device, set->train, err);
    }
    if (status != PD_OK) {
        pd_detector_free(d);
        return status;
    }
    *out = d;
    return PD_OK;
}

void pd_detector_free(pd_detector *d)
{
    if (!d) return;
    for (int i = 0; i < d->count; i++) entry_free(&d->plans[i]);
    pd_workspace_free(d->workspace);
    pd_params_free(d->params);
    free(d->sizes);
    free(d);
}

pd_params *pd_detector_params(pd_detector *d)
{
    return d->params;
}

const pd_detector_settings *pd_detector_get(const pd_detector *d)
{
    return &d->set;
}

pd_status pd_detector_limit(pd_detector *d, int max_per_image, pd_err *err)
{
    if (max_per_image < 1) return PD_FAIL(err, PD_EINVAL, "at most %d detections per image: must be 1 or more", max_per_image);
    d->set.test.max_per_image = max_per_image;
    return PD_OK;
}

pd_form pd_detector_form(const pd_detector *d)
{
    return d->set.folded ? PD_FORM_FOLDED : PD_FORM_FUSED;
}

/* The plan for this form and shape, made now if there is none; it becomes d->last. */
static pd_status use_plan(pd_detector *d, const entry *want, pd_err *err)
{
    entry *oldest = NULL;
    for (int i = 0; i < d->count; i++) {
        entry *e = &d->plans[i];
        if (e->form == want->form && e->train == want->train && e->n == want->n && e->h == want->h && e->w == want->w &&
            e->g == want->g) {
            e->used = ++d->clock;
            d->last = e;
            return PD_OK;
        }
        if (!oldest || e->used < oldest->used) oldest = e;
    }
    if (want->n < 1 || want->h < 1 || want->w < 1 || want->h % PD_DETECTOR_DIVISOR || want->w % PD_DETECTOR_DIVISOR)
        return PD_FAIL(err, PD_EINVAL, "a batch of %d images of %dx%d: sides must be multiples of %d", want->n, want->w, want->h,
                       PD_DETECTOR_DIVISOR);
    if ((want->form == PD_FORM_FOLDED) != d->set.folded)
        return PD_FAIL(err, PD_EINVAL, "%s parameters cannot run in the other form", d->set.folded ? "folded" : "unfolded");
    entry e = *want;
    e.used = ++d->clock;
    pd_status status = record(d, &e, err);
    if (status == PD_OK)
        status = pd_plan_new(&e.plan, e.tape, d->device, e.train ? PD_PLAN_TRAIN : PD_PLAN_INFER, d->workspace, err);
    if (status != PD_OK) {
        entry_free(&e);
        return status;
    }
    if (d->count < MAX_PLANS)
        oldest = &d->plans[d->count++];
    else
        entry_free(oldest);
    *oldest = e;
    d->last = oldest;
    return PD_OK;
}

/* ---- training -------------------------------------------------------------------------------------------------------- */

static pd_status fill_sizes(pd_detector *d, const pd_batch *b, pd_err *err)
{
    PD_TRY(pd_grow(&d->sizes, &d->sizes_room, (size_t)b->n * 4, sizeof *d->sizes, err));
    for (int i = 0; i < b->n; i++) {
        const pd_image_info *info = &b->info[i];
        const int size[4] = {info->h, info->w, info->pad_h, info->pad_w};
        memcpy(d->sizes + 4 * i, size, sizeof size);
    }
    return PD_OK;
}

pd_status pd_detector_loss(pd_detector *d, const pd_batch *b, pd_losses *losses, pd_err *err)
{
    if (!d->set.train) return PD_FAIL(err, PD_EINVAL, "this detector was made without gradients");
    const entry want = {.form = PD_FORM_FUSED, .train = true, .n = b->n, .h = b->h, .w = b->w, .g = b->max_boxes};
    PD_TRY(use_plan(d, &want, err));
    PD_TRY(fill_sizes(d, b, err));
    entry *e = d->last;
    pd_plan_bind(e->image, b->pixels);
    pd_plan_bind(e->gt.boxes, b->boxes);
    pd_plan_bind(e->gt.labels, b->box_labels);
    pd_plan_bind(e->gt.count, b->n_boxes);
    pd_plan_bind(e->gt.sizes, d->sizes);
    PD_TRY(pd_plan_forward(e->plan, err));
    *losses = (pd_losses){.count = 2, .name = {"loss_cls", "loss_bbox"},
                          .value = {*(const float *)e->loss.cls->data, *(const float *)e->loss.bbox->data}};
    for (int i = 0; i < losses->count; i++) losses->loss += losses->value[i];
    for (int i = 0; i < b->n; i++) losses->positives += ((const int *)e->loss.count->data)[2 * i];
    return PD_OK;
}

pd_status pd_detector_backward(pd_detector *d, bool accumulate, pd_err *err)
{
    if (!d->last || !d->last->train) return PD_FAIL(err, PD_EINVAL, "no loss was computed");
    return pd_plan_backward(d->last->plan, accumulate, err);
}

/* ---- inference ------------------------------------------------------------------------------------------------------- */

static void raw_add(pd_raw *out, const char *name, int index, const pd_value *v)
{
    snprintf(out->name[out->count], sizeof out->name[0], "%s%d", name, index);
    out->data[out->count] = v->data;
    out->shape[out->count++] = v->shape;
}

pd_status pd_detector_raw(pd_detector *d, pd_form form, const float *pixels, int n, int h, int w, pd_raw *out, pd_err *err)
{
    const entry want = {.form = form, .n = n, .h = h, .w = w};
    PD_TRY(use_plan(d, &want, err));
    pd_plan_bind(d->last->image, (void *)(uintptr_t)pixels);
    PD_TRY(pd_plan_forward(d->last->plan, err));
    if (!out) return PD_OK;
    out->count = 0;
    for (int l = 0; l < PD_RETINA_LEVELS; l++) raw_add(out, "p", l + 3, d->last->net.p[l]);
    for (int l = 0; l < PD_RETINA_LEVELS; l++) raw_add(out, "cls_score.", l, d->last->net.cls[l]);
    for (int l = 0; l < PD_RETINA_LEVELS; l++) raw_add(out, "bbox_pred.", l, d->last->net.reg[l]);
    return PD_OK;
}

pd_status pd_detector_decode(pd_detector *d, const pd_image_info *info, pd_detection *out, int *count, pd_err *err)
{
    const entry *e = d->last;
    if (!e || e->train) return PD_FAIL(err, PD_EINVAL, "no forward run to decode");
    pd_head_outputs heads = {.n = e->n, .k = d->set.classes, .grid = &e->net.grid};
    for (int l = 0; l < PD_RETINA_LEVELS; l++) {
        heads.logits[l] = e->net.cls[l]->data;
        heads.deltas[l] = e->net.reg[l]->data;
    }
    return pd_postprocess(out, count, &heads, info, &d->set.test, d->device->pool, err);
}

pd_status pd_detector_detect(pd_detector *d, pd_form form, const pd_batch *b, pd_detection *out, int *count, pd_err *err)
{
    PD_TRY(pd_detector_raw(d, form, b->pixels, b->n, b->h, b->w, NULL, err));
    return pd_detector_decode(d, b->info, out, count, err);
}

void pd_detector_changed(pd_detector *d)
{
    for (int i = 0; i < d->count; i++) pd_plan_refresh(d->plans[i].plan);
}

pd_plan *pd_detector_plan(pd_detector *d)
{
    return d->last ? d->last->plan : NULL;
}

pd_tape *pd_detector_tape(pd_detector *d)
{
    return d->last ? d->last->tape : NULL;
}
