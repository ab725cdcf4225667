#include "tools/cls_config.h"
#include "backbones/resnet.h"

#include <string.h>

static const char *const augment_policies[] = {"none", "trivial", "rand", NULL}; /* as in pd_augment_kind */
typedef struct pd_augment_cfg augment_cfg;
static const pd_field augment_fields[] = {
    PD_ENUM(augment_cfg, policy, augment_policies, .text = "none", .doc = "TrivialAugment or RandAugment, on bytes"),
    PD_INT(augment_cfg, layers, .def = 2, .min = 0, .max = PD_AUGMENT_LAYERS, .doc = "rand: operations per image"),
    PD_DOUBLE(augment_cfg, magnitude, .def = 9, .min = 0, .max = 10, .doc = "rand: their strength"),
    PD_DOUBLE(augment_cfg, spread, .def = 0.5, .min = 0, .max = 10, .doc = "rand: its standard deviation"),
    PD_DOUBLE(augment_cfg, chance, .def = 0.5, .min = 0, .max = 1, .doc = "rand: probability of each"),
};
static const pd_table augment_table = PD_TABLE(augment_cfg, augment_fields);

static const pd_field train_crop_fields[] = {
    PD_INT(pd_train_crop_cfg, crop, .def = 224, .min = 8, .max = 4096, .doc = "side of the training image"),
    PD_DOUBLES(pd_train_crop_cfg, area, .text = "[0.1, 1.0]", .min = 0, .max = 1, .above_min = true,
               .doc = "share of the image that is cut out"),
    PD_DOUBLES(pd_train_crop_cfg, aspect, .text = "[0.8, 1.25]", .min = 0, .max = 100, .above_min = true,
               .doc = "width / height of the cut"),
    PD_DOUBLE(pd_train_crop_cfg, flip, .def = 0.5, .min = 0, .max = 1, .doc = "probability of a mirror image"),
    PD_OBJECT(pd_train_crop_cfg, augment, &augment_table, .doc = "changes of colour and shape"),
    PD_DOUBLE(pd_train_crop_cfg, erase, .def = 0, .min = 0, .max = 1, .doc = "probability of random erasing"),
};
static pd_status check_train_crop(const void *config, pd_err *err)
{
    const pd_train_crop_cfg *c = config;
    pd_transform t = pd_transform_train();
    memcpy(t.area, c->area, sizeof t.area);
    memcpy(t.aspect, c->aspect, sizeof t.aspect);
    return pd_transform_check(&t, err);
}
static const pd_table train_crop_table = PD_TABLE(pd_train_crop_cfg, train_crop_fields, .check = check_train_crop);

static const pd_field val_crop_fields[] = {
    PD_INT(pd_val_crop_cfg, resize, .def = 256, .min = 0, .max = 4096, .doc = "shorter side before the cut; 0: as it is"),
    PD_INT(pd_val_crop_cfg, crop, .def = 224, .min = 8, .max = 4096, .doc = "side of the validation image"),
};
static const pd_table val_crop_table = PD_TABLE(pd_val_crop_cfg, val_crop_fields);

typedef struct pd_cls_model_cfg model_cfg;
static const pd_field model_fields[] = {
    PD_STRING(model_cfg, arch, .text = "pd_a_resnet18", .doc = "network: [se_|ge_|ac_|pd_a_|pd_b_]resnet{18,34,50,101,152}"),
    PD_STRING(model_cfg, branches, .doc = "PD-A, PD-B: some of s1,s2,skeleton,group; default all"),
    PD_INT(model_cfg, num_classes, .def = 0, .min = 0, .max = 1000000, .doc = "0: as many as the training set has folders"),
    PD_BOOL(model_cfg, zero_init_residual, .def = 0, .doc = "residual blocks begin as the identity (Goyal et al. 2017)"),
    PD_BOOL(model_cfg, sync_bn, .def = 0, .doc = "several processes: batch norm over the batches of all of them"),
};
static pd_status check_model(const void *config, pd_err *err)
{
    pd_arch arch;
    return pd_arch_parse(&arch, ((const model_cfg *)config)->arch, ((const model_cfg *)config)->branches, err);
}
static const pd_table model_table = PD_TABLE(model_cfg, model_fields, .check = check_model);

static const char *const policies[] = {"skip", "error", NULL};
typedef struct pd_cls_data_cfg data_cfg;
static const pd_field data_fields[] = {
    PD_STRING(data_cfg, root, .doc = "folder with train/CLASS/* and val/CLASS/*"),
    PD_STRING(data_cfg, train, .text = "train", .doc = "training folder, in root or absolute"),
    PD_STRING(data_cfg, val, .text = "val", .doc = "validation folder, in root or absolute"),
    PD_INT(data_cfg, workers, .def = 0, .min = 0, .max = 1024, .doc = "loading threads; 0: one per processor"),
    PD_BOOL(data_cfg, shuffle, .def = 1, .doc = "a new order each epoch"),
    PD_OBJECT_OR_NONE(data_cfg, train_transform, has_train_transform, &train_crop_table, .def = 1,
                      .doc = "random resized crop; \"none\": images as they are, all of one size"),
    PD_OBJECT_OR_NONE(data_cfg, val_transform, has_val_transform, &val_crop_table, .def = 1,
                      .doc = "resize and centre crop, or \"none\""),
    PD_DOUBLES(data_cfg, mean, .text = "[0.485, 0.456, 0.406]", .min = -10, .max = 10, .doc = "of RGB in [0, 1]"),
    PD_DOUBLES(data_cfg, std, .text = "[0.229, 0.224, 0.225]", .min = 0, .max = 10, .above_min = true, .doc = "of RGB in [0, 1]"),
    PD_ENUM(data_cfg, bad_images, policies, .text = "skip", .doc = "an image that cannot be read: skip and count, or error"),
};
static const pd_table data_table = PD_TABLE(data_cfg, data_fields);

