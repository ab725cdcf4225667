/* matches.h: the matched detections of an evaluation, kept for curves and resampling. Private to eval/. */
#ifndef PD_MATCHES_H
#define PD_MATCHES_H

#include "eval/match.h"

/* One detection: area "all". */
typedef struct pd_kept_match {
    double score;
    uint32_t image;
    pd_match fate;
} pd_kept_match;

typedef struct pd_kept_class {
    pd_kept_match *list; /* (n) by falling score, within the largest limit */
    size_t n;
    uint32_t *images; /* (objects) image of each object to be found */
    size_t objects;
} pd_kept_class;

struct pd_coco_matches {
    pd_kept_class *classes;     /* (K) */
    size_t n_classes, n_images; /* images of the ground truth */
    uint32_t *images;           /* those evaluated */
};

#endif
