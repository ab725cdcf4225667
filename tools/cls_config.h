/* cls_config.h: the configuration of pd_cls_train: structs, and the tables that read and document them. */
#ifndef PD_CLS_CONFIG_H
#define PD_CLS_CONFIG_H

#include "backbones/classifier.h"
#include "datasets/transform.h"
#include "tools/train_run.h"

typedef struct pd_train_crop_cfg {
    int crop;
    double area[2], aspect[2], flip, erase;
    struct pd_augment_cfg {
        int policy, layers; /* policy: pd_augment_kind */
        double magnitude, spread, chance;
    } augment;
} pd_train_crop_cfg;

typedef struct pd_val_crop_cfg {
    int resize, crop;
} pd_val_crop_cfg;

typedef enum pd_bad_policy { PD_POLICY_SKIP, PD_POLICY_ERROR } pd_bad_policy;

typedef struct pd_cls_config {
    struct pd_cls_model_cfg {
        const char *arch, *branches;
        int num_classes;
        bool zero_init_residual, sync_bn;
    } model;
    struct pd_cls_data_cfg {
        const char *root, *train, *val;
        int workers;
        bool shuffle;
        pd_train_crop_cfg train_transform;
        pd_val_crop_cfg val_transform;
        bool has_train_transform, has_val_transform; /* false: "none" */
        double mean[3], std[3];
        int bad_images; /* pd_bad_policy */
    } data;
    struct pd_cls_train_cfg {
        int epochs, batch_size, accumulate, log_interval, save_interval;
        int64_t max_steps, seed;
        bool drop_last;
        int loss; /* 0 softmax, 1 bce */
        double label_smoothing, mixup, cutmix, bce_threshold, ema, rank_timeout;
        const char *precision;
    } train;
    pd_optimizer_cfg optimizer;
    pd_schedule schedule;
    const char *work_dir;
} pd_cls_config;

extern const pd_table pd_cls_table;

/* The transforms that the configuration asks for. */
pd_transform pd_cls_train_transform(const pd_cls_config *cfg);
pd_transform pd_cls_val_transform(const pd_cls_config *cfg);

/* The part of a classifier's settings that is the training loss. */
void pd_cls_loss_settings(pd_classifier_settings *out, const pd_cls_config *cfg);

#endif