static const char *const losses[] = {"softmax", "bce", NULL};
typedef struct pd_cls_train_cfg train_cfg;
static const pd_field train_fields[] = {
    PD_INT(train_cfg, epochs, .def = 100, .min = 0, .max = 100000, .doc = "passes over the training set"),
    PD_INT(train_cfg, batch_size, .def = 256, .min = 1, .max = 65536, .doc = "images per forward pass, of all processes together"),
    PD_INT(train_cfg, accumulate, .def = 1, .min = 1, .max = 65536, .doc = "forward passes per optimiser step"),
    PD_INT64(train_cfg, max_steps, .def = 0, .min = 0, .max = 1e15, .doc = "stop after so many steps; 0: no limit"),
    PD_INT(train_cfg, log_interval, .def = 50, .min = 1, .max = 1000000, .doc = "steps between log lines"),
    PD_INT(train_cfg, save_interval, .def = 0, .min = 0, .max = 100000000, .doc = "steps between checkpoints; 0: one each epoch"),
    PD_INT64(train_cfg, seed, .def = 1, .min = 0, .max = 9e15, .doc = "of weights, order and augmentation"),
    PD_BOOL(train_cfg, drop_last, .def = 1, .doc = "leave out the last, smaller batch of an epoch"),
    PD_DOUBLE(train_cfg, label_smoothing, .def = 0, .min = 0, .max = 0.99, .doc = "Szegedy et al. 2016"),
    PD_ENUM(train_cfg, loss, losses, .text = "softmax", .doc = "softmax cross-entropy, or bce: binary for every class"),
    PD_DOUBLE(train_cfg, bce_threshold, .def = 0, .min = 0, .max = 0.99, .doc = "bce: targets over this are 1, others 0; 0: as they are"),
    PD_DOUBLE(train_cfg, mixup, .def = 0, .min = 0, .max = 100, .doc = "alpha of mixup; 0: none"),
    PD_DOUBLE(train_cfg, cutmix, .def = 0, .min = 0, .max = 100, .doc = "alpha of CutMix; 0: none; with mixup: one of both"),
    PD_DOUBLE(train_cfg, ema, .def = 0, .min = 0, .max = 0.999999, .doc = "decay of the weights' moving average; 0: none"),
    PD_STRING(train_cfg, precision, .doc = "fp32, tf32, fp16 or bf16; default: fp32 on the CPU, bf16 on CUDA"),
    PD_DOUBLE(train_cfg, rank_timeout, .def = 30, .min = 0.5, .max = 86400,
              .doc = "several processes: seconds of silence after which one counts as lost"),
};
static const pd_table train_table = PD_TABLE(train_cfg, train_fields);

static const pd_field cls_fields[] = {
    PD_OBJECT(pd_cls_config, model, &model_table, .doc = "the network"),
    PD_OBJECT(pd_cls_config, data, &data_table, .doc = "images"),
    PD_OBJECT(pd_cls_config, train, &train_table, .doc = "the run"),
    PD_OBJECT(pd_cls_config, optimizer, &pd_optimizer_table, .doc = "SGD, AdamW or LAMB"),
    PD_OBJECT(pd_cls_config, schedule, &pd_schedule_table, .doc = "learning rate over time"),
    PD_STRING(pd_cls_config, work_dir, .doc = "the run's folder; default runs/<name of the configuration>"),
};
const pd_table pd_cls_table = PD_TABLE(pd_cls_config, cls_fields);

static void set_normalisation(pd_transform *t, const pd_cls_config *cfg)
{
    memcpy(t->mean, cfg->data.mean, sizeof t->mean);
    memcpy(t->std, cfg->data.std, sizeof t->std);
}

pd_transform pd_cls_train_transform(const pd_cls_config *cfg)
{
    pd_transform t = cfg->data.has_train_transform ? pd_transform_train() : pd_transform_none();
    if (cfg->data.has_train_transform) {
        t.crop = cfg->data.train_transform.crop;
        t.flip = cfg->data.train_transform.flip;
        t.erase = cfg->data.train_transform.erase;
        const augment_cfg *a = &cfg->data.train_transform.augment;
        t.augment = (pd_augment){(pd_augment_kind)a->policy, a->layers, a->magnitude, a->spread, a->chance};
        memcpy(t.area, cfg->data.train_transform.area, sizeof t.area);
        memcpy(t.aspect, cfg->data.train_transform.aspect, sizeof t.aspect);
    }
    set_normalisation(&t, cfg);
    return t;
}

pd_transform pd_cls_val_transform(const pd_cls_config *cfg)
{
    pd_transform t = cfg->data.has_val_transform ? pd_transform_val() : pd_transform_none();
    if (cfg->data.has_val_transform) {
        t.crop = cfg->data.val_transform.crop;
        t.resize = cfg->data.val_transform.resize;
    }
    set_normalisation(&t, cfg);
    return t;
}

void pd_cls_loss_settings(pd_classifier_settings *out, const pd_cls_config *cfg)
{
    out->label_smoothing = (float)cfg->train.label_smoothing;
    out->mixes = cfg->train.mixup > 0 || cfg->train.cutmix > 0;
    out->sigmoid = cfg->train.loss == 1;
    out->threshold = (float)cfg->train.bce_threshold;
}
