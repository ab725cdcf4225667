#include "detectors/detector.h"
#include "detectors/detector_kind.h"
#include "engine/plan_cache.h"
#include "kernels/normalize.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const pd_detector_kind *const kinds[PD_DETECTOR_TYPES] = {[PD_RETINANET] = &pd_kind_retinanet,
                                                                 [PD_CASCADE_RCNN] = &pd_kind_cascade_rcnn,
                                                                 [PD_FASTER_RCNN] = &pd_kind_faster_rcnn};

/* What a plan is for. Flags are ints: no padding. */
typedef struct purpose {
    int form;         /* a pd_form */
    int train, given; /* given: proposals are an input */
    int lists;        /* maps are not kept */
    int n, h, w, g;   /* g: room for boxes per image, training only */
    int limit;        /* the tape finds so many boxes an image at most; 0: heads are kept */
    int bytes;        /* images are bytes, normalised on the device by norm */
    pd_pixel_norm norm;
} purpose;

/* Values of a recorded detector. */
typedef struct recorded {
    pd_detector_inputs in;
    void *net; /* the kind's */
} recorded;

struct pd_detector {
    pd_device *device;
    pd_detector_settings set;
    pd_params *params;
    pd_plan_cache *plans;
    int *sizes, *draws, *mirrors; /* (n, 4), (n) and (n) of the batch under way */
    float *scales;                /* (n, 3) */
    size_t sizes_room, draws_room, mirrors_room, scales_room;
};

pd_detector_settings pd_detector_defaults(pd_detector_type type)
{
    pd_detector_settings set = {.type = type,
                                .frozen_stages = 1,
                                .retinanet = pd_retinanet_cfg_default(),
                                .cascade = pd_cascade_cfg_default(),
                                .test = pd_postprocess_cfg_default()};
    if (type == PD_FASTER_RCNN) set.cascade = pd_faster_cfg_default();
    return set;
}

/* given: rows of proposals from outside; 0: none. find: the tape finds the boxes. norm: of images that come as bytes;
 * NULL: they come as floats. */
static pd_detector_inputs record_inputs(pd_tape *t, int n, int h, int w, int g, int given, bool find,
                                        const pd_pixel_norm *norm)
{
    pd_detector_inputs in = {.sizes = pd_tape_input(t, "sizes", PD_I32, PD_SHAPE(n, 4))};
    if (norm) {
        in.bytes = pd_tape_input(t, "image", PD_U8, PD_SHAPE(n, h, w, 3));
        in.mirror = pd_tape_input(t, "mirror", PD_I32, PD_SHAPE(n));
        in.image = pd_normalize(t, in.bytes, in.sizes, in.mirror, norm);
    } else {
        in.image = pd_tape_input(t, "image", PD_F32, PD_SHAPE(n, h, w, 3));
    }
    if (given) {
        in.proposals = pd_tape_input(t, "proposals", PD_F32, PD_SHAPE(n, given, 4));
        in.n_proposals = pd_tape_input(t, "proposal count", PD_I32, PD_SHAPE(n));
    }
    if (find) in.scales = pd_tape_input(t, "scales", PD_F32, PD_SHAPE(n, 3));
    if (!pd_tape_training(t)) return in;
    in.boxes = pd_tape_input(t, "boxes", PD_F32, PD_SHAPE(n, g, 4));
    in.labels = pd_tape_input(t, "labels", PD_I32, PD_SHAPE(n, g));
    in.count = pd_tape_input(t, "box count", PD_I32, PD_SHAPE(n));
    in.draw = pd_tape_input(t, "draw", PD_I32, PD_SHAPE(n));
    return in;
}

static pd_status record_net(pd_tape *t, pd_form form, const pd_detector_settings *set, const pd_detector_inputs *in,
                            void **net, pd_err *err)
{
    const pd_detector_kind *kind = kinds[set->type];
    PD_TRY(pd_alloc(net, pd_tape_arena(t), 1, kind->bytes, err));
    kind->record(t, form, set, in, *net);
    if (in->scales && pd_tape_status(t, NULL) == PD_OK) {
        const pd_detections_out *found = kind->found(*net);
        pd_value *const kept[] = {found->box, found->score, found->label, found->count};
        for (int i = 0; i < 4; i++) pd_tape_keep(t, kept[i]);
    }
    return pd_tape_status(t, err);
}

