#include "backbones/classifier.h"
#include "kernels/mixed_loss.h"
#include "kernels/softmax_ce.h"

#include <stdlib.h>
#include <string.h>

#define MAX_PLANS 8 /* kept; the longest unused one makes room */

/* A recorded and planned network for one form and input shape. */
typedef struct entry {
    pd_form form;
    int n, h, w;
    pd_tape *tape;
    pd_plan *plan;
    pd_value *image, *label, *other, *share, *logits, *loss, *correct; /* other, share: of mixtures, else NULL */
    pd_stages stages;
    unsigned long used;
} entry;

struct pd_classifier {
    pd_device *device;
    pd_classifier_settings set;
    pd_params *params;
    pd_workspace *workspace; /* the plans run in turn */
    entry plans[MAX_PLANS];
    int count;
    entry *last;
    entry *late[PD_PLAN_LATE]; /* forward runs whose loss was not read, the oldest first */
    int unread;
    float share; /* of the last forward run: the backward run reads it, too */
    unsigned long clock;
};

static void entry_free(entry *e)
{
    pd_plan_free(e->plan);
    pd_tape_free(e->tape);
    memset(e, 0, sizeof *e);
}

/* Records the network; parameters that are new are registered. */
static pd_status record(pd_classifier *c, entry *e, pd_err *err)
{
    const bool train = e->form == PD_FORM_TRAIN;
    PD_TRY(pd_tape_new(&e->tape, c->params, train, err));
    if (c->set.sync_bn) pd_tape_sync_stats(e->tape);
    e->image = pd_tape_input(e->tape, "image", PD_F32, PD_SHAPE(e->n, e->h, e->w, 3));
    e->logits = pd_record_classifier(e->tape, e->form, c->set.arch, c->set.classes, e->image, &e->stages);
    if (train) {
        e->label = pd_tape_input(e->tape, "label", PD_I32, PD_SHAPE(e->n));
        if (c->set.mixes || c->set.sigmoid) {
            const pd_mixed_cfg cfg = {c->set.sigmoid ? PD_MIXED_SIGMOID : PD_MIXED_SOFTMAX, c->set.label_smoothing,
                                      c->set.threshold};
            e->other = pd_tape_input(e->tape, "other label", PD_I32, PD_SHAPE(e->n));
            e->share = pd_tape_input(e->tape, "share", PD_F32, PD_SHAPE(1));
            e->loss = pd_mixed_loss(e->tape, e->logits, e->label, e->other, e->share, &cfg, &e->correct);
        } else {
            e->loss = pd_softmax_ce(e->tape, e->logits, e->label, NULL, c->set.label_smoothing, &e->correct);
        }
        pd_tape_minimise(e->tape, e->loss, 1);
        pd_tape_keep(e->tape, e->correct);
    } else {
        pd_tape_keep(e->tape, e->logits);
        for (int i = 0; i < 4; i++) pd_tape_keep(e->tape, e->stages.c[i]);
    }
    return pd_tape_status(e->tape, err);
}

pd_status pd_classifier_new(pd_classifier **out, pd_device *device, const pd_classifier_settings *settings, pd_err *err)
{
    if (settings->classes < 1) return PD_FAIL(err, PD_EINVAL, "a classifier needs at least one class, not %d", settings->classes);
    pd_classifier *c = calloc(1, sizeof *c);
    if (!c) return PD_FAIL(err, PD_ENOMEM, "out of memory for a classifier");
    c->device = device;
    c->set = *settings;
    entry first = {.form = settings->folded ? PD_FORM_FOLDED : PD_FORM_EVAL, .n = 1, .h = 224, .w = 224};
    pd_status status = pd_params_new(&c->params, err);
    if (status == PD_OK) status = pd_workspace_new(&c->workspace, device, err);
    if (status == PD_OK) status = record(c, &first, err); /* for the names and shapes only */
    entry_free(&first);
    if (status == PD_OK) status = pd_params_allocate(c->params, device, settings->train, err);
    if (status != PD_OK) {
        pd_classifier_free(c);
        return status;
    }
    *out = c;
    return PD_OK;
}

