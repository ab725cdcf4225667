/* rpn_head.h: the region proposal network's head, shared by all levels of the pyramid: a 3x3 convolution (plain or
 * ParaDise) with ReLU, from which two 1x1 convolutions read. Ren et al. 2015, "Faster R-CNN".
 *
 *   p     (n, h, w, 256)
 *   cls   (n, h, w, anchors)       one logit per anchor: an object or none
 *   reg   (n, h, w, anchors * 4)   encoded offsets
 * Parameters: rpn_head.rpn_conv, rpn_head.rpn_cls, rpn_head.rpn_reg. The reference's counter does not see this ReLU, so
 * PD_FORM_COUNT leaves it out. */
#ifndef PD_RPN_HEAD_H
#define PD_RPN_HEAD_H

#include "backbones/layer.h"

void pd_record_rpn_head(pd_tape *t, pd_form form, const pd_head_conv *how, pd_value *p, int anchors, pd_value **cls,
                        pd_value **reg);

#endif
