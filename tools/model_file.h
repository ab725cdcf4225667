/* model_file.h: what a model file says about itself in its metadata, and what the command line adds where it is silent. */
#ifndef PD_MODEL_FILE_H
#define PD_MODEL_FILE_H

#include "backbones/resnet.h"
#include "engine/safetensors.h"

typedef struct pd_model_meta {
    const char *type; /* "classifier", or pd_detector_name: "retinanet", .. */
    pd_arch arch;
    int classes;
    bool folded;
    const char *config;       /* the run's whole configuration, JSON; NULL: unknown */
    const char *const *names; /* (classes) or NULL */
    const int64_t *ids;       /* (classes) COCO category ids or NULL */
    double mean[3], std[3];   /* of pixels in [0, 255] */
} pd_model_meta;

/* Adds the metadata to a file being written. */
pd_status pd_model_meta_write(pd_st_writer *w, const pd_model_meta *meta, pd_err *err);

/* Reads it. arch, branches, classes (NULL / 0: not given) from the command line win over the file and are needed where it
 * has none. type_default where the file does not say. Strings live in the arena. */
pd_status pd_model_meta_read(pd_model_meta *out, const pd_st *file, const char *arch, const char *branches, int classes,
                             const char *type_default, pd_arena *arena, pd_err *err);

/* The mean and deviation of ImageNet's pixels in [0, 255]. */
extern const double pd_imagenet_mean[3], pd_imagenet_std[3];

#endif