void pd_classifier_free(pd_classifier *c)
{
    if (!c) return;
    for (int i = 0; i < c->count; i++) entry_free(&c->plans[i]);
    pd_workspace_free(c->workspace);
    pd_params_free(c->params);
    free(c);
}

pd_params *pd_classifier_params(pd_classifier *c)
{
    return c->params;
}

const pd_classifier_settings *pd_classifier_get(const pd_classifier *c)
{
    return &c->set;
}

pd_status pd_classifier_zero_residuals(pd_classifier *c, pd_err *err)
{
    const bool bottleneck = c->set.arch.depth >= 50;
    for (size_t i = 0; i < pd_params_count(c->params); i++) {
        const pd_param *p = pd_params_at(c->params, i);
        const size_t length = strlen(p->name);
        const bool block = !strncmp(p->name, "layer", 5) && p->kind == PD_WEIGHT && p->rank == 1;
        const bool scale = length > 7 && !strcmp(p->name + length - 7, ".weight");
        const bool last = bottleneck ? strstr(p->name, ".bn3.") != NULL
                                     : strstr(p->name, ".bn2.") != NULL || strstr(p->name, ".conv2.") != NULL;
        if (block && scale && last) PD_TRY(c->device->fill(c->device, p->data, 0, p->count * sizeof *p->data, err));
    }
    return PD_OK;
}

pd_form pd_classifier_form(const pd_classifier *c)
{
    return c->set.folded ? PD_FORM_FOLDED : PD_FORM_FUSED;
}

/* The plan for this form and shape, made now if there is none. */
static pd_status find_plan(pd_classifier *c, entry **out, pd_form form, int n, int h, int w, pd_err *err)
{
    entry *oldest = NULL;
    for (int i = 0; i < c->count; i++) {
        entry *e = &c->plans[i];
        if (e->form == form && e->n == n && e->h == h && e->w == w) {
            e->used = ++c->clock;
            *out = e;
            return PD_OK;
        }
        if (!oldest || e->used < oldest->used) oldest = e;
    }
    if ((form == PD_FORM_FOLDED) != c->set.folded)
        return PD_FAIL(err, PD_EINVAL, "%s parameters cannot run in the other form", c->set.folded ? "folded" : "unfolded");
    for (int i = 0; i < c->unread && c->count == MAX_PLANS; i++)
        if (c->late[i] == oldest)
            return PD_FAIL(err, PD_EINVAL, "losses are unread (pd_classifier_late), and their plan must make room");
    entry e = {.form = form, .n = n, .h = h, .w = w, .used = ++c->clock};
    pd_status status = record(c, &e, err);
    if (status == PD_OK)
        status = pd_plan_new(&e.plan, e.tape, c->device, form == PD_FORM_TRAIN ? PD_PLAN_TRAIN : PD_PLAN_INFER,
                             c->workspace, err);
    if (status != PD_OK) {
        entry_free(&e);
        return status;
    }
    if (c->count < MAX_PLANS)
        oldest = &c->plans[c->count++];
    else
        entry_free(oldest);
    *oldest = e;
    *out = oldest;
    return PD_OK;
}

pd_status pd_classifier_run(pd_classifier *c, pd_form form, const float *pixels, int n, int h, int w, pd_classified *out,
                            pd_err *err)
{
    entry *e;
    PD_TRY(find_plan(c, &e, form, n, h, w, err));
    c->last = e;
    PD_TRY(pd_plan_give(e->plan, e->image, pixels, err));
    PD_TRY(pd_plan_forward(e->plan, err));
    PD_TRY(pd_plan_fetch(e->plan, e->logits, err));
    out->logits = e->logits->host;
    return PD_OK;
}

pd_status pd_classifier_stages(pd_classifier *c, pd_stage_maps *out, pd_err *err)
{
    entry *e = c->last;
    if (!e || e->form == PD_FORM_TRAIN) return PD_FAIL(err, PD_EINVAL, "no inference was run");
    for (int i = 0; i < 4; i++) {
        PD_TRY(pd_plan_fetch(e->plan, e->stages.c[i], err));
        out->map[i] = e->stages.c[i]->host;
        out->shape[i] = e->stages.c[i]->shape;
    }
    return PD_OK;
}

