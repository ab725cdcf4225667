#include "tools/det_config.h"
#include "backbones/resnet.h"

#include <string.h>

typedef struct pd_det_backbone_cfg backbone_cfg;
static const pd_field backbone_fields[] = {
    PD_STRING(backbone_cfg, arch, .text = "resnet50", .doc = "network: [se_|ge_|ac_|pd_a_|pd_b_]resnet{18,34,50,101,152}"),
    PD_STRING(backbone_cfg, branches, .doc = "PD-A, PD-B: some of s1,s2,skeleton,group; default all"),
    PD_INT(backbone_cfg, frozen_stages, .def = 1, .min = -1, .max = 4, .doc = "-1: train all; k: stem and stages 1..k keep still"),
    PD_BOOL(backbone_cfg, fold_first, .def = 0, .doc = "weights are pd_fold's, and are trained folded"),
};
static pd_status check_backbone(const void *config, pd_err *err)
{
    pd_arch arch;
    return pd_arch_parse(&arch, ((const backbone_cfg *)config)->arch, ((const backbone_cfg *)config)->branches, err);
}
static const pd_table backbone_table = PD_TABLE(backbone_cfg, backbone_fields, .check = check_backbone);

static const char *const convs[] = {"plain", "pd_a", "pd_b", NULL}; /* as in pd_mixture */
static const char *const norms[] = {"linear", "batch", NULL};
typedef struct pd_det_conv_cfg conv_cfg;
static const pd_field conv_fields[] = {
    PD_ENUM(conv_cfg, conv, convs, .text = "plain", .doc = "the 3x3 convolutions: plain, pd_a or pd_b"),
    PD_STRING(conv_cfg, branches, .doc = "pd_a, pd_b: some of s1,s2,skeleton,group; default all"),
    PD_INT(conv_cfg, groups, .def = 0, .min = 0, .max = 4096, .doc = "of the group branch; 0: gcd of 64 and the channels"),
    PD_ENUM(conv_cfg, norm, norms, .text = "linear", .doc = "pd_a, pd_b: a scale and bias per branch, or batch norms"),
};
static pd_status check_conv(const void *config, pd_err *err)
{
    const conv_cfg *c = config;
    unsigned mask;
    if (c->branches && c->conv == PD_PLAIN_CONV)
        return PD_FAIL(err, PD_EINVAL, "branches are \"%s\", but conv is plain; pd_a and pd_b have branches", c->branches);
    return c->branches ? pd_branches_parse(&mask, c->branches, err) : PD_OK;
}
static const pd_table conv_table = PD_TABLE(conv_cfg, conv_fields, .check = check_conv);

typedef struct pd_det_retina_cfg retina_cfg;
static const pd_field retina_fields[] = {
    PD_DOUBLE(retina_cfg, focal_alpha, .def = 0.25, .min = 0, .max = 1, .doc = "weight of positives; Lin et al. 2017, eq. 5"),
    PD_DOUBLE(retina_cfg, focal_gamma, .def = 2, .min = 0, .max = 10, .doc = "focusing parameter, eq. 5"),
    PD_DOUBLE(retina_cfg, smooth_l1_beta, .def = 0, .min = 0, .max = 10, .doc = "box loss; 0: L1"),
    PD_DOUBLE(retina_cfg, pos_iou, .def = 0.5, .min = 0, .max = 1, .doc = "anchors at least so near to an object are positive"),
    PD_DOUBLE(retina_cfg, neg_iou, .def = 0.4, .min = 0, .max = 1, .doc = "anchors farther than this are background"),
    PD_DOUBLE(retina_cfg, min_pos_iou, .def = 0, .min = 0, .max = 1, .doc = "an object's best anchor is positive from here"),
    PD_INT(retina_cfg, norm_group, .def = 2, .min = 1, .max = 4096, .doc = "images that share one loss normaliser"),
};
static const pd_table retina_table = PD_TABLE(retina_cfg, retina_fields);

