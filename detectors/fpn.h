/* fpn.h: the feature pyramid. Lin et al. 2017, "Feature Pyramid Networks for Object Detection".
 *
 * Lateral 1x1 convolutions (with bias) of the backbone's stages, a top-down path of nearest upsampling and addition, a 3x3
 * output convolution per level; RetinaNet adds P6 and P7 by strided 3x3 convolutions without activation between them,
 * two-stage detectors a P6 that is every second row and column of P5. 256 channels everywhere. The output
 * convolutions may be ParaDise ones. Parameters: neck.lateral_convs.I.conv, neck.fpn_convs.I.conv (mmdetection's names;
 * P6 and P7 are the convolutions behind the last level's). */
#ifndef PD_FPN_H
#define PD_FPN_H

#include "backbones/resnet.h"

#define PD_FPN_CHANNELS 256

/* C3, C4, C5 -> p[0..4] = P3..P7, strides 8, 16, 32, 64, 128; P6 from C5. */
void pd_record_fpn_retina(pd_tape *t, pd_form form, const pd_head_conv *how, const pd_stages *stages, pd_value *p[5]);
/* C2, C3, C4, C5 -> p[0..4] = P2..P6, strides 4, 8, 16, 32, 64. */
void pd_record_fpn_rcnn(pd_tape *t, pd_form form, const pd_head_conv *how, const pd_stages *stages, pd_value *p[5]);

#endif
