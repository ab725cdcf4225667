/* anchors.h: the reference boxes of dense heads (RetinaNet's, the RPN's): a fixed set per cell of each pyramid level.
 *
 * Base anchors of a level with stride t, ratio r = height / width, scale k (Lin et al. 2017, "Focal Loss"; the float32
 * order of operations is mmdetection's, so that the bits agree):
 *   hr = sqrt(r), wr = 1 / hr, w = (t * wr) * k, h = (t * hr) * k, box (-w/2, -h/2, w/2, h/2)
 * with the ratio as the outer loop. The anchor of cell (y, x) is the base moved by (x*t, y*t): centred on the cell's
 * upper left corner. Flat order: levels fine to coarse, in a level (y*W + x)*A + a, the order in which an NHWC head
 * output (n, H, W, A*K) lies in memory.
 *
 * `rounded` is the mmdetection 1.x variant: centre (t-1)/2, inclusive corners, each rounded to an integer. */
#ifndef PD_ANCHORS_H
#define PD_ANCHORS_H

#include "engine/box.h"
#include "engine/tape.h"

#define PD_MAX_LEVELS 8
#define PD_MAX_CELL_ANCHORS 32

typedef struct pd_anchor_cfg {
    int n_ratios, n_scales;
    float ratios[8], scales[8];
    bool rounded;
} pd_anchor_cfg;

/* RetinaNet: ratios 0.5, 1, 2 and scales 4 * 2^(0/3), 4 * 2^(1/3), 4 * 2^(2/3): 9 anchors. */
pd_anchor_cfg pd_anchor_cfg_retina(void);
/* RPN: the same ratios, scale 8: 3 anchors. */
pd_anchor_cfg pd_anchor_cfg_rpn(void);

/* All anchors of a pyramid, as a rule: a plain value that may be copied. */
typedef struct pd_anchor_grid {
    int levels, per_cell;
    int h[PD_MAX_LEVELS], w[PD_MAX_LEVELS], stride[PD_MAX_LEVELS];
    int first[PD_MAX_LEVELS + 1]; /* flat index of each level's first anchor; the last is the total */
    pd_box base[PD_MAX_LEVELS][PD_MAX_CELL_ANCHORS];
} pd_anchor_grid;

/* h, w, stride: (levels), fine to coarse. PD_EINVAL where a number is out of range or the total exceeds an int. */
pd_status pd_anchor_grid_init(pd_anchor_grid *out, const pd_anchor_cfg *cfg, int levels, const int *h, const int *w,
                              const int *stride, pd_err *err);

static inline int pd_anchor_count(const pd_anchor_grid *grid)
{
    return grid->first[grid->levels];
}

/* n_ratios * n_scales base anchors of one level. */
void pd_anchor_base(pd_box *out, const pd_anchor_cfg *cfg, int stride);

/* Anchors [begin, end) into out[0..end-begin). */
void pd_anchor_fill(pd_box *out, const pd_anchor_grid *grid, int begin, int end);

/* Which anchors [begin, end) take part in training, 1 or 0, for an image whose size[4] is h, w, pad_h, pad_w:
 * the cell starts within the image's own padded size: y < ceil(pad_h / t) and x < ceil(pad_w / t); and, if
 * border >= 0, x1 >= -border, y1 >= -border, x2 < w + border, y2 < h + border. */
void pd_anchor_flags(unsigned char *out, const pd_anchor_grid *grid, const int size[4], int border, int begin, int end);

/* On a tape: (anchors, 4). */
pd_value *pd_anchors(pd_tape *tape, const pd_anchor_grid *grid);

#endif