typedef struct pd_det_rpn_cfg rpn_cfg;
static const pd_field rpn_fields[] = {
    PD_DOUBLE(rpn_cfg, pos_iou, .def = 0.7, .min = 0, .max = 1, .above_min = true,
              .doc = "anchors at least so near to an object are positive"),
    PD_DOUBLE(rpn_cfg, neg_iou, .def = 0.3, .min = 0, .max = 1, .doc = "anchors farther than this are background"),
    PD_DOUBLE(rpn_cfg, min_pos_iou, .def = 0.3, .min = 0, .max = 1, .doc = "an object's best anchor is positive from here"),
    PD_INT(rpn_cfg, border, .def = 0, .min = -1, .max = 100000, .doc = "pixels that a trained anchor may reach outside; -1: any"),
    PD_INT(rpn_cfg, samples, .def = 256, .min = 1, .max = 100000, .doc = "anchors trained per image"),
    PD_DOUBLE(rpn_cfg, pos_fraction, .def = 0.5, .min = 0, .max = 1, .doc = "of them positive at most"),
    PD_DOUBLE(rpn_cfg, smooth_l1_beta, .def = 1.0 / 9, .min = 0, .max = 10, .doc = "box loss; 0: L1"),
    PD_INT(rpn_cfg, train_pre_nms, .def = 2000, .min = 1, .max = 1000000, .doc = "training: best anchors per level that are decoded"),
    PD_INT(rpn_cfg, train_proposals, .def = 2000, .min = 1, .max = 100000, .doc = "training: proposals per image"),
    PD_INT(rpn_cfg, test_pre_nms, .def = 1000, .min = 1, .max = 1000000, .doc = "detection: best anchors per level that are decoded"),
    PD_INT(rpn_cfg, test_proposals, .def = 1000, .min = 1, .max = 100000, .doc = "detection: proposals per image"),
    PD_DOUBLE(rpn_cfg, nms_iou, .def = 0.7, .min = 0, .max = 1, .doc = "overlap of one level that suppresses"),
};
static const pd_table rpn_table = PD_TABLE(rpn_cfg, rpn_fields);

typedef struct pd_det_stages_cfg stages_cfg;
static const pd_field stages_fields[] = {
    PD_DOUBLE_LIST(stages_cfg, ious, n_ious, .text = "[0.5, 0.6, 0.7]", .min = 0, .max = 1, .above_min = true,
                   .doc = "one per stage: boxes at least so near to an object are positive"),
    PD_DOUBLE_LIST(stages_cfg, weights, n_weights, .text = "[1, 0.5, 0.25]", .min = 0, .max = 1000,
                   .doc = "one per stage: of its losses"),
    PD_DOUBLE_LIST(stages_cfg, stds, n_stds,
                   .text = "[0.1, 0.1, 0.2, 0.2, 0.05, 0.05, 0.1, 0.1, 0.033, 0.033, 0.067, 0.067]", .min = 0,
                   .max = 100, .above_min = true, .doc = "four per stage: of dx, dy, dw, dh"),
    PD_INT(stages_cfg, samples, .def = 512, .min = 1, .max = 100000, .doc = "boxes trained per image and stage"),
    PD_DOUBLE(stages_cfg, pos_fraction, .def = 0.25, .min = 0, .max = 1, .doc = "of them positive at most"),
    PD_DOUBLE(stages_cfg, smooth_l1_beta, .def = 1, .min = 0, .max = 10, .doc = "box loss; 0: L1"),
    PD_BOOL(stages_cfg, low_quality, .def = 0, .doc = "an object takes its best box from a nearer one (mmdetection 1.x)"),
    PD_BOOL(stages_cfg, reg_class_agnostic, .def = 1, .doc = "one box for all classes; false: one for each, with one stage"),
};
static pd_status check_stages(const void *config, pd_err *err)
{
    const stages_cfg *c = config;
    if (c->n_ious < 1) return PD_FAIL(err, PD_EINVAL, "ious is empty: one per stage is wanted");
    if (c->n_weights != c->n_ious || c->n_stds != 4 * c->n_ious)
        return PD_FAIL(err, PD_EINVAL, "ious has %d stages, so %d weights and %d stds are wanted, not %d and %d", c->n_ious,
                       c->n_ious, 4 * c->n_ious, c->n_weights, c->n_stds);
    if (!c->reg_class_agnostic && c->n_ious > 1)
        return PD_FAIL(err, PD_EINVAL, "reg_class_agnostic is false, which goes with one stage, but ious has %d", c->n_ious);
    return PD_OK;
}
static const pd_table stages_table = PD_TABLE(stages_cfg, stages_fields, .check = check_stages);

