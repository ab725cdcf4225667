#include "detectors/box_stage.h"
#include "backbones/layer.h"
#include "kernels/linear.h"
#include "kernels/roi_align.h"

#define ROI_SIZE 7
#define HIDDEN 1024

/* A linear layer with bias 0; x (m, in), or a feature map (m, r, s, c) that files see flattened as (c, r, s). */
static pd_value *linear(pd_tape *t, const char *name, pd_value *x, int out, pd_init init, bool relu)
{
    if (pd_tape_status(t, NULL) != PD_OK) return pd_tape_dead(t);
    const int *d = x->shape.dim;
    pd_param w = {.rank = 2, .dim = {out, d[1]}, .kind = PD_WEIGHT, .init = init};
    const pd_param b = {.rank = 1, .dim = {out}, .kind = PD_WEIGHT};
    if (x->shape.rank == 4) {
        w.dim[1] = d[1] * d[2] * d[3];
        w.layout = PD_LAYOUT_FLAT;
        for (int i = 0; i < 3; i++) w.rsi[i] = d[i + 1];
    }
    pd_value *weight = pd_tape_param(t, pd_tape_name(t, "%s.weight", name), &w);
    pd_value *bias = pd_tape_param(t, pd_tape_name(t, "%s.bias", name), &b);
    return pd_linear(t, name, x, weight, bias, relu);
}

void pd_record_box_stage(pd_tape *t, const char *name, pd_value *const p[PD_ROI_LEVELS], pd_value *rois,
                         pd_value *n_rois, int classes, int boxes, pd_value **cls, pd_value **reg)
{
    static const int strides[PD_ROI_LEVELS] = {4, 8, 16, 32};
    const pd_init small = {PD_INIT_NORMAL, 0.01}, smaller = {PD_INIT_NORMAL, 0.001};
    pd_value *x = pd_roi_align(t, p, strides, PD_ROI_LEVELS, rois, n_rois, ROI_SIZE, 0);
    const int in = ROI_SIZE * ROI_SIZE * p[0]->shape.dim[3];
    x = linear(t, pd_tape_name(t, "%s.shared_fcs.0", name), x, HIDDEN, pd_xavier_uniform(in, HIDDEN, 1), true);
    x = linear(t, pd_tape_name(t, "%s.shared_fcs.1", name), x, HIDDEN, pd_xavier_uniform(HIDDEN, HIDDEN, 1), true);
    *cls = linear(t, pd_tape_name(t, "%s.fc_cls", name), x, classes + 1, small, false);
    *reg = linear(t, pd_tape_name(t, "%s.fc_reg", name), x, 4 * boxes, smaller, false);
}
