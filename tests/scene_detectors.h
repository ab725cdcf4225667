/* scene_detectors.h: whole detectors on the CPU and on another device: heads, detections, losses and weights of some
 * steps of training. */
#ifndef PD_SCENE_DETECTORS_H
#define PD_SCENE_DETECTORS_H

#include "tests/scene.h"

/* Detectors whose names contain `only`; in all precisions, or (emulated) in some. */
scene_tally check_detectors(const char *only, pd_device *cpu, pd_device *gpu, bool emulated);

#endif