static const char *const samplers[] = {"random", "first", NULL};
typedef struct pd_det_rcnn_cfg rcnn_cfg;
static const pd_field rcnn_fields[] = {
    PD_ENUM(rcnn_cfg, sampler, samplers, .text = "random", .doc = "which boxes are trained; first: lowest index, to compare programs"),
    PD_INT(rcnn_cfg, norm_group, .def = 2, .min = 1, .max = 4096, .doc = "images that share one loss normaliser"),
    PD_OBJECT(rcnn_cfg, rpn, &rpn_table, .doc = "proposals"),
    PD_OBJECT(rcnn_cfg, stages, &stages_table, .doc = "box heads; faster_rcnn has one"),
};
static const pd_table rcnn_table = PD_TABLE(rcnn_cfg, rcnn_fields);

static const char *const nms_types[] = {"plain", "soft_linear", "soft_gaussian", NULL};
static const char *const topk_modes[] = {"anchors", "pairs", NULL};
typedef struct pd_det_test_cfg test_cfg;
static const pd_field test_fields[] = {
    PD_INT(test_cfg, pre_nms, .def = 1000, .min = 1, .max = 1000000, .doc = "retinanet: best anchors per level that are decoded"),
    PD_DOUBLE(test_cfg, score_thr, .def = 0.05, .min = 0, .max = 1, .doc = "a detection scores more than this"),
    PD_DOUBLE(test_cfg, nms_iou, .def = 0.5, .min = 0, .max = 1, .doc = "overlap of one class that suppresses"),
    PD_INT(test_cfg, max_per_image, .def = 100, .min = 1, .max = 100000, .doc = "detections kept per image"),
    PD_ENUM(test_cfg, topk_mode, topk_modes, .text = "anchors", .doc = "retinanet: pre_nms counts anchors, or (anchor, class) pairs"),
    PD_ENUM(test_cfg, nms_type, nms_types, .text = "plain", .doc = "suppression drops boxes, or lowers their scores (Soft-NMS)"),
    PD_DOUBLE(test_cfg, soft_sigma, .def = 0.5, .min = 0, .max = 100, .above_min = true, .doc = "of soft_gaussian"),
    PD_DOUBLE(test_cfg, soft_min_score, .def = 0.05, .min = 0, .max = 1, .doc = "soft: boxes whose score falls lower go"),
    PD_BOOL(test_cfg, nms_exact, .def = 0, .doc = "class by class instead of mmdetection's float32 offsets"),
};
static const pd_table test_table = PD_TABLE(test_cfg, test_fields);

static const char *const types[] = {"retinanet", "cascade_rcnn", "faster_rcnn", NULL}; /* as in pd_detector_type */
typedef struct pd_det_model_cfg model_cfg;
static const pd_field model_fields[] = {
    PD_ENUM(model_cfg, type, types, .text = "retinanet", .doc = "the detector"),
    PD_INT(model_cfg, num_classes, .def = 0, .min = 0, .max = 100000, .doc = "0: the categories of the training annotations"),
    PD_OBJECT(model_cfg, backbone, &backbone_table, .doc = "always normalised by its running statistics"),
    PD_OBJECT(model_cfg, neck, &conv_table, .doc = "output convolutions of the pyramid"),
    PD_OBJECT(model_cfg, head, &conv_table, .doc = "towers of retinanet, the RPN's convolution of the others"),
    PD_OBJECT(model_cfg, retinanet, &retina_table, .doc = "of retinanet: losses"),
    PD_OBJECT(model_cfg, rcnn, &rcnn_table, .doc = "of cascade_rcnn and faster_rcnn: proposals, stages, losses"),
    PD_OBJECT(model_cfg, test, &test_table, .doc = "from head outputs to detections"),
};
static const pd_table model_table = PD_TABLE(model_cfg, model_fields);

