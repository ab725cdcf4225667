/* resnet.h: ResNet-18/34/50/101/152, plain, SE, GE, AC, PD-A and PD-B: rows of two tables, one builder.
 *
 * He et al. 2016, "Deep Residual Learning", with the stride of a bottleneck on its 3x3 (torchvision's v1.5).
 * Names of parameters are torchvision's and the ParaDise authors': layer1.0.conv1.ori_conv.weight.
 * Input (n, h, w, 3); stage outputs C2..C5 with strides 4, 8, 16, 32 behind the stage's last ReLU. */
#ifndef PD_RESNET_H
#define PD_RESNET_H

#include "backbones/layer.h"

typedef enum pd_family { PD_RESNET, PD_RESNET_SE, PD_RESNET_GE, PD_RESNET_AC, PD_RESNET_PD_A, PD_RESNET_PD_B } pd_family;

typedef struct pd_arch {
    int depth; /* 18, 34, 50, 101, 152 */
    pd_family family;
    unsigned branches; /* of PD-A and PD-B (AC: s1, skeleton) */
} pd_arch;

/* "pd_b_resnet50"; branches NULL or "" for all four. branches given for a family without any is an error. */
pd_status pd_arch_parse(pd_arch *out, const char *name, const char *branches, pd_err *err);
/* "pd_b_resnet50" */
const char *pd_arch_name(char text[32], pd_arch arch);
/* All names that pd_arch_parse knows, comma-separated. */
const char *pd_arch_list(void);

typedef struct pd_stages {
    pd_value *c[4]; /* C2, C3, C4, C5 */
} pd_stages;

/* prefix: "" for a classifier, "backbone." in a detector. */
pd_stages pd_record_resnet(pd_tape *t, pd_form form, const char *prefix, pd_arch arch, pd_value *image);

/* A classifier: stages, global average pool, linear layer "fc". Returns logits (n, classes); stages may be NULL. */
pd_value *pd_record_classifier(pd_tape *t, pd_form form, pd_arch arch, int classes, pd_value *image, pd_stages *stages);

/* Channels of C5. */
int pd_arch_channels(pd_arch arch);

/* Blocks of the four stages, and whether they are bottlenecks; NULL for a depth that is none of the five. */
const int *pd_depth_blocks(int depth, bool *bottleneck);

#endif
