#include "backbones/classifier.h"
#include "engine/plan_cache.h"
#include "kernels/mixed_loss.h"
#include "kernels/softmax_ce.h"

#include <stdlib.h>
#include <string.h>

/* What a plan is for. */
typedef struct shape {
    int form, n, h, w; /* form: a pd_form */
} shape;

/* Values of a recorded network. */
typedef struct network {
    pd_value *image, *label, *other, *share, *logits, *loss, *correct; /* other, share: of mixtures, else NULL */
    pd_stages stages;
} network;

struct pd_classifier {
    pd_device *device;
    pd_classifier_settings set;
    pd_params *params;
    pd_plan_cache *plans;
    float share; /* of the last forward run: the backward run reads it, too */
};

/* Records the network; parameters that are new are registered. */
static pd_status record(void *owner, const void *key, pd_tape **tape, void **net, pd_err *err)
{
    const pd_classifier *c = owner;
    const shape *s = key;
    const bool train = s->form == PD_FORM_TRAIN;
    network *k;
    PD_TRY(pd_tape_new(tape, c->params, train, err));
    pd_tape *t = *tape;
    PD_TRY(PD_ALLOC(&k, pd_tape_arena(t), 1, err));
    if (c->set.sync_bn) pd_tape_sync_stats(t);
    k->image = pd_tape_input(t, "image", PD_F32, PD_SHAPE(s->n, s->h, s->w, 3));
    k->logits = pd_record_classifier(t, (pd_form)s->form, c->set.arch, c->set.classes, k->image, &k->stages);
    if (train) {
        k->label = pd_tape_input(t, "label", PD_I32, PD_SHAPE(s->n));
        if (c->set.mixes || c->set.sigmoid) {
            const pd_mixed_cfg cfg = {c->set.sigmoid ? PD_MIXED_SIGMOID : PD_MIXED_SOFTMAX, c->set.label_smoothing,
                                      c->set.threshold};
            k->other = pd_tape_input(t, "other label", PD_I32, PD_SHAPE(s->n));
            k->share = pd_tape_input(t, "share", PD_F32, PD_SHAPE(1));
            k->loss = pd_mixed_loss(t, k->logits, k->label, k->other, k->share, &cfg, &k->correct);
        } else {
            k->loss = pd_softmax_ce(t, k->logits, k->label, NULL, c->set.label_smoothing, &k->correct);
        }
        pd_tape_minimise(t, k->loss, 1);
        pd_tape_keep(t, k->correct);
    } else {
        pd_tape_keep(t, k->logits);
        for (int i = 0; i < 4; i++) pd_tape_keep(t, k->stages.c[i]);
    }
    *net = k;
    return pd_tape_status(t, err);
}

static pd_plan_mode plan_mode(const void *key)
{
    return ((const shape *)key)->form == PD_FORM_TRAIN ? PD_PLAN_TRAIN : PD_PLAN_INFER;
}

static const pd_plan_recorder recorder = {.key_bytes = sizeof(shape), .room = 8, .device_room = 16, .record = record,
                                         .mode = plan_mode};