static const pd_field set_fields[] = {
    PD_STRING(pd_det_set_cfg, images, .doc = "folder that file names are relative to"),
    PD_STRING(pd_det_set_cfg, annotations, .doc = "COCO annotation file"),
};
static const pd_table set_table = PD_TABLE(pd_det_set_cfg, set_fields);

static const char *const policies[] = {"skip", "error", NULL};
static const char *const short_side_modes[] = {"value", "range", NULL};
typedef struct pd_det_data_cfg data_cfg;
static const pd_field data_fields[] = {
    PD_OBJECT(data_cfg, train, &set_table, .doc = "what is trained on"),
    PD_OBJECT(data_cfg, val, &set_table, .doc = "what is validated on"),
    PD_STRING_LIST(data_cfg, classes, n_classes, .doc = "names of the classes to learn; empty: all of the training file"),
    PD_INTS(data_cfg, resize, .text = "[1333, 800]", .min = 32, .max = 16384, .doc = "bounds of the longer and the shorter side"),
    PD_INT_LIST(data_cfg, short_sides, n_short_sides, .min = 32, .max = 16384,
                .doc = "training: bounds of the shorter side to draw from, for each image; empty: that of resize"),
    PD_ENUM(data_cfg, short_side_mode, short_side_modes, .text = "value",
            .doc = "one of short_sides, or any number from the least to the largest"),
    PD_DOUBLE(data_cfg, flip, .def = 0.5, .min = 0, .max = 1, .doc = "probability of a mirror image in training"),
    PD_BOOL(data_cfg, shuffle, .def = 1, .doc = "a new order each epoch"),
    PD_BOOL(data_cfg, group_aspect, .def = 1, .doc = "batches of wide or of high images, not mixed"),
    PD_BOOL(data_cfg, keep_empty, .def = 0, .doc = "train on images without any annotation too"),
    PD_INT(data_cfg, workers, .def = 0, .min = 0, .max = 1024, .doc = "loading threads; 0: one per processor"),
    PD_INT(data_cfg, min_side, .def = 32, .min = 0, .max = 16384, .doc = "smaller training images are left out"),
    PD_ENUM(data_cfg, bad_images, policies, .text = "skip", .doc = "an image that cannot be read: skip and count, or error"),
    PD_DOUBLES(data_cfg, mean, .text = "[123.675, 116.28, 103.53]", .min = -1000, .max = 1000, .doc = "of RGB in [0, 255]"),
    PD_DOUBLES(data_cfg, std, .text = "[58.395, 57.12, 57.375]", .min = 0, .max = 1000, .above_min = true, .doc = "of RGB in [0, 255]"),
};
static const pd_table data_table = PD_TABLE(data_cfg, data_fields);

typedef struct pd_det_train_cfg train_cfg;
static const pd_field train_fields[] = {
    PD_INT(train_cfg, epochs, .def = 12, .min = 0, .max = 100000, .doc = "passes over the training set"),
    PD_INT(train_cfg, images_per_step, .def = 16, .min = 1, .max = 4096, .doc = "images per optimiser step, of all processes together"),
    PD_INT(train_cfg, micro_batch, .def = 2, .min = 1, .max = 4096, .doc = "images per forward pass of one process; divides images_per_step"),
    PD_INT(train_cfg, lr_images, .def = 16, .min = 1, .max = 4096,
           .doc = "images per step that optimizer.lr is meant for; --auto-scale-lr scales by images_per_step / lr_images"),
    PD_INT(train_cfg, early_stop, .def = 0, .min = 0, .max = 100000,
           .doc = "stop after so many validations without a better AP; 0: never"),
    PD_INT64(train_cfg, max_steps, .def = 0, .min = 0, .max = 1e15, .doc = "stop after so many steps; 0: no limit"),
    PD_INT(train_cfg, log_interval, .def = 50, .min = 1, .max = 1000000, .doc = "steps between log lines"),
    PD_INT(train_cfg, save_interval, .def = 0, .min = 0, .max = 100000000, .doc = "steps between checkpoints; 0: one each epoch"),
    PD_INT(train_cfg, val_interval, .def = 1, .min = 1, .max = 100000, .doc = "epochs between validations (the last always)"),
    PD_INT(train_cfg, pictures, .def = 8, .min = 0, .max = 100, .doc = "validation images drawn with truth and detections"),
    PD_INT64(train_cfg, seed, .def = 1, .min = 0, .max = 9e15, .doc = "of weights, order and augmentation"),
    PD_DOUBLE(train_cfg, ema, .def = 0, .min = 0, .max = 0.999999, .doc = "decay of the weights' moving average; 0: none"),
    PD_STRING(train_cfg, precision, .doc = "fp32, tf32, fp16 or bf16; default: fp32 on the CPU, bf16 on CUDA"),
    PD_DOUBLE(train_cfg, rank_timeout, .def = 30, .min = 0.5, .max = 86400,
              .doc = "several processes: seconds of silence after which one counts as lost"),
};
static const pd_table train_table = PD_TABLE(train_cfg, train_fields);

