#include "detectors/retina_head.h"

#include <math.h>

#define TOWER 4
#define PRIOR 0.01 /* probability of an object that the class biases start with */

static pd_value *tower(pd_tape *t, pd_form form, const pd_head_conv *how, const char *name, pd_value *x)
{
    const pd_init small = {PD_INIT_NORMAL, 0.01};
    for (int i = 0; i < TOWER; i++)
        x = pd_record_head_conv(t, form, pd_tape_name(t, "bbox_head.%s.%d.conv", name, i), x, x->shape.dim[3], how, small,
                                true);
    return x;
}

void pd_record_retina_head(pd_tape *t, pd_form form, const pd_head_conv *towers, pd_value *p, int classes, int anchors,
                           pd_value **cls, pd_value **reg)
{
    const pd_init small = {PD_INIT_NORMAL, 0.01};
    *cls = pd_record_conv(t, "bbox_head.retina_cls", tower(t, form, towers, "cls_convs", p), anchors * classes, 3, 1, small,
                          -log((1 - PRIOR) / PRIOR), false);
    *reg = pd_record_conv(t, "bbox_head.retina_reg", tower(t, form, towers, "reg_convs", p), anchors * 4, 3, 1, small, 0, false);
}
