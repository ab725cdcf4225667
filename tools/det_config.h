/* det_config.h: the configuration of detectors, for pd_det_train and for models without metadata in pd_detect. */
#ifndef PD_DET_CONFIG_H
#define PD_DET_CONFIG_H

#include "datasets/transform.h"
#include "detectors/detector.h"
#include "tools/cls_config.h"
#include "tools/train_run.h"

#define PD_MAX_NAMES 1024

typedef struct pd_det_set_cfg {
    const char *images, *annotations;
} pd_det_set_cfg;

typedef struct pd_det_config {
    struct pd_det_model_cfg {
        int type; /* pd_detector_type */
        int num_classes;
        struct pd_det_backbone_cfg {
            const char *arch, *branches;
            int frozen_stages;
            bool fold_first;
        } backbone;
        struct pd_det_conv_cfg {
            int conv, groups, norm; /* conv: pd_mixture; norm: 0 linear, 1 batch */
            const char *branches;
        } neck, head;
        struct pd_det_retina_cfg {
            double focal_alpha, focal_gamma, smooth_l1_beta, pos_iou, neg_iou, min_pos_iou;
            int norm_group;
        } retinanet;
        struct pd_det_rcnn_cfg {
            int sampler, norm_group; /* sampler: 0 random, 1 first */
            struct pd_det_rpn_cfg {
                double pos_iou, neg_iou, min_pos_iou, pos_fraction, smooth_l1_beta, nms_iou;
                int border, samples, train_pre_nms, train_proposals, test_pre_nms, test_proposals;
            } rpn;
            struct pd_det_stages_cfg {
                double ious[PD_MAX_BOX_STAGES], weights[PD_MAX_BOX_STAGES], stds[4 * PD_MAX_BOX_STAGES];
                int n_ious, n_weights, n_stds, samples;
                double pos_fraction, smooth_l1_beta;
                bool reg_class_agnostic, low_quality;
            } stages;
        } rcnn;
        struct pd_det_test_cfg {
            int pre_nms, max_per_image, topk_mode, nms_type; /* pd_topk_mode, pd_nms_type */
            double score_thr, nms_iou, soft_sigma, soft_min_score;
            bool nms_exact;
        } test;
    } model;
    struct pd_det_data_cfg {
        pd_det_set_cfg train, val;
        const char *classes[PD_MAX_NAMES];
        int n_classes;
        int resize[2]; /* long side, short side */
        int short_sides[PD_MAX_SHORT_SIDES], n_short_sides, short_side_mode; /* mode: 0 value, 1 range */
        double flip;
        bool shuffle, group_aspect, keep_empty;
        int workers, min_side;
        int bad_images; /* pd_bad_policy */
        double mean[3], std[3];
    } data;
    struct pd_det_train_cfg {
        int epochs, images_per_step, micro_batch, log_interval, save_interval, val_interval, pictures;
        int lr_images, early_stop;
        int64_t max_steps, seed;
        double ema, rank_timeout;
        const char *precision;
    } train;
    pd_optimizer_cfg optimizer;
    pd_schedule schedule;
    const char *backbone_file, *work_dir;
} pd_det_config;

extern const pd_table pd_det_table;

/* What the detector is made of, by the configuration. classes: where the configuration says 0. */
pd_status pd_det_settings(pd_detector_settings *out, const pd_det_config *cfg, int classes, pd_err *err);

pd_transform pd_det_transform(const pd_det_config *cfg, bool train);

#endif