static const pd_field det_fields[] = {
    PD_OBJECT(pd_det_config, model, &model_table, .doc = "the network"),
    PD_OBJECT(pd_det_config, data, &data_table, .doc = "images and annotations"),
    PD_OBJECT(pd_det_config, train, &train_table, .doc = "the run"),
    PD_OBJECT(pd_det_config, optimizer, &pd_optimizer_table, .doc = "SGD"),
    PD_OBJECT(pd_det_config, schedule, &pd_schedule_table, .doc = "learning rate over time"),
    PD_STRING(pd_det_config, backbone_file, .doc = "a classifier's weights to start the backbone from"),
    PD_STRING(pd_det_config, work_dir, .doc = "the run's folder; default runs/<name of the configuration>"),
};

static pd_status check(const void *config, pd_err *err)
{
    const pd_det_config *c = config;
    if (c->train.images_per_step % c->train.micro_batch)
        return PD_FAIL(err, PD_EINVAL, "train.micro_batch is %d, which does not divide train.images_per_step, %d",
                       c->train.micro_batch, c->train.images_per_step);
    if (c->model.retinanet.neg_iou > c->model.retinanet.pos_iou)
        return PD_FAIL(err, PD_EINVAL, "model.retinanet.neg_iou is %g, more than pos_iou, %g", c->model.retinanet.neg_iou,
                       c->model.retinanet.pos_iou);
    if (c->model.rcnn.rpn.neg_iou > c->model.rcnn.rpn.pos_iou)
        return PD_FAIL(err, PD_EINVAL, "model.rcnn.rpn.neg_iou is %g, more than pos_iou, %g", c->model.rcnn.rpn.neg_iou,
                       c->model.rcnn.rpn.pos_iou);
    if (c->model.type == PD_FASTER_RCNN && c->model.rcnn.stages.n_ious != 1)
        return PD_FAIL(err, PD_EINVAL, "model.type is faster_rcnn, which has one stage: model.rcnn.stages.ious has %d "
                       "(configs/base/faster.json sets all of it)", c->model.rcnn.stages.n_ious);
    return PD_OK;
}
const pd_table pd_det_table = PD_TABLE(pd_det_config, det_fields, .check = check);