pd_status pd_classifier_new(pd_classifier **out, pd_device *device, const pd_classifier_settings *settings, pd_err *err)
{
    if (settings->classes < 1) return PD_FAIL(err, PD_EINVAL, "a classifier needs at least one class, not %d", settings->classes);
    pd_classifier *c = calloc(1, sizeof *c);
    if (!c) return PD_FAIL(err, PD_ENOMEM, "out of memory for a classifier");
    c->device = device;
    c->set = *settings;
    const shape first = {.form = settings->folded ? PD_FORM_FOLDED : PD_FORM_EVAL, .n = 1, .h = 224, .w = 224};
    pd_tape *tape = NULL;
    void *net;
    pd_status status = pd_params_new(&c->params, err);
    if (status == PD_OK) status = pd_plan_cache_new(&c->plans, device, &recorder, c, err);
    if (status == PD_OK) status = record(c, &first, &tape, &net, err); /* for the names and shapes only */
    pd_tape_free(tape);
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
    pd_plan_cache_free(c->plans);
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
static pd_status use_plan(pd_classifier *c, pd_form form, int n, int h, int w, const pd_planned **out, pd_err *err)
{
    const shape key = {form, n, h, w};
    if ((form == PD_FORM_FOLDED) != c->set.folded)
        return PD_FAIL(err, PD_EINVAL, "%s parameters cannot run in the other form", c->set.folded ? "folded" : "unfolded");
    PD_TRY(pd_plan_cache_use(c->plans, &key, err));
    *out = pd_plan_cache_last(c->plans);
    return PD_OK;
}

pd_status pd_classifier_run(pd_classifier *c, pd_form form, const float *pixels, int n, int h, int w, pd_classified *out,
                            pd_err *err)
{
    const pd_planned *p;
    PD_TRY(use_plan(c, form, n, h, w, &p, err));
    const network *net = p->net;
    PD_TRY(pd_plan_give(p->plan, net->image, pixels, err));
    PD_TRY(pd_plan_forward(p->plan, err));
    PD_TRY(pd_plan_fetch(p->plan, net->logits, err));
    out->logits = net->logits->host;
    return PD_OK;
}

pd_status pd_classifier_stages(pd_classifier *c, pd_stage_maps *out, pd_err *err)
{
    const pd_planned *p = pd_plan_cache_last(c->plans);
    if (!p || plan_mode(p->key) == PD_PLAN_TRAIN) return PD_FAIL(err, PD_EINVAL, "no inference was run");
    const pd_stages *stages = &((const network *)p->net)->stages;
    for (int i = 0; i < 4; i++) {
        PD_TRY(pd_plan_fetch(p->plan, stages->c[i], err));
        out->map[i] = stages->c[i]->host;
        out->shape[i] = stages->c[i]->shape;
    }
    return PD_OK;
}

pd_status pd_classifier_loss(pd_classifier *c, const float *pixels, const int *labels, int n, int h, int w, float *loss,
                             int *correct, pd_err *err)
{
    return pd_classifier_loss_mixed(c, pixels, labels, labels, 1, n, h, w, loss, correct, err);
}

static void read_loss(const network *net, float *loss, int *correct)
{
    *loss = *(const float *)net->loss->host;
    *correct = (int)*(const float *)net->correct->host;
}

pd_status pd_classifier_loss_mixed(pd_classifier *c, const float *pixels, const int *labels, const int *others, float share,
                                   int n, int h, int w, float *loss, int *correct, pd_err *err)
{
    if (!c->set.train) return PD_FAIL(err, PD_EINVAL, "this classifier was made without gradients");
    PD_TRY(pd_plan_cache_ready(c->plans, !loss, err));
    const pd_planned *p;
    PD_TRY(use_plan(c, PD_FORM_TRAIN, n, h, w, &p, err));
    const network *net = p->net;
    PD_TRY(pd_plan_give(p->plan, net->image, pixels, err));
    PD_TRY(pd_plan_give(p->plan, net->label, labels, err));
    if (net->other) {
        PD_TRY(pd_plan_give(p->plan, net->other, others, err));
        c->share = share;
        PD_TRY(pd_plan_give(p->plan, net->share, &c->share, err));
    } else if (others != labels) {
        return PD_FAIL(err, PD_EINVAL, "this classifier was made without mixtures (settings.mixes)");
    }
    PD_TRY(pd_plan_forward(p->plan, err));
    if (!loss) return pd_plan_cache_later(c->plans, err);
    PD_TRY(pd_plan_fetch(p->plan, NULL, err));
    read_loss(net, loss, correct);
    return PD_OK;
}

pd_status pd_classifier_late(pd_classifier *c, float *loss, int *correct, pd_err *err)
{
    const pd_planned *p;
    PD_TRY(pd_plan_cache_late(c->plans, &p, err));
    read_loss(p->net, loss, correct);
    return PD_OK;
}

pd_status pd_classifier_backward(pd_classifier *c, bool accumulate, pd_err *err)
{
    const pd_planned *p = pd_plan_cache_last(c->plans);
    if (!p || plan_mode(p->key) != PD_PLAN_TRAIN) return PD_FAIL(err, PD_EINVAL, "no loss was computed");
    return pd_plan_backward(p->plan, accumulate, err);
}

void pd_classifier_changed(pd_classifier *c)
{
    pd_plan_cache_refresh(c->plans);
}

pd_plan *pd_classifier_plan(pd_classifier *c)
{
    const pd_planned *p = pd_plan_cache_last(c->plans);
    return p ? p->plan : NULL;
}

pd_tape *pd_classifier_tape(pd_classifier *c)
{
    const pd_planned *p = pd_plan_cache_last(c->plans);
    return p ? p->tape : NULL;
}

pd_status pd_classifier_training_bytes(size_t *out, pd_device *device, const pd_classifier_settings *settings, int n, int h,
                                       int w, pd_err *err)
{
    pd_classifier c = {.device = device, .set = *settings};
    const shape key = {PD_FORM_TRAIN, n, h, w};
    pd_tape *tape = NULL;
    void *net;
    size_t planned, floats = 0;
    pd_status status = PD_OK;
    PD_TRY(pd_params_new(&c.params, err));
    PD_TRY_DONE(record(&c, &key, &tape, &net, err));
    PD_TRY_DONE(pd_plan_measure(&planned, tape, device, PD_PLAN_TRAIN, err));
    for (size_t i = 0; i < pd_params_count(c.params); i++) {
        const pd_param *p = pd_params_at(c.params, i);
        floats += p->count * (p->kind == PD_WEIGHT ? 3 : 1);
    }
    *out = planned + floats * sizeof(float);
done:
    pd_tape_free(tape);
    pd_params_free(c.params);
    return status;
}