pd_status pd_classifier_loss(pd_classifier *c, const float *pixels, const int *labels, int n, int h, int w, float *loss,
                             int *correct, pd_err *err)
{
    return pd_classifier_loss_mixed(c, pixels, labels, labels, 1, n, h, w, loss, correct, err);
}

static void read_loss(const entry *e, float *loss, int *correct)
{
    *loss = *(const float *)e->loss->host;
    *correct = (int)*(const float *)e->correct->host;
}

pd_status pd_classifier_loss_mixed(pd_classifier *c, const float *pixels, const int *labels, const int *others, float share,
                                   int n, int h, int w, float *loss, int *correct, pd_err *err)
{
    if (!c->set.train) return PD_FAIL(err, PD_EINVAL, "this classifier was made without gradients");
    if (c->unread >= (loss ? 1 : PD_PLAN_LATE))
        return PD_FAIL(err, PD_EINVAL, "%d losses are unread: pd_classifier_late comes first", c->unread);
    entry *e;
    PD_TRY(find_plan(c, &e, PD_FORM_TRAIN, n, h, w, err));
    c->last = e;
    PD_TRY(pd_plan_give(e->plan, e->image, pixels, err));
    PD_TRY(pd_plan_give(e->plan, e->label, labels, err));
    if (e->other) {
        PD_TRY(pd_plan_give(e->plan, e->other, others, err));
        c->share = share;
        PD_TRY(pd_plan_give(e->plan, e->share, &c->share, err));
    } else if (others != labels) {
        return PD_FAIL(err, PD_EINVAL, "this classifier was made without mixtures (settings.mixes)");
    }
    PD_TRY(pd_plan_forward(e->plan, err));
    if (!loss) {
        PD_TRY(pd_plan_fetch_later(e->plan, err));
        c->late[c->unread++] = e;
        return PD_OK;
    }
    PD_TRY(pd_plan_fetch(e->plan, NULL, err));
    read_loss(e, loss, correct);
    return PD_OK;
}

pd_status pd_classifier_late(pd_classifier *c, float *loss, int *correct, pd_err *err)
{
    if (!c->unread) return PD_FAIL(err, PD_EINVAL, "no loss is unread");
    const entry *e = c->late[0];
    PD_TRY(pd_plan_fetched(e->plan, err));
    memmove(c->late, c->late + 1, (size_t)--c->unread * sizeof *c->late);
    read_loss(e, loss, correct);
    return PD_OK;
}

pd_status pd_classifier_backward(pd_classifier *c, bool accumulate, pd_err *err)
{
    if (!c->last || c->last->form != PD_FORM_TRAIN) return PD_FAIL(err, PD_EINVAL, "no loss was computed");
    return pd_plan_backward(c->last->plan, accumulate, err);
}

void pd_classifier_changed(pd_classifier *c)
{
    for (int i = 0; i < c->count; i++) pd_plan_refresh(c->plans[i].plan);
}

pd_plan *pd_classifier_plan(pd_classifier *c)
{
    return c->last ? c->last->plan : NULL;
}

pd_tape *pd_classifier_tape(pd_classifier *c)
{
    return c->last ? c->last->tape : NULL;
}

pd_status pd_classifier_training_bytes(size_t *out, pd_device *device, const pd_classifier_settings *settings, int n, int h,
                                       int w, pd_err *err)
{
    pd_classifier c = {.device = device, .set = *settings};
    entry e = {.form = PD_FORM_TRAIN, .n = n, .h = h, .w = w};
    size_t planned, floats = 0;
    pd_status status = PD_OK;
    PD_TRY(pd_params_new(&c.params, err));
    PD_TRY_DONE(record(&c, &e, err));
    PD_TRY_DONE(pd_plan_measure(&planned, e.tape, device, PD_PLAN_TRAIN, err));
    for (size_t i = 0; i < pd_params_count(c.params); i++) {
        const pd_param *p = pd_params_at(c.params, i);
        floats += p->count * (p->kind == PD_WEIGHT ? 3 : 1);
    }
    *out = planned + floats * sizeof(float);
done:
    entry_free(&e);
    pd_params_free(c.params);
    return status;
}
