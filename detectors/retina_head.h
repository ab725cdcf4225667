/* retina_head.h: RetinaNet's head: two towers of four 3x3 convolutions, shared by all levels of the pyramid.
 * Lin et al. 2017, "Focal Loss for Dense Object Detection".
 *
 *   p[l]     (n, h, w, 256)
 *   cls[l]   (n, h, w, 9 * classes) logits, one sigmoid per class; bias starts at -log((1 - 0.01) / 0.01)
 *   reg[l]   (n, h, w, 9 * 4) encoded offsets
 * The towers may be of ParaDise convolutions; the two outputs are plain. Parameters: bbox_head.cls_convs.I.conv, bbox_head.reg_convs.I.conv, bbox_head.retina_cls, bbox_head.retina_reg. */
#ifndef PD_RETINA_HEAD_H
#define PD_RETINA_HEAD_H

#include "backbones/layer.h"

void pd_record_retina_head(pd_tape *t, pd_form form, const pd_head_conv *towers, pd_value *p, int classes, int anchors,
                           pd_value **cls, pd_value **reg);

#endif
