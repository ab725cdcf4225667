/* scene.h: a few operations with inputs of their own, run on the CPU and on another device in each of its precisions,
 * and compared: all results that were named, and all gradients. For losses, boxes and samples; test_cuda.c runs them.
 */
#ifndef PD_SCENE_H
#define PD_SCENE_H

#include "engine/plan.h"
#include "engine/rng.h"

#define SCENE_MOST 32

/* What the host gives: as many floats or ints as its value's shape holds. */
typedef struct scene_input {
    pd_value *value;
    size_t count;
    float *f;
    int *i;
} scene_input;

typedef struct scene {
    pd_tape *tape;
    pd_rng rng; /* the same numbers on every device */
    scene_input in[SCENE_MOST];
    pd_value *result[SCENE_MOST];
    int inputs, results;
} scene;

typedef struct scene_row {
    const char *name;
    void (*record)(scene *, int variant);
    int variant;
    double slack; /* 0: 1; factor of what is allowed */
} scene_row;

typedef struct scene_family {
    const scene_row *row;
    int count;
} scene_family;

extern const scene_family scenes_boxes; /* anchors, matches, samples, targets, proposals */
extern const scene_family scenes_heads; /* losses, RoIAlign, boxes of stages */
extern const scene_family scenes_wrong; /* data out of range */

/* Inputs: normal numbers times scale; whole numbers lo..hi; boxes (.., 4) with corners in -side/8 .. side, sides from 1
 * on. */
scene_input *scene_floats(scene *s, const char *name, pd_shape shape, double scale);
scene_input *scene_ints(scene *s, const char *name, pd_shape shape, int lo, int hi);
scene_input *scene_boxes(scene *s, const char *name, pd_shape shape, double side);
/* A feature map with a gradient, stored as maps are: a parameter behind a 1x1 convolution. */
pd_value *scene_map(pd_tape *t, const char *name, int n, int h, int w, int c);
/* Rows (n, c) with a gradient, as a linear layer gives them. */
pd_value *scene_rows(pd_tape *t, const char *name, int n, int c);

/* Floats are compared by the norm of the difference, whole numbers must be equal. */
void scene_result(scene *s, pd_value *value);
/* The same for a loss, which is minimised with this scale. */
void scene_loss(scene *s, pd_value *loss, double scale);

/* Runs the rows whose names contain `only`. Returns what was checked, for the caller's own count (pd_test.h). */
typedef struct scene_tally {
    int checks, failures;
} scene_tally;
scene_tally check_scenes(const scene_family *family, const char *only, pd_device *cpu, pd_device *gpu);
/* The CPU must refuse the data; elsewhere nobody waits for an error, and all losses must be NaN. */
scene_tally check_refused(const scene_family *family, const char *only, pd_device *cpu, pd_device *gpu);

/* The optimisers' steps, in the same way. */
scene_tally check_updates(const char *only, pd_device *cpu, pd_device *gpu);

/* What is allowed between the CPU's float32 and a precision: of the norm of the difference to the norm. */
#define PRECISIONS 4
typedef struct scene_precision {
    const char *name;
    double forward, gradient;
} scene_precision;
extern const scene_precision precisions[PRECISIONS];
/* The name of the only one that is run; NULL: all are. */
extern const char *only_precision;
bool precision_wanted(int p);

/* |a - b| / (|a| + floor); infinite where a NaN is. */
double distance_above(const float *a, const float *b, size_t n, double floor);
double distance(const float *a, const float *b, size_t n);
double norm(const float *a, size_t n);

#endif