/* model.rcnn */
static void rcnn_settings(pd_cascade_cfg *out, const pd_det_config *cfg)
{
    const rcnn_cfg *m = &cfg->model.rcnn;
    const rpn_cfg *r = &m->rpn;
    const bool first = m->sampler == 1, exact = cfg->model.test.nms_exact;
    const uint64_t seed = (uint64_t)cfg->train.seed;
    out->rpn.assign.pos = (float)r->pos_iou;
    out->rpn.assign.neg = (float)r->neg_iou;
    out->rpn.assign.min_pos = (float)r->min_pos_iou;
    out->rpn.assign.border = r->border;
    out->rpn.sample = (pd_sample_cfg){.num = r->samples, .fraction = (float)r->pos_fraction, .first = first, .seed = seed};
    out->rpn.smooth_l1_beta = (float)r->smooth_l1_beta;
    out->rpn.train = (pd_proposals_cfg){r->train_pre_nms, r->train_proposals, (float)r->nms_iou, exact, pd_box_coder_unit()};
    out->rpn.test = (pd_proposals_cfg){r->test_pre_nms, r->test_proposals, (float)r->nms_iou, exact, pd_box_coder_unit()};
    out->stages = m->stages.n_ious;
    for (int k = 0; k < out->stages; k++) {
        pd_box_stage_cfg *s = &out->stage[k];
        *s = (pd_box_stage_cfg){.assign = pd_assign_cfg_roi((float)m->stages.ious[k]), .weight = (float)m->stages.weights[k]};
        s->assign.low_quality = m->stages.low_quality;
        for (int i = 0; i < 4; i++) s->coder.std[i] = (float)m->stages.stds[4 * k + i];
    }
    out->sample = (pd_sample_cfg){
        .num = m->stages.samples, .fraction = (float)m->stages.pos_fraction, .first = first, .seed = seed};
    out->smooth_l1_beta = (float)m->stages.smooth_l1_beta;
    out->class_boxes = !m->stages.reg_class_agnostic;
    out->norm_group = m->norm_group;
}

static pd_status head_conv(pd_head_conv *out, const conv_cfg *c, pd_err *err)
{
    *out = (pd_head_conv){.mixture = (pd_mixture)c->conv, .branches = PD_ALL_BRANCHES, .groups = c->groups,
                          .batch_norm = c->norm == 1};
    return c->branches ? pd_branches_parse(&out->branches, c->branches, err) : PD_OK;
}

pd_status pd_det_settings(pd_detector_settings *out, const pd_det_config *cfg, int classes, pd_err *err)
{
    const struct pd_det_model_cfg *m = &cfg->model;
    pd_detector_settings s = pd_detector_defaults((pd_detector_type)m->type);
    s.frozen_stages = m->backbone.frozen_stages;
    s.fold_first = m->backbone.fold_first;
    PD_TRY(head_conv(&s.neck, &m->neck, err));
    PD_TRY(head_conv(&s.head, &m->head, err));
    s.classes = m->num_classes ? m->num_classes : classes;
    PD_TRY(pd_arch_parse(&s.arch, m->backbone.arch, m->backbone.branches, err));
    s.retinanet.focal = (pd_focal_cfg){.alpha = (float)m->retinanet.focal_alpha, .gamma = (float)m->retinanet.focal_gamma};
    s.retinanet.smooth_l1_beta = (float)m->retinanet.smooth_l1_beta;
    s.retinanet.assign.pos = (float)m->retinanet.pos_iou;
    s.retinanet.assign.neg = (float)m->retinanet.neg_iou;
    s.retinanet.assign.min_pos = (float)m->retinanet.min_pos_iou;
    s.retinanet.norm_group = m->retinanet.norm_group;
    rcnn_settings(&s.cascade, cfg);
    s.test.pre_nms = m->test.pre_nms;
    s.test.score_thresh = (float)m->test.score_thr;
    s.test.nms_iou = (float)m->test.nms_iou;
    s.test.nms_type = (pd_nms_type)m->test.nms_type;
    s.test.soft_sigma = (float)m->test.soft_sigma;
    s.test.soft_min_score = (float)m->test.soft_min_score;
    s.test.nms_exact = m->test.nms_exact;
    s.test.max_per_image = m->test.max_per_image;
    s.test.topk_mode = (pd_topk_mode)m->test.topk_mode;
    *out = s;
    return PD_OK;
}

pd_transform pd_det_transform(const pd_det_config *cfg, bool train)
{
    pd_transform t = pd_transform_detect(train);
    t.long_side = cfg->data.resize[0];
    t.short_side = cfg->data.resize[1];
    if (train) {
        t.n_short_sides = cfg->data.n_short_sides;
        t.short_range = cfg->data.short_side_mode == 1;
        memcpy(t.short_sides, cfg->data.short_sides, sizeof t.short_sides);
    }
    t.flip = train ? cfg->data.flip : 0;
    t.divisor = PD_DETECTOR_DIVISOR;
    t.divide = 1;
    memcpy(t.mean, cfg->data.mean, sizeof t.mean);
    memcpy(t.std, cfg->data.std, sizeof t.std);
    return t;
}
