/* load_model.h: opens a model file as a classifier or a detector. */
#ifndef PD_LOAD_MODEL_H
#define PD_LOAD_MODEL_H

#include "backbones/classifier.h"
#include "tools/cli.h"
#include "tools/cls_config.h"
#include "tools/det_config.h"
#include "tools/model_file.h"

/* What the command line says where the file is silent, or against it. */
typedef struct pd_model_hints {
    const char *arch, *branches;
    int classes;
    const char *config;     /* detectors: a configuration in place of the file's */
    const pd_strings *sets; /* --set for it */
    bool lenient;
} pd_model_hints;

typedef struct pd_model {
    pd_model_meta meta;
    pd_classifier *classifier; /* one of the two */
    pd_detector *detector;
    pd_cls_config cls; /* the configuration: the file's, or defaults */
    pd_det_config det;
    pd_arena *arena;
} pd_model;

/* type: "classifier", "detector" (any), or NULL for whatever the file says (a classifier if it does not). */
pd_status pd_model_open(pd_model *out, const char *path, const char *type, const pd_model_hints *hints, pd_device *device,
                        pd_err *err);
void pd_model_close(pd_model *model);

#endif
