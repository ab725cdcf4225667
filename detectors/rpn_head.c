#include "detectors/rpn_head.h"

void pd_record_rpn_head(pd_tape *t, pd_form form, const pd_head_conv *how, pd_value *p, int anchors, pd_value **cls,
                        pd_value **reg)
{
    const pd_init small = {PD_INIT_NORMAL, 0.01};
    pd_value *x =
        pd_record_head_conv(t, form, "rpn_head.rpn_conv", p, p->shape.dim[3], how, small, form != PD_FORM_COUNT);
    *cls = pd_record_conv(t, "rpn_head.rpn_cls", x, anchors, 1, 1, small, 0, false);
    *reg = pd_record_conv(t, "rpn_head.rpn_reg", x, anchors * 4, 1, 1, small, 0, false);
}
