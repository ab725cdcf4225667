#include "detectors/fpn.h"
#include "kernels/subsample.h"
#include "kernels/upsample_add.h"

static pd_value *conv(pd_tape *t, const char *list, int index, pd_value *x, int kernel, int stride)
{
    const pd_init init = pd_xavier_uniform(x->shape.dim[3], PD_FPN_CHANNELS, kernel);
    return pd_record_conv(t, pd_tape_name(t, "neck.%s.%d.conv", list, index), x, PD_FPN_CHANNELS, kernel, stride, init,
                          0, false);
}

/* stages[first..3] -> one level each. */
static void pyramid(pd_tape *t, pd_form form, const pd_head_conv *how, const pd_stages *stages, int first, pd_value **p)
{
    const int levels = 4 - first;
    pd_value *lateral[4];
    for (int i = 0; i < levels; i++) lateral[i] = conv(t, "lateral_convs", i, stages->c[first + i], 1, 1);
    for (int i = levels - 1; i > 0; i--) lateral[i - 1] = pd_upsample_add(t, lateral[i], lateral[i - 1]);
    for (int i = 0; i < levels; i++)
        p[i] = pd_record_head_conv(t, form, pd_tape_name(t, "neck.fpn_convs.%d.conv", i), lateral[i], PD_FPN_CHANNELS, how,
                                   pd_xavier_uniform(PD_FPN_CHANNELS, PD_FPN_CHANNELS, 3), false);
}

void pd_record_fpn_retina(pd_tape *t, pd_form form, const pd_head_conv *how, const pd_stages *stages, pd_value *p[5])
{
    pyramid(t, form, how, stages, 1, p);
    p[3] = conv(t, "fpn_convs", 3, stages->c[3], 3, 2);
    p[4] = conv(t, "fpn_convs", 4, p[3], 3, 2);
}

void pd_record_fpn_rcnn(pd_tape *t, pd_form form, const pd_head_conv *how, const pd_stages *stages, pd_value *p[5])
{
    pyramid(t, form, how, stages, 0, p);
    p[4] = pd_subsample(t, p[3], 2);
}
