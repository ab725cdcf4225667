/* sample.h: one image of a loader's source through its transform: what the threads of loader.c do. Users include
 * loader.h. */
#ifndef PD_SAMPLE_H
#define PD_SAMPLE_H

#include "datasets/loader.h"

/* What all samples share; read-only while threads run. */
typedef struct pd_source {
    const pd_loader_config *config;
    size_t n;
    pd_normalizer norm;
    int one_h, one_w; /* PD_TRANSFORM_NONE: the size that all images must have, and whose it is */
    char one_path[4096];
} pd_source;

/* What one thread needs; begin with zeros and an arena. */
typedef struct pd_sample_tools {
    pd_arena *arena; /* the file's bytes */
    pd_image picture, spare;
    pd_transform_work work;
} pd_sample_tools;
void pd_sample_tools_free(pd_sample_tools *tools);

/* One place of a batch. */
typedef struct pd_sample {
    pd_image_info info;
    int label, n_boxes;
    pd_box *boxes; /* room for the loader's max_boxes */
    int *box_labels;
    float *pixels;  /* *_CROP: (crop, crop, 3), filled by pd_sample_make */
    pd_image image; /* else: the resized bytes, not yet mirrored nor normalised */
} pd_sample;

/* Fills out from sample number i; the error names the file. */
pd_status pd_sample_make(pd_sample *out, const pd_source *source, uint32_t i, uint32_t epoch, pd_sample_tools *tools,
                         pd_err *err);

/* Size of the picture of sample i after its EXIF turn, from the header. */
pd_status pd_sample_probe(int *h, int *w, const pd_source *source, uint32_t i, pd_sample_tools *tools, pd_err *err);

/* The file of sample i. */
pd_status pd_sample_path(char *buffer, size_t size, const pd_loader_config *config, size_t i, pd_err *err);

/* The image of a coco source. */
static inline const pd_coco_photo *pd_sample_coco(const pd_loader_config *config, size_t i)
{
    return &config->coco->images[config->images ? config->images[i] : i];
}

#endif