pd_form pd_backbone_form(const pd_detector_settings *set, pd_form form)
{
    return set->fold_first && form != PD_FORM_COUNT ? PD_FORM_FOLDED : form;
}

static pd_form train_form(const pd_detector_settings *set)
{
    return set->folded ? PD_FORM_FOLDED : PD_FORM_FUSED;
}

static pd_status record(void *owner, const void *key, pd_tape **tape, void **net, pd_err *err)
{
    const pd_detector *d = owner;
    const purpose *p = key;
    recorded *r;
    PD_TRY(pd_tape_new(tape, d->params, p->train, err));
    PD_TRY(PD_ALLOC(&r, pd_tape_arena(*tape), 1, err));
    r->in = record_inputs(*tape, p->n, p->h, p->w, p->g, p->given ? d->set.cascade.rpn.test.max_keep : 0, p->limit > 0,
                          p->bytes ? &p->norm : NULL);
    r->in.lists = p->lists;
    *net = r;
    return record_net(*tape, (pd_form)p->form, &d->set, &r->in, &r->net, err);
}

static pd_plan_mode plan_mode(const void *key)
{
    return ((const purpose *)key)->train ? PD_PLAN_TRAIN : PD_PLAN_INFER;
}

static const pd_plan_recorder recorder = {.key_bytes = sizeof(purpose), .room = 12, .device_room = 96,
                                         .record = record, .mode = plan_mode};

static void freeze(pd_params *params, int stages)
{
    char prefix[32];
    if (stages < 0) return;
    pd_params_freeze(params, "backbone.conv1.");
    pd_params_freeze(params, "backbone.bn1.");
    for (int i = 1; i <= stages; i++) {
        snprintf(prefix, sizeof prefix, "backbone.layer%d.", i);
        pd_params_freeze(params, prefix);
    }
}

static pd_status check_settings(const pd_detector_settings *set, pd_err *err)
{
    if ((int)set->type < 0 || set->type >= PD_DETECTOR_TYPES)
        return PD_FAIL(err, PD_EINVAL, "there is no detector type %d", (int)set->type);
    if (set->classes < 1) return PD_FAIL(err, PD_EINVAL, "a detector needs at least one class, not %d", set->classes);
    if (set->frozen_stages < -1 || set->frozen_stages > 4)
        return PD_FAIL(err, PD_EINVAL, "frozen_stages is %d; -1 to 4 are possible", set->frozen_stages);
    const pd_head_conv *convs[] = {&set->neck, &set->head};
    for (int i = 0; i < 2; i++)
        if (convs[i]->mixture != PD_PLAIN_CONV && !(convs[i]->branches & PD_S1))
            return PD_FAIL(err, PD_EINVAL,
                           "the %s's ParaDise convolutions have branches \"%s\": s1 must be one of them",
                           i ? "head" : "neck", pd_branches_text(convs[i]->branches));
    const pd_detector_kind *kind = kinds[set->type];
    return kind->check ? kind->check(set, err) : PD_OK;
}

pd_status pd_detector_new(pd_detector **out, pd_device *device, const pd_detector_settings *set, pd_err *err)
{
    PD_TRY(check_settings(set, err));
    pd_detector *d = calloc(1, sizeof *d);
    if (!d) return PD_FAIL(err, PD_ENOMEM, "out of memory for a detector");
    d->device = device;
    d->set = *set;
    const purpose first = {.form = set->folded ? PD_FORM_FOLDED : PD_FORM_EVAL, .n = 1, .h = 128, .w = 128};
    pd_tape *tape = NULL;
    void *net;
    pd_status status = pd_params_new(&d->params, err);
    if (status == PD_OK) status = pd_plan_cache_new(&d->plans, device, &recorder, d, err);
    if (status == PD_OK) status = record(d, &first, &tape, &net, err); /* for the names and shapes only */
    pd_tape_free(tape);
    if (status == PD_OK) {
        freeze(d->params, set->frozen_stages);
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
    pd_plan_cache_free(d->plans);
    pd_params_free(d->params);
    free(d->sizes);
    free(d->draws);
    free(d->mirrors);
    free(d->scales);
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
    if (max_per_image < 1)
        return PD_FAIL(err, PD_EINVAL, "at most %d detections per image: must be 1 or more", max_per_image);
    d->set.test.max_per_image = max_per_image;
    return PD_OK;
}

pd_form pd_detector_form(const pd_detector *d)
{
    return d->set.folded ? PD_FORM_FOLDED : PD_FORM_FUSED;
}

/* The last plan's. */
static pd_plan *last_plan(const pd_detector *d)
{
    const pd_planned *p = pd_plan_cache_last(d->plans);
    return p ? p->plan : NULL;
}

static const purpose *last_purpose(const pd_detector *d)
{
    const pd_planned *p = pd_plan_cache_last(d->plans);
    return p ? p->key : NULL;
}

static const recorded *last_recorded(const pd_detector *d)
{
    return pd_plan_cache_last(d->plans)->net;
}

/* The plan for this purpose, made now if there is none, becomes the last. */
static pd_status use_plan(pd_detector *d, const purpose *want, pd_err *err)
{
    if (want->n < 1 || want->h < 1 || want->w < 1 || want->h % PD_DETECTOR_DIVISOR || want->w % PD_DETECTOR_DIVISOR)
        return PD_FAIL(err, PD_EINVAL, "a batch of %d images of %dx%d: sides must be multiples of %d", want->n, want->w,
                       want->h, PD_DETECTOR_DIVISOR);
    if ((want->form == PD_FORM_FOLDED) != d->set.folded)
        return PD_FAIL(err, PD_EINVAL, "%s parameters cannot run in the other form",
                       d->set.folded ? "folded" : "unfolded");
    return pd_plan_cache_use(d->plans, want, err);
}

/* ---- training ---- */

/* info NULL: every image fills its place. */
static pd_status fill_sizes(pd_detector *d, const pd_image_info *info, int n, int h, int w, pd_err *err)
{
    PD_TRY(pd_grow(&d->sizes, &d->sizes_room, (size_t)n * 4, sizeof *d->sizes, err));
    for (int i = 0; i < n; i++) {
        const int whole[4] = {h, w, h, w};
        memcpy(d->sizes + 4 * i, whole, sizeof whole);
        if (!info) continue;
        const int size[4] = {info[i].h, info[i].w, info[i].pad_h, info[i].pad_w};
        memcpy(d->sizes + 4 * i, size, sizeof size);
    }
    return pd_plan_give(last_plan(d), last_recorded(d)->in.sizes, d->sizes, err);
}

/* The plan for the batch becomes the last, and gets the images. */
static pd_status begin(pd_detector *d, purpose want, const pd_batch *b, pd_err *err)
{
    want.n = b->n;
    want.h = b->h;
    want.w = b->w;
    want.bytes = b->bytes != NULL;
    if (want.bytes) want.norm = b->norm;
    PD_TRY(use_plan(d, &want, err));
    PD_TRY(fill_sizes(d, b->info, b->n, b->h, b->w, err));
    pd_plan *plan = last_plan(d);
    const pd_detector_inputs *in = &last_recorded(d)->in;
    if (!want.bytes) return pd_plan_give(plan, in->image, b->pixels, err);
    PD_TRY(pd_grow(&d->mirrors, &d->mirrors_room, (size_t)b->n, sizeof *d->mirrors, err));
    for (int i = 0; i < b->n; i++) d->mirrors[i] = b->info[i].flipped;
    PD_TRY(pd_plan_give(plan, in->mirror, d->mirrors, err));
    return pd_plan_give(plan, in->bytes, b->bytes, err);
}

void pd_losses_add(pd_losses *out, const char *name, float value)
{
    out->name[out->count] = name;
    out->value[out->count++] = value;
    if (strstr(name, "loss")) out->loss += value;
}

/* What a device cannot say without being waited for (the CPU's operations do). */
static pd_status check_boxes(const pd_detector *d, const pd_batch *b, pd_err *err)
{
    for (int i = 0; i < b->n && d->device->kind != PD_CPU; i++) {
        if (b->n_boxes[i] < 0 || b->n_boxes[i] > b->max_boxes)
            return PD_FAIL(err, PD_EINVAL, "image %d of the batch has %d ground truths, the room is %d", i,
                           b->n_boxes[i], b->max_boxes);
        for (int k = 0; k < b->n_boxes[i]; k++) {
            const int label = b->box_labels[(size_t)i * (size_t)b->max_boxes + (size_t)k];
            if (label < 0 || label >= d->set.classes)
                return PD_FAIL(err, PD_EINVAL, "image %d of the batch: ground truth %d is of class %d, expected 0..%d",
                               i, k, label, d->set.classes - 1);
        }
    }
    return PD_OK;
}

static void read_losses(const pd_detector *d, const recorded *r, pd_losses *out)
{
    *out = (pd_losses){.count = 0};
    kinds[d->set.type]->losses(r->net, out);
}

pd_status pd_detector_loss(pd_detector *d, const pd_batch *b, int64_t seen, pd_losses *losses, pd_err *err)
{
    if (!d->set.train) return PD_FAIL(err, PD_EINVAL, "this detector was made without gradients");
    PD_TRY(pd_plan_cache_ready(d->plans, !losses, err));
    PD_TRY(check_boxes(d, b, err));
    PD_TRY(begin(d, (purpose){.form = train_form(&d->set), .train = true, .g = b->max_boxes}, b, err));
    PD_TRY(pd_grow(&d->draws, &d->draws_room, (size_t)b->n, sizeof *d->draws, err));
    for (int i = 0; i < b->n; i++) d->draws[i] = (int)((seen + i) & INT32_MAX);
    pd_plan *plan = last_plan(d);
    const recorded *r = last_recorded(d);
    PD_TRY(pd_plan_give(plan, r->in.boxes, b->boxes, err));
    PD_TRY(pd_plan_give(plan, r->in.labels, b->box_labels, err));
    PD_TRY(pd_plan_give(plan, r->in.count, b->n_boxes, err));
    PD_TRY(pd_plan_give(plan, r->in.draw, d->draws, err));
    PD_TRY(pd_plan_forward(plan, err));
    if (!losses) return pd_plan_cache_later(d->plans, err);
    PD_TRY(pd_plan_fetch(plan, NULL, err));
    read_losses(d, r, losses);
    return PD_OK;
}

pd_status pd_detector_late(pd_detector *d, pd_losses *losses, pd_err *err)
{
    const pd_planned *p;
    PD_TRY(pd_plan_cache_late(d->plans, &p, err));
    read_losses(d, p->net, losses);
    return PD_OK;
}

pd_status pd_detector_backward(pd_detector *d, bool accumulate, pd_err *err)
{
    const purpose *last = last_purpose(d);
    if (!last || !last->train) return PD_FAIL(err, PD_EINVAL, "no loss was computed");
    return pd_plan_backward(last_plan(d), accumulate, err);
}

/* ---- inference ---- */

void pd_raw_add(pd_raw *out, const void *data, pd_dtype type, pd_shape shape, const char *name, ...)
{
    va_list args;
    va_start(args, name);
    vsnprintf(out->name[out->count], sizeof out->name[0], name, args);
    va_end(args);
    out->data[out->count] = data;
    out->type[out->count] = type;
    out->shape[out->count++] = shape;
}

static pd_status run_heads(pd_detector *d, pd_form form, const pd_batch *b, pd_err *err)
{
    PD_TRY(begin(d, (purpose){.form = form}, b, err));
    PD_TRY(pd_plan_forward(last_plan(d), err));
    return pd_plan_fetch(last_plan(d), NULL, err);
}

pd_status pd_detector_raw(pd_detector *d, pd_form form, const float *pixels, const pd_image_info *info, int n, int h,
                          int w, pd_raw *out, pd_err *err)
{
    const pd_batch b = {
        .n = n, .h = h, .w = w, .pixels = (float *)(uintptr_t)pixels, .info = (pd_image_info *)(uintptr_t)info};
    PD_TRY(run_heads(d, form, &b, err)); /* which only reads */
    if (!out) return PD_OK;
    out->count = 0;
    kinds[d->set.type]->outputs(last_recorded(d)->net, out);
    return PD_OK;
}

pd_status pd_detector_decode(pd_detector *d, const pd_image_info *info, pd_detection *out, int *count, pd_err *err)
{
    const purpose *last = last_purpose(d);
    if (!last || last->train || last->limit) return PD_FAIL(err, PD_EINVAL, "no forward run to decode");
    return kinds[d->set.type]->decode(last_recorded(d)->net, &d->set, info, out, count, d->device->pool, err);
}

pd_detections_cfg pd_found_cfg(const pd_detector_settings *set)
{
    const pd_postprocess_cfg *test = &set->test;
    return (pd_detections_cfg){
        .pre_nms = test->pre_nms,
        .pairs = test->topk_mode == PD_TOPK_PAIRS,
        .score_thresh = test->score_thresh,
        .nms = {test->nms_iou, test->nms_exact, test->max_per_image},
        .soft = test->nms_type != PD_NMS_PLAIN,
        .soft_nms = {.method = test->nms_type == PD_NMS_SOFT_LINEAR ? PD_SOFT_LINEAR : PD_SOFT_GAUSSIAN,
                     .iou = test->nms_iou,
                     .sigma = test->soft_sigma,
                     .min_score = test->soft_min_score,
                     .max_keep = test->max_per_image},
        .coder = test->coder};
}

static pd_status fill_scales(pd_detector *d, const pd_image_info *info, int n, pd_err *err)
{
    PD_TRY(pd_grow(&d->scales, &d->scales_room, (size_t)n * 3, sizeof *d->scales, err));
    for (int i = 0; i < n; i++) {
        if (!(info[i].scale_x > 0) || !(info[i].scale_y > 0))
            return PD_FAIL(err, PD_EINVAL, "image %d has the scale factors %g and %g", i, (double)info[i].scale_x,
                           (double)info[i].scale_y);
        const float scales[3] = {info[i].scale_x, info[i].scale_y, info[i].flipped ? 1.f : 0.f};
        memcpy(d->scales + 3 * i, scales, sizeof scales);
    }
    return pd_plan_give(last_plan(d), last_recorded(d)->in.scales, d->scales, err);
}

static void copy_found(const pd_detections_out *found, int n, int limit, pd_detection *out, int *count)
{
    const pd_box *box = found->box->host;
    const float *score = found->score->host;
    const int *label = found->label->host;
    memcpy(count, found->count->host, (size_t)n * sizeof *count);
    for (int i = 0; i < n; i++)
        for (int r = i * limit; r < i * limit + count[i]; r++) out[r] = (pd_detection){box[r], score[r], label[r]};
}

static pd_status detect_there(pd_detector *d, pd_form form, const pd_batch *b, pd_detection *out, int *count,
                              pd_err *err)
{
    PD_TRY(begin(d, (purpose){.form = form, .limit = d->set.test.max_per_image}, b, err));
    PD_TRY(fill_scales(d, b->info, b->n, err));
    PD_TRY(pd_plan_forward(last_plan(d), err));
    PD_TRY(pd_plan_fetch(last_plan(d), NULL, err));
    copy_found(kinds[d->set.type]->found(last_recorded(d)->net), b->n, d->set.test.max_per_image, out, count);
    return PD_OK;
}

pd_status pd_detector_detect(pd_detector *d, pd_form form, const pd_batch *b, pd_detection *out, int *count,
                             pd_err *err)
{
    if (d->device->kind != PD_CPU) return detect_there(d, form, b, out, count, err);
    PD_TRY(run_heads(d, form, b, err));
    return pd_detector_decode(d, b->info, out, count, err);
}

pd_status pd_detector_run_one(pd_detector *d, pd_form form, const pd_batch *b, const pd_box *boxes, int count,
                              const void **net, pd_err *err)
{
    const bool lists = kinds[d->set.type]->proposals != NULL;
    PD_TRY(begin(d, (purpose){.form = form, .given = boxes != NULL, .lists = lists}, b, err));
    pd_plan *plan = last_plan(d);
    const recorded *r = last_recorded(d);
    if (boxes) {
        PD_TRY(pd_plan_give(plan, r->in.proposals, boxes, err));
        PD_TRY(pd_plan_give(plan, r->in.n_proposals, &count, err));
    }
    PD_TRY(pd_plan_forward(plan, err));
    PD_TRY(pd_plan_fetch(plan, NULL, err));
    if (boxes) r->in.proposals->host = (void *)(uintptr_t)boxes; /* for rows(); read only */
    *net = r->net;
    return PD_OK;
}

const pd_detector_kind *pd_detector_kind_of(const pd_detector *d)
{
    return kinds[d->set.type];
}

pd_pool *pd_detector_pool(const pd_detector *d)
{
    return d->device->pool;
}

void pd_detector_changed(pd_detector *d)
{
    pd_plan_cache_refresh(d->plans);
}

pd_plan *pd_detector_plan(pd_detector *d)
{
    return last_plan(d);
}

pd_tape *pd_detector_tape(pd_detector *d)
{
    const pd_planned *p = pd_plan_cache_last(d->plans);
    return p ? p->tape : NULL;
}

pd_status pd_record_detector(pd_tape *t, pd_form form, const pd_detector_settings *set, int h, int w, pd_err *err)
{
    void *net;
    PD_TRY(check_settings(set, err));
    const pd_detector_inputs in = record_inputs(t, 1, h, w, 0, 0, false, NULL);
    PD_TRY(record_net(t, form, set, &in, &net, err));
    freeze(pd_tape_params(t), set->frozen_stages);
    return PD_OK;
}

#define MEASURED_BOXES 64 /* room per image; matters little */

pd_status pd_detector_training_bytes(size_t *out, pd_device *device, const pd_detector_settings *set, int n, int h,
                                     int w, pd_err *err)
{
    pd_params *params = NULL;
    pd_tape *t = NULL;
    void *net;
    size_t planned, floats = 0, largest = 0;
    pd_status status = PD_OK;
    PD_TRY(check_settings(set, err));
    PD_TRY(pd_params_new(&params, err));
    PD_TRY_DONE(pd_tape_new(&t, params, true, err));
    const pd_detector_inputs in = record_inputs(t, n, h, w, MEASURED_BOXES, 0, false, NULL);
    PD_TRY_DONE(record_net(t, train_form(set), set, &in, &net, err));
    freeze(params, set->frozen_stages);
    PD_TRY_DONE(pd_plan_measure(&planned, t, device, PD_PLAN_TRAIN, err));
    for (size_t i = 0; i < pd_params_count(params); i++) {
        const pd_param *p = pd_params_at(params, i);
        floats += p->count * (p->kind == PD_WEIGHT ? 3 : 1);
        if (p->count > largest) largest = p->count;
    }
    *out = planned + (floats + 2 * largest) * sizeof(float);
done:
    pd_tape_free(t);
    pd_params_free(params);
    return status;
}

pd_status pd_detector_validation_bytes(size_t *out, pd_device *device, const pd_detector_settings *set, int h, int w,
                                       pd_err *err)
{
    pd_params *params = NULL;
    pd_tape *t = NULL;
    pd_status status = PD_OK;
    PD_TRY(pd_params_new(&params, err));
    PD_TRY_DONE(pd_tape_new(&t, params, false, err));
    PD_TRY_DONE(pd_record_detector(t, train_form(set), set, h, w, err));
    status = pd_plan_measure_constants(out, t, device, err);
done:
    pd_tape_free(t);
    pd_params_free(params);
    return status;
}

const char *pd_detector_name(pd_detector_type type)
{
    return kinds[type]->name;
}

const char *pd_detector_title(pd_detector_type type)
{
    return kinds[type]->title;
}

pd_status pd_detector_parse(pd_detector_type *out, const char *name, pd_err *err)
{
    for (int i = 0; i < PD_DETECTOR_TYPES; i++)
        if (!strcmp(kinds[i]->name, name)) {
            *out = (pd_detector_type)i;
            return PD_OK;
        }
    return PD_FAIL(err, PD_EINVAL, "\"%s\" is no detector; there are retinanet, cascade_rcnn, faster_rcnn", name);
}
